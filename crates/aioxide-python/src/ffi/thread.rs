//! The thread: the GIL, pending signals, the identity.

use pyo3::ffi;

use super::object::{PyRes, done};

/// Runs `body` with the GIL released; it must touch no Python object.
pub(crate) fn without_gil<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    /// Takes the GIL back when the body is over, a panic included.
    struct Released(*mut ffi::PyThreadState);
    impl Drop for Released {
        fn drop(&mut self) {
            // SAFETY: the state saved below, restored once.
            unsafe { ffi::PyEval_RestoreThread(self.0) };
        }
    }
    // SAFETY: the caller holds the GIL.
    let _released = Released(unsafe { ffi::PyEval_SaveThread() });
    body()
}

/// Runs Python's signal handlers if signals came in (main thread only).
#[inline]
pub(crate) fn check_signals() -> PyRes<()> {
    // SAFETY: the caller holds the GIL.
    done(unsafe { ffi::PyErr_CheckSignals() })
}

/// The identity of this thread, as `threading.get_ident` gives it.
#[expect(
    clippy::useless_conversion,
    reason = "the C type's width differs between platforms"
)]
pub(crate) fn ident() -> u64 {
    // SAFETY: no preconditions.
    u64::from(unsafe { ffi::PyThread_get_thread_ident() })
}
