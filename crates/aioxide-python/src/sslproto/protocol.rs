//! `SSLProtocol`: its state, its life between two transports, and what Python sees of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::events::{LoopRef, forks, leaves_the_loop};
use crate::ffi::{
    Builtin, Class, ClassBuilder, MemoryBio, Native, Obj, PyRes, Raised, Ref, Session, Slot, Visit,
    while_handling,
};
use crate::streams::is_stream_protocol;
use crate::waiter::{is_cancelled, set_exception, set_result};
use crate::water_marks::Limits;
use crate::{names, stdlib};

use super::transport;

/// How much asyncio has a transport receive at once, and decrypts at once.
pub(super) const MAX_SIZE: usize = 256 * 1024;
/// How much may be received and not decrypted.
const READ_HIGH: usize = 256 * 1024;
/// How much may wait to be sent.
const WRITE_HIGH: usize = 512 * 1024;

/// How far TLS is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not begun, or over.
    Unwrapped,
    /// In the handshake.
    DoHandshake,
    /// Data may flow.
    Wrapped,
    /// Closed by the application: data that came before is still read.
    Flushing,
    /// Only the end of TLS is waited for.
    Shutdown,
}

/// All states.
const STATES: [State; 5] = [
    State::Unwrapped,
    State::DoHandshake,
    State::Wrapped,
    State::Flushing,
    State::Shutdown,
];

impl State {
    /// Its name in `SSLProtocolState`.
    fn name(self) -> &'static str {
        match self {
            Self::Unwrapped => "UNWRAPPED",
            Self::DoHandshake => "DO_HANDSHAKE",
            Self::Wrapped => "WRAPPED",
            Self::Flushing => "FLUSHING",
            Self::Shutdown => "SHUTDOWN",
        }
    }
}

/// What the protocol above was told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AppState {
    /// Nothing.
    Init,
    /// `connection_made`.
    ConnectionMade,
    /// `eof_received`.
    Eof,
    /// `connection_lost`.
    ConnectionLost,
}

/// All of them.
const APP_STATES: [AppState; 4] = [
    AppState::Init,
    AppState::ConnectionMade,
    AppState::Eof,
    AppState::ConnectionLost,
];

impl AppState {
    /// Its name in `AppProtocolState`.
    fn name(self) -> &'static str {
        match self {
            Self::Init => "STATE_INIT",
            Self::ConnectionMade => "STATE_CON_MADE",
            Self::Eof => "STATE_EOF",
            Self::ConnectionLost => "STATE_CON_LOST",
        }
    }
}

/// How the protocol above takes data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// By `data_received`.
    Data,
    /// By `get_buffer` and `buffer_updated`.
    Buffered,
    /// Into the buffer of its stream reader, unless a method on the way is replaced.
    Stream,
}

/// The native insides of the `ssl` objects; each piece is missing if there are none.
pub(super) struct Insides {
    /// `_incoming`.
    pub(super) incoming: Option<MemoryBio>,
    /// `_outgoing`.
    pub(super) outgoing: Option<MemoryBio>,
    /// `_sslobj`, once data may flow and if it may flow directly.
    pub(super) session: Option<Session>,
}

