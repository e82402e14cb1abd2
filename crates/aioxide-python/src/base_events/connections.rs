//! `create_connection` and `connect_accepted_socket`.

use crate::coroutines::Coroutine;
use crate::events::EventLoop;
use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    copy_current_context, finally,
};
use crate::waiter::create_future;
use crate::{names, staggered, stdlib};

use super::descriptors::ensure_fd_no_transport;
use super::sock_calls::{part, unpack};
use super::steps::{Next, Steps, in_steps};
use super::tls::{check_ssl_socket, only_with_ssl};
use crate::selector_events::make_socket_transport;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            "create_connection(self, protocol_factory, host=None, port=None, *, ssl=None, family=0, proto=0, flags=0, sock=None, local_addr=None, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, happy_eyeballs_delay=None, interleave=None, all_errors=False)",
            "Connects to a TCP server. Returns a transport and a protocol.",
            create_connection,
        )
        .coroutine(
            "connect_accepted_socket(self, protocol_factory, sock, *, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)",
            "Makes transport and protocol for a connection that was accepted elsewhere.",
            |this, args| {
                let kept = |index: usize| args.get(index).cloned().unwrap_or_else(Obj::none);
                in_steps(
                    "BaseEventLoop.connect_accepted_socket",
                    ConnectAccepted {
                        tls: Tls {
                            ssl: kept(2),
                            server_hostname: Obj::str("")?,
                            server_side: true,
                            handshake_timeout: kept(3),
                            shutdown_timeout: kept(4),
                        },
                        loop_: this.clone(),
                        protocol_factory: kept(0),
                        sock: kept(1),
                        started: false,
                    },
                )
            },
        )
        .method(
            "_make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None, context=None)",
            "Makes the transport of a connected socket.",
            |this, args| {
                ensure_fd_no_transport(this, args.req(0))?;
                let context = match args.some(5) {
                    Some(context) => context.clone(),
                    None => copy_current_context()?,
                };
                make_socket_transport(
                    this,
                    args.req(0),
                    args.req(1),
                    args.some(2),
                    args.some(3),
                    args.some(4),
                    context,
                )
            },
        )
}

/// Python's `socket`, where the loop's own code in CPython would find it.
pub(super) fn socket_module() -> PyRes {
    stdlib::base_events_module()?.getattr(names::socket())
}

/// Refuses a socket that is no stream.
pub(super) fn check_stream(sock: &Obj) -> PyRes<()> {
    let stream = socket_module()?.getattr(names::sock_stream())?;
    if sock.getattr(names::type_())?.equals(&stream)? {
        return Ok(());
    }
    Err(Raised::value_error(&format!(
        "A Stream Socket was expected, got {}",
        sock.repr()?
    )))
}

/// The results of looking up a name.
pub(super) enum Resolved {
    /// It was an address already.
    Now(Obj),
    /// To be awaited.
    Later(Obj),
}

impl Resolved {
    /// Goes on with the results at once, or when they are there.
    pub(super) fn then(self, step: impl FnOnce(PyRes) -> PyRes<Next>) -> PyRes<Next> {
        match self {
            Self::Now(infos) => step(Ok(infos)),
            Self::Later(awaitable) => Ok(Next::Await(awaitable)),
        }
    }
}

/// `_ensure_resolved`: the addresses for `address`, a pair of host and port, or a longer tuple. `wanted` is the family,
/// type, protocol and flags to ask for.
pub(super) fn ensure_resolved(
    loop_: &Ref<EventLoop>,
    address: &Obj,
    wanted: [&Obj; 4],
) -> PyRes<Resolved> {
    let [family, kind, proto, flags] = wanted;
    // Perf: "create_connection + close". The usual address needs no slices.
    let (host, port, more) = match address.tuple_items() {
        [host, port] if address.is_exactly(stdlib::tuple()?) => {
            (host.clone(), port.clone(), Vec::new())
        }
        _ => {
            let [host, port] = unpack(&part(address, 0, Some(2))?)?;
            (host, port, part(address, 2, None)?.items()?)
        }
    };
    let mut known = vec![
        host.clone(),
        port.clone(),
        family.clone(),
        kind.clone(),
        proto.clone(),
    ];
    known.extend(more);
    let info = super::resolver::ip_address_info(&known)?;
    if !info.is_none() {
        return Obj::list([info]).map(Resolved::Now);
    }
    loop_
        .obj()
        .method_kw(
            names::getaddrinfo(),
            &[&host, &port],
            &[
                (names::family(), family),
                (names::type_(), kind),
                (names::proto(), proto),
                (names::flags(), flags),
            ],
        )
        .map(Resolved::Later)
}

