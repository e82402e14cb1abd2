//! What stands in for parts that are native elsewhere: the stream transport, `getaddrinfo`, `sock_connect`.

use crate::events::EventLoop;
use crate::ffi::{Builtin, ClassBuilder, Obj, PyRes, Ref, Visit, finally};
use crate::waiter::create_future;
use crate::{names, stdlib};

use super::connections::{Resolved, ensure_resolved, socket_module};
use super::steps::{Next, Steps, in_steps};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder.coroutine(
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
        let raised = match self.sock.method(names::connect(), [&self.address]) {
            Ok(_) => return Ok(Next::Done(Obj::none())),
            Err(raised) => raised,
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
