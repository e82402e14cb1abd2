//! Tests of the scheduler. The clock is a number that the tests set, except where a wait with a
//! timeout is the subject; nothing sleeps.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    rc::Rc,
    thread,
};

use proptest::prelude::*;
use rustix::{
    io::{read, write},
    pipe::pipe,
};

use super::*;

/// A job with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number(u32);

impl Job for Number {}

/// A job that does something when it is dropped.
#[derive(Clone)]
struct Bomb(Rc<dyn Fn()>);

impl Job for Bomb {}

impl Drop for Bomb {
    fn drop(&mut self) {
        if Rc::strong_count(&self.0) == 1 {
            (self.0)();
        }
    }
}

/// A scheduler of numbers.
fn numbers() -> Scheduler<Number> {
    Scheduler::new().unwrap()
}

/// A pipe that is ready for reading.
fn filled_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe().unwrap();
    write(&writer, b"x").unwrap();
    (reader, writer)
}

/// Fails if the clock is read.
fn no_clock() -> u64 {
    unreachable!("the clock is not needed")
}

/// Pops all ready jobs.
fn drain(scheduler: &Scheduler<Number>) -> Vec<u32> {
    std::iter::from_fn(|| scheduler.pop())
        .map(|job| job.0)
        .collect()
}

/// Whether a turn looked at the selector.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It did not.
    Skipped,
    /// It did, with this timeout.
    Taken(Option<u64>),
}

/// One turn at a time on the clock, and its jobs.
fn turn_at(scheduler: &Scheduler<Number>, now: u64) -> (Look, Vec<u32>) {
    let look = match scheduler.plan(|| now, false) {
        Plan::Run { .. } => Look::Skipped,
        Plan::Wait(mut wait) => {
            let timeout = wait.timeout_ns();
            wait.block().unwrap();
            scheduler.finish(wait, || now);
            Look::Taken(timeout)
        }
    };
    (look, drain(scheduler))
}

/// The wait of a plan.
fn wait_of(plan: Plan) -> Wait {
    match plan {
        Plan::Wait(wait) => wait,
        Plan::Run { .. } => unreachable!("the turn has to look at the selector"),
    }
}

#[test]
fn push_and_pop_are_first_in_first_out() {
    let scheduler = numbers();
    for number in 0..5 {
        scheduler.push(Number(number));
    }
    assert_eq!(scheduler.ready_len(), 5);
    assert_eq!(drain(&scheduler), [0, 1, 2, 3, 4]);
    assert_eq!(scheduler.pop(), None);
}

#[test]
fn idle_loop_waits_without_timeout_and_without_clock() {
    let scheduler = numbers();
    let wait = wait_of(scheduler.plan(no_clock, false));
    assert_eq!(wait.timeout_ns(), None);
    assert!(wait.may_block());
    scheduler.finish(wait, no_clock);
    assert_eq!(scheduler.turns(), 1);
}

#[test]
fn wait_lasts_until_the_next_timer() {
    let scheduler = numbers();
    scheduler.add_timer(300, Number(3));
    let earliest = scheduler.add_timer(200, Number(2));
    assert_eq!(
        wait_of(scheduler.plan(|| 50, false)).timeout_ns(),
        Some(150)
    );
    scheduler.cancel_timer(earliest);
    assert_eq!(
        wait_of(scheduler.plan(|| 50, false)).timeout_ns(),
        Some(250)
    );
}

#[test]
fn wait_is_never_longer_than_a_day() {
    let scheduler = numbers();
    scheduler.add_timer(u64::MAX, Number(1));
    let wait = wait_of(scheduler.plan(|| 0, false));
    assert_eq!(wait.timeout_ns(), Some(LONGEST_WAIT_NS));
    scheduler.finish(wait, || LONGEST_WAIT_NS);
    assert_eq!(scheduler.ready_len(), 0);
}

#[test]
fn timers_fire_by_deadline_then_by_creation() {
    let scheduler = numbers();
    for (deadline, number) in [(20, 1), (10, 2), (20, 3), (30, 4)] {
        scheduler.add_timer(deadline, Number(number));
    }
    assert_eq!(turn_at(&scheduler, 20).1, [2, 1, 3]);
    assert_eq!(turn_at(&scheduler, 30).1, [4]);
}

