//! Waiting for several things, or for one in a special way. Answers the second half of `asyncio/tasks.py`.
//!
//! Futures are watched through `Observer`s: native futures call them directly, any other kind gets a Python callable
//! around the same function. What such a function works on is a native object that it gets as its owner.
//! Edges for the call graph (who waits for whom) are kept on the Pythons that have one; elsewhere they cost nothing.

mod as_completed;
mod gather;
mod shield;
mod sleep;
mod timer;
mod wait;
mod wait_for;

use crate::ffi::{Kind, Obj, PyRes, add_to_module, finally, function};
use crate::stdlib;

pub(crate) use gather::gather_all;
pub(crate) use shield::shielded;
pub(crate) use wait_for::WaitFor;

/// Native names, of the asyncio module `tasks`.
pub(crate) const NAMES: &[&str] = &[
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "_GatheringFuture",
    "as_completed",
    "gather",
    "shield",
    "sleep",
    "wait",
    "wait_for",
];

/// What asyncio calls the module of these functions.
const MODULE: &str = "asyncio.tasks";

/// Makes the classes and functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    timer::init()?;
    wait::init()?;
    as_completed::init()?;
    gather::init(module)?;
    shield::init()?;
    let add = |name: &str, object: &Obj| add_to_module(module, name, object);
    add("FIRST_COMPLETED", stdlib::first_completed()?)?;
    add("FIRST_EXCEPTION", stdlib::first_exception()?)?;
    add("ALL_COMPLETED", stdlib::all_completed()?)?;
    let (_, sleep) = function(
        Kind::CoroutineFunction,
        MODULE,
        "sleep(delay, result=None)",
        "Waits for `delay` seconds and returns `result`. Without a delay it lets others run once.",
        sleep::sleep,
    )?;
    add("sleep", &sleep)?;
    let (_, wait) = function(
        Kind::CoroutineFunction,
        MODULE,
        "wait(fs, *, timeout=None, return_when='ALL_COMPLETED')",
        "Waits for futures or tasks; returns two sets, of those that are done and of those that are not.",
        wait::wait,
    )?;
    add("wait", &wait)?;
    let (_, wait_for) = function(
        Kind::CoroutineFunction,
        MODULE,
        "wait_for(fut, timeout)",
        "Waits for an awaitable; cancels it and raises `TimeoutError` after `timeout` seconds, unless that is `None`.",
        wait_for::wait_for,
    )?;
    add("wait_for", &wait_for)?;
    let (_, as_completed) = function(
        Kind::Function,
        MODULE,
        "as_completed(fs, *, timeout=None)",
        "Runs awaitables concurrently and gives them, or coroutines for their results, in the order in which they finish.",
        as_completed::as_completed,
    )?;
    add("as_completed", &as_completed)?;
    let (_, gather) = function(
        Kind::Function,
        MODULE,
        "gather(*coros_or_futures, return_exceptions=False)",
        "Runs awaitables concurrently; returns a future for the list of their results.",
        gather::gather,
    )?;
    add("gather", &gather)?;
    let (_, shield) = function(
        Kind::Function,
        MODULE,
        "shield(arg)",
        "A future for the outcome of an awaitable that is not cancelled with it.",
        shield::shield,
    )?;
    add("shield", &shield)
}
