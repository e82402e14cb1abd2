//! Running a program: `run` and `Runner`. Answers `asyncio/runners.py`.
//!
//! Functions of asyncio, `signal` and `contextvars` that programs and tests replace are looked up at each use.
//!
//! Ctrl-C, in the main thread and while Python's own handler is in place: the first one cancels the main task, so that
//! it can clean up, and becomes `KeyboardInterrupt` once the task has ended; the second one is raised at once.

use std::cell::Cell;

use crate::events::{EventLoop, running_loop};
use crate::ffi::{
    Builtin, Class, ClassBuilder, GilSlot, Imported, Kind, Native, Obj, PyRes, Raised, Ref, Slot,
    Visit, add_to_module, copy_current_context, finally, function, ident,
};
use crate::tasks::{is_coroutine, wrap_awaitable};
use crate::{names, stdlib};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["Runner", "run"];

/// How long the threads of the default executor may take to end, in seconds, where asyncio does not say.
const THREAD_JOIN_TIMEOUT: i64 = 300;

/// Where a runner is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// There is no loop yet.
    Created,
    /// There is a loop.
    Initialized,
    /// The loop is closed.
    Closed,
}

impl State {
    /// The member of asyncio's enum.
    fn member(self) -> PyRes {
        stdlib::runner_state()?.getattr_str(match self {
            Self::Created => "CREATED",
            Self::Initialized => "INITIALIZED",
            Self::Closed => "CLOSED",
        })
    }
}

/// An owner of a loop, from its making to its close.
pub(crate) struct Runner {
    /// Where it is in its life.
    state: Cell<State>,
    /// Debug mode; empty for the loop's own choice.
    debug: Slot,
    /// What makes the loop; empty for the usual one.
    loop_factory: Slot,
    /// The loop.
    loop_: Slot,
    /// The context that all runs share.
    context: Slot,
    /// How often Ctrl-C was pressed in this run.
    interrupt_count: Cell<usize>,
    /// Was the loop made the current one of the thread?
    set_event_loop: Cell<bool>,
}

/// Where the class is kept.
static CLASS: Class<Runner> = Class::new();

impl Native for Runner {
    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            state: Cell::new(State::Created),
            debug: Slot::empty(),
            loop_factory: Slot::empty(),
            loop_: Slot::empty(),
            context: Slot::empty(),
            interrupt_count: Cell::new(0),
            set_event_loop: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.debug);
        visit.slot(&self.loop_factory);
        visit.slot(&self.loop_);
        visit.slot(&self.context);
    }

    fn clear(&self) {
        self.debug.clear();
        self.loop_factory.clear();
        self.loop_.clear();
        self.context.clear();
    }
}

/// Does nothing: what wakes a loop is that there is something to do.
static WAKE_UP: GilSlot = GilSlot::new();

/// The usual loop. Whoever has set a policy, or replaced `asyncio.new_event_loop`, gets what that makes. But where both
/// are the stdlib's own, untouched, a program that calls `aioxide.run()` without `install()` means a native loop.
fn usual_loop() -> PyRes {
    static NEW_EVENT_LOOP: Imported = Imported::new("aioxide._usual_loop", "new_event_loop");
    NEW_EVENT_LOOP.get()?.call([])
}

impl Ref<Runner> {
    /// Makes the loop when it is first needed.
    fn lazy_init(&self) -> PyRes<()> {
        match self.state.get() {
            State::Closed => return Err(Raised::runtime_error("Runner is closed")),
            State::Initialized => return Ok(()),
            State::Created => {}
        }
        let loop_ = if let Some(factory) = self.loop_factory.get() {
            let loop_ = factory.call([])?;
            self.loop_.set(loop_.clone());
            loop_
        } else {
            let loop_ = usual_loop()?;
            self.loop_.set(loop_.clone());
            if !self.set_event_loop.get() {
                // Only once, since child watchers are attached to the loop by this.
                set_event_loop(&loop_)?;
                self.set_event_loop.set(true);
            }
            loop_
        };
        if let Some(debug) = self.debug.get() {
            loop_.method(names::set_debug(), [&debug])?;
        }
        self.context.set(copy_current_context()?);
        self.state.set(State::Initialized);
        Ok(())
    }

    /// The loop, made if there is none yet.
    fn loop_ready(&self) -> PyRes {
        self.lazy_init()?;
        Ok(self.loop_.get_or_none())
    }

    /// `close()`.
    fn close(&self) -> PyRes<()> {
        if self.state.get() != State::Initialized {
            return Ok(());
        }
        let loop_ = self.loop_.get_or_none();
        finally(wind_up(&loop_), || {
            if self.set_event_loop.get() {
                set_event_loop(&Obj::none())?;
            }
            loop_.method(names::close(), [])?;
            self.loop_.clear();
            self.state.set(State::Closed);
            Ok(())
        })
    }