#[test]
fn timer_never_fires_early_on_the_system_clock() {
    let scheduler = numbers();
    let deadline = monotonic_ns() + 1_100_000;
    scheduler.add_timer(deadline, Number(1));
    let mut fired = false;
    while !fired {
        scheduler.run_once(|_| fired = true).unwrap();
    }
    assert!(monotonic_ns() >= deadline);
}

#[test]
fn fired_timer_cannot_be_cancelled() {
    let scheduler = numbers();
    let id = scheduler.add_timer(10, Number(1));
    assert_eq!(turn_at(&scheduler, 10).1, [1]);
    assert_eq!(scheduler.cancel_timer(id), None);
}

#[test]
fn turn_orders_descriptors_then_threads_then_timers() {
    let scheduler = numbers();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"x").unwrap();
    scheduler.push(Number(0));
    scheduler.add_timer(10, Number(4));
    scheduler.add_reader(near.as_raw_fd(), Number(1)).unwrap();
    scheduler.add_writer(near.as_raw_fd(), Number(2)).unwrap();
    let mut wait = wait_of(scheduler.plan(|| 10, false));
    scheduler.remote().push(Number(3)).unwrap();
    assert_eq!(wait.timeout_ns(), Some(0));
    wait.block().unwrap();
    scheduler.finish(wait, no_clock);
    assert_eq!(drain(&scheduler), [0, 1, 2, 3, 4]);
    near.read_exact(&mut [0]).unwrap();
}

#[test]
fn suspended_watch_is_settled_before_a_look() {
    let scheduler = numbers();
    let (near, mut far) = UnixStream::pair().unwrap();
    let fd = near.as_raw_fd();
    far.write_all(b"x").unwrap();
    assert_eq!(scheduler.add_reader(fd, Number(1)).unwrap(), None);
    assert_eq!(scheduler.add_writer(fd, Number(2)).unwrap(), None);
    assert_eq!(scheduler.suspend_reader(fd), Some(Number(1)));
    assert_eq!(scheduler.suspend_reader(fd), None);
    assert!(!scheduler.has_reader(fd));
    let mut ran = Vec::new();
    scheduler
        .run_once(|Number(number)| ran.push(number))
        .unwrap();
    assert_eq!(ran, [2]);

    assert_eq!(scheduler.suspend_writer(fd), Some(Number(2)));
    assert_eq!(scheduler.add_reader(fd, Number(3)).unwrap(), None);
    scheduler
        .run_once(|Number(number)| ran.push(number))
        .unwrap();
    assert_eq!(ran, [2, 3]);

    assert_eq!(scheduler.suspend_reader(fd), Some(Number(3)));
    let Plan::Wait(mut wait) = scheduler.plan(no_clock, true) else {
        unreachable!("the last turn looks")
    };
    wait.block().unwrap();
    assert!(wait.events.is_empty());
    scheduler.finish(wait, no_clock);
    assert!(scheduler.clear().is_empty());
}

#[test]
fn busy_turns_look_at_descriptors_every_16th_turn() {
    let scheduler = numbers();
    let (reader, _writer) = filled_pipe();
    scheduler
        .add_reader(reader.as_raw_fd(), Number(99))
        .unwrap();
    let mut looked = Vec::new();
    for turn in 0..50 {
        scheduler.push(Number(1));
        // The clock stands still: no turn is slow.
        if turn_at(&scheduler, 0).0 != Look::Skipped {
            looked.push(turn);
        }
    }
    assert_eq!(looked, [0, 16, 32, 48]);
}

#[test]
fn busy_turns_with_timers_look_after_50_microseconds() {
    let scheduler = numbers();
    let (reader, _writer) = pipe().unwrap();
    scheduler
        .add_reader(reader.as_raw_fd(), Number(99))
        .unwrap();
    scheduler.add_timer(u64::MAX, Number(98));
    let mut looked = Vec::new();
    for turn in 0..13 {
        scheduler.push(Number(1));
        if turn_at(&scheduler, turn * 20_000).0 != Look::Skipped {
            looked.push(turn);
        }
    }
    // At once; when 60 microseconds are over, in which three jobs ran; from then on the allowance
    // is two jobs.
    assert_eq!(looked, [0, 3, 5, 7, 9, 11]);
}

