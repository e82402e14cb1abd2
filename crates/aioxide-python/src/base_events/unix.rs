//! `create_unix_connection` and `create_unix_server`. Answers those parts of `asyncio/unix_events.py`.
//!
//! A server's socket file is removed when the server is closed, if it is still the file that was bound: its inode is kept
//! by socket in `_unix_server_sockets`. Before Python 3.13 that has to be asked for, as programs remove the file themselves.

use crate::coroutines::Coroutine;
use crate::events::EventLoop;
use crate::ffi::{Args, Builtin, ClassBuilder, Obj, PyRes, Raised, Ref, Visit};
use crate::{names, stdlib};

use super::connections::{Tls, close_after, connect_transport};
use super::server::{Parts, Server, new_server};
use super::servers::{abandon, check_server_ssl};
use super::steps::{Next, Steps, in_steps};

/// The signature of `create_unix_server`.
#[cfg(Py_3_13)]
const CREATE_UNIX_SERVER: &str = "create_unix_server(self, protocol_factory, path=None, *, sock=None, backlog=100, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, cleanup_socket=True)";

/// The signature of `create_unix_server`.
#[cfg(not(Py_3_13))]
const CREATE_UNIX_SERVER: &str = "create_unix_server(self, protocol_factory, path=None, *, sock=None, backlog=100, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, cleanup_socket=False)";

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            "create_unix_connection(self, protocol_factory, path=None, *, ssl=None, sock=None, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)",
            "Connects to a Unix socket. Returns a transport and a protocol.",
            create_unix_connection,
        )
        .coroutine(
            CREATE_UNIX_SERVER,
            "Makes a server of a Unix socket.",
            create_unix_server,
        )
        .getter("_unix_server_sockets", |this| Ok(this.unix_server_sockets.get()))
}

/// Python's `socket`, where the code of Unix sockets in CPython would find it.
fn socket_module() -> PyRes {
    stdlib::unix_events_module()?.getattr(names::socket())
}

/// A new Unix stream socket.
fn new_socket() -> PyRes {
    let socket = socket_module()?;
    let family = socket.getattr_str("AF_UNIX")?;
    let kind = socket.getattr(names::sock_stream())?;
    socket
        .getattr(names::socket())?
        .call([&family, &kind, &Obj::int(0)?])
}

/// Refuses what is no Unix stream socket.
fn check_unix_stream(sock: &Obj) -> PyRes<()> {
    let socket = socket_module()?;
    if sock
        .getattr(names::family())?
        .equals(&socket.getattr_str("AF_UNIX")?)?
        && sock
            .getattr(names::type_())?
            .equals(&socket.getattr(names::sock_stream())?)?
    {
        return Ok(());
    }
    Err(Raised::value_error(&format!(
        "A UNIX Domain Stream Socket was expected, got {}",
        sock.repr()?
    )))
}

/// Calls a function of `os`.
fn os_call(function: &str, argument: &Obj) -> PyRes {
    stdlib::os_module()?.getattr_str(function)?.call([argument])
}

/// Calls a function of `os` for the file of a server that begins.
fn file_call(function: &str, path: &Obj) -> PyRes {
    stdlib::bind_file()?.call([&Obj::str(function)?, path])
}

/// Is this the path of a file, rather than an abstract name or the name of a socket that was not bound?
fn is_file(path: &Obj) -> PyRes<bool> {
    if path.len()? == 0 {
        return Ok(false);
    }
    let first = path.item(&Obj::int(0)?)?;
    Ok(!first.equals(&Obj::int(0)?)? && !first.equals(&Obj::str("\0")?)?)
}

/// Logs what went wrong with the file of a socket.
fn log_file_error(text: &str, path: &Obj, exception: &Obj) -> PyRes<()> {
    stdlib::unix_events_module()?
        .getattr(names::logger())?
        .method(names::error(), [&Obj::str(text)?, path, exception])
        .map(drop)
}

