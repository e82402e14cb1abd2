//! The transport of a stream socket. Answers `_SelectorTransport` and `_SelectorSocketTransport` of
//! `asyncio/selector_events.py`.
//!
//! Reading: one `recv` for each event, or two if the first one had too little room, into a buffer of the loop, then an
//! exact `bytes` for the protocol. Writing: what a job writes is collected and leaves in one system call when the job is
//! over, see [`Ref::write`]; asyncio sends each write at once. Whoever could tell the difference flushes first: `close`,
//! `abort`, `write_eof`, `get_write_buffer_size`, a look at the socket, a fork. So does a buffer above a high-water mark
//! that somebody set below the default, to hear of it, and one with as much as a system call is worth. What is written
//! while no job runs, as by a signal handler that interrupts the wait, leaves at once.
//!
//! // Differs: with the default marks the protocol is told to pause when the job ends, or at 512 KiB, or when somebody looks:
//! by `set_protocol`, `set_write_buffer_limits` or `_protocol_paused`, and, until the socket has once taken so much at once,
//! by `is_closing`, that is, `drain()`.
//!
//! System calls are made on the descriptor that the socket object has at that moment: if it was closed behind our back, the
//! number may be somebody else's. For the same reason a registration is only taken back while it is ours.
//!
//! // Differs: a chunk is a snapshot. asyncio keeps a reference to a `bytearray` that it could not send at once, and
//! sends what stands there later.
//!
//! Every callback runs in the transport's own context, as in 3.15, on all versions.
//!
//! Invariants: `watched` is true while the selector calls [`write_ready`], which is while bytes wait for room in the
//! socket; `deferred` while the loop will call [`flush_job`]; at most one of them. No borrow of the buffer is alive
//! while Python code can run: it holds exact `bytes` and copies alone.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use aioxide_engine::socket::{self, Address};
use aioxide_engine::write_buffer::WriteBuffer;

use crate::addresses::to_python;
use crate::events::{
    Direction, EventLoop, Handle, JobBody, LoopRef, READ_BUFFER, leaves_the_loop, method_of,
    run_handle,
};
use crate::ffi::{
    Buffer, Builtin, Class, ClassBuilder, Layout, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    finally, in_context, os_error, os_error_instance, warn_resource, while_handling,
};
use crate::sslproto::{self, SSLProtocol};
use crate::streams::{
    DirectTransport, direct_reader, feed, is_stream_protocol, set_direct_transport,
};
use crate::waiter::{create_future, is_cancelled, set_exception, set_result};
use crate::{names, stdlib};

use super::common::{
    Chunk, Link, count_lost_write, is_bytes_like, is_os_error, log_in_debug, name_of, report_fatal,
    report_ready_error,
};
use super::flow_control::{Buffered, WaterMarks, maybe_pause, maybe_resume};

/// What a job wrote is sent before its end if it is so much.
///
/// Perf: "send, protocol", "TLS send, protocol". Each call wakes the peer, which costs the sender more than a call: with
/// half of this a MiB takes a fifth more time, with twice as much as long.
const FLUSH_AT: usize = 512 * 1024;

/// How the protocol takes what arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// By `data_received`.
    Data,
    /// By `get_buffer` and `buffer_updated`.
    Buffered,
    /// Into the buffer of its stream reader, unless a method on the way is overridden.
    Stream,
    /// As encrypted bytes, unless a method on the way is overridden.
    Tls,
}

/// The size of the smallest read that a transport makes room for in advance, instead of copying it from the loop's buffer.
const LARGE_READ: usize = 32 * 1024;

/// How often an event is followed by `recv`, as long as there may be more: so asyncio's 256 KiB are taken at most.
const RECEIVES: usize = 2;

/// A transport's names, looked up when it was made.
struct Ends {
    /// The socket's own address.
    sockname: Option<Address>,
    /// The peer's.
    peername: Option<Address>,
}

/// A stream transport.
pub(crate) struct StreamTransport {
    /// The loop; empty after `connection_lost`.
    loop_: Slot<Ref<EventLoop>>,
    /// The socket; empty once it is closed, and before somebody asks for that of an accepted connection.
    sock: Slot,
    /// The descriptor of an accepted connection, until there is a socket that owns it.
    owned: RefCell<Option<OwnedFd>>,
    /// The socket's descriptor, also when it is closed.
    fd: Cell<i32>,
    /// Can the socket be asked for its descriptor without a call?
    plain: Cell<bool>,
    /// The protocol; empty after `connection_lost`.
    protocol: Slot,
    /// Is there a protocol to tell of the loss?
    protocol_connected: Cell<bool>,
    /// How the protocol takes data.
    delivery: Cell<Delivery>,
    /// What `get_extra_info` knows, once somebody asked.
    extra: Slot,
    /// The addresses for `extra`, until it is made.
    ends: RefCell<Option<Box<Ends>>>,
    /// The context of every callback.
    context: Slot,
    /// The server that accepted the connection.
    server: Slot,
    /// What is still to be sent.
    buffer: RefCell<WriteBuffer<Chunk>>,
    /// Does the selector wait for room in the socket?
    watched: Cell<bool>,
    /// Does the loop know that there is something to flush?
    deferred: Cell<bool>,
    /// The water marks of the buffer.
    marks: WaterMarks,
    /// Has the socket ever taken all at once of what was above the high mark?
    took_much: Cell<bool>,
    /// 0 while connected; then how often somebody wrote since, and one.
    conn_lost: Cell<u32>,
    /// Was `close` called, or did it fail?
    closing: Cell<bool>,
    /// Was `pause_reading` called?
    paused: Cell<bool>,
    /// Was `write_eof` called?
    eof: Cell<bool>,
    /// How much the last read brought.
    last_read: Cell<usize>,
    /// What `sendfile` waits for: an empty buffer.
    empty_waiter: Slot,
}

/// Where the class is kept.
static CLASS: Class<StreamTransport> = Class::new();

