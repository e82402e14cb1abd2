//! Sockets of all three kinds behind one face. None of them blocks.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use crate::options::Address;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Link {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connection of a Unix socket.
    Unix(UnixStream),
    /// A UDP socket that speaks with one peer.
    Udp(UdpSocket),
}

impl Link {
    /// Connects.
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Self::tcp(TcpStream::connect(address)?),
            Address::Unix(path) => Self::unix(UnixStream::connect(path)?),
            Address::Udp(address) => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(address)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(socket))
            }
        }
    }

    /// A TCP connection that sends at once.
    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self::Tcp(stream))
    }

    /// A connection of a Unix socket.
    fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Unix(stream))
    }

    /// Reads what is there: `None` for nothing yet, 0 for the end.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        not_yet(match self {
            Self::Tcp(stream) => (&mut &*stream).read(buffer),
            Self::Unix(stream) => (&mut &*stream).read(buffer),
            Self::Udp(socket) => socket.recv(buffer),
        })
    }

    /// Writes what there is room for.
    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        let outcome = not_yet(match self {
            Self::Tcp(stream) => (&mut &*stream).write(data),
            Self::Unix(stream) => (&mut &*stream).write(data),
            Self::Udp(socket) => socket.send(data),
        });
        Ok(outcome?.unwrap_or(0))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// A socket that clients connect to, but not of UDP.
#[derive(Debug)]
pub(crate) enum Listener {
    /// For TCP.
    Tcp(TcpListener),
    /// For Unix sockets.
    Unix(UnixListener),
}

impl Listener {
    /// Listens at a TCP address; tells the port as well.
    pub(crate) fn tcp(address: &str) -> io::Result<(Self, u16)> {
        let listener = TcpListener::bind(address)?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok((Self::Tcp(listener), port))
    }

    /// Listens at a path.
    pub(crate) fn unix(path: &std::path::Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener))
    }

    /// The next client, if one waits.
    pub(crate) fn accept(&self) -> io::Result<Option<Link>> {
        let link = match self {
            Self::Tcp(listener) => not_yet(listener.accept())?.map(|(stream, _)| Link::tcp(stream)),
            Self::Unix(listener) => {
                not_yet(listener.accept())?.map(|(stream, _)| Link::unix(stream))
            }
        };
        link.transpose()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// `None` for what would block.
pub(crate) fn not_yet<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
