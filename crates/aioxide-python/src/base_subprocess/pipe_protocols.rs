//! The protocols of a child's pipes, which hand everything on to the transport of the child.

use std::cell::Cell;

use crate::ffi::{Class, ClassBuilder, Extends, Native, Obj, PyRes, Ref, Slot, Visit};
use crate::streams::StreamReader;
use crate::{names, stdlib, subprocess};

use super::transport::SubprocessTransport;

/// The protocol of a pipe that the child reads from.
pub(super) struct WritePipeProtocol {
    /// The transport of the child, until the pipe is lost.
    proc: Slot,
    /// The child's number of the pipe.
    fd: Slot,
    /// The transport of the pipe, once it is connected.
    pipe: Slot,
    /// Is the pipe lost?
    disconnected: Cell<bool>,
}

/// Where the class is kept.
static WRITE: Class<WritePipeProtocol> = Class::new();

impl Native for WritePipeProtocol {
    fn class() -> &'static Class<Self> {
        &WRITE
    }

    fn empty() -> Self {
        Self {
            proc: Slot::empty(),
            fd: Slot::empty(),
            pipe: Slot::empty(),
            disconnected: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.proc);
        visit.slot(&self.fd);
        visit.slot(&self.pipe);
    }

    fn clear(&self) {
        self.proc.clear();
        self.pipe.clear();
    }
}

/// The protocol of a pipe that the child writes to.
#[repr(C)]
pub(super) struct ReadPipeProtocol {
    /// What both kinds have.
    base: WritePipeProtocol,
}

/// Where the class is kept.
static READ: Class<ReadPipeProtocol> = Class::new();

impl Native for ReadPipeProtocol {
    fn class() -> &'static Class<Self> {
        &READ
    }

    fn empty() -> Self {
        Self {
            base: WritePipeProtocol::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.base.traverse(visit);
    }

    fn clear(&self) {
        self.base.clear();
    }
}

impl Extends<WritePipeProtocol> for ReadPipeProtocol {
    fn base(&self) -> &WritePipeProtocol {
        &self.base
    }
}

impl WritePipeProtocol {
    /// `__init__`.
    fn initialize(&self, proc: &Obj, fd: &Obj) {
        self.proc.set(proc.clone());
        self.fd.set(fd.clone());
        self.pipe.clear();
        self.disconnected.set(false);
    }

    /// `connection_lost(exc)`.
    fn connection_lost(&self, exception: &Obj) -> PyRes<()> {
        self.disconnected.set(true);
        let proc = self.proc.get_or_none();
        proc.method(
            names::pipe_connection_lost_private(),
            [&self.fd.get_or_none(), exception],
        )?;
        self.proc.clear();
        Ok(())
    }

    /// Has the protocol of the child pause or resume writing.
    fn tell(&self, method: &Obj) -> PyRes<()> {
        let proc = self.proc.get_or_none();
        proc.getattr(names::private_protocol())?
            .method(method, [])
            .map(drop)
    }
}

/// Is the pipe of this protocol lost? `None` is a pipe that is still to be connected.
pub(super) fn is_disconnected(protocol: &Obj) -> PyRes<bool> {
    if protocol.is_none() {
        return Ok(false);
    }
    match WRITE.cast(protocol) {
        Some(native) => Ok(native.disconnected.get()),
        None => protocol.getattr(names::disconnected())?.truth(),
    }
}

/// A callable that makes the protocol of one of the child's pipes.
pub(super) fn factory(proc: &Obj, fd: i64) -> PyRes {
    let class = if fd == 0 {
        WRITE.object()
    } else {
        READ.object()
    };
    stdlib::partial()?.call([&class, proc, &Obj::int(fd)?])
}

/// The reader that what a pipe brings goes to, if the pipe's protocol is one of a child's, the protocol of that child
/// one of streams, and feeding the reader all that telling it would do.
#[inline]
pub(crate) fn direct_reader(protocol: &Obj) -> Option<Ref<StreamReader>> {
    let pipe = READ.exact(protocol).filter(|pipe| pipe.is_plain())?;
    let proc = pipe.base.proc.get()?;
    let proc = SubprocessTransport::class()
        .cast(&proc)
        .filter(|proc| proc.is_plain() && proc.is_connected())?;
    let fd = pipe.base.fd.get()?;
    subprocess::direct_reader(&proc.protocol()?, &fd)
}

/// Makes the classes.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<WritePipeProtocol>::new(
        "asyncio.base_subprocess",
        "WriteSubprocessPipeProto",
        "The protocol of a pipe that a child reads from.",
    )
    .base(stdlib::base_protocol()?.clone())
    .init("(self, proc, fd)", |this, args| {
        this.initialize(args.req(0), args.req(1));
        Ok(())
    })
    .repr(|this| {
        Ok(format!(
            "<{} fd={} pipe={}>",
            this.obj().class_name(),
            this.fd.get_or_none().to_str()?.text()?,
            this.pipe.get_or_none().repr()?
        ))
    })
    .method(
        "connection_made(self, transport)",
        "The pipe is connected.",
        |this, args| {
            this.pipe.set(args.req(0).clone());
            Ok(())
        },
    )
    .method(
        "connection_lost(self, exc)",
        "The pipe is closed, or lost by an error.",
        |this, args| this.connection_lost(args.req(0)),
    )
    .method(
        "pause_writing(self)",
        "The pipe's buffer is full.",
        |this, _| this.tell(names::pause_writing()),
    )
    .method(
        "resume_writing(self)",
        "The pipe's buffer has room.",
        |this, _| this.tell(names::resume_writing()),
    )
    .slot_property("proc", |this| &this.proc)
    .slot_property("fd", |this| &this.fd)
    .slot_property("pipe", |this| &this.pipe)
    .property(
        "disconnected",
        |this| Ok(this.disconnected.get()),
        |this, value| {
            this.disconnected.set(value.map_or(Ok(false), Obj::truth)?);
            Ok(())
        },
    )
    .build()?;
    ClassBuilder::<ReadPipeProtocol>::new(
        "asyncio.base_subprocess",
        "ReadSubprocessPipeProto",
        "The protocol of a pipe that a child writes to.",
    )
    .extends::<WritePipeProtocol>()
    .base(stdlib::protocol()?.clone())
    .init("(self, proc, fd)", |this, args| {
        this.base.initialize(args.req(0), args.req(1));
        Ok(())
    })
    .method(
        "data_received(self, data)",
        "The child has written something.",
        |this, args| {
            let proc = this.base.proc.get_or_none();
            let fd = this.base.fd.get_or_none();
            proc.method(names::pipe_data_received_private(), [&fd, args.req(0)])
                .map(drop)
        },
    )
    .build()
    .map(drop)
}
