//! Many connections, each with one message (or one batch of lines) under way.

use std::{io, time::Instant};

use crate::{
    conversation,
    endpoint::{Link, Server},
    options::{Options, Outcome},
    poller::{Interest, Poller},
    tally::{Extent, Tally},
};

/// The hexadecimal digits of a line that tell connection and number.
const MARK: usize = 16;

/// A connection and the message that is under way on it.
struct Connection {
    /// The socket.
    link: Link,
    /// What is sent, and has to come back.
    sent: Vec<u8>,
    /// How much of it the kernel has taken.
    written: usize,
    /// What has come back; a byte longer than it should get.
    received: Vec<u8>,
    /// How much of it there is.
    read: usize,
    /// The length of a line.
    line: usize,
    /// Which connection this is.
    number: u32,
    /// Lines that were made so far.
    lines: u32,
    /// Is it watched for room to write?
    waits_for_room: bool,
    /// When the message was sent.
    start: Instant,
}

impl Connection {
    /// A connection whose messages have `batch` lines of `length` bytes.
    fn new(link: Link, number: u32, length: usize, batch: usize) -> Self {
        let mut sent: Vec<u8> = (0u32..)
            .take(length * batch)
            .map(|i| b'a' + u8::try_from((i * 7 + i / 26 + number) % 26).unwrap_or(0))
            .collect();
        sent.iter_mut()
            .skip(length - 1)
            .step_by(length)
            .for_each(|end| *end = b'\n');
        Self {
            received: vec![0; sent.len() + 1],
            sent,
            written: 0,
            read: 0,
            line: length,
            number,
            lines: 0,
            waits_for_room: false,
            start: Instant::now(),
            link,
        }
    }

    /// Makes the next message, marks each of its lines, and sends it.
    fn begin(&mut self, now: Instant, poller: &Poller) -> io::Result<()> {
        for line in self.sent.chunks_exact_mut(self.line) {
            let mark = u64::from(self.number) << 32 | u64::from(self.lines);
            for (i, byte) in line.iter_mut().take(MARK.min(self.line - 1)).enumerate() {
                *byte = b"0123456789abcdef"[(mark >> (4 * (i % MARK)) & 15) as usize];
            }
            self.lines = self.lines.wrapping_add(1);
        }
        (self.written, self.read, self.start) = (0, 0, now);
        self.write(poller)
    }

    /// Writes what there is room for.
    fn write(&mut self, poller: &Poller) -> io::Result<()> {
        if self.written < self.sent.len() || self.link.is_owing() {
            self.written += self.link.write(&self.sent[self.written..])?;
        }
        let waits = self.written < self.sent.len() || self.link.is_owing();
        if waits != self.waits_for_room {
            self.waits_for_room = waits;
            let interest = if waits {
                Interest::Both
            } else {
                Interest::Read
            };
            poller.modify(&self.link, self.number as usize, interest)?;
        }
        Ok(())
    }

    /// Reads what is there. True if the message has come back, as it was.
    fn read(&mut self, poller: &Poller) -> Outcome<bool> {
        let outcome = self.link.read(&mut self.received[self.read..])?;
        if self.link.is_owing() {
            // What waited for the end of a handshake.
            self.write(poller)?;
        }
        match outcome {
            None => return Ok(false),
            Some(0) => return Err("a connection was closed".into()),
            Some(length) => self.read += length,
        }
        if self.read > self.written {
            return Err("more came back than was sent".into());
        }
        if self.read < self.sent.len() {
            return match self.link {
                Link::Udp(_) => Err("a datagram came back in pieces".into()),
                _ => Ok(false),
            };
        }
        if self.received[..self.read] == self.sent {
            Ok(true)
        } else {
            Err("what came back is not what was sent".into())
        }
    }
}

/// Sends and checks messages until the phase is over and nothing is under way.
fn phase(connections: &mut [Connection], poller: &mut Poller, tally: &mut Tally) -> Outcome {
    let mut ready = Vec::new();
    for connection in connections.iter_mut() {
        let now = Instant::now();
        if tally.begin(now) {
            connection.begin(now, poller)?;
        }
    }
    while tally.is_busy() {
        poller.wait_patiently(&mut ready)?;
        for number in ready.drain(..) {
            let connection = &mut connections[number];
            if connection.waits_for_room {
                connection.write(poller)?;
            }
            if connection.read(poller)? {
                let now = Instant::now();
                tally.end(now.duration_since(connection.start));
                if tally.begin(now) {
                    connection.begin(now, poller)?;
                }
            }
        }
    }
    Ok(())
}

/// `echo`: `--connections`, `--size` of a line, `--pipeline` lines that are written at once, `--tls`, and the phases.
pub(crate) fn run(options: &Options) -> Outcome {
    let server = Server::of(options)?;
    let (warmup, extent) = Extent::of(options)?;
    let size: usize = options.or("size", 1024)?;
    let batch: usize = options.or("pipeline", 1)?;
    let count: u32 = options.or("connections", 1)?;
    let mut poller = Poller::new()?;
    let mut connections = Vec::new();
    for number in 0..count {
        let link = server.connect()?;
        poller.add(&link, number as usize, Interest::Read)?;
        connections.push(Connection::new(link, number, size.max(2), batch.max(1)));
    }
    phase(
        &mut connections,
        &mut poller,
        &mut Tally::new(warmup, batch as u64),
    )?;
    conversation::ready()?;
    let mut tally = Tally::new(extent, batch as u64);
    phase(&mut connections, &mut poller, &mut tally)?;
    conversation::report(&tally.into_json())?;
    for mut connection in connections {
        if connection.link.read(&mut [0])?.is_some() {
            return Err("a connection was closed, or more came back than was sent".into());
        }
    }
    Ok(())
}
