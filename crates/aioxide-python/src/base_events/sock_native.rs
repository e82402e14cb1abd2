//! System calls on Python's own sockets, without their methods: what saves an exception for each call that would block.
//!
//! Only for sockets of exactly `socket.socket` whose methods nobody replaced and that do not block; all others, and all
//! arguments that need judgement, are left to the methods.

use std::io::{self, ErrorKind};

use aioxide_engine::socket::{self, Connection};

use crate::addresses::{Family, from_python};
use crate::ffi::{Buffer, GilCell, Obj, PyRes, os_error};
use crate::{names, stdlib};

/// The most that is received at once without the method: it releases the GIL for the copying, this does not.
const MOST: i64 = 1 << 20;

/// The version of `socket.socket` whose methods were seen to be those of `_socket.socket`; 0 is none.
static UNTOUCHED: GilCell<u32> = GilCell::new(0);

/// Are the methods of `socket.socket`, of which `sock` is an instance, those of C?
fn is_untouched(sock: &Obj) -> PyRes<bool> {
    let version = sock.class_version();
    if version != 0 && version == UNTOUCHED.get() {
        return Ok(true);
    }
    let (class, base) = (stdlib::socket_class()?, stdlib::c_socket_class()?);
    for name in [
        names::recv(),
        names::recv_into(),
        names::send(),
        names::connect(),
        names::fileno(),
        names::gettimeout(),
    ] {
        match class.getattr_opt(name)? {
            Some(found) if found.is(&base.getattr(name)?) => {}
            _ => return Ok(false),
        }
    }
    UNTOUCHED.set(sock.class_version());
    Ok(true)
}

/// The version of `socket.socket` whose `accept` was seen to be its own; 0 is none.
static OWN_ACCEPT: GilCell<u32> = GilCell::new(0);

/// Is `sock` exactly a `socket.socket` whose `accept` is the one that Python came with?
pub(super) fn accepts_as_usual(sock: &Obj) -> PyRes<bool> {
    let class = stdlib::socket_class()?;
    if !sock.is_exactly(class) {
        return Ok(false);
    }
    let version = sock.class_version();
    if version != 0 && version == OWN_ACCEPT.get() {
        return Ok(true);
    }
    let accept = class.getattr(names::accept())?;
    let usual = accept.is_exactly(stdlib::function_type()?)
        && accept.getattr_str("__module__")?.equals(names::socket())?;
    if usual {
        OWN_ACCEPT.set(sock.class_version());
    }
    Ok(usual)
}

/// `family`, `type` or `proto` of a socket as the plain number that C has, without making an enumeration's member of it.
pub(super) fn plain_number(sock: &Obj, name: &Obj) -> PyRes {
    if !sock.is_exactly(stdlib::socket_class()?) {
        return sock.getattr(name);
    }
    stdlib::c_socket_class()?.getattr(name)?.get_from(sock)
}

/// The descriptor of a socket that may be used without its methods, asked anew for each call.
fn descriptor(sock: &Obj) -> PyRes<Option<i32>> {
    if !sock.is_exactly(stdlib::socket_class()?) || !is_untouched(sock)? {
        return Ok(None);
    }
    let timeout = sock.method(names::gettimeout(), [])?;
    if timeout.is_none() || timeout.as_f64()? > 0.0 {
        return Ok(None);
    }
    let fd = i32::try_from(sock.method(names::fileno(), [])?.as_i64()?);
    Ok(fd.ok().filter(|&fd| fd >= 0))
}

/// The outcome of a call: made without the method, or not made.
pub(super) enum Call<T> {
    /// The method has to be called.
    Unfit,
    /// It would block.
    Blocked,
    /// It was made.
    Made(T),
}

impl<T> Call<T> {
    /// The outcome of a system call.
    fn new(outcome: io::Result<T>) -> PyRes<Self> {
        match outcome {
            Ok(value) => Ok(Self::Made(value)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Self::Blocked),
            Err(error) => Err(os_error(&error)),
        }
    }
}