impl Native for StreamTransport {
    const LAYOUT: Layout = Layout::Transport;
    const FREELIST: usize = 64;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
            sock: Slot::empty(),
            owned: RefCell::new(None),
            fd: Cell::new(-1),
            plain: Cell::new(false),
            protocol: Slot::empty(),
            protocol_connected: Cell::new(false),
            delivery: Cell::new(Delivery::Data),
            extra: Slot::empty(),
            ends: RefCell::new(None),
            context: Slot::empty(),
            server: Slot::empty(),
            buffer: RefCell::new(WriteBuffer::new()),
            watched: Cell::new(false),
            deferred: Cell::new(false),
            marks: WaterMarks::new(),
            took_much: Cell::new(false),
            conn_lost: Cell::new(0),
            closing: Cell::new(false),
            paused: Cell::new(false),
            eof: Cell::new(false),
            last_read: Cell::new(0),
            empty_waiter: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
        visit.slot(&self.sock);
        visit.slot(&self.protocol);
        visit.slot(&self.extra);
        visit.slot(&self.context);
        visit.slot(&self.server);
        visit.slot(&self.empty_waiter);
        self.marks.traverse(visit);
    }

    fn clear(&self) {
        self.protocol.clear();
        self.extra.clear();
        self.context.clear();
        self.server.clear();
        self.empty_waiter.clear();
        self.marks.clear();
        self.loop_.clear();
        self.sock.clear();
    }

    fn needs_finalizer(&self) -> bool {
        self.is_open()
    }

    fn finalize(this: &Ref<Self>) {
        // The collector asks for every object.
        if !this.is_open() {
            return;
        }
        let warned = this
            .obj()
            .repr()
            .and_then(|repr| warn_resource(this.obj(), &format!("unclosed transport {repr}"), 1));
        if let Err(raised) = warned {
            raised.write_unraisable(Some(this.obj()));
        }
        let ended = this.close_socket().and_then(|()| this.detach_server());
        if let Err(raised) = ended {
            raised.write_unraisable(Some(this.obj()));
        }
    }
}

impl StreamTransport {
    /// Is the socket still open?
    fn is_open(&self) -> bool {
        self.sock.is_some() || self.owned.borrow().is_some()
    }
}

impl Link for StreamTransport {
    fn loop_slot(&self) -> &Slot<Ref<EventLoop>> {
        &self.loop_
    }

    fn protocol_slot(&self) -> &Slot {
        &self.protocol
    }
}

impl Buffered for StreamTransport {
    fn marks(&self) -> &WaterMarks {
        &self.marks
    }

    #[inline]
    fn buffered(&self) -> usize {
        self.buffer.borrow().len()
    }
}

/// Makes the transport of a connected stream socket (asyncio's `_make_socket_transport`).
///
/// `connection_made` is called in the next turn, in `context`, then reading begins, then `waiter` gets `None`. `extra`
/// is what `get_extra_info` is to know besides; `server` is told of the transport.
pub(crate) fn make_socket_transport(
    loop_: &Ref<EventLoop>,
    sock: &Obj,
    protocol: &Obj,
    waiter: Option<&Obj>,
    extra: Option<&Obj>,
    server: Option<&Obj>,
    context: Obj,
) -> PyRes {
    let fd = i32::try_from(sock.method(names::fileno(), [])?.as_i64()?).unwrap_or(-1);
    let plain = sock.class().is_subtype_of(stdlib::c_socket_class()?)
        && sock.descriptor_in_socket() == Some(fd);
    let this = Ref::new(StreamTransport {
        loop_: Slot::new(loop_.clone()),
        sock: Slot::new(sock.clone()),
        fd: Cell::new(fd),
        plain: Cell::new(plain),
        context: Slot::new(context),
        server: server.map_or_else(Slot::empty, |server| Slot::new(server.clone())),
        ..StreamTransport::empty()
    })?;
    this.note_names(sock, extra)?;
    this.start(loop_, protocol, waiter)?;
    Ok(this.into_obj())
}

/// Makes the transport of a connection that was just accepted, without a socket object: it is made when somebody asks.
pub(crate) fn make_accepted_transport(
    loop_: &Ref<EventLoop>,
    connection: OwnedFd,
    peername: Option<Address>,
    protocol: &Obj,
    server: Option<&Obj>,
    context: Obj,
) -> PyRes<()> {
    let fd = connection.as_raw_fd();
    let ends = Ends {
        sockname: socket::local_address(fd).ok().flatten(),
        peername,
    };
    let this = Ref::new(StreamTransport {
        loop_: Slot::new(loop_.clone()),
        owned: RefCell::new(Some(connection)),
        fd: Cell::new(fd),
        ends: RefCell::new(Some(Box::new(ends))),
        context: Slot::new(context),
        server: server.map_or_else(Slot::empty, |server| Slot::new(server.clone())),
        ..StreamTransport::empty()
    })?;
    this.start(loop_, protocol, None)
}

/// Is it a transport of this file?
pub(crate) fn is_stream_transport(object: &Obj) -> bool {
    CLASS.cast(object).is_some()
}

impl Ref<StreamTransport> {
    /// The loop of a transport that is not over.
    fn current_loop(&self) -> PyRes<Ref<EventLoop>> {
        self.loop_
            .get()
            .ok_or_else(|| Raised::runtime_error("the transport is closed"))
    }

    /// What every new transport begins with.
    fn start(&self, loop_: &Ref<EventLoop>, protocol: &Obj, waiter: Option<&Obj>) -> PyRes<()> {
        self.set_protocol(protocol)?;
        if let Some(server) = self.server.get() {
            server.method(names::attach(), [self.obj()])?;
        }
        loop_.note_transport(self.fd.get(), self.obj())?;
        // Small writes are sent at once. Fails for other sockets than those of TCP, which do so anyway.
        let _ = socket::set_nodelay(self.fd.get());
        self.call_soon(
            loop_,
            &protocol.getattr(names::connection_made())?,
            &[self.obj().clone()],
        )?;
        if waiter.is_none() && loop_.is_direct() {
            loop_.push(begin_job, self.obj().clone());
            return Ok(());
        }
        let waiter = waiter.cloned().unwrap_or_else(Obj::none);
        let begin = self.obj().getattr(names::private_begin())?;
        self.call_soon(loop_, &begin, &[waiter])
    }

    /// The socket, made now if nobody needed it before; `None` once it is closed.
    fn current_sock(&self) -> PyRes<Option<Obj>> {
        if self.owned.borrow().is_none() {
            return Ok(self.sock.get());
        }
        let fd = Obj::int(self.fd.get().into())?;
        let sock = stdlib::socket_class()?.call_kw(&[], &[(names::fileno(), &fd)])?;
        // It owns the descriptor from now on; to make it may have run any code, which may have been here.
        if let Some(connection) = self.owned.borrow_mut().take() {
            let fd = connection.into_raw_fd();
            self.plain.set(sock.descriptor_in_socket() == Some(fd));
            self.sock.set(sock.clone());
        } else {
            sock.method(names::socket_detach(), [])?;
            return Ok(self.sock.get());
        }
        sock.method(names::setblocking(), [&Obj::bool(false)])?;
        Ok(Some(sock))
    }

