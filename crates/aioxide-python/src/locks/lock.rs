//! `Lock`.
//!
//! Invariants: waiters get the lock in the order in which they came. While the lock is free and somebody waits, the
//! first waiter is woken or being cancelled; whoever leaves the queue without the lock wakes the next.

use std::cell::Cell;

use crate::coroutines::coroutine;
use crate::ffi::{
    Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Visit,
    add_to_module, finally,
};
use crate::mixins::LoopBound;
use crate::waiter::{Waiter, is_done, set_result};
use crate::{names, stdlib};

use super::waiters::Waiters;
use super::{Bound, Guard, MODULE, bound, guarding, join, repr_with};

/// A lock.
pub(super) struct Lock {
    /// Is it taken?
    locked: Cell<bool>,
    /// Who waits for it.
    waiters: Waiters,
    /// The loop.
    loop_: LoopBound,
}

/// Where the class is kept.
static CLASS: Class<Lock> = Class::new();

impl Native for Lock {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            locked: Cell::new(false),
            waiters: Waiters::none(),
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

impl Bound for Lock {
    const STATE: &'static [&'static str] = &["_locked"];

    #[inline]
    fn loop_bound(&self) -> &LoopBound {
        &self.loop_
    }

    fn waiters(&self) -> Option<&Waiters> {
        Some(&self.waiters)
    }
}

impl Guard for Lock {
    type Acquire = Acquire;

    #[inline]
    fn acquiring(this: &Ref<Self>) -> PyRes<Acquire> {
        Ok(Acquire::new(this.clone()))
    }

    #[inline]
    fn try_acquire(this: &Ref<Self>) -> PyRes<bool> {
        this.try_acquire()
    }

    #[inline]
    fn release(this: &Ref<Self>) -> PyRes<()> {
        this.release()
    }
}

impl Lock {
    /// Is it taken?
    #[inline]
    pub(super) fn is_locked(&self) -> bool {
        self.locked.get()
    }

    /// Takes the lock, unless it is taken or somebody waits.
    #[inline]
    pub(super) fn try_acquire(&self) -> PyRes<bool> {
        if self.locked.get() || self.waiters.any_not_cancelled()? {
            return Ok(false);
        }
        self.locked.set(true);
        Ok(true)
    }

    /// `_wake_up_first()`.
    fn wake_up_first(&self) -> PyRes<()> {
        match self.waiters.first()? {
            // One that is done is on its way already.
            Some(first) if !is_done(&first)? => set_result(&first, Obj::bool(true)),
            _ => Ok(()),
        }
    }
}

impl Ref<Lock> {
    /// `_wake_up_first()`, as a subclass has it.
    #[inline]
    fn wake(&self) -> PyRes<()> {
        if !self.is_plain() {
            return self.obj().method(names::wake_up_first(), []).map(drop);
        }
        if self.waiters.is_idle() {
            return Ok(());
        }
        self.wake_up_first()
    }

    /// `release()`.
    #[inline]
    pub(super) fn release(&self) -> PyRes<()> {
        if !self.locked.get() {
            return Err(Raised::runtime_error("Lock is not acquired."));
        }
        self.locked.set(false);
        self.wake()
    }
}

/// `object` as a lock of which nothing is replaced.
#[inline]
pub(super) fn plain(object: &Obj) -> Option<&Ref<Lock>> {
    CLASS.exact(object).filter(|lock| lock.is_plain())
}

/// A new lock.
pub(super) fn new() -> PyRes {
    Ref::new(Lock::empty()).map(Ref::into_obj)
}

/// `acquire`.
pub(super) struct Acquire {
    /// The lock.
    lock: Ref<Lock>,
    /// What is waited for, once that began.
    waiter: Option<Waiter>,
}

impl Acquire {
    /// Not begun.
    #[inline]
    pub(super) fn new(lock: Ref<Lock>) -> Self {
        Self { lock, waiter: None }
    }

    /// Joins the queue.
    fn join(&mut self) -> PyRes<Sent> {
        join(&self.lock, &self.lock.waiters, &mut self.waiter)
    }

    /// Leaves the queue, with the lock or with an error.
    fn leave(&self, outcome: PyRes<Sent>) -> PyRes<Sent> {
        let lock = &self.lock;
        let outcome = match &self.waiter {
            Some(waiter) => finally(outcome, || lock.waiters.remove(waiter.future())),
            // It never joined.
            None => return outcome,
        };
        match outcome {
            Ok(_) => {
                lock.locked.set(true);
                Ok(Sent::Return(Obj::bool(true)))
            }
            Err(raised) if raised.matches(stdlib::cancelled_error()?) => {
                finally(Err(raised), || {
                    if lock.locked.get() {
                        Ok(())
                    } else {
                        lock.wake()
                    }
                })
            }
            Err(raised) => Err(raised),
        }
    }
}

impl Machine for Acquire {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = match &mut self.waiter {
            Some(waiter) => waiter.resume(input),
            None if self.lock.try_acquire()? => return Ok(Sent::Return(Obj::bool(true))),
            None => self.join(),
        };
        match sent {
            Ok(Sent::Yield(_)) => sent,
            outcome => self.leave(outcome),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.lock);
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
    let builder = ClassBuilder::<Lock>::new(
        MODULE,
        "Lock",
        "A lock that tasks take in the order in which they asked for it.\n\n\
         It does not belong to the task that took it: any code may release it. Use it with `async with`.",
    )
    .init("(self)", |this, _| {
        this.waiters.assign(None);
        this.locked.set(false);
        Ok(())
    })
    .repr(|this| {
        let state = if this.locked.get() { "locked" } else { "unlocked" };
        repr_with(this.obj(), &format!("{state}{}", this.waiters.repr_suffix()?))
    })
    .method("locked(self)", "Is the lock taken?", |this, _| Ok(this.locked.get()))
    .coroutine("acquire(self)", "Waits until the lock is free, takes it and returns `True`.", |this, _| {
        coroutine("Lock.acquire", Acquire::new(this.clone()))
    })
    .method(
        "release(self)",
        "Frees the lock and wakes the first task that waits for it.\n\nRaises `RuntimeError` if it is free.",
        |this, _| this.release(),
    )
    .method("_wake_up_first(self)", "Sees to it that the first waiter will wake up.", |this, _| this.wake_up_first())
    .property("_locked", |this| Ok(this.locked.get()), |this, value| {
        this.locked.set(value.map_or(Ok(false), Obj::truth)?);
        Ok(())
    })
    .property("_waiters", |this| this.waiters.show(), |this, value| {
        this.waiters.assign(value);
        Ok(())
    });
    let class = bound(guarding(builder, "Lock"), "Lock").build()?;
    add_to_module(module, "Lock", &class)
}
