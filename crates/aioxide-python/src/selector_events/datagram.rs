//! The datagram transport. Answers `_SelectorDatagramTransport` of `asyncio/selector_events.py`.
//!
//! Datagrams are received into the loop's read buffer and handed on as `bytes` of their size. One turn of the loop takes
//! more than one only while they come faster than turns ([`Burst`]), at most 16, and between two of them it looks
//! whether the transport was closed or paused, or the loop stopped.
//!
//! System calls go by descriptor number if the socket's methods are Python's own, and only while `fileno()` still gives
//! that number. Addresses that are no literals, and whatever else is unusual, go through the socket's methods.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use aioxide_engine::socket::{self, Address};

use crate::addresses::{self, Family};
use crate::events::{Direction, EventLoop, JobBody, leaves_the_loop, method_of};
use crate::ffi::{
    Args, Buffer, Builtin, Class, ClassBuilder, Layout, Native, Obj, PyRes, Raised, Ref, Slot,
    Visit, finally, os_error,
};
use crate::{names, stdlib};

use super::common::{
    Parts, Reading, Transport, begin, call_connection_lost, close_unclosed, count_lost_write,
    error_message, first_words, has_open_loop, is_bytes_like, is_os_error, methods, name_of,
    reading_methods, report_fatal, run_ready, schedule_connection_lost, unwatch, watch, would_wait,
};
use super::flow_control::{Buffered, WaterMarks, flow_methods, maybe_pause, maybe_resume};

/// What each buffered datagram counts for besides its length.
const HEADER_SIZE: usize = 8;

/// The most datagrams that one turn takes.
const MOST_IN_A_TURN: u8 = 16;

/// How many turns with one datagram pass before a second one is looked for again.
const PATIENCE: u8 = 16;

/// How many datagrams a turn takes: looking for one that is not there costs a system call, and a turn for each costs
/// more while they come in numbers.
#[derive(Clone, Copy)]
struct Burst {
    /// How many the next turn takes.
    limit: u8,
    /// How many more turns take one only.
    patience: u8,
}

impl Burst {
    /// A socket of which nothing is known.
    const START: Self = Self {
        limit: 1,
        patience: 0,
    };

    /// What a turn that took `count` teaches; `more` says that it ended at its limit, not at the last datagram.
    fn after(self, count: u8, more: bool) -> Self {
        match (more, count) {
            (true, 1) if self.patience > 0 => Self {
                limit: 1,
                patience: self.patience - 1,
            },
            (true, _) => Self {
                limit: (self.limit * 2).min(MOST_IN_A_TURN),
                patience: 0,
            },
            (false, 0 | 1) => Self {
                limit: 1,
                patience: PATIENCE,
            },
            (false, _) => self,
        }
    }
}

/// Whether a socket is connected, and whether its peer has a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connected {
    /// It is not.
    No,
    /// To a Unix socket without name. Differs: asyncio takes it for not connected.
    ToNameless,
    /// It is.
    ToNamed,
}

/// A datagram transport.
pub(crate) struct DatagramTransport {
    /// What every transport has.
    parts: Parts,
    /// The socket, until the connection is lost.
    sock: Slot,
    /// Where everything is sent, if it was made for one address.
    address: Slot,
    /// Is the socket connected?
    connected: Cell<Connected>,
    /// The family of addresses, if the system calls can be made natively.
    family: Cell<Option<Family>>,
    /// Was reading paused?
    paused: Cell<bool>,
    /// Datagrams that wait to be sent, with their addresses.
    buffer: RefCell<VecDeque<(Obj, Obj)>>,
    /// The size of all of them.
    buffer_size: Cell<usize>,
    /// The water marks.
    marks: WaterMarks,
    /// How many datagrams a turn takes.
    burst: Cell<Burst>,
    /// The address that was sent to last,
    sent_to: Slot,
    /// and what it means.
    sent_to_parsed: RefCell<Option<Address>>,
    /// The address that was received from last,
    received_from: Slot,
    /// as the kernel gave it.
    received_from_parsed: RefCell<Option<Address>>,
}

/// Where the class is kept.
static DATAGRAM_TRANSPORT: Class<DatagramTransport> = Class::new();