/// The protocol between two transports.
pub(crate) struct SSLProtocol {
    /// The loop.
    pub(super) loop_: Slot,
    /// The protocol above; gone after `connection_lost`.
    pub(super) app_protocol: Slot,
    /// Its `get_buffer` and `buffer_updated`, if it takes data so.
    pub(super) buffer_methods: [Slot; 2],
    /// How it takes data.
    pub(super) delivery: Cell<Delivery>,
    /// The transport above; gone after `connection_lost`.
    pub(super) app_transport: Slot,
    /// Was there ever one?
    app_transport_created: Cell<bool>,
    /// The transport below, while connected.
    pub(super) transport: Slot,
    /// The `SSLContext`.
    sslcontext: Slot,
    /// The `SSLObject`.
    pub(super) sslobj: Slot,
    /// What is received.
    pub(super) incoming: Slot,
    /// What is to be sent.
    pub(super) outgoing: Slot,
    /// Their insides.
    pub(super) insides: RefCell<Insides>,
    /// Who waits for the handshake.
    waiter: Slot,
    /// Is this the server's side?
    server_side: Slot,
    /// Who the other side must be.
    server_hostname: Slot,
    /// What `get_extra_info` knows.
    pub(super) extra: Slot,
    /// Data that is not encrypted yet: exact `bytes`.
    pub(super) write_backlog: RefCell<VecDeque<Obj>>,
    /// How much that is.
    pub(super) write_buffer_size: Cell<usize>,
    /// The time limit of the handshake.
    pub(super) handshake_timeout: Slot,
    /// The time limit of the end of TLS.
    pub(super) shutdown_timeout: Slot,
    /// The handle of the first one.
    pub(super) handshake_timer: Slot,
    /// The handle of the second one.
    pub(super) shutdown_timer: Slot,
    /// When the handshake began, in debug mode.
    pub(super) handshake_start: Slot,
    /// How far TLS is.
    pub(super) state: Cell<State>,
    /// What the protocol above was told.
    pub(super) app_state: Cell<AppState>,
    /// Counts the end of the connection, and writes after it.
    pub(super) conn_lost: Cell<u32>,
    /// Did the transport below say `pause_writing`?
    pub(super) ssl_writing_paused: Cell<bool>,
    /// Was the transport below told `pause_reading`?
    pub(super) ssl_reading_paused: Cell<bool>,
    /// Did the application say `pause_reading`?
    pub(super) app_reading_paused: Cell<bool>,
    /// Was the application told `pause_writing`?
    pub(super) app_writing_paused: Cell<bool>,
    /// Did the transport below say `eof_received`?
    pub(super) eof_received: Cell<bool>,
    /// The water marks of what is received.
    pub(super) incoming_limits: Limits,
    /// The water marks of what is to be sent.
    pub(super) outgoing_limits: Limits,
    /// The `bytearray` for transports that are not native, made when one asks.
    ssl_buffer: Slot,
}

/// Where the class is kept.
static CLASS: Class<SSLProtocol> = Class::new();

impl Native for SSLProtocol {
    const FREELIST: usize = 64;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
            app_protocol: Slot::empty(),
            buffer_methods: [const { Slot::empty() }; 2],
            delivery: Cell::new(Delivery::Data),
            app_transport: Slot::empty(),
            app_transport_created: Cell::new(false),
            transport: Slot::empty(),
            sslcontext: Slot::empty(),
            sslobj: Slot::empty(),
            incoming: Slot::empty(),
            outgoing: Slot::empty(),
            insides: RefCell::new(Insides {
                incoming: None,
                outgoing: None,
                session: None,
            }),
            waiter: Slot::empty(),
            server_side: Slot::empty(),
            server_hostname: Slot::empty(),
            extra: Slot::empty(),
            write_backlog: RefCell::new(VecDeque::new()),
            write_buffer_size: Cell::new(0),
            handshake_timeout: Slot::empty(),
            shutdown_timeout: Slot::empty(),
            handshake_timer: Slot::empty(),
            shutdown_timer: Slot::empty(),
            handshake_start: Slot::empty(),
            state: Cell::new(State::Unwrapped),
            app_state: Cell::new(AppState::Init),
            conn_lost: Cell::new(0),
            ssl_writing_paused: Cell::new(false),
            ssl_reading_paused: Cell::new(false),
            app_reading_paused: Cell::new(false),
            app_writing_paused: Cell::new(false),
            eof_received: Cell::new(false),
            incoming_limits: Limits::inclusive(READ_HIGH),
            outgoing_limits: Limits::inclusive(WRITE_HIGH),
            ssl_buffer: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        for slot in self.slots() {
            visit.slot(slot);
        }
        self.incoming_limits.traverse(visit);
        self.outgoing_limits.traverse(visit);
        if let Ok(insides) = self.insides.try_borrow() {
            for bio in insides.incoming.iter().chain(&insides.outgoing) {
                visit.obj(bio.object());
            }
            if let Some(session) = &insides.session {
                visit.obj(session.object());
            }
        }
        if let Ok(backlog) = self.write_backlog.try_borrow() {
            backlog.iter().for_each(|data| visit.obj(data));
        }
    }

    fn clear(&self) {
        self.slots().into_iter().for_each(Slot::clear);
        self.incoming_limits.clear();
        self.outgoing_limits.clear();
        self.forget_insides();
    }
}

