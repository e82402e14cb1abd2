//! The queue of bytes to send as a fuzz target: writers and a socket that takes what it likes, against a plain vector.
//! `make fuzz` runs it for long.
//!
//! Each byte of the input is an operation, with its arguments behind it.

mod fuzzing;

use std::cell::Cell;
use std::rc::Rc;

use aioxide_engine::write_buffer::{Pieces, WriteBuffer};
use fuzzing::{Input, fuzz};

/// A chunk that is counted while it lives.
struct Chunk {
    /// Its bytes.
    bytes: Vec<u8>,
    /// How many live.
    alive: Rc<Cell<usize>>,
}

impl Chunk {
    /// One more.
    fn new(bytes: Vec<u8>, alive: &Rc<Cell<usize>>) -> Self {
        alive.set(alive.get() + 1);
        Self {
            bytes,
            alive: Rc::clone(alive),
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

/// A length: small, around the size up to which chunks are copied, or around that of a joined piece.
fn length(input: &mut Input<'_>) -> usize {
    match input.byte() % 8 {
        0..4 => input.below(64),
        4 | 5 => 4_094 + input.below(6),
        6 => input.below(20_000),
        _ => 65_532 + input.below(8),
    }
}

/// What is shown to a socket, as one vector.
fn shown(buffer: &WriteBuffer<Chunk>) -> Vec<u8> {
    buffer.peek(|pieces| {
        let bytes = match &pieces {
            Pieces::One(piece) => piece.to_vec(),
            Pieces::Several(pieces) => {
                assert!(pieces.len() > 1);
                pieces.iter().flat_map(|piece| piece.to_vec()).collect()
            }
        };
        assert_eq!(pieces.len(), bytes.len());
        assert_eq!(pieces.is_empty(), bytes.is_empty());
        bytes
    })
}

/// The target.
fn run(data: &[u8]) {
    let mut input = Input(data);
    let alive = Rc::new(Cell::new(0));
    let mut buffer = WriteBuffer::new();
    let mut model = Vec::new();
    let mut next = 0u8;
    while !input.is_over() {
        let operation = input.byte() % 16;
        match operation {
            0..8 => {
                // No two places near each other have the same bytes.
                let chunk: Vec<u8> = (0..length(&mut input))
                    .map(|_| {
                        next = next.wrapping_mul(61).wrapping_add(17);
                        next
                    })
                    .collect();
                // A queue that nobody empties says nothing new, and slowly.
                if model.len() + chunk.len() > 1 << 19 {
                    continue;
                }
                model.extend_from_slice(&chunk);
                if operation < 5 {
                    drop(buffer.push(Chunk::new(chunk, &alive)));
                } else {
                    buffer.push_copy(&chunk);
                }
            }
            // A socket with room for so much, as often as it takes all that it is shown.
            8..15 => {
                let mut room = match input.byte() % 4 {
                    0 => 0,
                    1 => input.below(64),
                    2 => input.below(10_000),
                    _ => usize::MAX,
                };
                while !buffer.is_empty() {
                    let seen = shown(&buffer);
                    assert!(!seen.is_empty(), "there is something, and it is shown");
                    assert!(model.starts_with(&seen));
                    let sent = seen.len().min(room);
                    room -= sent;
                    buffer.advance(sent);
                    model.drain(..sent);
                    if sent < seen.len() {
                        break;
                    }
                }
            }
            _ => {
                if input.byte() % 2 == 0 {
                    buffer.clear();
                    model.clear();
                } else {
                    // More than there is counts as all.
                    let count = input.below(1 << 16);
                    buffer.advance(count);
                    model.drain(..count.min(model.len()));
                }
            }
        }
        assert_eq!(buffer.len(), model.len());
        assert_eq!(buffer.is_empty(), model.is_empty());
        if buffer.is_empty() {
            assert_eq!(alive.get(), 0, "what was sent is kept no longer");
        }
    }
    drop(buffer);
    assert_eq!(alive.get(), 0);
}

#[test]
fn no_byte_is_lost_and_no_chunk_is_kept() {
    fuzz(run);
}
