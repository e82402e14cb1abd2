//! TLS over transports, and `start_tls`.

use crate::events::EventLoop;
use crate::ffi::{
    Args, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Visit, copy_current_context, finally,
};
use crate::sslproto::SSLProtocol;
use crate::waiter::create_future;
use crate::{names, stdlib};

use super::descriptors::ensure_fd_no_transport;
use super::steps::{Next, Steps, in_steps};
use crate::selector_events::make_socket_transport;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .method(
            "_make_ssl_transport(self, rawsock, protocol, sslcontext, waiter=None, *, server_side=False, server_hostname=None, extra=None, server=None, ssl_handshake_timeout=60.0, ssl_shutdown_timeout=30.0, context=None)",
            "Makes a TLS transport over a connected socket.",
            make_ssl_transport,
        )
        .coroutine(
            "start_tls(self, transport, protocol, sslcontext, *, server_side=False, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)",
            "Upgrades a connection to TLS. Returns the transport to be used from now on.",
            |this, args| {
                let kept = |index: usize| args.get(index).cloned().unwrap_or_else(Obj::none);
                in_steps(
                    "BaseEventLoop.start_tls",
                    StartTls {
                        loop_: this.clone(),
                        transport: kept(0),
                        protocol: kept(1),
                        sslcontext: kept(2),
                        server_side: args.get(3).cloned().unwrap_or_else(|| Obj::bool(false)),
                        server_hostname: kept(4),
                        ssl_handshake_timeout: kept(5),
                        ssl_shutdown_timeout: kept(6),
                        started: None,
                    },
                )
            },
        )
}

/// Python's `ssl`, where the loop's own code in CPython would find it; `None` if it cannot be imported.
fn ssl_module() -> PyRes<Option<Obj>> {
    let module = stdlib::base_events_module()?.getattr_str("ssl")?;
    Ok((!module.is_none()).then_some(module))
}

/// The native `SSLProtocol`, unless somebody has put another one in the place of asyncio's.
fn ssl_protocol_class() -> PyRes {
    let bound = stdlib::sslproto_module()?.getattr_str("SSLProtocol")?;
    Ok(if bound.is(stdlib::ssl_protocol()?) {
        SSLProtocol::class().object()
    } else {
        bound
    })
}

/// `_check_ssl_socket`: refuses sockets that do TLS themselves.
pub(super) fn check_ssl_socket(sock: &Obj) -> PyRes<()> {
    if let Some(ssl) = ssl_module()?
        && sock.isinstance(&ssl.getattr_str("SSLSocket")?)?
    {
        return Err(Raised::type_error("Socket cannot be of type SSLSocket"));
    }
    Ok(())
}

/// Refuses a time limit of TLS without TLS.
pub(super) fn only_with_ssl(name: &str, value: Option<&Obj>, with_ssl: bool) -> PyRes<()> {
    if value.is_some() && !with_ssl {
        return Err(Raised::value_error(&format!(
            "{name} is only meaningful with ssl"
        )));
    }
    Ok(())
}

