//! Weak references.

use std::ptr;

use pyo3::ffi;

use super::object::{Obj, PyRes, truth};

impl Obj {
    /// `weakref.ref(self)`.
    pub(crate) fn weak_reference(&self) -> PyRes {
        // SAFETY: the call checks that `self` may be referred to weakly; there is no callback.
        unsafe { Self::owned(ffi::PyWeakref_NewRef(self.raw(), ptr::null_mut())) }
    }

    /// What a weak reference refers to, while that lives. Other objects are called for it, as asyncio would do.
    #[inline]
    pub(crate) fn referent(&self) -> PyRes<Option<Self>> {
        // SAFETY: a type test.
        if unsafe { ffi::PyWeakref_CheckRef(self.raw()) } == 0 {
            return self
                .call([])
                .map(|object| (!object.is_none()).then_some(object));
        }
        let mut object = ptr::null_mut();
        // SAFETY: a weak reference and a place for a new reference.
        let alive = unsafe { ffi::compat::PyWeakref_GetRef(self.raw(), &raw mut object) };
        // SAFETY: a new reference, says the answer.
        Ok(truth(alive)?.then(|| unsafe { Self::steal(object) }))
    }
}