/// Closes a socket after a failure, which stays the error unless this is a worse one.
pub(super) fn close_after(raised: Raised, sock: &Obj) -> Raised {
    let closed = finally(Err::<(), _>(raised), || {
        sock.method(names::close(), []).map(drop)
    });
    match closed {
        Err(raised) => raised,
        Ok(()) => unreachable!("an error stays one"),
    }
}

/// What a connection needs to know of TLS.
#[derive(Clone)]
pub(super) struct Tls {
    /// `False`, `True` or an `SSLContext`.
    pub(super) ssl: Obj,
    /// Who the other side must be.
    pub(super) server_hostname: Obj,
    /// Is this the server's side?
    pub(super) server_side: bool,
    /// The time limit of the handshake, or `None`.
    pub(super) handshake_timeout: Obj,
    /// The time limit of the end of TLS, or `None`.
    pub(super) shutdown_timeout: Obj,
}

impl Tls {
    /// Refuses time limits without TLS.
    pub(super) fn check_timeouts(&self, with_ssl: bool) -> PyRes<()> {
        let some = |value: &Obj| (!value.is_none()).then(|| value.clone());
        only_with_ssl(
            "ssl_handshake_timeout",
            some(&self.handshake_timeout).as_ref(),
            with_ssl,
        )?;
        only_with_ssl(
            "ssl_shutdown_timeout",
            some(&self.shutdown_timeout).as_ref(),
            with_ssl,
        )
    }

    /// Makes the transport of a connection, through the loop's visible method.
    pub(super) fn make_transport(
        &self,
        loop_: &Ref<EventLoop>,
        connection: [&Obj; 3],
        accepted: Option<[&Obj; 2]>,
        context: &Obj,
    ) -> PyRes {
        let [sock, protocol, waiter] = connection;
        let none = Obj::none();
        let is_flag = self.ssl.is(&Obj::bool(true));
        let sslcontext = if is_flag { &none } else { &self.ssl };
        let side = Obj::bool(self.server_side);
        let mut keywords = vec![
            (names::server_side(), &side),
            (names::server_hostname(), &self.server_hostname),
            (names::ssl_handshake_timeout(), &self.handshake_timeout),
            (names::ssl_shutdown_timeout(), &self.shutdown_timeout),
        ];
        // Before 3.15 there is no such keyword: what a client's transport takes without it is the same.
        if cfg!(Py_3_15) || accepted.is_some() {
            keywords.push((names::context(), context));
        }
        if let Some([extra, server]) = accepted {
            keywords.push((names::extra(), extra));
            keywords.push((names::server(), server));
        }
        loop_.obj().method_kw(
            names::make_ssl_transport(),
            &[sock, protocol, sslcontext, waiter],
            &keywords,
        )
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        for object in [
            &self.ssl,
            &self.server_hostname,
            &self.handshake_timeout,
            &self.shutdown_timeout,
        ] {
            visit.obj(object);
        }
    }
}

/// Does a socket that nobody but us has touched not block?
fn is_non_blocking(sock: &Obj) -> PyRes<bool> {
    let timeout = sock.method(names::gettimeout(), [])?;
    Ok(timeout.is_exact_float() && timeout.as_f64()? == 0.0)
}

/// `_create_connection_transport`: protocol and transport of a connected socket, once the protocol knows of it. A `fresh`
/// socket is one that we made, non-blocking.
pub(super) fn connect_transport(
    loop_: &Ref<EventLoop>,
    sock: Obj,
    protocol_factory: Obj,
    tls: Tls,
    fresh: bool,
) -> PyRes<Obj> {
    in_steps(
        "BaseEventLoop._create_connection_transport",
        ConnectTransport {
            loop_: loop_.clone(),
            sock,
            protocol_factory,
            fresh,
            tls,
            made: None,
        },
    )
    .map(Ref::into_obj)
}