/// What an operation on a file gave; `None` if there is no such file. Any other error of the system is logged.
fn of_file(outcome: PyRes, text: &str, path: &Obj) -> PyRes<Option<Obj>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(raised) if raised.matches(stdlib::file_not_found_error()?) => {
            raised.discard();
            Ok(None)
        }
        Err(raised) if raised.is(Builtin::Os) => {
            let exception = raised.take();
            log_file_error(text, path, &exception)?;
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}

/// `_stop_serving`: ends the accepting, closes the socket, and removes its file.
pub(super) fn stop_serving(this: &Ref<EventLoop>, sock: &Obj) -> PyRes<()> {
    let inode = match this.unix_server_sockets.get() {
        Some(sockets) => {
            let inode = sockets.dict_get(sock)?;
            if inode.is_some() {
                sockets.del_item(sock)?;
            }
            inode
        }
        None => None,
    };
    let path = match inode {
        Some(inode) => match sock.method(names::getsockname(), []) {
            Ok(path) => Some((path, inode)),
            // Closed by somebody else.
            Err(raised) if raised.is(Builtin::Os) => {
                raised.discard();
                None
            }
            Err(raised) => return Err(raised),
        },
        None => None,
    };
    let fd = sock.method(names::fileno(), [])?;
    this.obj().method(names::remove_reader_private(), [&fd])?;
    sock.method(names::close(), [])?;
    let Some((path, inode)) = path else {
        return Ok(());
    };
    let removed = || -> PyRes {
        let call = |name: &str| stdlib::unbind_file()?.call([&Obj::str(name)?, &path]);
        let status = call("stat")?;
        if status.getattr_str("st_ino")?.equals(&inode)? {
            return call("unlink");
        }
        Ok(Obj::none())
    };
    of_file(
        removed(),
        "Unable to clean up listening UNIX socket %r: %r",
        &path,
    )
    .map(drop)
}

/// `create_unix_connection`.
fn create_unix_connection(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    let kept = |index: usize| args.get(index).cloned().unwrap_or_else(Obj::none);
    in_steps(
        "_UnixSelectorEventLoop.create_unix_connection",
        CreateUnixConnection {
            loop_: this.clone(),
            protocol_factory: kept(0),
            path: kept(1),
            sock: kept(3),
            tls: Tls {
                ssl: kept(2),
                server_hostname: kept(4),
                server_side: false,
                handshake_timeout: kept(5),
                shutdown_timeout: kept(6),
            },
            at: At::Start,
        },
    )
}

/// How far `create_unix_connection` is.
#[derive(Clone, Copy)]
enum At {
    /// Not begun.
    Start,
    /// The socket is being connected.
    Connecting,
    /// Transport and protocol are made.
    Making,
}

/// The body of `create_unix_connection`.
struct CreateUnixConnection {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// What makes the protocol.
    protocol_factory: Obj,
    /// Where to, or `None`.
    path: Obj,
    /// A socket that is connected already, or `None`; later the one that was made.
    sock: Obj,
    /// Whether and how with TLS.
    tls: Tls,
    /// How far it is.
    at: At,
}

impl CreateUnixConnection {
    /// Checks the arguments and begins.
    fn start(&mut self) -> PyRes<Next> {
        let hostname = &self.tls.server_hostname;
        if !hostname.is_none() && !hostname.is_str() {
            return Err(Builtin::Assertion.raise_bare());
        }
        if self.tls.ssl.truth()? {
            if hostname.is_none() {
                return Err(Raised::value_error(
                    "you have to pass server_hostname when using ssl",
                ));
            }
        } else {
            if !hostname.is_none() {
                return Err(Raised::value_error(
                    "server_hostname is only meaningful with ssl",
                ));
            }
            self.tls.check_timeouts(false)?;
        }
        if self.path.is_none() {
            if self.sock.is_none() {
                return Err(Raised::value_error("no path and sock were specified"));
            }
            check_unix_stream(&self.sock)?;
            self.sock
                .method(names::setblocking(), [&Obj::bool(false)])?;
            return self.make();
        }
        if !self.sock.is_none() {
            return Err(Raised::value_error(
                "path and sock can not be specified at the same time",
            ));
        }
        let path = os_call("fspath", &self.path)?;
        self.sock = new_socket()?;
        self.at = At::Connecting;
        self.connect(&path)
            .map_err(|raised| close_after(raised, &self.sock))
    }

