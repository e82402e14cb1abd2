//! The socket pair that ends a blocking wait; asyncio's `loop._ssock` and `loop._csock`.
//!
//! A byte in it makes the selector report the reading end. Bytes come from [`WakerWriter::wake`]
//! and, through the raw number of the writing end, from whatever the host gives that number to,
//! such as `signal.set_wakeup_fd`; their values mean nothing here.
//!
//! A forked child shares the pair with its parent, so a writer writes only in the process that
//! made it.

#[cfg(test)]
mod tests;

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    process,
    sync::{Mutex, PoisonError, TryLockError},
};

/// Makes a non-blocking socket pair that is closed on exec.
pub(crate) fn waker() -> io::Result<(WakerReader, WakerWriter)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    let fd = writer.as_raw_fd();
    let writer = WakerWriter {
        stream: Mutex::new(Some(writer)),
        fd,
        process_id: process::id(),
    };
    Ok((WakerReader { stream: reader }, writer))
}

/// The reading end, owned by the loop.
pub(crate) struct WakerReader {
    /// The socket.
    stream: UnixStream,
}

impl WakerReader {
    /// Discards all bytes.
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 1024];
        loop {
            match (&self.stream).read(&mut bytes) {
                Ok(count) if count == bytes.len() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Fewer than asked for: nothing is left. An error: nothing was there.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

impl AsRawFd for WakerReader {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// The writing end, shared by all threads.
pub(crate) struct WakerWriter {
    /// The socket until it is closed. The lock keeps it open during a write; the loop's thread
    /// takes the lock only to close.
    stream: Mutex<Option<UnixStream>>,
    /// The socket's number.
    fd: RawFd,
    /// The process that made the pair.
    process_id: u32,
}

impl WakerWriter {
    /// Writes a byte, unless the pair is closed or belongs to a parent process.
    pub(crate) fn wake(&self) {
        if self.is_forked() {
            return;
        }
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut stream) = stream.as_ref() else {
            return;
        };
        // If the socket is full, it holds bytes that wake the loop as well.
        while let Err(error) = stream.write(&[0]) {
            if error.kind() != ErrorKind::Interrupted {
                return;
            }
        }
    }

    /// Closes the socket; in a forked child only if no thread of the parent held the lock.
    pub(crate) fn close(&self) {
        let stream = if self.is_forked() {
            self.stream.try_lock()
        } else {
            self.stream.lock().map_err(TryLockError::from)
        };
        match stream {
            Ok(mut stream) => drop(stream.take()),
            Err(TryLockError::Poisoned(poisoned)) => drop(poisoned.into_inner().take()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Whether this process is a fork of the one that made the pair.
    pub(crate) fn is_forked(&self) -> bool {
        process::id() != self.process_id
    }
}

impl AsRawFd for WakerWriter {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

#[cfg(test)]
impl WakerWriter {
    /// Makes the pair look like one that came from a parent process.
    pub(crate) fn pretend_fork(&mut self) {
        self.process_id = self.process_id.wrapping_add(1);
    }
}
