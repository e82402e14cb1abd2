//! The socket pair that ends a blocking wait; asyncio's `loop._ssock` and `loop._csock`.
//!
//! A byte in it makes the selector report the reading end. Bytes come from [`WakerWriter::wake`]
//! and, through the raw number of the writing end, from whatever the host gives that number to,
//! such as `signal.set_wakeup_fd`; those that are not zero are kept for it.
//!
//! A forked child shares the pair with its parent, so a writer writes only in the process that
//! made it, until the child has [adopted](WakerWriter::adopt) the loop with a pair of its own.

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
    thread,
};

use crate::sys::lineage;

/// How often a lock is tried that a thread may hold which exists in the parent process only.
pub(crate) const ATTEMPTS: u32 = 10_000;

/// Makes a non-blocking socket pair that is closed on exec.
pub(crate) fn waker() -> io::Result<(WakerReader, WakerWriter)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    let fd = writer.as_raw_fd();
    let writer = WakerWriter {
        stream: Mutex::new(Some(writer)),
        fd: AtomicI32::new(fd),
        lineage: AtomicU32::new(lineage()),
    };
    let stream = RefCell::new(reader);
    let foreign = RefCell::default();
    Ok((WakerReader { stream, foreign }, writer))
}

/// The reading end, owned by the loop.
pub(crate) struct WakerReader {
    /// The socket.
    stream: RefCell<UnixStream>,
    /// The bytes that others have written.
    foreign: RefCell<Vec<u8>>,
}

impl WakerReader {
    /// Empties the socket; keeps what is not of [`WakerWriter::wake`].
    pub(crate) fn drain(&self) {
        let mut bytes = [0; 1024];
        let mut stream = self.stream.borrow_mut();
        loop {
            match stream.read(&mut bytes) {
                Ok(count) => {
                    let foreign = bytes[..count].iter().filter(|byte| **byte != 0);
                    self.foreign.borrow_mut().extend(foreign);
                    if count < bytes.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing was there.
                Err(_) => return,
            }
        }
    }

    /// The bytes that others have written since the last call.
    pub(crate) fn take_foreign(&self) -> Vec<u8> {
        self.foreign.take()
    }

    /// Takes the place of a reader that came from a parent process.
    pub(crate) fn replace(&self, newer: Self) {
        drop(self.stream.replace(newer.stream.into_inner()));
        drop(self.foreign.take());
    }
}

impl AsRawFd for WakerReader {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.borrow().as_raw_fd()
    }
}

/// The writing end, shared by all threads.
pub(crate) struct WakerWriter {
    /// The socket until it is closed. The lock keeps it open during a write; the loop's thread
    /// takes the lock only to close.
    stream: Mutex<Option<UnixStream>>,
    /// The socket's number.
    fd: AtomicI32,
    /// The process that made the pair, as [`lineage`] has it.
    lineage: AtomicU32,
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

    /// Takes the place of a writer that came from a parent process. Fails, and gives the newer one
    /// back, if a thread that is left in the parent held the lock.
    pub(crate) fn adopt(&self, newer: Self) -> Result<(), Self> {
        let Some(mut stream) = self.lock_in_child() else {
            return Err(newer);
        };
        self.fd.store(newer.as_raw_fd(), Ordering::Relaxed);
        let newer = newer
            .stream
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let parents = std::mem::replace(&mut *stream, newer);
        self.lineage.store(lineage(), Ordering::Release);
        drop(stream);
        drop(parents);
        Ok(())
    }

    /// Takes the lock, unless it is held for so long that its holder cannot exist.
    fn lock_in_child(&self) -> Option<MutexGuard<'_, Option<UnixStream>>> {
        for _ in 0..ATTEMPTS {
            match self.stream.try_lock() {
                Ok(stream) => return Some(stream),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        None
    }

    /// Whether this process is a fork of the one that made the pair.
    pub(crate) fn is_forked(&self) -> bool {
        lineage() != self.lineage.load(Ordering::Acquire)
    }
}

impl AsRawFd for WakerWriter {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl WakerWriter {
    /// Makes the pair look like one that came from a parent process.
    pub(crate) fn pretend_fork(&mut self) {
        let lineage = self.lineage.get_mut();
        *lineage = lineage.wrapping_sub(1);
    }
}
