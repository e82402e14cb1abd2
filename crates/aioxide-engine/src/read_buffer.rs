//! The bytes that were received and not read yet, and where a separator ends in them. Answers what `StreamReader` in
//! `asyncio/streams.py` does with its `_buffer`.
//!
//! Reading moves a cursor; the bytes themselves move only when as many were read as are left, so that each byte is
//! copied at most once more than it has to be.
//!
//! A search that did not find its separator says from where the next one has to look ([`look`]): what was looked
//! through is not looked through again, but for the end, where a separator may have begun.

use memchr::{memchr, memmem};

#[cfg(test)]
mod tests;

/// How much room an empty buffer keeps.
const KEPT: usize = 256 * 1024;

/// Bytes that go in at the end and out at the beginning.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    /// The bytes, those that were read included.
    bytes: Vec<u8>,
    /// How many were read.
    start: usize,
}

impl ReadBuffer {
    /// An empty buffer, without room.
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Are there none?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Appends.
    #[inline]
    pub fn extend(&mut self, data: &[u8]) {
        if self.start != 0 && self.bytes.len() + data.len() > self.bytes.capacity() {
            self.compact();
        }
        self.bytes.extend_from_slice(data);
    }

    /// Moves the bytes to the front, if at least as many were read.
    fn compact(&mut self) {
        if self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Takes the first `count` bytes away, or as many as there are.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    /// Takes all bytes away, and gives the room of a burst back.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes.shrink_to(KEPT);
        }
    }
}

/// What a look for separators gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Look {
    /// A separator is there, from `start` to before `end`.
    Found {
        /// Where it begins.
        start: usize,
        /// Where it ends.
        end: usize,
    },
    /// None is there. The next look need not begin before `from`.
    Missing {
        /// Where the next look begins.
        from: usize,
    },
    /// There is less than the shortest separator to look at.
    TooShort,
}

/// Looks for the match that ends first, and among those that end together for that of the first separator.
///
/// `separators` must be ordered by length, the shortest first, and not be empty. Nothing of `from` and before begins a
/// separator, says the caller; `from` may lie behind the end.
#[inline]
pub fn look<S: AsRef<[u8]>>(bytes: &[u8], separators: &[S], from: usize) -> Look {
    let [shortest, .., longest] = separators else {
        return match separators {
            [one] => look_for_one(bytes, one.as_ref(), from),
            _ => Look::TooShort,
        };
    };
    if bytes.len() < from.saturating_add(shortest.as_ref().len()) {
        return Look::TooShort;
    }
    let mut found: Option<(usize, usize)> = None;
    let mut rest = &bytes[from..];
    for separator in separators {
        let separator = separator.as_ref();
        if let Some(start) = find(rest, separator) {
            let end = start + separator.len();
            if found.is_none_or(|(_, first_end)| end < first_end) {
                found = Some((start, end));
                // What ends later is of no interest.
                rest = &rest[..end];
            }
        }
    }
    match found {
        Some((start, end)) => Look::Found {
            start: from + start,
            end: from + end,
        },
        None => Look::Missing {
            from: next(bytes, longest.as_ref()),
        },
    }
}

/// Looks for one separator.
#[inline]
fn look_for_one(bytes: &[u8], separator: &[u8], from: usize) -> Look {
    if bytes.len() < from.saturating_add(separator.len()) {
        return Look::TooShort;
    }
    match find(&bytes[from..], separator) {
        Some(start) => Look::Found {
            start: from + start,
            end: from + start + separator.len(),
        },
        None => Look::Missing {
            from: next(bytes, separator),
        },
    }
}

/// From where a separator of this length may yet begin, if there is none so far.
#[inline]
fn next(bytes: &[u8], longest: &[u8]) -> usize {
    (bytes.len() + 1).saturating_sub(longest.len())
}

/// Where `separator` first begins.
#[inline]
fn find(bytes: &[u8], separator: &[u8]) -> Option<usize> {
    if let &[byte] = separator {
        memchr(byte, bytes)
    } else {
        memmem::find(bytes, separator)
    }
}
