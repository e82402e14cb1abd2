//! `create_datagram_endpoint`.

use crate::coroutines::{Coroutine, Delegate, coroutine};
use crate::events::EventLoop;
use crate::ffi::{
    Args, Builtin, ClassBuilder, Machine, Obj, PyRes, Raised, Ref, Resume, Sent, Visit, finally,
};
use crate::selector_events::datagram::make_datagram_transport;
use crate::waiter::Waiter;
use crate::{names, stdlib};

use super::connections::{Resolved, ensure_resolved, socket_module};
use super::opening::Opening;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder.coroutine(
        "create_datagram_endpoint(self, protocol_factory, local_addr=None, remote_addr=None, *, family=0, proto=0, flags=0, reuse_port=None, allow_broadcast=None, sock=None)",
        "Makes a datagram transport. Returns it and its protocol.",
        create,
    )
}

/// The coroutine.
fn create(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    let given = |index| args.get(index).cloned().unwrap_or_else(Obj::none);
    let number = |index| {
        args.get(index)
            .map_or_else(|| Obj::int(0), |n| Ok(n.clone()))
    };
    let machine = Endpoint {
        loop_: this.clone(),
        factory: given(0),
        addresses: [given(1), given(2)],
        family: number(3)?,
        proto: number(4)?,
        flags: number(5)?,
        reuse_port: given(6),
        allow_broadcast: given(7),
        given_sock: given(8),
        candidates: Vec::new(),
        next: 0,
        first_error: None,
        made: None,
        state: State::Fresh,
    };
    coroutine("BaseEventLoop.create_datagram_endpoint", machine)
}

/// The local address in a pair.
const LOCAL: usize = 0;
/// The remote address in a pair.
const REMOTE: usize = 1;

/// Addresses to try, of one family and protocol.
struct Candidate {
    /// The family.
    family: Obj,
    /// The protocol.
    proto: Obj,
    /// The local and the remote address, where they are known.
    addresses: [Option<Obj>; 2],
}

/// What the body waits for.
enum State {
    /// Nothing, it has not started; or nothing any more.
    Fresh,
    /// The look-up of one of the addresses.
    Resolving(usize, Delegate),
    /// The connection to the last candidate tried.
    Connecting(Delegate),
    /// The first callback of the protocol.
    Opening(Opening),
}

/// The body of `create_datagram_endpoint`.
struct Endpoint {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// Makes the protocol.
    factory: Obj,
    /// `local_addr` and `remote_addr`.
    addresses: [Obj; 2],
    /// `family`.
    family: Obj,
    /// `proto`.
    proto: Obj,
    /// `flags`.
    flags: Obj,
    /// `reuse_port`.
    reuse_port: Obj,
    /// `allow_broadcast`.
    allow_broadcast: Obj,
    /// `sock`.
    given_sock: Obj,
    /// What there is to try.
    candidates: Vec<Candidate>,
    /// How much of it was tried.
    next: usize,
    /// The error of the first attempt.
    first_error: Option<Obj>,
    /// The socket of the last attempt.
    made: Option<Obj>,
    /// What the body waits for.
    state: State,
}

impl Endpoint {
    /// Looks at the arguments.
    fn start(&mut self) -> PyRes<Sent> {
        if !self.given_sock.is_none() {
            self.check_given_socket()?;
            self.given_sock
                .method(names::setblocking(), [&Obj::bool(false)])?;
            let sock = self.given_sock.clone();
            return self.open(&sock, None);
        }
        let [local, remote] = &self.addresses;
        if !local.truth()? && !remote.truth()? {
            if self.family.equals(&Obj::int(0)?)? {
                return Err(Raised::value_error("unexpected address family"));
            }
            self.add_candidate([None, None]);
            return self.try_candidates();
        }
        if self.is_unix()? {
            for address in &self.addresses {
                if !address.is_none() && !address.is_str() {
                    return Err(Raised::type_error("string is expected"));
                }
            }
            remove_stale_socket(&self.addresses[LOCAL])?;
            let addresses = self.addresses.clone().map(Some);
            self.add_candidate(addresses);
            return self.try_candidates();
        }
        self.resolve(LOCAL)
    }

