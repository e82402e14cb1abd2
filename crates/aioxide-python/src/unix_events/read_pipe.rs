//! The read end of a pipe. Answers `_UnixReadPipeTransport` of `asyncio/unix_events.py`.

use std::cell::Cell;

use aioxide_engine::socket;

use crate::events::{Direction, EventLoop, JobBody, method_of};
use crate::ffi::{
    Class, ClassBuilder, Layout, Native, Obj, PyRes, Ref, Slot, Visit, finally, os_error_instance,
};
use crate::selector_events::common::{
    Parts, Reading, Transport, begin, call_soon, close_unclosed, first_words, has_open_loop,
    is_os_error, log_in_debug, methods, reading_methods, report_fatal, run_ready,
    schedule_connection_lost, unwatch, would_wait,
};
use crate::streams::{self, StreamReader};
use crate::{base_subprocess, names, stdlib};

use super::{PipeTransport, open, pipe_methods};

/// A transport that reads from a pipe.
pub(crate) struct ReadPipeTransport {
    /// What every transport has.
    parts: Parts,
    /// The file object, until the connection is lost.
    pipe: Slot,
    /// Was reading paused?
    paused: Cell<bool>,
    /// Is `connection_lost` on its way?
    ending: Cell<bool>,
}

/// Where the class is kept.
static READ_PIPE: Class<ReadPipeTransport> = Class::new();

impl Native for ReadPipeTransport {
    const LAYOUT: Layout = Layout::Transport;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &READ_PIPE
    }

    fn empty() -> Self {
        Self {
            parts: Parts::empty(),
            pipe: Slot::empty(),
            paused: Cell::new(false),
            ending: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.parts.traverse(visit);
        visit.slot(&self.pipe);
    }

    fn clear(&self) {
        self.parts.clear();
        self.pipe.clear();
    }

    fn needs_finalizer(&self) -> bool {
        self.pipe.is_some()
    }

    fn finalize(this: &Ref<Self>) {
        close_unclosed(this, this.pipe.get());
    }
}

impl Transport for ReadPipeTransport {
    fn parts(&self) -> &Parts {
        &self.parts
    }
}

impl Reading for ReadPipeTransport {
    const READ_READY: JobBody = read_ready;

    fn paused(&self) -> &Cell<bool> {
        &self.paused
    }
}

impl PipeTransport for ReadPipeTransport {
    fn pipe(&self) -> &Slot {
        &self.pipe
    }

    /// `_fatal_error`. The end of a terminal (EIO) is nothing to report.
    fn fatal_error(this: &Ref<Self>, exception: &Obj, message: &str) -> PyRes<()> {
        let number = Obj::import("errno")?.getattr_str("EIO")?;
        let is_usual = is_os_error(exception) && exception.getattr_str("errno")?.equals(&number)?;
        finally(report_fatal(this, exception, message, is_usual), || {
            this.end(Some(exception))
        })
    }
}

/// Makes a transport that reads from `pipe`, a file object of a pipe, socket or character device, and schedules
/// `connection_made`, then the waiter.
pub(crate) fn make_read_pipe_transport(
    loop_: &Ref<EventLoop>,
    pipe: &Obj,
    protocol: &Obj,
    waiter: Option<&Obj>,
    extra: Option<&Obj>,
) -> PyRes<Ref<ReadPipeTransport>> {
    let opened = open(pipe, extra, "Pipe transport is for pipes/sockets only.")?;
    let empty = ReadPipeTransport::empty();
    let this = Ref::new(ReadPipeTransport {
        parts: Parts::new(loop_, opened.fd, protocol, opened.extra)?,
        pipe: Slot::new(pipe.clone()),
        ..empty
    })?;
    begin(&this, Some(names::start_reading()), waiter)?;
    Ok(this)
}

impl Ref<ReadPipeTransport> {
    /// Reads what there is.
    fn receive(&self) -> PyRes<()> {
        let (Some(loop_), Some(protocol)) = (self.parts.loop_.get(), self.parts.protocol.get())
        else {
            return Ok(());
        };
        let reader =
            streams::direct_reader(&protocol).or_else(|| base_subprocess::direct_reader(&protocol));
        match reader {
            Some(reader) => self.receive_stream(&loop_, &reader),
            None => self.receive_data(&loop_, &protocol),
        }
    }

