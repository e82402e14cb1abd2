//! Transports on top of the selector. Answers `asyncio/selector_events.py`; the loop's own methods are in `base_events`.

pub(crate) mod common;
pub(crate) mod datagram;
pub(crate) mod flow_control;
mod transport;

use crate::events::{EventLoop, JobBody};
use crate::ffi::{Obj, PyRes, Ref, finally};

pub(crate) use transport::{is_stream_transport, make_accepted_transport, make_socket_transport};

/// The method of a transport that asyncio would have called for a job; `None` for jobs of others.
pub(crate) fn ready_method(body: JobBody) -> Option<&'static Obj> {
    transport::ready_method(body).or_else(|| datagram::ready_method(body))
}

/// Has TLS on each connection of a loop send what it has encrypted.
pub(crate) fn send_before_fork(loop_: &Ref<EventLoop>) -> PyRes<()> {
    let mut outcome = Ok(());
    for (_, transport) in loop_.known_transports()? {
        outcome = finally(outcome, || transport::send_before_fork(&transport));
    }
    outcome
}

/// Makes the classes.
pub(crate) fn init() -> PyRes<()> {
    transport::init()?;
    datagram::init()
}