#[test]
fn busy_turns_without_descriptors_hardly_look_and_read_no_clock() {
    let scheduler = numbers();
    let mut looks = 0;
    let mut checks = 0;
    for _ in 0..2049 {
        scheduler.push(Number(1));
        match scheduler.plan(no_clock, false) {
            Plan::Run { check_signals } => checks += u32::from(check_signals),
            Plan::Wait(mut wait) => {
                looks += 1;
                assert!(!wait.may_block());
                wait.block().unwrap();
                scheduler.finish(wait, no_clock);
            }
        }
        assert_eq!(drain(&scheduler), [1]);
    }
    assert_eq!(looks, 3);
    assert!(checks >= 120, "{checks}");
}

#[test]
fn due_timers_are_served_in_busy_turns() {
    let scheduler = numbers();
    let (reader, _writer) = pipe().unwrap();
    scheduler
        .add_reader(reader.as_raw_fd(), Number(99))
        .unwrap();
    scheduler.push(Number(0));
    assert_eq!(turn_at(&scheduler, 0), (Look::Taken(Some(0)), vec![0]));
    scheduler.push(Number(1));
    scheduler.add_timer(5, Number(2));
    assert_eq!(turn_at(&scheduler, 5), (Look::Skipped, vec![1, 2]));
}

#[test]
fn stopping_turn_looks_at_once_and_does_not_block() {
    let scheduler = numbers();
    let (reader, _writer) = filled_pipe();
    scheduler.add_reader(reader.as_raw_fd(), Number(3)).unwrap();
    scheduler.add_timer(10, Number(4));
    for _ in 0..3 {
        scheduler.push(Number(2));
        let mut wait = wait_of(scheduler.plan(no_clock, true));
        assert_eq!(wait.timeout_ns(), Some(0));
        wait.block().unwrap();
        scheduler.finish(wait, || 9);
        assert_eq!(drain(&scheduler), [2, 3]);
    }
}

#[test]
fn first_turn_of_a_run_looks_if_descriptors_are_watched() {
    let scheduler = numbers();
    scheduler.push(Number(1));
    assert_eq!(turn_at(&scheduler, 0), (Look::Taken(Some(0)), vec![1]));
    for _ in 0..3 {
        scheduler.begin_run();
        scheduler.push(Number(1));
        assert_eq!(turn_at(&scheduler, 0), (Look::Skipped, vec![1]));
    }
    let (reader, _writer) = filled_pipe();
    scheduler.add_reader(reader.as_raw_fd(), Number(3)).unwrap();
    for _ in 0..3 {
        scheduler.begin_run();
        scheduler.push(Number(1));
        assert_eq!(turn_at(&scheduler, 0), (Look::Taken(Some(0)), vec![1, 3]));
        scheduler.push(Number(1));
        assert_eq!(turn_at(&scheduler, 0), (Look::Skipped, vec![1]));
    }
}

#[test]
fn more_events_than_one_look_takes_are_looked_for_in_the_next_turn() {
    let scheduler = numbers();
    let pipes: Vec<_> = (0..=crate::selector::CAPACITY)
        .map(|_| filled_pipe())
        .collect();
    for (reader, _) in &pipes {
        scheduler.add_reader(reader.as_raw_fd(), Number(1)).unwrap();
    }
    for _ in 0..3 {
        let (look, jobs) = turn_at(&scheduler, 0);
        assert_ne!(look, Look::Skipped);
        let events = jobs.iter().filter(|number| **number == 1).count();
        assert_eq!(events, crate::selector::CAPACITY);
        scheduler.push(Number(0));
    }
}

#[test]
fn descriptor_registration_round_trip() {
    let scheduler = numbers();
    let (reader, _writer) = filled_pipe();
    let fd = reader.as_raw_fd();
    assert_eq!(scheduler.add_reader(fd, Number(1)).unwrap(), None);
    assert_eq!(
        scheduler.add_reader(fd, Number(2)).unwrap(),
        Some(Number(1))
    );
    assert_eq!(turn_at(&scheduler, 0), (Look::Taken(None), vec![2]));
    assert_eq!(scheduler.remove_reader(fd), Some(Number(2)));
    assert_eq!(scheduler.remove_reader(fd), None);
    assert_eq!(scheduler.remove_writer(fd), None);
    assert!(scheduler.add_reader(-1, Number(3)).is_err());
}

