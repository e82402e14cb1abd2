//! Names interned once and objects imported once.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;

use super::errors::Raised;
use super::function::intern;
use super::object::{Obj, PyRes};

/// An interned `str`, made when first used and kept for ever.
pub(crate) struct Interned {
    /// The text.
    text: &'static str,
    /// The `str`, or NULL.
    value: AtomicPtr<ffi::PyObject>,
}

impl Interned {
    /// A name that is still to be interned.
    pub(crate) const fn new(text: &'static str) -> Self {
        Self {
            text,
            value: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The `str`.
    #[inline]
    pub(crate) fn get(&'static self) -> &'static Obj {
        if self.value.load(Ordering::Relaxed).is_null() {
            self.value
                .store(intern(self.text).into_raw(), Ordering::Relaxed);
        }
        // SAFETY: the pointer was leaked into a static, so it is never written again and the object lives on.
        unsafe { Obj::peek(&*self.value.as_ptr()) }
    }
}

/// An attribute of a module, imported when first used and kept for ever.
pub(crate) struct Imported {
    /// The module.
    module: &'static str,
    /// The dotted path in it; empty for the module itself.
    path: &'static str,
    /// The object, or NULL.
    value: AtomicPtr<ffi::PyObject>,
}

impl Imported {
    /// An object that is still to be imported.
    pub(crate) const fn new(module: &'static str, path: &'static str) -> Self {
        Self {
            module,
            path,
            value: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The object.
    #[inline]
    pub(crate) fn get(&'static self) -> PyRes<&'static Obj> {
        if self.value.load(Ordering::Relaxed).is_null() {
            self.load()?;
        }
        // SAFETY: the pointer was leaked into a static, so it is never written again and the object lives on.
        Ok(unsafe { Obj::peek(&*self.value.as_ptr()) })
    }

    /// Imports it. The exception that is being handled, if any, waits meanwhile.
    #[cold]
    fn load(&'static self) -> PyRes<()> {
        let mut outcome = Ok(());
        let pending = Raised::is_set().then(|| Raised::SET.take());
        if let Err(raised) = self.load_now() {
            outcome = Err(raised);
        }
        match (pending, outcome) {
            (None, outcome) => outcome,
            (Some(pending), Ok(())) => {
                let _ = Raised::restore(pending);
                Ok(())
            }
            // The import's failure is the newer error.
            (Some(_), Err(raised)) => Err(raised),
        }
    }

    /// Imports it, with no exception set.
    fn load_now(&'static self) -> PyRes<()> {
        let mut object = Obj::import(self.module)?;
        if self.module.contains('.') {
            // `import a.b` gives `a`'s entry in `sys.modules` by the full name.
            object = Obj::import("sys")?
                .getattr_str("modules")?
                .item(&Obj::str(self.module)?)?;
        }
        for name in self.path.split('.').filter(|name| !name.is_empty()) {
            object = object.getattr_str(name)?;
        }
        self.value.store(object.into_raw(), Ordering::Relaxed);
        Ok(())
    }
}

/// A process-wide reference that is set once, when the module is imported.
pub(crate) struct GilSlot(AtomicPtr<ffi::PyObject>);

impl GilSlot {
    /// An empty slot.
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Sets it; what was there lives on.
    pub(crate) fn set(&self, object: &Obj) {
        self.0.store(object.clone().into_raw(), Ordering::Relaxed);
    }

    /// The object; fails before it is set.
    pub(crate) fn get(&self) -> PyRes {
        let raw = self.0.load(Ordering::Relaxed);
        if raw.is_null() {
            return Err(Raised::runtime_error("aioxide is not initialised"));
        }
        // SAFETY: a reference that `set` leaked.
        Ok(unsafe { Obj::borrowed(raw) })
    }
}
