//! Tasks. Answers `asyncio/tasks.py` but for what stands in `combinators`.
//!
//! A task drives a coroutine. A step is: make it the current task, enter its context, send or throw, leave both, look
//! at what came out. The kinds of things a coroutine may yield: one of our futures or tasks (exactly: the direct way),
//! any object with `_asyncio_future_blocking` (through its Python methods), `None` (step again), anything else (an
//! error thrown into the coroutine).
//!
//! A future that was awaited in the ordinary way raises its exception itself when its iterator is resumed, so waking
//! is always a `send`; only when Python code marked and yielded a future by hand is its exception thrown in.

use std::cell::Cell;

use crate::coroutines::Coroutine;
use crate::events::{
    EventLoop, LoopRef, get_event_loop, get_running_loop, leaves_the_loop, report_callback_error,
};
use crate::ffi::task_state::{self, Registration};
use crate::ffi::{
    Builtin, Class, ClassBuilder, Counter, Extends, GilCell, Imported, Kind, Native, Obj, PyRes,
    Raised, Ref, Sent, Slot, Visit, copy_current_context, function, in_context, link_future_class,
    preserving_exception, send, throw,
};
use crate::futures::{self, Blocking, Future, Wakeup, exact_or_task, init_future};
use crate::{names, stdlib};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["Task", "create_task", "ensure_future"];

/// A task.
#[repr(C)]
pub(crate) struct Task {
    /// What makes it a future.
    future: Future,
    /// The coroutine; gone if the task finished in an eager start.
    coro: Slot,
    /// The context of its steps.
    context: Slot,
    /// What it waits for.
    fut_waiter: Slot,
    /// Its name, once somebody asked or set one.
    name: Slot,
    /// Its number, for the name.
    number: Cell<u64>,
    /// Requests of cancellation that were not taken back.
    cancels_requested: Cell<i64>,
    /// Must the next step throw `CancelledError`?
    must_cancel: Cell<bool>,
    /// Report it if it is destroyed while pending?
    log_destroy_pending: Cell<bool>,
    /// Must the awaited future's exception be thrown in, since Python code yielded it by hand?
    throws_on_wake: Cell<bool>,
    /// Its place among all tasks.
    registration: Registration,
}

/// Where the class is kept.
static CLASS: Class<Task> = Class::new();

/// Numbers for names.
static NUMBERS: Counter = Counter::starting_at(1);

impl Native for Task {
    const LAYOUT: crate::ffi::Layout = crate::ffi::Layout::Future;
    const FREELIST: usize = 1024;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            future: Future::empty(),
            coro: Slot::empty(),
            context: Slot::empty(),
            fut_waiter: Slot::empty(),
            name: Slot::empty(),
            number: Cell::new(0),
            cancels_requested: Cell::new(0),
            must_cancel: Cell::new(false),
            log_destroy_pending: Cell::new(true),
            throws_on_wake: Cell::new(false),
            registration: Registration::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.future.traverse(visit);
        visit.slot(&self.coro);
        visit.slot(&self.context);
        visit.slot(&self.fut_waiter);
        visit.slot(&self.name);
    }

    fn clear(&self) {
        self.future.clear();
        self.coro.clear();
        self.context.clear();
        self.fut_waiter.clear();
    }

    #[inline]
    fn needs_finalizer(&self) -> bool {
        self.dies_pending() || self.future.needs_finalizer()
    }

    fn finalize(this: &Ref<Self>) {
        // The report may bring the task back to life, but not back among the tasks.
        task_state::unregister(this, &this.registration);
        if this.dies_pending()
            && let Err(raised) = this.report_destroyed()
        {
            raised.write_unraisable(Some(this.obj()));
        }
        Future::finalize(this.upcast::<Future>());
    }

    fn unlink(this: &Ref<Self>) {
        task_state::unregister(this, &this.registration);
    }
}

impl Extends<Future> for Task {
    fn base(&self) -> &Future {
        &self.future
    }
}

impl Task {
    /// Would its death be worth a report?
    #[inline]
    fn dies_pending(&self) -> bool {
        !self.future.is_done() && self.log_destroy_pending.get() && self.future.is_initialized()
    }
}

/// How a finished future wakes a task.
static WAKEUP: Wakeup = Wakeup {
    body: wake_job,
    callable: wakeup_callable,
    context: task_context,
};

/// The task's context.
fn task_context(task: &Obj) -> Option<Obj> {
    CLASS.cast(task).and_then(|task| task.context.get())
}

/// The job that steps a task.
fn step_job(_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(task) = CLASS.cast(&object) else {
        return Ok(());
    };
    match task.step(None, Entry::Enter) {
        Ok(()) => Ok(()),
        Err(raised) => report_step(task, raised),
    }
}

/// The job that wakes a task whose future is done.
fn wake_job(_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(task) = CLASS.cast(&object) else {
        return Ok(());
    };
    match task.wake(Entry::Enter) {
        Ok(()) => Ok(()),
        Err(raised) => report_step(task, raised),
    }
}

