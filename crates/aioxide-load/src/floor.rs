//! An echo server as plain as can be: one `recv` and one `send` for each event, and no Python.

use std::{collections::HashMap, io, net::UdpSocket, os::fd::AsFd};

use crate::{
    conversation,
    endpoint::{Link, Listener},
    options::{Address, Options, Outcome},
    poller::{Interest, Poller, not_yet},
};

/// The token of the socket that clients connect to.
const LISTENER: usize = 0;

/// The token of standard input, whose end is ours.
const INPUT: usize = 1;

/// The size of the buffer that everything is read into.
const BUFFER: usize = 256 << 10;

/// A client, and what it was not sent yet for want of room.
struct Client {
    /// The socket.
    link: Link,
    /// What is to be sent. While there is some, nothing is read.
    backlog: Vec<u8>,
}

impl Client {
    /// Sends the backlog, or reads and sends back. False if the client has gone.
    fn advance(&mut self, buffer: &mut [u8], token: usize, poller: &Poller) -> io::Result<bool> {
        if !self.backlog.is_empty() {
            let written = self.link.write(&self.backlog)?;
            self.backlog.drain(..written);
            if self.backlog.is_empty() {
                poller.modify(&self.link, token, Interest::Read)?;
            }
            return Ok(true);
        }
        let Some(length) = self.link.read(buffer)? else {
            return Ok(true);
        };
        let written = self.link.write(&buffer[..length])?;
        if written < length {
            self.backlog.extend_from_slice(&buffer[written..length]);
            poller.modify(&self.link, token, Interest::Write)?;
        }
        Ok(length > 0)
    }
}

/// `floor`: says where it listens, and serves until standard input ends; says how many clients there were.
pub(crate) fn run(options: &Options) -> Outcome {
    match options.address()? {
        Address::Tcp(address) => {
            let (listener, port) = Listener::tcp(&address)?;
            conversation::say(&format!(r#"{{"address": "127.0.0.1:{port}"}}"#))?;
            streams(&listener)
        }
        Address::Unix(path) => {
            let listener = Listener::unix(&path)?;
            conversation::say(&format!(r#"{{"address": "{}"}}"#, path.display()))?;
            streams(&listener)
        }
        Address::Udp(address) => {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            let port = socket.local_addr()?.port();
            conversation::say(&format!(r#"{{"address": "127.0.0.1:{port}"}}"#))?;
            datagrams(&socket)
        }
    }
}

/// Watches a server's socket, and standard input.
fn watch(socket: impl AsFd) -> io::Result<Poller> {
    let poller = Poller::new()?;
    poller.add(socket, LISTENER, Interest::Read)?;
    poller.add(io::stdin(), INPUT, Interest::Read)?;
    Ok(poller)
}

/// Serves connections.
fn streams(listener: &Listener) -> Outcome {
    let mut poller = watch(listener)?;
    let mut clients: HashMap<usize, Client> = HashMap::new();
    let mut next = INPUT + 1;
    let mut buffer = vec![0; BUFFER];
    let mut ready = Vec::new();
    loop {
        poller.wait(&mut ready, None)?;
        for token in ready.drain(..) {
            match token {
                LISTENER => {
                    while let Some(link) = listener.accept()? {
                        poller.add(&link, next, Interest::Read)?;
                        clients.insert(
                            next,
                            Client {
                                link,
                                backlog: Vec::new(),
                            },
                        );
                        next += 1;
                    }
                }
                INPUT => {
                    return Ok(conversation::say(&format!(
                        r#"{{"accepted": {}}}"#,
                        next - INPUT - 1
                    ))?);
                }
                _ => {
                    let Some(client) = clients.get_mut(&token) else {
                        continue;
                    };
                    // A client that resets its connection has gone, too.
                    if !client.advance(&mut buffer, token, &poller).unwrap_or(false) {
                        clients.remove(&token);
                    }
                }
            }
        }
    }
}

/// Serves datagrams.
fn datagrams(socket: &UdpSocket) -> Outcome {
    let mut poller = watch(socket)?;
    let mut buffer = vec![0; BUFFER];
    let mut ready = Vec::new();
    loop {
        poller.wait(&mut ready, None)?;
        if ready.contains(&INPUT) {
            return Ok(());
        }
        // One event stands for as many datagrams as there are.
        while let Some((length, sender)) = not_yet(socket.recv_from(&mut buffer))? {
            socket.send_to(&buffer[..length], sender)?;
        }
        ready.clear();
    }
}