/// The body of `_create_connection_transport`.
struct ConnectTransport {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The socket.
    sock: Obj,
    /// What makes the protocol.
    protocol_factory: Obj,
    /// Is the socket one that we made, non-blocking?
    fresh: bool,
    /// Whether and how with TLS.
    tls: Tls,
    /// Transport and protocol, once they are made.
    made: Option<[Obj; 2]>,
}

impl ConnectTransport {
    /// Makes transport and protocol.
    fn make(&mut self) -> PyRes<Next> {
        if !self.fresh || !is_non_blocking(&self.sock)? {
            self.sock
                .method(names::setblocking(), [&Obj::bool(false)])?;
        }
        let context = copy_current_context()?;
        let protocol = self.protocol_factory.call([])?;
        let waiter = create_future(self.loop_.obj())?;
        let transport = if self.tls.ssl.truth()? {
            let connection = [&self.sock, &protocol, &waiter];
            self.tls
                .make_transport(&self.loop_, connection, None, &context)?
        } else {
            ensure_fd_no_transport(&self.loop_, &self.sock)?;
            make_socket_transport(
                &self.loop_,
                &self.sock,
                &protocol,
                Some(&waiter),
                None,
                None,
                context,
            )?
        };
        self.made = Some([transport, protocol]);
        Ok(Next::Await(waiter))
    }
}

impl Steps for ConnectTransport {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let Some([transport, protocol]) = self.made.take() else {
            outcome?;
            return self
                .make()
                .map_err(|raised| close_after(raised, &self.sock));
        };
        match outcome {
            Ok(_) => Obj::tuple([transport, protocol]).map(Next::Done),
            Err(raised) => finally(Err(raised), || {
                transport.method(names::close(), []).map(drop)
            }),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        visit.obj(&self.sock);
        visit.obj(&self.protocol_factory);
        self.tls.traverse(visit);
        self.made
            .iter()
            .flatten()
            .for_each(|object| visit.obj(object));
    }
}

/// The body of `connect_accepted_socket`.
struct ConnectAccepted {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// What makes the protocol.
    protocol_factory: Obj,
    /// The socket.
    sock: Obj,
    /// Whether and how with TLS.
    tls: Tls,
    /// Is the transport being made?
    started: bool,
}

impl Steps for ConnectAccepted {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let made = outcome?;
        if !self.started {
            self.started = true;
            check_stream(&self.sock)?;
            self.tls.check_timeouts(self.tls.ssl.truth()?)?;
            check_ssl_socket(&self.sock)?;
            let (sock, factory) = (self.sock.clone(), self.protocol_factory.clone());
            return connect_transport(&self.loop_, sock, factory, self.tls.clone(), false)
                .map(Next::Await);
        }
        if self.loop_.debug.get() {
            let [transport, protocol] = &made.items()?[..] else {
                return Ok(Next::Done(made));
            };
            let sock = transport.method(names::get_extra_info(), [names::socket()])?;
            stdlib::logger()?.method(
                names::debug(),
                [
                    &Obj::str("%r handled: (%r, %r)")?,
                    &sock,
                    transport,
                    protocol,
                ],
            )?;
        }
        Ok(Next::Done(made))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        visit.obj(&self.protocol_factory);
        visit.obj(&self.sock);
        self.tls.traverse(visit);
    }
}

/// One attempt to connect, `_connect_sock`: makes, binds and connects a socket.
struct ConnectSock {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// Where to: an entry of `getaddrinfo`.
    addr_info: Obj,
    /// Addresses to bind to, or `None`.
    local_addr_infos: Obj,
    /// The lists of the errors of all attempts.
    exceptions: Obj,
    /// The connected sockets of a race, so that none is lost.
    connected: Option<Obj>,
    /// The errors of this one.
    mine: Option<Obj>,
    /// The socket, once it is made.
    sock: Option<Obj>,
}

