//! Names: `getaddrinfo` and `getnameinfo`. Answers their part of `asyncio/base_events.py`.
//!
//! A lookup is answered in one of three ways:
//!
//! 1. At once and natively, if the host is a literal address, the port a number, and the answer the same with every C
//!    library: `resolver.rs` of the engine knows when.
//! 2. At once by `socket`'s function, called right here, if the C library need not ask anybody: any other question about
//!    a literal address or about no host, with a numeric port. Results and errors are the library's own.
//! 3. By a thread of the loop's own (`aioxide/_resolver.py`), which calls the same function. That cannot be left without
//!    a thread by jobs in the executor. It holds the GIL as any Python thread does; the C library is called without it.
//!
//! If somebody has replaced `socket.getaddrinfo`, every lookup is of the third kind: the replacement is called, and it
//! may block. In debug mode `_getaddrinfo_debug`, which is CPython's, is called in place of the function and logs.
//!
//! Differs: asyncio uses the default executor, through `run_in_executor`, whatever it was set to or overridden with.

use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};

use aioxide_engine::resolver;
use aioxide_engine::socket::Address;

use crate::addresses::{self, Family};
use crate::chaining::wrap_future;
use crate::coroutines::{Coroutine, coroutine};
use crate::events::EventLoop;
use crate::ffi::{Args, ClassBuilder, Machine, Obj, PyRes, Ref, Resume, Sent, Visit};
use crate::waiter::Waiter;
use crate::{names, stdlib};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            "getaddrinfo(self, host, port, *, family=0, type=0, proto=0, flags=0)",
            "Looks up the addresses of a host and a service, as `socket.getaddrinfo` does.\n\nLiteral addresses with \
             numeric ports are answered at once. Names are looked up in threads of the loop's own, not in its \
             executor: `set_default_executor` and overrides of `run_in_executor` have no part in it.",
            |this, args| lookup(this, Function::GetAddrInfo, address_arguments(args)?),
        )
        .coroutine(
            "getnameinfo(self, sockaddr, flags=0)",
            "Looks up the names of a socket address, as `socket.getnameinfo` does.\n\nNames are looked up in threads of \
             the loop's own, not in its executor.",
            |this, args| {
                let flags = args.get(1).cloned().map_or_else(|| Obj::int(0), Ok)?;
                lookup(this, Function::GetNameInfo, vec![args.req(0).clone(), flags])
            },
        )
}

/// The arguments of `getaddrinfo`, all six of them.
fn address_arguments(args: &Args<'_>) -> PyRes<Vec<Obj>> {
    let mut all = Vec::with_capacity(6);
    all.push(args.req(0).clone());
    all.push(args.req(1).clone());
    for index in 2..6 {
        all.push(args.get(index).cloned().map_or_else(|| Obj::int(0), Ok)?);
    }
    Ok(all)
}

/// The coroutine of a lookup.
fn lookup(this: &Ref<EventLoop>, function: Function, args: Vec<Obj>) -> PyRes<Ref<Coroutine>> {
    coroutine(
        function.qualname(),
        Lookup {
            loop_: this.clone(),
            function,
            args,
            waiter: None,
        },
    )
}

/// Which way a lookup goes.
#[derive(Clone, Copy)]
enum Function {
    /// From names to addresses.
    GetAddrInfo,
    /// From addresses to names.
    GetNameInfo,
}

impl Function {
    /// The name of the coroutine.
    fn qualname(self) -> &'static str {
        match self {
            Self::GetAddrInfo => "BaseEventLoop.getaddrinfo",
            Self::GetNameInfo => "BaseEventLoop.getnameinfo",
        }
    }

    /// The function that `socket` has now, whoever put it there.
    fn find(self) -> PyRes {
        stdlib::socket()?.getattr(match self {
            Self::GetAddrInfo => names::getaddrinfo(),
            Self::GetNameInfo => names::getnameinfo(),
        })
    }

    /// Is it the one that `socket` came with, which calls the C library and nothing else?
    fn is_stdlib(self, function: &Obj) -> PyRes<bool> {
        match self {
            Self::GetAddrInfo => {
                // Not by identity: it may have been replaced before anybody looked.
                let namespace = stdlib::socket()?.getattr(names::dunder_dict())?;
                Ok(function.is_exactly(stdlib::function_type()?)
                    && function.getattr(names::dunder_globals())?.is(&namespace)
                    && is_builtin(&stdlib::c_socket()?.getattr(names::getaddrinfo())?)?)
            }
            Self::GetNameInfo => is_builtin(function),
        }
    }
}

/// Is it a function of the module `_socket` itself?
fn is_builtin(function: &Obj) -> PyRes<bool> {
    Ok(function.is_exactly(stdlib::builtin_function_type()?)
        && function
            .getattr(names::dunder_self())?
            .is(stdlib::c_socket()?))
}