/// Reports an error of the step itself, as the handle of asyncio's step would.
#[cold]
fn report_step(task: &Ref<Task>, raised: Raised) -> PyRes<()> {
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let loop_ = task.future.loop_ref()?.obj().clone();
    let callable = step_callable(task, None)?;
    let context = task.context.get().map_or_else(copy_current_context, Ok)?;
    let handle = Ref::new(crate::events::Handle::payload(
        &callable,
        &[],
        context,
        &loop_,
    )?)?;
    report_callback_error(
        Raised::restore(exception),
        &loop_,
        &callable,
        &Obj::tuple([])?,
        handle.obj(),
        None,
    )
}

/// Who enters the context of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// The step itself.
    Enter,
    /// The handle that it runs in did.
    Entered,
}

/// Makes a task the current one while it lives.
struct Current<'a> {
    /// The loop.
    loop_: &'a LoopRef,
    /// The task.
    task: &'a Ref<Task>,
}

impl<'a> Current<'a> {
    /// Enters the task; fails if another one is being executed on the loop.
    #[inline]
    fn enter(loop_: &'a LoopRef, task: &'a Ref<Task>) -> PyRes<Self> {
        match loop_ {
            #[cfg(Py_3_14)]
            LoopRef::Native(native) if task_state::is_running_loop(native.obj())? => {
                if let Some(other) = task_state::swap_current_task(Some(task.obj().clone())) {
                    let error = cannot_enter(task, &other);
                    drop(task_state::swap_current_task(Some(other)));
                    return Err(error);
                }
            }
            #[cfg(not(Py_3_14))]
            LoopRef::Native(native) => {
                if let Some(other) = native.swap_current_task(Some(task.obj().clone()))? {
                    let error = cannot_enter(task, &other);
                    native.swap_current_task(Some(other))?;
                    return Err(error);
                }
            }
            _ => {
                stdlib::enter_task()?.call([loop_.obj(), task.obj()])?;
            }
        }
        Ok(Self { loop_, task })
    }

    /// Leaves the task. What was raised meanwhile stays raised.
    #[inline]
    fn leave(self) -> PyRes<()> {
        match self.loop_ {
            #[cfg(Py_3_14)]
            LoopRef::Native(native) if task_state::is_running_loop(native.obj())? => {
                drop(task_state::swap_current_task(None));
                Ok(())
            }
            #[cfg(not(Py_3_14))]
            LoopRef::Native(native) => native.swap_current_task(None).map(drop),
            _ => stdlib::leave_task()?
                .call([self.loop_.obj(), self.task.obj()])
                .map(drop),
        }
    }
}

/// The error of entering a task while another is being executed.
#[cold]
fn cannot_enter(task: &Ref<Task>, other: &Obj) -> Raised {
    let text = || -> PyRes<String> {
        Ok(format!(
            "Cannot enter into task {} while another task {} is being executed.",
            task.obj().repr()?,
            other.repr()?
        ))
    };
    match text() {
        Ok(text) => Raised::runtime_error(&text),
        Err(raised) => raised,
    }
}

/// Puts `task` into the slot of the current task of `loop_` and gives what was there, for eager starts.
fn swap_current(loop_: &LoopRef, task: Option<&Obj>) -> PyRes<Option<Obj>> {
    #[cfg(Py_3_14)]
    if task_state::is_running_loop(loop_.obj())? {
        return Ok(task_state::swap_current_task(task.cloned()));
    }
    #[cfg(not(Py_3_14))]
    if let LoopRef::Native(native) = loop_ {
        let ours = native.current_task();
        let known = stdlib::current_tasks()?.dict_get(native.obj())?;
        if ours.is_some() || known.is_none() {
            return native.swap_current_task(task.cloned());
        }
        // A foreign task is being executed: the dict is the only slot that knows it.
    }
    let none = Obj::none();
    #[cfg(Py_3_12)]
    {
        let previous = stdlib::swap_current_task()?.call([loop_.obj(), task.unwrap_or(&none)])?;
        Ok((!previous.is_none()).then_some(previous))
    }
    #[cfg(not(Py_3_12))]
    {
        let tasks = stdlib::current_tasks()?;
        let previous = tasks.dict_get(loop_.obj())?;
        match task {
            Some(task) => tasks.set_item(loop_.obj(), task)?,
            None if previous.is_some() => tasks.del_item(loop_.obj())?,
            None => drop(none),
        }
        Ok(previous)
    }
}

/// Is the object a coroutine that a task can drive?
#[inline]
pub(crate) fn is_coroutine(object: &Obj) -> PyRes<bool> {
    if object.is_coroutine() || Coroutine::class().is_exact(object) {
        return Ok(true);
    }
    stdlib::iscoroutine()?.call([object])?.truth()
}

/// What a new task is given besides its coroutine.
#[derive(Default)]
pub(crate) struct TaskOptions<'a> {
    /// Its name; a number makes one otherwise.
    pub name: Option<&'a Obj>,
    /// The context of its steps; a copy of the current one otherwise.
    pub context: Option<&'a Obj>,
    /// Start it at once?
    pub eager_start: bool,
}

