//! Transports on top of the selector. Answers `asyncio/selector_events.py`; the loop's own methods are in `base_events`.

pub(crate) mod common;
pub(crate) mod datagram;
pub(crate) mod flow_control;
mod transport;

use crate::events::JobBody;
use crate::ffi::{Obj, PyRes};

pub(crate) use transport::{is_stream_transport, make_accepted_transport, make_socket_transport};

/// The method of a transport that asyncio would have called for a job; `None` for jobs of others.
pub(crate) fn ready_method(body: JobBody) -> Option<&'static Obj> {
    transport::ready_method(body).or_else(|| datagram::ready_method(body))
}

/// Makes the classes.
pub(crate) fn init() -> PyRes<()> {
    transport::init()?;
    datagram::init()
}
