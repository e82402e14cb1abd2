//! The descriptor inside a socket object, without a call of `fileno`.

use std::ffi::c_int;

use pyo3::ffi;

use super::object::Obj;

/// Where a `_socket.socket` has its descriptor: right behind the object's head.
const OFFSET: usize = size_of::<ffi::PyObject>();

impl Obj {
    /// The number behind the object's head, which in a `_socket.socket` is the descriptor: -1 once it is closed or
    /// detached. For other objects it means nothing, or is missing. Whoever goes by it has compared it with `fileno()`.
    #[inline]
    pub(crate) fn descriptor_in_socket(&self) -> Option<c_int> {
        // SAFETY: a live object has a live type, and so much memory as the type says.
        unsafe {
            let class = ffi::Py_TYPE(self.raw());
            if usize::try_from((*class).tp_basicsize).unwrap_or(0) < OFFSET + size_of::<c_int>() {
                return None;
            }
            Some(self.raw().byte_add(OFFSET).cast::<c_int>().read())
        }
    }
}
