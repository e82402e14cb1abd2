//! What waits to be sent on a connection.
//!
//! Large chunks are kept as they came, to be sent from where they are; small ones that follow each
//! other are copied together, so that many short writes become one piece.

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, io::IoSlice};

use crate::socket::MAX_PIECES;

/// A chunk of at most so many bytes is worth copying to have fewer pieces.
const SMALL: usize = 4096;

/// A piece made of copies grows up to so many bytes.
const JOINED_MAX: usize = 64 * 1024;

/// Bytes in order.
enum Piece<C> {
    /// A chunk as it came.
    Kept(C),
    /// Copies of one or several chunks.
    Joined(Vec<u8>),
}

impl<C: AsRef<[u8]>> Piece<C> {
    /// The bytes.
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Kept(chunk) => chunk.as_ref(),
            Self::Joined(bytes) => bytes,
        }
    }
}

/// A queue of bytes to send, made of chunks of type `C`, whose bytes must not change.
///
/// Invariants: no piece is empty; `head` is less than the length of the first piece, 0 without one;
/// there are pieces in `rest` only if there is a first one.
pub struct WriteBuffer<C> {
    /// The piece that is sent next: most connections never have another one.
    first: Option<Piece<C>>,
    /// The pieces after it.
    rest: VecDeque<Piece<C>>,
    /// How much of the first piece is sent.
    head: usize,
    /// The number of bytes to send.
    len: usize,
}

impl<C: AsRef<[u8]>> Default for WriteBuffer<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: AsRef<[u8]>> WriteBuffer<C> {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self {
            first: None,
            rest: VecDeque::new(),
            head: 0,
            len: 0,
        }
    }

    /// The number of bytes to send.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to send.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a chunk; keeps it, or copies it if it is small and follows something small. Returns
    /// the chunk if it is not kept.
    #[inline]
    pub fn push(&mut self, chunk: C) -> Option<C> {
        let len = chunk.as_ref().len();
        if len == 0 || len <= SMALL && self.len != 0 && self.join(chunk.as_ref()) {
            return Some(chunk);
        }
        self.len += len;
        self.append(Piece::Kept(chunk));
        None
    }

    /// Adds a copy of bytes that may change later.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.join(bytes) {
            return;
        }
        self.len += bytes.len();
        self.append(Piece::Joined(bytes.to_vec()));
    }

    /// Adds up to `len` bytes that `fill` writes; it says how many these are.
    pub fn push_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        let grows = match self.rest.back_mut().or(self.first.as_mut()) {
            Some(Piece::Joined(last)) if last.len() + len <= JOINED_MAX => Some(last),
            _ => None,
        };
        let mut fresh = Vec::new();
        let is_fresh = grows.is_none();
        let place = grows.unwrap_or(&mut fresh);
        let before = place.len();
        place.resize(before + len, 0);
        let count = fill(&mut place[before..]).min(len);
        place.truncate(before + count);
        self.len += count;
        if is_fresh && count > 0 {
            self.append(Piece::Joined(fresh));
        }
    }

    /// Copies bytes to the end of the last piece. Fails if there is none that may grow.
    fn join(&mut self, bytes: &[u8]) -> bool {
        let head = if self.rest.is_empty() { self.head } else { 0 };
        let Some(last) = self.rest.back_mut().or(self.first.as_mut()) else {
            return false;
        };
        match last {
            Piece::Joined(joined) if joined.len() + bytes.len() <= JOINED_MAX => {
                joined.extend_from_slice(bytes);
            }
            Piece::Kept(kept) if kept.as_ref().len() <= SMALL && bytes.len() <= SMALL => {
                let kept = kept.as_ref();
                let mut joined = Vec::with_capacity((kept.len() + bytes.len()).max(1024));
                joined.extend_from_slice(&kept[head..]);
                joined.extend_from_slice(bytes);
                *last = Piece::Joined(joined);
                if self.rest.is_empty() {
                    self.head = 0;
                }
            }
            _ => return false,
        }
        self.len += bytes.len();
        true
    }

    /// Adds a piece.
    #[inline]
    fn append(&mut self, piece: Piece<C>) {
        if self.first.is_none() {
            self.first = Some(piece);
        } else {
            self.rest.push_back(piece);
        }
    }

    /// Shows the next bytes to `send`: one piece or several, at most [`MAX_PIECES`]. Not to be
    /// called when empty.
    #[inline]
    pub fn peek<R>(&self, send: impl FnOnce(Pieces<'_>) -> R) -> R {
        let first = self
            .first
            .as_ref()
            .map_or(&[][..], |first| &first.bytes()[self.head..]);
        if self.rest.is_empty() {
            return send(Pieces::One(first));
        }
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let bytes = std::iter::once(first).chain(self.rest.iter().map(Piece::bytes));
        let mut count = 0;
        for (piece, bytes) in pieces.iter_mut().zip(bytes) {
            *piece = IoSlice::new(bytes);
            count += 1;
        }
        send(Pieces::Several(&pieces[..count]))
    }

    /// Takes away so many bytes, which were sent.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        if count >= self.len && self.rest.capacity() == 0 {
            // Perf: "echo, 64 connections". All of the one piece that most connections ever have.
            self.first = None;
            self.head = 0;
            self.len = 0;
        } else {
            self.advance_pieces(count.min(self.len));
        }
    }

    /// Takes away the first `count` bytes of all.
    fn advance_pieces(&mut self, mut count: usize) {
        self.len -= count;
        while let Some(first) = &self.first {
            let left = first.bytes().len() - self.head;
            if count < left {
                self.head += count;
                return;
            }
            count -= left;
            self.head = 0;
            self.first = self.rest.pop_front();
        }
        if self.rest.capacity() > MAX_PIECES {
            self.rest = VecDeque::new();
        }
    }

    /// A copy of all bytes to send.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        for piece in self.first.iter().chain(&self.rest) {
            let sent = if all.is_empty() { self.head } else { 0 };
            all.extend_from_slice(&piece.bytes()[sent..]);
        }
        all
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

/// The next bytes of a [`WriteBuffer`].
pub enum Pieces<'a> {
    /// One piece.
    One(&'a [u8]),
    /// Several.
    Several(&'a [IoSlice<'a>]),
}

impl Pieces<'_> {
    /// Sends what it can on a socket, and returns how many bytes.
    #[inline]
    pub fn send(&self, fd: std::os::fd::RawFd) -> std::io::Result<usize> {
        match self {
            Self::One(piece) => crate::socket::send(fd, piece),
            Self::Several(pieces) => crate::socket::send_vectored(fd, pieces),
        }
    }

    /// Writes what it can to a pipe or any other file, and returns how many bytes.
    pub fn write(&self, fd: std::os::fd::RawFd) -> std::io::Result<usize> {
        match self {
            Self::One(piece) => crate::socket::write(fd, piece),
            Self::Several(pieces) => crate::socket::write_vectored(fd, pieces),
        }
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::One(piece) => piece.len(),
            Self::Several(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
