//! `wait_for`.
//!
//! It awaits in the caller's own task under a deadline: when that comes, the task is cancelled, and the error that
//! comes out becomes a `TimeoutError`, unless somebody else asked for a cancellation, too. This is `asyncio.timeout`
//! without the context manager. The deadline has come when its callback has rung: a timer that is gone does not say so,
//! for its job may still wait in the ready queue while the coroutine ends in the same turn.
//!
//! A timeout that is over at once is another story: the awaitable becomes a task, which is cancelled and waited for.

use std::mem;

use crate::coroutines::{Coroutine, coroutine};
use crate::events::{LoopRef, get_running_loop};
use crate::ffi::{
    Args, Builtin, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Visit, task_state,
};
use crate::futures::{Observer, observe_any, unobserve_any};
use crate::tasks::{
    Task, cancel_any, cancel_task, cancelling, current_task, ensure_future, uncancel_task,
};
use crate::waiter::{Waiter, is_done, result_of, set_result};
use crate::{names, stdlib};

use super::finally;
use super::timer::{Alarm, AlarmCallback, Timer, ring_callback};

/// `wait_for(fut, timeout)`.
pub(super) fn wait_for(args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    coroutine(
        "wait_for",
        WaitFor::new(args.req(0).clone(), args.req(1).clone()),
    )
}

/// The body of `wait_for`.
pub(crate) struct WaitFor(State);

/// Where it is.
enum State {
    /// Not begun.
    Start {
        /// What to wait for.
        awaitable: Obj,
        /// How long, or `None`.
        timeout: Obj,
    },
    /// It awaits under a deadline.
    Timed {
        /// What is awaited.
        awaited: Waiter,
        /// The deadline.
        deadline: Deadline,
    },
    /// The timeout was over at once: it waits for the end of what it cancelled.
    Cancelling(Box<Cancelling>),
    /// Finished.
    Over,
}

/// A deadline for the current task.
struct Deadline {
    /// The task.
    task: Obj,
    /// How many requests of cancellation it had before.
    cancelling: i64,
    /// What cancels it, `None` without a timeout.
    timer: Option<(Timer, Ref<AlarmCallback>)>,
}

/// Cancels the task of a deadline.
static EXPIRED: Alarm = Alarm {
    body: cancel_task,
    qualname: "Timeout._on_timeout",
};

impl Deadline {
    /// Sets it for the current task.
    #[inline]
    fn enter(timeout: &Obj) -> PyRes<Self> {
        let loop_ = get_running_loop()?;
        let native = matches!(LoopRef::new(&loop_), LoopRef::Native(native) if native.is_direct());
        let when = if native || timeout.is_none() {
            None
        } else {
            Some(loop_.method(names::time(), [])?.add(timeout)?)
        };
        let Some(task) = current_task(&loop_)? else {
            return Err(Raised::runtime_error(
                "Timeout should be used inside a task",
            ));
        };
        let cancelling = cancelling(&task)?;
        if timeout.is_none() {
            return Ok(Self {
                task,
                cancelling,
                timer: None,
            });
        }
        let callback = EXPIRED.callback(&task)?;
        if let Some(timer) = Timer::native(&loop_, timeout, ring_callback, callback.obj())? {
            return Ok(Self {
                task,
                cancelling,
                timer: Some((timer, callback)),
            });
        }
        let when = match when {
            Some(when) => when,
            None => loop_.method(names::time(), [])?.add(timeout)?,
        };
        let handle = if when.less_or_equal(&loop_.method(names::time(), [])?)? {
            loop_.method(names::call_soon(), [callback.obj()])?
        } else {
            loop_.method(names::call_at(), [&when, callback.obj()])?
        };
        Ok(Self {
            task,
            cancelling,
            timer: Some((Timer::Handle(handle), callback)),
        })
    }

    /// Takes it away. What came out of the wait goes on, or becomes a `TimeoutError`.
    fn exit(mut self, outcome: PyRes<Obj>) -> PyRes {
        match outcome {
            Ok(value) => {
                if self.has_come()? {
                    self.keep_cancelled(uncancel_task(&self.task)?)?;
                }
                Ok(value)
            }
            Err(raised) => {
                let exception = raised.take();
                match self.convert(&exception) {
                    Ok(None) => Err(Raised::restore(exception)),
                    Ok(Some(timeout)) => Err(Raised::restore(timeout)),
                    Err(newer) => finally(Err(Raised::restore(exception)), || Err(newer)),
                }
            }
        }
    }

