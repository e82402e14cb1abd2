//! Exceptions: raising, catching and looking at them.

use std::ptr;

use pyo3::ffi;

use super::object::{Obj, PyRes, done};

/// The mark that an exception is set in the thread state, as NULL is in C.
#[derive(Debug)]
#[must_use = "an exception is set: hand it on, or say `discard`"]
pub(crate) struct Raised(());

/// The builtin exceptions that asyncio raises.
#[derive(Clone, Copy)]
pub(crate) enum Builtin {
    /// `AssertionError`.
    Assertion,
    /// `AttributeError`.
    Attribute,
    /// `BlockingIOError`.
    BlockingIo,
    /// `ConnectionError`.
    Connection,
    /// `InterruptedError`.
    Interrupted,
    /// `ConnectionAbortedError`.
    ConnectionAborted,
    /// `ConnectionResetError`.
    ConnectionReset,
    /// `NotImplementedError`.
    NotImplemented,
    /// `OSError`.
    Os,
    /// `OverflowError`.
    Overflow,
    /// `RuntimeError`.
    Runtime,
    /// `StopAsyncIteration`.
    StopAsyncIteration,
    /// `StopIteration`.
    StopIteration,
    /// `SystemError`.
    System,
    /// `TimeoutError`.
    Timeout,
    /// `TypeError`.
    Type,
    /// `ValueError`.
    Value,
    /// `Exception`.
    Exception,
    /// `GeneratorExit`.
    GeneratorExit,
    /// `KeyboardInterrupt`.
    KeyboardInterrupt,
    /// `SystemExit`.
    SystemExit,
}

impl Builtin {
    /// The class, borrowed from the interpreter.
    fn raw(self) -> *mut ffi::PyObject {
        // SAFETY: reading statics that the interpreter sets up before any extension is loaded.
        unsafe {
            match self {
                Self::Assertion => ffi::PyExc_AssertionError,
                Self::Attribute => ffi::PyExc_AttributeError,
                Self::BlockingIo => ffi::PyExc_BlockingIOError,
                Self::Connection => ffi::PyExc_ConnectionError,
                Self::Interrupted => ffi::PyExc_InterruptedError,
                Self::ConnectionAborted => ffi::PyExc_ConnectionAbortedError,
                Self::ConnectionReset => ffi::PyExc_ConnectionResetError,
                Self::NotImplemented => ffi::PyExc_NotImplementedError,
                Self::Os => ffi::PyExc_OSError,
                Self::Overflow => ffi::PyExc_OverflowError,
                Self::Runtime => ffi::PyExc_RuntimeError,
                Self::StopAsyncIteration => ffi::PyExc_StopAsyncIteration,
                Self::StopIteration => ffi::PyExc_StopIteration,
                Self::System => ffi::PyExc_SystemError,
                Self::Timeout => ffi::PyExc_TimeoutError,
                Self::Type => ffi::PyExc_TypeError,
                Self::Value => ffi::PyExc_ValueError,
                Self::Exception => ffi::PyExc_Exception,
                Self::GeneratorExit => ffi::PyExc_GeneratorExit,
                Self::KeyboardInterrupt => ffi::PyExc_KeyboardInterrupt,
                Self::SystemExit => ffi::PyExc_SystemExit,
            }
        }
    }

    /// The class.
    pub(crate) fn class(self) -> Obj {
        // SAFETY: builtin exceptions live as long as the interpreter.
        unsafe { Obj::borrowed(self.raw()) }
    }

    /// Raises it with a message.
    #[cold]
    pub(crate) fn raise(self, message: &str) -> Raised {
        match Obj::str(message) {
            // SAFETY: a class and a `str`.
            Ok(text) => unsafe { ffi::PyErr_SetObject(self.raw(), text.raw()) },
            Err(raised) => return raised,
        }
        Raised::SET
    }

    /// Raises it without arguments.
    #[cold]
    pub(crate) fn raise_bare(self) -> Raised {
        // SAFETY: a class.
        unsafe { ffi::PyErr_SetNone(self.raw()) };
        Raised::SET
    }

