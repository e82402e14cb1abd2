//! What the `sock_*` methods do with a socket: one attempt of each. Answers the methods `_sock_recv`, `_sock_sendall` and
//! so on of `asyncio/selector_events.py`.

use std::cell::Cell;

use crate::addresses::Family;
use crate::events::Direction;
use crate::ffi::{Buffer, Builtin, Obj, PyRes, Raised, Slot, Visit};
use crate::waiter::{exception_of, is_cancelled, result_of};
use crate::{names, stdlib};

use super::sock_native::{self, Call, Connecting};
use super::sock_wait::Operation;

/// The outcome of a call that may block: nothing if it would have.
pub(super) fn unless_blocked(outcome: PyRes) -> PyRes<Option<Obj>> {
    match outcome {
        Ok(result) => Ok(Some(result)),
        Err(raised) if raised.is(Builtin::BlockingIo) || raised.is(Builtin::Interrupted) => {
            raised.discard();
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}

/// Declares operations that are one call of a method with one argument.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $method:ident, $native:path;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name {
            /// The argument.
            pub argument: Slot,
        }

        impl Operation for $name {
            const NAME: &'static str =
                concat!("BaseSelectorEventLoop._sock_", stringify!($method));
            const DIRECTION: Direction = Direction::Read;

            fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>> {
                let argument = self.argument.get_or_none();
                match $native(sock, &argument)? {
                    Call::Unfit => unless_blocked(sock.method(names::$method(), [&argument])),
                    Call::Blocked => Ok(None),
                    Call::Made(result) => Ok(Some(result)),
                }
            }

            fn traverse(&self, visit: &mut Visit<'_>) {
                visit.slot(&self.argument);
            }

            fn clear(&self) {
                self.argument.clear();
            }
        }
    )*};
}

calls! {
    /// `sock.recv(size)`.
    Recv: recv, sock_native::recv;
    /// `sock.recv_into(buffer)`.
    RecvInto: recv_into, sock_native::recv_into;
    /// `sock.recvfrom(size)`.
    RecvFrom: recvfrom, sock_native::unfit;
}

/// `sock.recvfrom_into(buffer, size)`.
pub(super) struct RecvFromInto {
    /// Where the datagram goes.
    pub buffer: Slot,
    /// How much of it is wanted; nothing or zero for as much as the buffer has room for.
    pub size: Slot,
}

impl Operation for RecvFromInto {
    const NAME: &'static str = "BaseSelectorEventLoop._sock_recvfrom_into";
    const DIRECTION: Direction = Direction::Read;

    fn prepare(&self) -> PyRes<()> {
        if !self.size.get_or_none().truth()? {
            let room = self.buffer.get_or_none().len()?;
            self.size
                .set(Obj::int(i64::try_from(room).unwrap_or(i64::MAX))?);
        }
        Ok(())
    }

    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        let (buffer, size) = (self.buffer.get_or_none(), self.size.get_or_none());
        unless_blocked(sock.method(names::recvfrom_into(), [&buffer, &size]))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.buffer);
        visit.slot(&self.size);
    }

    fn clear(&self) {
        self.buffer.clear();
        self.size.clear();
    }
}

/// `sock.sendto(data, address)`.
pub(super) struct SendTo {
    /// The datagram.
    pub data: Slot,
    /// Where to.
    pub address: Slot,
}

impl Operation for SendTo {
    const NAME: &'static str = "BaseSelectorEventLoop._sock_sendto";
    const DIRECTION: Direction = Direction::Write;

    fn begin(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        let (data, address) = (self.data.get_or_none(), self.address.get_or_none());
        unless_blocked(sock.method(names::sendto(), [&data, &address]))
    }

    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        let (data, address) = (self.data.get_or_none(), self.address.get_or_none());
        // CPython: the later attempts name the flags.
        unless_blocked(sock.method(names::sendto(), [&data, &Obj::int(0)?, &address]))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.data);
        visit.slot(&self.address);
    }

    fn clear(&self) {
        self.data.clear();
        self.address.clear();
    }
}

/// `sock.send` until everything is sent.
pub(super) struct SendAll {
    /// What is to be sent; after the first attempt a `memoryview` of it.
    data: Slot,
    /// How many bytes of it were sent.
    sent: Cell<usize>,
}

impl SendAll {
    /// Nothing is sent yet.
    pub(super) fn new(data: Obj) -> Self {
        Self {
            data: Slot::new(data),
            sent: Cell::new(0),
        }
    }

    /// Keeps what is not sent yet for the next attempt; is there nothing, it is over.
    fn keep_rest(&self, data: &Obj, sent: usize) -> PyRes<Option<Obj>> {
        let view = byte_view(data)?;
        let whole = view.len()? == sent;
        self.sent.set(sent);
        self.data.set(view);
        Ok(whole.then(Obj::none))
    }
}

/// A flat view of bytes.
fn byte_view(data: &Obj) -> PyRes {
    let view = stdlib::memoryview()?.call([data])?;
    let plain = view.getattr_str("itemsize")?.as_i64()? == 1
        && view.getattr_str("ndim")?.as_i64()? == 1
        && view.getattr_str("c_contiguous")?.truth()?;
    if plain {
        return Ok(view);
    }
    // Differs: asyncio counts items where `send` counts bytes, and does not come to an end.
    let bytes = view.method(names::cast(), [&Obj::str("B")?])?;
    Ok(bytes)
}