impl SSLProtocol {
    /// Everything that a slot holds.
    fn slots(&self) -> [&Slot; 20] {
        [
            &self.loop_,
            &self.app_protocol,
            &self.buffer_methods[0],
            &self.buffer_methods[1],
            &self.app_transport,
            &self.transport,
            &self.sslcontext,
            &self.sslobj,
            &self.incoming,
            &self.outgoing,
            &self.waiter,
            &self.server_side,
            &self.server_hostname,
            &self.extra,
            &self.handshake_timeout,
            &self.shutdown_timeout,
            &self.handshake_timer,
            &self.shutdown_timer,
            &self.handshake_start,
            &self.ssl_buffer,
        ]
    }

    /// Lets go of the insides: one of the objects is another one now.
    fn forget_insides(&self) {
        let none = Insides {
            incoming: None,
            outgoing: None,
            session: None,
        };
        let before = self.insides.replace(none);
        drop(before);
    }

    /// The session, if data flows directly.
    #[inline]
    pub(super) fn session(&self) -> Option<Session> {
        self.insides.borrow().session.clone()
    }

    /// The inside of `_incoming`.
    #[inline]
    pub(super) fn incoming_bio(&self) -> Option<MemoryBio> {
        self.insides.borrow().incoming.clone()
    }

    /// The inside of `_outgoing`.
    #[inline]
    pub(super) fn outgoing_bio(&self) -> Option<MemoryBio> {
        self.insides.borrow().outgoing.clone()
    }
}

/// The arguments of the constructor.
struct Init<'a> {
    /// The loop.
    loop_: &'a Obj,
    /// The protocol above.
    app_protocol: &'a Obj,
    /// The `SSLContext`, or nothing.
    sslcontext: &'a Obj,
    /// Who waits for the handshake.
    waiter: Option<&'a Obj>,
    /// Is this the server's side?
    server_side: Obj,
    /// Who the other side must be.
    server_hostname: Option<&'a Obj>,
    /// Shall `connection_made` be called?
    call_connection_made: bool,
    /// The time limit of the handshake.
    handshake_timeout: Option<&'a Obj>,
    /// The time limit of the end of TLS.
    shutdown_timeout: Option<&'a Obj>,
}

/// A time limit: positive, or asyncio's default.
fn time_limit(name: &str, given: Option<&Obj>, default: &str) -> PyRes {
    let Some(given) = given else {
        return stdlib::constants()?.getattr_str(default);
    };
    if given.less_or_equal(&Obj::int(0)?)? {
        return Err(Raised::value_error(&format!(
            "{name} should be a positive number, got {}",
            given.to_str()?.text()?
        )));
    }
    Ok(given.clone())
}

/// The module `ssl`, where asyncio's own code would find it.
fn ssl_module() -> PyRes {
    let module = stdlib::sslproto_module()?.getattr_str("ssl")?;
    if module.is_none() {
        return Err(Raised::runtime_error("stdlib ssl module not available"));
    }
    Ok(module)
}

/// Cancels a time limit.
pub(super) fn cancel_timer(timer: &Slot) -> PyRes<()> {
    match timer.take() {
        Some(handle) => handle.method(names::cancel(), []).map(drop),
        None => Ok(()),
    }
}

impl Ref<SSLProtocol> {
    /// `__init__`.
    fn initialize(&self, init: &Init<'_>) -> PyRes<()> {
        let ssl = ssl_module()?;
        let handshake_timeout = time_limit(
            "ssl_handshake_timeout",
            init.handshake_timeout,
            "SSL_HANDSHAKE_TIMEOUT",
        )?;
        let shutdown_timeout = time_limit(
            "ssl_shutdown_timeout",
            init.shutdown_timeout,
            "SSL_SHUTDOWN_TIMEOUT",
        )?;
        let hostname = init.server_hostname.cloned().unwrap_or_else(Obj::none);
        let sslcontext = if init.sslcontext.truth()? {
            init.sslcontext.clone()
        } else {
            stdlib::sslproto_module()?
                .getattr_str("_create_transport_context")?
                .call([&init.server_side, &hostname])?
        };
        let named = hostname.truth()? && !init.server_side.truth()?;
        let hostname = if named { hostname } else { Obj::none() };
        let extra = Obj::dict()?;
        extra.set_item(names::sslcontext(), &sslcontext)?;
        self.server_side.set(init.server_side.clone());
        self.server_hostname.set(hostname.clone());
        self.sslcontext.set(sslcontext.clone());
        self.extra.set(extra);
        drop(self.waiter.replace(init.waiter.cloned()));
        self.loop_.set(init.loop_.clone());
        self.set_app_protocol(init.app_protocol)?;
        self.handshake_timeout.set(handshake_timeout);
        self.shutdown_timeout.set(shutdown_timeout);
        self.app_state.set(if init.call_connection_made {
            AppState::Init
        } else {
            AppState::ConnectionMade
        });
        let class = ssl.getattr_str("MemoryBIO")?;
        let (incoming, outgoing) = (class.call([])?, class.call([])?);
        let sslobj = sslcontext.method_kw(
            names::wrap_bio(),
            &[&incoming, &outgoing],
            &[
                (names::server_side(), &init.server_side),
                (names::server_hostname(), &hostname),
            ],
        )?;
        let insides = Insides {
            incoming: MemoryBio::new(&incoming),
            outgoing: MemoryBio::new(&outgoing),
            session: None,
        };
        self.incoming.set(incoming);
        self.outgoing.set(outgoing);
        self.sslobj.set(sslobj);
        let before = self.insides.replace(insides);
        drop(before);
        self.current_app_transport().map(drop)
    }

