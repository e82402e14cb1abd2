//! The loop's methods on sockets. Answers `sock_recv` and its relatives of `asyncio/selector_events.py`.
//!
//! Each tries at once, and returns without a wait if that works. What would block waits as `sock_wait` has it.

use std::mem;

use crate::addresses::Family;
use crate::coroutines::{Coroutine, Delegate, coroutine};
use crate::events::EventLoop;
use crate::ffi::{
    Builtin, ClassBuilder, Machine, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit,
};
use crate::{names, stdlib};

use super::connections::{Resolved, ensure_resolved};
use super::resolver::is_resolved;
use super::sock_calls::{
    Accept, Connect, Recv, RecvFrom, RecvFromInto, RecvInto, SendAll, SendTo, unpack,
};
use super::sock_native::plain_number;
use super::sock_wait::{Operation, Wait};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            "sock_recv(self, sock, n)",
            "Receives at most `n` bytes.",
            |this, args| {
                let argument = Slot::new(args.req(1).clone());
                call(this, args.req(0), "BaseEventLoop.sock_recv", Recv { argument })
            },
        )
        .coroutine(
            "sock_recv_into(self, sock, buf)",
            "Receives into a buffer. Returns the number of bytes.",
            |this, args| {
                let argument = Slot::new(args.req(1).clone());
                let operation = RecvInto { argument };
                call(
                    this,
                    args.req(0),
                    "BaseEventLoop.sock_recv_into",
                    operation,
                )
            },
        )
        .coroutine(
            "sock_recvfrom(self, sock, bufsize)",
            "Receives a datagram of at most `bufsize` bytes. Returns it and its sender's address.",
            |this, args| {
                let argument = Slot::new(args.req(1).clone());
                let operation = RecvFrom { argument };
                call(this, args.req(0), "BaseEventLoop.sock_recvfrom", operation)
            },
        )
        .coroutine(
            "sock_recvfrom_into(self, sock, buf, nbytes=0)",
            "Receives a datagram into a buffer. Returns the number of bytes and the sender's address.",
            |this, args| {
                let operation = RecvFromInto {
                    buffer: Slot::new(args.req(1).clone()),
                    size: args.get(2).cloned().map_or_else(Slot::empty, Slot::new),
                };
                call(
                    this,
                    args.req(0),
                    "BaseEventLoop.sock_recvfrom_into",
                    operation,
                )
            },
        )
        .coroutine(
            "sock_sendall(self, sock, data)",
            "Sends all of the data.",
            |this, args| {
                let operation = SendAll::new(args.req(1).clone());
                call(this, args.req(0), "BaseEventLoop.sock_sendall", operation)
            },
        )
        .coroutine(
            "sock_sendto(self, sock, data, address)",
            "Sends a datagram to an address. Returns the number of bytes.",
            |this, args| {
                let operation = SendTo {
                    data: Slot::new(args.req(1).clone()),
                    address: Slot::new(args.req(2).clone()),
                };
                call(this, args.req(0), "BaseEventLoop.sock_sendto", operation)
            },
        )
        .coroutine(
            "sock_accept(self, sock)",
            "Accepts a connection. Returns its socket and its peer's address.",
            |this, args| call(this, args.req(0), "BaseEventLoop.sock_accept", Accept),
        )
        .coroutine(
            "sock_connect(self, sock, address)",
            "Connects the socket to an address, whose host may be a name.",
            |this, args| {
                let machine = SockConnect {
                    loop_: this.clone(),
                    step: ConnectStep::Start {
                        sock: args.req(0).clone(),
                        address: args.req(1).clone(),
                    },
                };
                coroutine("BaseEventLoop.sock_connect", machine)
            },
        )
}

/// Refuses TLS sockets, and in debug mode those that block.
fn check(this: &Ref<EventLoop>, sock: &Obj) -> PyRes<()> {
    refuse_tls(sock)?;
    refuse_blocking(this, sock)
}

