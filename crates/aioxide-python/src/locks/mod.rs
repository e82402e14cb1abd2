//! Synchronisation primitives. Answers `asyncio/locks.py`, as of the newest Python on every Python.
//!
//! A file per primitive. This one has what they share: the loop they are bound to, and `async with`.
//!
//! asyncio's methods call each other on `self`, so a subclass, a patched class or a replaced attribute of one object
//! changes what they do. Here each of them asks `is_plain` first: if nothing was replaced it goes straight on in
//! native code, else through the Python-visible method. Whatever calls into Python may come back to the same object:
//! no borrow is held then.

mod barrier;
mod condition;
mod event;
mod lock;
mod number;
mod semaphore;
mod waiters;

use crate::coroutines::{Delegate, coroutine};
use crate::ffi::{ClassBuilder, Machine, Native, Obj, PyRes, Ref, Resume, Sent, Visit};
use crate::mixins::LoopBound;
use crate::waiter::Waiter;
use crate::{names, stdlib};

use waiters::Waiters;

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &[
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "Semaphore",
];

/// What asyncio calls the module of these classes.
const MODULE: &str = "asyncio.locks";

/// A class whose objects belong to a loop: asyncio's `_LoopBoundMixin`.
trait Bound: Native {
    /// The attributes that a copy needs, besides `_waiters`.
    const STATE: &'static [&'static str];

    /// The loop.
    fn loop_bound(&self) -> &LoopBound;

    /// Who waits, if it is for the object itself.
    fn waiters(&self) -> Option<&Waiters>;

    /// Is every method that asyncio calls on `self` the native one?
    fn is_native(this: &Ref<Self>) -> bool {
        this.is_plain()
    }
}

/// `self._get_loop()`.
fn loop_of<T: Bound>(this: &Ref<T>) -> PyRes {
    if T::is_native(this) {
        return this.loop_bound().get(this.obj());
    }
    this.obj().method(names::private_get_loop(), [])
}

/// Begins to wait in a queue; `place` keeps what is waited for.
fn join<T: Bound>(this: &Ref<T>, waiters: &Waiters, place: &mut Option<Waiter>) -> PyRes<Sent> {
    let mut waiter = Waiter::create(&loop_of(this)?)?;
    waiters.push(waiter.future())?;
    let sent = waiter.start();
    *place = Some(waiter);
    sent
}

/// `__getstate__()`: what `copy` and `pickle` take along, as they would from a class of Python's.
fn state_of<T: Bound>(this: &Ref<T>) -> PyRes {
    let state = match this.own_attributes() {
        Some(attributes) => attributes.method(names::copy(), [])?,
        None => Obj::dict()?,
    };
    for name in T::STATE {
        let name = Obj::str(name)?;
        state.set_item(&name, &this.obj().getattr(&name)?)?;
    }
    if let Some(waiters) = this.waiters() {
        state.set_item(names::waiters(), &waiters.copy()?)?;
    }
    if let Some(loop_) = this.loop_bound().bound() {
        state.set_item(names::private_loop(), &loop_)?;
    }
    Ok(state)
}

/// `__setstate__(state)`.
fn restore<T: Bound>(this: &Ref<T>, state: &Obj) -> PyRes<()> {
    for name in state.items()? {
        this.obj().setattr(&name, &state.item(&name)?)?;
    }
    Ok(())
}

/// Adds what `copy` and `pickle` call.
fn copied<T: Bound>(builder: ClassBuilder<T>) -> ClassBuilder<T> {
    builder
        .method("__getstate__(self)", "What a copy needs.", |this, _| {
            state_of(this)
        })
        .method(
            "__setstate__(self, state, /)",
            "Makes this a copy.",
            |this, args| restore(this, args.req(0)),
        )
}

/// Adds `_loop` and `_get_loop`.
fn bound<T: Bound>(builder: ClassBuilder<T>, owner: &'static str) -> ClassBuilder<T> {
    copied(builder)
        .property(
            "_loop",
            |this| Ok(this.loop_bound().bound()),
            |this, value| {
                this.loop_bound().bind(value);
                Ok(())
            },
        )
        .inherited_from("_LoopBoundMixin")
        .method(
            "_get_loop(self)",
            "The running loop; fails if it is not the first one that this was used with.",
            |this, _| this.loop_bound().get(this.obj()),
        )
        .inherited_from(owner)
}