    /// The loop.
    #[inline]
    pub(super) fn loop_ref(&self) -> LoopRef {
        LoopRef::new(&self.loop_.get_or_none())
    }

    /// The `SSLObject`.
    pub(super) fn current_sslobj(&self) -> Obj {
        self.sslobj.get_or_none()
    }

    /// Calls a method of the `SSLObject`.
    ///
    /// Differs: a child that was forked in the middle of it, as by a callback for the server's name, leaves the connection
    /// to its parent. Both hold the same half of a message, and only one may send it.
    pub(super) fn ask_ssl<const N: usize>(&self, method: &Obj, args: [&Obj; N]) -> PyRes {
        let known = forks();
        let outcome = self.current_sslobj().method(method, args);
        if forks() == known {
            return outcome;
        }
        let leaving = match outcome {
            Err(raised) if leaves_the_loop(&raised) => Some(raised.take()),
            Err(raised) => {
                raised.discard();
                None
            }
            Ok(_) => None,
        };
        let text = "forked while TLS was at work: the connection is the parent's";
        let error = Builtin::ConnectionAborted.instance(text)?;
        self.set_state(State::Unwrapped)?;
        self.fatal_error(&error, text)?;
        self.wakeup_waiter(Some(&error))?;
        if let Some(leaving) = leaving {
            return Err(Raised::restore(leaving));
        }
        // What the caller does about it is nothing.
        Err(Raised::bare(stdlib::ssl_want_read_error()?))
    }

    /// `_set_app_protocol`.
    pub(super) fn set_app_protocol(&self, protocol: &Obj) -> PyRes<()> {
        let delivery = if is_stream_protocol(protocol) {
            Delivery::Stream
        } else if protocol.isinstance(stdlib::buffered_protocol()?)? {
            self.buffer_methods[0].set(protocol.getattr(names::get_buffer())?);
            self.buffer_methods[1].set(protocol.getattr(names::buffer_updated())?);
            Delivery::Buffered
        } else {
            Delivery::Data
        };
        self.delivery.set(delivery);
        self.app_protocol.set(protocol.clone());
        Ok(())
    }

    /// `_wakeup_waiter`.
    pub(super) fn wakeup_waiter(&self, exception: Option<&Obj>) -> PyRes<()> {
        let Some(waiter) = self.waiter.get() else {
            return Ok(());
        };
        if !is_cancelled(&waiter)? {
            match exception {
                Some(exception) => set_exception(&waiter, exception)?,
                None => set_result(&waiter, Obj::none())?,
            }
        }
        self.waiter.clear();
        Ok(())
    }

    /// `_get_app_transport`.
    pub(super) fn current_app_transport(&self) -> PyRes {
        if let Some(transport) = self.app_transport.get() {
            return Ok(transport);
        }
        if self.app_transport_created.get() {
            return Err(Raised::runtime_error(
                "Creating _SSLProtocolTransport twice",
            ));
        }
        let made = transport::create(&self.loop_.get_or_none(), self)?;
        self.app_transport.set(made.clone());
        self.app_transport_created.set(true);
        Ok(made)
    }

    /// `_is_transport_closing`.
    pub(super) fn is_transport_closing(&self) -> PyRes<bool> {
        match self.transport.get() {
            Some(transport) => transport.method(names::is_closing(), [])?.truth(),
            None => Ok(false),
        }
    }

