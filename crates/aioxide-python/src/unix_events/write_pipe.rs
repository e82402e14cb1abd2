//! The write end of a pipe. Answers `_UnixWritePipeTransport` of `asyncio/unix_events.py`.
//!
//! The selector watches the pipe for reading, too: that is how it tells that the other end was closed.

use std::cell::{Cell, RefCell};

use aioxide_engine::socket;
use aioxide_engine::write_buffer::WriteBuffer;

use crate::events::{Direction, EventLoop, JobBody, method_of};
use crate::ffi::{
    Buffer, Builtin, Class, ClassBuilder, Layout, Native, Obj, PyRes, Ref, Slot, Visit, finally,
    os_error_instance,
};
use crate::selector_events::common::{
    Chunk, Parts, Transport, begin, close_unclosed, count_lost_write, first_words, has_open_loop,
    is_bytes_like, is_os_error, log_in_debug, methods, report_fatal, run_ready,
    schedule_connection_lost, unwatch, watch, would_wait,
};
use crate::selector_events::flow_control::{
    Buffered, WaterMarks, flow_methods, maybe_pause, maybe_resume,
};
use crate::{names, stdlib};

use super::{FileKind, PipeTransport, open, pipe_methods};

/// What became of data given to `write`.
enum Accepted {
    /// All of it is written.
    Done,
    /// The rest of it waits.
    Buffered,
    /// There is nobody to write it to.
    Lost,
}

/// A transport that writes to a pipe.
pub(crate) struct WritePipeTransport {
    /// What every transport has.
    parts: Parts,
    /// The file object, until the connection is lost.
    pipe: Slot,
    /// What waits to be written.
    pending: RefCell<WriteBuffer<Chunk>>,
    /// The water marks.
    marks: WaterMarks,
    /// Is `connection_lost` on its way?
    ending: Cell<bool>,
}

/// Where the class is kept.
static WRITE_PIPE: Class<WritePipeTransport> = Class::new();

impl Native for WritePipeTransport {
    const LAYOUT: Layout = Layout::Transport;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &WRITE_PIPE
    }

    fn empty() -> Self {
        Self {
            parts: Parts::empty(),
            pipe: Slot::empty(),
            pending: RefCell::new(WriteBuffer::new()),
            marks: WaterMarks::new(),
            ending: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.parts.traverse(visit);
        self.marks.traverse(visit);
        visit.slot(&self.pipe);
    }

    fn clear(&self) {
        self.parts.clear();
        self.marks.clear();
        self.pipe.clear();
    }

    fn needs_finalizer(&self) -> bool {
        self.pipe.is_some()
    }

    fn finalize(this: &Ref<Self>) {
        close_unclosed(this, this.pipe.get());
    }
}

impl Transport for WritePipeTransport {
    fn parts(&self) -> &Parts {
        &self.parts
    }
}

impl Buffered for WritePipeTransport {
    fn marks(&self) -> &WaterMarks {
        &self.marks
    }

    fn buffered(&self) -> usize {
        self.pending.borrow().len()
    }
}

impl PipeTransport for WritePipeTransport {
    fn pipe(&self) -> &Slot {
        &self.pipe
    }

    /// `_fatal_error`.
    fn fatal_error(this: &Ref<Self>, exception: &Obj, message: &str) -> PyRes<()> {
        finally(
            report_fatal(this, exception, message, is_os_error(exception)),
            || this.end(Some(exception)),
        )
    }
}

/// Makes a transport that writes to `pipe`, a file object of a pipe, socket or character device, and schedules
/// `connection_made`, then the waiter.
pub(crate) fn make_write_pipe_transport(
    loop_: &Ref<EventLoop>,
    pipe: &Obj,
    protocol: &Obj,
    waiter: Option<&Obj>,
    extra: Option<&Obj>,
) -> PyRes<Ref<WritePipeTransport>> {
    let opened = open(
        pipe,
        extra,
        "Pipe transport is only for pipes, sockets and character devices",
    )?;
    let empty = WritePipeTransport::empty();
    let this = Ref::new(WritePipeTransport {
        parts: Parts::new(loop_, opened.fd, protocol, opened.extra)?,
        pipe: Slot::new(pipe.clone()),
        ..empty
    })?;
    let start = notices_end(opened.kind).then(names::start_reading);
    begin(&this, start, waiter)?;
    Ok(this)
}

