//! Groups of tasks. Answers `asyncio/taskgroups.py`, as of 3.15 on every Python.
//!
//! A group knows its tasks by a Python `set`, since subclasses and tools look at `_tasks`. A task that is done comes back
//! as an observer if task and group are exactly of our classes, else as a call of the bound method `_on_task_done`;
//! either way through the loop, so that the group hears of tasks in the order in which they ended.
//!
//! Invariants: leaving the group (by any way: result, error, `close()`) forgets parent, errors and base error, since
//! these are links of cycles; whoever comes later finds empty slots. Methods that asyncio calls on `self` are called
//! through Python if the group is of a subclass.

use std::cell::Cell;
use std::fmt::Write as _;

use crate::coroutines::{Delegate, coroutine};
use crate::events::{LoopRef, get_running_loop};
use crate::ffi::{
    Builtin, Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot,
    Visit, add_to_module, preserving_exception, task_state,
};
use crate::futures::{Observer, exact_or_task};
use crate::tasks::{
    cancel_task, cancelling, create_task_on, create_task_with, current_task, uncancel_task,
};
use crate::waiter::{Waiter, exception_of, is_cancelled, is_done, set_result};
use crate::{names, stdlib};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["TaskGroup"];

/// A group of tasks that end together.
pub(crate) struct TaskGroup {
    /// Was it entered?
    entered: Cell<bool>,
    /// Has the body ended?
    exiting: Cell<bool>,
    /// Were the tasks cancelled?
    aborting: Cell<bool>,
    /// Was the parent cancelled by the group, so that the group has to take that back?
    parent_cancel_requested: Cell<bool>,
    /// Was the group cancelled before it was entered?
    cancel_on_enter: Cell<bool>,
    /// The loop.
    loop_: Slot,
    /// The task that entered; empty again afterwards.
    parent_task: Slot,
    /// A `set` of the tasks that are not done.
    tasks: Slot,
    /// A `list` of what tasks raised; empty slot afterwards.
    errors: Slot,
    /// The first `KeyboardInterrupt` or `SystemExit`.
    base_error: Slot,
    /// What the parent waits for.
    on_completed: Slot,
}

/// Where the class is kept.
static CLASS: Class<TaskGroup> = Class::new();

impl Native for TaskGroup {
    const FREELIST: usize = 128;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            entered: Cell::new(false),
            exiting: Cell::new(false),
            aborting: Cell::new(false),
            parent_cancel_requested: Cell::new(false),
            cancel_on_enter: Cell::new(false),
            loop_: Slot::empty(),
            parent_task: Slot::empty(),
            tasks: Slot::empty(),
            errors: Slot::empty(),
            base_error: Slot::empty(),
            on_completed: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
        visit.slot(&self.parent_task);
        visit.slot(&self.tasks);
        visit.slot(&self.errors);
        visit.slot(&self.base_error);
        visit.slot(&self.on_completed);
    }

    fn clear(&self) {
        self.loop_.clear();
        self.parent_task.clear();
        self.tasks.clear();
        self.errors.clear();
        self.base_error.clear();
        self.on_completed.clear();
    }
}

/// How a finished task tells its group.
static TASK_DONE: Observer = Observer {
    body: task_done,
    qualname: "TaskGroup._on_task_done",
};

/// The observer's body.
fn task_done(group: &Obj, task: &Obj) -> PyRes<()> {
    CLASS
        .cast(group)
        .map_or(Ok(()), |group| group.on_task_done(task))
}

/// How many items a slot's collection has; none if there is no collection.
#[inline]
fn count(slot: &Slot) -> PyRes<usize> {
    slot.get().map_or(Ok(0), |items| items.len())
}

/// Is this an error that has to leave the loop?
fn is_base_error(exception: &Obj) -> PyRes<bool> {
    if !exception.is_exception() {
        return Err(Builtin::Assertion.raise_bare());
    }
    Ok(Builtin::SystemExit.is_class_of(exception)
        || Builtin::KeyboardInterrupt.is_class_of(exception))
}

impl Ref<TaskGroup> {
    /// Are there tasks that are not done?
    #[inline]
    fn has_tasks(&self) -> PyRes<bool> {
        Ok(count(&self.tasks)? != 0)
    }

    /// The set of tasks.
    #[inline]
    fn task_set(&self) -> PyRes {
        self.tasks
            .get()
            .ok_or_else(|| Raised::runtime_error("TaskGroup object is not initialized."))
    }

