//! Functions in threads, and coroutines from them. Answers `asyncio/threads.py` and `run_coroutine_threadsafe` of
//! `asyncio/tasks.py`.

use crate::chaining::chain_future;
use crate::coroutines::coroutine;
use crate::events::{get_running_loop, leaves_the_loop};
use crate::ffi::{
    Class, ClassBuilder, Kind, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit,
    add_to_module, copy_current_context, function,
};
use crate::tasks::{ensure_future, is_coroutine};
use crate::waiter::Waiter;
use crate::{names, stdlib};

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["to_thread"];

/// Native names, of the asyncio module `tasks`.
pub(crate) const TASKS_NAMES: &[&str] = &["run_coroutine_threadsafe"];

/// The body of `to_thread`.
struct ToThread {
    /// `func` and its positional arguments, before the start.
    call: Vec<Obj>,
    /// Its keyword arguments.
    keywords: Option<Obj>,
    /// The wait for the executor.
    waiter: Option<Waiter>,
}

impl ToThread {
    /// Hands the call to the default executor, in a copy of the current context.
    fn submit(&mut self) -> PyRes<Sent> {
        let loop_ = get_running_loop()?;
        let run = copy_current_context()?.getattr(names::run())?;
        let call = std::mem::take(&mut self.call);
        let keywords = self.keywords.take();
        let call = stdlib::partial()?.call_dict(
            &Obj::tuple(std::iter::once(run).chain(call))?,
            keywords.as_ref(),
        )?;
        let future = loop_.method(names::run_in_executor(), [&Obj::none(), &call])?;
        self.waiter.insert(Waiter::on(future)).start()
    }
}

impl Machine for ToThread {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match &mut self.waiter {
            None => self.submit(),
            Some(waiter) => waiter.resume(input),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        for object in &self.call {
            visit.obj(object);
        }
        if let Some(keywords) = &self.keywords {
            visit.obj(keywords);
        }
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// What the loop calls to start a coroutine that came from another thread.
struct Start {
    /// The coroutine.
    coro: Slot,
    /// The loop.
    loop_: Slot,
    /// The `concurrent.futures.Future` for the result.
    future: Slot,
}

/// Where the class is kept.
static START: Class<Start> = Class::new();

impl Native for Start {
    fn class() -> &'static Class<Self> {
        &START
    }

    fn empty() -> Self {
        Self {
            coro: Slot::empty(),
            loop_: Slot::empty(),
            future: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.coro);
        visit.slot(&self.loop_);
        visit.slot(&self.future);
    }

    fn clear(&self) {
        self.coro.clear();
        self.loop_.clear();
        self.future.clear();
    }
}

impl Ref<Start> {
    /// Makes a task of the coroutine; a failure goes to the waiting thread and to the loop.
    fn start(&self) -> PyRes<()> {
        let (Some(coro), Some(loop_), Some(future)) =
            (self.coro.get(), self.loop_.get(), self.future.get())
        else {
            return Ok(());
        };
        let started =
            ensure_future(&coro, Some(&loop_)).and_then(|task| chain_future(&task, &future));
        let Err(raised) = started else { return Ok(()) };
        if leaves_the_loop(&raised) {
            return Err(raised);
        }
        let exception = raised.take();
        if future
            .method(names::set_running_or_notify_cancel(), [])?
            .truth()?
        {
            future.method(names::set_exception(), [&exception])?;
        }
        Err(Raised::restore(exception))
    }
}

/// `run_coroutine_threadsafe(coro, loop)`.
fn run_coroutine_threadsafe(coro: &Obj, loop_: &Obj) -> PyRes {
    if !is_coroutine(coro)? {
        return Err(Raised::type_error("A coroutine object is required"));
    }
    let future = stdlib::concurrent_future()?.call([])?;
    let start = Ref::new(Start {
        coro: Slot::new(coro.clone()),
        loop_: Slot::new(loop_.clone()),
        future: Slot::new(future.clone()),
    })?;
    loop_.method(names::call_soon_threadsafe(), [start.obj()])?;
    Ok(future)
}

/// Makes the class and the functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    ClassBuilder::<Start>::new(
        "aioxide",
        "callback",
        "Starts a coroutine that came from another thread.",
    )
    .sealed()
    .call(|this, args, kwargs| {
        if !args.is_empty() || kwargs.is_some() {
            return Err(Raised::type_error("callback() takes no arguments"));
        }
        this.start()?;
        Ok(Obj::none())
    })
    .getter("__name__", |_| Obj::str("callback"))
    .getter("__qualname__", |_| {
        Obj::str("run_coroutine_threadsafe.<locals>.callback")
    })
    .build()?;
    let (_, to_thread) = function(
        Kind::CoroutineFunction,
        "asyncio.threads",
        "to_thread(func, /, *args, **kwargs)",
        "Calls `func(*args, **kwargs)` in a thread of the default executor, in a copy of the current context.",
        |args| {
            let call = std::iter::once(args.req(0))
                .chain(args.rest())
                .cloned()
                .collect();
            coroutine(
                "to_thread",
                ToThread {
                    call,
                    keywords: args.keywords().cloned(),
                    waiter: None,
                },
            )
        },
    )?;
    add_to_module(module, "to_thread", &to_thread)?;
    let (_, threadsafe) = function(
        Kind::Function,
        "asyncio.tasks",
        "run_coroutine_threadsafe(coro, loop)",
        "Runs a coroutine on the loop of another thread. Returns a `concurrent.futures.Future`.",
        |args| run_coroutine_threadsafe(args.req(0), args.req(1)),
    )?;
    add_to_module(module, "run_coroutine_threadsafe", &threadsafe)
}
