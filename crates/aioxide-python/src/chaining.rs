//! Futures chained to one another, of which either may belong to another thread. Answers `asyncio/futures.py`, the part
//! about `concurrent.futures`.
//!
//! A [`Chain`] joins a source and a destination: the source's outcome goes to the destination, the destination's
//! cancellation to the source. A future of a loop is only touched where its loop runs; what happens elsewhere is handed
//! over, once per outcome. A chain that has done so forgets both ends, so that a `concurrent.futures.Future`, which keeps
//! its callbacks for ever, makes no cycle with it.

use crate::events::{
    EventLoop, Handle, LoopRef, get_event_loop, leaves_the_loop, report_callback_error,
    running_loop,
};
use crate::ffi::{
    Builtin, Class, ClassBuilder, GilSlot, Kind, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    add_to_module, copy_current_context, function,
};
use crate::futures::{Future, Observer, is_future, loop_of, observe_any};
use crate::waiter::{
    create_future, exception_of, is_cancelled, is_done, result_of, set_exception, set_result,
};
use crate::{names, stdlib};

/// Native names, of the asyncio module `futures`.
pub(crate) const NAMES: &[&str] = &["wrap_future", "_chain_future", "_copy_future_state"];

/// Two futures of which one follows the other.
struct Chain {
    /// The one that is followed; gone once its outcome was handed over.
    source: Slot,
    /// The one that follows; gone with the source.
    destination: Slot,
    /// The source's loop; empty if it has none.
    source_loop: Slot,
    /// The destination's loop; empty if it has none.
    destination_loop: Slot,
}

/// Where the class is kept.
static CHAIN: Class<Chain> = Class::new();

impl Native for Chain {
    const FREELIST: usize = 256;

    fn class() -> &'static Class<Self> {
        &CHAIN
    }

    fn empty() -> Self {
        Self {
            source: Slot::empty(),
            destination: Slot::empty(),
            source_loop: Slot::empty(),
            destination_loop: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.source);
        visit.slot(&self.destination);
        visit.slot(&self.source_loop);
        visit.slot(&self.destination_loop);
    }

    fn clear(&self) {
        self.source.clear();
        self.destination.clear();
        self.source_loop.clear();
        self.destination_loop.clear();
    }
}

/// What a destination does when it is done.
static CALL_CHECK_CANCEL: Observer = Observer {
    body: call_check_cancel,
    qualname: "_chain_future.<locals>._call_check_cancel",
};

/// What a source does when it is done.
static CALL_SET_STATE: Observer = Observer {
    body: call_set_state,
    qualname: "_chain_future.<locals>._call_set_state",
};

/// `_set_state(future, other)`, for loops that have to be asked through their methods.
static SET_STATE: GilSlot = GilSlot::new();

/// Does this loop run in the current thread?
#[inline]
fn runs_here(loop_: &Obj) -> PyRes<bool> {
    Ok(running_loop()?.is_some_and(|running| running.is(loop_)))
}

/// `loop.is_closed()`.
fn is_closed(loop_: &Obj) -> PyRes<bool> {
    match EventLoop::class().cast(loop_) {
        Some(native) => Ok(native.closed.get()),
        None => loop_.method(names::is_closed(), [])?.truth(),
    }
}

/// The destination is done: if somebody cancelled it, the source is no longer wanted.
fn call_check_cancel(owner: &Obj, destination: &Obj) -> PyRes<()> {
    let Some(source) = CHAIN.cast(owner).and_then(|chain| chain.source.get()) else {
        return Ok(());
    };
    if !is_cancelled(destination)? {
        return Ok(());
    }
    let source_loop = CHAIN.cast(owner).and_then(|chain| chain.source_loop.get());
    match source_loop {
        Some(loop_) if !runs_here(&loop_)? => {
            let cancel = source.getattr(names::cancel())?;
            loop_
                .method(names::call_soon_threadsafe(), [&cancel])
                .map(drop)
        }
        _ => source.method(names::cancel(), []).map(drop),
    }
}