    /// `_is_base_error(exc)`, as a subclass has it.
    fn judges_base_error(&self, exception: &Obj) -> PyRes<bool> {
        if self.is_exact() {
            return is_base_error(exception);
        }
        self.obj()
            .method(names::is_base_error(), [exception])?
            .truth()
    }

    /// Notes the first error that has to leave the loop.
    fn note_base_error(&self, exception: &Obj) -> PyRes<()> {
        if self.judges_base_error(exception)? && self.base_error.is_none() {
            self.base_error.set(exception.clone());
        }
        Ok(())
    }

    /// Keeps an error for the exception group.
    fn note_error(&self, exception: &Obj) -> PyRes<()> {
        match self.errors.get() {
            Some(errors) => errors.append(exception),
            // The group was left by `close()` while tasks were still running.
            None => Err(Builtin::Attribute.raise("'NoneType' object has no attribute 'append'")),
        }
    }

    /// What `__aenter__` does.
    fn enter(&self) -> PyRes<()> {
        if self.entered.get() {
            return Err(Raised::runtime_error(&format!(
                "TaskGroup {} has already been entered",
                self.obj().repr()?
            )));
        }
        let loop_ = if let Some(loop_) = self.loop_.get() {
            loop_
        } else {
            let running = get_running_loop()?;
            self.loop_.set(running.clone());
            running
        };
        let Some(parent) = current_task(&loop_)? else {
            self.parent_task.clear();
            return Err(Raised::runtime_error(&format!(
                "TaskGroup {} cannot determine the parent task",
                self.obj().repr()?
            )));
        };
        self.parent_task.set(parent);
        self.entered.set(true);
        if !self.cancel_on_enter.get() {
            return Ok(());
        }
        if self.is_exact() {
            self.cancel()
        } else {
            self.obj().method(names::cancel(), []).map(drop)
        }
    }

    /// `create_task(coro, **kwargs)`.
    #[inline]
    fn create_task(&self, coro: &Obj, keywords: Option<&Obj>) -> PyRes {
        let tasks = self.task_set()?;
        if !self.entered.get() || self.aborting.get() || self.exiting.get() {
            self.check_active(coro)?;
        }
        let loop_ = self.loop_.get_or_none();
        let task = match keywords {
            None => create_task_on(&loop_, coro)?,
            Some(keywords) => create_task_with(&loop_, coro, keywords)?,
        };
        if cfg!(Py_3_14) {
            task_state::add_awaited_by(&task, &self.parent_task.get_or_none())?;
        }
        // Also a task that is done already comes back through the loop: its error must not cancel the parent before
        // the caller has got the task.
        tasks.set_add(&task)?;
        match exact_or_task(&task) {
            Some(native) if self.is_exact() => native.observe(&TASK_DONE, self.obj().clone())?,
            _ => {
                let callback = self.obj().getattr(names::on_task_done())?;
                task.method(names::add_done_callback(), [&callback])?;
            }
        }
        // A task that started eagerly may have cancelled the group before it was part of it.
        if self.aborting.get() && !is_done(&task)? {
            cancel_task(&task)?;
        }
        Ok(task)
    }

    /// Refuses new tasks in a group that does not take any; their coroutine is closed (from 3.12 on).
    #[cold]
    fn check_active(&self, coro: &Obj) -> PyRes<()> {
        let state = if !self.entered.get() {
            "has not been entered"
        } else if self.exiting.get() && !self.has_tasks()? {
            "is finished"
        } else if self.aborting.get() {
            "is shutting down"
        } else {
            return Ok(());
        };
        // CPython: 3.11 and 3.12 leave the coroutine to the caller, who may await it after all.
        if cfg!(Py_3_13) {
            coro.method(names::close(), [])?;
        }
        Err(Raised::runtime_error(&format!(
            "TaskGroup {} {state}",
            self.obj().repr()?
        )))
    }

    /// `_abort()`: cancels every task.
    fn abort(&self) -> PyRes<()> {
        self.aborting.set(true);
        // Cancelling may run any code, which may change the set.
        for task in self.task_set()?.items()? {
            if !is_done(&task)? {
                cancel_task(&task)?;
            }
        }
        Ok(())
    }

    /// `_abort()`, as a subclass has it.
    fn abort_visibly(&self) -> PyRes<()> {
        if self.is_exact() {
            self.abort()
        } else {
            self.obj().method(names::abort(), []).map(drop)
        }
    }

    /// Cancels the parent; leaving the group will take that back.
    fn cancel_parent(&self, parent: &Obj) -> PyRes<()> {
        self.parent_cancel_requested.set(true);
        cancel_task(parent)
    }

