//! Name resolution in the executor and the connecting of datagram sockets, in the place of what is to come.

use crate::coroutines::{Delegate, coroutine};
use crate::events::EventLoop;
use crate::ffi::{ClassBuilder, Machine, Obj, PyRes, Ref, Resume, Sent, Visit};
use crate::waiter::Waiter;
use crate::{names, stdlib};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            "getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0)",
            "`socket.getaddrinfo` in the default executor.",
            |this, args| {
                let zero = Obj::int(0)?;
                let machine = GetAddrInfo {
                    loop_: this.clone(),
                    args: (0..6)
                        .map(|index| args.get(index).unwrap_or(&zero).clone())
                        .collect(),
                    waiter: None,
                };
                coroutine("BaseEventLoop.getaddrinfo", machine)
            },
        )
        .coroutine(
            "sock_connect(self, sock, address)",
            "Connects a datagram socket.",
            |_, args| {
                let machine = Connect {
                    sock: args.req(0).clone(),
                    address: args.req(1).clone(),
                };
                coroutine("BaseSelectorEventLoop.sock_connect", machine)
            },
        )
}

/// The body of `getaddrinfo`.
struct GetAddrInfo {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The arguments.
    args: Vec<Obj>,
    /// The wait for the executor.
    waiter: Option<Waiter>,
}

impl Machine for GetAddrInfo {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if let Some(waiter) = &mut self.waiter {
            return waiter.resume(input);
        }
        let function = base_events_socket()?.getattr(names::getaddrinfo())?;
        let mut all = vec![Obj::none(), function];
        all.append(&mut self.args);
        let future = self
            .loop_
            .obj()
            .getattr(names::run_in_executor())?
            .call_args(&all)?;
        self.waiter.insert(Waiter::on(future)).start()
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for arg in &self.args {
            visit.obj(arg);
        }
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }
}

/// The body of `sock_connect`.
struct Connect {
    /// The socket.
    sock: Obj,
    /// Where to.
    address: Obj,
}

impl Machine for Connect {
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        self.sock
            .method(&Obj::str("connect")?, [&self.address])
            .map(Sent::Return)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.obj(&self.sock);
        visit.obj(&self.address);
    }
}

/// The module `socket` as `asyncio.base_events` has it.
pub(super) fn base_events_socket() -> PyRes {
    stdlib::base_events_module()?.getattr(names::socket())
}

/// What `ensure_resolved` found.
pub(super) enum Resolved {
    /// The address was a literal: its one description.
    Known(Obj),
    /// The look-up, to be awaited.
    LookUp(Delegate),
}

/// `_ensure_resolved`: describes a literal address at once, asks `loop.getaddrinfo` for any other.
pub(super) fn ensure_resolved(
    this: &Ref<EventLoop>,
    address: &Obj,
    [family, kind, proto, flags]: [&Obj; 4],
) -> PyRes<Resolved> {
    let items = address.items()?;
    let [host, port, rest @ ..] = items.as_slice() else {
        return Err(crate::ffi::Raised::value_error(
            "not enough values to unpack (expected 2)",
        ));
    };
    let mut all = [host, port, family, kind, proto].map(Clone::clone).to_vec();
    all.extend(rest.iter().cloned());
    let info = stdlib::base_events_module()?
        .getattr_str("_ipaddr_info")?
        .call_args(&all)?;
    if !info.is_none() {
        return Obj::list([info]).map(Resolved::Known);
    }
    let look_up = this.obj().method_kw(
        names::getaddrinfo(),
        &[host, port],
        &[
            (names::family(), family),
            (names::type_(), kind),
            (names::proto(), proto),
            (names::flags(), flags),
        ],
    )?;
    Delegate::new(&look_up).map(Resolved::LookUp)
}