impl ConnectSock {
    /// Everything up to the wait for the connection.
    fn start(&mut self) -> PyRes<Next> {
        let mine = Obj::list([])?;
        self.exceptions.append(&mine)?;
        self.mine = Some(mine.clone());
        let info = self.addr_info.items()?;
        let [family, type_, proto, _, address] = &info[..] else {
            return Err(Raised::value_error(&format!(
                "not enough values to unpack (expected 5, got {})",
                info.len()
            )));
        };
        let sock = socket_module()?.getattr(names::socket())?.call_kw(
            &[],
            &[
                (names::family(), family),
                (names::type_(), type_),
                (names::proto(), proto),
            ],
        )?;
        self.sock = Some(sock.clone());
        sock.method(names::setblocking(), [&Obj::bool(false)])?;
        if !self.local_addr_infos.is_none() {
            self.bind(&sock, family, &mine)?;
        }
        self.loop_
            .obj()
            .method(names::sock_connect(), [&sock, address])
            .map(Next::Await)
    }

    /// Binds the socket to the first local address of its family that lets itself be bound to.
    fn bind(&self, sock: &Obj, family: &Obj, mine: &Obj) -> PyRes<()> {
        for info in self.local_addr_infos.items()? {
            let parts = info.items()?;
            let [local_family, _, _, _, address] = &parts[..] else {
                return Err(Raised::value_error("expected 5 values to unpack"));
            };
            if !local_family.equals(family)? {
                continue;
            }
            let Err(raised) = sock.method(names::bind(), [address]) else {
                return Ok(());
            };
            if !raised.is(Builtin::Os) {
                return Err(raised);
            }
            let exception = raised.take();
            mine.append(&bind_error(&exception, address)?)?;
        }
        // The last one is raised, which puts it on the list again.
        let last = mine.len()?;
        if last == 0 {
            return Err(Builtin::Os.raise(&format!(
                "no matching local address with family={} found",
                family.repr()?
            )));
        }
        let last = mine.method(names::pop(), [])?;
        Err(Raised::raise(&last))
    }

    /// Notes the error and closes the socket.
    fn fail(&self, raised: Raised) -> Raised {
        let exception = raised.take();
        if Builtin::Os.is_class_of(&exception)
            && let Some(mine) = &self.mine
            && let Err(raised) = mine.append(&exception)
        {
            return raised.during(exception);
        }
        if let Some(sock) = &self.sock
            && let Err(raised) = sock.method(names::close(), [])
        {
            // Not worth mentioning beside the error that is there.
            if !raised.is(Builtin::Os) {
                return raised.during(exception);
            }
            raised.discard();
        }
        Raised::restore(exception)
    }

    /// The socket is connected.
    fn connected(&self, sock: Obj) -> PyRes<Next> {
        if let Some(connected) = &self.connected {
            connected.append(&sock)?;
        }
        Ok(Next::Done(sock))
    }
}

/// The error of binding, with the address in it.
pub(super) fn bind_error(exception: &Obj, address: &Obj) -> PyRes {
    let text = format!(
        "error while attempting to bind on address {}: {}",
        address.repr()?,
        exception.to_str()?.text()?.to_lowercase()
    );
    Builtin::Os
        .class()
        .call([&exception.getattr(names::errno())?, &Obj::str(&text)?])
}

impl Steps for ConnectSock {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let next = match (&self.mine, outcome) {
            (None, Ok(_)) => self.start(),
            (Some(_), Ok(_)) => match self.sock.clone() {
                Some(sock) => self.connected(sock),
                None => Err(Raised::runtime_error("no socket was made")),
            },
            (_, Err(raised)) => Err(raised),
        };
        next.map_err(|raised| self.fail(raised))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for object in [&self.addr_info, &self.local_addr_infos, &self.exceptions] {
            visit.obj(object);
        }
        for object in self.connected.iter().chain(&self.mine).chain(&self.sock) {
            visit.obj(object);
        }
    }
}

/// An attempt of a race that has not begun: called by it for the coroutine.
struct Attempt {
    /// The loop.
    loop_: Slot<Ref<EventLoop>>,
    /// Where to.
    addr_info: Slot,
    /// Addresses to bind to, or `None`.
    local_addr_infos: Slot,
    /// The lists of errors.
    exceptions: Slot,
    /// The connected sockets.
    connected: Slot,
}

