//! `SubprocessStreamProtocol`: hands what happens to a child on to the streams of its pipes.
//!
//! The class that Python sees is made by Python from the native one and two of the stdlib's, whose instances its own
//! have to be.

use std::cell::Cell;

use crate::ffi::{Class, ClassBuilder, GilSlot, Native, Obj, PyRes, Ref, Slot, Visit, finally};
use crate::futures::exact_or_task;
use crate::streams::{
    Flow, FlowControlled, Overridable, Seen, StreamReader, StreamWriter, direct, flow_methods,
    lose_flow,
};
use crate::waiter::{create_future, set_exception, set_result};
use crate::{names, stdlib};

use super::MODULE;

/// Overridable: `pipe_data_received`.
const PIPE_DATA_RECEIVED: u32 = 1;

/// What can be overridden.
static OVERRIDABLE: Overridable<1> = Overridable::new([names::pipe_data_received]);

/// The protocol of a child with streams.
pub(super) struct SubprocessStreamProtocol {
    /// The state of the buffer of the child's input.
    flow: Flow,
    /// The limit of the readers.
    limit: Slot,
    /// The loop.
    loop_: Slot,
    /// The writer of the child's input.
    stdin: Slot,
    /// The reader of its output.
    stdout: Slot,
    /// The reader of its error output.
    stderr: Slot,
    /// The transport, until it is closed.
    transport: Slot,
    /// Has the child ended?
    process_exited: Cell<bool>,
    /// The numbers of the pipes that are still to end: a list.
    pipe_fds: Slot,
    /// The future that is done when the child's input is closed.
    stdin_closed: Slot,
    /// What is known about the class.
    seen: Seen,
}

/// Where the native class is kept.
static CLASS: Class<SubprocessStreamProtocol> = Class::new();

/// The class that Python sees.
static VISIBLE: GilSlot = GilSlot::new();

impl Native for SubprocessStreamProtocol {
    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            flow: Flow::new(),
            limit: Slot::empty(),
            loop_: Slot::empty(),
            stdin: Slot::empty(),
            stdout: Slot::empty(),
            stderr: Slot::empty(),
            transport: Slot::empty(),
            process_exited: Cell::new(false),
            pipe_fds: Slot::empty(),
            stdin_closed: Slot::empty(),
            seen: Seen::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.flow.traverse(visit);
        for slot in self.slots() {
            visit.slot(slot);
        }
    }

    fn clear(&self) {
        self.flow.clear();
        for slot in self.slots() {
            slot.clear();
        }
    }
}

impl SubprocessStreamProtocol {
    /// Every reference of its own.
    fn slots(&self) -> [&Slot; 8] {
        [
            &self.limit,
            &self.loop_,
            &self.stdin,
            &self.stdout,
            &self.stderr,
            &self.transport,
            &self.pipe_fds,
            &self.stdin_closed,
        ]
    }

    /// The reader of a pipe, or `None`.
    fn reader(&self, fd: &Obj) -> PyRes {
        let slot = match number(fd)? {
            Some(1) => &self.stdout,
            Some(2) => &self.stderr,
            _ => return Ok(Obj::none()),
        };
        Ok(slot.get_or_none())
    }
}

impl FlowControlled for SubprocessStreamProtocol {
    #[inline]
    fn flow(&self) -> &Flow {
        &self.flow
    }

    fn loop_slot(&self) -> &Slot {
        &self.loop_
    }
}

/// The number of a pipe, if it is an `int` of the usual size.
fn number(fd: &Obj) -> PyRes<Option<i64>> {
    if fd.is_exact_int() {
        return fd.as_i64().map(Some);
    }
    for known in 0..3 {
        if fd.equals(&Obj::int(known)?)? {
            return Ok(Some(known));
        }
    }
    Ok(None)
}

/// A callable that makes such protocols.
pub(super) fn factory(limit: &Obj, loop_: &Obj) -> PyRes {
    let keywords = [(names::limit(), limit), (names::loop_(), loop_)];
    stdlib::partial()?.call_kw(&[&VISIBLE.get()?], &keywords)
}