/// `_make_ssl_transport`.
fn make_ssl_transport(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes {
    let none = Obj::none();
    let or_none = |index: usize| args.get(index).unwrap_or(&none);
    ensure_fd_no_transport(this, args.req(0))?;
    let context = match args.some(10) {
        Some(context) => context.clone(),
        None => copy_current_context()?,
    };
    let server_side = args.get(4).cloned().unwrap_or_else(|| Obj::bool(false));
    let ssl_protocol = ssl_protocol_class()?.call_kw(
        &[
            this.obj(),
            args.req(1),
            args.req(2),
            or_none(3),
            &server_side,
            or_none(5),
        ],
        &[
            (names::ssl_handshake_timeout(), or_none(8)),
            (names::ssl_shutdown_timeout(), or_none(9)),
        ],
    )?;
    make_socket_transport(
        this,
        args.req(0),
        &ssl_protocol,
        None,
        args.some(6),
        args.some(7),
        context,
    )?;
    ssl_protocol.getattr(names::app_transport())
}

/// The body of `start_tls`.
struct StartTls {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The transport to be upgraded.
    transport: Obj,
    /// Its protocol.
    protocol: Obj,
    /// The `SSLContext`.
    sslcontext: Obj,
    /// Is this the server's side?
    server_side: Obj,
    /// Who the other side must be, or `None`.
    server_hostname: Obj,
    /// The time limit of the handshake, or `None`.
    ssl_handshake_timeout: Obj,
    /// The time limit of the end of TLS, or `None`.
    ssl_shutdown_timeout: Obj,
    /// Once the handshake goes on: the TLS protocol and the handles of what was scheduled.
    started: Option<[Obj; 3]>,
}

impl StartTls {
    /// Puts the TLS protocol between transport and protocol.
    fn start(&mut self) -> PyRes<Next> {
        let Some(ssl) = ssl_module()? else {
            return Err(Raised::runtime_error("Python ssl module is not available"));
        };
        if !self
            .sslcontext
            .isinstance(&ssl.getattr_str("SSLContext")?)?
        {
            return Err(Raised::type_error(&format!(
                "sslcontext is expected to be an instance of ssl.SSLContext, got {}",
                self.sslcontext.repr()?
            )));
        }
        let compatible = self
            .transport
            .getattr_opt(&Obj::str("_start_tls_compatible")?)?;
        if !compatible.map_or(Ok(false), |compatible| compatible.truth())? {
            return Err(Raised::type_error(&format!(
                "transport {} is not supported by start_tls()",
                self.transport.repr()?
            )));
        }
        let waiter = create_future(self.loop_.obj())?;
        let ssl_protocol = ssl_protocol_class()?.call_kw(
            &[
                self.loop_.obj(),
                &self.protocol,
                &self.sslcontext,
                &waiter,
                &self.server_side,
                &self.server_hostname,
            ],
            &[
                (names::ssl_handshake_timeout(), &self.ssl_handshake_timeout),
                (names::ssl_shutdown_timeout(), &self.ssl_shutdown_timeout),
                (names::call_connection_made(), &Obj::bool(false)),
            ],
        )?;
        // Early, so that no data comes before the protocol knows of its connection.
        self.transport.method(names::pause_reading(), [])?;
        if self.server_side.truth()? {
            self.take_buffered(&ssl_protocol)?;
        }
        self.transport
            .method(names::set_protocol(), [&ssl_protocol])?;
        let loop_ = self.loop_.obj();
        let made = ssl_protocol.getattr(names::connection_made())?;
        let made = loop_.method(names::call_soon(), [&made, &self.transport])?;
        let resume = self.transport.getattr(names::resume_reading())?;
        let resume = loop_.method(names::call_soon(), [&resume])?;
        self.started = Some([ssl_protocol, made, resume]);
        Ok(Next::Await(waiter))
    }

    /// What a stream reader has received already is the beginning of the handshake.
    fn take_buffered(&self, ssl_protocol: &Obj) -> PyRes<()> {
        let class = stdlib::streams_module()?.getattr_str("StreamReaderProtocol")?;
        if !self.protocol.isinstance(&class)? {
            return Ok(());
        }
        let Some(reader) = self
            .protocol
            .getattr_opt(&Obj::str("_stream_reader")?)?
            .filter(|reader| !reader.is_none())
        else {
            return Ok(());
        };
        let buffer = reader.getattr_str("_buffer")?;
        if buffer.truth()? {
            ssl_protocol
                .getattr_str("_incoming")?
                .getattr_str("write")?
                .call([&buffer])?;
            buffer.method(names::clear(), [])?;
        }
        Ok(())
    }
}

impl Steps for StartTls {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let Some([ssl_protocol, made, resume]) = self.started.take() else {
            outcome?;
            return self.start();
        };
        match outcome {
            Ok(_) => ssl_protocol.getattr(names::app_transport()).map(Next::Done),
            Err(raised) => finally(Err(raised), || {
                self.transport.method(names::close(), [])?;
                made.method(names::cancel(), [])?;
                resume.method(names::cancel(), []).map(drop)
            }),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for object in [
            &self.transport,
            &self.protocol,
            &self.sslcontext,
            &self.server_side,
            &self.server_hostname,
            &self.ssl_handshake_timeout,
            &self.ssl_shutdown_timeout,
        ] {
            visit.obj(object);
        }
        self.started
            .iter()
            .flatten()
            .for_each(|object| visit.obj(object));
    }
}