impl Ref<Task> {
    /// A task of exactly this class on a loop whose direct path is open.
    #[inline]
    pub(crate) fn spawn(
        loop_: &Ref<EventLoop>,
        coro: &Obj,
        options: &TaskOptions<'_>,
    ) -> PyRes<Self> {
        let task = Self::new(Task {
            future: Future::payload(LoopRef::Native(loop_.clone())),
            ..Task::empty()
        })?;
        task.start(coro, options)?;
        Ok(task)
    }

    /// The second half of `__init__`: everything after the loop is known.
    #[inline]
    fn start(&self, coro: &Obj, options: &TaskOptions<'_>) -> PyRes<()> {
        if !is_coroutine(coro)? {
            self.log_destroy_pending.set(false);
            return Err(Raised::type_error(&format!(
                "a coroutine was expected, got {}",
                coro.repr()?
            )));
        }
        match options.name {
            None => self.number.set(NUMBERS.next()),
            Some(name) if name.is_exact_str() => self.name.set(name.clone()),
            Some(name) => self.name.set(name.to_str()?),
        }
        let context = match options.context {
            None => copy_current_context()?,
            Some(context) if context.is_context() => context.clone(),
            Some(other) => {
                self.log_destroy_pending.set(false);
                return Err(Raised::type_error(&format!(
                    "a contextvars.Context was expected, got {}",
                    other.class_name()
                )));
            }
        };
        self.context.set(context);
        self.coro.set(coro.clone());
        task_state::publish_task(self, coro, self.name.get().as_ref());
        task_state::register(self, &self.registration);
        let loop_ = self.future.loop_ref()?;
        if let LoopRef::Foreign(_) = loop_ {
            link_registry()?;
        }
        if options.eager_start && loop_.obj().method(names::is_running(), [])?.truth()? {
            let started = self.start_eagerly(&loop_.clone());
            if started.is_err() {
                self.log_destroy_pending.set(false);
            }
            return started;
        }
        self.schedule_step(None)
    }

    /// Runs the first step now.
    fn start_eagerly(&self, loop_: &LoopRef) -> PyRes<()> {
        let previous = swap_current(loop_, Some(self.obj()))?;
        let context = self.context.get().map_or_else(copy_current_context, Ok)?;
        let outcome = in_context(&context, || self.run_and_handle(None));
        let restored = if outcome.is_ok() {
            swap_current(loop_, previous.as_ref()).map(drop)
        } else {
            // What was raised must survive the restoring.
            let mut restored = Ok(());
            preserving_exception(|| {
                restored = swap_current(loop_, previous.as_ref())
                    .map(drop)
                    .map_err(Raised::discard);
            });
            restored.map_err(|()| Raised::runtime_error("cannot restore the current task"))
        };
        if self.future.is_done() {
            task_state::retract_task(self);
            self.coro.clear();
        }
        outcome.and(restored)
    }

    /// Hands the next step to the loop.
    #[inline]
    fn schedule_step(&self, exception: Option<Obj>) -> PyRes<()> {
        let loop_ = self.future.loop_ref()?;
        if exception.is_none()
            && let Some(direct) = loop_.direct()
        {
            direct.push(step_job, self.obj().clone());
            return Ok(());
        }
        let callable = step_callable(self, exception)?;
        let context = self.context.get();
        loop_
            .clone()
            .call_soon(&callable, &[], context.as_ref())
            .map(drop)
    }

    /// One step: `send`, or `throw` if there is an exception. Off the direct path the handle has entered the context.
    #[inline]
    fn step(&self, mut exception: Option<Obj>, entry: Entry) -> PyRes<()> {
        if self.future.is_done() {
            return Err(self.already_done(exception.as_ref()));
        }
        if self.must_cancel.get() {
            let cancelled = match &exception {
                Some(exception) => exception.isinstance(stdlib::cancelled_error()?)?,
                None => false,
            };
            if !cancelled {
                exception = Some(self.future.make_cancelled_error()?);
            }
            self.must_cancel.set(false);
        }
        self.fut_waiter.clear();
        let Some(context) = self.context.get() else {
            return Err(not_initialized());
        };
        let loop_ = self.future.loop_ref()?;
        let current = Current::enter(loop_, self)?;
        let outcome = match entry {
            Entry::Enter => in_context(&context, || self.run_and_handle(exception)),
            Entry::Entered => self.run_and_handle(exception),
        };
        match outcome {
            Ok(()) => current.leave(),
            Err(raised) => {
                preserving_exception(|| {
                    if let Err(raised) = current.leave() {
                        raised.discard();
                    }
                });
                Err(raised)
            }
        }
    }

