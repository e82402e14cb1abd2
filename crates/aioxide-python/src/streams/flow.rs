//! Flow control: waiting until a transport's buffer has room. Answers `FlowControlMixin` in `asyncio/streams.py`, which
//! stays the stdlib's own class; its work is done here for the native protocols.

use std::cell::Cell;

use crate::coroutines::coroutine;
use crate::events::LoopRef;
use crate::ffi::{
    Builtin, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit,
    finally,
};
use crate::waiter::{Waiter, is_done, set_exception, set_result};
use crate::{names, stdlib};

/// What a protocol knows about its transport's buffer.
pub(crate) struct Flow {
    /// Is it full?
    paused: Cell<bool>,
    /// Is the connection lost?
    connection_lost: Cell<bool>,
    /// Who waits for room: a `deque` once somebody waits or looks.
    waiters: Slot,
}

impl Flow {
    /// Room, and nobody waits.
    pub(crate) const fn new() -> Self {
        Self {
            paused: Cell::new(false),
            connection_lost: Cell::new(false),
            waiters: Slot::empty(),
        }
    }

    /// `_drain_waiters`.
    fn visible_waiters(&self) -> PyRes {
        if let Some(waiters) = self.waiters.get() {
            return Ok(waiters);
        }
        let waiters = stdlib::deque()?.call([])?;
        // To make it may have run any code.
        if let Some(waiters) = self.waiters.get() {
            return Ok(waiters);
        }
        self.waiters.set(waiters.clone());
        Ok(waiters)
    }

    /// Back to that.
    pub(crate) fn reset(&self) {
        self.paused.set(false);
        self.connection_lost.set(false);
        self.waiters.clear();
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.waiters);
    }

    /// Gives up what is held.
    pub(crate) fn clear(&self) {
        self.waiters.clear();
    }

    /// Wakes all who wait, with an exception if there is one.
    fn wake(&self, exception: Option<&Obj>) -> PyRes<()> {
        let Some(waiters) = self.waiters.get() else {
            return Ok(());
        };
        for waiter in waiters.items()? {
            if is_done(&waiter)? {
                continue;
            }
            match exception {
                None => set_result(&waiter, Obj::none())?,
                Some(exception) => set_exception(&waiter, exception)?,
            }
        }
        Ok(())
    }
}

/// A native protocol that minds the state of its transport's buffer: what asyncio derives from `FlowControlMixin`.
pub(crate) trait FlowControlled: Native {
    /// What it knows of the buffer.
    fn flow(&self) -> &Flow;

    /// The loop.
    fn loop_slot(&self) -> &Slot;
}

/// The state of the buffer that a protocol of a known class knows.
fn flow_of<P: FlowControlled>(protocol: &Obj) -> Option<&Flow> {
    P::class().cast(protocol).map(|protocol| protocol.flow())
}

/// `pause_writing()` or `resume_writing()`.
pub(crate) fn set_paused<P: FlowControlled>(this: &Ref<P>, paused: bool) -> PyRes<()> {
    if this.flow().paused.get() == paused {
        return Err(Builtin::Assertion.raise_bare());
    }
    this.flow().paused.set(paused);
    if LoopRef::new(&this.loop_slot().get_or_none()).debug()? {
        let text = if paused {
            "%r pauses writing"
        } else {
            "%r resumes writing"
        };
        stdlib::streams_logger()?.method(names::debug(), [&Obj::str(text)?, this.obj()])?;
    }
    if paused {
        return Ok(());
    }
    this.flow().wake(None)
}

/// `connection_lost(exc)`, as far as it is about flow.
pub(crate) fn lose_flow<P: FlowControlled>(this: &Ref<P>, exception: Option<&Obj>) -> PyRes<()> {
    this.flow().connection_lost.set(true);
    if this.flow().paused.get() {
        this.flow().wake(exception)
    } else {
        Ok(())
    }
}

/// The wait of `_drain_helper()`.
pub(crate) struct Drain {
    /// The protocol.
    protocol: Obj,
    /// How its flow is reached.
    flow: fn(&Obj) -> Option<&Flow>,
    /// The wait.
    waiter: Waiter,
}

