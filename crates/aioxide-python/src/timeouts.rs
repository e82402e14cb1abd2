//! Timeouts. Answers `asyncio/timeouts.py`.
//!
//! A [`Timeout`] that is entered is armed in one of two ways. On the direct path (see `events`) its deadline is a timer
//! of the engine whose job holds the timeout itself. Elsewhere, for subclasses, and for deadlines that are past
//! already, it is a handle from `loop.call_at` or `loop.call_soon`.
//!
//! Invariants: `timer` and `loop_` are set together, and never together with `handler`. A timer that could not be
//! taken back because it was due has left its job in the ready queue; `overdue` counts such jobs, which come before
//! those of later timers, and each of them takes itself off when it runs.

use std::cell::Cell;

use aioxide_engine::TimerId;

use crate::clock::{nanoseconds, now};
use crate::coroutines::coroutine;
use crate::events::{
    EventLoop, Handle, Job, get_running_loop, leaves_the_loop, report_callback_error,
};
use crate::ffi::{
    Builtin, Class, ClassBuilder, Kind, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent,
    Slot, Visit, add_to_module, copy_current_context, function,
};
use crate::tasks::{cancel_task, cancelling, current_task, uncancel_task};
use crate::{names, stdlib};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["Timeout", "timeout", "timeout_at"];

/// Where a timeout is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not entered.
    Created,
    /// Entered.
    Entered,
    /// The deadline has passed and the task was cancelled.
    Expiring,
    /// Left after the deadline.
    Expired,
    /// Left before the deadline.
    Exited,
}

impl State {
    /// The word in reprs and errors.
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Entered => "active",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Exited => "finished",
        }
    }

    /// The member of asyncio's own enumeration, which `_state` shows.
    fn member(self) -> PyRes {
        stdlib::timeout_state()?.getattr_str(match self {
            Self::Created => "CREATED",
            Self::Entered => "ENTERED",
            Self::Expiring => "EXPIRING",
            Self::Expired => "EXPIRED",
            Self::Exited => "EXITED",
        })
    }
}

/// A time limit around a block.
pub(crate) struct Timeout {
    /// Where it is in its life.
    state: Cell<State>,
    /// The deadline as it was given: a time of `loop.time()`, or `None`.
    when: Slot,
    /// The task that entered.
    task: Slot,
    /// How many requests of cancellation that task had then.
    cancelling: Cell<i64>,
    /// The engine's timer, while armed directly.
    timer: Cell<Option<TimerId>>,
    /// The loop of that timer.
    loop_: Slot<Ref<EventLoop>>,
    /// The handle, while armed otherwise.
    handler: Slot,
    /// How many jobs of former timers are still in the ready queue.
    overdue: Cell<u32>,
}

/// Where the class is kept.
static CLASS: Class<Timeout> = Class::new();

impl Native for Timeout {
    const FREELIST: usize = 512;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            state: Cell::new(State::Created),
            when: Slot::empty(),
            task: Slot::empty(),
            cancelling: Cell::new(0),
            timer: Cell::new(None),
            loop_: Slot::empty(),
            handler: Slot::empty(),
            overdue: Cell::new(0),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.when);
        visit.slot(&self.task);
        visit.slot(&self.loop_);
        visit.slot(&self.handler);
    }

    fn clear(&self) {
        self.when.clear();
        self.task.clear();
        self.loop_.clear();
        self.handler.clear();
    }
}

impl Ref<Timeout> {
    /// A timeout with a deadline, not entered.
    #[inline]
    fn at(when: Obj) -> PyRes<Self> {
        Self::new(Timeout {
            when: Slot::new(when),
            ..Timeout::empty()
        })
    }

    /// `reschedule(when)`.
    fn reschedule(&self, when: &Obj) -> PyRes<()> {
        match self.state.get() {
            State::Entered => {}
            State::Created => return Err(Raised::runtime_error("Timeout has not been entered")),
            other => {
                return Err(Raised::runtime_error(&format!(
                    "Cannot change state of {} Timeout",
                    other.word()
                )));
            }
        }
        self.when.set(when.clone());
        self.disarm()?;
        if when.is_none() {
            return Ok(());
        }
        self.arm(&get_running_loop()?, when)
    }