    /// `connection_made`: begins the handshake.
    fn connection_made(&self, transport: &Obj) -> PyRes<()> {
        self.transport.set(transport.clone());
        self.start_handshake()
    }

    /// `connection_lost`.
    fn connection_lost(&self, exception: &Obj) -> PyRes<()> {
        let backlog = std::mem::take(&mut *self.write_backlog.borrow_mut());
        drop(backlog);
        self.outgoing.get_or_none().method(names::read(), [])?;
        self.conn_lost.set(self.conn_lost.get().saturating_add(1));
        if let Some(transport) = self.app_transport.get() {
            transport::mark_closed(&transport)?;
        }
        let told = matches!(
            self.app_state.get(),
            AppState::ConnectionMade | AppState::Eof
        );
        if self.state.get() != State::DoHandshake && told {
            self.app_state.set(AppState::ConnectionLost);
            let lost = self
                .app_protocol
                .get_or_none()
                .getattr(names::connection_lost())?;
            self.loop_ref().call_soon(&lost, &[exception], None)?;
        }
        self.state.set(State::Unwrapped);
        self.transport.clear();
        self.app_transport.clear();
        self.app_protocol.clear();
        self.buffer_methods.iter().for_each(Slot::clear);
        self.wakeup_waiter((!exception.is_none()).then_some(exception))?;
        cancel_timer(&self.shutdown_timer)?;
        cancel_timer(&self.handshake_timer)
    }

    /// `_get_extra_info`.
    pub(super) fn extra_info(&self, name: &Obj, default: &Obj) -> PyRes {
        if let Some(extra) = self.extra.get()
            && let Some(found) = extra.dict_get(name)?
        {
            return Ok(found);
        }
        match self.transport.get() {
            Some(transport) => transport.method(names::get_extra_info(), [name, default]),
            None => Ok(default.clone()),
        }
    }

    /// `_set_state`.
    pub(super) fn set_state(&self, new: State) -> PyRes<()> {
        let allowed = matches!(
            (self.state.get(), new),
            (_, State::Unwrapped)
                | (State::Unwrapped, State::DoHandshake)
                | (State::DoHandshake, State::Wrapped)
                | (State::Wrapped, State::Flushing)
                | (State::Flushing, State::Shutdown)
        );
        if !allowed {
            return Err(Raised::runtime_error(&format!(
                "cannot switch state from SSLProtocolState.{} to SSLProtocolState.{}",
                self.state.get().name(),
                new.name()
            )));
        }
        self.state.set(new);
        Ok(())
    }

    /// Has another method of this object called in the next turn.
    pub(super) fn call_soon(&self, method: &Obj) -> PyRes<()> {
        let callback = self.obj().getattr(method)?;
        self.loop_ref().call_soon(&callback, &[], None).map(drop)
    }

    /// Logs a line in debug mode.
    pub(super) fn log_in_debug(&self, text: &str) -> PyRes<()> {
        if self.loop_ref().debug()? {
            stdlib::logger()?.method(names::debug(), [&Obj::str(text)?, self.obj()])?;
        }
        Ok(())
    }

    /// An `Exception` ends the connection; anything else goes on.
    pub(super) fn or_fatal(&self, outcome: PyRes<()>, message: &str) -> PyRes<()> {
        match outcome {
            Err(raised) if raised.is(Builtin::Exception) => {
                let exception = raised.take();
                while_handling(&exception, || self.fatal_error(&exception, message))
            }
            outcome => outcome,
        }
    }

    /// `_fatal_error`.
    pub(super) fn fatal_error(&self, exception: &Obj, message: &str) -> PyRes<()> {
        let transport = self.transport.get();
        if let Some(transport) = &transport
            && transport.truth()?
        {
            transport.method(names::force_close(), [exception])?;
        }
        if Builtin::Os.is_class_of(exception) {
            if self.loop_ref().debug()? {
                stdlib::logger()?.method_kw(
                    names::debug(),
                    &[&Obj::str("%r: %s")?, self.obj(), &Obj::str(message)?],
                    &[(names::exc_info(), exception)],
                )?;
            }
            return Ok(());
        }
        if exception.isinstance(stdlib::cancelled_error()?)? {
            return Ok(());
        }
        let context = Obj::dict()?;
        context.set_item(names::message(), &Obj::str(message)?)?;
        context.set_item(names::exception(), exception)?;
        context.set_item(names::transport(), &transport.unwrap_or_else(Obj::none))?;
        context.set_item(names::protocol(), self.obj())?;
        self.loop_ref().call_exception_handler(&context)
    }