/// Where the class is kept.
static ATTEMPT: Class<Attempt> = Class::new();

impl Native for Attempt {
    fn class() -> &'static Class<Self> {
        &ATTEMPT
    }

    fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
            addr_info: Slot::empty(),
            local_addr_infos: Slot::empty(),
            exceptions: Slot::empty(),
            connected: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
        for slot in [
            &self.addr_info,
            &self.local_addr_infos,
            &self.exceptions,
            &self.connected,
        ] {
            visit.slot(slot);
        }
    }

    fn clear(&self) {
        self.loop_.clear();
        self.addr_info.clear();
        self.local_addr_infos.clear();
        self.exceptions.clear();
        self.connected.clear();
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<Attempt>::new("aioxide", "attempt", "An attempt to connect.")
        .sealed()
        .call(|this, _, _| {
            let Some(loop_) = this.loop_.get() else {
                return Ok(Obj::none());
            };
            in_steps(
                "BaseEventLoop._connect_sock",
                ConnectSock {
                    loop_,
                    addr_info: this.addr_info.get_or_none(),
                    local_addr_infos: this.local_addr_infos.get_or_none(),
                    exceptions: this.exceptions.get_or_none(),
                    connected: this.connected.get(),
                    mine: None,
                    sock: None,
                },
            )
            .map(Ref::into_obj)
        })
        .build()
        .map(drop)
}

/// `create_connection`.
fn create_connection(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    let kept = |index: usize| args.get(index).cloned().unwrap_or_else(Obj::none);
    let number = |index: usize| args.get(index).cloned().map_or_else(|| Obj::int(0), Ok);
    in_steps(
        "BaseEventLoop.create_connection",
        CreateConnection {
            loop_: this.clone(),
            protocol_factory: kept(0),
            host: kept(1),
            port: kept(2),
            family: number(4)?,
            proto: number(5)?,
            flags: number(6)?,
            sock: kept(7),
            local_addr: kept(8),
            tls: Tls {
                ssl: kept(3),
                server_hostname: kept(9),
                server_side: false,
                handshake_timeout: kept(10),
                shutdown_timeout: kept(11),
            },
            happy_eyeballs_delay: kept(12),
            interleave: kept(13),
            all_errors: kept(14),
            infos: Vec::new(),
            local_addr_infos: Obj::none(),
            exceptions: Obj::list([])?,
            connected: Obj::list([])?,
            at: At::Start,
        },
    )
}

/// How far `create_connection` is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Not begun.
    Start,
    /// The host is looked up.
    Resolving,
    /// The local address is looked up.
    ResolvingLocal,
    /// One address is tried; so many were tried before.
    Connecting(usize),
    /// All addresses are tried, with staggered starts.
    Racing,
    /// Transport and protocol are made.
    Making,
}

/// The body of `create_connection`.
struct CreateConnection {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// What makes the protocol.
    protocol_factory: Obj,
    /// Where to.
    host: Obj,
    /// And to which port.
    port: Obj,
    /// For the look-up.
    family: Obj,
    /// For the look-up.
    proto: Obj,
    /// For the look-up.
    flags: Obj,
    /// A socket that is connected already, or `None`.
    sock: Obj,
    /// Where from, or `None`.
    local_addr: Obj,
    /// Whether and how with TLS.
    tls: Tls,
    /// The head start of each attempt, or `None` for one after the other.
    happy_eyeballs_delay: Obj,
    /// How many addresses of the first family come first, or `None`.
    interleave: Obj,
    /// Raise all errors in a group?
    all_errors: Obj,
    /// The addresses.
    infos: Vec<Obj>,
    /// The local addresses, or `None`.
    local_addr_infos: Obj,
    /// The lists of the errors of all attempts.
    exceptions: Obj,
    /// The sockets that a race has connected.
    connected: Obj,
    /// How far it is.
    at: At,
}

