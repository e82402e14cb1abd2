//! Tests of the waker.

use rustix::io::{FdFlags, fcntl_getfd};

use super::*;

/// Takes one byte, if there is one.
fn byte(reader: &WakerReader) -> Option<u8> {
    let mut byte = [0];
    reader
        .stream
        .borrow_mut()
        .read_exact(&mut byte)
        .ok()
        .map(|()| byte[0])
}

#[test]
fn wake_sends_a_byte_that_drain_discards() {
    let (reader, writer) = waker().unwrap();
    writer.wake();
    writer.wake();
    assert_eq!(byte(&reader), Some(0));
    reader.drain();
    assert_eq!(byte(&reader), None);
}

#[test]
fn drain_keeps_what_others_have_written() {
    let (reader, writer) = waker().unwrap();
    let mut other = writer
        .stream
        .lock()
        .unwrap()
        .as_ref()
        .unwrap()
        .try_clone()
        .unwrap();
    writer.wake();
    other.write_all(&[2, 15]).unwrap();
    writer.wake();
    reader.drain();
    assert_eq!(reader.take_foreign(), [2, 15]);
    assert!(reader.take_foreign().is_empty());
}

#[test]
fn full_socket_neither_blocks_nor_fails() {
    let (reader, writer) = waker().unwrap();
    for _ in 0..5_000 {
        writer.wake();
    }
    reader.drain();
    assert_eq!(byte(&reader), None);
    writer.wake();
    assert_eq!(byte(&reader), Some(0));
}

#[test]
fn forked_child_writes_nothing() {
    let (reader, mut writer) = waker().unwrap();
    writer.pretend_fork();
    writer.wake();
    assert_eq!(byte(&reader), None);
    writer.close();
    assert!(writer.stream.lock().unwrap().is_none());
}

#[test]
fn adopted_pair_is_the_childs_own() {
    let (reader, mut writer) = waker().unwrap();
    writer.pretend_fork();
    let parents = reader.stream.borrow().try_clone().unwrap();
    let (newer_reader, newer_writer) = waker().unwrap();
    let fd = newer_writer.as_raw_fd();
    assert!(writer.adopt(newer_writer).is_ok());
    reader.replace(newer_reader);
    assert!(!writer.is_forked());
    assert_eq!(writer.as_raw_fd(), fd);
    writer.wake();
    assert_eq!(byte(&reader), Some(0));
    // Both of this process's writing ends of the parent's pair are closed.
    assert_eq!((&parents).read(&mut [0]).unwrap(), 0);
}

#[test]
fn pair_is_not_adopted_while_a_thread_of_the_parent_writes() {
    let (_reader, mut writer) = waker().unwrap();
    writer.pretend_fork();
    let held = writer.stream.lock().unwrap();
    assert!(writer.adopt(waker().unwrap().1).is_err());
    drop(held);
    assert!(writer.is_forked());
}

#[test]
fn closed_writer_ignores_wake() {
    let (_reader, writer) = waker().unwrap();
    writer.close();
    writer.wake();
}

#[test]
fn both_ends_are_closed_on_exec() {
    let (reader, writer) = waker().unwrap();
    assert_eq!(fcntl_getfd(&*reader.stream.borrow()), Ok(FdFlags::CLOEXEC));
    let stream = writer.stream.lock().unwrap();
    assert_eq!(fcntl_getfd(stream.as_ref().unwrap()), Ok(FdFlags::CLOEXEC));
}