/// The source is done: its outcome goes to the destination, in the thread where that belongs.
fn call_set_state(owner: &Obj, source: &Obj) -> PyRes<()> {
    let Some(chain) = CHAIN.cast(owner) else {
        return Ok(());
    };
    let Some(destination) = chain.destination.get() else {
        return Ok(());
    };
    let Some(loop_) = chain.destination_loop.get() else {
        chain.clear();
        return set_state(&destination, source);
    };
    if runs_here(&loop_)? {
        chain.clear();
        return set_state(&destination, source);
    }
    if is_closed(&loop_)? {
        chain.clear();
        return Ok(());
    }
    // Perf: to_thread. One job for each outcome, and no handle.
    if let Some(direct) = LoopRef::new(&loop_).direct() {
        return direct.push_threadsafe(set_state_job, owner.clone());
    }
    chain.clear();
    loop_
        .method(
            names::call_soon_threadsafe(),
            [&SET_STATE.get()?, &destination, source],
        )
        .map(drop)
}

/// The job that gives the destination its outcome.
fn set_state_job(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(chain) = CHAIN.cast(&object) else {
        return Ok(());
    };
    let (Some(source), Some(destination)) = (chain.source.get(), chain.destination.get()) else {
        return Ok(());
    };
    chain.clear();
    let Err(raised) = set_state(&destination, &source) else {
        return Ok(());
    };
    report(loop_, raised, &[destination, source])
}

/// Reports what the job raised, with the handle that asyncio would have run it in.
#[cold]
fn report(loop_: &Ref<EventLoop>, raised: Raised, args: &[Obj]) -> PyRes<()> {
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let callable = SET_STATE.get()?;
    let handle = Ref::new(Handle::payload(
        &callable,
        args,
        copy_current_context()?,
        loop_.obj(),
    )?)?;
    let args = Obj::tuple(args.iter().cloned())?;
    report_callback_error(
        Raised::restore(exception),
        loop_.obj(),
        &callable,
        &args,
        handle.obj(),
        None,
    )
}

/// Gives `future` the outcome of `other`, which is done.
fn set_state(future: &Obj, other: &Obj) -> PyRes<()> {
    if is_future(future)? {
        copy_future_state(other, future)
    } else {
        set_concurrent_future_state(future, other)
    }
}

/// How a future ended.
enum Outcome {
    /// It was cancelled.
    Cancelled,
    /// With an exception.
    Failed(Obj),
    /// With a result.
    Finished(Obj),
}

/// How a future of any kind ended; it must be done.
fn outcome_of(future: &Obj) -> PyRes<Outcome> {
    // Perf: to_thread. Of the plain class this can be read without its lock, since nothing changes any more.
    if future.is_exactly(stdlib::concurrent_future()?)
        && future
            .getattr(names::private_state())?
            .equals(names::finished())?
    {
        let exception = future.getattr(names::private_exception())?;
        if !exception.is_none() {
            return Ok(Outcome::Failed(exception));
        }
        return future
            .getattr(names::private_result())
            .map(Outcome::Finished);
    }
    if !is_done(future)? {
        return Err(Builtin::Assertion.raise_bare());
    }
    if is_cancelled(future)? {
        return Ok(Outcome::Cancelled);
    }
    match exception_of(future)? {
        Some(exception) => Ok(Outcome::Failed(exception)),
        None => result_of(future).map(Outcome::Finished),
    }
}

/// `_copy_future_state(source, dest)`: gives a loop's future the outcome of another one.
fn copy_future_state(source: &Obj, destination: &Obj) -> PyRes<()> {
    if is_cancelled(destination)? {
        return Ok(());
    }
    if is_done(destination)? {
        return Err(Builtin::Assertion.raise_bare());
    }
    match outcome_of(source)? {
        Outcome::Cancelled => match Future::class().exact(destination) {
            Some(native) => native.cancel_base(None).map(drop),
            None => destination.method(names::cancel(), []).map(drop),
        },
        Outcome::Failed(exception) => set_exception(destination, &convert_exception(exception)?),
        Outcome::Finished(result) => set_result(destination, result),
    }
}

/// Gives a `concurrent.futures.Future` the outcome of a loop's future.
fn set_concurrent_future_state(concurrent: &Obj, source: &Obj) -> PyRes<()> {
    let outcome = outcome_of(source)?;
    if matches!(outcome, Outcome::Cancelled) {
        concurrent.method(names::cancel(), [])?;
    }
    if !concurrent
        .method(names::set_running_or_notify_cancel(), [])?
        .truth()?
    {
        return Ok(());
    }
    match outcome {
        // A cancelled source whose follower is running already: this raises, as `source.exception()` does.
        Outcome::Cancelled => source.method(names::exception(), []).map(drop),
        Outcome::Failed(exception) => concurrent
            .method(names::set_exception(), [&convert_exception(exception)?])
            .map(drop),
        Outcome::Finished(result) => concurrent.method(names::set_result(), [&result]).map(drop),
    }
}

