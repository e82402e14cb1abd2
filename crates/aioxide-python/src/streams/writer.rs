//! `StreamWriter`: a transport to write to, with `drain` to wait until it has room.

use crate::coroutines::{Delegate, coroutine};
use crate::events::LoopRef;
use crate::ffi::{
    Builtin, Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot,
    Visit, Warning, warn,
};
use crate::waiter::{Waiter, create_future, set_result};
use crate::{names, stdlib};

use super::direct::direct_transport;
use super::flow::Drain as FlowDrain;
use super::overrides::{Overridable, Seen};
use super::protocol::{DRAIN_HELPER, GET_CLOSE_WAITER, StreamReaderProtocol};
use super::reader::{EXCEPTION, StreamReader, raise};

/// Overridable: `close`.
const CLOSE: u32 = 1;
/// Overridable: `drain`.
const DRAIN: u32 = 1 << 1;

/// The methods that can be overridden.
static OVERRIDABLE: Overridable<2> = Overridable::new([names::close, names::drain]);

/// A stream's writing end.
pub(crate) struct StreamWriter {
    /// The transport.
    transport: Slot,
    /// The protocol.
    protocol: Slot,
    /// The reader.
    reader: Slot,
    /// The loop.
    loop_: Slot,
    /// A future that is done: made when somebody looks.
    complete: Slot,
    /// What is known about the class.
    seen: Seen,
}

/// Where the class is kept.
static CLASS: Class<StreamWriter> = Class::new();

impl Native for StreamWriter {
    const FREELIST: usize = 64;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            transport: Slot::empty(),
            protocol: Slot::empty(),
            reader: Slot::empty(),
            loop_: Slot::empty(),
            complete: Slot::empty(),
            seen: Seen::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.transport);
        visit.slot(&self.protocol);
        visit.slot(&self.reader);
        visit.slot(&self.loop_);
        visit.slot(&self.complete);
    }

    fn clear(&self) {
        self.transport.clear();
        self.protocol.clear();
        self.reader.clear();
        self.loop_.clear();
        self.complete.clear();
    }

    fn needs_finalizer(&self) -> bool {
        self.transport.is_some()
    }

    fn finalize(this: &Ref<Self>) {
        if let Some(transport) = this.transport.get()
            && let Err(raised) = this.close_forgotten(&transport)
        {
            raised.write_unraisable(Some(this.obj()));
        }
    }
}

impl Ref<StreamWriter> {
    /// A writer of exactly the native class.
    pub(crate) fn create(
        transport: &Obj,
        protocol: &Obj,
        reader: &Obj,
        loop_: &Obj,
    ) -> PyRes<Self> {
        let writer = Self::new(StreamWriter::empty())?;
        writer.initialize(transport, protocol, reader, loop_)?;
        Ok(writer)
    }

    /// `__init__`.
    fn initialize(&self, transport: &Obj, protocol: &Obj, reader: &Obj, loop_: &Obj) -> PyRes<()> {
        let set = |slot: &Slot, value: &Obj| {
            drop(slot.replace((!value.is_none()).then(|| value.clone())));
        };
        set(&self.transport, transport);
        set(&self.protocol, protocol);
        if !reader.is_none()
            && !StreamReader::class().is_instance(reader)
            && !reader.isinstance(stdlib::stream_reader()?)?
        {
            return Err(Builtin::Assertion.raise_bare());
        }
        set(&self.reader, reader);
        set(&self.loop_, loop_);
        self.complete.clear();
        if LoopRef::new(loop_).direct().is_none() {
            // Whoever made the loop sees the call.
            self.completed()?;
        }
        Ok(())
    }

    /// `_complete_fut`.
    fn completed(&self) -> PyRes {
        if let Some(complete) = self.complete.get() {
            return Ok(complete);
        }
        let complete = create_future(&self.loop_.get_or_none())?;
        set_result(&complete, Obj::none())?;
        self.complete.set(complete.clone());
        Ok(complete)
    }

    /// The transport, or `None`.
    #[inline]
    fn transport(&self) -> Obj {
        self.transport.get_or_none()
    }

    /// Is one of these methods overridden?
    #[inline]
    fn overrides(&self, methods: u32) -> bool {
        OVERRIDABLE.overrides(&self.seen, self, methods)
    }

    /// `close()`: what the transport's gives.
    fn close(&self) -> PyRes {
        let transport = self.transport();
        match direct_transport(&transport) {
            Some(direct) => (direct.close)(&transport).map(|()| Obj::none()),
            None => transport.method(names::close(), []),
        }
    }