    /// Arms the deadline on the running loop.
    #[inline]
    fn arm(&self, loop_: &Obj, when: &Obj) -> PyRes<()> {
        if self.is_exact()
            && (when.is_exact_float() || when.is_int())
            && let Some(native) = EventLoop::class().cast(loop_)
            && native.is_direct()
        {
            let seconds = when.as_f64()?;
            if seconds > now() {
                let job = Job {
                    body: expire_job,
                    object: self.obj().clone(),
                };
                self.timer.set(Some(
                    native.scheduler()?.add_timer(nanoseconds(seconds), job),
                ));
                self.loop_.set(native.clone());
                return Ok(());
            }
        }
        self.arm_visibly(loop_, when)
    }

    /// Arms the deadline through the loop's Python-visible methods.
    #[cold]
    fn arm_visibly(&self, loop_: &Obj, when: &Obj) -> PyRes<()> {
        let callback = self.obj().getattr(names::on_timeout())?;
        let handle = if when.less_or_equal(&loop_.method(names::time(), [])?)? {
            loop_.method(names::call_soon(), [&callback])?
        } else {
            loop_.method(names::call_at(), [when, &callback])?
        };
        self.handler.set(handle);
        Ok(())
    }

    /// Takes the deadline back, if it is armed.
    #[inline]
    fn disarm(&self) -> PyRes<()> {
        if let Some(timer) = self.timer.take()
            && let Some(loop_) = self.loop_.take()
        {
            // A closed loop has given its jobs up.
            let scheduler = loop_.scheduler.borrow().clone();
            if let Some(scheduler) = scheduler {
                match scheduler.cancel_timer(timer) {
                    Some(job) => drop(job),
                    None => self.overdue.set(self.overdue.get() + 1),
                }
            }
        }
        match self.handler.take() {
            Some(handler) => handler.method(names::cancel(), []).map(drop),
            None => Ok(()),
        }
    }

    /// `_on_timeout()`: the deadline has passed.
    fn on_timeout(&self) -> PyRes<()> {
        if self.state.get() != State::Entered {
            return Err(Builtin::Assertion.raise_bare());
        }
        cancel_task(&self.task.get_or_none())?;
        self.state.set(State::Expiring);
        self.handler.clear();
        Ok(())
    }

    /// What `__aenter__` does.
    #[inline]
    fn enter(&self) -> PyRes<()> {
        if self.state.get() != State::Created {
            return Err(Raised::runtime_error("Timeout has already been entered"));
        }
        let loop_ = get_running_loop()?;
        let Some(task) = current_task(&loop_)? else {
            return Err(Raised::runtime_error(
                "Timeout should be used inside a task",
            ));
        };
        self.state.set(State::Entered);
        self.task.set(task.clone());
        self.cancelling.set(cancelling(&task)?);
        let when = self.when.get_or_none();
        if !self.is_exact() {
            return self.obj().method(names::reschedule(), [&when]).map(drop);
        }
        if when.is_none() {
            Ok(())
        } else {
            self.arm(&loop_, &when)
        }
    }