    /// The error of stepping a finished task.
    #[cold]
    fn already_done(&self, exception: Option<&Obj>) -> Raised {
        let text = || -> PyRes<String> {
            let exception = exception.map_or_else(|| Ok(String::from("None")), Obj::repr)?;
            Ok(format!(
                "__step(): already done: {} {exception}",
                self.obj().repr()?
            ))
        };
        match (text(), stdlib::invalid_state_error()) {
            (Ok(text), Ok(class)) => Raised::with(class, &text),
            (Err(raised), _) | (_, Err(raised)) => raised,
        }
    }

    /// Drives the coroutine and deals with what comes out.
    #[inline]
    fn run_and_handle(&self, exception: Option<Obj>) -> PyRes<()> {
        let Some(coro) = self.coro.get() else {
            return Err(not_initialized());
        };
        let sent = match exception {
            None => send(&coro, &Obj::none()),
            Some(exception) => throw(&coro, &exception),
        };
        match sent {
            Ok(Sent::Yield(awaited)) => self.park(&awaited),
            Ok(Sent::Return(value)) => {
                self.retire();
                if self.must_cancel.get() {
                    self.must_cancel.set(false);
                    let message = self.future.cancel_message();
                    self.upcast::<Future>().cancel_base(message).map(drop)
                } else {
                    self.upcast::<Future>().finish(value)
                }
            }
            Err(raised) => self.fail(raised),
        }
    }

    /// The task is about to be done: it leaves the list of tasks.
    #[inline]
    fn retire(&self) {
        task_state::unregister(self, &self.registration);
    }

    /// The coroutine raised.
    fn fail(&self, raised: Raised) -> PyRes<()> {
        self.retire();
        let future = self.upcast::<Future>();
        if raised.matches(stdlib::cancelled_error()?) {
            let error = raised.take();
            self.future.keep_cancelled_error(error);
            return future.cancel_base(None).map(drop);
        }
        let leaves = leaves_the_loop(&raised);
        let exception = raised.take();
        if leaves {
            future.fail(exception.clone())?;
            return Err(Raised::restore(exception));
        }
        future.fail(exception)
    }

    /// The coroutine waits for `awaited`.
    #[inline]
    fn park(&self, awaited: &Obj) -> PyRes<()> {
        let Some(future) = exact_or_task(awaited) else {
            return self.park_generic(awaited);
        };
        if awaited.is(self.obj()) {
            return self.throw_soon(&format!(
                "Task cannot await on itself: {}",
                self.obj().repr()?
            ));
        }
        let loop_ = self.future.loop_ref()?;
        if !future.loop_ref()?.obj().is(loop_.obj()) {
            return self.throw_soon(&different_loop(self, awaited)?);
        }
        let Some(blocking) = future.take_blocking() else {
            return self.throw_soon(&format!(
                "yield was used instead of yield from in task {} with {}",
                self.obj().repr()?,
                awaited.repr()?
            ));
        };
        if cfg!(Py_3_14) {
            task_state::add_awaited_by(awaited, self.obj())?;
        }
        self.throws_on_wake.set(blocking == Blocking::Marked);
        future.add_wakeup(&WAKEUP, self.obj().clone())?;
        self.fut_waiter.set(awaited.clone());
        if self.must_cancel.get() && cancel_any(awaited, self.future.cancel_message())? {
            self.must_cancel.set(false);
        }
        Ok(())
    }

    /// The coroutine yielded something that is not exactly one of our futures.
    #[cold]
    fn park_generic(&self, awaited: &Obj) -> PyRes<()> {
        if awaited.is_none() {
            return self.schedule_step(None);
        }
        let blocking = awaited
            .getattr_opt(names::asyncio_future_blocking())?
            .filter(|mark| !mark.is_none());
        let Some(blocking) = blocking else {
            let text = if awaited.is_generator() {
                format!(
                    "yield was used instead of yield from for generator in task {} with {}",
                    self.obj().repr()?,
                    awaited.repr()?
                )
            } else {
                format!("Task got bad yield: {}", awaited.repr()?)
            };
            return self.throw_soon(&text);
        };
        if !futures::loop_of(awaited)?.is(self.future.loop_ref()?.obj()) {
            return self.throw_soon(&different_loop(self, awaited)?);
        }
        if !blocking.truth()? {
            return self.throw_soon(&format!(
                "yield was used instead of yield from in task {} with {}",
                self.obj().repr()?,
                awaited.repr()?
            ));
        }
        if awaited.is(self.obj()) {
            return self.throw_soon(&format!(
                "Task cannot await on itself: {}",
                self.obj().repr()?
            ));
        }
        if cfg!(Py_3_14) {
            task_state::add_awaited_by(awaited, self.obj())?;
        }
        // A subclass of ours delivers its own outcome; for strangers the exception is thrown in.
        self.throws_on_wake.set(true);
        awaited.setattr(names::asyncio_future_blocking(), &Obj::bool(false))?;
        let wakeup = wakeup_callable(self.obj())?;
        let context = self.context.get_or_none();
        awaited.method_kw(
            names::add_done_callback(),
            &[&wakeup],
            &[(names::context(), &context)],
        )?;
        self.fut_waiter.set(awaited.clone());
        if self.must_cancel.get() && cancel_any(awaited, self.future.cancel_message())? {
            self.must_cancel.set(false);
        }
        Ok(())
    }