    /// Cancels the timer. Had it fired?
    #[inline]
    fn has_come(&mut self) -> PyRes<bool> {
        match self.timer.take() {
            None => Ok(false),
            Some((timer, callback)) => {
                callback.silence();
                timer.cancel()?;
                Ok(callback.rang())
            }
        }
    }

    /// The `TimeoutError` to raise instead of what came out, if the deadline is the only reason for it.
    #[cold]
    fn convert(&mut self, exception: &Obj) -> PyRes<Option<Obj>> {
        if !self.has_come()? || uncancel_task(&self.task)? > self.cancelling {
            return Ok(None);
        }
        if exception.isinstance(stdlib::cancelled_error()?)? {
            return timeout_from(exception).map(Some);
        }
        insert_timeout(exception)?;
        if exception.isinstance(stdlib::exception_group()?)? {
            for inner in exception.getattr(names::exceptions())?.items()? {
                insert_timeout(&inner)?;
            }
        }
        Ok(None)
    }

    /// Before 3.12 a cancellation by somebody else is not lost when what was awaited returns a value after the timeout.
    fn keep_cancelled(&self, remaining: i64) -> PyRes<()> {
        if !cfg!(Py_3_12) && remaining > self.cancelling {
            return Err(Raised::bare(stdlib::cancelled_error()?));
        }
        Ok(())
    }

    /// Shows what is held to the collector.
    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.obj(&self.task);
        if let Some((timer, callback)) = &self.timer {
            timer.traverse(visit);
            visit.native(callback);
        }
    }
}

/// `raise TimeoutError from error`, but for the raising.
fn timeout_from(error: &Obj) -> PyRes {
    let timeout = Builtin::Timeout.class().call([])?;
    timeout.set_exception_cause(Some(error.clone()));
    timeout.set_exception_context(Some(error.clone()));
    Ok(timeout)
}

/// The error of waiting for what cannot be awaited: before 3.12 it is the one of `ensure_future`.
#[cold]
fn not_awaitable(raised: Raised, object: &Obj) -> Raised {
    if cfg!(Py_3_12) || !raised.is(Builtin::Type) {
        return raised;
    }
    let exception = raised.take();
    match stdlib::isawaitable().and_then(|test| test.call([object])?.truth()) {
        Ok(true) => Raised::restore(exception),
        Ok(false) => {
            Raised::type_error("An asyncio.Future, a coroutine or an awaitable is required")
        }
        Err(newer) => newer,
    }
}

/// Puts a `TimeoutError` before the first `CancelledError` among the contexts of an exception.
fn insert_timeout(exception: &Obj) -> PyRes<()> {
    let mut exception = exception.clone();
    while let Some(context) = exception.exception_context() {
        if context.isinstance(stdlib::cancelled_error()?)? {
            exception.set_exception_context(Some(timeout_from(&context)?));
            return Ok(());
        }
        exception = context;
    }
    Ok(())
}

/// Waiting for the end of something that was cancelled.
struct Cancelling {
    /// What was cancelled.
    future: Obj,
    /// What is waited for: finished with it.
    waiter: Waiter,
    /// The waiting task, where futures know who waits for them.
    task: Option<Obj>,
}

/// Finishes the waiter when the cancelled future is done.
static ENDED: Observer = Observer {
    body: |waiter, _| {
        if is_done(waiter)? {
            Ok(())
        } else {
            set_result(waiter, Obj::none())
        }
    },
    qualname: "_release_waiter",
};

impl Cancelling {
    /// Cancels a future and begins to wait.
    fn start(future: Obj) -> PyRes<(Self, PyRes<Sent>)> {
        let loop_ = get_running_loop()?;
        let waiter = Waiter::create(&loop_)?;
        observe_any(&future, &ENDED, waiter.future())?;
        let task = if cfg!(Py_3_14) {
            current_task(&loop_)?
        } else {
            None
        };
        if let Some(task) = &task {
            task_state::add_awaited_by(&future, task)?;
        }
        let mut this = Self {
            future,
            waiter,
            task,
        };
        let cancelled = match Task::class().exact(&this.future) {
            Some(_) => cancel_any(&this.future, None).map(drop),
            None => this.future.method(names::cancel(), []).map(drop),
        };
        let sent = match cancelled {
            Ok(()) => this.waiter.start(),
            Err(raised) => Err(raised),
        };
        Ok((this, sent))
    }