/// Refuses TLS sockets.
pub(super) fn refuse_tls(sock: &Obj) -> PyRes<()> {
    if sock.is_exactly(stdlib::socket_class()?) {
        return Ok(());
    }
    let ssl = stdlib::ssl_module()?;
    if !ssl.is_none() && sock.isinstance(&ssl.getattr(names::ssl_socket())?)? {
        return Err(Raised::type_error("Socket cannot be of type SSLSocket"));
    }
    Ok(())
}

/// In debug mode, refuses sockets that block.
pub(super) fn refuse_blocking(this: &Ref<EventLoop>, sock: &Obj) -> PyRes<()> {
    if this.debug.get()
        && !sock
            .method(names::gettimeout(), [])?
            .equals(&Obj::int(0)?)?
    {
        return Err(Raised::value_error("the socket must be non-blocking"));
    }
    Ok(())
}

/// What an `async def` function makes of a `StopIteration` that leaves its body.
pub(super) fn no_stop_iteration<R>(outcome: PyRes<R>) -> PyRes<R> {
    match outcome {
        Err(raised) if raised.is(Builtin::StopIteration) => {
            let exception = raised.take();
            let error = Builtin::Runtime.instance("coroutine raised StopIteration")?;
            error.set_exception_cause(Some(exception.clone()));
            error.set_exception_context(Some(exception));
            Err(Raised::restore(error))
        }
        outcome => outcome,
    }
}

/// The coroutine of an operation.
fn call<O: Operation>(
    this: &Ref<EventLoop>,
    sock: &Obj,
    qualname: &'static str,
    operation: O,
) -> PyRes<Ref<Coroutine>> {
    coroutine(
        qualname,
        SocketCall {
            loop_: this.clone(),
            step: Step::Start {
                sock: sock.clone(),
                operation,
            },
        },
    )
}

/// The body of a method that is one operation.
struct SocketCall<O> {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// How far it is.
    step: Step<O>,
}

/// How far an operation is.
enum Step<O> {
    /// Not begun.
    Start {
        /// The socket.
        sock: Obj,
        /// What to do.
        operation: O,
    },
    /// It would have blocked.
    Waiting(Wait),
    /// It is over.
    Over,
}

impl<O: Operation> SocketCall<O> {
    /// The first attempt.
    fn start(&mut self, sock: &Obj, operation: O) -> PyRes<Sent> {
        check(&self.loop_, sock)?;
        operation.prepare()?;
        if let Some(result) = no_stop_iteration(operation.begin(sock))? {
            return Ok(Sent::Return(result));
        }
        let mut wait = Wait::register(&self.loop_, sock, operation)?;
        let sent = wait.start(&self.loop_)?;
        Ok(self.waiting(sent, wait))
    }

    /// Waits on, or returns.
    fn waiting(&mut self, sent: Sent, wait: Wait) -> Sent {
        if matches!(sent, Sent::Yield(_)) {
            self.step = Step::Waiting(wait);
        }
        sent
    }
}

impl<O: Operation> Machine for SocketCall<O> {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.step, Step::Over) {
            Step::Start { sock, operation } => self.start(&sock, operation),
            Step::Waiting(mut wait) => {
                let sent = wait.resume(&self.loop_, input)?;
                Ok(self.waiting(sent, wait))
            }
            Step::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        match &self.step {
            Step::Start { sock, operation } => {
                visit.obj(sock);
                operation.traverse(visit);
            }
            Step::Waiting(wait) => wait.traverse(visit),
            Step::Over => {}
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.step {
            Step::Waiting(wait) => Some(wait.future().clone()),
            _ => None,
        }
    }
}

/// The body of `sock_connect`.
struct SockConnect {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// How far it is.
    step: ConnectStep,
}

/// How far a connection attempt is.
enum ConnectStep {
    /// Not begun.
    Start {
        /// The socket.
        sock: Obj,
        /// Where to.
        address: Obj,
    },
    /// The host's name is being looked up.
    Resolving {
        /// The socket.
        sock: Obj,
        /// Its family.
        family: Family,
        /// The look-up.
        lookup: Delegate,
    },
    /// The attempt goes on in the background.
    Waiting(Wait),
    /// It is over.
    Over,
}