/// `view[start:stop]`.
pub(super) fn part(view: &Obj, start: usize, stop: Option<usize>) -> PyRes {
    let index = |number: usize| Obj::int(i64::try_from(number).unwrap_or(i64::MAX));
    let stop = stop.map_or_else(|| Ok(Obj::none()), index)?;
    view.item(&stdlib::slice()?.call([&index(start)?, &stop])?)
}

/// The number of bytes that `send` says it sent.
fn count(sent: &Obj) -> PyRes<usize> {
    Ok(usize::try_from(sent.as_i64()?).unwrap_or(0))
}

impl Operation for SendAll {
    const NAME: &'static str = "BaseSelectorEventLoop._sock_sendall";
    const DIRECTION: Direction = Direction::Write;

    fn begin(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        let data = self.data.get_or_none();
        match sock_native::send(sock, &data, 0)? {
            Call::Made((_, true)) => return Ok(Some(Obj::none())),
            Call::Made((sent, false)) => return self.keep_rest(&data, sent),
            Call::Blocked if data.len()? == 0 => return Ok(Some(Obj::none())),
            Call::Blocked => return self.keep_rest(&data, 0),
            Call::Unfit => {}
        }
        let sent = match unless_blocked(sock.method(names::send(), [&data]))? {
            Some(sent) => count(&sent)?,
            None => 0,
        };
        // What is no buffer may have been sent by a socket that knows better.
        if data.len()? == sent && Buffer::readable(&data).map_err(Raised::discard).is_err() {
            return Ok(Some(Obj::none()));
        }
        self.keep_rest(&data, sent)
    }

    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        let view = self.data.get_or_none();
        match sock_native::send(sock, &view, self.sent.get())? {
            Call::Made((_, true)) => return Ok(Some(Obj::none())),
            Call::Made((sent, false)) => {
                self.sent.set(self.sent.get() + sent);
                return Ok(None);
            }
            Call::Blocked => return Ok(None),
            Call::Unfit => {}
        }
        let rest = part(&view, self.sent.get(), None)?;
        let Some(sent) = unless_blocked(sock.method(names::send(), [&rest]))? else {
            return Ok(None);
        };
        self.sent.set(self.sent.get() + count(&sent)?);
        Ok((self.sent.get() == view.len()?).then(Obj::none))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.data);
    }

    fn clear(&self) {
        self.data.clear();
    }
}

/// `sock.accept()`.
pub(super) struct Accept;

impl Operation for Accept {
    const NAME: &'static str = "BaseSelectorEventLoop._sock_accept";
    const DIRECTION: Direction = Direction::Read;

    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        unless_blocked(accept(sock))
    }

    // Differs: asyncio leaves the connection to the garbage collector, which warns.
    fn undelivered(&self, future: &Obj) -> PyRes<()> {
        if is_cancelled(future)? || exception_of(future)?.is_some() {
            return Ok(());
        }
        let [connection, _] = pair(&result_of(future)?)?;
        connection.method(names::close(), []).map(drop)
    }

    fn traverse(&self, _: &mut Visit<'_>) {}

    fn clear(&self) {}
}

/// A connection and its peer's address, the connection non-blocking.
fn accept(sock: &Obj) -> PyRes {
    let accepted = sock.method(names::accept(), [])?;
    let [connection, address] = pair(&accepted)?;
    connection.method(names::setblocking(), [&Obj::bool(false)])?;
    Obj::tuple([connection, address])
}

/// What `first, second = object` gives.
pub(super) fn pair(object: &Obj) -> PyRes<[Obj; 2]> {
    unpack(object)
}

/// What unpacking into `N` names gives, in Python's words if it fails.
pub(super) fn unpack<const N: usize>(object: &Obj) -> PyRes<[Obj; N]> {
    let items = object.items()?;
    let given = items.len();
    items.try_into().map_err(|_| {
        Raised::value_error(&if given < N {
            format!("not enough values to unpack (expected {N}, got {given})")
        } else {
            format!("too many values to unpack (expected {N})")
        })
    })
}

/// A connection attempt that goes on in the background: its outcome.
pub(super) struct Connect {
    /// Where to.
    pub address: Slot,
    /// The socket's family, if it is one of the Internet's.
    pub family: Option<Family>,
}

impl Operation for Connect {
    const NAME: &'static str = "BaseSelectorEventLoop._sock_connect_cb";
    const DIRECTION: Direction = Direction::Write;

    fn begin(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        let address = self.address.get_or_none();
        match sock_native::connect(sock, self.family, &address)? {
            Connecting::Unfit => {}
            Connecting::UnderWay => return Ok(None),
            Connecting::Done => return Ok(Some(Obj::none())),
        }
        let connected = unless_blocked(sock.method(names::connect(), [&address]))?;
        Ok(connected.map(|_| Obj::none()))
    }

    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        unless_blocked(connected(sock, &self.address.get_or_none()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.address);
    }

    fn clear(&self) {
        self.address.clear();
    }
}

/// Raises the error of a connection attempt that failed.
fn connected(sock: &Obj, address: &Obj) -> PyRes {
    let error = sock.method(
        names::getsockopt(),
        [stdlib::sol_socket()?, stdlib::so_error()?],
    )?;
    if error.equals(&Obj::int(0)?)? {
        return Ok(Obj::none());
    }
    let text = format!("Connect call failed {}", address.to_str()?.text()?);
    let exception = Builtin::Os.class().call([&error, &Obj::str(&text)?])?;
    Err(Raised::raise(&exception))
}
