//! Tests of the inbox by one thread; `tests/loom.rs` explores the interleavings of several.

use super::*;

#[test]
fn push_needs_a_wake_up_only_when_the_loop_sleeps_and_only_once() {
    let inbox = Inbox::new();
    assert_eq!(inbox.push(1), Ok(WakeUp::Unneeded));
    assert_eq!(inbox.take(Vec::new()), [1]);
    assert_eq!(inbox.fall_asleep(), Sleep::Allowed);
    assert_eq!(inbox.push(2), Ok(WakeUp::Needed));
    assert_eq!(inbox.push(3), Ok(WakeUp::Unneeded));
    assert_eq!(inbox.wake(), WakeUp::Unneeded);
    inbox.rise();
    assert_eq!(inbox.take(Vec::new()), [2, 3]);
    assert!(!inbox.is_queued());
}

#[test]
fn queued_jobs_deny_sleep() {
    let inbox = Inbox::new();
    assert_eq!(inbox.push(1), Ok(WakeUp::Unneeded));
    assert_eq!(inbox.fall_asleep(), Sleep::Denied);
    assert_eq!(inbox.push(2), Ok(WakeUp::Unneeded));
    assert_eq!(inbox.take(Vec::new()), [1, 2]);
    assert_eq!(inbox.fall_asleep(), Sleep::Allowed);
}

#[test]
fn wake_denies_one_sleep() {
    let inbox = Inbox::<()>::new();
    assert_eq!(inbox.wake(), WakeUp::Unneeded);
    assert_eq!(inbox.fall_asleep(), Sleep::Denied);
    assert_eq!(inbox.fall_asleep(), Sleep::Allowed);
    assert_eq!(inbox.wake(), WakeUp::Needed);
    assert_eq!(inbox.wake(), WakeUp::Unneeded);
    inbox.rise();
    assert_eq!(inbox.fall_asleep(), Sleep::Allowed);
}

#[test]
fn sleep_may_be_asked_for_again_without_rising() {
    let inbox = Inbox::new();
    assert_eq!(inbox.fall_asleep(), Sleep::Allowed);
    assert_eq!(inbox.fall_asleep(), Sleep::Allowed);
    assert_eq!(inbox.push(1), Ok(WakeUp::Needed));
}

#[test]
fn closed_inbox_gives_jobs_back() {
    let inbox = Inbox::new();
    assert_eq!(inbox.push(1), Ok(WakeUp::Unneeded));
    assert_eq!(inbox.close(), [1]);
    assert!(!inbox.is_queued());
    assert_eq!(inbox.push(2), Err(2));
    assert_eq!(inbox.close(), [0; 0]);
}

#[test]
fn held_lock_hides_jobs_and_stops_try_close() {
    let inbox = Inbox::new();
    assert_eq!(inbox.push(1), Ok(WakeUp::Unneeded));
    let held = inbox.lock();
    inbox.for_each(|_| unreachable!("the queue is locked"));
    assert_eq!(inbox.try_close(), [0; 0]);
    drop(held);
    let mut seen = Vec::new();
    inbox.for_each(|job| seen.push(*job));
    assert_eq!(seen, [1]);
    assert_eq!(inbox.try_close(), [1]);
}