    /// `_ssl_buffer`.
    fn visible_buffer(&self) -> PyRes {
        if let Some(buffer) = self.ssl_buffer.get() {
            return Ok(buffer);
        }
        let size = Obj::int(i64::try_from(MAX_SIZE).unwrap_or(i64::MAX))?;
        let buffer = stdlib::bytearray()?.call([&size])?;
        self.ssl_buffer.set(buffer.clone());
        Ok(buffer)
    }

    /// `buffer_updated`: as much was received into the buffer.
    fn buffer_updated(&self, count: &Obj) -> PyRes<()> {
        let view = stdlib::memoryview()?.call([&self.visible_buffer()?])?;
        let part = view.item(&stdlib::slice()?.call([count])?)?;
        self.incoming
            .get_or_none()
            .method(names::write(), [&part])?;
        drop((part, view));
        self.updated()
    }
}

/// A property that shows a slot; assigning another object drops what is known of the insides.
macro_rules! inner_property {
    ($builder:expr, $name:literal, $field:ident) => {
        $builder.property(
            $name,
            |this| Ok(this.$field.get()),
            |this, value| {
                drop(this.$field.replace(value.cloned()));
                this.forget_insides();
                Ok(())
            },
        )
    };
}

/// Private methods without arguments.
macro_rules! private_methods {
    ($builder:expr, $($signature:literal, $doc:literal => $body:expr;)+) => {
        $builder$(.method($signature, $doc, |this, _| {
            let body: fn(&Ref<SSLProtocol>) -> PyRes<()> = $body;
            body(this)
        }))+
    };
}

/// The member of an enumeration.
fn member(class: &Obj, name: &str) -> PyRes {
    class.getattr_str(name)
}

/// Adds what transports call.
fn called_by_transports(builder: ClassBuilder<SSLProtocol>) -> ClassBuilder<SSLProtocol> {
    builder
        .method(
            "connection_made(self, transport)",
            "The connection below is made: the handshake begins.",
            |this, args| this.connection_made(args.req(0)),
        )
        .method(
            "connection_lost(self, exc)",
            "The connection below is closed, or lost by an error.",
            |this, args| this.connection_lost(args.req(0)),
        )
        .method(
            "get_buffer(self, n)",
            "Where the transport below is to put what it receives.",
            |this, _| stdlib::memoryview()?.call([&this.visible_buffer()?]),
        )
        .method(
            "buffer_updated(self, nbytes)",
            "So many bytes were received.",
            |this, args| this.buffer_updated(args.req(0)),
        )
        .method(
            "eof_received(self)",
            "The other side sends no more.",
            |this, _| this.lower_eof_received(),
        )
        .method(
            "pause_writing(self)",
            "The buffer of the transport below is full.",
            |this, _| {
                if this.ssl_writing_paused.replace(true) {
                    return Err(Builtin::Assertion.raise_bare());
                }
                Ok(())
            },
        )
        .method(
            "resume_writing(self)",
            "The buffer of the transport below has room.",
            |this, _| {
                if !this.ssl_writing_paused.replace(false) {
                    return Err(Builtin::Assertion.raise_bare());
                }
                this.process_outgoing()
            },
        )
}