    /// `run(coro, *, context=None)`.
    fn run(&self, main: &Obj, context: Option<&Obj>) -> PyRes {
        // From 3.14 on any awaitable will do, and the running loop is the first thing to be refused.
        if !cfg!(Py_3_14) && !is_coroutine(main)? {
            return Err(Raised::value_error(&format!(
                "a coroutine was expected, got {}",
                main.repr()?
            )));
        }
        if running_loop()?.is_some() {
            return Err(Raised::runtime_error(
                "Runner.run() cannot be called from a running event loop",
            ));
        }
        let loop_ = self.loop_ready()?;
        let main = if !cfg!(Py_3_14) || is_coroutine(main)? {
            main.clone()
        } else if stdlib::isawaitable()?.call([main])?.truth()? {
            wrap_awaitable(main)?
        } else {
            return Err(Raised::type_error(
                "An asyncio.Future, a coroutine or an awaitable is required",
            ));
        };
        let context = context
            .cloned()
            .unwrap_or_else(|| self.context.get_or_none());
        let task = loop_.method_kw(
            names::create_task(),
            &[&main],
            &[(names::context(), &context)],
        )?;
        let handler = self.take_ctrl_c(&task)?;
        self.interrupt_count.set(0);
        let outcome = match loop_.method(names::run_until_complete(), [&task]) {
            Err(raised)
                if self.interrupt_count.get() > 0 && raised.matches(stdlib::cancelled_error()?) =>
            {
                Err(interrupted(raised, &task))
            }
            outcome => outcome,
        };
        finally(outcome, || match &handler {
            Some(handler) => give_ctrl_c_back(handler),
            None => Ok(()),
        })
    }

    /// Puts a handler for Ctrl-C in place of Python's own, in the main thread alone.
    fn take_ctrl_c(&self, task: &Obj) -> PyRes<Option<Obj>> {
        let main = stdlib::main_thread()?.call([])?.getattr(names::ident())?;
        if main.is_none() || main.as_i64()?.cast_unsigned() != ident() {
            return Ok(None);
        }
        let signal = Obj::import("signal")?;
        let sigint = signal.getattr_str("SIGINT")?;
        let usual = signal.getattr_str("default_int_handler")?;
        if !signal.getattr_str("getsignal")?.call([&sigint])?.is(&usual) {
            return Ok(None);
        }
        let on_sigint = self.obj().getattr(names::on_sigint())?;
        let handler = stdlib::partial()?.call_kw(&[&on_sigint], &[(names::main_task(), task)])?;
        match signal.getattr(names::signal())?.call([&sigint, &handler]) {
            Ok(_) => Ok(Some(handler)),
            // An embedding program's main thread may be none that gets signals.
            Err(raised) if raised.is(Builtin::Value) => {
                raised.discard();
                Ok(None)
            }
            Err(raised) => Err(raised),
        }
    }

    /// `_on_sigint(signum, frame, main_task)`.
    fn on_sigint(&self, task: &Obj) -> PyRes<()> {
        let count = self.interrupt_count.get() + 1;
        self.interrupt_count.set(count);
        if count == 1 && !task.method(names::done(), [])?.truth()? {
            task.method(names::cancel(), [])?;
            // The loop may be about to wait for long.
            return self
                .loop_
                .get_or_none()
                .method(names::call_soon_threadsafe(), [&WAKE_UP.get()?])
                .map(drop);
        }
        Err(Builtin::KeyboardInterrupt.raise_bare())
    }
}

/// The main task was cancelled, and Ctrl-C was pressed: unless somebody else wanted it cancelled too, that is why.
fn interrupted(raised: Raised, task: &Obj) -> Raised {
    let cancelled = raised.take();
    let ctrl_c_alone = || -> PyRes<bool> {
        match task.getattr_opt(names::uncancel())? {
            Some(uncancel) => uncancel.call([])?.equals(&Obj::int(0)?),
            None => Ok(false),
        }
    };
    match ctrl_c_alone() {
        Ok(true) => Builtin::KeyboardInterrupt.raise_bare().during(cancelled),
        Ok(false) => Raised::restore(cancelled),
        Err(raised) => raised.during(cancelled),
    }
}

/// Puts Python's own handler back, unless somebody else has put another one in place meanwhile.
fn give_ctrl_c_back(handler: &Obj) -> PyRes<()> {
    let signal = Obj::import("signal")?;
    let sigint = signal.getattr_str("SIGINT")?;
    if !signal
        .getattr_str("getsignal")?
        .call([&sigint])?
        .is(handler)
    {
        return Ok(());
    }
    let usual = signal.getattr_str("default_int_handler")?;
    signal
        .getattr(names::signal())?
        .call([&sigint, &usual])
        .map(drop)
}

/// `asyncio.events.set_event_loop(loop)`.
fn set_event_loop(loop_: &Obj) -> PyRes<()> {
    stdlib::events_module()?
        .method(names::set_event_loop(), [loop_])
        .map(drop)
}

