//! `shield`.
//!
//! The outer future takes over the inner one's outcome; cancelling the outer one only ends the observation. One
//! [`Pair`] is the owner of both observers.

use crate::ffi::{Args, Class, ClassBuilder, Native, Obj, PyRes, Ref, Slot, Visit, task_state};
use crate::futures::{Observer, loop_of, observe_any, unobserve_any};
use crate::tasks::{cancel_any, current_task, ensure_future};
use crate::waiter::{
    create_future, exception_of, is_cancelled, is_done, result_of, set_exception, set_result,
};

/// What the two observers of one `shield` share.
struct Pair {
    /// What goes on.
    inner: Slot,
    /// What was returned.
    outer: Slot,
    /// The shielding task, where futures know who waits for them.
    task: Slot,
}

/// Where the class is kept.
static PAIR: Class<Pair> = Class::new();

impl Native for Pair {
    const FREELIST: usize = 256;

    fn class() -> &'static Class<Self> {
        &PAIR
    }

    fn empty() -> Self {
        Self {
            inner: Slot::empty(),
            outer: Slot::empty(),
            task: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.inner);
        visit.slot(&self.outer);
        visit.slot(&self.task);
    }

    fn clear(&self) {
        self.inner.clear();
        self.outer.clear();
        self.task.clear();
    }
}

/// Called by the inner future.
static INNER_DONE: Observer = Observer {
    body: |owner, inner| {
        PAIR.cast(owner)
            .map_or(Ok(()), |pair| pair.inner_done(inner))
    },
    qualname: "shield.<locals>._inner_done_callback",
};

/// Called by the outer future.
static OUTER_DONE: Observer = Observer {
    body: |owner, _| PAIR.cast(owner).map_or(Ok(()), outer_done),
    qualname: "shield.<locals>._outer_done_callback",
};

impl Pair {
    /// Takes the shielding task out of what the inner future knows.
    fn forget(&self, inner: &Obj) -> PyRes<()> {
        if cfg!(Py_3_14)
            && let Some(task) = self.task.get()
        {
            return task_state::discard_awaited_by(inner, &task);
        }
        Ok(())
    }

    /// Hands the outcome on.
    fn inner_done(&self, inner: &Obj) -> PyRes<()> {
        self.forget(inner)?;
        let Some(outer) = self.outer.get() else {
            return Ok(());
        };
        if is_cancelled(&outer)? {
            // CPython: later versions leave the exception of the inner future to whoever else waits for it.
            return Ok(());
        }
        if is_cancelled(inner)? {
            return cancel_any(&outer, None).map(drop);
        }
        match exception_of(inner)? {
            Some(exception) => set_exception(&outer, &exception),
            None => set_result(&outer, result_of(inner)?),
        }
    }
}

/// The outer future is done: the inner one goes on unobserved.
fn outer_done(pair: &Ref<Pair>) -> PyRes<()> {
    match pair.inner.get() {
        Some(inner) if !is_done(&inner)? => {
            unobserve_any(&inner, &INNER_DONE, pair.obj())?;
            pair.forget(&inner)
        }
        _ => Ok(()),
    }
}

/// `shield(arg)`.
pub(super) fn shield(args: &Args<'_>) -> PyRes {
    shielded(args.req(0))
}

/// A future that a cancellation does not reach `awaitable` through.
pub(crate) fn shielded(awaitable: &Obj) -> PyRes {
    let inner = ensure_future(awaitable, None)?;
    if is_done(&inner)? {
        return Ok(inner);
    }
    let loop_ = loop_of(&inner)?;
    let outer = create_future(&loop_)?;
    let pair = Ref::new(Pair {
        inner: Slot::new(inner.clone()),
        outer: Slot::new(outer.clone()),
        task: Slot::empty(),
    })?;
    if cfg!(Py_3_14)
        && !loop_.is_none()
        && let Some(task) = current_task(&loop_)?
    {
        task_state::add_awaited_by(&inner, &task)?;
        pair.task.set(task);
    }
    observe_any(&inner, &INNER_DONE, pair.obj())?;
    observe_any(&outer, &OUTER_DONE, pair.obj())?;
    Ok(outer)
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<Pair>::new(
        "aioxide",
        "shield_state",
        "What the futures of one `shield()` call back.",
    )
    .sealed()
    .build()
    .map(drop)
}
