//! Waiting inside native coroutines: a future made by the loop, whichever kind that is.
//!
//! On a native loop a waiter is one of our futures and everything is direct. On a foreign loop, or where
//! `create_future` is overridden, it is whatever that gave, and goes through its Python-visible methods.

use crate::coroutines::Delegate;
use crate::events::LoopRef;
use crate::ffi::{Native, Obj, PyRes, Raised, Ref, Resume, Sent, Visit};
use crate::futures::{Future, exact_or_task};
use crate::names;

/// A future that a machine waits for.
pub(crate) struct Waiter {
    /// The future.
    future: Obj,
    /// Its iterator, if it is not one of ours.
    delegate: Option<Delegate>,
}

impl Waiter {
    /// A new future of the loop.
    #[inline]
    pub(crate) fn create(loop_: &Obj) -> PyRes<Self> {
        Ok(Self {
            future: create_future(loop_)?,
            delegate: None,
        })
    }

    /// A waiter for a future that exists already.
    #[inline]
    pub(crate) fn on(future: Obj) -> Self {
        Self {
            future,
            delegate: None,
        }
    }

    /// The future.
    #[inline]
    pub(crate) fn future(&self) -> &Obj {
        &self.future
    }

    /// Begins to wait, as `await future` does. A future that is done already returns (or raises) at once.
    #[inline]
    pub(crate) fn start(&mut self) -> PyRes<Sent> {
        if let Some(native) = exact_or_task(&self.future) {
            if native.is_done() {
                return native.outcome().map(Sent::Return);
            }
            return Ok(native.wait());
        }
        let delegate = Delegate::new(&self.future)?;
        let sent = delegate.resume(Resume::Send);
        self.delegate = Some(delegate);
        sent
    }

    /// Goes on after the machine was resumed: `Return` with the future's result, an error, or another wait.
    #[inline]
    pub(crate) fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match (&self.delegate, exact_or_task(&self.future)) {
            (None, Some(native)) => native.resumed(input).map(Sent::Return),
            (Some(delegate), _) => delegate.resume(input),
            (None, None) => Err(Raised::runtime_error(
                "a waiter was resumed before it was started",
            )),
        }
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.obj(&self.future);
        if let Some(delegate) = &self.delegate {
            visit.obj(delegate.awaited());
        }
    }
}

/// `loop.create_future()`: natively on the direct path, else through the method.
#[inline]
pub(crate) fn create_future(loop_: &Obj) -> PyRes {
    let reference = LoopRef::new(loop_);
    if reference.direct().is_some() {
        return Ref::new(Future::payload(reference)).map(Ref::into_obj);
    }
    loop_.method(names::create_future(), [])
}

/// `future.done()` for any kind of future.
#[inline]
pub(crate) fn is_done(future: &Obj) -> PyRes<bool> {
    match exact_or_task(future) {
        Some(native) => Ok(native.is_done()),
        None => future.method(names::done(), [])?.truth(),
    }
}

/// `future.cancelled()` for any kind of future.
#[inline]
pub(crate) fn is_cancelled(future: &Obj) -> PyRes<bool> {
    match exact_or_task(future) {
        Some(native) => Ok(native.is_cancelled()),
        None => future.method(names::cancelled(), [])?.truth(),
    }
}

/// `future.exception()` for a future that is done and not cancelled, of any kind; marks it retrieved.
pub(crate) fn exception_of(future: &Obj) -> PyRes<Option<Obj>> {
    match exact_or_task(future) {
        Some(native) if native.is_done() && !native.is_cancelled() => {
            native.mark_retrieved();
            Ok(native.failure())
        }
        _ => {
            Ok(Some(future.method(names::exception(), [])?)
                .filter(|exception| !exception.is_none()))
        }
    }
}

/// `future.result()` for any kind of future.
#[inline]
pub(crate) fn result_of(future: &Obj) -> PyRes {
    match exact_or_task(future) {
        Some(native) => native.outcome(),
        None => future.method(names::result(), []),
    }
}

/// `future.set_result(result)` for any kind of future that is pending.
#[inline]
pub(crate) fn set_result(future: &Obj, result: Obj) -> PyRes<()> {
    match Future::class().exact(future) {
        Some(native) => {
            native.check_pending()?;
            native.finish(result)
        }
        None => future.method(names::set_result(), [&result]).map(drop),
    }
}

/// `future.set_exception(exception)` for any kind of future that is pending.
pub(crate) fn set_exception(future: &Obj, exception: &Obj) -> PyRes<()> {
    match Future::class().exact(future) {
        Some(native) => native.set_exception(exception),
        None => future.method(names::set_exception(), [exception]).map(drop),
    }
}