impl Ref<SubprocessStreamProtocol> {
    /// `__init__`.
    fn initialize(&self, limit: &Obj, loop_: &Obj) -> PyRes<()> {
        self.flow.reset();
        for slot in [&self.stdin, &self.stdout, &self.stderr, &self.transport] {
            slot.clear();
        }
        self.loop_.set(loop_.clone());
        self.limit.set(limit.clone());
        self.process_exited.set(false);
        self.pipe_fds.set(Obj::list([])?);
        self.stdin_closed.set(create_future(loop_)?);
        Ok(())
    }

    /// The reader of a pipe, if feeding it is all that `pipe_data_received` would do.
    pub(super) fn direct_reader(&self, fd: &Obj) -> Option<Ref<StreamReader>> {
        if OVERRIDABLE.overrides(&self.seen, self, PIPE_DATA_RECEIVED) {
            return None;
        }
        let slot = match fd.as_i64() {
            Ok(1) => &self.stdout,
            Ok(2) => &self.stderr,
            Ok(_) => return None,
            Err(raised) => {
                raised.discard();
                return None;
            }
        };
        direct(&slot.get()?)
    }

    /// `connection_made(transport)`.
    fn connection_made(&self, transport: &Obj) -> PyRes<()> {
        self.transport.set(transport.clone());
        let loop_ = self.loop_.get_or_none();
        let pipe_fds = self.pipe_fds.get_or_none();
        let limit = self.limit.get_or_none();
        for (fd, slot) in [(1, &self.stdout), (2, &self.stderr)] {
            let fd = Obj::int(fd)?;
            let pipe = transport.method(names::get_pipe_transport(), [&fd])?;
            if pipe.is_none() {
                continue;
            }
            let reader = Ref::<StreamReader>::create(Some(&limit), &loop_)?;
            slot.set(reader.obj().clone());
            reader.obj().method(names::set_transport(), [&pipe])?;
            pipe_fds.method(names::append(), [&fd])?;
        }
        let pipe = transport.method(names::get_pipe_transport(), [&Obj::int(0)?])?;
        if !pipe.is_none() {
            let writer = Ref::<StreamWriter>::create(&pipe, self.obj(), &Obj::none(), &loop_)?;
            self.stdin.set(writer.into_obj());
        }
        Ok(())
    }

    /// `pipe_data_received(fd, data)`.
    fn pipe_data_received(&self, fd: &Obj, data: &Obj) -> PyRes<()> {
        let reader = self.reader(fd)?;
        if reader.is_none() {
            return Ok(());
        }
        reader.method(names::feed_data(), [data]).map(drop)
    }

    /// `pipe_connection_lost(fd, exc)`.
    fn pipe_connection_lost(&self, fd: &Obj, exception: &Obj) -> PyRes<()> {
        if number(fd)? == Some(0) {
            return self.stdin_lost(exception);
        }
        let reader = self.reader(fd)?;
        if !reader.is_none() {
            if exception.is_none() {
                reader.method(names::feed_eof(), [])?;
            } else {
                reader.method(names::set_exception(), [exception])?;
            }
        }
        let pipe_fds = self.pipe_fds.get_or_none();
        if pipe_fds.contains(fd)? {
            pipe_fds.method(names::remove(), [fd])?;
        }
        self.maybe_close_transport()
    }

    /// The child's input is closed, or lost by an error.
    fn stdin_lost(&self, exception: &Obj) -> PyRes<()> {
        if let Some(stdin) = self.stdin.get() {
            stdin.method(names::close(), [])?;
        }
        self.obj().method(names::connection_lost(), [exception])?;
        let closed = self.stdin_closed.get_or_none();
        if exception.is_none() {
            return set_result(&closed, Obj::none());
        }
        set_exception(&closed, exception)?;
        // Nobody has to ask why.
        match exact_or_task(&closed) {
            Some(native) => native.mark_retrieved(),
            None => closed.setattr(names::log_traceback(), &Obj::bool(false))?,
        }
        Ok(())
    }