    /// Throws a `RuntimeError` into the coroutine at the next turn.
    #[cold]
    fn throw_soon(&self, text: &str) -> PyRes<()> {
        self.schedule_step(Some(Builtin::Runtime.instance(text)?))
    }

    /// The future that the task waited for is done.
    #[inline]
    fn wake(&self, entry: Entry) -> PyRes<()> {
        let awaited = self.fut_waiter.take();
        let Some(awaited) = awaited else {
            return self.step(None, entry);
        };
        if cfg!(Py_3_14) {
            task_state::discard_awaited_by(&awaited, self.obj())?;
        }
        if !self.throws_on_wake.get() {
            if self.must_cancel.get()
                && let Some(future) = exact_or_task(&awaited)
            {
                if future.is_cancelled() {
                    // The future was cancelled first, and its error is the one to see.
                    self.must_cancel.set(false);
                } else {
                    future.mark_retrieved();
                }
            }
            return self.step(None, entry);
        }
        self.wake_with(&awaited, entry)
    }

    /// Steps with the outcome of a future that does not deliver it itself.
    #[cold]
    fn wake_with(&self, awaited: &Obj, entry: Entry) -> PyRes<()> {
        let outcome = match exact_or_task(awaited) {
            Some(future) => future.outcome(),
            None => awaited.method(names::result(), []),
        };
        match outcome {
            Ok(_) => self.step(None, entry),
            Err(raised) => {
                let exception = raised.take();
                self.step(Some(exception), entry)
            }
        }
    }

    /// `cancel(msg=None)`.
    pub(crate) fn cancel(&self, message: Option<Obj>) -> PyRes<bool> {
        self.future.mark_retrieved();
        if self.future.is_done() {
            return Ok(false);
        }
        self.cancels_requested.set(self.cancels_requested.get() + 1);
        if let Some(awaited) = self.fut_waiter.get()
            && cancel_any(&awaited, message.clone())?
        {
            return Ok(true);
        }
        self.must_cancel.set(true);
        self.future.set_cancel_message(message);
        Ok(true)
    }

    /// `uncancel()`.
    pub(crate) fn uncancel(&self) -> i64 {
        let count = self.cancels_requested.get();
        if count > 0 {
            self.cancels_requested.set(count - 1);
            if count == 1 {
                self.must_cancel.set(false);
            }
        }
        self.cancels_requested.get()
    }

    /// `cancelling()`.
    pub(crate) fn cancelling(&self) -> i64 {
        self.cancels_requested.get()
    }

    /// `get_name()`.
    pub(crate) fn name(&self) -> PyRes {
        if let Some(name) = self.name.get() {
            return Ok(name);
        }
        let name = Obj::str(&format!("Task-{}", self.number.get()))?;
        self.name.set(name.clone());
        Ok(name)
    }

    /// `set_name(value)`.
    pub(crate) fn set_name(&self, value: &Obj) -> PyRes<()> {
        let name = if value.is_exact_str() {
            value.clone()
        } else {
            value.to_str()?
        };
        task_state::publish_name(self, &name);
        self.name.set(name);
        Ok(())
    }

    /// Nobody needs to hear of its death while it is pending.
    pub(crate) fn forget_destruction(&self) {
        self.log_destroy_pending.set(false);
    }

    /// Is this task parked on `object`?
    pub(crate) fn waits_for(&self, object: &Obj) -> bool {
        self.fut_waiter.holds(object)
    }

    /// Reports a pending task that nobody can reach any more.
    fn report_destroyed(&self) -> PyRes<()> {
        let loop_ = self.future.loop_ref()?.clone();
        let context = Obj::dict()?;
        context.set_item(names::task(), self.obj())?;
        context.set_item(
            names::message(),
            &Obj::str("Task was destroyed but it is pending!")?,
        )?;
        if let Some(traceback) = self.future.source_traceback().get() {
            context.set_item(names::source_traceback(), &traceback)?;
        }
        loop_.call_exception_handler(&context)
    }
}

/// The error of a task whose `__init__` never ran.
#[cold]
fn not_initialized() -> Raised {
    Raised::runtime_error("uninitialized Task object")
}

/// The text of waiting for a future of another loop.
#[cold]
fn different_loop(task: &Ref<Task>, awaited: &Obj) -> PyRes<String> {
    Ok(format!(
        "Task {} got Future {} attached to a different loop",
        task.obj().repr()?,
        awaited.repr()?
    ))
}

/// `future.cancel(msg=message)` for any kind of future.
pub(crate) fn cancel_any(future: &Obj, message: Option<Obj>) -> PyRes<bool> {
    if let Some(future) = Future::class().exact(future) {
        return future.cancel_base(message);
    }
    if let Some(task) = CLASS.exact(future) {
        return task.cancel(message);
    }
    let message = message.unwrap_or_else(Obj::none);
    future
        .method_kw(names::cancel(), &[], &[(names::msg(), &message)])?
        .truth()
}