/// What comes before the close: no task, no async generator and no thread is left.
fn wind_up(loop_: &Obj) -> PyRes<()> {
    cancel_all_tasks(loop_)?;
    let generators = loop_.method(names::shutdown_asyncgens(), [])?;
    loop_.method(names::run_until_complete(), [&generators])?;
    // Up to 3.11 other loops know no time limit.
    let threads = if cfg!(Py_3_12) {
        let limit = stdlib::constants()?.getattr(names::thread_join_timeout())?;
        loop_.method(names::shutdown_default_executor(), [&limit])?
    } else if EventLoop::class().is_instance(loop_) {
        loop_.method(
            names::shutdown_default_executor(),
            [&Obj::int(THREAD_JOIN_TIMEOUT)?],
        )?
    } else {
        loop_.method(names::shutdown_default_executor(), [])?
    };
    loop_
        .method(names::run_until_complete(), [&threads])
        .map(drop)
}

/// Cancels the tasks that are left, waits for them, and reports those that failed.
fn cancel_all_tasks(loop_: &Obj) -> PyRes<()> {
    let tasks = stdlib::all_tasks()?.call([loop_])?.items()?;
    if tasks.is_empty() {
        return Ok(());
    }
    for task in &tasks {
        task.method(names::cancel(), [])?;
    }
    let all: Vec<&Obj> = tasks.iter().collect();
    let gathered =
        stdlib::gather()?.call_kw(&all, &[(names::return_exceptions(), &Obj::bool(true))])?;
    loop_.method(names::run_until_complete(), [&gathered])?;
    for task in &tasks {
        if task.method(names::cancelled(), [])?.truth()? {
            continue;
        }
        let exception = task.method(names::exception(), [])?;
        if exception.is_none() {
            continue;
        }
        let context = Obj::dict()?;
        context.set_item(
            names::message(),
            &Obj::str("unhandled exception during asyncio.run() shutdown")?,
        )?;
        context.set_item(names::exception(), &exception)?;
        context.set_item(names::task(), task)?;
        loop_.method(names::call_exception_handler(), [&context])?;
    }
    Ok(())
}

/// `run(main, *, debug=None, loop_factory=None)`.
fn run(main: &Obj, debug: Option<&Obj>, loop_factory: Option<&Obj>) -> PyRes {
    if running_loop()?.is_some() {
        return Err(Raised::runtime_error(
            "asyncio.run() cannot be called from a running event loop",
        ));
    }
    let runner = Ref::new(Runner::empty())?;
    drop(runner.debug.replace(debug.cloned()));
    drop(runner.loop_factory.replace(loop_factory.cloned()));
    runner.lazy_init()?;
    finally(runner.run(main, None), || runner.close())
}

/// Makes the class and the functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    let class = ClassBuilder::<Runner>::new(
        "asyncio.runners",
        "Runner",
        "Makes an event loop, runs coroutines on it, and leaves nothing behind at the end of a `with` block.",
    )
    .init("(self, *, debug=None, loop_factory=None)", |this, args| {
        this.state.set(State::Created);
        drop(this.debug.replace(args.some(0).cloned()));
        drop(this.loop_factory.replace(args.some(1).cloned()));
        this.loop_.clear();
        this.context.clear();
        this.interrupt_count.set(0);
        this.set_event_loop.set(false);
        Ok(())
    })
    .method("__enter__(self)", "Makes the loop.", |this, _| {
        this.lazy_init()?;
        Ok(this.clone())
    })
    .method("__exit__(self, exc_type, exc_val, exc_tb)", "Closes the loop.", |this, _| {
        if this.is_exact() { this.close() } else { this.obj().method(names::close(), []).map(drop) }
    })
    .method("close(self)", "Cancels what is left, closes async generators, ends threads, closes the loop.", |this, _| {
        this.close()
    })
    .method("get_loop(self)", "The loop, made if there is none yet.", |this, _| this.loop_ready())
    .method(
        "run(self, coro, *, context=None)",
        "Runs a coroutine to its end. Returns its result or raises its exception.",
        |this, args| this.run(args.req(0), args.some(1)),
    )
    .method("_lazy_init(self)", "Makes the loop if there is none yet.", |this, _| this.lazy_init())
    .method("_on_sigint(self, signum, frame, main_task)", "Handles Ctrl-C.", |this, args| this.on_sigint(args.req(2)))
    .getter("_state", |this| this.state.get().member())
    .getter("_debug", |this| Ok(this.debug.get()))
    .getter("_loop_factory", |this| Ok(this.loop_factory.get()))
    .getter("_loop", |this| Ok(this.loop_.get()))
    .getter("_context", |this| Ok(this.context.get()))
    .getter("_interrupt_count", |this| Ok(this.interrupt_count.get()))
    .getter("_set_event_loop", |this| Ok(this.set_event_loop.get()))
    .build()?;
    add_to_module(module, "Runner", &class)?;
    let (_, wake_up) = function(
        Kind::Builtin,
        "aioxide",
        "wake_up()",
        "Does nothing.",
        |_| Ok(()),
    )?;
    WAKE_UP.set(&wake_up);
    let (_, run) = function(
        Kind::Function,
        "asyncio.runners",
        "run(main, *, debug=None, loop_factory=None)",
        "Runs a coroutine on a new event loop, which is closed at the end. Returns its result or raises its exception.",
        |args| self::run(args.req(0), args.some(1), args.some(2)),
    )?;
    add_to_module(module, "run", &run)
}
