//! Flow control: waiting until a transport's buffer has room. Answers `FlowControlMixin` in `asyncio/streams.py`, which
//! stays the stdlib's own class; its work is done here for `StreamReaderProtocol`.

use std::cell::Cell;

use crate::events::LoopRef;
use crate::ffi::{Builtin, Machine, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit, finally};
use crate::waiter::{Waiter, is_done, set_exception, set_result};
use crate::{names, stdlib};

use super::protocol::StreamReaderProtocol;

/// What a protocol knows about its transport's buffer.
pub(super) struct Flow {
    /// Is it full?
    pub(super) paused: Cell<bool>,
    /// Is the connection lost?
    pub(super) connection_lost: Cell<bool>,
    /// Who waits for room: a `deque` once somebody waits or looks.
    pub(super) waiters: Slot,
}

impl Flow {
    /// Room, and nobody waits.
    pub(super) const fn new() -> Self {
        Self {
            paused: Cell::new(false),
            connection_lost: Cell::new(false),
            waiters: Slot::empty(),
        }
    }

    /// `_drain_waiters`.
    pub(super) fn visible_waiters(&self) -> PyRes {
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

impl Ref<StreamReaderProtocol> {
    /// `pause_writing()` or `resume_writing()`.
    pub(super) fn set_paused(&self, paused: bool) -> PyRes<()> {
        if self.flow.paused.get() == paused {
            return Err(Builtin::Assertion.raise_bare());
        }
        self.flow.paused.set(paused);
        if LoopRef::new(&self.loop_.get_or_none()).debug()? {
            let text = if paused {
                "%r pauses writing"
            } else {
                "%r resumes writing"
            };
            stdlib::streams_logger()?.method(names::debug(), [&Obj::str(text)?, self.obj()])?;
        }
        if paused {
            return Ok(());
        }
        self.flow.wake(None)
    }

    /// `connection_lost(exc)`, as far as it is about flow.
    pub(super) fn lose_flow(&self, exception: Option<&Obj>) -> PyRes<()> {
        self.flow.connection_lost.set(true);
        if self.flow.paused.get() {
            self.flow.wake(exception)
        } else {
            Ok(())
        }
    }
}

/// The wait of `_drain_helper()`.
pub(super) struct Drain {
    /// The protocol.
    protocol: Ref<StreamReaderProtocol>,
    /// The wait.
    waiter: Waiter,
}

impl Drain {
    /// Begins. `None` says that there is room.
    #[inline]
    pub(super) fn begin(protocol: &Ref<StreamReaderProtocol>) -> PyRes<Option<(Self, Sent)>> {
        if protocol.flow.connection_lost.get() {
            return Err(Builtin::ConnectionReset.raise("Connection lost"));
        }
        if !protocol.flow.paused.get() {
            return Ok(None);
        }
        let mut drain = Self {
            protocol: protocol.clone(),
            waiter: Waiter::create(&protocol.loop_.get_or_none())?,
        };
        let waiters = protocol.flow.visible_waiters()?;
        waiters.method(names::append(), [drain.waiter.future()])?;
        let sent = drain.waiter.start();
        let sent = drain.after(sent)?;
        Ok(Some((drain, sent)))
    }

    /// Goes on.
    pub(super) fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = self.waiter.resume(input);
        self.after(sent)
    }

    /// Leaves the row if the wait is over.
    fn after(&self, sent: PyRes<Sent>) -> PyRes<Sent> {
        match sent {
            Ok(sent @ Sent::Yield(_)) => Ok(sent),
            outcome => finally(outcome.map(|_| Sent::Return(Obj::none())), || {
                let waiters = self.protocol.flow.visible_waiters()?;
                waiters
                    .method(names::remove(), [self.waiter.future()])
                    .map(drop)
            }),
        }
    }

    /// What is awaited.
    pub(super) fn awaits(&self) -> Obj {
        self.waiter.future().clone()
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.protocol);
        self.waiter.traverse(visit);
    }
}

/// `FlowControlMixin._drain_helper`.
pub(super) enum DrainHelper {
    /// Not begun.
    Start(Ref<StreamReaderProtocol>),
    /// It waits.
    Waiting(Drain),
}

impl Machine for DrainHelper {
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

/// The error of a protocol whose `__init__` has not run, as `self._closed` would say it.
#[cold]
pub(super) fn no_attribute(object: &Obj, name: &str) -> Raised {
    Builtin::Attribute.raise(&format!(
        "'{}' object has no attribute '{name}'",
        object.class_name()
    ))
}