#[test]
fn other_thread_wakes_a_blocked_loop() {
    let scheduler = numbers();
    let remote = scheduler.remote();
    let mut wait = wait_of(scheduler.plan(no_clock, false));
    assert!(wait.may_block());
    let pushing = thread::spawn(move || {
        for number in 0..3 {
            remote.push(Number(number)).unwrap();
        }
    });
    let mut seen = Vec::new();
    loop {
        wait.block().unwrap();
        scheduler.finish(wait, no_clock);
        seen.extend(drain(&scheduler));
        if seen.len() == 3 {
            break;
        }
        wait = wait_of(scheduler.plan(no_clock, false));
    }
    pushing.join().unwrap();
    assert_eq!(seen, [0, 1, 2]);
}

#[test]
fn many_threads_lose_no_job() {
    let scheduler = numbers();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let remote = scheduler.remote();
            thread::spawn(move || {
                for number in 0..2000 {
                    remote.push(Number(number)).unwrap();
                }
            })
        })
        .collect();
    let mut sum = 0;
    let mut seen = 0;
    while seen < 8000 {
        scheduler
            .run_once(|job| {
                seen += 1;
                sum += u64::from(job.0);
            })
            .unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(sum, 4 * 1999 * 2000 / 2);
}

#[test]
fn wake_alone_ends_a_wait_or_the_next_one() {
    let scheduler = numbers();
    scheduler.remote().wake();
    assert_eq!(turn_at(&scheduler, 0), (Look::Taken(Some(0)), vec![]));

    let mut wait = wait_of(scheduler.plan(no_clock, false));
    assert_eq!(wait.timeout_ns(), None);
    scheduler.remote().wake();
    wait.block().unwrap();
    scheduler.finish(wait, no_clock);
    assert_eq!(wait_of(scheduler.plan(no_clock, false)).timeout_ns(), None);
}

#[test]
fn bytes_on_the_wakeup_fd_end_a_wait_and_are_discarded() {
    let scheduler = numbers();
    let mut wait = wait_of(scheduler.plan(no_clock, false));
    let fd = crate::sys::borrow_fd(scheduler.wakeup_fd()).unwrap();
    write(fd, b"\x02\x0f").unwrap();
    wait.block().unwrap();
    scheduler.finish(wait, no_clock);
    let mut wait = wait_of(scheduler.plan(no_clock, true));
    wait.block().unwrap();
    assert!(wait.events.is_empty());
    scheduler.finish(wait, no_clock);
}

#[test]
fn wait_that_is_dropped_loses_nothing() {
    let scheduler = numbers();
    let (reader, _writer) = filled_pipe();
    scheduler.add_reader(reader.as_raw_fd(), Number(1)).unwrap();
    let mut wait = wait_of(scheduler.plan(no_clock, false));
    wait.block().unwrap();
    scheduler.remote().push(Number(2)).unwrap();
    drop(wait);
    // A turn may look at the selector or not, but in the end both are there.
    let mut seen = turn_at(&scheduler, 0).1;
    seen.extend(turn_at(&scheduler, 0).1);
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
}

#[test]
fn wait_of_another_scheduler_runs_nothing() {
    let (first, second) = (numbers(), numbers());
    let (reader, _writer) = filled_pipe();
    first.add_reader(reader.as_raw_fd(), Number(1)).unwrap();
    second.add_reader(reader.as_raw_fd(), Number(2)).unwrap();
    let mut wait = wait_of(first.plan(no_clock, false));
    wait.block().unwrap();
    second.finish(wait, no_clock);
    assert_eq!(second.ready_len(), 0);
    assert_eq!(turn_at(&second, 0).1, [2]);
}

