//! `Event`.

use std::cell::Cell;

use crate::coroutines::coroutine;
use crate::ffi::{
    Class, ClassBuilder, Machine, Native, Obj, PyRes, Ref, Resume, Sent, Visit, add_to_module,
    finally,
};
use crate::mixins::LoopBound;
use crate::waiter::{Waiter, is_done, set_result};

use super::waiters::Waiters;
use super::{Bound, MODULE, bound, join, repr_with};

/// A flag that tasks wait for.
struct Event {
    /// The flag.
    value: Cell<bool>,
    /// Who waits for it.
    waiters: Waiters,
    /// The loop.
    loop_: LoopBound,
}

/// Where the class is kept.
static CLASS: Class<Event> = Class::new();

impl Native for Event {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            value: Cell::new(false),
            waiters: Waiters::empty(),
            loop_: LoopBound::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.waiters.traverse(visit);
        self.loop_.traverse(visit);
    }

    fn clear(&self) {
        self.waiters.clear();
        self.loop_.clear();
    }
}

impl Bound for Event {
    const STATE: &'static [&'static str] = &["_value"];

    #[inline]
    fn loop_bound(&self) -> &LoopBound {
        &self.loop_
    }

    fn waiters(&self) -> Option<&Waiters> {
        Some(&self.waiters)
    }
}

impl Event {
    /// `set()`.
    fn set(&self) -> PyRes<()> {
        if self.value.replace(true) || self.waiters.is_idle() {
            return Ok(());
        }
        for waiter in self.waiters.snapshot()? {
            if !is_done(&waiter)? {
                set_result(&waiter, Obj::bool(true))?;
            }
        }
        Ok(())
    }
}

/// `wait`.
struct Wait {
    /// The event.
    event: Ref<Event>,
    /// What is waited for, once that began.
    waiter: Option<Waiter>,
}

impl Wait {
    /// Joins the queue.
    fn join(&mut self) -> PyRes<Sent> {
        join(&self.event, &self.event.waiters, &mut self.waiter)
    }

    /// Leaves the queue.
    fn leave(&self, outcome: PyRes<Sent>) -> PyRes<Sent> {
        if let Some(waiter) = &self.waiter {
            finally(outcome, || self.event.waiters.remove(waiter.future()))?;
        } else {
            outcome?;
        }
        Ok(Sent::Return(Obj::bool(true)))
    }
}

impl Machine for Wait {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = match &mut self.waiter {
            Some(waiter) => waiter.resume(input),
            None if self.event.value.get() => return Ok(Sent::Return(Obj::bool(true))),
            None => self.join(),
        };
        match sent {
            Ok(Sent::Yield(_)) => sent,
            outcome => self.leave(outcome),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.event);
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// Makes the class.
pub(super) fn init(module: &Obj) -> PyRes<()> {
    let builder = ClassBuilder::<Event>::new(
        MODULE,
        "Event",
        "A flag that tasks can wait for.\n\nIt is down at first; `set()` raises it, `clear()` takes it down.",
    )
    .init("(self)", |this, _| {
        this.waiters.restart();
        this.value.set(false);
        Ok(())
    })
    .repr(|this| {
        let state = if this.value.get() { "set" } else { "unset" };
        repr_with(this.obj(), &format!("{state}{}", this.waiters.repr_suffix()?))
    })
    .method("is_set(self)", "Is the flag up?", |this, _| Ok(this.value.get()))
    .method("set(self)", "Raises the flag and wakes everyone who waits for it.", |this, _| this.set())
    .method("clear(self)", "Takes the flag down.", |this, _| {
        this.value.set(false);
        Ok(())
    })
    .coroutine("wait(self)", "Waits until the flag is up and returns `True`.", |this, _| {
        coroutine("Event.wait", Wait { event: this.clone(), waiter: None })
    })
    .property("_value", |this| Ok(this.value.get()), |this, value| {
        this.value.set(value.map_or(Ok(false), Obj::truth)?);
        Ok(())
    })
    .property("_waiters", |this| this.waiters.show(), |this, value| {
        this.waiters.assign(value);
        Ok(())
    });
    let class = bound(builder, "Event").build()?;
    add_to_module(module, "Event", &class)
}
