//! Transports over sockets. Answers `asyncio/selector_events.py`; the loop's methods are in `base_events`.

pub(crate) mod common;
pub(crate) mod datagram;

use crate::ffi::PyRes;

/// Makes the classes.
pub(crate) fn init() -> PyRes<()> {
    datagram::init()
}
