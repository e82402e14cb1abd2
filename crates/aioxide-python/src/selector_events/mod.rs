//! Transports on top of the selector. Answers `asyncio/selector_events.py`; the loop's own methods are in `base_events`.

mod flow_control;
mod transport;

use crate::ffi::{Obj, PyRes};

pub(crate) use transport::{StreamTransport, make_socket_transport};

/// Makes the classes.
pub(crate) fn init(_module: &Obj) -> PyRes<()> {
    transport::init()
}