    /// Closes the socket.
    fn close_socket(&self) -> PyRes<()> {
        let connection = self.owned.borrow_mut().take();
        drop(connection);
        match self.sock.take() {
            Some(sock) => sock.method(names::close(), []).map(drop),
            None => Ok(()),
        }
    }

    /// The protocol as an object.
    fn current_protocol(&self) -> Obj {
        self.protocol.get_or_none()
    }

    /// The transport's context.
    fn current_context(&self) -> PyRes {
        self.context
            .get()
            .map_or_else(crate::ffi::copy_current_context, Ok)
    }

    /// `loop.call_soon(callback, *args, context=self._context)`.
    fn call_soon(&self, loop_: &Ref<EventLoop>, callback: &Obj, args: &[Obj]) -> PyRes<()> {
        let context = self.current_context()?;
        if loop_.is_direct() {
            let handle = Ref::new(Handle::payload(callback, args, context, loop_.obj())?)?;
            loop_.push(run_handle, handle.into_obj());
            return Ok(());
        }
        let args: Vec<&Obj> = args.iter().collect();
        LoopRef::Native(loop_.clone())
            .call_soon(callback, &args, Some(&context))
            .map(drop)
    }

    /// Reading begins, now that `connection_made` has been called; then whoever waits for the connection is told.
    fn begin(&self, waiter: &Obj) -> PyRes<()> {
        let watched = match self.loop_.get() {
            Some(loop_) if self.is_reading() => self.watch_reading(&loop_),
            _ => Ok(()),
        };
        finally(watched, || {
            if !waiter.is_none() && !is_cancelled(waiter)? {
                set_result(waiter, Obj::none())?;
            }
            Ok(())
        })
    }

    /// The descriptor for a system call: -1 if the socket was closed behind our back, when the number may be somebody
    /// else's.
    #[inline]
    fn descriptor(&self) -> i32 {
        if !self.plain.get() {
            return self.fd.get();
        }
        self.sock
            .get()
            .and_then(|sock| sock.descriptor_in_socket())
            .unwrap_or(-1)
    }

    /// Has the selector call [`read_ready`].
    fn watch_reading(&self, loop_: &Ref<EventLoop>) -> PyRes<()> {
        loop_.watch(
            self.fd.get(),
            Direction::Read,
            read_ready,
            self.obj().clone(),
        )
    }

    /// Ends [`Self::watch_reading`].
    fn unwatch_reading(&self) -> PyRes<()> {
        match self.loop_.get() {
            Some(loop_) => loop_.unwatch_own(self.fd.get(), Direction::Read, self.obj()),
            None => Ok(()),
        }
    }

    /// Has the selector call [`write_ready`] when there is room in the socket.
    fn watch_writing(&self, loop_: &Ref<EventLoop>) -> PyRes<()> {
        if self.watched.get() {
            return Ok(());
        }
        loop_.watch(
            self.fd.get(),
            Direction::Write,
            write_ready,
            self.obj().clone(),
        )?;
        self.watched.set(true);
        Ok(())
    }

    /// Ends [`Self::watch_writing`].
    fn unwatch_writing(&self) -> PyRes<()> {
        if !self.watched.replace(false) {
            return Ok(());
        }
        match self.loop_.get() {
            Some(loop_) => loop_.unwatch_own(self.fd.get(), Direction::Write, self.obj()),
            None => Ok(()),
        }
    }

    // What is known of the connection.

    /// Keeps what `get_extra_info` will tell: the addresses, as long as they can be had.
    fn note_names(&self, sock: &Obj, extra: Option<&Obj>) -> PyRes<()> {
        let fd = self.fd.get();
        if extra.is_none() {
            let ends = (socket::local_address(fd), socket::peer_address(fd));
            // Of another family, Python may know more.
            if let (Ok(Some(_)), Ok(Some(_)) | Err(_)) = &ends {
                *self.ends.borrow_mut() = Some(Box::new(Ends {
                    sockname: ends.0.ok().flatten(),
                    peername: ends.1.ok().flatten(),
                }));
                return Ok(());
            }
        }
        let extra = extra.map_or_else(Obj::dict, |extra| Ok(extra.clone()))?;
        let wrapped = stdlib::transport_socket()?.call([sock])?;
        extra.set_item(names::socket(), &wrapped)?;
        extra.set_item(names::sockname(), &name_of(sock, names::getsockname())?)?;
        if !extra.contains(names::peername())? {
            extra.set_item(names::peername(), &name_of(sock, names::getpeername())?)?;
        }
        self.extra.set(extra);
        Ok(())
    }

    /// `_extra`: made when somebody asks.
    fn extra_dict(&self) -> PyRes {
        if let Some(extra) = self.extra.get() {
            return Ok(extra);
        }
        let extra = Obj::dict()?;
        let sock = match self.current_sock()? {
            Some(sock) => sock,
            None => closed_socket()?,
        };
        let wrapped = stdlib::transport_socket()?.call([&sock])?;
        extra.set_item(names::socket(), &wrapped)?;
        let ends = self.ends.borrow_mut().take();
        let (sockname, peername) = ends.map_or((None, None), |ends| (ends.sockname, ends.peername));
        extra.set_item(names::sockname(), &to_python(sockname.as_ref())?)?;
        extra.set_item(names::peername(), &to_python(peername.as_ref())?)?;
        self.extra.set(extra.clone());
        Ok(extra)
    }

    /// One of the addresses, as long as nobody needed the whole dict.
    fn known_end(&self, name: &Obj) -> PyRes<Option<Obj>> {
        let address = match self.ends.borrow().as_deref() {
            Some(ends) if name.is(names::peername()) => ends.peername.clone(),
            Some(ends) if name.is(names::sockname()) => ends.sockname.clone(),
            _ => return Ok(None),
        };
        to_python(address.as_ref()).map(Some)
    }

    /// `get_extra_info`.
    fn extra_info(&self, name: &Obj, default: Obj) -> PyRes {
        if let Some(address) = self.known_end(name)? {
            return Ok(address);
        }
        if name.equals(names::socket())? {
            // What was written before must not come after what the caller does with the socket.
            self.flush_now()?;
        }
        Ok(self.extra_dict()?.dict_get(name)?.unwrap_or(default))
    }