    /// An instance with one message, not raised.
    pub(crate) fn instance(self, message: &str) -> PyRes {
        self.class().call([&Obj::str(message)?])
    }

    /// Is `object` an instance of this class?
    pub(crate) fn is_class_of(self, object: &Obj) -> bool {
        // SAFETY: both are live; a subtype test alone.
        object.is_exception()
            && unsafe { ffi::PyErr_GivenExceptionMatches(object.raw(), self.raw()) != 0 }
    }
}

#[expect(
    clippy::unused_self,
    reason = "the mark proves that an exception is set"
)]
impl Raised {
    /// The mark itself; whoever makes one has seen that the exception is set.
    pub(super) const SET: Self = Self(());

    /// Raises `TypeError`.
    #[cold]
    pub(crate) fn type_error(message: &str) -> Self {
        Builtin::Type.raise(message)
    }

    /// Raises `ValueError`.
    #[cold]
    pub(crate) fn value_error(message: &str) -> Self {
        Builtin::Value.raise(message)
    }

    /// Raises `RuntimeError`.
    #[cold]
    pub(crate) fn runtime_error(message: &str) -> Self {
        Builtin::Runtime.raise(message)
    }

    /// Raises what assigning (or deleting) a `property` of Python's without a setter raises.
    #[cold]
    pub(crate) fn no_setter(object: &Obj, name: &str, value: Option<&Obj>) -> Self {
        let class = object
            .class()
            .getattr_str("__qualname__")
            .and_then(|name| name.repr());
        let missing = if value.is_some() { "setter" } else { "deleter" };
        match class {
            Ok(class) => Builtin::Attribute.raise(&format!(
                "property '{name}' of {class} object has no {missing}"
            )),
            Err(raised) => raised,
        }
    }

    /// Raises `class(message)`.
    #[cold]
    pub(crate) fn with(class: &Obj, message: &str) -> Self {
        match Obj::str(message) {
            // SAFETY: the call checks that `class` is an exception class.
            Ok(text) => unsafe { ffi::PyErr_SetObject(class.raw(), text.raw()) },
            Err(raised) => return raised,
        }
        Self::SET
    }

    /// Raises `class()`.
    #[cold]
    pub(crate) fn bare(class: &Obj) -> Self {
        // SAFETY: the call checks that `class` is an exception class.
        unsafe { ffi::PyErr_SetNone(class.raw()) };
        Self::SET
    }

    /// Raises an exception object as it is: traceback, cause and context stay its own.
    pub(crate) fn restore(exception: Obj) -> Self {
        #[cfg(Py_3_12)]
        // SAFETY: an exception instance whose reference is given away.
        unsafe {
            ffi::PyErr_SetRaisedException(exception.into_raw());
        }
        #[cfg(not(Py_3_12))]
        // SAFETY: class, instance and traceback, each reference given away.
        unsafe {
            let raw = exception.into_raw();
            let class = ffi::Py_TYPE(raw).cast::<ffi::PyObject>();
            ffi::Py_INCREF(class);
            ffi::PyErr_Restore(class, raw, ffi::PyException_GetTraceback(raw));
        }
        Self::SET
    }

    /// Raises an exception object as the `raise` statement does: what is being handled becomes its context.
    #[cold]
    pub(crate) fn raise(exception: &Obj) -> Self {
        // SAFETY: class and instance of a live exception.
        unsafe { ffi::PyErr_SetObject(ffi::Py_TYPE(exception.raw()).cast(), exception.raw()) };
        Self::SET
    }

    /// Is an exception set?
    #[inline]
    pub(crate) fn is_set() -> bool {
        // SAFETY: reads the thread state.
        !unsafe { ffi::PyErr_Occurred() }.is_null()
    }