impl CreateConnection {
    /// Checks the arguments and begins.
    fn start(&mut self) -> PyRes<Next> {
        let with_ssl = self.tls.ssl.truth()?;
        if !self.tls.server_hostname.is_none() && !with_ssl {
            return Err(Raised::value_error(
                "server_hostname is only meaningful with ssl",
            ));
        }
        if self.tls.server_hostname.is_none() && with_ssl {
            if !self.host.truth()? {
                return Err(Raised::value_error(
                    "You must set server_hostname when using ssl without a host",
                ));
            }
            self.tls.server_hostname = self.host.clone();
        }
        self.tls.check_timeouts(with_ssl)?;
        if !self.sock.is_none() {
            check_ssl_socket(&self.sock)?;
        }
        if !self.happy_eyeballs_delay.is_none() && self.interleave.is_none() {
            self.interleave = Obj::int(1)?;
        }
        if !self.host.is_none() || !self.port.is_none() {
            if !self.sock.is_none() {
                return Err(Raised::value_error(
                    "host/port and sock can not be specified at the same time",
                ));
            }
            self.at = At::Resolving;
            let address = Obj::tuple([self.host.clone(), self.port.clone()])?;
            return self.resolve(&address);
        }
        if self.sock.is_none() {
            return Err(Raised::value_error(
                "host and port was not specified and no sock specified",
            ));
        }
        check_stream(&self.sock)?;
        self.make(self.sock.clone())
    }

    /// Looks an address up.
    fn resolve(&mut self, address: &Obj) -> PyRes<Next> {
        let stream = socket_module()?.getattr(names::sock_stream())?;
        let wanted = [&self.family, &stream, &self.proto, &self.flags];
        ensure_resolved(&self.loop_, address, wanted)?.then(|infos| self.step(infos))
    }

    /// The host is known.
    fn resolved(&mut self, infos: &Obj) -> PyRes<Next> {
        if !infos.truth()? {
            return Err(Builtin::Os.raise("getaddrinfo() returned empty list"));
        }
        self.infos = infos.items()?;
        if self.local_addr.is_none() {
            return self.connect();
        }
        self.at = At::ResolvingLocal;
        let address = self.local_addr.clone();
        self.resolve(&address)
    }

    /// The addresses are known: connects.
    fn connect(&mut self) -> PyRes<Next> {
        if self.interleave.truth()? {
            self.infos = stdlib::base_events_module()?
                .getattr_str("_interleave_addrinfos")?
                .call([&Obj::list(self.infos.iter().cloned())?, &self.interleave])?
                .items()?;
        }
        if self.happy_eyeballs_delay.is_none() {
            return self.attempt(0);
        }
        self.at = At::Racing;
        let attempts = self
            .infos
            .iter()
            .map(|info| {
                Ref::new(Attempt {
                    loop_: Slot::new(self.loop_.clone()),
                    addr_info: Slot::new(info.clone()),
                    local_addr_infos: Slot::new(self.local_addr_infos.clone()),
                    exceptions: Slot::new(self.exceptions.clone()),
                    connected: Slot::new(self.connected.clone()),
                })
                .map(Ref::into_obj)
            })
            .collect::<PyRes<Vec<Obj>>>()?;
        let attempts = Obj::list(attempts)?;
        staggered::race(
            &attempts,
            &self.happy_eyeballs_delay,
            Some(self.loop_.obj()),
        )
        .map(|race| Next::Await(race.into_obj()))
    }

    /// Tries the address at `index`; all of them have failed if there is none.
    fn attempt(&mut self, index: usize) -> PyRes<Next> {
        let Some(info) = self.infos.get(index) else {
            return Err(self.failure());
        };
        self.at = At::Connecting(index);
        in_steps(
            "BaseEventLoop._connect_sock",
            ConnectSock {
                loop_: self.loop_.clone(),
                addr_info: info.clone(),
                local_addr_infos: self.local_addr_infos.clone(),
                exceptions: self.exceptions.clone(),
                connected: None,
                mine: None,
                sock: None,
            },
        )
        .map(|attempt| Next::Await(attempt.into_obj()))
    }