    /// `_on_task_done(task)`.
    fn on_task_done(&self, task: &Obj) -> PyRes<()> {
        let tasks = self.task_set()?;
        tasks.set_discard(task)?;
        let parent = self.parent_task.get_or_none();
        if cfg!(Py_3_14) {
            task_state::discard_awaited_by(task, &parent)?;
        }
        if let Some(completed) = self.on_completed.get()
            && tasks.len()? == 0
            && !is_done(&completed)?
        {
            set_result(&completed, Obj::bool(true))?;
        }
        if is_cancelled(task)? {
            return Ok(());
        }
        match exception_of(task)? {
            Some(exception) => self.on_task_failed(task, &parent, &exception),
            None => Ok(()),
        }
    }

    /// A task raised.
    #[cold]
    fn on_task_failed(&self, task: &Obj, parent: &Obj, exception: &Obj) -> PyRes<()> {
        self.note_error(exception)?;
        self.note_base_error(exception)?;
        if is_done(parent)? {
            let context = Obj::dict()?;
            let message = format!(
                "Task {} has errored out but its parent task {} is already completed",
                task.repr()?,
                parent.to_str()?.text()?
            );
            context.set_item(names::message(), &Obj::str(&message)?)?;
            context.set_item(names::exception(), exception)?;
            context.set_item(names::task(), task)?;
            return LoopRef::new(&self.loop_.get_or_none()).call_exception_handler(&context);
        }
        if !self.aborting.get() && !self.parent_cancel_requested.get() {
            self.abort_visibly()?;
            self.cancel_parent(parent)?;
        }
        Ok(())
    }

    /// `cancel()`.
    fn cancel(&self) -> PyRes<()> {
        if !self.entered.get() {
            self.cancel_on_enter.set(true);
            return Ok(());
        }
        if self.aborting.get() || self.exiting.get() && !self.has_tasks()? {
            return Ok(());
        }
        self.abort_visibly()?;
        match self.parent_task.get() {
            Some(parent) if !self.parent_cancel_requested.get() => self.cancel_parent(&parent),
            _ => Ok(()),
        }
    }

    /// Gives up what would keep exceptions and their frames alive.
    fn forget(&self) {
        self.parent_task.clear();
        self.errors.clear();
        self.base_error.clear();
    }

    /// The repr.
    fn repr_text(&self) -> PyRes<String> {
        let mut words = String::from("<TaskGroup");
        for (label, slot) in [("tasks", &self.tasks), ("errors", &self.errors)] {
            let count = count(slot)?;
            if count != 0 {
                let _ = write!(words, " {label}={count}");
            }
        }
        if self.aborting.get() {
            words.push_str(" cancelling");
        } else if self.entered.get() {
            words.push_str(" entered");
        }
        words.push('>');
        Ok(words)
    }
}

/// `TaskGroup.__aenter__`.
struct Enter(Ref<TaskGroup>);

impl Machine for Enter {
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        self.0.enter()?;
        Ok(Sent::Return(self.0.obj().clone()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.0);
    }
}

/// `TaskGroup._aexit`, and `TaskGroup.__aexit__` of exactly this class.
struct Exit {
    /// The group.
    group: Ref<TaskGroup>,
    /// The class of the exception that leaves the body.
    kind: Option<Obj>,
    /// That exception.
    exception: Option<Obj>,
    /// The `CancelledError` to raise in the end.
    propagate: Option<Obj>,
    /// The last `CancelledError` that came while waiting.
    pending: Option<Obj>,
    /// What is waited for.
    waiter: Option<Waiter>,
    /// Has the body run up to the first wait?
    started: bool,
    /// Does the group forget its errors in the end? `_aexit` leaves that to `__aexit__`.
    forgets: bool,
}

impl Exit {
    /// Before any machine runs.
    fn new(group: &Ref<TaskGroup>, kind: &Obj, exception: &Obj, forgets: bool) -> Self {
        let given = |value: &Obj| (!value.is_none()).then(|| value.clone());
        Self {
            group: group.clone(),
            kind: given(kind),
            exception: given(exception),
            propagate: None,
            pending: None,
            waiter: None,
            started: false,
            forgets,
        }
    }

    /// Did the body end with this exception?
    fn left_by(&self, class: &Obj) -> bool {
        self.kind
            .as_ref()
            .is_some_and(|kind| kind.is_subtype_of(class))
    }

