//! `create_server` and the accepting of connections. Answers those parts of `asyncio/base_events.py` and
//! `selector_events.py`.
//!
//! An accepted connection is set up in the turn after the one that accepted it, where asyncio has the first step of a
//! task. Without TLS that step is a job of its own and there is no task, unless somebody could tell: with a task
//! factory, in debug mode, or where `create_task` is overridden, there is one.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use aioxide_engine::socket::{self, Address};

use crate::combinators::gather_all;
use crate::coroutines::Coroutine;
use crate::events::{EventLoop, leaves_the_loop};
use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    copy_current_context, in_context, os_error, preserving_exception, while_handling,
};
use crate::tasks::close_quietly;
use crate::waiter::create_future;
use crate::{names, stdlib};

use super::connections::{
    Resolved, Tls, bind_error, check_stream, close_after, ensure_resolved, socket_module,
};
use super::descriptors::ensure_fd_no_transport;
use super::server::{Parts, Server, as_server, new_server};
use super::sock_native::accepts_as_usual;
use super::steps::{Next, Steps, in_steps};
use super::tls::{check_ssl_socket, only_with_ssl};
use crate::selector_events::{make_accepted_transport, make_socket_transport};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            "create_server(self, protocol_factory, host=None, port=None, *, family=__import__('socket').AF_UNSPEC, flags=__import__('socket').AI_PASSIVE, sock=None, backlog=100, ssl=None, reuse_address=None, reuse_port=None, keep_alive=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True)",
            "Makes a TCP server, bound to each address of `host`, a name or several.",
            create_server,
        )
        .method(
            "_start_serving(self, protocol_factory, sock, sslcontext=None, server=None, backlog=100, ssl_handshake_timeout=60.0, ssl_shutdown_timeout=30.0, context=None)",
            "Accepts the connections of a listening socket.",
            start_serving,
        )
        .method(
            "_stop_serving(self, sock)",
            "Ends `_start_serving` and closes the socket.",
            |this, args| super::unix::stop_serving(this, args.req(0)),
        )
        .method(
            "_accept_connection(self, protocol_factory, sock, sslcontext=None, server=None, backlog=100, ssl_handshake_timeout=60.0, ssl_shutdown_timeout=30.0, context=None)",
            "Accepts what connections there are, up to one more than the backlog.",
            accept_connections,
        )
        .coroutine(
            "_accept_connection2(self, protocol_factory, conn, extra, sslcontext=None, server=None, ssl_handshake_timeout=60.0, ssl_shutdown_timeout=30.0, context=None)",
            "Sets an accepted connection up.",
            |this, args| {
                let kept = |index: usize| args.get(index).cloned().unwrap_or_else(Obj::none);
                let context = match args.some(7) {
                    Some(context) => context.clone(),
                    None => copy_current_context()?,
                };
                let arrival = Arrival {
                    protocol_factory: kept(0),
                    conn: kept(1),
                    extra: kept(2),
                    server: kept(4),
                    context,
                };
                accept_later(this, arrival, kept(3), kept(5), kept(6))
            },
        )
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<Accepted>::new("aioxide", "accepted", "A connection that was accepted.")
        .sealed()
        .build()
        .map(drop)
}