    /// `is_closing()`: what the transport's gives.
    #[inline]
    fn is_closing(&self) -> PyRes {
        let transport = self.transport();
        match direct_transport(&transport) {
            Some(direct) => (direct.is_closing)(&transport).map(Obj::bool),
            None => transport.method(names::is_closing(), []),
        }
    }

    /// `write(data)`.
    #[inline]
    fn write(&self, data: &Obj) -> PyRes<()> {
        let transport = self.transport();
        match direct_transport(&transport) {
            Some(direct) => (direct.write)(&transport, data),
            None => transport.method(names::write(), [data]).map(drop),
        }
    }

    /// `writelines(data)`.
    fn write_lines(&self, data: &Obj) -> PyRes<()> {
        let transport = self.transport();
        match direct_transport(&transport) {
            Some(direct) => (direct.write_lines)(&transport, data),
            None => transport.method(names::writelines(), [data]).map(drop),
        }
    }

    /// The finaliser: nobody closed it.
    fn close_forgotten(&self, transport: &Obj) -> PyRes<()> {
        if transport.method(names::is_closing(), [])?.truth()? {
            return Ok(());
        }
        if self
            .loop_
            .get_or_none()
            .method(names::is_closed(), [])?
            .truth()?
        {
            return warn(Warning::Resource, "loop is closed", 1);
        }
        if self.overrides(CLOSE) {
            self.obj().method(names::close(), [])?;
        } else {
            self.close()?;
        }
        warn(
            Warning::Resource,
            &format!("unclosed {}", self.obj().repr()?),
            1,
        )
    }

    /// The repr.
    fn repr_text(&self) -> PyRes<String> {
        let mut text = format!(
            "<{} transport={}",
            self.obj().class_name(),
            self.transport().repr()?
        );
        if let Some(reader) = self.reader.get() {
            text.push_str(" reader=");
            text.push_str(&reader.repr()?);
        }
        text.push('>');
        Ok(text)
    }

    /// Raises the exception of the reader, if it has one.
    #[inline]
    fn check_reader(&self) -> PyRes<()> {
        let Some(reader) = self.reader.get() else {
            return Ok(());
        };
        let exception = match StreamReader::class().cast(&reader) {
            Some(native) if !native.overrides(EXCEPTION) => native.exception(),
            _ => Some(reader.method(names::exception(), [])?).filter(|found| !found.is_none()),
        };
        exception.map_or(Ok(()), |exception| Err(raise(&exception)))
    }
}

/// `StreamWriter.drain`.
struct Drain {
    /// The writer.
    writer: Ref<StreamWriter>,
    /// Where it is.
    state: DrainState,
}

/// Where `drain` is.
enum DrainState {
    /// Not begun.
    Start,
    /// It let others run, so that the protocol can hear of the loss of the connection.
    Skipped,
    /// It waits for room.
    Waiting(FlowDrain),
    /// It waits for a `_drain_helper` that is not the native one.
    Helper(Delegate),
}

impl Drain {
    /// `await self._protocol._drain_helper()` up to its wait.
    #[inline]
    fn help(&mut self) -> PyRes<Sent> {
        let protocol = self.writer.protocol.get_or_none();
        match StreamReaderProtocol::class().cast(&protocol) {
            Some(native) if !native.overrides(DRAIN_HELPER) => match FlowDrain::begin(native)? {
                None => Ok(Sent::Return(Obj::none())),
                Some((drain, sent)) => {
                    self.state = DrainState::Waiting(drain);
                    Ok(sent)
                }
            },
            _ => {
                let helper = protocol.method(names::drain_helper(), [])?;
                let delegate = Delegate::new(&helper)?;
                let sent = delegate.resume(Resume::Send);
                self.state = DrainState::Helper(delegate);
                sent.map(without_result)
            }
        }
    }
}

/// A coroutine that returns nothing.
fn without_result(sent: Sent) -> Sent {
    match sent {
        Sent::Return(_) => Sent::Return(Obj::none()),
        sent @ Sent::Yield(_) => sent,
    }
}

impl Machine for Drain {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match &mut self.state {
            DrainState::Start => {
                self.writer.check_reader()?;
                if self.writer.is_closing()?.truth()? {
                    self.state = DrainState::Skipped;
                    return Ok(Sent::Yield(Obj::none()));
                }
                self.help()
            }
            DrainState::Skipped => match input {
                Resume::Send => self.help(),
                Resume::Throw(exception) => Err(Raised::restore(exception)),
            },
            DrainState::Waiting(drain) => drain.resume(input),
            DrainState::Helper(delegate) => delegate.resume(input).map(without_result),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.writer);
        match &self.state {
            DrainState::Start | DrainState::Skipped => {}
            DrainState::Waiting(drain) => drain.traverse(visit),
            DrainState::Helper(delegate) => visit.obj(delegate.awaited()),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.state {
            DrainState::Start | DrainState::Skipped => None,
            DrainState::Waiting(drain) => Some(drain.awaits()),
            DrainState::Helper(delegate) => Some(delegate.awaited().clone()),
        }
    }
}