    /// The body has ended.
    fn begin(&mut self) -> PyRes<()> {
        self.group.exiting.set(true);
        if let Some(exception) = &self.exception {
            self.group.note_base_error(exception)?;
        }
        if self.left_by(stdlib::cancelled_error()?) {
            self.propagate.clone_from(&self.exception);
        }
        if self.kind.is_some() && !self.group.aborting.get() {
            self.group.abort_visibly()?;
        }
        Ok(())
    }

    /// Goes on to the next wait, or to the end when no task is left.
    fn advance(&mut self) -> PyRes<Sent> {
        while self.group.has_tasks()? {
            let mut waiter = if let Some(future) = self.group.on_completed.get() {
                Waiter::on(future)
            } else {
                let waiter = Waiter::create(&self.group.loop_.get_or_none())?;
                self.group.on_completed.set(waiter.future().clone());
                waiter
            };
            let sent = waiter.start();
            self.waiter = Some(waiter);
            if let Some(awaited) = self.waited(sent)? {
                return Ok(Sent::Yield(awaited));
            }
        }
        self.end()
    }

    /// Looks at what came of a wait; gives what has to be yielded if it goes on.
    fn waited(&mut self, sent: PyRes<Sent>) -> PyRes<Option<Obj>> {
        match sent {
            Ok(Sent::Yield(awaited)) => return Ok(Some(awaited)),
            Ok(Sent::Return(_)) => {}
            Err(raised) if raised.matches(stdlib::cancelled_error()?) => {
                let error = raised.take();
                self.pending = Some(error.clone());
                if !self.group.aborting.get() {
                    self.propagate = Some(error);
                    self.group.abort_visibly()?;
                }
            }
            Err(raised) => return Err(raised),
        }
        self.waiter = None;
        self.group.on_completed.clear();
        Ok(None)
    }

    /// All tasks are done: says what came of it.
    fn end(&mut self) -> PyRes<Sent> {
        let group = &self.group;
        if let Some(error) = group.base_error.get() {
            return Err(Raised::raise(&error));
        }
        if group.parent_cancel_requested.get() {
            // What is left after taking our own request back is a cancellation from outside.
            if uncancel_task(&group.parent_task.get_or_none())? == 0 {
                self.propagate = None;
            } else if self.propagate.is_none() {
                self.propagate = self.pending.take();
            }
        }
        let failed = count(&group.errors)? != 0;
        if let Some(error) = self.propagate.take().filter(|_| !failed) {
            return Err(Raised::raise(&error));
        }
        if self.kind.is_some() && !self.left_by(stdlib::cancelled_error()?) {
            group.note_error(&self.exception.clone().unwrap_or_else(Obj::none))?;
        }
        if count(&group.errors)? != 0 {
            return Err(self.raise_errors()?);
        }
        Ok(Sent::Return(Obj::bool(true)))
    }

    /// Raises what tasks and body raised.
    #[cold]
    fn raise_errors(&self) -> PyRes<Raised> {
        let parent = self.group.parent_task.get_or_none();
        if cancelling(&parent)? != 0 {
            // Cancelled from outside too: the count stays, and the next wait is interrupted.
            uncancel_task(&parent)?;
            cancel_task(&parent)?;
        }
        let errors = self.group.errors.get_or_none();
        if self.left_by(&Builtin::GeneratorExit.class())
            && errors.len()? == 1
            && let Some(exception) = &self.exception
        {
            // An async generator that is closed must see the very exception that closes it.
            return Ok(Raised::raise(exception));
        }
        let message = Obj::str("unhandled errors in a TaskGroup")?;
        let error = stdlib::base_exception_group()?.call([&message, &errors])?;
        error.set_exception_cause(None);
        Ok(Raised::raise(&error))
    }
}

impl Machine for Exit {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let run = || {
            if !self.started {
                self.started = true;
                self.begin()?;
            } else if let Some(waiter) = self.waiter.as_mut() {
                let sent = waiter.resume(input);
                if let Some(awaited) = self.waited(sent)? {
                    return Ok(Sent::Yield(awaited));
                }
            }
            self.advance()
        };
        let outcome = run();
        match &outcome {
            Ok(Sent::Return(_)) if self.forgets => self.group.forget(),
            Err(_) if self.forgets => preserving_exception(|| self.group.forget()),
            _ => {}
        }
        outcome
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.group);
        for object in [&self.kind, &self.exception, &self.propagate, &self.pending]
            .into_iter()
            .flatten()
        {
            visit.obj(object);
        }
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// `TaskGroup.__aexit__` of a subclass: awaits its `_aexit`.
struct ExitBy {
    /// The group.
    group: Ref<TaskGroup>,
    /// The class of the exception that leaves the body, or `None`.
    kind: Obj,
    /// That exception, or `None`.
    exception: Obj,
    /// What is awaited.
    body: Option<Delegate>,
}