/// `_start_serving`.
fn start_serving(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<()> {
    if let Some(server) = args.some(3).and_then(as_server)
        && server.is_closed()
    {
        // It was closed while it had no descriptors left to accept with.
        return Ok(());
    }
    let fd = args.req(1).method(names::fileno(), [])?;
    let mut call = vec![fd, this.obj().getattr(names::accept_connection())?];
    call.extend(accept_arguments(args)?);
    this.obj()
        .getattr(names::add_reader_private())?
        .call_args(&call)
        .map(drop)
}

/// The arguments of `_accept_connection`, as those of `_start_serving` were.
fn accept_arguments(args: &Args<'_>) -> PyRes<Vec<Obj>> {
    let or = |index: usize, default: Obj| args.get(index).cloned().unwrap_or(default);
    let mut all = vec![
        args.req(0).clone(),
        args.req(1).clone(),
        or(2, Obj::none()),
        or(3, Obj::none()),
        or(4, Obj::int(100)?),
        or(5, Obj::float(60.0)?),
        or(6, Obj::float(30.0)?),
    ];
    // There is no such argument before 3.15.
    if cfg!(Py_3_15) || args.some(7).is_some() {
        all.push(or(7, Obj::none()));
    }
    Ok(all)
}

/// A connection that was accepted and what is to be made of it.
struct Arrival {
    /// What makes the protocol.
    protocol_factory: Obj,
    /// The socket.
    conn: Obj,
    /// What the transport tells beside what it finds out itself.
    extra: Obj,
    /// The server, or `None`.
    server: Obj,
    /// The context of the connection.
    context: Obj,
}

/// An accepted connection in the ready queue. Closes its socket if it never gets there.
struct Accepted {
    /// What makes the protocol.
    protocol_factory: Slot,
    /// The socket; taken when it is set up.
    conn: Slot,
    /// What the transport tells.
    extra: Slot,
    /// The server.
    server: Slot,
    /// The context of the connection.
    context: Slot,
    /// The connection and the peer's address, if there is no socket object.
    connection: RefCell<Option<(OwnedFd, Option<Address>)>>,
}

/// Where the class is kept.
static ACCEPTED: Class<Accepted> = Class::new();

impl Native for Accepted {
    const FREELIST: usize = 128;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &ACCEPTED
    }

    fn empty() -> Self {
        Self {
            protocol_factory: Slot::empty(),
            conn: Slot::empty(),
            connection: RefCell::new(None),
            extra: Slot::empty(),
            server: Slot::empty(),
            context: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        for slot in [
            &self.protocol_factory,
            &self.conn,
            &self.extra,
            &self.server,
            &self.context,
        ] {
            visit.slot(slot);
        }
    }

    fn clear(&self) {
        self.protocol_factory.clear();
        self.conn.clear();
        self.extra.clear();
        self.server.clear();
        self.context.clear();
    }

    fn needs_finalizer(&self) -> bool {
        self.conn.is_some()
    }

    fn finalize(this: &Ref<Self>) {
        if let Some(conn) = this.conn.take()
            && let Err(raised) = conn.method(names::close(), [])
        {
            raised.write_unraisable(Some(&conn));
        }
    }
}

/// What came of an attempt to accept.
enum Accept {
    /// A descriptor and the address of the other side.
    Native(OwnedFd, Option<Address>),
    /// A socket and the address of the other side.
    Connection(Obj, Obj),
    /// One that was given up before: there may be more.
    Aborted,
    /// No more now.
    Nothing,
    /// The process or the system has no room for another one.
    NoRoom(Obj),
}

/// `sock.accept()`.
fn accept(sock: &Obj) -> PyRes<Accept> {
    let raised = match sock.method(names::accept(), []) {
        Ok(pair) => {
            let [conn, address] = &pair.items()?[..] else {
                return Err(Raised::value_error("accept() gave no pair"));
            };
            return Ok(Accept::Connection(conn.clone(), address.clone()));
        }
        Err(raised) => raised,
    };
    if raised.is(Builtin::ConnectionAborted) {
        raised.discard();
        return Ok(Accept::Aborted);
    }
    if raised.is(Builtin::BlockingIo) || raised.is(Builtin::Interrupted) {
        raised.discard();
        return Ok(Accept::Nothing);
    }
    refused(raised)
}

/// What an error of `accept` means that is none of those that come and go.
fn refused(raised: Raised) -> PyRes<Accept> {
    if !raised.is(Builtin::Os) {
        return Err(raised);
    }
    let exception = raised.take();
    let number = exception.getattr(names::errno())?;
    let errno = Obj::import("errno")?;
    for name in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
        if errno.getattr_str(name)?.equals(&number)? {
            return Ok(Accept::NoRoom(exception));
        }
    }
    // For the loop to report: there is nobody else to tell.
    Err(Raised::restore(exception))
}