    /// Connects the socket.
    fn connect(&self, path: &Obj) -> PyRes<Next> {
        self.sock
            .method(names::setblocking(), [&Obj::bool(false)])?;
        self.loop_
            .obj()
            .method(names::sock_connect(), [&self.sock, path])
            .map(Next::Await)
    }

    /// Makes transport and protocol.
    fn make(&mut self) -> PyRes<Next> {
        self.at = At::Making;
        let (sock, factory) = (self.sock.clone(), self.protocol_factory.clone());
        connect_transport(&self.loop_, sock, factory, self.tls.clone(), false).map(Next::Await)
    }
}

impl Steps for CreateUnixConnection {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        match (self.at, outcome) {
            (At::Start, Ok(_)) => self.start(),
            (At::Connecting, Ok(_)) => self.make(),
            (At::Making, Ok(made)) => Ok(Next::Done(made)),
            (At::Connecting, Err(raised)) => Err(close_after(raised, &self.sock)),
            (At::Start | At::Making, Err(raised)) => Err(raised),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        visit.obj(&self.protocol_factory);
        visit.obj(&self.path);
        visit.obj(&self.sock);
        self.tls.traverse(visit);
    }
}

/// `create_unix_server`.
fn create_unix_server(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    let kept = |index: usize| args.get(index).cloned().unwrap_or_else(Obj::none);
    let or = |index: usize, default: bool| {
        args.get(index)
            .cloned()
            .unwrap_or_else(|| Obj::bool(default))
    };
    in_steps(
        "_UnixSelectorEventLoop.create_unix_server",
        CreateUnixServer {
            loop_: this.clone(),
            protocol_factory: kept(0),
            path: kept(1),
            sock: kept(2),
            backlog: args.get(3).cloned().map_or_else(|| Obj::int(100), Ok)?,
            ssl: kept(4),
            ssl_handshake_timeout: kept(5),
            ssl_shutdown_timeout: kept(6),
            start_serving: or(7, true),
            cleanup_socket: or(8, cfg!(Py_3_13)),
            server: None,
        },
    )
}

/// The body of `create_unix_server`.
struct CreateUnixServer {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// What makes protocols.
    protocol_factory: Obj,
    /// Where to listen, or `None`.
    path: Obj,
    /// A socket that is bound already, or `None`.
    sock: Obj,
    /// How many connections may wait.
    backlog: Obj,
    /// An `SSLContext`, or `None`.
    ssl: Obj,
    /// The time limit of a handshake, or `None`.
    ssl_handshake_timeout: Obj,
    /// The time limit of the end of TLS, or `None`.
    ssl_shutdown_timeout: Obj,
    /// Begin to serve?
    start_serving: Obj,
    /// Remove the file when the server is closed?
    cleanup_socket: Obj,
    /// The server, once it serves.
    server: Option<Ref<Server>>,
}

impl CreateUnixServer {
    /// Everything up to the first turn of the server.
    fn start(&mut self) -> PyRes<Next> {
        check_server_ssl(
            &self.ssl,
            &self.ssl_handshake_timeout,
            &self.ssl_shutdown_timeout,
            self.ssl.truth()?,
        )?;
        let own = !self.path.is_none();
        let sock = if own {
            if !self.sock.is_none() {
                return Err(Raised::value_error(
                    "path and sock can not be specified at the same time",
                ));
            }
            let path = os_call("fspath", &self.path)?;
            let sock = new_socket()?;
            bind(&sock, &path).map_err(|raised| close_after(raised, &sock))?;
            sock
        } else {
            if self.sock.is_none() {
                return Err(Raised::value_error(
                    "path was not specified, and no sock specified",
                ));
            }
            check_unix_stream(&self.sock)?;
            self.sock.clone()
        };
        let server = match self.make(&sock) {
            Ok(server) => server,
            Err(raised) if own => return Err(close_after(raised, &sock)),
            Err(raised) => return Err(raised),
        };
        if !self.start_serving.truth()? {
            return Ok(Next::Done(server.into_obj()));
        }
        self.server = Some(server.clone());
        match server.start() {
            Ok(()) => Ok(Next::Skip),
            Err(raised) => Err(abandon(raised, &server)),
        }
    }

