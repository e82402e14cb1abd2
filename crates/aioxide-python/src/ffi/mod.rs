//! The binding's only unsafe code: CPython's C API behind safe faces.
//!
//! Every other module works with [`Obj`] (a counted reference), [`Ref`] (the same, of a known native class),
//! [`Slot`] (a field that holds one), [`Raised`] (the mark that an exception is set) and [`ClassBuilder`]. All of them
//! stand on one premise: whoever holds a reference holds the GIL, since references are not `Send` and come only from
//! calls by the interpreter. For builds of Python without the GIL it does not compile.

mod buffer;
mod descriptor;
mod errors;
mod function;
mod imported;
mod machine;
mod native;
mod object;
pub(crate) mod openssl;
mod sending;
#[cfg(Py_3_12)]
mod stop_iteration;
pub(crate) mod task_state;
mod thread;
#[cfg(not(Py_3_14))]
mod trashcan;
mod weak;

pub(crate) use buffer::Buffer;
pub(crate) use errors::{
    Builtin, Raised, Warning, finally, os_error, os_error_instance, preserving_exception, warn,
    warn_resource, while_handling,
};
pub(crate) use function::{Args, Kind, add_to_module, function, function_code, function_frame};
pub(crate) use imported::{GilSlot, Imported, Interned};
pub(crate) use machine::{Machine, MachineBox, Resume};
pub(crate) use native::{
    Class, ClassBuilder, Compare, Counter, Extends, GilCell, Layout, Native, Ref, Sent, Visit,
    link_future_class,
};
pub(crate) use object::{Obj, PyRes, Slot};
pub(crate) use openssl::{MemoryBio, Progress, Session, Stop};
pub(crate) use sending::{
    awaitable_iterator, copy_current_context, in_context, send, stop_iteration, throw,
};
pub(crate) use thread::{check_signals, ident, without_gil};

/// Makes the classes that all others need.
pub(crate) fn init() -> PyRes<()> {
    #[cfg(Py_3_12)]
    stop_iteration::init()?;
    function::make_function_classes()
}

/// Takes a module that PyO3 made as a plain object.
pub(crate) fn module_object(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> Obj {
    // SAFETY: a live object.
    unsafe { Obj::borrowed(module.as_ptr()) }
}

/// The exception that is set, as PyO3 hands it on.
pub(crate) fn into_pyerr(py: pyo3::Python<'_>, raised: Raised) -> pyo3::PyErr {
    let exception = raised.take();
    // SAFETY: a live exception object whose reference is given away.
    let any = unsafe { pyo3::Bound::from_owned_ptr(py, exception.into_raw()) };
    pyo3::PyErr::from_value(any)
}
