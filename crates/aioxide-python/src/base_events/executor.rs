//! The executor: `run_in_executor`, and the end of the default one.

use std::cell::Cell;

use crate::chaining::wrap_future;
use crate::coroutines::{Coroutine, coroutine};
use crate::events::{EventLoop, forks};
use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent,
    Slot, Visit, Warning, preserving_exception, warn,
};
use crate::waiter::{Waiter, create_future, is_cancelled};
use crate::{names, stdlib};

use super::check_callback;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .method(
            "run_in_executor(self, executor, func, *args)",
            "Calls `func(*args)` in an executor, the default one if `None`. Returns a future.",
            run_in_executor,
        )
        .method(
            "set_default_executor(self, executor)",
            "Sets the executor of `run_in_executor(None, …)`.",
            |this, args| {
                if !args.req(0).isinstance(stdlib::thread_pool_executor()?)? {
                    return Err(Raised::type_error(
                        "executor must be ThreadPoolExecutor instance",
                    ));
                }
                this.executor_forks.set(None);
                this.default_executor.set(args.req(0).clone());
                Ok(())
            },
        )
        .method(
            "_check_default_executor(self)",
            "Raises if the default executor was shut down.",
            |this, _| check_default_executor(this),
        )
        .coroutine(
            "shutdown_default_executor(self, timeout=None)",
            "Waits until the default executor has finished its calls, at most `timeout` seconds.",
            |this, args| shutdown_default_executor(this, args.get(0)),
        )
        .method(
            "_do_shutdown(self, future)",
            "Ends the default executor; runs in a thread of its own.",
            |this, args| do_shutdown(this, args.req(0)),
        )
}

/// Refuses once the default executor was shut down.
fn check_default_executor(this: &Ref<EventLoop>) -> PyRes<()> {
    if this.executor_shutdown_called.get() {
        return Err(Raised::runtime_error("Executor shutdown has been called"));
    }
    Ok(())
}

