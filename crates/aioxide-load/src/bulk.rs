//! One connection that carries pieces of many megabytes one way.
//!
//! `source` sends a piece, and goes on when the server has told in eight bytes how many bytes it got so
//! far. `sink` asks with one byte for a piece. The bytes follow a pattern that both ends know;
//! its length is prime, so that nothing that moves goes unseen.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use crate::{
    conversation,
    endpoint::Server,
    options::{Address, Options, Outcome},
    poller::PATIENCE,
    tally::{Extent, Tally},
};

/// The bytes of a piece.
const PIECE: usize = 8 << 20;

/// The mebibytes of a piece, which is what is counted.
const MEBIBYTES: u64 = 8;

/// The bytes of the pattern.
const PERIOD: u32 = 65_521;

/// What a piece has in it: the pattern, again and again.
fn piece() -> Vec<u8> {
    let byte = |i: u32| u8::try_from((i * 7 + i / 251) & 255).unwrap_or(0);
    (0..PERIOD).map(byte).cycle().take(PIECE).collect()
}

/// A connection, with TLS or without.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// Connects; reading and writing block, but not for ever.
fn connect(options: &Options) -> Outcome<Box<dyn Stream>> {
    let Server { address, tls } = Server::of(options)?;
    let Address::Tcp(address) = address else {
        return Err("only --tcp".into());
    };
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(match tls {
        Some(client) => Box::new(client.begin(stream)?),
        None => Box::new(stream),
    })
}

/// Moves pieces in both phases.
fn both_phases(options: &Options, mut step: impl FnMut() -> Outcome) -> Outcome {
    let mut phase = |extent| -> Outcome<Tally> {
        let mut tally = Tally::new(extent, MEBIBYTES);
        loop {
            let now = Instant::now();
            if !tally.begin(now) {
                return Ok(tally);
            }
            step()?;
            tally.end(now.elapsed());
        }
    };
    let (warmup, extent) = Extent::of(options)?;
    phase(warmup)?;
    conversation::ready()?;
    conversation::report(&phase(extent)?.into_json())
}

/// `source`: sends.
pub(crate) fn source(options: &Options) -> Outcome {
    let mut stream = connect(options)?;
    let piece = piece();
    let mut total = 0;
    both_phases(options, || {
        stream.write_all(&piece)?;
        total += piece.len() as u64;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer)?;
        let arrived = u64::from_be_bytes(answer);
        if arrived == total {
            Ok(())
        } else {
            Err(format!("{total} bytes were sent and {arrived} came").into())
        }
    })
}

/// `sink`: receives.
pub(crate) fn sink(options: &Options) -> Outcome {
    let mut stream = connect(options)?;
    let piece = piece();
    let mut buffer = vec![0; 256 << 10];
    both_phases(options, || {
        stream.write_all(b"n")?;
        let mut read = 0;
        while read < PIECE {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                return Err("the connection was closed".into());
            }
            if piece.get(read..read + length) != Some(&buffer[..length]) {
                return Err(format!("wrong bytes after {read}").into());
            }
            read += length;
        }
        Ok(())
    })
}
