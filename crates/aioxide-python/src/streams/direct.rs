//! The way from a native writer straight to a native transport: no look-up of a method and no call through Python.
//!
//! Transports stand above streams, so theirs says here what it can do when its class is made. Whether an object is such
//! a transport, and none of its methods was replaced, is asked for each call: that costs a few loads and compares.

use crate::ffi::{GilCell, Obj, PyRes};

/// What a native transport does for a writer. The functions take what `is_plain` said yes to.
pub(crate) struct DirectTransport {
    /// Is this exactly such a transport, all its methods native?
    pub is_plain: fn(&Obj) -> bool,
    /// `write(data)`.
    pub write: fn(&Obj, &Obj) -> PyRes<()>,
    /// `writelines(list_of_data)`.
    pub write_lines: fn(&Obj, &Obj) -> PyRes<()>,
    /// `close()`.
    pub close: fn(&Obj) -> PyRes<()>,
    /// `is_closing()`.
    pub is_closing: fn(&Obj) -> PyRes<bool>,
}

/// The native transport of streams.
static NATIVE: GilCell<Option<&'static DirectTransport>> = GilCell::new(None);

/// Makes the native transport known.
pub(crate) fn set_direct_transport(native: &'static DirectTransport) {
    NATIVE.set(Some(native));
}

/// The direct way to `transport`, if there is one.
#[inline]
pub(super) fn direct_transport(transport: &Obj) -> Option<&'static DirectTransport> {
    NATIVE.get().filter(|native| (native.is_plain)(transport))
}