/// The body of `getaddrinfo` and `getnameinfo`.
struct Lookup {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// What is called.
    function: Function,
    /// With what; gone once it was called.
    args: Vec<Obj>,
    /// The wait for a thread's answer.
    waiter: Option<Waiter>,
}

impl Lookup {
    /// Answers at once, or hands over to a thread.
    fn start(&mut self) -> PyRes<Sent> {
        self.loop_.check_closed()?;
        let args = std::mem::take(&mut self.args);
        let mut function = self.function.find()?;
        let mut at_once = self.function.is_stdlib(&function)?;
        match self.function {
            Function::GetAddrInfo => {
                let debug = self.loop_.debug.get();
                if at_once
                    && !debug
                    && let Some(infos) = literal_infos(&args)?
                {
                    return Ok(Sent::Return(infos));
                }
                at_once = at_once && never_asks_for_addresses(&args);
                if debug {
                    function = self.loop_.obj().getattr(names::getaddrinfo_debug())?;
                }
            }
            Function::GetNameInfo => at_once = at_once && never_asks_for_names(&args),
        }
        if at_once {
            return function.call_args(&args).map(Sent::Return);
        }
        let submit = resolver_of(&self.loop_)?.getattr(names::submit())?;
        let call: Vec<Obj> = std::iter::once(function).chain(args).collect();
        let future = wrap_future(&submit.call_args(&call)?, Some(self.loop_.obj()))?;
        self.waiter.insert(Waiter::on(future)).start()
    }
}