impl Drain {
    /// Begins. `None` says that there is room.
    #[inline]
    pub(crate) fn begin<P: FlowControlled>(protocol: &Ref<P>) -> PyRes<Option<(Self, Sent)>> {
        if protocol.flow().connection_lost.get() {
            return Err(Builtin::ConnectionReset.raise("Connection lost"));
        }
        if !protocol.flow().paused.get() {
            return Ok(None);
        }
        let mut drain = Self {
            protocol: protocol.obj().clone(),
            flow: flow_of::<P>,
            waiter: Waiter::create(&protocol.loop_slot().get_or_none())?,
        };
        let waiters = protocol.flow().visible_waiters()?;
        waiters.method(names::append(), [drain.waiter.future()])?;
        let sent = drain.waiter.start();
        let sent = drain.after(sent)?;
        Ok(Some((drain, sent)))
    }

    /// Goes on.
    pub(crate) fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = self.waiter.resume(input);
        self.after(sent)
    }

    /// Leaves the row if the wait is over.
    fn after(&self, sent: PyRes<Sent>) -> PyRes<Sent> {
        match sent {
            Ok(sent @ Sent::Yield(_)) => Ok(sent),
            outcome => finally(outcome.map(|_| Sent::Return(Obj::none())), || {
                let Some(flow) = (self.flow)(&self.protocol) else {
                    return Ok(());
                };
                flow.visible_waiters()?
                    .method(names::remove(), [self.waiter.future()])
                    .map(drop)
            }),
        }
    }

    /// What is awaited.
    pub(crate) fn awaits(&self) -> Obj {
        self.waiter.future().clone()
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.obj(&self.protocol);
        self.waiter.traverse(visit);
    }
}

/// `FlowControlMixin._drain_helper`.
pub(crate) enum DrainHelper<P: FlowControlled> {
    /// Not begun.
    Start(Ref<P>),
    /// It waits.
    Waiting(Drain),
}

impl<P: FlowControlled> Machine for DrainHelper<P> {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match self {
            Self::Start(protocol) => match Drain::begin(protocol)? {
                None => Ok(Sent::Return(Obj::none())),
                Some((drain, sent)) => {
                    *self = Self::Waiting(drain);
                    Ok(sent)
                }
            },
            Self::Waiting(drain) => drain.resume(input),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Start(protocol) => visit.native(protocol),
            Self::Waiting(drain) => drain.traverse(visit),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Start(_) => None,
            Self::Waiting(drain) => Some(drain.awaits()),
        }
    }
}

/// Adds what `FlowControlMixin` has but for `connection_lost`.
pub(crate) fn flow_methods<P: FlowControlled>(builder: ClassBuilder<P>) -> ClassBuilder<P> {
    builder
        .inherited_from("FlowControlMixin")
        .method(
            "pause_writing(self)",
            "The transport's buffer is full.",
            |this, _| set_paused(this, true),
        )
        .method(
            "resume_writing(self)",
            "The transport's buffer has room.",
            |this, _| set_paused(this, false),
        )
        .coroutine(
            "_drain_helper(self)",
            "Waits until the transport's buffer has room.",
            |this, _| {
                coroutine(
                    "FlowControlMixin._drain_helper",
                    DrainHelper::Start(this.clone()),
                )
            },
        )
        .property(
            "_drain_waiters",
            |this| this.flow().visible_waiters(),
            |this, value| {
                drop(this.flow().waiters.replace(value.cloned()));
                Ok(())
            },
        )
        .property(
            "_paused",
            |this| Ok(this.flow().paused.get()),
            |this, value| {
                let paused = value.map_or(Ok(false), Obj::truth)?;
                this.flow().paused.set(paused);
                Ok(())
            },
        )
        .property(
            "_connection_lost",
            |this| Ok(this.flow().connection_lost.get()),
            |this, value| {
                let lost = value.map_or(Ok(false), Obj::truth)?;
                this.flow().connection_lost.set(lost);
                Ok(())
            },
        )
}

/// The error of a protocol whose `__init__` has not run, as `self._closed` would say it.
#[cold]
pub(super) fn no_attribute(object: &Obj, name: &str) -> Raised {
    Builtin::Attribute.raise(&format!(
        "'{}' object has no attribute '{name}'",
        object.class_name()
    ))
}
