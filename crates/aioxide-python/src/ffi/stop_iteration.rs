//! `StopIteration` that costs next to nothing, for values that native awaitables return.
//!
//! From 3.12 on the interpreter resumes an awaitable through `tp_iternext`, so that every value that is awaited
//! travels as a `StopIteration`. Making and freeing one of CPython's takes as long as the rest of the wait. So we have
//! a subclass, whose instances are kept for reuse together with the tuple of their arguments.
//!
//! Invariants: an instance on the list has no dict, notes, traceback, context or cause, does not suppress its context, its value is NULL, and its
//! arguments are a tuple of one item, `None`, that nobody else refers to.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;

use super::errors::{Builtin, Raised};
use super::object::{Obj, PyRes};

/// How many to keep: as many as may be on their way at a time, which is more than one only in strange programs.
const KEPT: usize = 8;

/// The subclass; NULL before it is made.
static CLASS: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// Instances for reuse.
struct Free(UnsafeCell<Vec<*mut ffi::PyStopIterationObject>>);

// SAFETY: used under the GIL alone.
unsafe impl Sync for Free {}

/// Instances for reuse.
static FREE: Free = Free(UnsafeCell::new(Vec::new()));

/// Makes the subclass.
pub(super) fn init() -> PyRes<()> {
    let mut slots = [
        ffi::PyType_Slot {
            slot: ffi::Py_tp_dealloc,
            pfunc: dealloc as *mut _,
        },
        ffi::PyType_Slot {
            slot: 0,
            pfunc: ptr::null_mut(),
        },
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"aioxide.StopIteration".as_ptr(),
        basicsize: 0,
        itemsize: 0,
        flags: u32::try_from(ffi::Py_TPFLAGS_DEFAULT).unwrap_or(0),
        slots: slots.as_mut_ptr(),
    };
    let base = Builtin::StopIteration.class();
    // SAFETY: a complete spec that the call copies, and a live base, whose size and collector's slots are inherited.
    let class = unsafe { Obj::owned(ffi::PyType_FromSpecWithBases(&raw mut spec, base.raw())) }?;
    CLASS.store(class.into_raw().cast(), Ordering::Relaxed);
    Ok(())
}

/// Raises `StopIteration(value)` for the interpreter, which takes the value out at once.
pub(super) fn raise(value: Obj) -> Raised {
    // SAFETY: the borrow ends here.
    let kept = unsafe { (*FREE.0.get()).pop() };
    let object = match kept {
        Some(object) => object,
        None => match blank() {
            Ok(object) => object,
            Err(raised) => return raised,
        },
    };
    let raw = value.into_raw();
    // SAFETY: by the file's invariants nobody else knows the object or its tuple, whose item is the immortal `None`;
    // one reference to the value was ours, the other is made here.
    unsafe {
        ffi::Py_INCREF(raw);
        (*object).value = raw;
        ffi::PyTuple_SET_ITEM((*object).args, 0, raw);
    }
    // SAFETY: both are objects of the collector's, in no list of it.
    unsafe {
        ffi::PyObject_GC_Track((*object).args.cast());
        ffi::PyObject_GC_Track(object.cast());
    }
    // SAFETY: an exception whose reference is given away.
    unsafe { ffi::PyErr_SetRaisedException(object.cast()) };
    Raised::SET
}

/// A new instance in the state of those on the list, with one reference.
#[cold]
fn blank() -> PyRes<*mut ffi::PyStopIterationObject> {
    let class = CLASS.load(Ordering::Relaxed);
    let args = Obj::tuple([Obj::none()])?;
    // SAFETY: the class is made first of all; its allocator gives zeroed memory, which is a valid exception but for
    // the arguments.
    unsafe {
        let raw = ffi::PyType_GenericAlloc(class, 0);
        if raw.is_null() {
            return Err(Raised::SET);
        }
        ffi::PyObject_GC_UnTrack(raw.cast());
        ffi::PyObject_GC_UnTrack(args.raw().cast());
        let object = raw.cast::<ffi::PyStopIterationObject>();
        (*object).args = args.into_raw();
        Ok(object)
    }
}

/// `tp_dealloc`: back to the list if nobody has kept or added anything, else CPython's own way.
unsafe extern "C" fn dealloc(raw: *mut ffi::PyObject) {
    let object = raw.cast::<ffi::PyStopIterationObject>();
    // SAFETY: a dying instance.
    unsafe {
        ffi::PyObject_GC_UnTrack(raw.cast());
        let args = (*object).args;
        let untouched = (*object).dict.is_null()
            && (*object).notes.is_null()
            && (*object).traceback.is_null()
            && (*object).context.is_null()
            && (*object).cause.is_null()
            // A byte in C.
            && (&raw const (*object).suppress_context).cast::<u8>().read() == 0
            && !args.is_null()
            && ffi::Py_REFCNT(args) == 1
            && ffi::PyTuple_CheckExact(args) != 0
            && ffi::PyTuple_GET_SIZE(args) == 1
            && (*FREE.0.get()).len() < KEPT;
        if untouched {
            ffi::PyObject_GC_UnTrack(args.cast());
            let item = ffi::PyTuple_GET_ITEM(args, 0);
            ffi::PyTuple_SET_ITEM(args, 0, ffi::Py_None());
            #[cfg(Py_3_14)]
            {
                // Somebody may have asked for the hash, which the tuple keeps.
                (*args.cast::<ffi::PyTupleObject>()).ob_hash = -1;
            }
            let value = std::mem::take(&mut (*object).value);
            // The count starts again at one: the reference that `raise` gives away.
            super::native::revive(raw);
            (*FREE.0.get()).push(object);
            // Last, since this may run any code.
            ffi::Py_DECREF(item);
            ffi::Py_XDECREF(value);
            return;
        }
        let class = ffi::Py_TYPE(raw);
        let base = ffi::PyExc_StopIteration.cast::<ffi::PyTypeObject>();
        // CPython's way takes the object for one that is still tracked.
        ffi::PyObject_GC_Track(raw.cast());
        if let Some(dealloc) = (*base).tp_dealloc {
            dealloc(raw);
        }
        ffi::Py_DECREF(class.cast());
    }
}
