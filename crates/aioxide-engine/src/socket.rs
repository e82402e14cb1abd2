//! System calls on non-blocking sockets and pipes, by descriptor number.
//!
//! The host owns the descriptors: a call on a number that is closed fails with `EBADF`. A call that
//! a signal interrupts is made again, since none of them blocks. No call raises `SIGPIPE`.

#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{SocketAddrV4, SocketAddrV6},
    os::fd::{OwnedFd, RawFd},
};

use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny,
        SocketAddrUnix,
    },
};

use crate::sys::borrow_fd;

/// The most pieces that one vectored write takes; Linux allows 1024.
pub const MAX_PIECES: usize = 64;

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
            AddressFamily::UNIX => {
                let unix = SocketAddrUnix::try_from(address.clone()).ok()?;
                if let Some(path) = unix.path_bytes() {
                    return Some(Self::Unix(path.to_vec()));
                }
                #[cfg(any(target_os = "linux", target_os = "android"))]
                if let Some(name) = unix.abstract_name().filter(|name| !name.is_empty()) {
                    return Some(Self::Unix([b"\0", name].concat()));
                }
                Some(Self::Unix(Vec::new()))
            }
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
    let address = address.as_ref().and_then(Address::from_kernel);
    Ok((count, address))
}

/// Sends the first bytes of `data`, and returns how many.
#[inline]
pub fn send(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    Ok(retry_on_intr(|| net::send(fd, data, SendFlags::NOSIGNAL))?)
}

/// Sends the first bytes of several pieces, and returns how many. Looks at no more than
/// [`MAX_PIECES`].
pub fn send_vectored(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    let pieces = &pieces[..pieces.len().min(MAX_PIECES)];
    let sent = retry_on_intr(|| {
        net::sendmsg(
            fd,
            pieces,
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(sent)
}

/// Sends a datagram to an address.
pub fn send_to(fd: RawFd, data: &[u8], address: &Address) -> io::Result<usize> {
    let fd = borrow_fd(fd)?;
    let flags = SendFlags::NOSIGNAL;
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
/// the host ignores it, as Python does.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn send_file(fd: RawFd, file: RawFd, offset: u64, count: usize) -> io::Result<usize> {
    let (fd, file) = (borrow_fd(fd)?, borrow_fd(file)?);
    let mut position = offset;
    Ok(rustix::fs::sendfile(fd, file, Some(&mut position), count)?)
}

/// Accepts a connection: a non-blocking descriptor, closed on exec, and the peer's address.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn accept(fd: RawFd) -> io::Result<(OwnedFd, Option<Address>)> {
    let fd = borrow_fd(fd)?;
    let flags = net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK;
    let (connection, address) = retry_on_intr(|| net::acceptfrom_with(fd, flags))?;
    Ok((connection, address.as_ref().and_then(Address::from_kernel)))
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
    let address = net::getpeername(borrow_fd(fd)?)?;
    Ok(address.as_ref().and_then(Address::from_kernel))
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

/// Makes a descriptor non-blocking.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(borrow_fd(fd)?, true)?)
}
