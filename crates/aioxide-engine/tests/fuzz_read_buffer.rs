//! The framing of streams as a fuzz target: pieces arrive, somebody waits for a separator or reads what is there, and
//! all comes out as a search through a plain vector has it. `make fuzz` runs it for long.
//!
//! The input's head chooses separators and limit; then each byte is an operation, with its arguments behind it.

mod fuzzing;

use aioxide_engine::read_buffer::{Look, ReadBuffer, look};
use fuzzing::{Input, fuzz};

/// The outcome of waiting for a separator.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    /// The bytes up to the separator's end.
    Whole(Vec<u8>),
    /// There is a separator, behind more than `limit` bytes.
    Over,
    /// None yet, but so much that more than `limit` bytes come before any.
    TooMuch,
    /// None yet.
    Wait,
}

/// A reader as the binding has one: a search goes on where the one before ended, while it waits.
struct Reader {
    /// What was received.
    buffer: ReadBuffer,
    /// From where the search goes on.
    from: usize,
}

impl Reader {
    /// Waits for a separator, one attempt.
    fn frame(&mut self, separators: &[Vec<u8>], limit: usize) -> Frame {
        match look(self.buffer.as_slice(), separators, self.from) {
            Look::Found { start, .. } if start > limit => Frame::Over,
            Look::Found { end, .. } => {
                let frame = self.buffer.as_slice()[..end].to_vec();
                self.take(end);
                Frame::Whole(frame)
            }
            Look::Missing { from } => {
                assert!(from >= self.from, "a search never goes back");
                if from > limit {
                    // The wait is over: the next one begins anew.
                    self.from = 0;
                    return Frame::TooMuch;
                }
                self.from = from;
                Frame::Wait
            }
            Look::TooShort => Frame::Wait,
        }
    }

    /// Takes bytes away: what was looked through is not what it was.
    fn take(&mut self, count: usize) {
        self.buffer.consume(count);
        self.from = 0;
    }
}

/// The same by trying every end at every place.
fn slow_frame(bytes: &mut Vec<u8>, separators: &[Vec<u8>], limit: usize) -> Frame {
    let shortest = separators.iter().map(Vec::len).min().unwrap_or(0);
    let longest = separators.iter().map(Vec::len).max().unwrap_or(0);
    for end in 1..=bytes.len() {
        // In order of length: of those that end here, the first.
        let Some(found) = separators
            .iter()
            .find(|separator| bytes[..end].ends_with(separator))
        else {
            continue;
        };
        if end - found.len() > limit {
            return Frame::Over;
        }
        return Frame::Whole(bytes.drain(..end).collect());
    }
    if bytes.len() >= shortest && bytes.len() + 1 > limit + longest {
        return Frame::TooMuch;
    }
    Frame::Wait
}

/// The target.
fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut separators: Vec<Vec<u8>> = (0..=input.below(4))
        .map(|_| (0..=input.below(4)).map(|_| input.byte()).collect())
        .collect();
    separators.sort_by_key(Vec::len);
    let limit = input.below(200);
    let (mut reader, mut model) = (
        Reader {
            buffer: ReadBuffer::new(),
            from: 0,
        },
        Vec::new(),
    );
    while !input.is_over() {
        match input.byte() % 8 {
            // A piece arrives: bytes of the input,
            0 | 1 => {
                let piece: Vec<u8> = (0..input.below(24)).map(|_| input.byte()).collect();
                reader.buffer.extend(&piece);
                model.extend(piece);
            }
            // a part of a separator, or more than one,
            2 | 3 => {
                let separator = &separators[input.below(separators.len())];
                let piece = &separator[..input.below(separator.len() + 1)];
                reader.buffer.extend(piece);
                model.extend_from_slice(piece);
            }
            // or much of the same.
            4 => {
                let piece = vec![input.byte(); input.below(5_000)];
                reader.buffer.extend(&piece);
                model.extend(piece);
            }
            5 | 6 => {
                let expected = slow_frame(&mut model, &separators, limit);
                assert_eq!(reader.frame(&separators, limit), expected);
            }
            _ => {
                let count = input.below(3_000);
                if count % 16 == 0 {
                    reader.buffer.clear();
                    reader.from = 0;
                    model.clear();
                } else {
                    reader.take(count);
                    model.drain(..count.min(model.len()));
                }
            }
        }
        assert_eq!(reader.buffer.as_slice(), model);
        assert_eq!(reader.buffer.len(), model.len());
        assert_eq!(reader.buffer.is_empty(), model.is_empty());
    }
}

#[test]
fn framing_is_what_a_slow_search_makes_it() {
    fuzz(run);
}