/// Adds the methods that have no arguments.
fn private_without_arguments(builder: ClassBuilder<SSLProtocol>) -> ClassBuilder<SSLProtocol> {
    private_methods!(
        builder,
        "_start_handshake(self)", "Begins the handshake." => Ref::start_handshake;
        "_check_handshake_timeout(self)", "Ends a handshake that takes too long." => Ref::check_handshake_timeout;
        "_do_handshake(self)", "Goes on with the handshake." => Ref::do_handshake;
        "_start_shutdown(self)", "Begins the end of TLS." => Ref::start_shutdown;
        "_check_shutdown_timeout(self)", "Ends a shutdown that takes too long." => Ref::check_shutdown_timeout;
        "_do_flush(self)", "Reads what came before the end." => Ref::do_flush;
        "_do_shutdown(self)", "Goes on with the end of TLS." => Ref::do_shutdown;
        "_do_write(self)", "Encrypts what waits." => Ref::do_write;
        "_process_outgoing(self)", "Sends what is encrypted." => Ref::process_outgoing;
        "_do_read(self)", "Decrypts what is received." => Ref::do_read;
        "_call_eof_received(self)", "Tells the protocol above of the end." => Ref::call_eof_received;
        "_control_app_writing(self)", "Tells the protocol above to pause or resume." => Ref::control_app_writing;
        "_control_ssl_reading(self)", "Tells the transport below to pause or resume." => Ref::control_ssl_reading;
        "_resume_reading(self)", "The application wants data again." => Ref::resume_app_reading;
        "_resume(self)", "Gives the application what waited." => Ref::read_again;
    )
    .method(
        "_pause_reading(self)",
        "The application wants no more data.",
        |this, _| {
            this.app_reading_paused.set(true);
            Ok(())
        },
    )
    .method(
        "_get_app_transport(self)",
        "The transport for the protocol above.",
        |this, _| this.current_app_transport(),
    )
    .method(
        "_is_transport_closing(self)",
        "Is the transport below closed, or about to be?",
        |this, _| this.is_transport_closing(),
    )
    .method(
        "_get_write_buffer_size(self)",
        "How many bytes wait to be sent.",
        |this, _| this.total_write_buffer_size(),
    )
    .method(
        "_get_read_buffer_size(self)",
        "How many bytes are received and not decrypted.",
        |this, _| this.read_buffer_size(),
    )
}

/// Adds the methods that have arguments.
fn private_with_arguments(builder: ClassBuilder<SSLProtocol>) -> ClassBuilder<SSLProtocol> {
    builder
        .method(
            "_set_app_protocol(self, app_protocol)",
            "Sets another protocol above.",
            |this, args| this.set_app_protocol(args.req(0)),
        )
        .method(
            "_wakeup_waiter(self, exc=None)",
            "Tells who waits for the handshake.",
            |this, args| this.wakeup_waiter(args.some(0)),
        )
        .method(
            "_get_extra_info(self, name, default=None)",
            "What is known of the connection.",
            |this, args| {
                let none = Obj::none();
                this.extra_info(args.req(0), args.get(1).unwrap_or(&none))
            },
        )
        .method(
            "_on_handshake_complete(self, handshake_exc)",
            "The handshake is over.",
            |this, args| this.on_handshake_complete(args.some(0)),
        )
        .method(
            "_on_shutdown_complete(self, shutdown_exc)",
            "TLS is over.",
            |this, args| this.on_shutdown_complete(args.some(0)),
        )
        .method(
            "_abort(self, exc)",
            "Closes the connection below at once.",
            |this, args| this.abort(args.req(0)),
        )
        .method(
            "_write_appdata(self, list_of_data)",
            "Encrypts and sends pieces of bytes.",
            |this, args| this.write_lines(args.req(0)),
        )
        .method(
            "_set_write_buffer_limits(self, high=None, low=None)",
            "Sets the water marks of what is to be sent.",
            |this, args| this.outgoing_limits.set(args.some(0), args.some(1)),
        )
        .method(
            "_set_read_buffer_limits(self, high=None, low=None)",
            "Sets the water marks of what is received.",
            |this, args| this.incoming_limits.set(args.some(0), args.some(1)),
        )
        .method(
            "_fatal_error(self, exc, message='Fatal error on transport')",
            "Reports an error and closes the connection below at once.",
            |this, args| {
                let message = match args.get(1) {
                    Some(message) => message.to_str()?.text()?,
                    None => String::from("Fatal error on transport"),
                };
                this.fatal_error(args.req(0), &message)
            },
        )
}