    /// Takes the exception out of the thread state, with its traceback attached.
    pub(crate) fn take(self) -> Obj {
        #[cfg(Py_3_12)]
        // SAFETY: a new reference; an exception is set, says `self`.
        let raw = unsafe { ffi::PyErr_GetRaisedException() };
        #[cfg(not(Py_3_12))]
        // SAFETY: fetching gives three references, normalising keeps them, the traceback is attached and given up.
        let raw = unsafe {
            let (mut class, mut value, mut traceback) =
                (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            ffi::PyErr_Fetch(&raw mut class, &raw mut value, &raw mut traceback);
            ffi::PyErr_NormalizeException(&raw mut class, &raw mut value, &raw mut traceback);
            if !traceback.is_null() {
                ffi::PyException_SetTraceback(value, traceback);
                ffi::Py_DECREF(traceback);
            }
            if !class.is_null() {
                ffi::Py_DECREF(class);
            }
            value
        };
        if raw.is_null() {
            // An exception went missing: only a broken C function does that. Say so rather than crash.
            return match Builtin::System.instance("error return without exception set") {
                Ok(exception) => exception,
                Err(raised) => raised.take(),
            };
        }
        // SAFETY: a new reference.
        unsafe { Obj::steal(raw) }
    }

    /// Drops the exception.
    pub(crate) fn discard(self) {
        // SAFETY: clears the thread state's exception.
        unsafe { ffi::PyErr_Clear() };
    }

    /// Does the exception match a builtin class?
    pub(crate) fn is(&self, class: Builtin) -> bool {
        // SAFETY: compares the set exception with a class.
        unsafe { ffi::PyErr_ExceptionMatches(class.raw()) != 0 }
    }

    /// Does the exception match `class`?
    pub(crate) fn matches(&self, class: &Obj) -> bool {
        // SAFETY: compares the set exception with a class.
        unsafe { ffi::PyErr_ExceptionMatches(class.raw()) != 0 }
    }

    /// Says that it was raised while another exception was being handled, as Python notes by itself.
    pub(crate) fn during(self, handled: Obj) -> Self {
        let exception = self.take();
        if !exception.is(&handled) && exception.exception_context().is_none() {
            exception.set_exception_context(Some(handled));
        }
        Self::restore(exception)
    }

    /// Is it an `AttributeError`?
    pub(crate) fn is_attribute_error(&self) -> bool {
        self.is(Builtin::Attribute)
    }

    /// Reports it through `sys.unraisablehook`, naming `object`.
    pub(crate) fn write_unraisable(self, object: Option<&Obj>) {
        // SAFETY: takes the set exception; a NULL object is allowed.
        unsafe { ffi::PyErr_WriteUnraisable(object.map_or(ptr::null_mut(), Obj::raw)) };
    }
}

/// Python's `finally`: runs `cleanup` however it ended; an error of the cleanup comes on top of the one before.
#[inline]
pub(crate) fn finally<R>(outcome: PyRes<R>, cleanup: impl FnOnce() -> PyRes<()>) -> PyRes<R> {
    match outcome {
        Ok(value) => cleanup().map(|()| value),
        Err(raised) => {
            let exception = raised.take();
            match cleanup() {
                Ok(()) => Err(Raised::restore(exception)),
                Err(newer) => Err(newer.during(exception)),
            }
        }
    }
}

/// Runs `body` with no exception set and puts the one that was set back afterwards: for finalizers.
pub(crate) fn preserving_exception(body: impl FnOnce()) {
    let saved = Raised::is_set().then(|| Raised::SET.take());
    body();
    if let Some(exception) = saved {
        let _ = Raised::restore(exception);
    }
}

/// Runs `body` as if in `except`: `sys.exc_info()` tells of `exception`, and what is raised has it as context.
pub(crate) fn while_handling<R>(exception: &Obj, body: impl FnOnce() -> R) -> R {
    /// Puts back what was being handled before, a panic included.
    struct Handling(*mut ffi::PyObject);
    impl Drop for Handling {
        fn drop(&mut self) {
            // SAFETY: the call takes a reference of its own; ours, from below, is given up.
            unsafe {
                ffi::PyErr_SetHandledException(self.0);
                ffi::Py_XDECREF(self.0);
            }
        }
    }
    // SAFETY: a new reference, or NULL if nothing is being handled.
    let _before = Handling(unsafe { ffi::PyErr_GetHandledException() });
    // SAFETY: a live exception, of which the call takes a reference.
    unsafe { ffi::PyErr_SetHandledException(exception.raw()) };
    body()
}

impl Obj {
    /// `exception.__traceback__`.
    pub(crate) fn traceback(&self) -> Option<Self> {
        debug_assert!(self.is_exception());
        // SAFETY: a new reference or NULL.
        let raw = unsafe { ffi::PyException_GetTraceback(self.raw()) };
        // SAFETY: a new reference.
        (!raw.is_null()).then(|| unsafe { Self::steal(raw) })
    }

