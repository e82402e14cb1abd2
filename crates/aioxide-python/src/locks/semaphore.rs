//! `Semaphore` and `BoundedSemaphore`.
//!
//! Invariants: a permit goes to a waiter at the moment in which it is woken, not when it runs, so that nobody who comes
//! in between takes it. A woken waiter that does not run to its end gives the permit back. Whoever leaves the queue
//! hands on what permits there are.

use crate::coroutines::coroutine;
use crate::ffi::{
    Class, ClassBuilder, Extends, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Visit,
    add_to_module, finally,
};
use crate::mixins::LoopBound;
use crate::waiter::{Waiter, is_cancelled, is_done, set_result};
use crate::{names, stdlib};

use super::number::Number;
use super::waiters::Waiters;
use super::{Bound, Guard, MODULE, bound, copied, guarding, join, repr_with};

/// A number of permits.
struct Semaphore {
    /// How many are free.
    value: Number,
    /// Who waits for one.
    waiters: Waiters,
    /// The loop.
    loop_: LoopBound,
}

/// Where the class is kept.
static CLASS: Class<Semaphore> = Class::new();

impl Native for Semaphore {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            value: Number::new(1),
            waiters: Waiters::none(),
            loop_: LoopBound::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.value.traverse(visit);
        self.waiters.traverse(visit);
        self.loop_.traverse(visit);
    }

    fn clear(&self) {
        self.value.clear();
        self.waiters.clear();
        self.loop_.clear();
    }
}

impl Bound for Semaphore {
    const STATE: &'static [&'static str] = &["_value"];

    #[inline]
    fn loop_bound(&self) -> &LoopBound {
        &self.loop_
    }

    fn waiters(&self) -> Option<&Waiters> {
        Some(&self.waiters)
    }

    #[inline]
    fn is_native(this: &Ref<Self>) -> bool {
        this.is_plain() || bounded(this).is_some_and(Ref::is_plain) && CLASS.is_untouched()
    }
}

impl Guard for Semaphore {
    type Acquire = Acquire;

    #[inline]
    fn acquiring(this: &Ref<Self>) -> PyRes<Acquire> {
        Ok(Acquire {
            semaphore: this.clone(),
            waiter: None,
        })
    }

    #[inline]
    fn try_acquire(this: &Ref<Self>) -> PyRes<bool> {
        this.try_acquire()
    }

    #[inline]
    fn release(this: &Ref<Self>) -> PyRes<()> {
        match bounded(this) {
            Some(bounded) => bounded.release(),
            None => this.release(),
        }
    }
}

impl Semaphore {
    /// `locked()`: would one have to wait?
    #[inline]
    fn is_locked(&self) -> PyRes<bool> {
        Ok(self.value.equals(0)? || self.waiters.any_not_cancelled()?)
    }

    /// Takes a permit if one is free and nobody waits.
    #[inline]
    fn try_acquire(&self) -> PyRes<bool> {
        if self.is_locked()? {
            return Ok(false);
        }
        self.value.add(-1)?;
        Ok(true)
    }

    /// `_wake_up_next()`: hands a permit to the first waiter that is not done. Was there one?
    fn wake_up_next(&self) -> PyRes<bool> {
        if self.waiters.is_idle() {
            return Ok(false);
        }
        let Some(next) = self.waiters.first_pending()? else {
            return Ok(false);
        };
        self.value.add(-1)?;
        set_result(&next, Obj::bool(true))?;
        Ok(true)
    }
}

impl Ref<Semaphore> {
    /// `_wake_up_next()`, as a subclass has it.
    #[inline]
    fn wake(&self) -> PyRes<bool> {
        if Semaphore::is_native(self) {
            return self.wake_up_next();
        }
        self.obj().method(names::wake_up_next(), [])?.truth()
    }

    /// Takes a permit at once, if `locked()` allows, as a subclass has it.
    #[inline]
    fn take_at_once(&self) -> PyRes<bool> {
        if Semaphore::is_native(self) {
            return self.try_acquire();
        }
        if self.obj().method(names::locked(), [])?.truth()? {
            return Ok(false);
        }
        self.value.add(-1)?;
        Ok(true)
    }

    /// Hands on all permits that there are.
    #[inline]
    fn hand_on(&self) -> PyRes<()> {
        while self.value.is_positive()? && self.wake()? {}
        Ok(())
    }

    /// `Semaphore.release()`.
    #[inline]
    fn release(&self) -> PyRes<()> {
        self.value.add(1)?;
        self.wake().map(drop)
    }
}

/// `acquire`.
struct Acquire {
    /// The semaphore.
    semaphore: Ref<Semaphore>,
    /// What is waited for, once that began.
    waiter: Option<Waiter>,
}

impl Acquire {
    /// Joins the queue.
    fn join(&mut self) -> PyRes<Sent> {
        join(&self.semaphore, &self.semaphore.waiters, &mut self.waiter)
    }

    /// Leaves the queue.
    fn leave(&self, outcome: PyRes<Sent>) -> PyRes<Sent> {
        let semaphore = &self.semaphore;
        let Some(waiter) = &self.waiter else {
            return outcome;
        };
        let mut outcome = finally(outcome, || semaphore.waiters.remove(waiter.future()));
        if let Err(raised) = outcome {
            let cancelled = raised.matches(stdlib::cancelled_error()?);
            outcome = finally(Err(raised), || {
                if cancelled {
                    give_back(semaphore, waiter)
                } else {
                    Ok(())
                }
            });
        }
        finally(outcome, || semaphore.hand_on())?;
        Ok(Sent::Return(Obj::bool(true)))
    }
}

