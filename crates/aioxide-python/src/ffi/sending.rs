//! Driving coroutines and other awaitables: `send`, `throw`, `StopIteration`, contexts.

use std::ptr;

use pyo3::ffi;

use super::errors::{Builtin, Raised};
use super::native::Sent;
use super::object::{Obj, PyRes};

unsafe extern "C" {
    /// Sets `StopIteration(value)`, wrapping tuples and exceptions as generators do.
    fn _PyGen_SetStopIterationValue(value: *mut ffi::PyObject) -> std::ffi::c_int;
    /// Takes the value of a set `StopIteration` (`None` if nothing is set); fails for other exceptions.
    fn _PyGen_FetchStopIterationValue(value: *mut *mut ffi::PyObject) -> std::ffi::c_int;
}

/// Raises `StopIteration(value)`, so that `value` arrives as it is; `None` is left out, as generators do.
pub(crate) fn stop_iteration(value: &Obj) -> Raised {
    if value.is_none() {
        return Builtin::StopIteration.raise_bare();
    }
    // SAFETY: a live value.
    unsafe { _PyGen_SetStopIterationValue(value.raw()) };
    Raised::SET
}

/// The value of the `StopIteration` that is set; any other exception stays.
pub(crate) fn stop_iteration_value(raised: Raised) -> PyRes {
    let mut value = ptr::null_mut();
    // SAFETY: a place for the result.
    if unsafe { _PyGen_FetchStopIterationValue(&raw mut value) } < 0 {
        return Err(raised);
    }
    // SAFETY: a new reference.
    unsafe { Obj::owned(value) }
}

/// Drives an iterator or coroutine with a value.
#[inline]
pub(crate) fn send(target: &Obj, value: &Obj) -> PyRes<Sent> {
    let mut result = ptr::null_mut();
    // SAFETY: live objects, a place for the result.
    match unsafe { ffi::PyIter_Send(target.raw(), value.raw(), &raw mut result) } {
        // SAFETY: a new reference.
        ffi::PySendResult::PYGEN_NEXT => Ok(Sent::Yield(unsafe { Obj::steal(result) })),
        // SAFETY: a new reference.
        ffi::PySendResult::PYGEN_RETURN => Ok(Sent::Return(unsafe { Obj::steal(result) })),
        ffi::PySendResult::PYGEN_ERROR => Err(Raised::SET),
    }
}

/// Throws an exception instance into an iterator or coroutine; one without `throw` raises it at once.
pub(crate) fn throw(target: &Obj, exception: &Obj) -> PyRes<Sent> {
    let thrown = match target.getattr_opt(crate::names::throw())? {
        Some(method) => method.call([exception]),
        None => Err(Raised::raise(exception)),
    };
    match thrown {
        Ok(value) => Ok(Sent::Yield(value)),
        Err(raised) if raised.is(Builtin::StopIteration) => {
            Ok(Sent::Return(stop_iteration_value(raised)?))
        }
        Err(raised) => Err(raised),
    }
}

/// The iterator behind an awaitable, as the `await` expression gets it.
pub(crate) fn awaitable_iterator(object: &Obj) -> PyRes {
    if object.is_coroutine() {
        return Ok(object.clone());
    }
    if object.is_generator() {
        // SAFETY: a generator has a code object; the flag marks `types.coroutine`.
        let flags = object
            .getattr_str("gi_code")?
            .getattr_str("co_flags")?
            .as_i64()?;
        if flags & i64::from(ffi::CO_ITERABLE_COROUTINE) != 0 {
            return Ok(object.clone());
        }
    }
    // SAFETY: a live object's live type; its table of async methods may be missing.
    let slot = unsafe {
        let table = (*ffi::Py_TYPE(object.raw())).tp_as_async;
        if table.is_null() {
            None
        } else {
            (*table).am_await
        }
    };
    let Some(slot) = slot else {
        let name = object.class_name();
        return Err(Raised::type_error(&if cfg!(Py_3_14) {
            format!("'{name}' object can't be awaited")
        } else {
            format!("object {name} can't be used in 'await' expression")
        }));
    };
    // SAFETY: the slot with its own instance.
    let iterator = unsafe { Obj::owned(slot(object.raw())) }?;
    if iterator.is_coroutine() {
        return Err(Raised::type_error("__await__() returned a coroutine"));
    }
    // SAFETY: any object may be asked.
    if unsafe { ffi::PyIter_Check(iterator.raw()) } == 0 {
        return Err(Raised::type_error(&format!(
            "__await__() returned non-iterator of type '{}'",
            iterator.class_name()
        )));
    }
    Ok(iterator)
}

/// A copy of the current context.
#[inline]
pub(crate) fn copy_current_context() -> PyRes {
    // SAFETY: plain constructor.
    unsafe { Obj::owned(ffi::PyContext_CopyCurrent()) }
}

/// Runs `body` inside `context`; leaves it on every path. Fails if the context is already entered.
#[inline]
pub(crate) fn in_context<R>(context: &Obj, body: impl FnOnce() -> PyRes<R>) -> PyRes<R> {
    /// Leaves the context when the body is over, a panic included.
    struct Entered<'a>(&'a Obj);
    impl Drop for Entered<'_> {
        fn drop(&mut self) {
            // SAFETY: entered below. The exception that is set, if any, stays: leaving sets one only if it fails.
            unsafe { ffi::PyContext_Exit(self.0.raw()) };
        }
    }
    // SAFETY: the call checks that it is a context.
    if unsafe { ffi::PyContext_Enter(context.raw()) } < 0 {
        return Err(Raised::SET);
    }
    let _entered = Entered(context);
    body()
}