impl SockConnect {
    /// Resolves the address if it has to be.
    fn start(&mut self, sock: Obj, address: Obj) -> PyRes<Sent> {
        check(&self.loop_, &sock)?;
        let number = plain_number(&sock, names::family())?;
        let Some(family) = internet_family(&number)? else {
            return self.connect(&sock, address, None);
        };
        let (kind, proto) = (
            plain_number(&sock, names::type_())?,
            plain_number(&sock, names::proto())?,
        );
        if family == Family::V4 && is_resolved(&address, [&kind, &proto])? {
            return self.connect(&sock, address, Some(family));
        }
        let wanted = [&number, &kind, &proto, &Obj::int(0)?];
        match ensure_resolved(&self.loop_, &address, wanted)? {
            Resolved::Now(infos) => self.connect(&sock, first_address(&infos)?, Some(family)),
            Resolved::Later(awaitable) => {
                let lookup = Delegate::new(&awaitable)?;
                let sent = lookup.resume(Resume::Send)?;
                self.resolving(sent, sock, family, lookup)
            }
        }
    }

    /// Waits for the look-up, or connects to the first address that it gave.
    fn resolving(
        &mut self,
        sent: Sent,
        sock: Obj,
        family: Family,
        lookup: Delegate,
    ) -> PyRes<Sent> {
        match sent {
            Sent::Yield(value) => {
                self.step = ConnectStep::Resolving {
                    sock,
                    family,
                    lookup,
                };
                Ok(Sent::Yield(value))
            }
            Sent::Return(infos) => self.connect(&sock, first_address(&infos)?, Some(family)),
        }
    }

    /// Begins to connect.
    fn connect(&mut self, sock: &Obj, address: Obj, family: Option<Family>) -> PyRes<Sent> {
        let operation = Connect {
            address: Slot::new(address),
            family,
        };
        if let Some(result) = no_stop_iteration(operation.begin(sock))? {
            return Ok(Sent::Return(result));
        }
        let mut wait = Wait::register(&self.loop_, sock, operation)?;
        let sent = wait.start(&self.loop_)?;
        Ok(self.waiting(sent, wait))
    }

    /// Waits on, or returns.
    fn waiting(&mut self, sent: Sent, wait: Wait) -> Sent {
        if matches!(sent, Sent::Yield(_)) {
            self.step = ConnectStep::Waiting(wait);
        }
        sent
    }
}

impl Machine for SockConnect {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.step, ConnectStep::Over) {
            ConnectStep::Start { sock, address } => self.start(sock, address),
            ConnectStep::Resolving {
                sock,
                family,
                lookup,
            } => {
                let sent = lookup.resume(input)?;
                self.resolving(sent, sock, family, lookup)
            }
            ConnectStep::Waiting(mut wait) => {
                let sent = wait.resume(&self.loop_, input)?;
                Ok(self.waiting(sent, wait))
            }
            ConnectStep::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        match &self.step {
            ConnectStep::Start { sock, address } => {
                visit.obj(sock);
                visit.obj(address);
            }
            ConnectStep::Resolving { sock, lookup, .. } => {
                visit.obj(sock);
                visit.obj(lookup.awaited());
            }
            ConnectStep::Waiting(wait) => wait.traverse(visit),
            ConnectStep::Over => {}
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.step {
            ConnectStep::Resolving { lookup, .. } => Some(lookup.awaited().clone()),
            ConnectStep::Waiting(wait) => Some(wait.future().clone()),
            _ => None,
        }
    }
}

/// The address in the first of the results of a look-up.
fn first_address(infos: &Obj) -> PyRes {
    let [_, _, _, _, address] = unpack(&infos.item(&Obj::int(0)?)?)?;
    Ok(address)
}

/// The family of a socket whose addresses name a host.
fn internet_family(family: &Obj) -> PyRes<Option<Family>> {
    if family.equals(stdlib::af_inet()?)? {
        return Ok(Some(Family::V4));
    }
    let is_v6 = stdlib::has_ipv6()?.truth()? && family.equals(stdlib::af_inet6()?)?;
    Ok(is_v6.then_some(Family::V6))
}