impl ExitBy {
    /// One step of awaiting `_aexit`.
    fn run(&mut self, input: Resume) -> PyRes<Sent> {
        if let Some(body) = &self.body {
            return body.resume(input);
        }
        let body = Delegate::new(
            &self
                .group
                .obj()
                .method(names::aexit_body(), [&self.kind, &self.exception])?,
        )?;
        self.body.insert(body).resume(Resume::Send)
    }
}

impl Machine for ExitBy {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let outcome = self.run(input);
        match &outcome {
            Ok(Sent::Yield(_)) => {}
            Ok(Sent::Return(_)) => self.group.forget(),
            Err(_) => preserving_exception(|| self.group.forget()),
        }
        outcome
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.group);
        visit.obj(&self.kind);
        visit.obj(&self.exception);
        if let Some(body) = &self.body {
            visit.obj(body.awaited());
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.body.as_ref().map(|body| body.awaited().clone())
    }
}

/// Makes the class.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    let builder = ClassBuilder::<TaskGroup>::new(
        "asyncio.taskgroups",
        "TaskGroup",
        "An asynchronous context manager that waits for the tasks made in it.\n\n\
         When one of them fails, the others and the body are cancelled; all errors are raised as one group.",
    )
    .init("(self)", |this, _| {
        let (tasks, errors) = (Obj::set()?, Obj::list([])?);
        for flag in [&this.entered, &this.exiting, &this.aborting, &this.parent_cancel_requested, &this.cancel_on_enter] {
            flag.set(false);
        }
        this.tasks.set(tasks);
        this.errors.set(errors);
        this.loop_.clear();
        this.parent_task.clear();
        this.base_error.clear();
        this.on_completed.clear();
        Ok(())
    })
    .repr(Ref::<TaskGroup>::repr_text)
    .coroutine("__aenter__(self)", "Enters the group.", |this, _| {
        coroutine("TaskGroup.__aenter__", Enter(this.clone()))
    })
    .coroutine("__aexit__(self, et, exc, tb)", "Waits for all tasks.", |this, args| {
        let (kind, exception) = (args.req(0), args.req(1));
        if this.is_exact() {
            return coroutine("TaskGroup.__aexit__", Exit::new(this, kind, exception, true));
        }
        let (kind, exception) = (kind.clone(), exception.clone());
        coroutine("TaskGroup.__aexit__", ExitBy { group: this.clone(), kind, exception, body: None })
    })
    .coroutine("_aexit(self, et, exc)", "What `__aexit__` awaits.", |this, args| {
        coroutine("TaskGroup._aexit", Exit::new(this, args.req(0), args.req(1), false))
    })
    .method(
        "create_task(self, coro, **kwargs)",
        "Runs a coroutine as a task of the group; keywords are those of `asyncio.create_task()`.",
        |this, args| this.create_task(args.req(0), args.keywords()),
    )
    .method(
        "cancel(self)",
        "Cancels all tasks and the body; the group is then left without `CancelledError`.\n\n\
         Before the group is entered, it is cancelled as soon as that happens; afterwards nothing is done.",
        |this, _| this.cancel(),
    )
    .method("_is_base_error(self, exc)", "Is it `SystemExit` or `KeyboardInterrupt`?", |_, args| {
        is_base_error(args.req(0))
    })
    .method("_abort(self)", "Cancels all tasks.", |this, _| this.abort())
    .method("_on_task_done(self, task)", "Hears that a task is done.", |this, args| this.on_task_done(args.req(0)))
    .getter("_tasks", |this| Ok(this.tasks.get()))
    .getter("_errors", |this| Ok(this.errors.get()));
    let builder = builder
        .flag_property("_entered", |this| &this.entered)
        .flag_property("_exiting", |this| &this.exiting)
        .flag_property("_aborting", |this| &this.aborting)
        .flag_property("_parent_cancel_requested", |this| {
            &this.parent_cancel_requested
        })
        .flag_property("_cancel_on_enter", |this| &this.cancel_on_enter)
        .slot_property("_loop", |this| &this.loop_)
        .slot_property("_parent_task", |this| &this.parent_task)
        .slot_property("_base_error", |this| &this.base_error)
        .slot_property("_on_completed_fut", |this| &this.on_completed);
    let class = builder.build()?;
    add_to_module(module, "TaskGroup", &class)
}