    /// `__repr__`.
    fn text(&self) -> String {
        let mut words = vec![self.obj().class_name()];
        if !self.is_open() {
            words.push(String::from("closed"));
        } else if self.closing.get() {
            words.push(String::from("closing"));
        }
        words.push(format!("fd={}", self.fd.get()));
        if let Some(loop_) = self.loop_.get()
            && !loop_.closed.get()
        {
            let word = |polling: bool| if polling { "polling" } else { "idle" };
            let reading = loop_.is_watched(self.fd.get(), Direction::Read);
            words.push(format!("read={}", word(reading)));
            let state = word(self.watched.get());
            let size = self.buffer.borrow().len();
            words.push(format!("write=<{state}, bufsize={size}>"));
        }
        format!("<{}>", words.join(" "))
    }

    // The protocol.

    /// `set_protocol`.
    fn set_protocol(&self, protocol: &Obj) -> PyRes<()> {
        // Who wrote too much is to hear of it, not who comes after.
        self.flush_now()?;
        self.delivery.set(if is_stream_protocol(protocol) {
            Delivery::Stream
        } else if SSLProtocol::class().is_exact(protocol) {
            Delivery::Tls
        } else if protocol.isinstance(stdlib::buffered_protocol()?)? {
            Delivery::Buffered
        } else {
            Delivery::Data
        });
        self.protocol.set(protocol.clone());
        self.protocol_connected.set(true);
        Ok(())
    }

    /// Deals with what a callback of the protocol raised: fatal, but for what leaves the loop.
    #[cold]
    fn failed(&self, raised: Raised, message: &str) -> PyRes<()> {
        if leaves_the_loop(&raised) {
            return Err(raised);
        }
        let exception = raised.take();
        while_handling(&exception, || self.fatal(&exception, message))
    }

    /// Runs what a descriptor's readiness calls for, in the transport's context. What is raised is reported as that of
    /// a handle for `method`, which asyncio would have called.
    #[inline]
    fn run_ready(
        &self,
        loop_: &Ref<EventLoop>,
        method: &Obj,
        body: impl FnOnce() -> PyRes<()>,
    ) -> PyRes<()> {
        let context = self.current_context()?;
        match in_context(&context, body) {
            Ok(()) => Ok(()),
            Err(raised) => report_ready_error(loop_, self.obj(), method, context, raised),
        }
    }

    /// `_fatal_error`: reports an error, unless the network made it, and closes without sending what is left.
    fn fatal(&self, exception: &Obj, message: &str) -> PyRes<()> {
        let reported = report_fatal(self, exception, message, is_os_error(exception));
        finally(reported, || self.force_close(Some(exception)))
    }

    // Reading.

    /// `is_reading`.
    fn is_reading(&self) -> bool {
        !self.closing.get() && !self.paused.get()
    }

    /// `pause_reading`.
    fn pause_reading(&self) -> PyRes<()> {
        if !self.is_reading() {
            return Ok(());
        }
        self.paused.set(true);
        self.unwatch_reading()?;
        log_in_debug(self, names::debug(), "%r pauses reading")
    }

    /// `resume_reading`.
    fn resume_reading(&self) -> PyRes<()> {
        if self.closing.get() || !self.paused.get() {
            return Ok(());
        }
        self.paused.set(false);
        self.watch_reading(&self.current_loop()?)?;
        log_in_debug(self, names::debug(), "%r resumes reading")
    }

    /// The descriptor can be read.
    #[inline]
    fn receive(&self, loop_: &Ref<EventLoop>) -> PyRes<()> {
        for _ in 0..RECEIVES {
            // The protocol may have closed or paused it, or be another one now.
            if self.conn_lost.get() != 0 || !self.is_reading() {
                break;
            }
            let was_full = match self.delivery.get() {
                Delivery::Data => self.receive_data(loop_)?,
                Delivery::Buffered => {
                    self.receive_into()?;
                    false
                }
                Delivery::Stream => self.receive_stream(loop_)?,
                Delivery::Tls => self.receive_encrypted(loop_)?,
            };
            if !was_full {
                break;
            }
        }
        Ok(())
    }

    /// Receives for TLS. Was all room used?
    #[inline]
    fn receive_encrypted(&self, loop_: &Ref<EventLoop>) -> PyRes<bool> {
        let protocol = self.current_protocol();
        let Some(tls) = sslproto::direct(&protocol) else {
            return self.receive_into().map(|()| false);
        };
        let received = loop_.with_read_buffer(|buffer| {
            let count = socket::recv(self.descriptor(), buffer)?;
            if count == 0 {
                return Ok(None);
            }
            let was_full = count == buffer.len();
            let taken = tls.received(&buffer[..count]);
            Ok::<_, std::io::Error>(Some(taken.map(|()| was_full)))
        });
        match received {
            Ok(Some(taken)) => taken
                .and_then(|was_full| tls.updated().map(|()| was_full))
                .or_else(|raised| {
                    self.failed(
                        raised,
                        "Fatal error: protocol.buffer_updated() call failed.",
                    )
                    .map(|()| false)
                }),
            Ok(None) => self.received_eof().map(|()| false),
            Err(error) => self.receive_failed(&error).map(|()| false),
        }
    }

    /// Receives for a stream reader. Was all room used?
    #[inline]
    fn receive_stream(&self, loop_: &Ref<EventLoop>) -> PyRes<bool> {
        let Some(reader) = self.protocol.get().as_ref().and_then(direct_reader) else {
            return self.receive_data(loop_);
        };
        let received = loop_.with_read_buffer(|buffer| {
            let count = socket::recv(self.descriptor(), buffer)?;
            if count == 0 {
                return Ok(None);
            }
            let was_full = count == buffer.len();
            let fed = feed(&reader, &buffer[..count]);
            Ok::<_, std::io::Error>(Some(fed.map(|()| was_full)))
        });
        match received {
            Ok(Some(Ok(was_full))) => Ok(was_full),
            Ok(Some(Err(raised))) => self
                .failed(raised, "Fatal error: protocol.data_received() call failed.")
                .map(|()| false),
            Ok(None) => self.received_eof().map(|()| false),
            Err(error) => self.receive_failed(&error).map(|()| false),
        }
    }

    /// Receives for `data_received`. Was all room used?
    #[inline]
    fn receive_data(&self, loop_: &Ref<EventLoop>) -> PyRes<bool> {
        let fd = self.descriptor();
        let mut size = READ_BUFFER;
        let received = if self.last_read.get() < LARGE_READ {
            loop_.with_read_buffer(|buffer| {
                let count = socket::recv(fd, buffer)?;
                Ok::<_, std::io::Error>(Obj::bytes(&buffer[..count]))
            })
        } else {
            // Perf: "receive, protocol". Much is likely to be there again: received where it stays.
            size = size.min(2 * self.last_read.get());
            Obj::bytes_with(size, |room| socket::recv_uninit(fd, room))?.map(Ok)
        };
        let data = match received {
            Ok(data) => data?,
            Err(error) => return self.receive_failed(&error).map(|()| false),
        };
        let count = data.as_bytes().map_or(0, <[u8]>::len);
        self.last_read.set(count);
        if count == 0 {
            return self.received_eof().map(|()| false);
        }
        let Some(protocol) = self.protocol.get() else {
            return Ok(false);
        };
        match protocol.method(names::data_received(), [&data]) {
            Ok(_) => Ok(count == size),
            Err(raised) => self
                .failed(raised, "Fatal error: protocol.data_received() call failed.")
                .map(|()| false),
        }
    }

