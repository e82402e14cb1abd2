//! The last step of making a transport: waiting until the protocol knows it.

use crate::ffi::{Obj, PyRes, Resume, Sent, Visit, finally};
use crate::names;
use crate::waiter::Waiter;

/// A transport whose `connection_made` is on its way.
pub(super) struct Opening {
    /// The transport.
    pub transport: Obj,
    /// Its protocol.
    pub protocol: Obj,
    /// Done once `connection_made` was called.
    pub waiter: Waiter,
}

impl Opening {
    /// Begins to wait. Returns the pair of transport and protocol in the end; the transport is closed if the wait fails.
    pub(super) fn start(&mut self) -> PyRes<Sent> {
        let outcome = self.waiter.start();
        self.settle(outcome)
    }

    /// Goes on after the coroutine was resumed.
    pub(super) fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let outcome = self.waiter.resume(input);
        self.settle(outcome)
    }

    /// What an outcome of the wait means.
    fn settle(&self, outcome: PyRes<Sent>) -> PyRes<Sent> {
        match outcome {
            Ok(Sent::Yield(value)) => Ok(Sent::Yield(value)),
            Ok(Sent::Return(_)) => {
                Obj::tuple([self.transport.clone(), self.protocol.clone()]).map(Sent::Return)
            }
            Err(raised) => finally(Err(raised), || {
                self.transport.method(names::close(), []).map(drop)
            }),
        }
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.obj(&self.transport);
        visit.obj(&self.protocol);
        self.waiter.traverse(visit);
    }
}