    /// Reads for a stream reader.
    fn receive_stream(&self, loop_: &Ref<EventLoop>, reader: &Ref<StreamReader>) -> PyRes<()> {
        let fd = self.parts.fd.get();
        let received = loop_.with_read_buffer(|buffer| {
            socket::read(fd, buffer)
                .map(|size| (size > 0).then(|| streams::feed(reader, &buffer[..size])))
        });
        match received {
            Ok(Some(fed)) => fed,
            Ok(None) => self.end_of_file(),
            Err(error) => self.receive_failed(&error),
        }
    }

    /// Reads for `data_received`.
    fn receive_data(&self, loop_: &Ref<EventLoop>, protocol: &Obj) -> PyRes<()> {
        let fd = self.parts.fd.get();
        let received = loop_.with_read_buffer(|buffer| {
            socket::read(fd, buffer).map(|size| (size > 0).then(|| Obj::bytes(&buffer[..size])))
        });
        match received {
            Ok(Some(data)) => protocol.method(names::data_received(), [&data?]).map(drop),
            Ok(None) => self.end_of_file(),
            Err(error) => self.receive_failed(&error),
        }
    }

    /// There was nothing to read after all, or the pipe is broken.
    fn receive_failed(&self, error: &std::io::Error) -> PyRes<()> {
        if would_wait(error) {
            return Ok(());
        }
        ReadPipeTransport::fatal_error(
            self,
            &os_error_instance(error)?,
            "Fatal read error on pipe transport",
        )
    }

    /// The other end was closed.
    fn end_of_file(&self) -> PyRes<()> {
        log_in_debug(self, names::info(), "%r was closed by peer")?;
        self.parts.closing.set(true);
        self.ending.set(true);
        unwatch(self, Direction::Read)?;
        let eof_received = self
            .parts
            .protocol
            .get_or_none()
            .getattr(names::eof_received())?;
        call_soon(self, &eof_received, &[])?;
        schedule_connection_lost(self, None)
    }

    /// `_close`: nothing more is read, and `connection_lost` follows, once.
    fn end(&self, exception: Option<&Obj>) -> PyRes<()> {
        self.parts.closing.set(true);
        if self.ending.replace(true) {
            return Ok(());
        }
        unwatch(self, Direction::Read)?;
        schedule_connection_lost(self, exception)
    }

    /// The repr.
    fn repr_text(&self) -> String {
        let mut words = first_words(self, &self.pipe);
        words.push(String::from(if self.pipe.is_none() {
            "closed"
        } else if !has_open_loop(self) {
            "open"
        } else if self.parts.reading.get() {
            "polling"
        } else {
            "idle"
        }));
        format!("<{}>", words.join(" "))
    }
}

/// The job of a pipe with something to read.
fn read_ready(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match READ_PIPE.cast(&object) {
        Some(this) if this.parts.reading.get() => {
            run_ready(loop_, this, names::read_ready(), Ref::receive)
        }
        _ => Ok(()),
    }
}

/// The method that asyncio would have called for a job of this file.
pub(super) fn ready_method(body: JobBody) -> Option<&'static Obj> {
    method_of(body, &[(read_ready, names::read_ready)])
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    let builder = ClassBuilder::<ReadPipeTransport>::new(
        "asyncio.unix_events",
        "_UnixReadPipeTransport",
        "A transport that reads from a pipe.",
    )
    .base(stdlib::read_transport()?.clone())
    .sealed()
    .repr(|this| Ok(this.repr_text()))
    .attribute("max_size", Obj::int(256 * 1024)?);
    private(reading_methods(pipe_methods(methods(builder))))
        .method("close(self)", "Closes the transport.", |this, _| {
            if this.parts.closing.get() {
                return Ok(());
            }
            this.end(None)
        })
        .build()
        .map(drop)
}

/// Adds the private methods and attributes.
fn private(builder: ClassBuilder<ReadPipeTransport>) -> ClassBuilder<ReadPipeTransport> {
    builder
        .method("_read_ready(self)", "Reads what there is.", |this, _| {
            this.receive()
        })
        .method(
            "_close(self, exc)",
            "Closes the transport because of an error.",
            |this, args| this.end(args.some(0)),
        )
}