    /// `_maybe_close_transport()`: closes it once the child has ended and nothing more can come from it.
    fn maybe_close_transport(&self) -> PyRes<()> {
        if !self.process_exited.get() || self.pipe_fds.get_or_none().len()? != 0 {
            return Ok(());
        }
        let transport = self.transport.get_or_none();
        let closed = transport.method(names::close(), []).map(drop);
        finally(closed, || {
            self.transport.clear();
            Ok(())
        })
    }

    /// The repr.
    fn repr_text(&self) -> PyRes<String> {
        let mut words = vec![self.obj().class_name()];
        for (name, slot) in [
            ("stdin", &self.stdin),
            ("stdout", &self.stdout),
            ("stderr", &self.stderr),
        ] {
            if let Some(stream) = slot.get() {
                words.push(format!("{name}={}", stream.repr()?));
            }
        }
        Ok(format!("<{}>", words.join(" ")))
    }
}

/// Makes the native class.
fn make_native_class() -> PyRes {
    let builder = ClassBuilder::<SubprocessStreamProtocol>::new(
        MODULE,
        "SubprocessStreamProtocol",
        "The native part of `SubprocessStreamProtocol`.",
    )
    .init("(self, limit, loop)", |this, args| {
        this.initialize(args.req(0), args.req(1))
    })
    .repr(Ref::<SubprocessStreamProtocol>::repr_text)
    .method(
        "connection_made(self, transport)",
        "The child runs, and its pipes are connected.",
        |this, args| this.connection_made(args.req(0)),
    )
    .method(
        "pipe_data_received(self, fd, data)",
        "The child has written something.",
        |this, args| this.pipe_data_received(args.req(0), args.req(1)),
    )
    .method(
        "pipe_connection_lost(self, fd, exc)",
        "A pipe is closed, or lost by an error.",
        |this, args| this.pipe_connection_lost(args.req(0), args.req(1)),
    )
    .method("process_exited(self)", "The child has ended.", |this, _| {
        this.process_exited.set(true);
        this.maybe_close_transport()
    })
    .method(
        "_maybe_close_transport(self)",
        "Closes the transport once nothing more can come.",
        |this, _| this.maybe_close_transport(),
    )
    .method(
        "_get_close_waiter(self, stream)",
        "What is done when the child's input is closed.",
        |this, args| {
            Ok(this
                .stdin_closed
                .get()
                .filter(|_| this.stdin.holds(args.req(0))))
        },
    );
    flow_methods(builder)
        .method(
            "connection_lost(self, exc)",
            "Everything is over, or there is nobody to write to.",
            |this, args| lose_flow(this, args.some(0)),
        )
        .slot_property("stdin", |this| &this.stdin)
        .slot_property("stdout", |this| &this.stdout)
        .slot_property("stderr", |this| &this.stderr)
        .slot_property("_loop", |this| &this.loop_)
        .slot_property("_limit", |this| &this.limit)
        .slot_property("_transport", |this| &this.transport)
        .slot_property("_pipe_fds", |this| &this.pipe_fds)
        .slot_property("_stdin_closed", |this| &this.stdin_closed)
        .property(
            "_process_exited",
            |this| Ok(this.process_exited.get()),
            |this, value| {
                this.process_exited
                    .set(value.map_or(Ok(false), Obj::truth)?);
                Ok(())
            },
        )
        .build()
}

/// Makes the class that Python sees.
pub(super) fn make_class() -> PyRes {
    let native = make_native_class()?;
    let namespace = Obj::dict()?;
    let set = |name: &str, value: &Obj| namespace.set_item(&Obj::str(name)?, value);
    set("__module__", &Obj::str(MODULE)?)?;
    set("__slots__", &Obj::tuple([])?)?;
    set(
        "__doc__",
        &Obj::str("The protocol of a child with streams: feeds a `StreamReader` for each pipe.")?,
    )?;
    let bases = Obj::tuple([
        native,
        stdlib::flow_control_mixin()?.clone(),
        stdlib::subprocess_protocol()?.clone(),
    ])?;
    let class = Obj::import("builtins")?.getattr_str("type")?.call([
        &Obj::str("SubprocessStreamProtocol")?,
        &bases,
        &namespace,
    ])?;
    OVERRIDABLE.remember(&class)?;
    CLASS.set_usual_subclass(&class);
    VISIBLE.set(&class);
    Ok(class)
}
