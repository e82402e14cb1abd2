//! System calls on non-blocking sockets and pipes, by descriptor number.
//!
//! The host owns the descriptors: a call on a number that is closed fails with `EBADF`. A call that
//! a signal interrupts is made again, since none of them blocks. No call raises `SIGPIPE`, unless it
//! says so, or an Apple system is so old that it has no way to ask for that; then the host has to
//! ignore the signal, as Python does.

#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{SocketAddrV4, SocketAddrV6},
    os::fd::{BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny,
        SocketAddrUnix,
    },
};

#[cfg(any(
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "dragonfly"
))]
use crate::sys::sendfile;
use crate::sys::{borrow_fd, sun_path};

/// The most pieces that one vectored write takes; Linux allows 1024.
pub const MAX_PIECES: usize = 64;

/// Has a send to a stream without reader fail, and raise no signal.
#[cfg(not(target_vendor = "apple"))]
const QUIETLY: SendFlags = SendFlags::NOSIGNAL;

/// Has a send to a stream without reader fail, and raise no signal. Old systems do not know the flag,
/// and pass over it.
#[cfg(target_vendor = "apple")]
const QUIETLY: SendFlags = SendFlags::from_bits_retain(libc::MSG_NOSIGNAL.cast_unsigned());

/// A socket's address, of the families that asyncio's transports have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `AF_INET`.
    V4(SocketAddrV4),
    /// `AF_INET6`.
    V6(SocketAddrV6),
    /// `AF_UNIX`: a path, nothing for a socket without name, or a NUL and the name in the abstract
    /// name space.
    Unix(Vec<u8>),
}

impl Address {
    /// The address as the kernel gave it; `None` for another family.
    fn from_kernel(address: &SocketAddrAny) -> Option<Self> {
        match address.address_family() {
            AddressFamily::INET => address.clone().try_into().ok().map(Self::V4),
            AddressFamily::INET6 => address.clone().try_into().ok().map(Self::V6),
            AddressFamily::UNIX => Some(Self::Unix(unix_name(sun_path(address)).to_vec())),
            _ => None,
        }
    }

    /// The address as the kernel takes it.
    fn to_kernel(&self) -> io::Result<SocketAddrAny> {
        Ok(match self {
            Self::V4(address) => (*address).into(),
            Self::V6(address) => (*address).into(),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Unix(name) if name.first() == Some(&0) => {
                SocketAddrUnix::new_abstract_name(&name[1..])?.into()
            }
            Self::Unix(path) => SocketAddrUnix::new(path.as_slice())?.into(),
        })
    }
}

/// The name in the part of a Unix address that the kernel wrote: the path, which a NUL ends or may
/// end, or where there is such a thing, all of a name that begins with one.
fn unix_name(written: &[u8]) -> &[u8] {
    let is_abstract = cfg!(any(target_os = "linux", target_os = "android"));
    match written {
        [0, ..] if is_abstract => written,
        _ => written.split(|byte| *byte == 0).next().unwrap_or_default(),
    }
}

/// How far a connection attempt has come.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It is made.
    Made,
    /// It goes on; the socket becomes writable at its end.
    UnderWay,
}

/// Begins to connect, or looks how far that has come: on Linux, a second call tells.
pub fn connect(fd: RawFd, address: &Address) -> io::Result<Connection> {
    match net::connect(borrow_fd(fd)?, &address.to_kernel()?) {
        Ok(()) => Ok(Connection::Made),
        Err(Errno::INPROGRESS | Errno::ALREADY | Errno::AGAIN | Errno::INTR) => {
            Ok(Connection::UnderWay)
        }
        Err(error) => Err(error.into()),
    }
}

/// Receives into a buffer; 0 at the end of the stream.
#[inline]
pub fn recv(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    let (count, _) = retry_on_intr(|| net::recv(fd, &mut *buffer, RecvFlags::empty()))?;
    Ok(count)
}

/// Receives into memory that was never written; 0 at the end of the stream. The first bytes, as
/// many as returned, are written then.
#[inline]
pub fn recv_uninit(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    let receive = || net::recv(fd, &mut *buffer, RecvFlags::empty()).map(|(_, count)| count);
    Ok(retry_on_intr(receive)?)
}

/// Receives a datagram and tells where it came from; what does not fit is lost. The address is
/// `None` if there is none, or it is of a family unknown here.
pub fn recv_from(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<Address>)> {
    let fd = borrow_fd(fd)?;
    let (count, _, address) =
        retry_on_intr(|| net::recvfrom(fd, &mut *buffer, RecvFlags::empty()))?;
    Ok((count, peer(fd, address.as_ref())))
}

/// Sends the first bytes of `data`, and returns how many.
#[inline]
pub fn send(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    Ok(retry_on_intr(|| net::send(fd, data, QUIETLY))?)
}