/// Can the selector tell that the other end was closed? On Apple's systems a named pipe counts as readable while there
/// are bytes in it, and says nothing when its reader goes.
fn notices_end(kind: FileKind) -> bool {
    match kind {
        FileKind::Socket => true,
        FileKind::Pipe { named } => !(named && cfg!(target_vendor = "apple")),
        FileKind::Device => false,
    }
}

impl Ref<WritePipeTransport> {
    /// Has the selector watch for the end of the other side.
    fn start_reading(&self) -> PyRes<()> {
        // Differs: asyncio does so for a transport that was closed in `connection_made`, too, and leaves it so.
        if self.ending.get() {
            return Ok(());
        }
        watch(self, Direction::Read, read_ready)
    }

    /// The other end was closed (or it sent something, which nobody does to a pipe).
    fn closed_by_peer(&self) -> PyRes<()> {
        log_in_debug(self, names::info(), "%r was closed by peer")?;
        if self.buffered() == 0 {
            return self.end(None);
        }
        let broken = stdlib::broken_pipe_error()?.call([])?;
        self.end(Some(&broken))
    }

    /// `write`.
    fn write(&self, data: &Obj) -> PyRes<()> {
        if !is_bytes_like(data) {
            return Err(Builtin::Assertion.raise(&data.repr()?));
        }
        let accepted = if data.is_exact_bytes() {
            self.accept(data.as_bytes().unwrap_or(&[]), Some(data))
        } else {
            match Buffer::readable(data) {
                Ok(view) => self.accept(view.as_slice(), None),
                Err(raised) => return self.write_failed(&raised.take()),
            }
        };
        // From here on Python code may run: the caller's buffer is neither borrowed nor looked at any more.
        match accepted {
            Ok(Accepted::Done) => Ok(()),
            Ok(Accepted::Lost) => count_lost_write(
                &self.parts.conn_lost,
                "pipe closed by peer or os.write(pipe, data) raised exception.",
            ),
            Ok(Accepted::Buffered) => {
                if !self.parts.writing.get() {
                    watch(self, Direction::Write, write_ready)?;
                }
                maybe_pause(self)
            }
            Err(error) => self.write_failed(&os_error_instance(&error)?),
        }
    }

