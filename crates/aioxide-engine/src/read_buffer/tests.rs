//! Tests of the buffer; the models are a plain `Vec` and a search at every place.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A step of a buffer's life.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes come in.
    Extend(Vec<u8>),
    /// Bytes go out.
    Consume(usize),
    /// All go out.
    Clear,
}

/// Any step.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..200).prop_map(Step::Extend),
        4 => (0usize..300).prop_map(Step::Consume),
        1 => Just(Step::Clear),
    ]
}

/// Bytes and separators of few letters, so that there are matches and almost matches.
fn text(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'\n')], 1..longest)
}

/// What [`look`] gives, found the slow way.
fn slow_look(bytes: &[u8], separators: &[Vec<u8>], from: usize) -> Option<(usize, usize)> {
    let mut ends: Vec<(usize, usize)> = Vec::new();
    for separator in separators {
        for start in from..bytes.len() {
            if bytes[start..].starts_with(separator) {
                ends.push((start + separator.len(), start));
                break;
            }
        }
    }
    // `min_by_key` gives the first of equals.
    ends.iter()
        .min_by_key(|(end, _)| *end)
        .map(|&(end, start)| (start, end))
}

#[test]
fn what_goes_in_comes_out_in_order() {
    let mut buffer = ReadBuffer::new();
    assert!(buffer.is_empty());
    buffer.extend(b"hello ");
    buffer.extend(b"world");
    assert_eq!(buffer.as_slice(), b"hello world");
    buffer.consume(6);
    assert_eq!(buffer.as_slice(), b"world");
    buffer.consume(100);
    assert!(buffer.is_empty());
}

#[test]
fn a_burst_gives_its_room_back() {
    let mut buffer = ReadBuffer::new();
    buffer.extend(&vec![0; 10 * KEPT]);
    buffer.consume(10 * KEPT - 1);
    buffer.consume(1);
    assert!(buffer.bytes.capacity() <= 2 * KEPT);
}

#[test]
fn a_steady_stream_needs_no_more_room_than_twice_what_is_in_it() {
    let mut buffer = ReadBuffer::new();
    buffer.extend(&[1; 1000]);
    for _ in 0..10_000 {
        buffer.extend(&[2; 100]);
        buffer.consume(100);
    }
    assert_eq!(buffer.len(), 1000);
    assert!(buffer.bytes.capacity() <= 8 * 1000);
}

#[test]
fn the_shortest_match_wins_and_then_the_first_separator() {
    let separators: [&[u8]; 2] = [b"b", b"ab"];
    assert_eq!(
        look(b"xxab", &separators, 0),
        Look::Found { start: 3, end: 4 }
    );
    let separators: [&[u8]; 2] = [b"\n", b"ab"];
    assert_eq!(
        look(b"xab\n", &separators, 0),
        Look::Found { start: 1, end: 3 }
    );
}

#[test]
fn a_look_without_match_says_where_to_go_on() {
    assert_eq!(look(b"abcd", &[b"xyz"], 0), Look::Missing { from: 2 });
    assert_eq!(look(b"abcdx", &[b"xyz"], 2), Look::Missing { from: 3 });
    assert_eq!(
        look(b"abcdxyz", &[b"xyz"], 3),
        Look::Found { start: 4, end: 7 }
    );
    assert_eq!(look(b"ab", &[b"xyz"], 0), Look::TooShort);
    assert_eq!(look(b"ab", &[b"\n"], 7), Look::TooShort);
    let none: [&[u8]; 0] = [];
    assert_eq!(look(b"ab", &none, 0), Look::TooShort);
}

proptest! {
    #[test]
    fn the_buffer_is_a_queue(steps in vec(step(), 0..60)) {
        let mut buffer = ReadBuffer::new();
        let mut model = VecDeque::new();
        for step in steps {
            match step {
                Step::Extend(data) => {
                    buffer.extend(&data);
                    model.extend(data);
                }
                Step::Consume(count) => {
                    buffer.consume(count);
                    model.drain(..count.min(model.len()));
                }
                Step::Clear => {
                    buffer.clear();
                    model.clear();
                }
            }
            prop_assert_eq!(buffer.as_slice(), model.make_contiguous() as &[u8]);
            prop_assert_eq!(buffer.len(), model.len());
            prop_assert_eq!(buffer.is_empty(), model.is_empty());
        }
    }

    #[test]
    fn a_look_finds_what_a_slow_one_finds(
        bytes in text(40),
        mut separators in vec(text(5), 1..4),
        from in 0usize..45,
    ) {
        separators.sort_by_key(Vec::len);
        match look(&bytes, &separators, from) {
            Look::Found { start, end } => {
                prop_assert_eq!(slow_look(&bytes, &separators, from), Some((start, end)));
            }
            Look::Missing { .. } => {
                prop_assert_eq!(slow_look(&bytes, &separators, from), None);
            }
            Look::TooShort => prop_assert!(bytes.len() < from + separators[0].len()),
        }
    }

    #[test]
    fn going_on_finds_what_starting_anew_finds(
        pieces in vec(text(6), 1..12),
        mut separators in vec(text(5), 1..4),
    ) {
        separators.sort_by_key(Vec::len);
        let mut bytes = Vec::new();
        let mut from = 0;
        for piece in pieces {
            bytes.extend(piece);
            let found = slow_look(&bytes, &separators, 0);
            match look(&bytes, &separators, from) {
                Look::Found { start, end } => {
                    prop_assert_eq!(found, Some((start, end)));
                    break;
                }
                Look::Missing { from: next } => {
                    prop_assert_eq!(found, None);
                    prop_assert!(next >= from);
                    from = next;
                }
                Look::TooShort => prop_assert_eq!(found, None),
            }
        }
    }
}
