//! The buffer against a plain vector of bytes.

use proptest::prelude::*;

use super::*;

/// What happens to a buffer.
#[derive(Clone, Debug)]
enum Step {
    /// A chunk of this length that is kept.
    Push(usize),
    /// A chunk of this length that is copied.
    Copy(usize),
    /// A chunk of this length that is written in place, into room for some more.
    Fill(usize),
    /// So many bytes of those shown are sent, in thousandths.
    Send(usize),
}

/// Lengths around the limits.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        0usize..40,
        SMALL - 2..SMALL + 3,
        JOINED_MAX - 2..JOINED_MAX + 3,
    ]
}

/// Steps of every kind.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        length().prop_map(Step::Push),
        length().prop_map(Step::Copy),
        length().prop_map(Step::Fill),
        (0usize..=1000).prop_map(Step::Send),
    ]
}

/// All bytes that are shown.
fn shown(buffer: &WriteBuffer<Vec<u8>>) -> Vec<u8> {
    buffer.peek(|pieces| match pieces {
        Pieces::One(piece) => piece.to_vec(),
        Pieces::Several(pieces) => pieces.iter().flat_map(|piece| piece.to_vec()).collect(),
    })
}

proptest! {
    #[test]
    fn no_byte_is_lost_doubled_or_out_of_order(steps in prop::collection::vec(step(), 0..60)) {
        let (mut buffer, mut model) = (WriteBuffer::new(), Vec::new());
        let mut next = 0u8;
        for step in steps {
            match step {
                Step::Push(len) | Step::Copy(len) | Step::Fill(len) => {
                    let chunk: Vec<u8> = (0..len)
                        .map(|_| {
                            next = next.wrapping_mul(31).wrapping_add(7);
                            next
                        })
                        .collect();
                    model.extend_from_slice(&chunk);
                    if matches!(step, Step::Fill(_)) {
                        buffer.push_with(len + len % 3, |room| {
                            room[..len].copy_from_slice(&chunk);
                            len
                        });
                    } else if matches!(step, Step::Copy(_)) {
                        buffer.push_copy(&chunk);
                    } else {
                        drop(buffer.push(chunk));
                    }
                }
                Step::Send(part) => {
                    let seen = shown(&buffer);
                    prop_assert!(model.starts_with(&seen));
                    prop_assert!(!seen.is_empty() || model.is_empty());
                    let sent = seen.len() * part / 1000;
                    buffer.advance(sent);
                    model.drain(..sent);
                }
            }
            prop_assert_eq!(&buffer.to_vec(), &model);
            prop_assert_eq!(buffer.len(), model.len());
            prop_assert_eq!(buffer.is_empty(), model.is_empty());
        }
        while !buffer.is_empty() {
            let seen = shown(&buffer);
            prop_assert!(!seen.is_empty() && model.starts_with(&seen));
            buffer.advance(seen.len());
            model.drain(..seen.len());
        }
        prop_assert!(model.is_empty());
    }
}

#[test]
fn short_chunks_become_one_piece() {
    let mut buffer = WriteBuffer::new();
    for _ in 0..100 {
        drop(buffer.push(vec![1; 64]));
    }
    assert!(buffer.peek(|pieces| matches!(pieces, Pieces::One(piece) if piece.len() == 6400)));
}

#[test]
fn large_chunks_stay_where_they_are() {
    let mut buffer = WriteBuffer::new();
    for _ in 0..3 {
        assert!(buffer.push(vec![1; SMALL + 1]).is_none());
    }
    assert!(buffer.peek(|pieces| matches!(pieces, Pieces::Several(pieces) if pieces.len() == 3)));
    buffer.clear();
    assert!(buffer.is_empty());
}

#[test]
fn more_is_taken_away_than_there_is() {
    let mut buffer: WriteBuffer<Vec<u8>> = WriteBuffer::new();
    buffer.push_copy(b"abc");
    buffer.advance(10);
    assert!(buffer.is_empty());
    buffer.advance(1);
    assert_eq!(shown(&buffer), b"");
}

#[test]
fn pieces_go_to_a_pipe_in_one_call() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut buffer = WriteBuffer::new();
    for byte in 1..=3 {
        drop(buffer.push(vec![byte; SMALL + 1]));
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let written = buffer.peek(|pieces| pieces.write(fd)).expect("written");
    assert_eq!(written, 3 * (SMALL + 1));
    let expected = buffer.to_vec();
    buffer.advance(written);
    assert!(buffer.is_empty());
    drop(writer);
    let mut received = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut received).expect("read");
    assert_eq!(received, expected);
}