/// Two exceptions of `concurrent.futures` have counterparts in asyncio.
fn convert_exception(exception: Obj) -> PyRes {
    let class = exception.class();
    let counterpart = if class.is(stdlib::concurrent_cancelled_error()?) {
        stdlib::cancelled_error()?
    } else if class.is(stdlib::concurrent_invalid_state_error()?) {
        stdlib::invalid_state_error()?
    } else {
        return Ok(exception);
    };
    let converted = counterpart.call_dict(&exception.getattr_str("args")?, None)?;
    converted.set_traceback(exception.traceback().as_ref())?;
    Ok(converted)
}

/// `_chain_future(source, destination)`.
pub(crate) fn chain_future(source: &Obj, destination: &Obj) -> PyRes<()> {
    let source_loop = loop_of_either(source, "source")?;
    let destination_loop = loop_of_either(destination, "destination")?;
    let chain = Ref::new(Chain::empty())?;
    chain.source.set(source.clone());
    chain.destination.set(destination.clone());
    drop(chain.source_loop.replace(source_loop));
    drop(chain.destination_loop.replace(destination_loop));
    observe_any(destination, &CALL_CHECK_CANCEL, chain.obj())?;
    observe_any(source, &CALL_SET_STATE, chain.obj())
}

/// The loop of a future, nothing for one of `concurrent.futures`; refuses anything else.
fn loop_of_either(future: &Obj, role: &str) -> PyRes<Option<Obj>> {
    if is_future(future)? {
        return loop_of(future).map(Some);
    }
    if is_concurrent(future)? {
        return Ok(None);
    }
    Err(Raised::type_error(&format!(
        "A future is required for {role} argument"
    )))
}

/// Is it a `concurrent.futures.Future`?
fn is_concurrent(object: &Obj) -> PyRes<bool> {
    let class = stdlib::concurrent_future()?;
    if object.is_exactly(class) {
        Ok(true)
    } else {
        object.isinstance(class)
    }
}

/// `wrap_future(future, *, loop=None)`.
pub(crate) fn wrap_future(future: &Obj, loop_: Option<&Obj>) -> PyRes {
    if is_future(future)? {
        return Ok(future.clone());
    }
    if !is_concurrent(future)? {
        return Err(Builtin::Assertion.raise(&format!(
            "concurrent.futures.Future is expected, got {}",
            future.repr()?
        )));
    }
    let loop_ = match loop_ {
        Some(loop_) => loop_.clone(),
        None => get_event_loop()?,
    };
    let wrapped = create_future(&loop_)?;
    chain_future(future, &wrapped)?;
    Ok(wrapped)
}

/// Makes the class and the functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    ClassBuilder::<Chain>::new(
        "aioxide",
        "chain",
        "Two futures of which one follows the other.",
    )
    .sealed()
    .build()?;
    let (_, set_state_function) = function(
        Kind::Function,
        "asyncio.futures",
        "_set_state(future, other)",
        "Gives a future the outcome of another one.",
        |args| set_state(args.req(0), args.req(1)),
    )?;
    SET_STATE.set(&set_state_function);
    let (_, wrap) = function(
        Kind::Function,
        "asyncio.futures",
        "wrap_future(future, *, loop=None)",
        "A future of the loop for a `concurrent.futures.Future`.",
        |args| wrap_future(args.req(0), args.some(1)),
    )?;
    add_to_module(module, "wrap_future", &wrap)?;
    let (_, chain) = function(
        Kind::Function,
        "asyncio.futures",
        "_chain_future(source, destination)",
        "Has `destination` end as `source` does, and `source` cancelled if `destination` is.",
        |args| chain_future(args.req(0), args.req(1)),
    )?;
    add_to_module(module, "_chain_future", &chain)?;
    let (_, copy) = function(
        Kind::Function,
        "asyncio.futures",
        "_copy_future_state(source, dest)",
        "Gives a loop's future the outcome of another one, unless it was cancelled.",
        |args| copy_future_state(args.req(0), args.req(1)),
    )?;
    add_to_module(module, "_copy_future_state", &copy)
}