    /// The race is over. Whatever was connected and is not the winner is closed: a race that was cancelled, or whose
    /// loser could not be stopped in time, would leave it behind.
    fn raced(&mut self, outcome: PyRes) -> PyRes<Next> {
        let winner = outcome.and_then(|result| result.item(&Obj::int(0)?));
        match winner {
            Ok(sock) => {
                self.close_connected(Some(&sock))?;
                if sock.is_none() {
                    return Err(self.failure());
                }
                self.make(sock)
            }
            Err(raised) => finally(Err(raised), || self.close_connected(None)),
        }
    }

    /// Closes the sockets of a race but for the winner's.
    fn close_connected(&self, winner: Option<&Obj>) -> PyRes<()> {
        for sock in self.connected.items()? {
            if winner.is_some_and(|winner| winner.is(&sock)) {
                continue;
            }
            match sock.method(names::close(), []) {
                Err(raised) if raised.is(Builtin::Os) => raised.discard(),
                closed => drop(closed?),
            }
        }
        Ok(())
    }

    /// The error of having no connection.
    fn failure(&self) -> Raised {
        match self.find_failure() {
            Ok(exception) => Raised::raise(&exception),
            Err(raised) => raised,
        }
    }

    /// Makes one error of those of all attempts.
    fn find_failure(&self) -> PyRes {
        let mut exceptions = Vec::new();
        for attempt in self.exceptions.items()? {
            exceptions.extend(attempt.items()?);
        }
        let Some(first) = exceptions.first() else {
            return Builtin::Timeout.instance("create_connection failed");
        };
        if self.all_errors.truth()? {
            let text = Obj::str("create_connection failed")?;
            return stdlib::exception_group()?.call([&text, &Obj::list(exceptions)?]);
        }
        let texts = exceptions
            .iter()
            .map(|exception| exception.to_str()?.text())
            .collect::<PyRes<Vec<String>>>()?;
        if texts.iter().all(|text| *text == texts[0]) {
            return Ok(first.clone());
        }
        Builtin::Os.instance(&format!("Multiple exceptions: {}", texts.join(", ")))
    }

    /// Makes transport and protocol of a connected socket.
    fn make(&mut self, sock: Obj) -> PyRes<Next> {
        self.at = At::Making;
        let factory = self.protocol_factory.clone();
        let (tls, fresh) = (self.tls.clone(), self.sock.is_none());
        connect_transport(&self.loop_, sock, factory, tls, fresh).map(Next::Await)
    }

    /// Transport and protocol are there.
    fn made(&self, made: Obj) -> PyRes<Next> {
        if self.loop_.debug.get()
            && let [transport, protocol] = &made.items()?[..]
        {
            let sock = transport.method(names::get_extra_info(), [names::socket()])?;
            stdlib::logger()?.method(
                names::debug(),
                [
                    &Obj::str("%r connected to %s:%r: (%r, %r)")?,
                    &sock,
                    &self.host,
                    &self.port,
                    transport,
                    protocol,
                ],
            )?;
        }
        Ok(Next::Done(made))
    }
}

impl Steps for CreateConnection {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        match self.at {
            At::Start => {
                outcome?;
                self.start()
            }
            At::Resolving => self.resolved(&outcome?),
            At::ResolvingLocal => {
                let infos = outcome?;
                if !infos.truth()? {
                    return Err(Builtin::Os.raise("getaddrinfo() returned empty list"));
                }
                self.local_addr_infos = infos;
                self.connect()
            }
            At::Connecting(index) => match outcome {
                Ok(sock) => self.make(sock),
                Err(raised) if raised.is(Builtin::Os) => {
                    raised.discard();
                    self.attempt(index + 1)
                }
                Err(raised) => Err(raised),
            },
            At::Racing => self.raced(outcome),
            At::Making => self.made(outcome?),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        self.tls.traverse(visit);
        for object in [
            &self.protocol_factory,
            &self.host,
            &self.port,
            &self.family,
            &self.proto,
            &self.flags,
            &self.sock,
            &self.local_addr,
            &self.happy_eyeballs_delay,
            &self.interleave,
            &self.all_errors,
            &self.local_addr_infos,
            &self.exceptions,
            &self.connected,
        ] {
            visit.obj(object);
        }
        self.infos.iter().for_each(|info| visit.obj(info));
    }
}