impl Machine for Lookup {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match &mut self.waiter {
            None => self.start(),
            Some(waiter) => waiter.resume(input),
        }
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

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// The loop's threads for lookups, made when first needed.
fn resolver_of(this: &Ref<EventLoop>) -> PyRes {
    if let Some(resolver) = this.resolver.get() {
        return Ok(resolver);
    }
    let resolver = stdlib::resolver()?.call([])?;
    this.resolver.set(resolver.clone());
    Ok(resolver)
}

/// Ends the threads of a loop that is being closed; those that wait for an answer end when it comes.
pub(super) fn close(this: &Ref<EventLoop>) -> PyRes<()> {
    match this.resolver.take() {
        Some(resolver) => resolver.method(names::close(), []).map(drop),
        None => Ok(()),
    }
}

/// The value of an integer argument, if it is one that C takes.
fn c_int(object: &Obj) -> Option<i32> {
    if !object.is_int() {
        return None;
    }
    match object.as_i64() {
        Ok(value) => i32::try_from(value).ok(),
        Err(raised) => {
            raised.discard();
            None
        }
    }
}

/// The text of a plain `str` or `bytes` in ASCII.
fn ascii(object: &Obj) -> Option<&str> {
    let text = if object.is_exact_bytes() {
        object
            .as_bytes()
            .and_then(|bytes| str::from_utf8(bytes).ok())
    } else {
        object.utf8()
    };
    text.filter(|text| text.is_ascii())
}

/// Can the C library answer these arguments of `getaddrinfo` without asking a server or reading a list of services?
fn never_asks_for_addresses(args: &[Obj]) -> bool {
    let [host, port, _, _, _, flags] = args else {
        return false;
    };
    let Some(flags) = c_int(flags) else {
        return false;
    };
    let numeric_port =
        port.is_none() || port.is_exact_int() || ascii(port).is_some_and(resolver::is_number);
    if !numeric_port {
        return false;
    }
    let is_numeric = resolver::is_numeric_host(flags);
    match ascii(host) {
        Some(host) => is_numeric || resolver::is_literal(host),
        // A text that cannot be encoded does not get as far as the C library.
        None => host.is_none() || is_numeric && host.is_exact_str() && host.utf8().is_none(),
    }
}

/// Can the C library answer these arguments of `getnameinfo` without asking a server or reading a list of services?
/// The host in the address is never looked up: Python wants a literal.
fn never_asks_for_names(args: &[Obj]) -> bool {
    args.get(1)
        .and_then(c_int)
        .is_some_and(resolver::is_numeric_name)
}

/// The port number of a `port` argument, if there is nothing unusual about it.
fn port_number(port: &Obj) -> Option<u16> {
    if port.is_none() {
        return Some(0);
    }
    if port.is_exact_int() {
        return c_int(port).and_then(|port| u16::try_from(port).ok());
    }
    ascii(port).and_then(resolver::port)
}

/// What `socket.getaddrinfo` says about a literal address; nothing if it has to be asked.
fn literal_infos(args: &[Obj]) -> PyRes<Option<Obj>> {
    let [host, port, family, kind, protocol, flags] = args else {
        return Ok(None);
    };
    let (Some(family), Some(kind), Some(protocol), Some(flags)) =
        (c_int(family), c_int(kind), c_int(protocol), c_int(flags))
    else {
        return Ok(None);
    };
    let hints = resolver::Hints {
        family,
        kind,
        protocol,
        flags,
    };
    let (Some(number), Some(address)) =
        (port_number(port), ascii(host).and_then(resolver::literal))
    else {
        return Ok(None);
    };
    let Some(transports) = hints.answer(address) else {
        return Ok(None);
    };
    stdlib::audit()?.call([
        names::socket_getaddrinfo(),
        host,
        port,
        &Obj::int(family.into())?,
        &Obj::int(kind.into())?,
        &Obj::int(protocol.into())?,
    ])?;
    let (family, sockaddr) = match address {
        // The text of IPv4 is what it was read from.
        IpAddr::V4(_) if host.is_exact_str() => (
            stdlib::af_inet()?,
            Obj::tuple([host.clone(), Obj::int(number.into())?])?,
        ),
        IpAddr::V4(ip) => {
            let address = Address::V4(SocketAddrV4::new(ip, number));
            (stdlib::af_inet()?, addresses::to_python(Some(&address))?)
        }
        IpAddr::V6(ip) => {
            let address = Address::V6(SocketAddrV6::new(ip, number, 0, 0));
            (stdlib::af_inet6()?, addresses::to_python(Some(&address))?)
        }
    };
    let infos = transports
        .iter()
        .map(|transport| info(family, &sockaddr, *transport))
        .collect::<PyRes<Vec<Obj>>>()?;
    Obj::list_of(infos).map(Some)
}

/// One entry of an answer.
fn info(family: &Obj, sockaddr: &Obj, transport: resolver::Transport) -> PyRes {
    let kind = match transport.kind {
        resolver::STREAM => stdlib::sock_stream()?,
        resolver::DATAGRAM => stdlib::sock_dgram()?,
        _ => stdlib::sock_raw()?,
    };
    Obj::tuple([
        family.clone(),
        kind.clone(),
        Obj::int(transport.protocol.into())?,
        names::nothing().clone(),
        sockaddr.clone(),
    ])
}

/// asyncio's `_ipaddr_info(host, port, family, type, proto, *more)`: what `getaddrinfo` would give for an address that is
/// a number, `None` for a name. Numbers as they are usually written are read here, without Python.
pub(super) fn ip_address_info(call: &[Obj]) -> PyRes {
    match usual_address(call)? {
        Some(info) => Ok(info),
        None => stdlib::ipaddr_info()?.call_args(call),
    }
}

/// Does [`ip_address_info`] say of this address, for an IPv4 socket of this type and protocol, that it is the one to
/// connect to?
pub(super) fn is_resolved(address: &Obj, kind_and_proto: [&Obj; 2]) -> PyRes<bool> {
    let module = stdlib::base_events_module()?.getattr(names::socket())?;
    if !address.is_exactly(stdlib::tuple()?)
        || !kind_and_proto.iter().all(|number| number.is_int())
        || !module.is(stdlib::socket_module()?)
    {
        return Ok(false);
    }
    let [kind, proto] = kind_and_proto;
    let usual = matches!((kind.as_i64()?, proto.as_i64()?), (1 | 2, 0 | 6 | 17));
    Ok(usual && addresses::from_python(Family::V4, address)?.is_some())
}

/// The answer for exact types and unpatched modules; `None` for what needs asyncio's own function.
fn usual_address(call: &[Obj]) -> PyRes<Option<Obj>> {
    let [host, port, family, kind, proto] = call else {
        return Ok(None);
    };
    let module = stdlib::base_events_module()?.getattr(names::socket())?;
    if !host.is_exact_str()
        || !port.is_exact_int()
        || ![family, kind, proto].iter().all(|number| number.is_int())
        || !module.is(stdlib::socket_module()?)
    {
        return Ok(None);
    }
    let proto = match (kind.as_i64()?, proto.as_i64()?) {
        (1, 0 | 6 | 17) => stdlib::ipproto_tcp()?,
        (2, 0 | 6 | 17) => stdlib::ipproto_udp()?,
        _ => return Ok(None),
    };
    let (address, found) = match host.text()?.parse() {
        Ok(IpAddr::V4(_)) => (vec![host.clone(), port.clone()], stdlib::af_inet()?),
        Ok(IpAddr::V6(_)) => (
            vec![host.clone(), port.clone(), Obj::int(0)?, Obj::int(0)?],
            stdlib::af_inet6()?,
        ),
        Err(_) => return Ok(None),
    };
    let family = if family.as_i64()? == 0 {
        found
    } else if family.equals(found)? {
        family
    } else {
        return Ok(None);
    };
    Obj::tuple([
        family.clone(),
        kind.clone(),
        proto.clone(),
        names::nothing().clone(),
        Obj::tuple(address)?,
    ])
    .map(Some)
}