    /// Writes what the pipe takes and keeps the rest: `whole`, if that is an exact `bytes`, else a copy, so that what is
    /// done to the caller's buffer later is not written.
    fn accept(&self, bytes: &[u8], whole: Option<&Obj>) -> std::io::Result<Accepted> {
        if bytes.is_empty() {
            return Ok(Accepted::Done);
        }
        if self.parts.conn_lost.get() > 0 || self.parts.closing.get() {
            return Ok(Accepted::Lost);
        }
        let mut written = 0;
        if self.buffered() == 0 {
            match socket::write(self.parts.fd.get(), bytes) {
                Ok(count) if count == bytes.len() => return Ok(Accepted::Done),
                Ok(count) => written = count,
                Err(error) if would_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut pending = self.pending.borrow_mut();
        match whole {
            // The buffer was empty if anything is written.
            Some(whole) => {
                let refused = pending.push(Chunk(whole.clone()));
                pending.advance(written);
                drop((pending, refused));
            }
            None => pending.push_copy(&bytes[written..]),
        }
        Ok(Accepted::Buffered)
    }

    /// Drops what waits to be written.
    fn forget_pending(&self) {
        let pending = self.pending.replace(WriteBuffer::new());
        drop(pending);
    }

    /// An attempt to write failed for good.
    fn write_failed(&self, exception: &Obj) -> PyRes<()> {
        self.parts.conn_lost.set(self.parts.conn_lost.get() + 1);
        WritePipeTransport::fatal_error(self, exception, "Fatal write error on pipe transport")
    }

    /// Writes what waits, as far as there is room.
    fn write_pending(&self) -> PyRes<()> {
        let written = {
            let pending = self.pending.borrow();
            if pending.is_empty() {
                Ok(0)
            } else {
                pending.peek(|pieces| pieces.write(self.parts.fd.get()))
            }
        };
        match written {
            Ok(count) => self.pending.borrow_mut().advance(count),
            Err(error) if would_wait(&error) => return Ok(()),
            Err(error) => {
                self.forget_pending();
                unwatch(self, Direction::Write)?;
                return self.write_failed(&os_error_instance(&error)?);
            }
        }
        if self.buffered() > 0 {
            return Ok(());
        }
        unwatch(self, Direction::Write)?;
        maybe_resume(self)?;
        // The protocol may have written more, or ended it all.
        if self.parts.closing.get() && !self.ending.get() && self.buffered() == 0 {
            self.ending.set(true);
            unwatch(self, Direction::Read)?;
            return WritePipeTransport::lose(self, None);
        }
        Ok(())
    }

    /// `write_eof`: closes once everything is written.
    fn write_eof(&self) -> PyRes<()> {
        if self.parts.closing.replace(true) || self.buffered() > 0 {
            return Ok(());
        }
        self.end(None)
    }

    /// `_close`: what waits to be written is dropped, and `connection_lost` follows, once.
    fn end(&self, exception: Option<&Obj>) -> PyRes<()> {
        self.parts.closing.set(true);
        if self.ending.replace(true) {
            return Ok(());
        }
        self.forget_pending();
        unwatch(self, Direction::Write)?;
        unwatch(self, Direction::Read)?;
        schedule_connection_lost(self, exception)
    }

    /// The repr.
    fn repr_text(&self) -> String {
        let mut words = first_words(self, &self.pipe);
        if self.pipe.is_none() {
            words.push(String::from("closed"));
        } else if has_open_loop(self) {
            let state = if self.parts.writing.get() {
                "polling"
            } else {
                "idle"
            };
            words.push(String::from(state));
            words.push(format!("bufsize={}", self.buffered()));
        } else {
            words.push(String::from("open"));
        }
        format!("<{}>", words.join(" "))
    }
}

/// The job of a pipe whose other end was closed.
fn read_ready(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match WRITE_PIPE.cast(&object) {
        Some(this) if this.parts.reading.get() => {
            run_ready(loop_, this, names::read_ready(), Ref::closed_by_peer)
        }
        _ => Ok(()),
    }
}

/// The job of a pipe with room to write.
fn write_ready(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match WRITE_PIPE.cast(&object) {
        Some(this) if this.parts.writing.get() => {
            run_ready(loop_, this, names::write_ready(), Ref::write_pending)
        }
        _ => Ok(()),
    }
}

/// The method that asyncio would have called for a job of this file.
pub(super) fn ready_method(body: JobBody) -> Option<&'static Obj> {
    method_of(
        body,
        &[
            (read_ready, names::read_ready),
            (write_ready, names::write_ready),
        ],
    )
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    let builder = ClassBuilder::<WritePipeTransport>::new(
        "asyncio.unix_events",
        "_UnixWritePipeTransport",
        "A transport that writes to a pipe.",
    )
    // asyncio's is a `Transport`, not a `WriteTransport` alone, since it shares a base with that of streams.
    .base(stdlib::transport()?.clone())
    .sealed()
    .repr(|this| Ok(this.repr_text()));
    let builder = private(flow_methods(pipe_methods(methods(builder))));
    builder
        .method(
            "write(self, data)",
            "Writes data, now or when there is room.",
            |this, args| this.write(args.req(0)),
        )
        .method("can_write_eof(self)", "Yes.", |_, _| Ok(true))
        .method(
            "write_eof(self)",
            "Closes the pipe once everything is written.",
            |this, _| this.write_eof(),
        )
        .method(
            "close(self)",
            "Closes the pipe once everything is written.",
            |this, _| this.write_eof(),
        )
        .method(
            "abort(self)",
            "Closes the pipe; what waits to be written is lost.",
            |this, _| this.end(None),
        )
        .build()
        .map(drop)
}

/// Adds the private methods and attributes.
fn private(builder: ClassBuilder<WritePipeTransport>) -> ClassBuilder<WritePipeTransport> {
    builder
        .method(
            "_start_reading(self)",
            "Begins to watch for the end of the other side.",
            |this, _| this.start_reading(),
        )
        .method(
            "_read_ready(self)",
            "The other end was closed.",
            |this, _| this.closed_by_peer(),
        )
        .method(
            "_write_ready(self)",
            "Writes what waits to be written.",
            |this, _| this.write_pending(),
        )
        .method(
            "_close(self, exc=None)",
            "Closes the transport because of an error.",
            |this, args| this.end(args.some(0)),
        )
        .getter("_buffer", |this| {
            let bytes = this.pending.borrow().to_vec();
            stdlib::bytearray()?.call([&Obj::bytes(&bytes)?])
        })
}