/// `_accept_connection`.
fn accept_connections(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<()> {
    let sock = args.req(1);
    let backlog = args.get(4).map_or(Ok(100), Obj::as_i64)?;
    let native = accepts_natively(this, args)?;
    for _ in 0..=backlog {
        let outcome = match native {
            Some(fd) => accept_natively(fd)?,
            None => accept(sock)?,
        };
        match outcome {
            Accept::Native(connection, address) => {
                let accepted = Accepted {
                    protocol_factory: Slot::new(args.req(0).clone()),
                    server: args
                        .some(3)
                        .map_or_else(Slot::empty, |server| Slot::new(server.clone())),
                    context: Slot::new(connection_context(args)?),
                    connection: RefCell::new(Some((connection, address))),
                    ..Accepted::empty()
                };
                this.push(run_accepted, Ref::new(accepted)?.into_obj());
            }
            Accept::Connection(conn, address) => {
                accepted(this, args, conn.clone(), &address)
                    .map_err(|raised| close_after(raised, &conn))?;
            }
            Accept::Aborted => {}
            Accept::Nothing => return Ok(()),
            // Differs: asyncio goes on and reports the same for each place in the backlog.
            Accept::NoRoom(exception) => return wait_for_room(this, args, &exception),
        }
        // An eager task may have closed the server.
        if let Some(server) = args.some(3).and_then(as_server)
            && server.is_closed()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// A connection's own copy of the server's context.
fn connection_context(args: &Args<'_>) -> PyRes {
    match args.some(7) {
        Some(context) => context.method(names::copy(), []),
        None => copy_current_context(),
    }
}

/// The descriptor of a listening socket whose connections need no socket object before somebody asks for it: no TLS, no
/// task, no log, and nobody's own `accept`.
fn accepts_natively(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Option<i32>> {
    let sock = args.req(1);
    if !this.is_direct()
        || this.task_factory.is_some()
        || args.some(2).map_or(Ok(false), Obj::truth)?
        || !accepts_as_usual(sock)?
    {
        return Ok(None);
    }
    let fd = i32::try_from(sock.method(names::fileno(), [])?.as_i64()?).unwrap_or(-1);
    // Of other families the addresses are Python's to tell.
    Ok(matches!(socket::local_address(fd), Ok(Some(_))).then_some(fd))
}

/// Accepts a connection without a socket object.
fn accept_natively(fd: i32) -> PyRes<Accept> {
    let error = match socket::accept(fd) {
        Ok((connection, address)) => return Ok(Accept::Native(connection, address)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(Accept::Nothing),
        ErrorKind::ConnectionAborted => Ok(Accept::Aborted),
        _ => refused(os_error(&error)),
    }
}

/// Accepts no more for a second, since the socket stays readable.
fn wait_for_room(this: &Ref<EventLoop>, args: &Args<'_>, exception: &Obj) -> PyRes<()> {
    let loop_ = this.obj();
    let fd = args.req(1).method(names::fileno(), [])?;
    loop_.method(names::remove_reader_private(), [&fd])?;
    let mut call = vec![
        stdlib::constants()?.getattr_str("ACCEPT_RETRY_DELAY")?,
        loop_.getattr(names::start_serving_private())?,
    ];
    call.extend(accept_arguments(args)?);
    loop_.getattr(names::call_later())?.call_args(&call)?;
    let context = Obj::dict()?;
    context.set_item(
        names::message(),
        &Obj::str("socket.accept() out of system resource")?,
    )?;
    context.set_item(names::exception(), exception)?;
    let shown = stdlib::transport_socket()?.call([args.req(1)])?;
    context.set_item(names::socket(), &shown)?;
    while_handling(exception, || {
        loop_.method(names::call_exception_handler(), [&context])
    })
    .map(drop)
}

/// Has a connection set up in the next turn, in its own copy of the server's context.
fn accepted(this: &Ref<EventLoop>, args: &Args<'_>, conn: Obj, address: &Obj) -> PyRes<()> {
    if this.debug.get() {
        let server = args.get(3).cloned().unwrap_or_else(Obj::none);
        let text = Obj::str("%r got a new connection from %r: %r")?;
        stdlib::logger()?.method(names::debug(), [&text, &server, address, &conn])?;
    }
    conn.method(names::setblocking(), [&Obj::bool(false)])?;
    let extra = Obj::dict()?;
    extra.set_item(names::peername(), address)?;
    let context = connection_context(args)?;
    let kept = |index: usize| args.get(index).cloned().unwrap_or_else(Obj::none);
    let with_ssl = args.some(2).map_or(Ok(false), Obj::truth)?;
    if !with_ssl && this.is_direct() && this.task_factory.is_none() {
        let accepted = Ref::new(Accepted {
            protocol_factory: Slot::new(kept(0)),
            conn: Slot::new(conn),
            extra: Slot::new(extra),
            server: Slot::new(kept(3)),
            context: Slot::new(context),
            connection: RefCell::new(None),
        })?;
        this.push(run_accepted, accepted.into_obj());
        return Ok(());
    }
    let arrival = Arrival {
        protocol_factory: kept(0),
        conn,
        extra,
        server: kept(3),
        context: context.clone(),
    };
    let coro = accept_later(this, arrival, kept(2), kept(5), kept(6))?.into_obj();
    this.obj()
        .method_kw(
            names::create_task(),
            &[&coro],
            &[(names::context(), &context)],
        )
        .map(drop)
        .map_err(|raised| close_quietly(raised, &coro))
}

/// The job of an accepted connection.
fn run_accepted(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(accepted) = ACCEPTED.exact(&object) else {
        return Ok(());
    };
    let connection = accepted.connection.borrow_mut().take();
    if let Some((connection, address)) = connection {
        return arrived(loop_, accepted, connection, address);
    }
    let Some(conn) = accepted.conn.take() else {
        return Ok(());
    };
    let arrival = Arrival {
        protocol_factory: accepted.protocol_factory.get_or_none(),
        conn,
        extra: accepted.extra.get_or_none(),
        server: accepted.server.get_or_none(),
        context: accepted.context.get_or_none(),
    };
    in_context(&arrival.context, || {
        let mut protocol = None;
        match arrival.make(loop_, &mut protocol, None, None) {
            Ok(_) => Ok(()),
            Err(raised) => report(loop_, raised, protocol.as_ref(), None),
        }
    })
}

/// Makes protocol and transport of an accepted descriptor, which is closed on an error.
fn arrived(
    loop_: &Ref<EventLoop>,
    accepted: &Ref<Accepted>,
    connection: OwnedFd,
    address: Option<Address>,
) -> PyRes<()> {
    let server = accepted.server.get();
    let is_closed = || {
        server
            .as_ref()
            .and_then(as_server)
            .is_some_and(|server| server.is_closed())
    };
    if is_closed() {
        return Ok(());
    }
    let context = accepted.context.get_or_none();
    in_context(&context, || {
        let mut protocol = None;
        let made = accepted.protocol_factory.get_or_none().call([]);
        let outcome = made.and_then(|made| {
            let made = protocol.insert(made);
            if is_closed() {
                // The factory closed it, so that no transport may come any more.
                return Err(closed_by_factory());
            }
            ensure_fd_no_transport(loop_, &Obj::int(connection.as_raw_fd().into())?)?;
            make_accepted_transport(
                loop_,
                connection,
                address,
                made,
                server.as_ref(),
                context.clone(),
            )
        });
        outcome.or_else(|raised| report(loop_, raised, protocol.as_ref(), None))
    })
}

/// The error of a factory that closed its server.
fn closed_by_factory() -> Raised {
    Builtin::Runtime.raise("the server was closed by its protocol factory")
}

impl Arrival {
    /// Makes protocol and transport; on an error the socket is closed. `None` if the server was closed meanwhile: then
    /// the connection is too, and nobody hears of it.
    fn make(
        &self,
        loop_: &Ref<EventLoop>,
        protocol: &mut Option<Obj>,
        waiter: Option<&Obj>,
        tls: Option<&Tls>,
    ) -> PyRes<Option<Obj>> {
        if as_server(&self.server).is_some_and(|server| server.is_closed()) {
            return self.conn.method(names::close(), []).map(|_| None);
        }
        self.make_both(loop_, protocol, waiter, tls)
            .map(Some)
            .map_err(|raised| close_after(raised, &self.conn))
    }

    /// Makes protocol and transport.
    fn make_both(
        &self,
        loop_: &Ref<EventLoop>,
        protocol: &mut Option<Obj>,
        waiter: Option<&Obj>,
        tls: Option<&Tls>,
    ) -> PyRes {
        let made = protocol.insert(self.protocol_factory.call([])?);
        if as_server(&self.server).is_some_and(|server| server.is_closed()) {
            // The factory closed it, so that no transport may come any more.
            return Err(closed_by_factory());
        }
        let none = Obj::none();
        if let Some(tls) = tls {
            let connection = [&self.conn, made, waiter.unwrap_or(&none)];
            let accepted = Some([&self.extra, &self.server]);
            return tls.make_transport(loop_, connection, accepted, &self.context);
        }
        ensure_fd_no_transport(loop_, &self.conn)?;
        let server = (!self.server.is_none()).then_some(&self.server);
        make_socket_transport(
            loop_,
            &self.conn,
            made,
            waiter,
            Some(&self.extra),
            server,
            self.context.clone(),
        )
    }

    /// Shows what is held to the collector.
    fn traverse(&self, visit: &mut Visit<'_>) {
        for object in [
            &self.protocol_factory,
            &self.conn,
            &self.extra,
            &self.server,
            &self.context,
        ] {
            visit.obj(object);
        }
    }
}

/// Reports the error of setting a connection up.
fn report(
    loop_: &Ref<EventLoop>,
    raised: Raised,
    protocol: Option<&Obj>,
    transport: Option<&Obj>,
) -> PyRes<()> {
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let context = Obj::dict()?;
    context.set_item(
        names::message(),
        &Obj::str("Error on transport creation for incoming connection")?,
    )?;
    context.set_item(names::exception(), &exception)?;
    if let Some(protocol) = protocol {
        context.set_item(names::protocol(), protocol)?;
    }
    if let Some(transport) = transport {
        context.set_item(names::transport(), transport)?;
    }
    while_handling(&exception, || {
        loop_
            .obj()
            .method(names::call_exception_handler(), [&context])
    })
    .map(drop)
}

/// The coroutine `_accept_connection2`.
fn accept_later(
    loop_: &Ref<EventLoop>,
    arrival: Arrival,
    ssl: Obj,
    handshake_timeout: Obj,
    shutdown_timeout: Obj,
) -> PyRes<Ref<Coroutine>> {
    in_steps(
        "BaseSelectorEventLoop._accept_connection2",
        AcceptLater {
            loop_: loop_.clone(),
            arrival,
            tls: Tls {
                ssl,
                server_hostname: Obj::none(),
                server_side: true,
                handshake_timeout,
                shutdown_timeout,
            },
            protocol: None,
            transport: None,
            waits: false,
        },
    )
}

/// The body of `_accept_connection2`.
struct AcceptLater {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The connection.
    arrival: Arrival,
    /// Whether and how with TLS.
    tls: Tls,
    /// The protocol, once it is made.
    protocol: Option<Obj>,
    /// The transport, once it is made.
    transport: Option<Obj>,
    /// Is the transport waited for?
    waits: bool,
}

impl AcceptLater {
    /// Makes protocol and transport.
    fn make(&mut self) -> PyRes<Option<Obj>> {
        let waiter = create_future(self.loop_.obj())?;
        let tls = if self.tls.ssl.truth()? {
            Some(&self.tls)
        } else {
            None
        };
        let protocol = &mut self.protocol;
        let made = self
            .arrival
            .make(&self.loop_, protocol, Some(&waiter), tls)?;
        let waiter = made.is_some().then_some(waiter);
        self.transport = made;
        Ok(waiter)
    }
}

impl Steps for AcceptLater {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        if !mem::replace(&mut self.waits, true) {
            outcome?;
            return match self.make() {
                Ok(Some(waiter)) => Ok(Next::Await(waiter)),
                Ok(None) => Ok(Next::Done(Obj::none())),
                Err(raised) => {
                    report(&self.loop_, raised, self.protocol.as_ref(), None)?;
                    Ok(Next::Done(Obj::none()))
                }
            };
        }
        let Err(raised) = outcome else {
            return Ok(Next::Done(Obj::none()));
        };
        let transport = self.transport.take();
        let raised = match &transport {
            Some(transport) => close_after(raised, transport),
            None => raised,
        };
        if leaves_the_loop(&raised) {
            return Err(raised);
        }
        if self.loop_.debug.get() {
            report(
                &self.loop_,
                raised,
                self.protocol.as_ref(),
                transport.as_ref(),
            )?;
        } else {
            raised.discard();
        }
        Ok(Next::Done(Obj::none()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        self.arrival.traverse(visit);
        self.tls.traverse(visit);
        for object in self.protocol.iter().chain(&self.transport) {
            visit.obj(object);
        }
    }
}

/// `_create_server_getaddrinfo`: the addresses of one host.
struct HostAddresses {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The host.
    host: Obj,
    /// The port.
    port: Obj,
    /// For the look-up.
    family: Obj,
    /// For the look-up.
    flags: Obj,
    /// Is it being looked up?
    started: bool,
}

impl HostAddresses {
    /// The addresses are there.
    fn found(&self, infos: Obj) -> PyRes<Next> {
        if infos.truth()? {
            return Ok(Next::Done(infos));
        }
        Err(Builtin::Os.raise(&format!(
            "getaddrinfo({}) returned empty list",
            self.host.repr()?
        )))
    }
}

impl Steps for HostAddresses {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let infos = outcome?;
        if self.started {
            return self.found(infos);
        }
        self.started = true;
        let address = Obj::tuple([self.host.clone(), self.port.clone()])?;
        let stream = socket_module()?.getattr(names::sock_stream())?;
        let wanted = [&self.family, &stream, &Obj::int(0)?, &self.flags];
        match ensure_resolved(&self.loop_, &address, wanted)? {
            Resolved::Now(infos) => self.found(infos),
            Resolved::Later(awaitable) => Ok(Next::Await(awaitable)),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for object in [&self.host, &self.port, &self.family, &self.flags] {
            visit.obj(object);
        }
    }
}

/// `create_server`.
fn create_server(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    let kept = |index: usize| args.get(index).cloned().unwrap_or_else(Obj::none);
    let constant = |index: usize, name: &str| match args.get(index) {
        Some(given) => Ok(given.clone()),
        None => socket_module()?.getattr_str(name),
    };
    in_steps(
        "BaseEventLoop.create_server",
        CreateServer {
            loop_: this.clone(),
            protocol_factory: kept(0),
            host: kept(1),
            port: kept(2),
            family: constant(3, "AF_UNSPEC")?,
            flags: constant(4, "AI_PASSIVE")?,
            sock: kept(5),
            backlog: args.get(6).cloned().map_or_else(|| Obj::int(100), Ok)?,
            ssl: kept(7),
            reuse_address: kept(8),
            reuse_port: kept(9),
            keep_alive: kept(10),
            ssl_handshake_timeout: kept(11),
            ssl_shutdown_timeout: kept(12),
            start_serving: args.get(13).cloned().unwrap_or_else(|| Obj::bool(true)),
            server: None,
            at: At::Start,
        },
    )
}

/// How far `create_server` is.
#[derive(Clone, Copy)]
enum At {
    /// Not begun.
    Start,
    /// The hosts are looked up.
    Resolving,
    /// It serves; others run once.
    Serving,
}

/// The body of `create_server`.
struct CreateServer {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// What makes protocols.
    protocol_factory: Obj,
    /// Where to listen: a name, several names, or `None`.
    host: Obj,
    /// And at which port.
    port: Obj,
    /// For the look-up.
    family: Obj,
    /// For the look-up.
    flags: Obj,
    /// A socket that is bound already, or `None`.
    sock: Obj,
    /// How many connections may wait.
    backlog: Obj,
    /// An `SSLContext`, or `None`.
    ssl: Obj,
    /// Set `SO_REUSEADDR`? `None` for yes.
    reuse_address: Obj,
    /// Set `SO_REUSEPORT`?
    reuse_port: Obj,
    /// Set `SO_KEEPALIVE`?
    keep_alive: Obj,
    /// The time limit of a handshake, or `None`.
    ssl_handshake_timeout: Obj,
    /// The time limit of the end of TLS, or `None`.
    ssl_shutdown_timeout: Obj,
    /// Begin to serve?
    start_serving: Obj,
    /// The server, once it is made.
    server: Option<Ref<Server>>,
    /// How far it is.
    at: At,
}

impl CreateServer {
    /// Checks the arguments and begins.
    fn start(&mut self) -> PyRes<Next> {
        check_server_ssl(
            &self.ssl,
            &self.ssl_handshake_timeout,
            &self.ssl_shutdown_timeout,
            !self.ssl.is_none(),
        )?;
        if !self.sock.is_none() {
            check_ssl_socket(&self.sock)?;
        }
        if self.host.is_none() && self.port.is_none() {
            if self.sock.is_none() {
                return Err(Raised::value_error(
                    "Neither host/port nor sock were specified",
                ));
            }
            check_stream(&self.sock)?;
            return self.serve(vec![self.sock.clone()]);
        }
        if !self.sock.is_none() {
            return Err(Raised::value_error(
                "host/port and sock can not be specified at the same time",
            ));
        }
        let look_ups = self
            .hosts()?
            .into_iter()
            .map(|host| {
                let addresses = HostAddresses {
                    loop_: self.loop_.clone(),
                    host,
                    port: self.port.clone(),
                    family: self.family.clone(),
                    flags: self.flags.clone(),
                    started: false,
                };
                in_steps("BaseEventLoop._create_server_getaddrinfo", addresses).map(Ref::into_obj)
            })
            .collect::<PyRes<Vec<Obj>>>()?;
        self.at = At::Resolving;
        gather_all(&look_ups, false).map(Next::Await)
    }

    /// The hosts, one by one.
    fn hosts(&self) -> PyRes<Vec<Obj>> {
        if self.host.equals(&Obj::str("")?)? {
            return Ok(vec![Obj::none()]);
        }
        if self.host.is_str() || !self.host.isinstance(stdlib::iterable_abc()?)? {
            return Ok(vec![self.host.clone()]);
        }
        self.host.items()
    }

    /// Binds a socket to each address.
    fn bind(&self, found: &Obj) -> PyRes<Vec<Obj>> {
        // Each address once. Differs: in the resolver's order, where asyncio has none.
        let infos = Obj::dict()?;
        for addresses in found.items()? {
            for info in addresses.items()? {
                infos.set_item(&info, &Obj::none())?;
            }
        }
        let infos = infos.items()?;
        let mut sockets = Vec::new();
        let bound = infos
            .iter()
            .try_for_each(|info| self.bind_one(info, &mut sockets));
        let bound = match bound {
            Ok(()) if sockets.is_empty() => Err(no_address(&infos)),
            bound => bound,
        };
        match bound {
            Ok(()) => Ok(sockets),
            Err(raised) => Err(close_all(raised, &sockets)),
        }
    }

    /// Binds a socket to one address, if its family can be had.
    fn bind_one(&self, info: &Obj, sockets: &mut Vec<Obj>) -> PyRes<()> {
        let parts = info.items()?;
        let [family, kind, proto, _, address] = &parts[..] else {
            return Err(Raised::value_error("expected 5 values to unpack"));
        };
        let socket = socket_module()?;
        let sock = match socket.getattr(names::socket())?.call([family, kind, proto]) {
            Ok(sock) => sock,
            // Taken for a combination that there is not.
            Err(raised) if raised.is(Builtin::Os) => {
                return self.warn_no_socket(raised, [family, kind, proto]);
            }
            Err(raised) => return Err(raised),
        };
        sockets.push(sock.clone());
        self.set_options(&socket, &sock, family)?;
        let Err(raised) = sock.method(names::bind(), [address]) else {
            return Ok(());
        };
        if !raised.is(Builtin::Os) {
            return Err(raised);
        }
        let exception = raised.take();
        let error = bind_error(&exception, address)?;
        let unavailable = Obj::import("errno")?.getattr_str("EADDRNOTAVAIL")?;
        if !exception.getattr(names::errno())?.equals(&unavailable)? {
            return Err(Raised::raise(&error));
        }
        // Taken for a family that is not enabled.
        sockets.pop();
        sock.method(names::close(), [])?;
        if self.loop_.debug.get() {
            let text = error.getattr_str("args")?.item(&Obj::int(1)?)?;
            stdlib::logger()?.method(names::warning(), [&text])?;
        }
        Ok(())
    }

    /// Sets what was asked for.
    fn set_options(&self, socket: &Obj, sock: &Obj, family: &Obj) -> PyRes<()> {
        let yes = Obj::bool(true);
        let set = |level: &str, option: &str| {
            let (level, option) = (socket.getattr_str(level)?, socket.getattr_str(option)?);
            sock.method(names::setsockopt(), [&level, &option, &yes])
                .map(drop)
        };
        if self.reuse_address.is_none() || self.reuse_address.truth()? {
            set("SOL_SOCKET", "SO_REUSEADDR")?;
        }
        let is_v6 = family.equals(&socket.getattr_str("AF_INET6")?)?;
        let is_internet = is_v6 || family.equals(&socket.getattr_str("AF_INET")?)?;
        // Linux refuses it elsewhere.
        if self.reuse_port.truth()? && is_internet {
            stdlib::base_events_module()?
                .getattr_str("_set_reuseport")?
                .call([sock])?;
        }
        if self.keep_alive.truth()? {
            set("SOL_SOCKET", "SO_KEEPALIVE")?;
        }
        // One socket would listen to both families.
        if is_v6
            && stdlib::base_events_module()?
                .getattr_str("_HAS_IPv6")?
                .truth()?
        {
            set("IPPROTO_IPV6", "IPV6_V6ONLY")?;
        }
        Ok(())
    }

    /// Notes in debug mode that a socket could not be made.
    fn warn_no_socket(&self, raised: Raised, arguments: [&Obj; 3]) -> PyRes<()> {
        let exception = raised.take();
        if !self.loop_.debug.get() {
            return Ok(());
        }
        let [family, kind, proto] = arguments;
        let text = Obj::str("create_server() failed to create socket.socket(%r, %r, %r)")?;
        stdlib::logger()?
            .method_kw(
                names::warning(),
                &[&text, family, kind, proto],
                &[(names::exc_info(), &exception)],
            )
            .map(drop)
    }

    /// Makes the server of bound sockets.
    fn serve(&mut self, sockets: Vec<Obj>) -> PyRes<Next> {
        let kept = sockets.clone();
        let parts = Parts {
            sockets,
            protocol_factory: &self.protocol_factory,
            ssl: &self.ssl,
            backlog: &self.backlog,
            ssl_handshake_timeout: &self.ssl_handshake_timeout,
            ssl_shutdown_timeout: &self.ssl_shutdown_timeout,
        };
        let made = kept
            .iter()
            .try_for_each(|sock| {
                sock.method(names::setblocking(), [&Obj::bool(false)])
                    .map(drop)
            })
            .and_then(|()| new_server(&self.loop_, parts));
        let server = match made {
            Ok(server) => server,
            Err(raised) if self.sock.is_none() => return Err(close_all(raised, &kept)),
            Err(raised) => return Err(raised),
        };
        self.server = Some(server.clone());
        if !self.start_serving.truth()? {
            return self.finish(&server);
        }
        self.at = At::Serving;
        match server.start() {
            // So that whatever watches descriptors sees it.
            Ok(()) => Ok(Next::Skip),
            Err(raised) => Err(abandon(raised, &server)),
        }
    }

    /// The server is there.
    fn finish(&self, server: &Ref<Server>) -> PyRes<Next> {
        if self.loop_.debug.get() {
            stdlib::logger()?.method(names::info(), [&Obj::str("%r is serving")?, server.obj()])?;
        }
        Ok(Next::Done(server.obj().clone()))
    }
}

/// Checks what a server is told of TLS.
pub(super) fn check_server_ssl(
    ssl: &Obj,
    handshake_timeout: &Obj,
    shutdown_timeout: &Obj,
    with_ssl: bool,
) -> PyRes<()> {
    if ssl.is(&Obj::bool(true)) || ssl.is(&Obj::bool(false)) {
        return Err(Raised::type_error(
            "ssl argument must be an SSLContext or None",
        ));
    }
    for (name, value) in [
        ("ssl_handshake_timeout", handshake_timeout),
        ("ssl_shutdown_timeout", shutdown_timeout),
    ] {
        only_with_ssl(name, (!value.is_none()).then_some(value), with_ssl)?;
    }
    Ok(())
}

/// The error of having bound nothing.
fn no_address(infos: &[Obj]) -> Raised {
    let text = || -> PyRes<String> {
        let addresses = infos
            .iter()
            .map(|info| info.item(&Obj::int(4)?))
            .collect::<PyRes<Vec<Obj>>>()?;
        Obj::list(addresses)?.repr()
    };
    match text() {
        Ok(text) => Builtin::Os.raise(&format!("could not bind on any address out of {text}")),
        Err(raised) => raised,
    }
}

/// Closes sockets after a failure.
fn close_all(raised: Raised, sockets: &[Obj]) -> Raised {
    sockets.iter().fold(raised, close_after)
}

/// Closes a server that its caller will never see. Differs: asyncio leaves it serving.
pub(super) fn abandon(raised: Raised, server: &Ref<Server>) -> Raised {
    preserving_exception(|| {
        if let Err(raised) = server.close() {
            raised.write_unraisable(Some(server.obj()));
        }
    });
    raised
}

impl Steps for CreateServer {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        match (self.at, &self.server) {
            (At::Resolving, _) => {
                let sockets = self.bind(&outcome?)?;
                self.serve(sockets)
            }
            (At::Serving, Some(server)) => match outcome {
                Ok(_) => self.finish(server),
                Err(raised) => Err(abandon(raised, server)),
            },
            _ => {
                outcome?;
                self.start()
            }
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for object in [
            &self.protocol_factory,
            &self.host,
            &self.port,
            &self.family,
            &self.flags,
            &self.sock,
            &self.backlog,
            &self.ssl,
            &self.reuse_address,
            &self.reuse_port,
            &self.keep_alive,
            &self.ssl_handshake_timeout,
            &self.ssl_shutdown_timeout,
            &self.start_serving,
        ] {
            visit.obj(object);
        }
        self.server.iter().for_each(|server| visit.native(server));
    }
}