#[test]
fn for_each_job_shows_all_parts() {
    let scheduler = numbers();
    let (reader, writer) = pipe().unwrap();
    scheduler.push(Number(1));
    scheduler.add_timer(10, Number(2));
    scheduler.add_reader(reader.as_raw_fd(), Number(3)).unwrap();
    scheduler.add_writer(writer.as_raw_fd(), Number(4)).unwrap();
    scheduler.remote().push(Number(5)).unwrap();
    let mut seen = Vec::new();
    scheduler.for_each_job(|job| seen.push(job.0));
    assert_eq!(seen, [1, 2, 3, 4, 5]);

    let _timers = scheduler.timers.borrow_mut();
    let _selector = scheduler.selector.borrow_mut();
    seen.clear();
    scheduler.for_each_job(|job| seen.push(job.0));
    assert_eq!(seen, [1, 5]);
}

#[test]
fn clear_takes_everything_and_the_scheduler_goes_on() {
    let scheduler = numbers();
    let (reader, writer) = filled_pipe();
    scheduler.push(Number(1));
    let timer = scheduler.add_timer(10, Number(2));
    scheduler.add_reader(reader.as_raw_fd(), Number(3)).unwrap();
    scheduler.add_writer(writer.as_raw_fd(), Number(4)).unwrap();
    scheduler.remote().push(Number(5)).unwrap();
    let mut taken: Vec<_> = scheduler.clear().into_iter().map(|job| job.0).collect();
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 3, 4, 5]);
    assert_eq!(scheduler.cancel_timer(timer), None);
    assert_eq!(scheduler.remove_reader(reader.as_raw_fd()), None);

    let mut wait = wait_of(scheduler.plan(no_clock, true));
    wait.block().unwrap();
    assert!(wait.events.is_empty());
    scheduler.finish(wait, no_clock);
    scheduler.push(Number(6));
    assert_eq!(drain(&scheduler), [6]);
}

#[test]
fn remote_outlives_the_scheduler_and_gives_jobs_back() {
    let scheduler = numbers();
    let remote = scheduler.remote();
    remote.push(Number(1)).unwrap();
    drop(scheduler);
    assert_eq!(remote.push(Number(2)), Err(Number(2)));
    remote.wake();
}

#[test]
fn types_may_cross_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}
    let scheduler = numbers();
    is_send(&scheduler);
    is_send(&scheduler.remote());
    is_sync(&*scheduler.remote());
    is_send(&wait_of(scheduler.plan(no_clock, false)));
}

#[test]
fn forked_child_neither_wakes_nor_changes_the_parent() {
    let (mut remote, waker) = Remote::new().unwrap();
    remote.pretend_fork();
    let mut scheduler = numbers();
    let (reader, _writer) = filled_pipe();
    scheduler.add_reader(reader.as_raw_fd(), Number(1)).unwrap();
    assert!(!scheduler.is_forked());
    let parents_waker = std::mem::replace(&mut scheduler.waker, waker);
    let parents_remote = std::mem::replace(&mut scheduler.remote, Arc::new(remote));
    assert!(scheduler.is_forked());

    scheduler.remote().push(Number(3)).unwrap();
    scheduler.remote().wake();
    let taken = scheduler.clear();
    assert_eq!(taken, [Number(3), Number(1)]);
    // The kernel still watches for the parent.
    let mut wait = wait_of(scheduler.plan(no_clock, true));
    wait.block().unwrap();
    assert_eq!(wait.events.len(), 1);
    drop(wait);
    drop((scheduler, parents_waker, parents_remote));
}

#[test]
fn adopted_scheduler_works_in_the_child() {
    let (mut remote, waker) = Remote::new().unwrap();
    remote.pretend_fork();
    let mut scheduler = numbers();
    let (reader, _writer) = filled_pipe();
    scheduler.add_reader(reader.as_raw_fd(), Number(1)).unwrap();
    scheduler.waker = waker;
    scheduler.remote = Arc::new(remote);
    let wakeup_fd = scheduler.wakeup_fd();
    scheduler.adopt().unwrap();
    assert!(!scheduler.is_forked());
    assert_ne!(scheduler.wakeup_fd(), wakeup_fd);
    scheduler.adopt().unwrap();

    // What the parent registered, and the new waker.
    scheduler.remote().push(Number(2)).unwrap();
    let mut wait = wait_of(scheduler.plan(no_clock, true));
    wait.block().unwrap();
    scheduler.finish(wait, monotonic_ns);
    assert_eq!(scheduler.pop(), Some(Number(2)));
    assert_eq!(scheduler.pop(), Some(Number(1)));
    scheduler.remove_reader(reader.as_raw_fd()).unwrap();
    scheduler.add_reader(reader.as_raw_fd(), Number(3)).unwrap();
    drop(scheduler.clear());
}