/// `StreamWriter.wait_closed`.
enum WaitClosed {
    /// Not begun.
    Start(Ref<StreamWriter>),
    /// It waits for the protocol's future.
    Waiting(Waiter),
    /// It waits for what another `_get_close_waiter` gave.
    Other(Delegate),
}

impl WaitClosed {
    /// Up to the wait.
    fn start(&mut self, writer: &Ref<StreamWriter>) -> PyRes<Sent> {
        let protocol = writer.protocol.get_or_none();
        if let Some(native) = StreamReaderProtocol::class().cast(&protocol)
            && !native.overrides(GET_CLOSE_WAITER)
        {
            let mut waiter = Waiter::on(native.close_waiter()?);
            let sent = waiter.start();
            *self = Self::Waiting(waiter);
            return sent.map(without_result);
        }
        let waiter = protocol.method(names::get_close_waiter(), [writer.obj()])?;
        let delegate = Delegate::new(&waiter)?;
        let sent = delegate.resume(Resume::Send);
        *self = Self::Other(delegate);
        sent.map(without_result)
    }
}

impl Machine for WaitClosed {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match self {
            Self::Start(writer) => {
                let writer = writer.clone();
                self.start(&writer)
            }
            Self::Waiting(waiter) => waiter.resume(input).map(without_result),
            Self::Other(delegate) => delegate.resume(input).map(without_result),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Start(writer) => visit.native(writer),
            Self::Waiting(waiter) => waiter.traverse(visit),
            Self::Other(delegate) => visit.obj(delegate.awaited()),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Start(_) => None,
            Self::Waiting(waiter) => Some(waiter.future().clone()),
            Self::Other(delegate) => Some(delegate.awaited().clone()),
        }
    }
}

/// `StreamWriter.start_tls`.
struct StartTls {
    /// The writer.
    writer: Ref<StreamWriter>,
    /// The protocol at the start.
    protocol: Obj,
    /// `sslcontext`.
    context: Obj,
    /// `server_hostname`, `ssl_handshake_timeout` and `ssl_shutdown_timeout`.
    options: [Obj; 3],
    /// Is this the server's side?
    server_side: bool,
    /// Where it is.
    state: TlsState,
}

/// Where `start_tls` is.
enum TlsState {
    /// Not begun.
    Start,
    /// It drains.
    Draining(Delegate),
    /// The loop does it.
    Upgrading(Delegate),
}

impl StartTls {
    /// Looks at the protocol and drains.
    fn drain(&mut self) -> PyRes<Sent> {
        self.protocol = self.writer.protocol.get_or_none();
        let callback = self.protocol.getattr(names::client_connected_cb())?;
        self.server_side = !callback.is_none();
        let drain = if self.writer.overrides(DRAIN) {
            self.writer.obj().method(names::drain(), [])?
        } else {
            coroutine("StreamWriter.drain", drain_of(&self.writer))?.into_obj()
        };
        let delegate = Delegate::new(&drain)?;
        let sent = delegate.resume(Resume::Send);
        self.state = TlsState::Draining(delegate);
        self.drained(sent?)
    }

    /// A step of draining.
    fn drained(&mut self, sent: Sent) -> PyRes<Sent> {
        if let sent @ Sent::Yield(_) = sent {
            return Ok(sent);
        }
        let server_side = Obj::bool(self.server_side);
        let [hostname, handshake, shutdown] = &self.options;
        let upgrade = self.writer.loop_.get_or_none().method_kw(
            names::start_tls(),
            &[&self.writer.transport(), &self.protocol, &self.context],
            &[
                (names::server_side(), &server_side),
                (names::server_hostname(), hostname),
                (names::ssl_handshake_timeout(), handshake),
                (names::ssl_shutdown_timeout(), shutdown),
            ],
        )?;
        let delegate = Delegate::new(&upgrade)?;
        let sent = delegate.resume(Resume::Send);
        self.state = TlsState::Upgrading(delegate);
        self.upgraded(sent?)
    }

    /// A step of the handshake.
    fn upgraded(&self, sent: Sent) -> PyRes<Sent> {
        let transport = match sent {
            sent @ Sent::Yield(_) => return Ok(sent),
            Sent::Return(transport) => transport,
        };
        drop(self.writer.transport.replace(Some(transport.clone())));
        let replace = names::replace_transport();
        self.protocol.method(replace, [&transport])?;
        Ok(Sent::Return(Obj::none()))
    }
}