/// `task.cancel()` for any kind of task.
pub(crate) fn cancel_task(task: &Obj) -> PyRes<()> {
    match CLASS.exact(task) {
        Some(native) => native.cancel(None).map(drop),
        None => task.method(names::cancel(), []).map(drop),
    }
}

/// `task.uncancel()` for any kind of task.
pub(crate) fn uncancel_task(task: &Obj) -> PyRes<i64> {
    match CLASS.exact(task) {
        Some(native) => Ok(native.uncancel()),
        None => task.method(names::uncancel(), [])?.as_i64(),
    }
}

/// `task.cancelling()` for any kind of task.
#[inline]
pub(crate) fn cancelling(task: &Obj) -> PyRes<i64> {
    match CLASS.exact(task) {
        Some(native) => Ok(native.cancelling()),
        None => task.method(names::cancelling(), [])?.as_i64(),
    }
}

/// The callable that steps a task, for loops off the direct path.
struct TaskStep {
    /// The task.
    task: Slot<Ref<Task>>,
    /// What to throw.
    exception: Slot,
}

/// Where the class is kept.
static TASK_STEP: Class<TaskStep> = Class::new();

impl Native for TaskStep {
    fn class() -> &'static Class<Self> {
        &TASK_STEP
    }

    fn empty() -> Self {
        Self {
            task: Slot::empty(),
            exception: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.task);
        visit.slot(&self.exception);
    }

    fn clear(&self) {
        self.task.clear();
        self.exception.clear();
    }
}

/// Makes the callable that steps a task.
fn step_callable(task: &Ref<Task>, exception: Option<Obj>) -> PyRes {
    let payload = TaskStep {
        task: Slot::new(task.clone()),
        exception: Slot::empty(),
    };
    if let Some(exception) = exception {
        payload.exception.set(exception);
    }
    Ref::new(payload).map(Ref::into_obj)
}

/// The callable that wakes a task, for futures and loops off the direct path.
struct TaskWakeup {
    /// The task.
    task: Slot<Ref<Task>>,
}

/// Where the class is kept.
static TASK_WAKEUP: Class<TaskWakeup> = Class::new();

impl Native for TaskWakeup {
    fn class() -> &'static Class<Self> {
        &TASK_WAKEUP
    }

    fn empty() -> Self {
        Self {
            task: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.task);
    }

    fn clear(&self) {
        self.task.clear();
    }
}

/// Makes the callable that wakes a task.
fn wakeup_callable(task: &Obj) -> PyRes {
    let Some(task) = CLASS.cast(task) else {
        return Err(not_initialized());
    };
    Ref::new(TaskWakeup {
        task: Slot::new(task.clone()),
    })
    .map(Ref::into_obj)
}

/// Wakes a task with a future that Python code hands over.
fn wake_by_hand(task: &Ref<Task>, future: &Obj) -> PyRes<()> {
    if cfg!(Py_3_14) {
        task_state::discard_awaited_by(future, task.obj())?;
    }
    if !task.throws_on_wake.get() && exact_or_task(future).is_some() && task.waits_for(future) {
        return task.wake(Entry::Entered);
    }
    task.wake_with(future, Entry::Entered)
}

/// Makes the classes and functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    task_step_class()?;
    task_wakeup_class()?;
    let class = task_class()?;
    link_future_class::<Future, Task>()?;
    futures::set_task_class(&class);
    Future::class().set_usual_subclass(&class);
    crate::ffi::add_to_module(module, "Task", &class)?;
    let (_, create_task) = function(
        Kind::Function,
        "asyncio.tasks",
        "create_task(coro, **kwargs)",
        "Runs a coroutine as a task of the running loop.",
        |args| match args.keywords() {
            None => create_task_on(&get_running_loop()?, args.req(0)),
            Some(keywords) => {
                let method = get_running_loop()?.getattr(names::create_task())?;
                method.call_dict(&Obj::tuple([args.req(0).clone()])?, Some(keywords))
            }
        },
    )?;
    crate::ffi::add_to_module(module, "create_task", &create_task)?;
    let (_, ensure_future) = function(
        Kind::Function,
        "asyncio.tasks",
        "ensure_future(coro_or_future, *, loop=None)",
        "A future for a future, a coroutine or any awaitable; coroutines become tasks.",
        |args| self::ensure_future(args.req(0), args.some(1)),
    )?;
    crate::ffi::add_to_module(module, "ensure_future", &ensure_future)
}

