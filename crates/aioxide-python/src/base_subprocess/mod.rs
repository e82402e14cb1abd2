//! The transport of a child process, and the protocols of its pipes. Answers `asyncio/base_subprocess.py`, as of 3.15 on
//! every Python, and the class derived from it in `asyncio/unix_events.py`.
//!
//! The child is made by `subprocess.Popen`. Its pipes are connected by the loop's own methods in a task; what happens
//! before that is over is kept and told afterwards. Everything that a protocol is told goes through `call_soon`, but for
//! one thing: what a pipe brings for a stream reader goes there at once and natively ([`direct_reader`]), if nobody
//! could tell.
//!
//! // Differs: how a child ended that somebody waited for through its `Popen`, or that ended while the transport was
//! closed, is known to the `Popen` and taken from there; asyncio says 255. On all versions `wait()` returns when the
//! child has ended, though its pipes may be open.

mod connecting;
mod pipe_protocols;
mod transport;
mod watching;

use crate::ffi::PyRes;
use crate::stdlib;

pub(crate) use pipe_protocols::direct_reader;
pub(crate) use transport::{Program, SubprocessTransport, make_subprocess_transport};
pub(crate) use watching::ready_method;

/// Makes the classes.
pub(crate) fn init() -> PyRes<()> {
    // When it is needed, there may be no descriptor left to import it.
    stdlib::watch_child_in_thread()?;
    pipe_protocols::init()?;
    transport::init()
}