impl Machine for StartTls {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match &self.state {
            TlsState::Start => self.drain(),
            TlsState::Draining(delegate) => {
                let sent = delegate.resume(input)?;
                self.drained(sent)
            }
            TlsState::Upgrading(delegate) => {
                let sent = delegate.resume(input)?;
                self.upgraded(sent)
            }
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.writer);
        visit.obj(&self.protocol);
        visit.obj(&self.context);
        for option in &self.options {
            visit.obj(option);
        }
        match &self.state {
            TlsState::Start => {}
            TlsState::Draining(delegate) | TlsState::Upgrading(delegate) => {
                visit.obj(delegate.awaited());
            }
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.state {
            TlsState::Start => None,
            TlsState::Draining(delegate) | TlsState::Upgrading(delegate) => {
                Some(delegate.awaited().clone())
            }
        }
    }
}

/// The body of `drain()`.
#[inline]
fn drain_of(writer: &Ref<StreamWriter>) -> Drain {
    Drain {
        writer: writer.clone(),
        state: DrainState::Start,
    }
}

/// Adds the methods that hand on to the transport.
fn writing(builder: ClassBuilder<StreamWriter>) -> ClassBuilder<StreamWriter> {
    builder
        .method(
            "write(self, data)",
            "Sends data, or keeps it until it can be sent.",
            |this, args| this.write(args.req(0)),
        )
        .method(
            "writelines(self, data)",
            "Sends several pieces of data.",
            |this, args| this.write_lines(args.req(0)),
        )
        .method(
            "write_eof(self)",
            "Closes the writing end, once all is sent.",
            |this, _| this.transport().method(names::write_eof(), []),
        )
        .method(
            "can_write_eof(self)",
            "Can the writing end be closed alone?",
            |this, _| this.transport().method(names::can_write_eof(), []),
        )
        .method(
            "close(self)",
            "Closes the stream, once all is sent.",
            |this, _| this.close(),
        )
        .method(
            "is_closing(self)",
            "Is the stream closed, or about to be?",
            |this, _| this.is_closing(),
        )
        .method(
            "get_extra_info(self, name, default=None)",
            "What the transport says about itself.",
            |this, args| {
                let default = args.get(1).cloned().unwrap_or_else(Obj::none);
                this.transport()
                    .method(names::get_extra_info(), [args.req(0), &default])
            },
        )
}

/// Makes the class.
pub(super) fn make_class() -> PyRes {
    let builder = ClassBuilder::<StreamWriter>::new(
        "asyncio.streams",
        "StreamWriter",
        "The writing end of a stream.\n\nAfter `write()`, `await drain()` waits until there is room for more.",
    )
    .init("(self, transport, protocol, reader, loop)", |this, args| {
        this.initialize(args.req(0), args.req(1), args.req(2), args.req(3))
    })
    .repr(Ref::<StreamWriter>::repr_text);
    let builder = writing(builder)
        .coroutine("wait_closed(self)", "Waits until the stream is closed.", |this, _| {
            coroutine("StreamWriter.wait_closed", WaitClosed::Start(this.clone()))
        })
        .coroutine("drain(self)", "Waits until there is room to write more.", |this, _| {
            coroutine("StreamWriter.drain", drain_of(this))
        })
        .coroutine(
            "start_tls(self, sslcontext, *, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)",
            "Goes on with TLS over the same connection.",
            |this, args| {
                let option = |index| args.get(index).cloned().unwrap_or_else(Obj::none);
                coroutine("StreamWriter.start_tls", StartTls {
                    writer: this.clone(),
                    protocol: Obj::none(),
                    context: args.req(0).clone(),
                    options: [option(1), option(2), option(3)],
                    server_side: false,
                    state: TlsState::Start,
                })
            },
        )
        .property("transport", |this| Ok(this.transport.get()), |this, value| {
            Err(Raised::no_setter(this.obj(), "transport", value))
        })
        .property("_complete_fut", Ref::<StreamWriter>::completed, |this, value| {
            drop(this.complete.replace(value.cloned()));
            Ok(())
        });
    let class = builder
        .slot_property("_transport", |this| &this.transport)
        .slot_property("_protocol", |this| &this.protocol)
        .slot_property("_reader", |this| &this.reader)
        .slot_property("_loop", |this| &this.loop_)
        .build()?;
    OVERRIDABLE.remember(&class)?;
    Ok(class)
}
