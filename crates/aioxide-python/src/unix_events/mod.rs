//! Transports over pipes. Answers `asyncio/unix_events.py`; the loop's methods are in `base_events`.

pub(crate) mod read_pipe;
pub(crate) mod write_pipe;

use crate::events::JobBody;
use crate::ffi::{ClassBuilder, Obj, PyRes, Raised, Ref, Slot};
use crate::selector_events::common::{Transport, call_connection_lost, error_message};
use crate::{names, stdlib};

/// A transport over a pipe.
trait PipeTransport: Transport {
    /// The file object, until the connection is lost.
    fn pipe(&self) -> &Slot;

    /// `_fatal_error`: reports an error and closes the transport.
    fn fatal_error(this: &Ref<Self>, exception: &Obj, message: &str) -> PyRes<()>;

    /// `_call_connection_lost`.
    fn lose(this: &Ref<Self>, exception: Option<&Obj>) -> PyRes<()> {
        call_connection_lost(this, this.pipe(), exception, || ())
    }
}

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

/// What a transport needs of its file.
struct OpenPipe {
    /// What `get_extra_info` is to know.
    extra: Obj,
    /// The descriptor.
    fd: i32,
    /// What kind of file it is.
    kind: FileKind,
}

/// Looks at the file of a new transport, and has it never block. `refused` is the error for what is no pipe.
fn open(pipe: &Obj, extra: Option<&Obj>, refused: &str) -> PyRes<OpenPipe> {
    let extra = match extra {
        Some(extra) => extra.clone(),
        None => Obj::dict()?,
    };
    extra.set_item(names::pipe(), pipe)?;
    let fd = pipe.method(names::fileno(), [])?;
    let kind = file_kind(&fd)?.ok_or_else(|| Raised::value_error(refused))?;
    stdlib::set_blocking()?.call([&fd, &Obj::bool(false)])?;
    Ok(OpenPipe {
        extra,
        fd: i32::try_from(fd.as_i64()?).unwrap_or(-1),
        kind,
    })
}

/// Adds what both have in Python's eyes.
fn pipe_methods<T: PipeTransport>(builder: ClassBuilder<T>) -> ClassBuilder<T> {
    builder
        .method(
            "_fatal_error(self, exc, message='Fatal error on pipe transport')",
            "Reports an error and closes the transport.",
            |this, args| {
                let message = error_message(args, "Fatal error on pipe transport")?;
                T::fatal_error(this, args.req(0), &message)
            },
        )
        .method(
            "_call_connection_lost(self, exc)",
            "Tells the protocol that the connection is lost, and closes the pipe.",
            |this, args| T::lose(this, args.some(0)),
        )
        .slot_property("_pipe", |this| this.pipe())
        .getter("_fileno", |this| Obj::int(this.parts().fd.get().into()))
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