/// `run_in_executor`.
fn run_in_executor(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes {
    this.check_closed()?;
    if this.debug.get() {
        check_callback(args.req(1), "run_in_executor")?;
    }
    let executor = match args.some(0) {
        Some(executor) => executor.clone(),
        None => default_executor(this)?,
    };
    let submitted = match args.rest() {
        [] => executor.method(names::submit(), [args.req(1)])?,
        rest => {
            let all: Vec<Obj> = std::iter::once(args.req(1)).chain(rest).cloned().collect();
            executor.getattr(names::submit())?.call_args(&all)?
        }
    };
    wrap_future(&submitted, Some(this.obj()))
}

/// The default executor, made when first needed.
fn default_executor(this: &Ref<EventLoop>) -> PyRes {
    check_default_executor(this)?;
    let forks = forks();
    // Differs: asyncio's executor waits in a forked child for threads that are the parent's.
    let made = this.executor_forks.get();
    let inherited = made.is_some_and(|made| made != forks);
    if let Some(executor) = this.default_executor.get()
        && !inherited
    {
        return Ok(executor);
    }
    let prefix = Obj::str("asyncio")?;
    let executor =
        stdlib::thread_pool_executor()?.call_kw(&[], &[(names::thread_name_prefix(), &prefix)])?;
    this.executor_forks.set(Some(forks));
    this.default_executor.set(executor.clone());
    Ok(executor)
}

/// `shutdown_default_executor`.
fn shutdown_default_executor(
    this: &Ref<EventLoop>,
    timeout: Option<&Obj>,
) -> PyRes<Ref<Coroutine>> {
    let timeout = timeout.cloned().unwrap_or_else(Obj::none);
    coroutine(
        "BaseEventLoop.shutdown_default_executor",
        Shutdown {
            loop_: this.clone(),
            timeout,
            thread: None,
            expiry: None,
            timer: None,
            waiter: None,
        },
    )
}

/// The body of `shutdown_default_executor`.
struct Shutdown {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// How many seconds to wait, or `None`.
    timeout: Obj,
    /// The thread that ends the executor.
    thread: Option<Obj>,
    /// What the timer calls.
    expiry: Option<Ref<Expiry>>,
    /// The timer's handle.
    timer: Option<Obj>,
    /// The wait for the thread to be done.
    waiter: Option<Waiter>,
}

impl Shutdown {
    /// Starts the thread, and the timer if there is a time limit.
    fn start(&mut self) -> PyRes<Sent> {
        self.loop_.executor_shutdown_called.set(true);
        if self.loop_.default_executor.is_none() {
            return Ok(Sent::Return(Obj::none()));
        }
        let loop_ = self.loop_.obj();
        let future = create_future(loop_)?;
        let target = loop_.getattr(names::do_shutdown())?;
        let thread = stdlib::thread()?.call_kw(
            &[],
            &[
                (names::target(), &target),
                (names::args(), &Obj::tuple([future.clone()])?),
            ],
        )?;
        thread.method(names::start(), [])?;
        self.thread = Some(thread);
        if !self.timeout.is_none() {
            let expiry = Ref::new(Expiry {
                future: Slot::new(future.clone()),
                expired: Cell::new(false),
            })?;
            self.timer = Some(loop_.method(names::call_later(), [&self.timeout, expiry.obj()])?);
            self.expiry = Some(expiry);
        }
        let waiter = self.waiter.insert(Waiter::on(future));
        match waiter.start() {
            Ok(Sent::Yield(value)) => Ok(Sent::Yield(value)),
            outcome => self.finish(outcome, false),
        }
    }

    /// The wait is over; `thrown` says that somebody threw an exception in.
    fn finish(&mut self, outcome: PyRes<Sent>, thrown: bool) -> PyRes<Sent> {
        let expired = self
            .expiry
            .as_ref()
            .is_some_and(|expiry| expiry.expired.get());
        let Err(raised) = outcome else {
            self.cancel_timer()?;
            if let Some(thread) = self.thread.take() {
                thread.method(names::join(), [])?;
            }
            return Ok(Sent::Return(Obj::none()));
        };
        // The executor's own TimeoutError counts as the end of the time, as it does in asyncio.
        let late = raised.is(Builtin::Timeout)
            || (expired && !thrown && raised.matches(stdlib::cancelled_error()?));
        if !late {
            preserving_exception(|| {
                if let Err(raised) = self.cancel_timer() {
                    raised.write_unraisable(Some(self.loop_.obj()));
                }
            });
            return Err(raised);
        }
        raised.discard();
        self.cancel_timer()?;
        let seconds = self.timeout.to_str()?.text()?;
        warn(
            Warning::Runtime,
            &format!(
                "The executor did not finishing joining its threads within {seconds} seconds."
            ),
            1,
        )?;
        if let Some(executor) = self.loop_.default_executor.get() {
            executor.method_kw(
                names::shutdown(),
                &[],
                &[(names::wait(), &Obj::bool(false))],
            )?;
        }
        Ok(Sent::Return(Obj::none()))
    }

    /// Takes the timer back.
    fn cancel_timer(&mut self) -> PyRes<()> {
        match self.timer.take() {
            Some(timer) => timer.method(names::cancel(), []).map(drop),
            None => Ok(()),
        }
    }
}

impl Machine for Shutdown {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let thrown = matches!(input, Resume::Throw(_));
        let outcome = match &mut self.waiter {
            None => return self.start(),
            Some(waiter) => waiter.resume(input),
        };
        match outcome {
            Ok(Sent::Yield(value)) => Ok(Sent::Yield(value)),
            outcome => self.finish(outcome, thrown),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        visit.obj(&self.timeout);
        for object in self.thread.iter().chain(&self.timer) {
            visit.obj(object);
        }
        if let Some(expiry) = &self.expiry {
            visit.native(expiry);
        }
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// The end of the time that an executor is given: ends the wait for it.
struct Expiry {
    /// What is waited for.
    future: Slot,
    /// Is the time over? Tells a cancellation from here from anybody else's.
    expired: Cell<bool>,
}

/// Where the class is kept.
static EXPIRY: Class<Expiry> = Class::new();

impl Native for Expiry {
    fn class() -> &'static Class<Self> {
        &EXPIRY
    }

    fn empty() -> Self {
        Self {
            future: Slot::empty(),
            expired: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.future);
    }

    fn clear(&self) {
        self.future.clear();
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<Expiry>::new("aioxide", "expiry", "Ends the wait for an executor.")
        .sealed()
        .call(|this, _, _| {
            let Some(future) = this.future.get() else {
                return Ok(Obj::none());
            };
            if future.method(names::cancel(), [])?.truth()? {
                this.expired.set(true);
            }
            Ok(Obj::none())
        })
        .build()
        .map(drop)
}

/// `_do_shutdown`: waits for the executor's threads, then tells the loop.
fn do_shutdown(this: &Ref<EventLoop>, future: &Obj) -> PyRes<()> {
    let Err(raised) = join_executor(this, future) else {
        return Ok(());
    };
    if !raised.is(Builtin::Exception) {
        return Err(raised);
    }
    let exception = raised.take();
    if this.closed.get() || is_cancelled(future)? {
        return Ok(());
    }
    let set_exception = future.getattr(names::set_exception())?;
    this.obj()
        .method(names::call_soon_threadsafe(), [&set_exception, &exception])
        .map(drop)
}

/// The part of `_do_shutdown` that may fail.
fn join_executor(this: &Ref<EventLoop>, future: &Obj) -> PyRes<()> {
    let executor = this.default_executor.get_or_none();
    executor.method_kw(names::shutdown(), &[], &[(names::wait(), &Obj::bool(true))])?;
    if this.closed.get() {
        return Ok(());
    }
    let set_result = stdlib::set_result_unless_cancelled()?;
    this.obj()
        .method(
            names::call_soon_threadsafe(),
            [set_result, future, &Obj::none()],
        )
        .map(drop)
}