    /// Refuses a stream socket, and arguments that say what a socket should be like besides one that is there.
    fn check_given_socket(&self) -> PyRes<()> {
        let kind = self.given_sock.getattr(names::type_())?;
        if kind.equals(&socket_module()?.getattr(names::sock_stream())?)? {
            let wanted = if cfg!(Py_3_13) {
                "A datagram socket"
            } else {
                "A UDP Socket"
            };
            return Err(Raised::value_error(&format!(
                "{wanted} was expected, got {}",
                self.given_sock.repr()?
            )));
        }
        let mut problems = Vec::new();
        for (name, value) in [
            ("local_addr", &self.addresses[LOCAL]),
            ("remote_addr", &self.addresses[REMOTE]),
            ("family", &self.family),
            ("proto", &self.proto),
            ("flags", &self.flags),
            ("reuse_port", &self.reuse_port),
            ("allow_broadcast", &self.allow_broadcast),
        ] {
            if value.truth()? {
                problems.push(format!(
                    "{name}={}",
                    stdlib::format()?.call([value])?.text()?
                ));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Raised::value_error(&format!(
            "socket modifier keyword arguments can not be used when sock is specified. ({})",
            problems.join(", ")
        )))
    }

    /// Was the family of Unix sockets asked for?
    fn is_unix(&self) -> PyRes<bool> {
        match socket_module()?.getattr_opt(&Obj::str("AF_UNIX")?)? {
            Some(unix) => self.family.equals(&unix),
            None => Ok(false),
        }
    }

    /// Adds addresses of the family and protocol that were asked for.
    fn add_candidate(&mut self, addresses: [Option<Obj>; 2]) {
        self.candidates.push(Candidate {
            family: self.family.clone(),
            proto: self.proto.clone(),
            addresses,
        });
    }

    /// Resolves the addresses from `index` on.
    fn resolve(&mut self, index: usize) -> PyRes<Sent> {
        for index in index..=REMOTE {
            let address = &self.addresses[index];
            if address.is_none() {
                continue;
            }
            if !address.is_tuple() || address.len()? != 2 {
                return Err(Raised::type_error("2-tuple is expected"));
            }
            let kind = socket_module()?.getattr_str("SOCK_DGRAM")?;
            let wanted = [&self.family, &kind, &self.proto, &self.flags];
            let infos = match ensure_resolved(&self.loop_, address, wanted)? {
                Resolved::Now(infos) => infos,
                Resolved::Later(awaitable) => {
                    let delegate = Delegate::new(&awaitable)?;
                    match delegate.resume(Resume::Send)? {
                        Sent::Return(infos) => infos,
                        Sent::Yield(value) => {
                            self.state = State::Resolving(index, delegate);
                            return Ok(Sent::Yield(value));
                        }
                    }
                }
            };
            self.note(index, &infos)?;
        }
        self.join_addresses()
    }

    /// Enters what an address was resolved to.
    fn note(&mut self, index: usize, infos: &Obj) -> PyRes<()> {
        if !infos.truth()? {
            return Err(Builtin::Os.raise("getaddrinfo() returned empty list"));
        }
        for info in infos.items()? {
            let parts = info.items()?;
            let [family, _, proto, _, address] = parts.as_slice() else {
                return Err(Raised::value_error(
                    "getaddrinfo() did not return tuples of five",
                ));
            };
            let mut place = None;
            for (at, candidate) in self.candidates.iter().enumerate() {
                if candidate.family.equals(family)? && candidate.proto.equals(proto)? {
                    place = Some(at);
                    break;
                }
            }
            let place = place.unwrap_or_else(|| {
                self.candidates.push(Candidate {
                    family: family.clone(),
                    proto: proto.clone(),
                    addresses: [None, None],
                });
                self.candidates.len() - 1
            });
            self.candidates[place].addresses[index] = Some(address.clone());
        }
        Ok(())
    }

    /// Keeps the candidates that have each address that was given.
    fn join_addresses(&mut self) -> PyRes<Sent> {
        for index in [LOCAL, REMOTE] {
            if self.addresses[index].truth()? {
                self.candidates
                    .retain(|candidate| candidate.addresses[index].is_some());
            }
        }
        if self.candidates.is_empty() {
            return Err(Raised::value_error("can not get address information"));
        }
        self.try_candidates()
    }

    /// Tries what is left, up to the first that works.
    fn try_candidates(&mut self) -> PyRes<Sent> {
        while self.next < self.candidates.len() {
            let attempt = self.attempt(self.next);
            self.next += 1;
            let outcome = match attempt {
                Ok(None) => Ok(Sent::Return(Obj::none())),
                Ok(Some(delegate)) => match delegate.resume(Resume::Send) {
                    Ok(Sent::Yield(value)) => {
                        self.state = State::Connecting(delegate);
                        return Ok(Sent::Yield(value));
                    }
                    outcome => outcome,
                },
                Err(raised) => Err(raised),
            };
            match outcome {
                Ok(_) => return self.attempt_succeeded(),
                Err(raised) => self.attempt_failed(raised)?,
            }
        }
        match self.first_error.take() {
            Some(error) => Err(Raised::raise(&error)),
            None => Err(Raised::value_error("can not get address information")),
        }
    }

    /// Makes the socket of a candidate; gives the connection to be awaited, if there is one.
    fn attempt(&mut self, index: usize) -> PyRes<Option<Delegate>> {
        let module = socket_module()?;
        let candidate = &self.candidates[index];
        let kind = module.getattr_str("SOCK_DGRAM")?;
        let sock = module.getattr(names::socket())?.call_kw(
            &[],
            &[
                (names::family(), &candidate.family),
                (names::type_(), &kind),
                (names::proto(), &candidate.proto),
            ],
        )?;
        self.made = Some(sock.clone());
        if self.reuse_port.truth()? {
            set_reuse_port(&module, &sock)?;
        }
        let broadcasts = self.allow_broadcast.truth()?;
        if broadcasts {
            set_option(&module, &sock, "SO_BROADCAST")?;
        }
        sock.method(names::setblocking(), [&Obj::bool(false)])?;
        let candidate = &self.candidates[index];
        let address = |index: usize| candidate.addresses[index].clone().unwrap_or_else(Obj::none);
        if self.addresses[LOCAL].truth()? {
            sock.method(names::bind(), [&address(LOCAL)])?;
        }
        if !self.addresses[REMOTE].truth()? || broadcasts {
            return Ok(None);
        }
        let connecting = self
            .loop_
            .obj()
            .method(names::sock_connect(), [&sock, &address(REMOTE)])?;
        Delegate::new(&connecting).map(Some)
    }

    /// Closes the socket of an attempt that failed. An error of the system leaves other candidates to try.
    fn attempt_failed(&mut self, raised: Raised) -> PyRes<()> {
        let is_usual = raised.is(Builtin::Os);
        let error = raised.take();
        let closed = match self.made.take() {
            Some(sock) => sock.method(names::close(), []).map(drop),
            None => Ok(()),
        };
        if let Err(newer) = closed {
            return Err(newer.during(error));
        }
        if !is_usual {
            return Err(Raised::restore(error));
        }
        self.first_error.get_or_insert(error);
        Ok(())
    }

    /// Goes on with the socket of the last attempt.
    fn attempt_succeeded(&mut self) -> PyRes<Sent> {
        let remote = if self.addresses[REMOTE].truth()? {
            self.candidates[self.next - 1].addresses[REMOTE].clone()
        } else {
            None
        };
        let Some(sock) = self.made.clone() else {
            return Err(Raised::runtime_error("the socket is gone"));
        };
        match self.open(&sock, remote.as_ref()) {
            // Differs: asyncio leaves a socket of its own to the garbage collector here.
            Err(raised) if !matches!(self.state, State::Opening(_)) => {
                finally(Err(raised), || sock.method(names::close(), []).map(drop))
            }
            outcome => outcome,
        }
    }

    /// Makes protocol and transport, and waits for `connection_made`.
    fn open(&mut self, sock: &Obj, remote: Option<&Obj>) -> PyRes<Sent> {
        let protocol = self.factory.call([])?;
        let waiter = Waiter::create(self.loop_.obj())?;
        let transport = make_datagram_transport(
            &self.loop_,
            sock,
            &protocol,
            remote,
            Some(waiter.future()),
            None,
        )?
        .into_obj();
        if self.loop_.debug.get() {
            self.log(&transport, &protocol)?;
        }
        let mut opening = Opening {
            transport,
            protocol,
            waiter,
        };
        let outcome = opening.start();
        self.state = State::Opening(opening);
        outcome
    }

    /// Logs what was made.
    fn log(&self, transport: &Obj, protocol: &Obj) -> PyRes<()> {
        let [local, remote] = &self.addresses;
        let logger = stdlib::logger()?;
        if local.truth()? {
            let text =
                Obj::str("Datagram endpoint local_addr=%r remote_addr=%r created: (%r, %r)")?;
            logger.method(names::info(), [&text, local, remote, transport, protocol])
        } else {
            let text = Obj::str("Datagram endpoint remote_addr=%r created: (%r, %r)")?;
            logger.method(names::debug(), [&text, remote, transport, protocol])
        }
        .map(drop)
    }
}

impl Machine for Endpoint {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match std::mem::replace(&mut self.state, State::Fresh) {
            State::Fresh => self.start(),
            State::Resolving(index, delegate) => match delegate.resume(input)? {
                Sent::Yield(value) => {
                    self.state = State::Resolving(index, delegate);
                    Ok(Sent::Yield(value))
                }
                Sent::Return(infos) => {
                    self.note(index, &infos)?;
                    self.resolve(index + 1)
                }
            },
            State::Connecting(delegate) => match delegate.resume(input) {
                Ok(Sent::Yield(value)) => {
                    self.state = State::Connecting(delegate);
                    Ok(Sent::Yield(value))
                }
                Ok(Sent::Return(_)) => self.attempt_succeeded(),
                Err(raised) => {
                    self.attempt_failed(raised)?;
                    self.try_candidates()
                }
            },
            State::Opening(mut opening) => {
                let outcome = opening.resume(input);
                self.state = State::Opening(opening);
                outcome
            }
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        let [local, remote] = &self.addresses;
        for object in [
            &self.factory,
            local,
            remote,
            &self.family,
            &self.proto,
            &self.flags,
            &self.reuse_port,
            &self.allow_broadcast,
            &self.given_sock,
        ] {
            visit.obj(object);
        }
        for candidate in &self.candidates {
            visit.obj(&candidate.family);
            visit.obj(&candidate.proto);
            for address in candidate.addresses.iter().flatten() {
                visit.obj(address);
            }
        }
        for object in self.first_error.iter().chain(&self.made) {
            visit.obj(object);
        }
        match &self.state {
            State::Fresh => {}
            State::Resolving(_, delegate) | State::Connecting(delegate) => {
                visit.obj(delegate.awaited());
            }
            State::Opening(opening) => opening.traverse(visit),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.state {
            State::Fresh => None,
            State::Resolving(_, delegate) | State::Connecting(delegate) => {
                Some(delegate.awaited().clone())
            }
            State::Opening(opening) => Some(opening.waiter.future().clone()),
        }
    }
}

/// Sets a boolean option of a socket.
fn set_option(module: &Obj, sock: &Obj, name: &str) -> PyRes<()> {
    let level = module.getattr_str("SOL_SOCKET")?;
    let option = module.getattr_str(name)?;
    sock.method(names::setsockopt(), [&level, &option, &Obj::int(1)?])
        .map(drop)
}

/// `_set_reuseport`.
fn set_reuse_port(module: &Obj, sock: &Obj) -> PyRes<()> {
    if module.getattr_opt(&Obj::str("SO_REUSEPORT")?)?.is_none() {
        return Err(Raised::value_error(
            "reuse_port not supported by socket module",
        ));
    }
    match set_option(module, sock, "SO_REUSEPORT") {
        Err(raised) if raised.is(Builtin::Os) => {
            let error = raised.take();
            Err(Raised::value_error(
                "reuse_port not supported by socket module, SO_REUSEPORT defined but not implemented.",
            )
            .during(error))
        }
        outcome => outcome,
    }
}

/// Removes the file of a Unix socket that was there before; names in the abstract name space have none.
fn remove_stale_socket(address: &Obj) -> PyRes<()> {
    let text = address.is_str().then(|| address.text()).transpose()?;
    if text.is_none_or(|text| text.is_empty() || text.starts_with('\0')) {
        return Ok(());
    }
    let removed = || -> PyRes<()> {
        let os = Obj::import("os")?;
        let mode = os
            .getattr_str("stat")?
            .call([address])?
            .getattr_str("st_mode")?;
        let is_socket = Obj::import("stat")?.getattr_str("S_ISSOCK")?;
        if is_socket.call([&mode])?.truth()? {
            os.getattr_str("remove")?.call([address])?;
        }
        Ok(())
    };
    let Err(raised) = removed() else {
        return Ok(());
    };
    if raised.matches(stdlib::file_not_found_error()?) {
        raised.discard();
        return Ok(());
    }
    if !raised.is(Builtin::Os) {
        return Err(raised);
    }
    // The directory may allow no more than to make a socket.
    let error = raised.take();
    let text = Obj::str("Unable to check or remove stale UNIX socket %r: %r")?;
    stdlib::logger()?
        .method(names::error(), [&text, address, &error])
        .map(drop)
}