    /// Receives into the buffer that the protocol gives.
    fn receive_into(&self) -> PyRes<()> {
        let Some(protocol) = self.protocol.get() else {
            return Ok(());
        };
        let given = protocol
            .method(names::get_buffer(), [&Obj::int(-1)?])
            .and_then(|given| {
                if given.len()? == 0 {
                    return Err(Raised::runtime_error(
                        "get_buffer() returned an empty buffer",
                    ));
                }
                Ok(given)
            });
        let given = match given {
            Ok(given) => given,
            Err(raised) => {
                return self.failed(raised, "Fatal error: protocol.get_buffer() call failed.");
            }
        };
        if self.conn_lost.get() != 0 {
            return Ok(());
        }
        let received = Buffer::writable(&given)
            .map(|mut buffer| socket::recv(self.descriptor(), buffer.as_mut_slice()));
        drop(given);
        let count = match received {
            Ok(Ok(count)) => count,
            Ok(Err(error)) => return self.receive_failed(&error),
            Err(raised) => return self.failed(raised, "Fatal read error on socket transport"),
        };
        if count == 0 {
            return self.received_eof();
        }
        let count = Obj::int(i64::try_from(count).unwrap_or(i64::MAX))?;
        match protocol.method(names::buffer_updated(), [&count]) {
            Ok(_) => Ok(()),
            Err(raised) => self.failed(
                raised,
                "Fatal error: protocol.buffer_updated() call failed.",
            ),
        }
    }

    /// `recv` failed: nothing to read after all, or the connection is broken.
    #[cold]
    fn receive_failed(&self, error: &std::io::Error) -> PyRes<()> {
        if error.kind() == std::io::ErrorKind::WouldBlock {
            return Ok(());
        }
        self.failed(os_error(error), "Fatal read error on socket transport")
    }

    /// The peer has ended its half.
    fn received_eof(&self) -> PyRes<()> {
        log_in_debug(self, names::debug(), "%r received EOF")?;
        let keep_open = self
            .current_protocol()
            .method(names::eof_received(), [])
            .and_then(|answer| answer.truth());
        match keep_open {
            // The protocol may go on writing, but there is nothing left to read.
            Ok(true) => self.unwatch_reading(),
            Ok(false) => self.close(),
            Err(raised) => self.failed(raised, "Fatal error: protocol.eof_received() call failed."),
        }
    }

    // Writing.

    /// What `write` and `writelines` refuse or ignore. Is there a connection to write to?
    #[inline]
    fn may_write(&self, method: &str) -> PyRes<bool> {
        if self.eof.get() {
            return Err(Raised::runtime_error(&format!(
                "Cannot call {method}() after write_eof()"
            )));
        }
        if self.empty_waiter.is_some() {
            return Err(Raised::runtime_error(&format!(
                "unable to {method}; sendfile is in progress"
            )));
        }
        Ok(true)
    }

    /// Counts a write to a lost connection; from the fifth on, warns.
    #[cold]
    fn write_to_lost(&self) -> PyRes<()> {
        count_lost_write(&self.conn_lost, "socket.send() raised exception.")
    }

    /// `write`.
    #[inline]
    pub(crate) fn write(&self, data: &Obj) -> PyRes<()> {
        let exact = data.is_exact_bytes();
        if !exact && !is_bytes_like(data) {
            return Err(wrong_data(data));
        }
        self.may_write("write")?;
        if self.conn_lost.get() != 0 {
            if data.len()? == 0 {
                return Ok(());
            }
            return self.write_to_lost();
        }
        if exact {
            let refused = self.buffer.borrow_mut().push(Chunk(data.clone()));
            drop(refused);
        } else {
            let view = Buffer::readable(data)?;
            self.buffer.borrow_mut().push_copy(view.as_slice());
        }
        self.written()
    }

    /// A `write` of up to `len` bytes that `fill` writes.
    fn write_with(&self, len: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> PyRes<()> {
        if self.conn_lost.get() != 0 {
            fill(&mut vec![0; len]);
            self.may_write("write")?;
            return self.write_to_lost();
        }
        self.may_write("write")?;
        self.buffer.borrow_mut().push_with(len, fill);
        self.written()
    }

    /// `writelines`. An error of one chunk leaves all unwritten.
    fn write_lines(&self, lines: &Obj) -> PyRes<()> {
        self.may_write("writelines")?;
        if !lines.truth()? {
            return Ok(());
        }
        if self.conn_lost.get() != 0 {
            return self.write_to_lost();
        }
        let mut chunks = Vec::new();
        for line in lines.items()? {
            if line.is_exact_bytes() {
                chunks.push(line);
            } else {
                let view = Buffer::readable(&line)?;
                chunks.push(Obj::bytes(view.as_slice())?);
            }
        }
        // To get them may have run any code.
        if self.conn_lost.get() != 0 {
            return Ok(());
        }
        for chunk in chunks {
            let refused = self.buffer.borrow_mut().push(Chunk(chunk));
            drop(refused);
        }
        self.written()
    }

    /// Something was added to the buffer: sends it now or when the job is over.
    #[inline]
    fn written(&self) -> PyRes<()> {
        if self.watched.get() {
            return maybe_pause(self);
        }
        let size = self.buffer.borrow().len();
        if size == 0 {
            return Ok(());
        }
        let Some(loop_) = self.loop_.get() else {
            return Ok(());
        };
        if size >= FLUSH_AT || self.marks.is_above_own(size) || !loop_.is_running_job() {
            return self.flush();
        }
        if !self.deferred.replace(true) {
            loop_.defer(flush_job, self.obj().clone());
        }
        Ok(())
    }

    /// Sends what was written and is not waiting for room in the socket.
    #[inline]
    fn flush_now(&self) -> PyRes<()> {
        if self.deferred.get() {
            return self.flush();
        }
        Ok(())
    }

    /// Sends everything, if that can be done without telling anybody. Is all done? An error is still to be told: the
    /// socket says it once.
    #[inline]
    fn flush_quietly(&self) -> std::io::Result<bool> {
        if self.conn_lost.get() != 0
            || self.watched.get()
            || self.closing.get()
            || self.eof.get()
            || self.empty_waiter.is_some()
        {
            return Ok(false);
        }
        let mut buffer = self.buffer.borrow_mut();
        let sent = match buffer.peek(|pieces| pieces.send(self.descriptor())) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
            sent => sent?,
        };
        buffer.advance(sent);
        let done = buffer.is_empty();
        if done {
            self.deferred.set(false);
            self.note_all_taken(sent);
        }
        Ok(done)
    }