/// Undoes what was done when the waiter was woken, if it was.
fn give_back(semaphore: &Ref<Semaphore>, waiter: &Waiter) -> PyRes<()> {
    let future = waiter.future();
    if is_done(future)? && !is_cancelled(future)? {
        return semaphore.value.add(1);
    }
    Ok(())
}

impl Machine for Acquire {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = match &mut self.waiter {
            Some(waiter) => waiter.resume(input),
            None if self.semaphore.take_at_once()? => return Ok(Sent::Return(Obj::bool(true))),
            None => self.join(),
        };
        match sent {
            Ok(Sent::Yield(_)) => sent,
            outcome => self.leave(outcome),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.semaphore);
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// A semaphore that refuses to be released more often than it was acquired.
#[repr(C)]
struct BoundedSemaphore {
    /// The semaphore: the base comes first.
    semaphore: Semaphore,
    /// The initial value.
    bound: Number,
}

/// Where the class is kept.
static BOUNDED: Class<BoundedSemaphore> = Class::new();

impl Native for BoundedSemaphore {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &BOUNDED
    }

    fn empty() -> Self {
        Self {
            semaphore: Semaphore::empty(),
            bound: Number::new(1),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.semaphore.traverse(visit);
        self.bound.traverse(visit);
    }

    fn clear(&self) {
        self.semaphore.clear();
        self.bound.clear();
    }
}

impl Extends<Semaphore> for BoundedSemaphore {
    fn base(&self) -> &Semaphore {
        &self.semaphore
    }
}

impl Bound for BoundedSemaphore {
    const STATE: &'static [&'static str] = &["_value", "_bound_value"];

    fn loop_bound(&self) -> &LoopBound {
        self.semaphore.loop_bound()
    }

    fn waiters(&self) -> Option<&Waiters> {
        self.semaphore.waiters()
    }
}

/// A semaphore as exactly a bounded one.
#[inline]
fn bounded(semaphore: &Ref<Semaphore>) -> Option<&Ref<BoundedSemaphore>> {
    BOUNDED.exact(semaphore.obj())
}

impl Ref<BoundedSemaphore> {
    /// `BoundedSemaphore.release()`.
    #[inline]
    fn release(&self) -> PyRes<()> {
        if self.semaphore.value.reaches(&self.bound)? {
            return Err(Raised::value_error(
                "BoundedSemaphore released too many times",
            ));
        }
        self.upcast::<Semaphore>().release()
    }
}

/// What `__init__` does.
fn initialize(semaphore: &Semaphore, value: Option<&Obj>) -> PyRes<()> {
    if let Some(value) = value {
        if value.less_than(&Obj::int(0)?)? {
            return Err(Raised::value_error("Semaphore initial value must be >= 0"));
        }
        semaphore.value.set(value);
    } else {
        semaphore.value.set(&Obj::int(1)?);
    }
    semaphore.waiters.assign(None);
    Ok(())
}

/// The repr.
fn repr_text(this: &Ref<Semaphore>) -> PyRes<String> {
    let locked = if Semaphore::is_native(this) {
        this.is_locked()?
    } else {
        this.obj().method(names::locked(), [])?.truth()?
    };
    let state = if locked {
        String::from("locked")
    } else {
        format!("unlocked, value:{}", this.value.get()?.to_str()?.text()?)
    };
    repr_with(
        this.obj(),
        &format!("{state}{}", this.waiters.repr_suffix()?),
    )
}

/// Makes the classes.
pub(super) fn init(module: &Obj) -> PyRes<()> {
    let builder = ClassBuilder::<Semaphore>::new(
        MODULE,
        "Semaphore",
        "A number of permits: `acquire()` takes one and waits if there is none, `release()` gives one back.\n\n\
         The number at the start must not be negative. Use it with `async with`.",
    )
    .init("(self, value=1)", |this, args| initialize(this, args.get(0)))
    .repr(repr_text)
    .method("locked(self)", "Would `acquire()` have to wait?", |this, _| this.is_locked())
    .coroutine("acquire(self)", "Takes a permit, waiting until there is one, and returns `True`.", |this, _| {
        coroutine("Semaphore.acquire", Acquire { semaphore: this.clone(), waiter: None })
    })
    .method("release(self)", "Gives a permit back and wakes the first task that waits for one.", |this, _| {
        this.release()
    })
    .method("_wake_up_next(self)", "Hands a permit to the first waiter that is not done.", |this, _| this.wake_up_next())
    .property("_value", |this| this.value.get(), |this, value| {
        this.value.set(value.unwrap_or(&Obj::none()));
        Ok(())
    })
    .property("_waiters", |this| this.waiters.show(), |this, value| {
        this.waiters.assign(value);
        Ok(())
    });
    let class = bound(guarding(builder, "Semaphore"), "Semaphore").build()?;
    add_to_module(module, "Semaphore", &class)?;
    let builder = ClassBuilder::<BoundedSemaphore>::new(
        MODULE,
        "BoundedSemaphore",
        "A semaphore that raises `ValueError` when it is released more often than it was acquired.",
    )
    .base(class)
    .init("(self, value=1)", |this, args| {
        this.bound.set(args.get(0).unwrap_or(&Obj::int(1)?));
        initialize(&this.semaphore, args.get(0))
    })
    .method(
        "release(self)",
        "Gives a permit back; raises `ValueError` if none is out.",
        |this, _| this.release(),
    )
    .property(
        "_bound_value",
        |this| this.bound.get(),
        |this, value| {
            this.bound.set(value.unwrap_or(&Obj::none()));
            Ok(())
        },
    );
    add_to_module(module, "BoundedSemaphore", &copied(builder).build()?)
}