    /// `exception.__traceback__ = traceback`.
    pub(crate) fn set_traceback(&self, traceback: Option<&Self>) -> PyRes<()> {
        // SAFETY: the call checks the type; `None` removes the traceback.
        done(unsafe {
            ffi::PyException_SetTraceback(self.raw(), traceback.map_or(ffi::Py_None(), Self::raw))
        })
    }

    /// `exception.__context__`.
    pub(crate) fn exception_context(&self) -> Option<Self> {
        // SAFETY: a new reference or NULL.
        let raw = unsafe { ffi::PyException_GetContext(self.raw()) };
        // SAFETY: a new reference.
        (!raw.is_null()).then(|| unsafe { Self::steal(raw) })
    }

    /// `exception.__context__ = context`.
    pub(crate) fn set_exception_context(&self, context: Option<Self>) {
        // SAFETY: steals the reference to the context.
        unsafe {
            ffi::PyException_SetContext(
                self.raw(),
                context.map_or(ptr::null_mut(), Self::into_raw),
            );
        }
    }

    /// `exception.__cause__ = cause`.
    pub(crate) fn set_exception_cause(&self, cause: Option<Self>) {
        // SAFETY: steals the reference to the cause.
        unsafe {
            ffi::PyException_SetCause(self.raw(), cause.map_or(ptr::null_mut(), Self::into_raw));
        }
    }
}

/// Issues a warning of a builtin category at a stack level, as `warnings.warn` does.
pub(crate) fn warn(category: Warning, message: &str, stacklevel: isize) -> PyRes<()> {
    let text = std::ffi::CString::new(message)
        .map_err(|_| Raised::value_error("embedded null character"))?;
    // SAFETY: a class and a terminated text.
    done(unsafe { ffi::PyErr_WarnEx(category.raw(), text.as_ptr(), stacklevel) })
}

/// Issues a `ResourceWarning` whose `source` is `object`.
pub(crate) fn warn_resource(object: &Obj, message: &str, stacklevel: isize) -> PyRes<()> {
    let text = std::ffi::CString::new(message)
        .map_err(|_| Raised::value_error("embedded null character"))?;
    // SAFETY: an object, a format without arguments but one text.
    done(unsafe {
        ffi::PyErr_ResourceWarning(object.raw(), stacklevel, c"%s".as_ptr(), text.as_ptr())
    })
}

/// Raises the `OSError` of a failed system call.
#[cold]
pub(crate) fn os_error(error: &std::io::Error) -> Raised {
    match os_error_instance(error) {
        Ok(exception) => Raised::raise(&exception),
        Err(raised) => raised,
    }
}

/// The `OSError` of a failed system call, of the subclass that its number means.
pub(crate) fn os_error_instance(error: &std::io::Error) -> PyRes {
    let code = i64::from(error.raw_os_error().unwrap_or(0));
    let text = Obj::import("os")?
        .getattr_str("strerror")?
        .call([&Obj::int(code)?])?;
    Builtin::Os.class().call([&Obj::int(code)?, &text])
}

/// The warning categories that asyncio uses.
#[derive(Clone, Copy)]
pub(crate) enum Warning {
    /// `DeprecationWarning`.
    Deprecation,
    /// `ResourceWarning`.
    Resource,
    /// `RuntimeWarning`.
    Runtime,
}

impl Warning {
    /// The class, borrowed from the interpreter.
    fn raw(self) -> *mut ffi::PyObject {
        // SAFETY: reading statics that the interpreter sets up first.
        unsafe {
            match self {
                Self::Deprecation => ffi::PyExc_DeprecationWarning,
                Self::Resource => ffi::PyExc_ResourceWarning,
                Self::Runtime => ffi::PyExc_RuntimeWarning,
            }
        }
    }
}
