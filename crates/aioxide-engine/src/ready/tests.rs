//! Tests of the ready queue.

use super::*;

#[test]
fn jobs_leave_in_the_order_they_came() {
    let queue = ReadyQueue::new();
    queue.push(1);
    queue.append(&mut vec![2, 3]);
    queue.push(4);
    assert_eq!(queue.len(), 4);
    let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
    assert_eq!(order, [1, 2, 3, 4]);
    assert_eq!(queue.pop(), None);
}

#[test]
fn interrupted_job_comes_first() {
    let queue = ReadyQueue::new();
    queue.append(&mut vec![2, 3]);
    queue.push_front(1);
    let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn trim_keeps_jobs_and_frees_bursts() {
    let queue = ReadyQueue::new();
    queue.append(&mut (0..=KEPT_CAPACITY).collect());
    queue.trim();
    assert_eq!(queue.len(), KEPT_CAPACITY + 1);
    drop(queue.take());
    queue.append(&mut (0..=KEPT_CAPACITY).collect());
    while queue.pop().is_some() {}
    queue.trim();
    assert_eq!(queue.jobs.borrow().capacity(), 0);
}

#[test]
fn for_each_shows_all_and_never_panics() {
    let queue = ReadyQueue::new();
    queue.append(&mut vec![1, 2]);
    let mut seen = Vec::new();
    queue.for_each(|job| seen.push(*job));
    assert_eq!(seen, [1, 2]);
    let _borrowed = queue.jobs.borrow_mut();
    queue.for_each(|_| unreachable!("the queue is borrowed"));
}
