//! Transports over pipes. Answers `asyncio/unix_events.py`; the loop's methods are in `base_events`.

pub(crate) mod read_pipe;
pub(crate) mod write_pipe;

use crate::events::JobBody;
use crate::ffi::{Obj, PyRes};
use crate::stdlib;

/// What kind of file is behind a pipe transport.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// A pipe; `named` if it has a name in the file system.
    Pipe {
        /// Is it a named one?
        named: bool,
    },
    /// A socket.
    Socket,
    /// A character device, such as a terminal.
    Device,
}

/// Looks at the kind of a file; `None` for kinds that asyncio refuses.
fn file_kind(fd: &Obj) -> PyRes<Option<FileKind>> {
    /// The bits of a mode that tell the kind.
    const KIND: i64 = 0o170_000;
    let status = stdlib::fstat()?.call([fd])?;
    let mode = status.getattr_str("st_mode")?.as_i64()?;
    Ok(match mode & KIND {
        0o010_000 => Some(FileKind::Pipe {
            named: status.getattr_str("st_nlink")?.as_i64()? > 0,
        }),
        0o140_000 => Some(FileKind::Socket),
        0o020_000 => Some(FileKind::Device),
        _ => None,
    })
}

/// The method of a transport that asyncio would have called for a job; `None` for jobs of others.
pub(crate) fn ready_method(body: JobBody) -> Option<&'static Obj> {
    read_pipe::ready_method(body).or_else(|| write_pipe::ready_method(body))
}

/// Makes the classes.
pub(crate) fn init() -> PyRes<()> {
    read_pipe::init()?;
    write_pipe::init()
}