#[test]
fn jobs_dropped_by_callers_may_call_the_engine() {
    let scheduler = Rc::new(Scheduler::<Bomb>::new().unwrap());
    let (reader, _writer) = pipe().unwrap();
    let fd = reader.as_raw_fd();
    let weak = Rc::downgrade(&scheduler);
    let bomb = || {
        let weak = weak.clone();
        Bomb(Rc::new(move || {
            let Some(scheduler) = weak.upgrade() else {
                return;
            };
            let quiet = || Bomb(Rc::new(|| ()));
            scheduler.push(quiet());
            let id = scheduler.add_timer(1, quiet());
            scheduler.cancel_timer(id);
            let _ = scheduler.add_writer(-1, quiet());
            scheduler.remove_writer(fd);
            scheduler.for_each_job(|_| ());
        }))
    };
    scheduler.push(bomb());
    drop(scheduler.pop());
    let id = scheduler.add_timer(5, bomb());
    drop(scheduler.cancel_timer(id));
    scheduler.add_reader(fd, bomb()).unwrap();
    drop(scheduler.add_reader(fd, bomb()).unwrap());
    drop(scheduler.remove_reader(fd));
    assert!(scheduler.add_reader(-1, bomb()).is_err());
    assert!(scheduler.add_reader(RawFd::MAX, bomb()).is_err());
    scheduler.push(bomb());
    scheduler.add_timer(5, bomb());
    scheduler.add_reader(fd, bomb()).unwrap();
    drop(scheduler.clear());
    scheduler.push(bomb());
    scheduler.add_timer(5, bomb());
    scheduler.add_reader(fd, bomb()).unwrap();
    drop(scheduler);
}

#[test]
fn jobs_may_call_the_engine_while_they_run() {
    let scheduler = numbers();
    let (reader, _writer) = filled_pipe();
    let fd = reader.as_raw_fd();
    scheduler.add_reader(fd, Number(1)).unwrap();
    let mut runs = 0;
    while runs < 10 {
        scheduler
            .run_once(|_| {
                runs += 1;
                scheduler.remove_reader(fd);
                let id = scheduler.add_timer(0, Number(2));
                scheduler.push(Number(3));
                scheduler.cancel_timer(id);
                scheduler.add_reader(fd, Number(1)).unwrap();
            })
            .unwrap();
    }
    read(&reader, &mut [0]).unwrap();
}

/// What happens to the queues.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The loop's thread pushes.
    Push,
    /// Another thread pushes.
    RemotePush,
    /// A job is popped.
    Pop,
    /// A turn is planned and finished.
    Turn,
}

/// Any step.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Push),
        3 => Just(Step::RemotePush),
        3 => Just(Step::Pop),
        1 => Just(Step::Turn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn local_and_remote_jobs_run_in_the_order_they_were_pushed(steps in prop::collection::vec(step(), 0..200)) {
        let scheduler = numbers();
        let remote = scheduler.remote();
        let (mut pushed, mut popped) = (0, 0);
        for step in steps {
            match step {
                Step::Push => {
                    scheduler.push(Number(pushed));
                    pushed += 1;
                }
                Step::RemotePush => {
                    remote.push(Number(pushed)).unwrap();
                    pushed += 1;
                }
                Step::Pop => {
                    if let Some(Number(number)) = scheduler.pop() {
                        prop_assert_eq!(number, popped);
                        popped += 1;
                    }
                }
                Step::Turn => {
                    // A turn that stops does not block.
                    if let Plan::Wait(mut wait) = scheduler.plan(no_clock, true) {
                        wait.block().unwrap();
                        scheduler.finish(wait, no_clock);
                    }
                    prop_assert_eq!(scheduler.ready_len(), (pushed - popped) as usize);
                }
            }
        }
    }
}