    /// Does what is left after `flush_quietly`.
    fn flush_the_rest(&self, outcome: std::io::Result<bool>) -> PyRes<()> {
        match outcome {
            Ok(_) => self.flush_now(),
            Err(error) => {
                self.deferred.set(false);
                self.flush_failed(&error)
            }
        }
    }

    /// Sending has failed.
    fn flush_failed(&self, error: &std::io::Error) -> PyRes<()> {
        self.forget_buffer()?;
        let message = "Fatal write error on socket transport";
        let outcome = self.failed(os_error(error), message);
        finally(outcome, || self.fail_empty_waiter(error))
    }

    /// Sends what the socket takes; the rest waits for room.
    fn flush(&self) -> PyRes<()> {
        self.deferred.set(false);
        if self.conn_lost.get() != 0 || self.watched.get() || self.buffer.borrow().is_empty() {
            return Ok(());
        }
        let size = self.buffer.borrow().len();
        if let Err(error) = self.send() {
            return self.flush_failed(&error);
        }
        if self.buffer.borrow().is_empty() {
            self.note_all_taken(size);
            return self.drained();
        }
        self.watch_writing(&self.current_loop()?)?;
        maybe_pause(self)
    }

    /// The socket took so much at once.
    #[inline]
    fn note_all_taken(&self, size: usize) {
        if self.marks.is_above(size) {
            self.took_much.set(true);
        }
    }