impl Native for DatagramTransport {
    const LAYOUT: Layout = Layout::Transport;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &DATAGRAM_TRANSPORT
    }

    fn empty() -> Self {
        Self {
            parts: Parts::empty(),
            sock: Slot::empty(),
            address: Slot::empty(),
            connected: Cell::new(Connected::No),
            family: Cell::new(None),
            paused: Cell::new(false),
            buffer: RefCell::default(),
            buffer_size: Cell::new(0),
            marks: WaterMarks::new(),
            burst: Cell::new(Burst::START),
            sent_to: Slot::empty(),
            sent_to_parsed: RefCell::default(),
            received_from: Slot::empty(),
            received_from_parsed: RefCell::default(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.parts.traverse(visit);
        self.marks.traverse(visit);
        visit.slot(&self.sock);
        visit.slot(&self.address);
        visit.slot(&self.sent_to);
        visit.slot(&self.received_from);
        if let Ok(buffer) = self.buffer.try_borrow() {
            for (data, address) in buffer.iter() {
                visit.obj(data);
                visit.obj(address);
            }
        }
    }

    fn clear(&self) {
        self.parts.clear();
        self.marks.clear();
        self.sock.clear();
        self.address.clear();
        self.sent_to.clear();
        self.received_from.clear();
        let buffer = self
            .buffer
            .try_borrow_mut()
            .map(|mut buffer| std::mem::take(&mut *buffer))
            .ok();
        drop(buffer);
    }

    fn needs_finalizer(&self) -> bool {
        self.sock.is_some()
    }

    fn finalize(this: &Ref<Self>) {
        close_unclosed(this, this.sock.get());
    }
}

impl Transport for DatagramTransport {
    fn parts(&self) -> &Parts {
        &self.parts
    }
}

impl Reading for DatagramTransport {
    const READ_READY: JobBody = read_ready;

    fn paused(&self) -> &Cell<bool> {
        &self.paused
    }
}

impl Buffered for DatagramTransport {
    fn marks(&self) -> &WaterMarks {
        &self.marks
    }

    fn buffered(&self) -> usize {
        self.buffer_size.get()
    }
}

/// Makes a transport over a non-blocking socket and schedules `connection_made`, then the waiter.
pub(crate) fn make_datagram_transport(
    loop_: &Ref<EventLoop>,
    sock: &Obj,
    protocol: &Obj,
    address: Option<&Obj>,
    waiter: Option<&Obj>,
    extra: Option<&Obj>,
) -> PyRes<Ref<DatagramTransport>> {
    let extra = match extra {
        Some(extra) => extra.clone(),
        None => Obj::dict()?,
    };
    let connected = describe_socket(&extra, sock)?;
    let fd = i32::try_from(sock.method(names::fileno(), [])?.as_i64()?).unwrap_or(-1);
    let empty = DatagramTransport::empty();
    let this = Ref::new(DatagramTransport {
        parts: Parts::new(loop_, fd, protocol, extra)?,
        sock: Slot::new(sock.clone()),
        address: address.map_or_else(Slot::empty, |address| Slot::new(address.clone())),
        connected: Cell::new(connected),
        family: Cell::new(native_family(sock)?),
        ..empty
    })?;
    begin(&this, Some(names::start_reading()), waiter)?;
    Ok(this)
}

/// Enters what is known of a socket into the extra information; is it connected?
fn describe_socket(extra: &Obj, sock: &Obj) -> PyRes<Connected> {
    extra.set_item(names::socket(), &stdlib::transport_socket()?.call([sock])?)?;
    extra.set_item(names::sockname(), &name_of(sock, names::getsockname())?)?;
    let peername = if let Some(peername) = extra.dict_get(names::peername())? {
        peername
    } else {
        let peername = name_of(sock, names::getpeername())?;
        extra.set_item(names::peername(), &peername)?;
        peername
    };
    Ok(if peername.truth()? {
        Connected::ToNamed
    } else if peername.is_str() {
        Connected::ToNameless
    } else {
        Connected::No
    })
}

/// The family of a socket's addresses, if its methods are those of Python's own sockets and native code knows the
/// family.
fn native_family(sock: &Obj) -> PyRes<Option<Family>> {
    let (class, plain) = (sock.class(), stdlib::c_socket_class()?);
    if !class.is_subtype_of(plain) {
        return Ok(None);
    }
    for method in [
        names::recvfrom(),
        names::send(),
        names::sendto(),
        names::fileno(),
    ] {
        if !class.getattr(method)?.is(&plain.getattr(method)?) {
            return Ok(None);
        }
    }
    let family = sock.getattr(names::family())?;
    for (name, native) in [
        ("AF_INET", Family::V4),
        ("AF_INET6", Family::V6),
        ("AF_UNIX", Family::Unix),
    ] {
        if family.equals(&stdlib::socket_module()?.getattr_str(name)?)? {
            return Ok(Some(native));
        }
    }
    Ok(None)
}

impl Ref<DatagramTransport> {
    /// The descriptor and the family for native system calls, unless the socket was closed behind our back: its number
    /// may be somebody else's by now.
    #[inline]
    fn native(&self) -> PyRes<Option<(i32, Family)>> {
        let (Some(family), Some(sock)) = (self.family.get(), self.sock.get()) else {
            return Ok(None);
        };
        let fd = sock.method(names::fileno(), [])?.as_i64()?;
        Ok((fd == i64::from(self.parts.fd.get())).then_some((self.parts.fd.get(), family)))
    }

    /// Receives what a turn takes.
    fn receive_burst(&self) -> PyRes<()> {
        let burst = self.burst.get();
        let mut count = 0;
        while count < burst.limit {
            if self.parts.conn_lost.get() > 0 || !self.parts.reading.get() {
                return Ok(());
            }
            if count > 0
                && self
                    .parts
                    .loop_
                    .get()
                    .is_none_or(|loop_| loop_.stopping.get())
            {
                return Ok(());
            }
            match self.receive() {
                Ok(Some((data, address))) => {
                    count += 1;
                    let protocol = self.parts.protocol.get_or_none();
                    protocol.method(names::datagram_received(), [&data, &address])?;
                }
                Ok(None) => {
                    self.burst.set(burst.after(count, false));
                    return Ok(());
                }
                Err(raised) if raised.is(Builtin::Os) => {
                    return self.error_received(&raised.take());
                }
                Err(raised) if leaves_the_loop(&raised) => return Err(raised),
                Err(raised) => {
                    return self
                        .fatal_error(&raised.take(), "Fatal read error on datagram transport");
                }
            }
        }
        self.burst.set(burst.after(count, true));
        Ok(())
    }

    /// Receives one datagram and its address; `None` if there is none.
    fn receive(&self) -> PyRes<Option<(Obj, Obj)>> {
        let (Some((fd, _)), Some(loop_)) = (self.native()?, self.parts.loop_.get()) else {
            return self.receive_by_method();
        };
        let received = loop_.with_read_buffer(|buffer| {
            socket::recv_from(fd, buffer)
                .map(|(size, address)| (Obj::bytes(&buffer[..size]), address))
        });
        match received {
            Ok((data, address)) => Ok(Some((data?, self.sender(address)?))),
            Err(error) if would_wait(&error) => Ok(None),
            Err(error) => Err(os_error(&error)),
        }
    }

    /// The same through the socket's method.
    fn receive_by_method(&self) -> PyRes<Option<(Obj, Obj)>> {
        let sock = self.sock.get_or_none();
        let size = Obj::int(256 * 1024)?;
        let Some(received) = unless_waiting(sock.method(names::recvfrom(), [&size]))? else {
            return Ok(None);
        };
        match received.items()?.as_slice() {
            [data, address] => Ok(Some((data.clone(), address.clone()))),
            _ => Err(Raised::value_error("recvfrom() did not return a pair")),
        }
    }

    /// An address in Python's words; that of the datagram before is not put into words again.
    fn sender(&self, address: Option<Address>) -> PyRes {
        if address.is_none() {
            return Ok(Obj::none());
        }
        if *self.received_from_parsed.borrow() == address
            && let Some(object) = self.received_from.get()
        {
            return Ok(object);
        }
        let object = addresses::to_python(address.as_ref())?;
        self.received_from.clear();
        *self.received_from_parsed.borrow_mut() = address;
        self.received_from.set(object.clone());
        Ok(object)
    }

    /// `protocol.error_received(exception)`.
    fn error_received(&self, exception: &Obj) -> PyRes<()> {
        self.parts
            .protocol
            .get_or_none()
            .method(names::error_received(), [exception])
            .map(drop)
    }

    /// `sendto`.
    fn sendto(&self, data: &Obj, address: &Obj) -> PyRes<()> {
        if !is_bytes_like(data) {
            return Err(Raised::type_error(&format!(
                "data argument must be a bytes-like object, not {}",
                Obj::str(&data.class_name())?.repr()?
            )));
        }
        let own = self.own_address()?;
        if let Some(own) = &own
            && !address.is_none()
            && !address.equals(own)?
        {
            return Err(Raised::value_error(&format!(
                "Invalid address: must be None or {}",
                own.to_str()?.text()?
            )));
        }
        // Differs: asyncio fails with an AttributeError of its own if there is no socket any more and no own address.
        if self.parts.conn_lost.get() > 0 && (own.is_some() || self.sock.is_none()) {
            return count_lost_write(&self.parts.conn_lost, "socket.send() raised exception.");
        }
        let address = own.unwrap_or_else(|| address.clone());
        if self.buffer.borrow().is_empty() {
            match self.send(data, &address) {
                Ok(true) => return Ok(()),
                // Closed: nobody would be there to send it later.
                Ok(false) if self.parts.conn_lost.get() > 0 => return Ok(()),
                Ok(false) => watch(self, Direction::Write, write_ready)?,
                Err(raised) => return self.send_failed(raised),
            }
        }
        let snapshot = if data.is_exact_bytes() {
            data.clone()
        } else {
            Obj::bytes(Buffer::readable(data)?.as_slice())?
        };
        let size = snapshot.len()? + HEADER_SIZE;
        self.buffer.borrow_mut().push_back((snapshot, address));
        self.buffer_size.set(self.buffer_size.get() + size);
        maybe_pause(self)
    }

    /// The one address that everything is sent to, if there is one.
    fn own_address(&self) -> PyRes<Option<Obj>> {
        match self.address.get() {
            Some(address) if address.truth()? => Ok(Some(address)),
            _ => Ok(None),
        }
    }

    /// What a failed attempt to send means.
    fn send_failed(&self, raised: Raised) -> PyRes<()> {
        if raised.is(Builtin::Os) {
            return self.error_received(&raised.take());
        }
        if leaves_the_loop(&raised) {
            return Err(raised);
        }
        self.fatal_error(&raised.take(), "Fatal write error on datagram transport")
    }

    /// Sends a datagram; `false` if there is no room for it now.
    fn send(&self, data: &Obj, address: &Obj) -> PyRes<bool> {
        let connected = match self.connected.get() {
            Connected::No => false,
            Connected::ToNameless => address.is_none(),
            Connected::ToNamed => true,
        };
        let native = match self.native()? {
            Some((fd, family)) if connected || self.parse(family, address)? => Some(fd),
            _ => None,
        };
        let Some(fd) = native else {
            let sock = self.sock.get_or_none();
            let sent = if connected {
                sock.method(names::send(), [data])
            } else {
                sock.method(names::sendto(), [data, address])
            };
            return Ok(unless_waiting(sent)?.is_some());
        };
        let view;
        let bytes = if let Some(bytes) = data.as_bytes() {
            bytes
        } else {
            view = Buffer::readable(data)?;
            view.as_slice()
        };
        let sent = if connected {
            socket::send(fd, bytes)
        } else if let Some(parsed) = &*self.sent_to_parsed.borrow() {
            socket::send_to(fd, bytes, parsed)
        } else {
            return Ok(false);
        };
        match sent {
            Ok(_) => Ok(true),
            Err(error) if would_wait(&error) => Ok(false),
            Err(error) => Err(os_error(&error)),
        }
    }

    /// Reads an address into `sent_to_parsed`, unless it is there already. `false` if native code cannot.
    fn parse(&self, family: Family, address: &Obj) -> PyRes<bool> {
        if self.sent_to.holds(address) {
            return Ok(true);
        }
        if family == Family::Unix && address.len()? == 0 {
            return Ok(false);
        }
        let parsed = match self.sender_as_received(address) {
            None => addresses::from_python(family, address)?,
            answered => answered,
        };
        let Some(parsed) = parsed else {
            return Ok(false);
        };
        self.sent_to.clear();
        *self.sent_to_parsed.borrow_mut() = Some(parsed);
        self.sent_to.set(address.clone());
        Ok(true)
    }

    /// The sender of the datagram received last, if it is his `address` object: that of an answer is not read again.
    /// Only of IPv4, where reading what was written always gives the same.
    fn sender_as_received(&self, address: &Obj) -> Option<Address> {
        if !self.received_from.holds(address) {
            return None;
        }
        match &*self.received_from_parsed.borrow() {
            Some(Address::V4(address)) => Some(Address::V4(*address)),
            _ => None,
        }
    }

    /// Sends what waits, as far as there is room.
    fn send_buffered(&self) -> PyRes<()> {
        loop {
            // While it is sent, a datagram is not in the buffer: nobody else sends it then.
            let Some((data, address)) = self.buffer.borrow_mut().pop_front() else {
                break;
            };
            let size = data.len()? + HEADER_SIZE;
            self.buffer_size.set(self.buffer_size.get() - size);
            match self.send(&data, &address) {
                Ok(true) => {}
                Ok(false) => {
                    self.buffer.borrow_mut().push_front((data, address));
                    self.buffer_size.set(self.buffer_size.get() + size);
                    break;
                }
                Err(raised) => return self.send_failed(raised),
            }
        }
        maybe_resume(self)?;
        if self.buffer.borrow().is_empty() {
            unwatch(self, Direction::Write)?;
            if self.parts.closing.get() && self.sock.is_some() && self.parts.conn_lost.get() == 0 {
                return self.call_connection_lost(None);
            }
        }
        Ok(())
    }

    /// `close`.
    fn close(&self) -> PyRes<()> {
        if self.parts.closing.replace(true) {
            return Ok(());
        }
        unwatch(self, Direction::Read)?;
        if !self.buffer.borrow().is_empty() {
            return Ok(());
        }
        self.parts.conn_lost.set(self.parts.conn_lost.get() + 1);
        unwatch(self, Direction::Write)?;
        schedule_connection_lost(self, None)
    }

    /// `_fatal_error`.
    fn fatal_error(&self, exception: &Obj, message: &str) -> PyRes<()> {
        finally(
            report_fatal(self, exception, message, is_os_error(exception)),
            || self.force_close(Some(exception)),
        )
    }

    /// `_force_close`: what waits to be sent is dropped.
    fn force_close(&self, exception: Option<&Obj>) -> PyRes<()> {
        if self.parts.conn_lost.get() > 0 {
            return Ok(());
        }
        let buffer = std::mem::take(&mut *self.buffer.borrow_mut());
        self.buffer_size.set(0);
        unwatch(self, Direction::Write)?;
        self.parts.closing.set(true);
        unwatch(self, Direction::Read)?;
        self.parts.conn_lost.set(self.parts.conn_lost.get() + 1);
        drop(buffer);
        schedule_connection_lost(self, exception)
    }

    /// `_call_connection_lost`.
    fn call_connection_lost(&self, exception: Option<&Obj>) -> PyRes<()> {
        call_connection_lost(self, &self.sock, exception, || {
            // A datagram that is sent from here on goes nowhere.
            self.parts.conn_lost.set(self.parts.conn_lost.get().max(1));
        })
    }

    /// The repr.
    fn repr_text(&self) -> String {
        let mut words = first_words(self, &self.sock);
        if has_open_loop(self) {
            let state = |watched: bool| if watched { "polling" } else { "idle" };
            words.push(format!("read={}", state(self.parts.reading.get())));
            words.push(format!(
                "write=<{}, bufsize={}>",
                state(self.parts.writing.get()),
                self.buffer_size.get()
            ));
        }
        format!("<{}>", words.join(" "))
    }
}

/// What a socket's method gave; `None` if it would have to wait.
fn unless_waiting(outcome: PyRes) -> PyRes<Option<Obj>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(raised) if raised.is(Builtin::BlockingIo) || raised.is(Builtin::Interrupted) => {
            raised.discard();
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}

/// The job of a socket with a datagram to receive.
fn read_ready(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match DATAGRAM_TRANSPORT.cast(&object) {
        Some(this) if this.parts.reading.get() => {
            run_ready(loop_, this, names::read_ready(), Ref::receive_burst)
        }
        _ => Ok(()),
    }
}

/// The job of a socket with room to send.
fn write_ready(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match DATAGRAM_TRANSPORT.cast(&object) {
        Some(this) if this.parts.writing.get() => {
            run_ready(loop_, this, names::sendto_ready(), Ref::send_buffered)
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
            (write_ready, names::sendto_ready),
        ],
    )
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    let builder = ClassBuilder::<DatagramTransport>::new(
        "asyncio.selector_events",
        "_SelectorDatagramTransport",
        "A transport of datagrams.",
    )
    // asyncio's is a `Transport`, too, since it shares a base with that of streams.
    .base(stdlib::transport()?.clone())
    .base(stdlib::datagram_transport()?.clone())
    .sealed()
    .repr(|this| Ok(this.repr_text()))
    .attribute("max_size", Obj::int(256 * 1024)?)
    .attribute("_header_size", Obj::int(8)?);
    // asyncio's can pause reading, too, which it has from that of streams.
    private(reading_methods(flow_methods(methods(builder))))
        .method(
            "sendto(self, data, addr=None)",
            "Sends a datagram to an address, or to the one that the transport was made for.",
            |this, args| this.sendto(args.req(0), args.get(1).unwrap_or(&Obj::none())),
        )
        .method(
            "close(self)",
            "Closes the transport once everything is sent.",
            |this, _| this.close(),
        )
        .method(
            "abort(self)",
            "Closes the transport; what waits to be sent is lost.",
            |this, _| this.force_close(None),
        )
        .build()
        .map(drop)
}

/// Adds the private methods and attributes.
fn private(builder: ClassBuilder<DatagramTransport>) -> ClassBuilder<DatagramTransport> {
    builder
        .method("_read_ready(self)", "Receives.", |this, _| {
            this.receive_burst()
        })
        .method(
            "_sendto_ready(self)",
            "Sends what waits to be sent.",
            |this, _| this.send_buffered(),
        )
        .method(
            "_fatal_error(self, exc, message='Fatal error on transport')",
            "Reports an error and closes the transport.",
            fatal_error,
        )
        .method(
            "_force_close(self, exc)",
            "Closes the transport because of an error.",
            |this, args| this.force_close(args.some(0)),
        )
        .method(
            "_call_connection_lost(self, exc)",
            "Tells the protocol that the connection is lost, and closes the socket.",
            |this, args| this.call_connection_lost(args.some(0)),
        )
        .property(
            "_sock",
            |this| Ok(this.sock.get()),
            |this, value| {
                // Whatever it is, it is used by its methods.
                this.family.set(None);
                drop(
                    this.sock
                        .replace(value.filter(|value| !value.is_none()).cloned()),
                );
                Ok(())
            },
        )
        .getter("_sock_fd", |this| Obj::int(this.parts.fd.get().into()))
        .getter("_address", |this| Ok(this.address.get()))
        .getter("_buffer_size", |this| Ok(this.buffer_size.get()))
        .getter("_buffer", |this| {
            let pairs = this
                .buffer
                .borrow()
                .iter()
                .map(|(data, address)| (data.clone(), address.clone()))
                .collect::<Vec<(Obj, Obj)>>();
            let pairs = pairs
                .into_iter()
                .map(|(data, address)| Obj::tuple([data, address]))
                .collect::<PyRes<Vec<Obj>>>()?;
            stdlib::deque()?.call([&Obj::list(pairs)?])
        })
}

/// `_fatal_error`.
fn fatal_error(this: &Ref<DatagramTransport>, args: &Args<'_>) -> PyRes<()> {
    let message = error_message(args, "Fatal error on transport")?;
    this.fatal_error(args.req(0), &message)
}
