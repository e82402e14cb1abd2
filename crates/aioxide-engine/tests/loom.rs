//! Explores all interleavings of the inbox's protocol: no wake-up is lost, none is written twice
//! for a batch, and jobs of one thread keep their order.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p aioxide-engine --test loom --release`

#![cfg(loom)]

use aioxide_engine::inbox::{Inbox, Sleep, WakeUp};
use loom::{
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// An inbox with a waker that counts bytes. A loop that waits for a byte which nobody writes is a
/// deadlock, and loom reports it.
struct Loop {
    inbox: Inbox<u32>,
    bytes: Mutex<usize>,
    written: Condvar,
}

impl Loop {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inbox: Inbox::new(),
            bytes: Mutex::new(0),
            written: Condvar::new(),
        })
    }

    /// What `Remote::push` does.
    fn push(&self, job: u32) {
        let wake_up = self.inbox.push(job).expect("the inbox is open");
        self.carry_out(wake_up);
    }

    /// What `Remote::wake` does.
    fn wake(&self) {
        self.carry_out(self.inbox.wake());
    }

    fn carry_out(&self, wake_up: WakeUp) {
        if wake_up == WakeUp::Needed {
            *self.bytes.lock().unwrap() += 1;
            self.written.notify_one();
        }
    }

    /// What a turn does: wait, discard bytes, drain.
    fn turn(&self) -> Vec<u32> {
        if self.inbox.fall_asleep() == Sleep::Allowed {
            let mut bytes = self.bytes.lock().unwrap();
            while *bytes == 0 {
                bytes = self.written.wait(bytes).unwrap();
            }
            *bytes = 0;
            drop(bytes);
            self.inbox.rise();
        }
        self.drain()
    }

    fn drain(&self) -> Vec<u32> {
        if self.inbox.is_queued() {
            self.inbox.take(Vec::new())
        } else {
            Vec::new()
        }
    }
}

#[test]
fn jobs_of_two_threads_all_arrive_in_order() {
    // Without a bound this takes minutes, and passes too.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Loop::new();
        let first = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                shared.push(1);
                shared.push(2);
            }
        });
        let second = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.push(10)
        });
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(shared.turn());
        }
        first.join().unwrap();
        second.join().unwrap();
        let of_first: Vec<_> = seen.iter().copied().filter(|job| *job < 10).collect();
        assert_eq!(of_first, [1, 2]);
        assert!(seen.contains(&10));
        assert!(!shared.inbox.is_queued());
    });
}

#[test]
fn wake_ends_a_wait() {
    loom::model(|| {
        let shared = Loop::new();
        let waking = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.wake()
        });
        assert_eq!(shared.turn(), [0; 0]);
        waking.join().unwrap();
    });
}

#[test]
fn wake_and_push_together_lose_neither() {
    loom::model(|| {
        let shared = Loop::new();
        let flag = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let waking = thread::spawn({
            let (shared, flag) = (Arc::clone(&shared), Arc::clone(&flag));
            move || {
                flag.store(true, loom::sync::atomic::Ordering::Relaxed);
                shared.wake();
            }
        });
        let pushing = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.push(1)
        });
        let mut jobs = 0;
        // The flag is checked after each wait, as a host does.
        while jobs == 0 || !flag.load(loom::sync::atomic::Ordering::Relaxed) {
            jobs += shared.turn().len();
        }
        waking.join().unwrap();
        pushing.join().unwrap();
    });
}

#[test]
fn sleeping_loop_gets_one_byte_for_a_batch() {
    loom::model(|| {
        let shared = Loop::new();
        assert_eq!(shared.inbox.fall_asleep(), Sleep::Allowed);
        let pushing: Vec<_> = (0..2)
            .map(|job| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.push(job))
            })
            .collect();
        for thread in pushing {
            thread.join().unwrap();
        }
        assert_eq!(*shared.bytes.lock().unwrap(), 1);
        shared.inbox.rise();
        assert_eq!(shared.drain().len(), 2);
    });
}

#[test]
fn job_racing_with_close_is_handed_back_once() {
    loom::model(|| {
        let shared = Loop::new();
        let pushing = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.inbox.push(1).is_err()
        });
        let left = shared.inbox.close();
        let given_back = pushing.join().unwrap();
        assert_eq!(left.len(), usize::from(!given_back));
    });
}