    /// What `__aexit__` does, with the class and the instance of the exception that leaves the block.
    #[inline]
    fn exit(&self, kind: &Obj, exception: &Obj) -> PyRes<()> {
        let state = self.state.get();
        if state != State::Entered && state != State::Expiring {
            return Err(Builtin::Assertion.raise_bare());
        }
        self.disarm()?;
        match self.state.get() {
            State::Expiring => self.expire(kind, exception),
            State::Entered => {
                self.state.set(State::Exited);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Leaves after the deadline: the cancellation that was ours becomes a `TimeoutError`.
    #[cold]
    fn expire(&self, kind: &Obj, exception: &Obj) -> PyRes<()> {
        self.state.set(State::Expired);
        // More requests than at the start: somebody else wants the task cancelled too.
        if uncancel_task(&self.task.get_or_none())? > self.cancelling.get() || kind.is_none() {
            return Ok(());
        }
        let cause = exception.is_exception().then_some(exception);
        if kind.is_subtype_of(stdlib::cancelled_error()?) {
            let error = Builtin::Timeout.class().call([])?;
            error.set_exception_cause(cause.cloned());
            return Err(Raised::raise(&error));
        }
        let Some(exception) = cause else {
            return Ok(());
        };
        insert_timeout_error(exception)?;
        if exception.isinstance(stdlib::exception_group()?)? {
            for member in exception.getattr(names::exceptions())?.items()? {
                insert_timeout_error(&member)?;
            }
        }
        Ok(())
    }

    /// `_timeout_handler`. A deadline that is armed directly gets a handle now, since somebody wants to see it.
    fn visible_handler(&self) -> PyRes<Option<Obj>> {
        if let (Some(_), Some(loop_), Some(when)) =
            (self.timer.get(), self.loop_.get(), self.when.get())
        {
            self.disarm()?;
            self.arm_visibly(loop_.obj(), &when)?;
        }
        Ok(self.handler.get())
    }

    /// The repr.
    fn repr_text(&self) -> PyRes<String> {
        let state = self.state.get();
        let mut words = format!("<Timeout [{}]", state.word());
        if state == State::Entered {
            let when = self.when.get_or_none();
            let shown = if when.is_none() {
                when
            } else {
                stdlib::round()?.call([&when, &Obj::int(3)?])?
            };
            words.push_str(" when=");
            words.push_str(&shown.to_str()?.text()?);
        }
        words.push('>');
        Ok(words)
    }
}

/// Puts a `TimeoutError` before the first `CancelledError` among the contexts of an exception.
fn insert_timeout_error(exception: &Obj) -> PyRes<()> {
    if !exception.is_exception() {
        // What asyncio's look at it says.
        return exception.getattr_str("__context__").map(drop);
    }
    let mut current = exception.clone();
    while let Some(context) = current.exception_context() {
        if context.isinstance(stdlib::cancelled_error()?)? {
            let error = Builtin::Timeout.class().call([])?;
            error.set_exception_context(Some(context.clone()));
            error.set_exception_cause(Some(context));
            current.set_exception_context(Some(error));
            break;
        }
        current = context;
    }
    Ok(())
}

/// The job of a deadline.
fn expire_job(_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(timeout) = CLASS.cast(&object) else {
        return Ok(());
    };
    let overdue = timeout.overdue.get();
    if overdue > 0 {
        timeout.overdue.set(overdue - 1);
        return Ok(());
    }
    timeout.timer.set(None);
    let loop_ = timeout.loop_.take();
    match (timeout.on_timeout(), loop_) {
        (Ok(()), _) => Ok(()),
        (Err(raised), Some(loop_)) => report(timeout, raised, loop_.obj()),
        (Err(raised), None) => Err(raised),
    }
}

/// Reports what the task's `cancel` raised, with the handle that asyncio would have run it in.
#[cold]
fn report(timeout: &Ref<Timeout>, raised: Raised, loop_: &Obj) -> PyRes<()> {
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let callback = timeout.obj().getattr(names::on_timeout())?;
    let handle = Ref::new(Handle::payload(
        &callback,
        &[],
        copy_current_context()?,
        loop_,
    )?)?;
    report_callback_error(
        Raised::restore(exception),
        loop_,
        &callback,
        &Obj::tuple([])?,
        handle.obj(),
        None,
    )
}

/// `Timeout.__aenter__`.
struct Enter(Ref<Timeout>);

impl Machine for Enter {
    #[inline]
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        self.0.enter()?;
        Ok(Sent::Return(self.0.obj().clone()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.0);
    }
}

/// `Timeout.__aexit__`.
struct Exit {
    /// The timeout.
    timeout: Ref<Timeout>,
    /// The class of the exception that leaves the block, or `None`.
    kind: Obj,
    /// The exception, or `None`.
    exception: Obj,
}

impl Machine for Exit {
    #[inline]
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        self.timeout.exit(&self.kind, &self.exception)?;
        Ok(Sent::Return(Obj::none()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.timeout);
        visit.obj(&self.kind);
        visit.obj(&self.exception);
    }
}

/// The deadline that `timeout(delay)` means: `loop.time() + delay`.
#[inline]
fn deadline(delay: &Obj) -> PyRes {
    let loop_ = get_running_loop()?;
    if delay.is_none() {
        return Ok(delay.clone());
    }
    if (delay.is_exact_float() || delay.is_int())
        && let Some(native) = EventLoop::class().cast(&loop_)
        && native.is_direct()
    {
        return Obj::float(now() + delay.as_f64()?);
    }
    loop_.method(names::time(), [])?.add(delay)
}

/// Makes the class and the functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    let builder = ClassBuilder::<Timeout>::new(
        "asyncio.timeouts",
        "Timeout",
        "An asynchronous context manager that cancels what is overdue.\n\nMade by `timeout()` and `timeout_at()`.",
    )
    .init("(self, when)", |this, args| {
        this.disarm()?;
        this.state.set(State::Created);
        this.when.set(args.req(0).clone());
        this.task.clear();
        Ok(())
    })
    .repr(Ref::<Timeout>::repr_text)
    .method("when(self)", "The deadline, or `None`.", |this, _| Ok(this.when.get()))
    .method("reschedule(self, when)", "Moves the deadline; `None` removes it.", |this, args| {
        this.reschedule(args.req(0))
    })
    .method("expired(self)", "Has the deadline passed while the block ran?", |this, _| {
        Ok(matches!(this.state.get(), State::Expiring | State::Expired))
    })
    .coroutine("__aenter__(self)", "Starts the clock.", |this, _| {
        coroutine("Timeout.__aenter__", Enter(this.clone()))
    })
    .coroutine(
        "__aexit__(self, exc_type, exc_val, exc_tb)",
        "Stops the clock; a cancellation by the deadline becomes a `TimeoutError`.",
        |this, args| {
            let (kind, exception) = (args.req(0).clone(), args.req(1).clone());
            coroutine("Timeout.__aexit__", Exit { timeout: this.clone(), kind, exception })
        },
    )
    .method("_on_timeout(self)", "Cancels the task.", |this, _| this.on_timeout())
    .getter("_state", |this| this.state.get().member())
    .property("_when", |this| Ok(this.when.get()), |this, value| {
        drop(this.when.replace(value.cloned()));
        Ok(())
    })
    .property("_task", |this| Ok(this.task.get()), |this, value| {
        drop(this.task.replace(value.filter(|task| !task.is_none()).cloned()));
        Ok(())
    })
    .property("_cancelling", |this| Ok(this.cancelling.get()), |this, value| {
        this.cancelling.set(value.map_or(Ok(0), Obj::as_i64)?);
        Ok(())
    })
    .getter("_timeout_handler", Ref::<Timeout>::visible_handler);
    let builder = if cfg!(Py_3_14) {
        builder
    } else {
        builder.attribute("__final__", Obj::bool(true))
    };
    let class = builder.build()?;
    let (_, insert) = function(
        Kind::Builtin,
        "asyncio.timeouts",
        "_insert_timeout_error(exc_val)",
        "Puts a `TimeoutError` before the `CancelledError` among the contexts of an exception.",
        |args| insert_timeout_error(args.req(0)),
    )?;
    class.setattr_str("_insert_timeout_error", &insert)?;
    add_to_module(module, "Timeout", &class)?;
    let (_, timeout) = function(
        Kind::Function,
        "asyncio.timeouts",
        "timeout(delay)",
        "Limits the time of an `async with` block to `delay` seconds, or does not if it is `None`.\n\n\
         What is overdue is cancelled, and the block raises `TimeoutError`.",
        |args| Ref::<Timeout>::at(deadline(args.req(0))?),
    )?;
    add_to_module(module, "timeout", &timeout)?;
    let (_, timeout_at) = function(
        Kind::Function,
        "asyncio.timeouts",
        "timeout_at(when)",
        "Like `timeout()`, up to a time of `loop.time()`.",
        |args| Ref::<Timeout>::at(args.req(0).clone()),
    )?;
    add_to_module(module, "timeout_at", &timeout_at)
}