/// Adds what is looked at from outside.
fn attributes(builder: ClassBuilder<SSLProtocol>) -> ClassBuilder<SSLProtocol> {
    let builder = inner_property!(builder, "_sslobj", sslobj);
    let builder = inner_property!(builder, "_incoming", incoming);
    let builder = inner_property!(builder, "_outgoing", outgoing);
    builder
        .slot_property("_loop", |this| &this.loop_)
        .slot_property("_app_transport", |this| &this.app_transport)
        .slot_property("_transport", |this| &this.transport)
        .slot_property("_waiter", |this| &this.waiter)
        .slot_property("_sslcontext", |this| &this.sslcontext)
        .slot_property("_extra", |this| &this.extra)
        .slot_property("_server_side", |this| &this.server_side)
        .slot_property("_server_hostname", |this| &this.server_hostname)
        .slot_property("_ssl_handshake_timeout", |this| &this.handshake_timeout)
        .slot_property("_ssl_shutdown_timeout", |this| &this.shutdown_timeout)
        .slot_property("_handshake_timeout_handle", |this| &this.handshake_timer)
        .slot_property("_shutdown_timeout_handle", |this| &this.shutdown_timer)
        .slot_property("_handshake_start_time", |this| &this.handshake_start)
        .flag_property("_ssl_writing_paused", |this| &this.ssl_writing_paused)
        .flag_property("_ssl_reading_paused", |this| &this.ssl_reading_paused)
        .flag_property("_app_reading_paused", |this| &this.app_reading_paused)
        .flag_property("_app_writing_paused", |this| &this.app_writing_paused)
        .flag_property("_eof_received", |this| &this.eof_received)
        .flag_property("_app_transport_created", |this| &this.app_transport_created)
        .property(
            "_app_protocol",
            |this| Ok(this.app_protocol.get()),
            |this, value| {
                if let Some(protocol) = value.filter(|value| !value.is_none()) {
                    return this.set_app_protocol(protocol);
                }
                this.app_protocol.clear();
                Ok(())
            },
        )
        .property(
            "_state",
            |this| member(stdlib::ssl_protocol_state()?, this.state.get().name()),
            |this, value| {
                let none = Obj::none();
                let name = value.unwrap_or(&none).getattr_str("name")?.text()?;
                let found = STATES.into_iter().find(|state| state.name() == name);
                this.state.set(found.unwrap_or(this.state.get()));
                Ok(())
            },
        )
        .property(
            "_app_state",
            |this| member(stdlib::app_protocol_state()?, this.app_state.get().name()),
            |this, value| {
                let none = Obj::none();
                let name = value.unwrap_or(&none).getattr_str("name")?.text()?;
                let found = APP_STATES.into_iter().find(|state| state.name() == name);
                this.app_state.set(found.unwrap_or(this.app_state.get()));
                Ok(())
            },
        )
        .getter("_app_protocol_is_buffer", |this| {
            Ok(this.delivery.get() == Delivery::Buffered)
        })
        .getter("_conn_lost", |this| Obj::int(this.conn_lost.get().into()))
        .getter("_ssl_buffer", Ref::visible_buffer)
        .getter("_ssl_buffer_view", |this| {
            stdlib::memoryview()?.call([&this.visible_buffer()?])
        })
        .getter("_write_backlog", |this| {
            let items: Vec<Obj> = this.write_backlog.borrow().iter().cloned().collect();
            stdlib::deque()?.call([&Obj::list(items)?])
        })
        .getter("_write_buffer_size", |this| {
            Ok(this.write_buffer_size.get())
        })
        .getter("_incoming_high_water", |this| this.incoming_limits.one(1))
        .getter("_incoming_low_water", |this| this.incoming_limits.one(0))
        .getter("_outgoing_high_water", |this| this.outgoing_limits.one(1))
        .getter("_outgoing_low_water", |this| this.outgoing_limits.one(0))
        .getter("_native_data", |this| Ok(this.session().is_some()))
}

/// Makes the class.
pub(super) fn make_class() -> PyRes {
    let size = Obj::int(i64::try_from(MAX_SIZE).unwrap_or(i64::MAX))?;
    let builder = ClassBuilder::<SSLProtocol>::new(
        "asyncio.sslproto",
        "SSLProtocol",
        "TLS between a transport and a protocol.",
    )
    .base(stdlib::buffered_protocol()?.clone())
    .init(
        "(self, loop, app_protocol, sslcontext, waiter, server_side=False, server_hostname=None, call_connection_made=True, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)",
        |this, args| {
            this.initialize(&Init {
                loop_: args.req(0),
                app_protocol: args.req(1),
                sslcontext: args.req(2),
                waiter: args.some(3),
                server_side: args.get(4).cloned().unwrap_or_else(|| Obj::bool(false)),
                server_hostname: args.some(5),
                call_connection_made: args.truth(6, true)?,
                handshake_timeout: args.some(7),
                shutdown_timeout: args.some(8),
            })
        },
    )
    .attribute("max_size", size);
    let builder = private_without_arguments(called_by_transports(builder));
    attributes(private_with_arguments(builder)).build()
}