/// A view of a buffer, unless the method has to phrase an error.
fn view(buffer: PyRes<Buffer>) -> Option<Buffer> {
    match buffer {
        Ok(buffer) => Some(buffer),
        Err(raised) => {
            raised.discard();
            None
        }
    }
}

/// `sock.recv(size)`.
pub(super) fn recv(sock: &Obj, size: &Obj) -> PyRes<Call<Obj>> {
    if !size.is_exact_int() {
        return Ok(Call::Unfit);
    }
    let size = match size.as_i64() {
        Ok(size @ 1..=MOST) => usize::try_from(size).unwrap_or(0),
        Ok(_) => return Ok(Call::Unfit),
        Err(raised) => {
            raised.discard();
            return Ok(Call::Unfit);
        }
    };
    let Some(fd) = descriptor(sock)? else {
        return Ok(Call::Unfit);
    };
    Call::new(Obj::bytes_with(size, |room| socket::recv_uninit(fd, room))?)
}

/// `sock.recv_into(buffer)`.
pub(super) fn recv_into(sock: &Obj, buffer: &Obj) -> PyRes<Call<Obj>> {
    let Some(mut view) = view(Buffer::writable(buffer)) else {
        return Ok(Call::Unfit);
    };
    if !(1..=MOST).contains(&i64::try_from(view.len()).unwrap_or(i64::MAX)) {
        return Ok(Call::Unfit);
    }
    // The buffer's exporter may be Python code (from 3.12 on), which may have closed the socket.
    let Some(fd) = descriptor(sock)? else {
        return Ok(Call::Unfit);
    };
    let outcome = socket::recv(fd, view.as_mut_slice());
    // Giving the view up may run Python code, which no exception must meet.
    drop(view);
    match Call::new(outcome)? {
        Call::Made(count) => Ok(Call::Made(Obj::int(i64::try_from(count).unwrap_or(0))?)),
        Call::Blocked => Ok(Call::Blocked),
        Call::Unfit => Ok(Call::Unfit),
    }
}

/// `sock.send(data[start:])`, which also says whether that was all.
pub(super) fn send(sock: &Obj, data: &Obj, start: usize) -> PyRes<Call<(usize, bool)>> {
    let Some(view) = view(Buffer::readable(data)) else {
        return Ok(Call::Unfit);
    };
    let Some(fd) = descriptor(sock)? else {
        return Ok(Call::Unfit);
    };
    let rest = view.as_slice().get(start..).unwrap_or(&[]);
    let outcome = socket::send(fd, rest).map(|sent| (sent, sent == rest.len()));
    drop(view);
    Call::new(outcome)
}

/// How `sock.connect(address)` ended.
pub(super) enum Connecting {
    /// The method has to be called.
    Unfit,
    /// It goes on in the background.
    UnderWay,
    /// It is done.
    Done,
}

/// `sock.connect(address)` to a literal address.
pub(super) fn connect(sock: &Obj, family: Option<Family>, address: &Obj) -> PyRes<Connecting> {
    let Some(family) = family else {
        return Ok(Connecting::Unfit);
    };
    let Some(target) = from_python(family, address)? else {
        return Ok(Connecting::Unfit);
    };
    let fd = descriptor(sock)?;
    if fd.is_none() || fd != sock.descriptor_in_socket() {
        return Ok(Connecting::Unfit);
    }
    stdlib::audit()?.call([names::socket_connect(), sock, address])?;
    // A hook may have closed it.
    let fd = sock.descriptor_in_socket().unwrap_or(-1);
    match socket::connect(fd, &target) {
        Ok(Connection::Made) => Ok(Connecting::Done),
        // A second look would often find it made by now, but a server in this loop counts on its turn to accept it.
        Ok(Connection::UnderWay) => Ok(Connecting::UnderWay),
        Err(error) => Err(os_error(&error)),
    }
}

/// What is always left to the method.
#[expect(clippy::unnecessary_wraps, reason = "the signature of the others")]
pub(super) fn unfit(_: &Obj, _: &Obj) -> PyRes<Call<Obj>> {
    Ok(Call::Unfit)
}