/// `object.__repr__` with the state in brackets behind it.
fn repr_with(this: &Obj, state: &str) -> PyRes<String> {
    let text = stdlib::object_repr()?.call([this])?.text()?;
    let inner = text.strip_prefix('<').unwrap_or(&text);
    Ok(format!(
        "<{} [{state}]>",
        inner.strip_suffix('>').unwrap_or(inner)
    ))
}

/// A class that is acquired and released: asyncio's `_ContextManagerMixin`.
trait Guard: Bound {
    /// The body of `acquire`.
    type Acquire: Machine;

    /// Are `acquire` and `release` the native ones?
    fn guards_natively(this: &Ref<Self>) -> bool {
        Self::is_native(this)
    }

    /// The body of `acquire`.
    fn acquiring(this: &Ref<Self>) -> PyRes<Self::Acquire>;

    /// Acquires if that needs no waiting.
    fn try_acquire(this: &Ref<Self>) -> PyRes<bool>;

    /// `release()`.
    fn release(this: &Ref<Self>) -> PyRes<()>;
}

/// Adds `__aenter__` and `__aexit__`.
fn guarding<T: Guard>(builder: ClassBuilder<T>, owner: &'static str) -> ClassBuilder<T> {
    builder
        .inherited_from("_ContextManagerMixin")
        .coroutine("__aenter__(self)", "Acquires.", |this, _| {
            coroutine(
                "_ContextManagerMixin.__aenter__",
                Enter::Start(this.clone()),
            )
        })
        .coroutine(
            "__aexit__(self, exc_type, exc, tb)",
            "Releases.",
            |this, _| coroutine("_ContextManagerMixin.__aexit__", Exit(this.clone())),
        )
        .inherited_from(owner)
}

/// `__aenter__`.
enum Enter<T: Guard> {
    /// Not begun.
    Start(Ref<T>),
    /// The native `acquire` waits.
    Native(T::Acquire),
    /// Another `acquire` waits.
    Visible(Delegate),
}

impl<T: Guard> Machine for Enter<T> {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = match self {
            Self::Start(guard) if T::guards_natively(guard) => {
                if T::try_acquire(guard)? {
                    return Ok(Sent::Return(Obj::none()));
                }
                let mut acquire = T::acquiring(guard)?;
                let sent = acquire.resume(Resume::Send)?;
                *self = Self::Native(acquire);
                sent
            }
            Self::Start(guard) => {
                let delegate = Delegate::new(&guard.obj().method(names::acquire(), [])?)?;
                let sent = delegate.resume(Resume::Send)?;
                *self = Self::Visible(delegate);
                sent
            }
            Self::Native(acquire) => acquire.resume(input)?,
            Self::Visible(delegate) => delegate.resume(input)?,
        };
        Ok(match sent {
            Sent::Yield(_) => sent,
            Sent::Return(_) => Sent::Return(Obj::none()),
        })
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Start(guard) => visit.native(guard),
            Self::Native(acquire) => acquire.traverse(visit),
            Self::Visible(delegate) => visit.obj(delegate.awaited()),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Start(_) => None,
            Self::Native(acquire) => acquire.awaits(),
            Self::Visible(delegate) => Some(delegate.awaited().clone()),
        }
    }
}

/// `__aexit__`.
struct Exit<T: Guard>(Ref<T>);

impl<T: Guard> Machine for Exit<T> {
    #[inline]
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        if T::guards_natively(&self.0) {
            T::release(&self.0)?;
        } else {
            self.0.obj().method(names::release(), [])?;
        }
        Ok(Sent::Return(Obj::none()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.0);
    }
}

/// Makes the classes.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    lock::init(module)?;
    event::init(module)?;
    condition::init(module)?;
    semaphore::init(module)?;
    barrier::init(module)
}