    /// Makes the server of a bound socket.
    fn make(&self, sock: &Obj) -> PyRes<Ref<Server>> {
        if self.cleanup_socket.truth()? {
            self.remember_file(sock)?;
        }
        sock.method(names::setblocking(), [&Obj::bool(false)])?;
        let parts = Parts {
            sockets: vec![sock.clone()],
            protocol_factory: &self.protocol_factory,
            ssl: &self.ssl,
            backlog: &self.backlog,
            ssl_handshake_timeout: &self.ssl_handshake_timeout,
            ssl_shutdown_timeout: &self.ssl_shutdown_timeout,
        };
        new_server(&self.loop_, parts)
    }

    /// Keeps the inode of the socket's file.
    fn remember_file(&self, sock: &Obj) -> PyRes<()> {
        let path = sock.method(names::getsockname(), [])?;
        if !is_file(&path)? {
            return Ok(());
        }
        let status = match file_call("stat", &path) {
            Err(raised) if raised.matches(stdlib::file_not_found_error()?) => {
                raised.discard();
                return Ok(());
            }
            status => status?,
        };
        match self.loop_.unix_server_sockets.get() {
            Some(sockets) => sockets.set_item(sock, &status.getattr_str("st_ino")?),
            None => Ok(()),
        }
    }
}

/// Binds a socket to a path, whose stale socket file, if there is one, is removed first.
fn bind(sock: &Obj, path: &Obj) -> PyRes<()> {
    if is_file(path)? {
        let removed = || -> PyRes {
            let mode = file_call("stat", path)?.getattr_str("st_mode")?;
            let is_socket = Obj::import("stat")?.getattr_str("S_ISSOCK")?;
            if is_socket.call([&mode])?.truth()? {
                return file_call("remove", path);
            }
            Ok(Obj::none())
        };
        // The directory may allow no more than making sockets.
        of_file(
            removed(),
            "Unable to check or remove stale UNIX socket %r: %r",
            path,
        )?;
    }
    let Err(raised) = sock.method(names::bind(), [path]) else {
        return Ok(());
    };
    if !raised.is(Builtin::Os) {
        return Err(raised);
    }
    let exception = raised.take();
    let in_use = Obj::import("errno")?.getattr_str("EADDRINUSE")?;
    if !exception.getattr(names::errno())?.equals(&in_use)? {
        return Err(Raised::restore(exception));
    }
    let text = Obj::str(&format!("Address {} is already in use", path.repr()?))?;
    let error = Builtin::Os.class().call([&in_use, &text])?;
    Err(Raised::raise(&error))
}

impl Steps for CreateUnixServer {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        match (&self.server, outcome) {
            (None, Ok(_)) => self.start(),
            (None, Err(raised)) => Err(raised),
            (Some(server), Ok(_)) => Ok(Next::Done(server.obj().clone())),
            (Some(server), Err(raised)) => Err(abandon(raised, server)),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for object in [
            &self.protocol_factory,
            &self.path,
            &self.sock,
            &self.backlog,
            &self.ssl,
            &self.ssl_handshake_timeout,
            &self.ssl_shutdown_timeout,
            &self.start_serving,
            &self.cleanup_socket,
        ] {
            visit.obj(object);
        }
        self.server.iter().for_each(|server| visit.native(server));
    }
}