    /// Sends what the socket takes.
    #[inline]
    fn send(&self) -> std::io::Result<()> {
        let fd = self.descriptor();
        let mut buffer = self.buffer.borrow_mut();
        loop {
            let (sent, offered) = buffer.peek(|pieces| (pieces.send(fd), pieces.len()));
            match sent {
                Ok(sent) => {
                    buffer.advance(sent);
                    if sent < offered || buffer.is_empty() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// There is room in the socket.
    fn send_more(&self) -> PyRes<()> {
        if self.conn_lost.get() != 0 {
            return Ok(());
        }
        if let Err(error) = self.send() {
            self.unwatch_writing()?;
            return self.flush_failed(&error);
        }
        if self.buffer.borrow().is_empty() {
            self.unwatch_writing()?;
        }
        maybe_resume(self)?;
        // The protocol may have written, closed or aborted meanwhile.
        if self.buffer.borrow().is_empty() {
            self.drained()?;
            return self.end_if_due(Self::lose);
        }
        Ok(())
    }

    /// All is sent: what waited for that happens, but for the end. That is for [`Self::end_if_due`], since this here may be
    /// a write in `resume_writing`, and nobody is told of the end within a call of their own.
    #[inline]
    fn drained(&self) -> PyRes<()> {
        if let Some(waiter) = self.empty_waiter.get()
            && !crate::waiter::is_done(&waiter)?
        {
            set_result(&waiter, Obj::none())?;
        }
        if self.eof.get() && !self.closing.get() && self.conn_lost.get() == 0 {
            return self.shut_writing();
        }
        Ok(())
    }

    /// Was it closed while something waited, all of which is sent now?
    #[inline]
    fn is_end_due(&self) -> bool {
        self.closing.get() && self.conn_lost.get() == 0 && self.buffer.borrow().is_empty()
    }

    /// Has the protocol told of the end then, by `lose` or `lose_soon`.
    #[inline]
    fn end_if_due(&self, lose: fn(&Self, &Obj) -> PyRes<()>) -> PyRes<()> {
        if !self.is_end_due() {
            return Ok(());
        }
        self.conn_lost.set(1);
        lose(self, &Obj::none())
    }

    /// Drops what is not sent.
    fn forget_buffer(&self) -> PyRes<()> {
        let buffer = std::mem::take(&mut *self.buffer.borrow_mut());
        drop(buffer);
        self.unwatch_writing()
    }

    /// Tells `sendfile` that the connection broke.
    fn fail_empty_waiter(&self, error: &std::io::Error) -> PyRes<()> {
        match self.empty_waiter.get() {
            Some(waiter) if !crate::waiter::is_done(&waiter)? => {
                set_exception(&waiter, &os_error_instance(error)?)
            }
            _ => Ok(()),
        }
    }

    /// Ends the sending half of the connection.
    fn shut_writing(&self) -> PyRes<()> {
        socket::shutdown_write(self.descriptor()).map_err(|error| os_error(&error))
    }

    /// `write_eof`.
    fn write_eof(&self) -> PyRes<()> {
        if self.closing.get() || self.eof.get() {
            return Ok(());
        }
        self.flush_now()?;
        if self.closing.get() {
            return Ok(());
        }
        self.eof.set(true);
        if self.buffer.borrow().is_empty() {
            return self.shut_writing();
        }
        Ok(())
    }

    /// `get_write_buffer_size`: what the socket did not take.
    fn buffer_size(&self) -> PyRes<usize> {
        self.flush_now()?;
        Ok(self.buffer.borrow().len())
    }

    /// `set_write_buffer_limits`.
    fn set_limits(&self, high: Option<&Obj>, low: Option<&Obj>) -> PyRes<()> {
        // What was written before counts by the marks of that time.
        self.flush_now()?;
        self.marks.set(high, low)?;
        maybe_pause(self)
    }

    // The end.

    /// `is_closing`. Too much is sent before: that may find the connection broken, and `drain()`, which asks this first, is
    /// to wait for a peer that does not read.
    ///
    /// Perf: "send, streams". Not once the socket took so much: with a call for each 128 KiB a MiB takes a third more time.
    #[inline]
    fn is_closing(&self) -> PyRes<bool> {
        if self.deferred.get()
            && !self.took_much.get()
            && self.marks.is_above(self.buffer.borrow().len())
        {
            self.flush()?;
        }
        Ok(self.closing.get())
    }

    /// `close`: sends what is left, then tells the protocol.
    fn close(&self) -> PyRes<()> {
        if self.closing.get() {
            return Ok(());
        }
        self.flush_now()?;
        if self.closing.replace(true) {
            return Ok(());
        }
        self.unwatch_reading()?;
        if self.buffer.borrow().is_empty() {
            self.conn_lost.set(self.conn_lost.get().saturating_add(1));
            self.unwatch_writing()?;
            self.lose_soon(&Obj::none())?;
        }
        Ok(())
    }

    /// `abort` and `_force_close`: what the socket does not take at once is dropped.
    fn force_close(&self, exception: Option<&Obj>) -> PyRes<()> {
        if self.conn_lost.get() != 0 {
            return Ok(());
        }
        self.flush_now()?;
        // That may have found the connection broken, which has closed it.
        if self.conn_lost.get() != 0 {
            return Ok(());
        }
        self.forget_buffer()?;
        if !self.closing.replace(true) {
            self.unwatch_reading()?;
        }
        self.conn_lost.set(self.conn_lost.get().saturating_add(1));
        self.lose_soon(&exception.cloned().unwrap_or_else(Obj::none))
    }

    /// Has `_call_connection_lost` called in the next turn.
    fn lose_soon(&self, exception: &Obj) -> PyRes<()> {
        let Some(loop_) = self.loop_.get() else {
            return Ok(());
        };
        let callback = self.obj().getattr(names::call_connection_lost())?;
        self.call_soon(&loop_, &callback, std::slice::from_ref(exception))
    }

    /// `_call_connection_lost`: tells the protocol, then closes the socket whatever the protocol did.
    fn lose(&self, exception: &Obj) -> PyRes<()> {
        let told = match self.protocol.get() {
            Some(protocol) if self.protocol_connected.get() => protocol
                .method(names::connection_lost(), [exception])
                .map(drop),
            _ => Ok(()),
        };
        finally(told, || {
            let closed = self.close_socket();
            let loop_ = self.loop_.take();
            if let Some(loop_) = &loop_ {
                loop_.forget_transport(self.fd.get(), self.obj());
            }
            self.protocol.clear();
            finally(closed, || {
                finally(self.detach_server(), || {
                    self.lose_empty_waiter(loop_.as_ref())
                })
            })
        })
    }

    /// The server hears that this connection is over.
    fn detach_server(&self) -> PyRes<()> {
        match self.server.take() {
            Some(server) => server.method(names::detach(), [self.obj()]).map(drop),
            None => Ok(()),
        }
    }

    /// Tells `sendfile` that the connection is over. Differs: asyncio says nothing while the file is sent, and fails.
    fn lose_empty_waiter(&self, loop_: Option<&Ref<EventLoop>>) -> PyRes<()> {
        let Some(waiter) = self.empty_waiter.get() else {
            return Ok(());
        };
        if crate::waiter::is_done(&waiter)? {
            return match loop_ {
                Some(loop_) => loop_.run_last(self.fd.get(), Direction::Write),
                None => Ok(()),
            };
        }
        let error = Builtin::Connection.instance("Connection is closed by peer")?;
        set_exception(&waiter, &error)
    }

    /// `_make_empty_waiter`: a future that is done when all is sent. Until it is reset nobody else may write.
    fn make_empty_waiter(&self) -> PyRes {
        if self.empty_waiter.is_some() {
            return Err(Raised::runtime_error("Empty waiter is already set"));
        }
        self.flush_now()?;
        let waiter = create_future(self.current_loop()?.obj())?;
        self.empty_waiter.set(waiter.clone());
        if self.buffer.borrow().is_empty() {
            set_result(&waiter, Obj::none())?;
        }
        Ok(waiter)
    }
}

/// A job: `connection_made` was called, and nobody waits for that.
fn begin_job(_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match CLASS.cast(&object) {
        Some(this) => this.begin(&Obj::none()),
        None => Ok(()),
    }
}

/// A socket object that is closed, for who asks too late.
fn closed_socket() -> PyRes {
    let sock = stdlib::socket_class()?.call([])?;
    sock.method(names::close(), [])?;
    Ok(sock)
}

/// A job: the descriptor can be read.
pub(crate) fn read_ready(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match CLASS.cast(&object) {
        Some(this) => this.run_ready(loop_, names::read_ready(), || this.receive(loop_)),
        None => Ok(()),
    }
}

/// A job: the descriptor can be written.
fn write_ready(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match CLASS.cast(&object) {
        Some(this) => this.run_ready(loop_, names::write_ready(), || this.send_more()),
        None => Ok(()),
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

/// A deferred job: sends what the job before it wrote.
fn flush_job(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match CLASS.cast(&object) {
        // A close, an abort or a look at the buffer may have been first.
        Some(this) => {
            let outcome = if this.deferred.get() {
                this.flush_quietly()
            } else {
                Ok(true)
            };
            if matches!(outcome, Ok(true)) && !this.is_end_due() {
                return Ok(());
            }
            if loop_.is_running_job() {
                this.run_ready(loop_, names::write_ready(), || {
                    this.flush_the_rest(outcome)?;
                    this.end_if_due(Ref::<StreamTransport>::lose)
                })
            } else {
                // In the midst of a job, which may have entered the context.
                this.flush_the_rest(outcome)?;
                this.end_if_due(Ref::<StreamTransport>::lose_soon)
            }
        }
        _ => Ok(()),
    }
}

/// The `TypeError` of data that is no buffer.
#[cold]
fn wrong_data(data: &Obj) -> Raised {
    let wanted = if cfg!(Py_3_14) {
        "a bytes, bytearray, or memoryview object"
    } else {
        "a bytes-like object"
    };
    Raised::type_error(&format!(
        "data argument must be {wanted}, not '{}'",
        data.class_name()
    ))
}

/// How TLS sends on a native transport.
fn send_encrypted(
    transport: &Obj,
    len: usize,
    fill: &mut dyn FnMut(&mut [u8]) -> usize,
) -> Option<PyRes<()>> {
    let this = CLASS.exact(transport)?;
    this.is_plain().then(|| this.write_with(len, fill))
}

/// Has TLS above a transport send what it has encrypted.
pub(super) fn send_before_fork(transport: &Obj) -> PyRes<()> {
    let protocol = CLASS
        .cast(transport)
        .and_then(|transport| transport.protocol.get());
    match protocol
        .as_ref()
        .and_then(|above| SSLProtocol::class().cast(above))
    {
        Some(tls) => tls.send_before_fork(),
        None => Ok(()),
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    sslproto::set_send(send_encrypted);
    let builder = ClassBuilder::<StreamTransport>::new(
        "asyncio.selector_events",
        "_SelectorSocketTransport",
        "The transport of a stream socket.",
    )
    .base(stdlib::transport()?.clone())
    .repr(|this| Ok(this.text()))
    .method(
        "get_extra_info(self, name, default=None)",
        "What is known of the connection by that name: `socket`, `sockname`, `peername`, and what TLS adds.",
        |this, args| this.extra_info(args.req(0), args.get(1).cloned().unwrap_or_else(Obj::none)),
    )
    .method(
        "is_closing(self)",
        "Is the transport closed, or about to be?",
        |this, _| this.is_closing(),
    )
    .method(
        "close(self)",
        "Closes the connection once what was written is sent; then the protocol's `connection_lost(None)` is called.",
        |this, _| this.close(),
    )
    .method(
        "abort(self)",
        "Closes the connection at once; what is not sent is lost.",
        |this, _| this.force_close(None),
    )
    .method(
        "set_protocol(self, protocol)",
        "Makes another protocol hear of this connection from now on.",
        |this, args| this.set_protocol(args.req(0)),
    )
    .method(
        "get_protocol(self)",
        "The current protocol.",
        |this, _| Ok(this.current_protocol()),
    );
    let builder = reading(builder);
    let builder = writing(builder);
    private(builder).build()?;
    set_direct_transport(&FOR_WRITERS);
    Ok(())
}

/// What a native `StreamWriter` calls.
static FOR_WRITERS: DirectTransport = DirectTransport {
    is_plain: |object| CLASS.exact(object).is_some_and(Ref::is_plain),
    write: |object, data| CLASS.cast(object).map_or(Ok(()), |this| this.write(data)),
    write_lines: |object, lines| {
        CLASS
            .cast(object)
            .map_or(Ok(()), |this| this.write_lines(lines))
    },
    close: |object| {
        CLASS
            .cast(object)
            .map_or(Ok(()), Ref::<StreamTransport>::close)
    },
    is_closing: |object| {
        CLASS
            .cast(object)
            .map_or(Ok(false), Ref::<StreamTransport>::is_closing)
    },
};

/// The methods for reading.
fn reading(builder: ClassBuilder<StreamTransport>) -> ClassBuilder<StreamTransport> {
    builder
        .method(
            "is_reading(self)",
            "Does the transport receive data?",
            |this, _| Ok(this.is_reading()),
        )
        .method(
            "pause_reading(self)",
            "Stops receiving until `resume_reading()`.",
            |this, _| this.pause_reading(),
        )
        .method(
            "resume_reading(self)",
            "Receives again after `pause_reading()`.",
            |this, _| this.resume_reading(),
        )
}

/// The methods for writing.
fn writing(builder: ClassBuilder<StreamTransport>) -> ClassBuilder<StreamTransport> {
    builder
        .method(
            "write(self, data)",
            "Sends bytes; what the socket does not take at once waits in a buffer. The data may be changed afterwards.",
            |this, args| this.write(args.req(0)),
        )
        .method(
            "writelines(self, list_of_data)",
            "Sends several pieces of bytes.",
            |this, args| this.write_lines(args.req(0)),
        )
        .method(
            "write_eof(self)",
            "Ends the sending half once what was written is sent; data may still arrive.",
            |this, _| this.write_eof(),
        )
        .method(
            "can_write_eof(self)",
            "Is there a `write_eof()`? `True`.",
            |_, _| Ok(true),
        )
        .method(
            "get_write_buffer_size(self)",
            "How many bytes wait to be sent.",
            |this, _| this.buffer_size(),
        )
        .method(
            "get_write_buffer_limits(self)",
            "The water marks `(low, high)`, in bytes.",
            |this, _| this.marks.limits(),
        )
        .method(
            "set_write_buffer_limits(self, high=None, low=None)",
            "Sets the water marks, in bytes: above `high` the protocol's `pause_writing()` is called, at `low` its `resume_writing()`.",
            |this, args| this.set_limits(args.some(0), args.some(1)),
        )
}

/// What asyncio's own modules and libraries use of it.
fn private(builder: ClassBuilder<StreamTransport>) -> ClassBuilder<StreamTransport> {
    builder
        .method(
            "_begin(self, waiter)",
            "Starts reading, then completes the future.",
            |this, args| this.begin(args.req(0)),
        )
        .method(
            "_call_connection_lost(self, exc)",
            "Tells the protocol and closes the socket.",
            |this, args| this.lose(args.req(0)),
        )
        .method(
            "_force_close(self, exc)",
            "Closes at once and tells the protocol why.",
            |this, args| this.force_close(args.some(0)),
        )
        .method(
            "_fatal_error(self, exc, message='Fatal error on transport')",
            "Reports an error and closes at once.",
            |this, args| {
                let message = match args.get(1) {
                    Some(message) => message.text()?,
                    None => String::from("Fatal error on transport"),
                };
                this.fatal(args.req(0), &message)
            },
        )
        .method(
            "_make_empty_waiter(self)",
            "A future that is done when all is sent; nobody may write until it is reset.",
            |this, _| this.make_empty_waiter(),
        )
        .method(
            "_reset_empty_waiter(self)",
            "Ends what `_make_empty_waiter` began.",
            |this, _| {
                this.empty_waiter.clear();
                Ok(())
            },
        )
        .method(
            "_read_ready(self)",
            "Receives what there is.",
            |this, _| match this.loop_.get() {
                Some(loop_) => this.receive(&loop_),
                None => Ok(()),
            },
        )
        .method("_write_ready(self)", "Sends what waits.", |this, _| {
            this.flush_now()?;
            this.send_more()
        })
        .property("_extra", Ref::extra_dict, |this, value| {
            drop(this.extra.replace(value.cloned()));
            Ok(())
        })
        .getter("_sock", |this| {
            this.flush_now()?;
            this.current_sock()
        })
        .getter("_sock_fd", |this| Obj::int(this.fd.get().into()))
        .getter("_loop", |this| Ok(this.loop_.get().map(Ref::into_obj)))
        .getter("_protocol", |this| Ok(this.protocol.get()))
        .getter("_server", |this| Ok(this.server.get()))
        .getter("_closing", |this| Ok(this.closing.get()))
        .getter("_paused", |this| Ok(this.paused.get()))
        .getter("_eof", |this| Ok(this.eof.get()))
        .getter("_conn_lost", |this| Obj::int(this.conn_lost.get().into()))
        .getter("_protocol_paused", |this| {
            this.flush_now()?;
            Ok(this.marks.paused.get())
        })
        .getter("_start_tls_compatible", |_| Ok(true))
        .getter("_sendfile_compatible", |_| {
            stdlib::sendfile_try_native().cloned()
        })
        .getter("_empty_waiter", |this| Ok(this.empty_waiter.get()))
}