/// Sends the first bytes of several pieces, and returns how many. Looks at no more than
/// [`MAX_PIECES`].
pub fn send_vectored(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
    let sent =
        retry_on_intr(|| net::sendmsg(fd, pieces, &mut SendAncillaryBuffer::default(), QUIETLY))?;
    Ok(sent)
}

/// Sends a datagram to an address.
pub fn send_to(fd: RawFd, data: &[u8], address: &Address) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    let flags = QUIETLY;
    let sent = match address {
        Address::V4(address) => retry_on_intr(|| net::sendto(fd, data, flags, address)),
        Address::V6(address) => retry_on_intr(|| net::sendto(fd, data, flags, address)),
        Address::Unix(_) => {
            let address = address.to_kernel()?;
            retry_on_intr(|| net::sendto(fd, data, flags, &address))
        }
    }?;
    Ok(sent)
}

/// Sends bytes of a file, from `offset` on, without a copy in this process, and returns how many; 0
/// at the file's end. Reading the file may block. A stream without reader raises `SIGPIPE`, unless
/// the host ignores it, as Python does. Fails where the system has no such call.
pub fn send_file(fd: RawFd, file: RawFd, offset: u64, count: usize) -> io::Result<usize> {
    sendfile(borrow_fd(fd)?, borrow_fd(file)?, offset, count)
}

/// Linux' system call.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn sendfile(
    fd: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    mut offset: u64,
    count: usize,
) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(fd, file, Some(&mut offset), count)?)
}

/// There is none.
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
fn sendfile(_: BorrowedFd<'_>, _: BorrowedFd<'_>, _: u64, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Accepts a connection: a non-blocking descriptor, closed on exec, and the peer's address.
pub fn accept(fd: RawFd) -> io::Result<(OwnedFd, Option<Address>)> {
    let fd = borrow_fd(fd)?;
    let (connection, address) = retry_on_intr(|| accept_nonblocking(fd))?;
    Ok((connection, peer(fd, address.as_ref())))
}

/// The system call that does it all.
#[cfg(not(target_vendor = "apple"))]
fn accept_nonblocking(fd: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
    let flags = net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK;
    net::acceptfrom_with(fd, flags)
}

/// Accepts, then sets what Apple's systems do not set at once.
#[cfg(target_vendor = "apple")]
fn accept_nonblocking(fd: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
    let (connection, address) = net::acceptfrom(fd)?;
    rustix::io::fcntl_setfd(&connection, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&connection, true)?;
    Ok((connection, address))
}

/// The address of a peer, as a call on a socket told it.
fn peer(fd: BorrowedFd<'_>, address: Option<&SocketAddrAny>) -> Option<Address> {
    match address {
        Some(address) => Address::from_kernel(address),
        // Apple's systems tell of Unix sockets without name; rustix takes that for no address.
        None if cfg!(target_vendor = "apple") => {
            let own = net::getsockname(fd).ok()?;
            (own.address_family() == AddressFamily::UNIX).then(|| Address::Unix(Vec::new()))
        }
        None => None,
    }
}

/// Ends the sending half of a connection.
pub fn shutdown_write(fd: RawFd) -> io::Result<()> {
    Ok(net::shutdown(borrow_fd(fd)?, Shutdown::Write)?)
}

/// The socket's own address; `None` if it is of a family unknown here.
pub fn local_address(fd: RawFd) -> io::Result<Option<Address>> {
    Ok(Address::from_kernel(&net::getsockname(borrow_fd(fd)?)?))
}

/// The peer's address; `None` if it is of a family unknown here.
pub fn peer_address(fd: RawFd) -> io::Result<Option<Address>> {
    let fd = borrow_fd(fd)?;
    let address = net::getpeername(fd)?;
    Ok(peer(fd, address.as_ref()))
}

/// Takes the error that waits on a socket, such as that of a connection attempt.
pub fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    let error = net::sockopt::socket_error(borrow_fd(fd)?)?;
    Ok(error.err().map(Into::into))
}

/// Sends small writes at once.
pub fn set_nodelay(fd: RawFd) -> io::Result<()> {
    Ok(net::sockopt::set_tcp_nodelay(borrow_fd(fd)?, true)?)
}

/// Reads from a pipe or any other file; 0 at its end.
pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    Ok(retry_on_intr(|| rustix::io::read(fd, &mut *buffer))?)
}

/// Writes the first bytes of `data` to a pipe or any other file, and returns how many. A pipe
/// without reader raises `SIGPIPE`, unless the host ignores it, as Python does.
pub fn write(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    Ok(retry_on_intr(|| rustix::io::write(fd, data))?)
}

/// Writes the first bytes of several pieces to a pipe or any other file, and returns how many. Looks
/// at no more than [`MAX_PIECES`]. As to `SIGPIPE` see [`write`].
pub fn write_vectored(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
    Ok(retry_on_intr(|| rustix::io::writev(fd, pieces))?)
}

/// Makes a descriptor non-blocking.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(borrow_fd(fd)?, true)?)
}