    /// Takes the observer away.
    fn clean_up(&self) -> PyRes<()> {
        unobserve_any(&self.future, &ENDED, self.waiter.future())?;
        match &self.task {
            Some(task) => task_state::discard_awaited_by(&self.future, task),
            None => Ok(()),
        }
    }

    /// The future's outcome; its cancellation is the timeout.
    fn outcome(&self) -> PyRes {
        let raised = match result_of(&self.future) {
            Ok(result) => return Ok(result),
            Err(raised) => raised,
        };
        if !raised.matches(stdlib::cancelled_error()?) {
            return Err(raised);
        }
        let cancelled = raised.take();
        Err(Raised::restore(timeout_from(&cancelled)?))
    }

    /// Shows what is held to the collector.
    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.obj(&self.future);
        self.waiter.traverse(visit);
        self.task.iter().for_each(|task| visit.obj(task));
    }
}

impl WaitFor {
    /// A wait that has not begun.
    pub(crate) fn new(awaitable: Obj, timeout: Obj) -> Self {
        Self(State::Start { awaitable, timeout })
    }

    /// Everything up to the first wait.
    #[inline]
    fn start(&mut self, awaitable: Obj, timeout: &Obj) -> PyRes<Sent> {
        if !timeout.is_none() && timeout.less_or_equal(&Obj::int(0)?)? {
            return self.cancel(&awaitable);
        }
        let deadline = Deadline::enter(timeout)?;
        let mut awaited = Waiter::on(awaitable);
        let sent = match awaited.start() {
            Err(raised) if !timeout.is_none() => Err(not_awaitable(raised, awaited.future())),
            sent => sent,
        };
        self.timed(sent, awaited, deadline)
    }

    /// Waits on, or ends.
    #[inline]
    fn timed(&mut self, sent: PyRes<Sent>, awaited: Waiter, deadline: Deadline) -> PyRes<Sent> {
        let outcome = match sent {
            Ok(Sent::Yield(_)) => {
                self.0 = State::Timed { awaited, deadline };
                return sent;
            }
            Ok(Sent::Return(value)) => Ok(value),
            Err(raised) => Err(raised),
        };
        deadline.exit(outcome).map(Sent::Return)
    }

    /// The timeout is over already.
    #[cold]
    fn cancel(&mut self, awaitable: &Obj) -> PyRes<Sent> {
        let future = ensure_future(awaitable, None)?;
        if is_done(&future)? {
            return result_of(&future).map(Sent::Return);
        }
        let (cancelling, sent) = Cancelling::start(future)?;
        self.cancelled(sent, Box::new(cancelling))
    }

    /// Waits on, or ends.
    fn cancelled(&mut self, sent: PyRes<Sent>, cancelling: Box<Cancelling>) -> PyRes<Sent> {
        if matches!(sent, Ok(Sent::Yield(_))) {
            self.0 = State::Cancelling(cancelling);
            return sent;
        }
        finally(sent, || cancelling.clean_up())?;
        cancelling.outcome().map(Sent::Return)
    }
}

impl Machine for WaitFor {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.0, State::Over) {
            State::Start { awaitable, timeout } => self.start(awaitable, &timeout),
            State::Timed {
                mut awaited,
                deadline,
            } => {
                let sent = awaited.resume(input);
                self.timed(sent, awaited, deadline)
            }
            State::Cancelling(mut cancelling) => {
                let sent = cancelling.waiter.resume(input);
                self.cancelled(sent, cancelling)
            }
            State::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        match &self.0 {
            State::Start { awaitable, timeout } => {
                visit.obj(awaitable);
                visit.obj(timeout);
            }
            State::Timed { awaited, deadline } => {
                awaited.traverse(visit);
                deadline.traverse(visit);
            }
            State::Cancelling(cancelling) => cancelling.traverse(visit),
            State::Over => {}
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.0 {
            State::Timed { awaited, .. } => Some(awaited.future().clone()),
            State::Cancelling(cancelling) => Some(cancelling.waiter.future().clone()),
            _ => None,
        }
    }
}