/// `TaskStepMethWrapper`.
fn task_step_class() -> PyRes {
    ClassBuilder::<TaskStep>::new("_asyncio", "TaskStepMethWrapper", "Steps a task.")
        .sealed()
        .call(|this, args, kwargs| {
            if !args.is_empty() || kwargs.is_some() {
                return Err(Raised::type_error("function takes no arguments"));
            }
            let Some(task) = this.task.get() else {
                return Err(not_initialized());
            };
            task.step(this.exception.take(), Entry::Entered)?;
            Ok(Obj::none())
        })
        .getter("__self__", |this| Ok(this.task.get_or_none()))
        .getter("__qualname__", |this| {
            match this.task.get().and_then(|task| task.coro.get()) {
                Some(coro) => coro.getattr(names::qualname()),
                None => Obj::str("TaskStepMethWrapper"),
            }
        })
        .build()
}

/// `TaskWakeupMethWrapper`.
fn task_wakeup_class() -> PyRes {
    ClassBuilder::<TaskWakeup>::new("_asyncio", "TaskWakeupMethWrapper", "Wakes a task.")
        .sealed()
        .call(|this, args, _| {
            let (Some(task), [future]) = (this.task.get(), args) else {
                return Err(Raised::type_error(
                    "task_wakeup() takes exactly one argument",
                ));
            };
            wake_by_hand(&task, future)?;
            Ok(Obj::none())
        })
        .compare(|this, other, how| {
            let Some(other) = TASK_WAKEUP.cast(other) else {
                return Ok(None);
            };
            let same = this.task.get_or_none().is(&other.task.get_or_none());
            Ok(match how {
                crate::ffi::Compare::Eq => Some(same),
                crate::ffi::Compare::Ne => Some(!same),
                _ => None,
            })
        })
        .hash(|this| Ok(this.task.get_or_none().address().cast_signed()))
        .getter("__self__", |this| Ok(this.task.get_or_none()))
        .getter("__name__", |_| Obj::str("task_wakeup"))
        .getter("__qualname__", |_| Obj::str("Task.task_wakeup"))
        .build()
}

/// `Task`.
fn task_class() -> PyRes {
    let builder = ClassBuilder::<Task>::new(
        "_asyncio",
        "Task",
        "A coroutine that runs on an event loop.\n\nAnswers `asyncio.Task`; made by `asyncio.create_task()`.",
    )
    .base(stdlib::c_task()?.clone())
    .phrased_by(stdlib::c_task()?.clone())
    .init("(self, coro, *, loop=None, name=None, context=None, eager_start=False)", |this, args| {
        init_future(&this.future, args.some(1), || this.obj().class_name())?;
        let options = TaskOptions {
            name: args.some(2),
            context: args.some(3),
            eager_start: args.truth(4, false)?,
        };
        this.start(args.req(0), &options)
    })
    .repr(|this| stdlib::task_repr()?.call([this.obj()])?.text())
    .method("set_result(self, result, /)", "Refused: a task's result is its coroutine's.", |_, _| -> PyRes {
        Err(Raised::runtime_error("Task does not support set_result operation"))
    })
    .method("set_exception(self, exception, /)", "Refused: a task's result is its coroutine's.", |_, _| -> PyRes {
        Err(Raised::runtime_error("Task does not support set_exception operation"))
    })
    .method("cancel(self, /, msg=None)", "Throws `CancelledError` into the coroutine at the next turn.", |this, args| {
        this.cancel(args.some(0).cloned())
    })
    .method("cancelling(self, /)", "How many requests of cancellation were not taken back.", |this, _| Ok(this.cancelling()))
    .method("uncancel(self, /)", "Takes one request of cancellation back; returns how many remain.", |this, _| Ok(this.uncancel()))
    .method("get_coro(self, /)", "The coroutine; `None` if an eager start finished it.", |this, _| Ok(this.coro.get()))
    .method("get_context(self, /)", "The context of the task's steps.", |this, _| Ok(this.context.get()))
    .method("get_name(self, /)", "The name.", |this, _| this.name())
    .method("set_name(self, value, /)", "Sets the name.", |this, args| this.set_name(args.req(0)))
    .method("get_stack(self, /, *, limit=None)", "The frames of the coroutine, or of its traceback.", |this, args| {
        stdlib::task_get_stack()?.call([this.obj(), &args.get(0).cloned().unwrap_or_else(Obj::none)])
    })
    .method("print_stack(self, /, *, limit=None, file=None)", "Prints what `get_stack` gives.", |this, args| {
        let none = Obj::none();
        stdlib::task_print_stack()?.call([this.obj(), args.get(0).unwrap_or(&none), args.get(1).unwrap_or(&none)])
    })
    .getter("_coro", |this| Ok(this.coro.get()))
    .getter("_fut_waiter", |this| Ok(this.fut_waiter.get()))
    .getter("_must_cancel", |this| Ok(this.must_cancel.get()))
    .getter("_num_cancels_requested", |this| Ok(this.cancelling()))
    .property("_log_destroy_pending", |this| Ok(this.log_destroy_pending.get()), |this, value| {
        let Some(value) = value else {
            return Err(Builtin::Attribute.raise(
                "attribute '_log_destroy_pending' of '_asyncio.Task' objects cannot be deleted",
            ));
        };
        this.log_destroy_pending.set(value.truth()?);
        Ok(())
    });
    futures::common(builder).build()
}

