//! Transports on top of the selector. Answers `asyncio/selector_events.py`; the loop's own methods are in `base_events`.

pub(crate) mod common;
pub(crate) mod datagram;
pub(crate) mod flow_control;
mod transport;

use crate::ffi::PyRes;

pub(crate) use transport::{make_accepted_transport, make_socket_transport};

/// Makes the classes.
pub(crate) fn init() -> PyRes<()> {
    transport::init()?;
    datagram::init()
}
