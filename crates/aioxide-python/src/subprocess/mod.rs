//! Subprocesses as streams: `create_subprocess_exec`, `create_subprocess_shell` and what they give. Answers
//! `asyncio/subprocess.py`, as of 3.15 on every Python.
//!
//! All of it works on any loop and with any transport: it calls their methods. A native transport need not go through
//! Python for what the child writes: [`direct_reader`] gives it the reader behind a protocol.

mod communicate;
mod creating;
mod process;
mod protocol;

use crate::ffi::{Native, Obj, PyRes, Ref, add_to_module};
use crate::stdlib;
use crate::streams::StreamReader;

use protocol::SubprocessStreamProtocol;

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &[
    "SubprocessStreamProtocol",
    "Process",
    "create_subprocess_shell",
    "create_subprocess_exec",
];

/// The asyncio module that these names are in.
const MODULE: &str = "asyncio.subprocess";

/// The reader that a transport may feed instead of calling `protocol.pipe_data_received(fd, data)`, if nobody could
/// tell. To be asked for each piece of data.
#[inline]
pub(crate) fn direct_reader(protocol: &Obj, fd: &Obj) -> Option<Ref<StreamReader>> {
    SubprocessStreamProtocol::class()
        .cast(protocol)
        .and_then(|protocol| protocol.direct_reader(fd))
}

/// Makes the classes and functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    // The stdlib's own: once names are rebound it cannot be looked up.
    stdlib::flow_control_mixin()?;
    add_to_module(module, "SubprocessStreamProtocol", &protocol::make_class()?)?;
    add_to_module(module, "Process", &process::make_class()?)?;
    creating::init(module)
}
