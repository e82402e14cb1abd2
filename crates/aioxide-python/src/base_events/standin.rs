//! What stands in for parts that are native elsewhere: the stream transport, `getaddrinfo`, `sock_connect`.

use crate::events::EventLoop;
use crate::ffi::{Builtin, ClassBuilder, Obj, PyRes, Ref, Visit, finally};
use crate::waiter::create_future;
use crate::{names, stdlib};

use super::connections::{Resolved, ensure_resolved, socket_module};
use super::steps::{Next, Steps, in_steps};

/// Makes the transport of a connected socket.
pub(crate) fn make_socket_transport(
    loop_: &Ref<EventLoop>,
    sock: &Obj,
    protocol: &Obj,
    waiter: Option<&Obj>,
    extra: Option<&Obj>,
    server: Option<&Obj>,
    context: Obj,
) -> PyRes {
    let none = Obj::none();
    let (waiter, extra) = (waiter.unwrap_or(&none), extra.unwrap_or(&none));
    let class = Obj::import("asyncio.selector_events")?.getattr_str("_SelectorSocketTransport")?;
    let loop_ = loop_.obj();
    if cfg!(Py_3_15) {
        return class.call_kw(
            &[
                loop_,
                sock,
                protocol,
                waiter,
                extra,
                server.unwrap_or(&none),
            ],
            &[(names::context(), &context)],
        );
    }
    let given = server.filter(|_| cfg!(Py_3_13)).unwrap_or(&none);
    let transport = class.call([loop_, sock, protocol, waiter, extra, given])?;
    if let Some(server) = server.filter(|_| !cfg!(Py_3_13)) {
        // The transports of these versions do not say who they are.
        server.method(&Obj::str("_attach")?, [&transport])?;
        let detach = server.getattr(names::detach())?;
        let detach = stdlib::partial()?.call([&detach, &transport])?;
        let known = Obj::import("types")?
            .getattr_str("SimpleNamespace")?
            .call_kw(&[], &[(names::detach(), &detach)])?;
        transport.setattr_str("_server", &known)?;
    }
    Ok(transport)
}

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .getter("_selector", |_| {
            // The transport's repr asks which descriptors are watched.
            let get_key = Obj::dict()?.getattr_str("__getitem__")?;
            Obj::import("types")?
                .getattr_str("SimpleNamespace")?
                .call_kw(&[], &[(&Obj::str("get_key")?, &get_key)])
        })
        .coroutine(
            "getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0)",
            "Looks up addresses in the executor.",
            |this, args| {
                let zero = Obj::int(0)?;
                let mut call = vec![socket_module()?.getattr(names::getaddrinfo())?];
                call.extend((0..6).map(|index| args.get(index).unwrap_or(&zero).clone()));
                in_steps(
                    "BaseEventLoop.getaddrinfo",
                    GetAddrInfo(this.clone(), Some(call)),
                )
            },
        )
        .coroutine(
            "sock_connect(self, sock, address)",
            "Connects a socket that does not block.",
            |this, args| {
                in_steps(
                    "BaseSelectorEventLoop.sock_connect",
                    SockConnect {
                        loop_: this.clone(),
                        sock: args.req(0).clone(),
                        address: args.req(1).clone(),
                        at: At::Start,
                    },
                )
            },
        )
}

/// The body of `getaddrinfo`: the loop and the call.
struct GetAddrInfo(Ref<EventLoop>, Option<Vec<Obj>>);

impl Steps for GetAddrInfo {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let value = outcome?;
        let Some(call) = self.1.take() else {
            return Ok(Next::Done(value));
        };
        let all: Vec<Obj> = std::iter::once(Obj::none()).chain(call).collect();
        self.0
            .obj()
            .getattr(names::run_in_executor())?
            .call_args(&all)
            .map(Next::Await)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.0);
        self.1.iter().flatten().for_each(|object| visit.obj(object));
    }
}

/// The body of `sock_connect`.
struct SockConnect {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The socket.
    sock: Obj,
    /// Where to.
    address: Obj,
    /// How far it is.
    at: At,
}

/// How far `sock_connect` is.
enum At {
    /// Not begun.
    Start,
    /// The address is looked up.
    Resolving,
    /// The connection is being made.
    Connecting(Obj),
}

impl SockConnect {
    /// Begins to connect.
    fn connect(&mut self) -> PyRes<Next> {
        let Err(raised) = self.sock.method(names::connect(), [&self.address]) else {
            return Ok(Next::Done(Obj::none()));
        };
        if !raised.matches(stdlib::blocking_io_error()?) {
            return Err(raised);
        }
        raised.discard();
        let future = create_future(self.loop_.obj())?;
        let fd = self.sock.method(names::fileno(), [])?;
        self.loop_.obj().method(
            names::add_writer_private(),
            [
                &fd,
                stdlib::set_result_unless_cancelled()?,
                &future,
                &Obj::none(),
            ],
        )?;
        self.at = At::Connecting(fd);
        Ok(Next::Await(future))
    }

    /// Has the connection been made?
    fn check(&self) -> PyRes<Next> {
        let socket = socket_module()?;
        let error = self.sock.method(
            names::getsockopt(),
            [
                &socket.getattr_str("SOL_SOCKET")?,
                &socket.getattr_str("SO_ERROR")?,
            ],
        )?;
        if error.truth()? {
            let text = Obj::str(&format!(
                "Connect call failed {}",
                self.address.to_str()?.text()?
            ))?;
            let exception = Builtin::Os.class().call([&error, &text])?;
            return Err(crate::ffi::Raised::raise(&exception));
        }
        Ok(Next::Done(Obj::none()))
    }
}

impl Steps for SockConnect {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        match &self.at {
            At::Start => {
                outcome?;
                let socket = socket_module()?;
                let family = self.sock.getattr(names::family())?;
                let inet = family.equals(&socket.getattr_str("AF_INET")?)?
                    || family.equals(&socket.getattr_str("AF_INET6")?)?;
                if !inet {
                    return self.connect();
                }
                self.at = At::Resolving;
                let (proto, zero) = (self.sock.getattr(names::proto())?, Obj::int(0)?);
                match ensure_resolved(&self.loop_, &self.address, &family, &proto, &zero)? {
                    Resolved::Now(infos) => self.step(Ok(infos)),
                    Resolved::Later(awaitable) => Ok(Next::Await(awaitable)),
                }
            }
            At::Resolving => {
                let first = outcome?.item(&Obj::int(0)?)?;
                self.address = first.item(&Obj::int(4)?)?;
                self.connect()
            }
            At::Connecting(fd) => {
                finally(outcome, || {
                    self.loop_
                        .obj()
                        .method(names::remove_writer_private(), [fd])
                        .map(drop)
                })?;
                self.check()
            }
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        visit.obj(&self.sock);
        visit.obj(&self.address);
        if let At::Connecting(fd) = &self.at {
            visit.obj(fd);
        }
    }
}
