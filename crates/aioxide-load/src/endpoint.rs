//! Sockets of all three kinds, and TLS, behind one face. None of them blocks.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use crate::{
    options::{Address, Options, Outcome},
    poller::not_yet,
    tls::{Client, Session},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Who is connected to, and how.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it is.
    pub(crate) address: Address,
    /// What speaks TLS with it, if anything does.
    pub(crate) tls: Option<Client>,
}

impl Server {
    /// The one that the command line names.
    pub(crate) fn of(options: &Options) -> Outcome<Self> {
        let (address, tls) = (options.address()?, Client::of(options)?);
        if tls.is_some() && !matches!(address, Address::Tcp(_)) {
            return Err("TLS is for --tcp".into());
        }
        Ok(Self { address, tls })
    }

    /// Connects.
    pub(crate) fn connect(&self) -> io::Result<Link> {
        match (Link::connect(&self.address)?, &self.tls) {
            (Link::Tcp(stream), Some(client)) => Ok(Link::Tls(Box::new(client.begin(stream)?))),
            (link, _) => Ok(link),
        }
    }
}

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Link {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connection of a Unix socket.
    Unix(UnixStream),
    /// A UDP socket that speaks with one peer.
    Udp(UdpSocket),
    /// A TCP connection that speaks TLS.
    Tls(Box<Session>),
}

impl Link {
    /// Connects, without TLS.
    fn connect(address: &Address) -> io::Result<Self> {
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
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        not_yet(match self {
            Self::Tcp(stream) => (&mut &*stream).read(buffer),
            Self::Unix(stream) => (&mut &*stream).read(buffer),
            Self::Udp(socket) => socket.recv(buffer),
            Self::Tls(session) => return session.receive(buffer),
        })
    }

    /// Writes what there is room for. TLS takes everything, and may be owing some of it.
    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let outcome = not_yet(match self {
            Self::Tcp(stream) => (&mut &*stream).write(data),
            Self::Unix(stream) => (&mut &*stream).write(data),
            Self::Udp(socket) => socket.send(data),
            Self::Tls(session) => return session.send(data),
        });
        Ok(outcome?.unwrap_or(0))
    }

    /// Was something taken that has yet to be written?
    pub(crate) fn is_owing(&self) -> bool {
        matches!(self, Self::Tls(session) if session.is_owing())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Tls(session) => session.socket().as_fd(),
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