/// `ensure_future(coro_or_future, *, loop=None)`.
pub(crate) fn ensure_future(object: &Obj, loop_: Option<&Obj>) -> PyRes {
    // Perf: to see that a coroutine is no future takes an `AttributeError`.
    let is_plain = object.is_coroutine() || Coroutine::class().is_exact(object);
    if !is_plain && futures::is_future(object)? {
        if let Some(loop_) = loop_
            && !futures::loop_of(object)?.is(loop_)
        {
            return Err(Raised::value_error(
                "The future belongs to a different loop than the one specified as the loop argument",
            ));
        }
        return Ok(object.clone());
    }
    let coro = if is_plain || is_coroutine(object)? {
        object.clone()
    } else if stdlib::isawaitable()?.call([object])?.truth()? {
        wrap_awaitable(object)?
    } else {
        return Err(Raised::type_error(
            "An asyncio.Future, a coroutine or an awaitable is required",
        ));
    };
    let loop_ = match loop_ {
        Some(loop_) => loop_.clone(),
        None => get_event_loop()?,
    };
    create_task_on(&loop_, &coro).map_err(|raised| {
        if coro.is(object) && raised.is(Builtin::Runtime) {
            close_quietly(raised, &coro)
        } else {
            raised
        }
    })
}

/// Closes a coroutine that will never run, so that it does not warn; the error stays.
pub(crate) fn close_quietly(raised: Raised, coro: &Obj) -> Raised {
    preserving_exception(|| match coro.getattr_opt(names::close()) {
        Ok(Some(close)) => {
            if let Err(raised) = close.call([]) {
                raised.discard();
            }
        }
        Ok(None) => {}
        Err(raised) => raised.discard(),
    });
    raised
}

/// `current_task(loop)`.
#[inline]
pub(crate) fn current_task(loop_: &Obj) -> PyRes<Option<Obj>> {
    #[cfg(Py_3_14)]
    if task_state::is_running_loop(loop_)?
        && let Some(task) = task_state::current_task()
    {
        return Ok(Some(task));
    }
    #[cfg(not(Py_3_14))]
    if let Some(native) = EventLoop::class().cast(loop_)
        && let Some(task) = native.unpublished_task()
    {
        return Ok(Some(task));
    }
    visible_current_task(loop_)
}

/// The current task as whatever stands in `asyncio.tasks` knows it: tasks in pure Python have their own register.
#[cold]
fn visible_current_task(loop_: &Obj) -> PyRes<Option<Obj>> {
    let task = stdlib::tasks_module()?
        .getattr(names::current_task())?
        .call([loop_])?;
    Ok((!task.is_none()).then_some(task))
}

/// `loop.create_task(coro)`: natively on the direct path without a task factory, else through the method.
#[inline]
pub(crate) fn create_task_on(loop_: &Obj, coro: &Obj) -> PyRes {
    if let Some(native) = EventLoop::class().cast(loop_)
        && native.is_direct()
        && native.task_factory.is_none()
    {
        return Ref::<Task>::spawn(native, coro, &TaskOptions::default()).map(Ref::into_obj);
    }
    loop_.method(names::create_task(), [coro])
}

/// `loop.create_task(coro, **keywords)`: natively if they are only a name and a context, else through the method.
pub(crate) fn create_task_with(loop_: &Obj, coro: &Obj, keywords: &Obj) -> PyRes {
    if let Some(native) = EventLoop::class().cast(loop_)
        && native.is_direct()
        && native.task_factory.is_none()
    {
        let name = keywords.dict_get(names::name())?;
        let context = keywords.dict_get(names::context())?;
        if keywords.len()? == usize::from(name.is_some()) + usize::from(context.is_some()) {
            let options = TaskOptions {
                name: name.as_ref().filter(|name| !name.is_none()),
                context: context.as_ref().filter(|context| !context.is_none()),
                eager_start: false,
            };
            return Ref::<Task>::spawn(native, coro, &options).map(Ref::into_obj);
        }
    }
    loop_
        .getattr(names::create_task())?
        .call_dict(&Obj::tuple([coro.clone()])?, Some(keywords))
}

/// A coroutine that awaits any awaitable, of Python's own class, as users see it in `get_coro()`.
pub(crate) fn wrap_awaitable(awaitable: &Obj) -> PyRes {
    static WRAP: Imported = Imported::new("aioxide._awaitables", "_wrap_awaitable");
    WRAP.get()?.call([awaitable])
}

/// Makes `asyncio.all_tasks` of the standard library see native tasks (up to 3.13, where its registry is a `WeakSet`).
pub(crate) fn link_registry() -> PyRes<()> {
    static LINKED: GilCell<bool> = GilCell::new(cfg!(Py_3_14));
    static LINK: Imported = Imported::new("aioxide._tasks_registry", "link_stdlib_registry");
    if LINKED.get() {
        return Ok(());
    }
    LINKED.set(true);
    LINK.get()?.call([]).map(drop)
}
