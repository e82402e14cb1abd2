//! The engine of aioxide: what an event loop does, without Python.
//!
//! A [`Scheduler`] runs jobs of one type, which the embedding program chooses. Jobs become ready in
//! four ways: [`push`](Scheduler::push) from the loop's thread, a timer that is due, a descriptor
//! that is readable or writable, and [`Remote::push`] from any other thread. It answers
//! `asyncio.base_events.BaseEventLoop._run_once` together with the stdlib's `selectors`.
//!
//! A turn comes in three pieces, so that a host can let go of its lock (Python's GIL) while it
//! waits:
//!
//! 1. [`Scheduler::plan`] decides whether this turn looks at the selector, and for how long;
//! 2. [`Wait::block`] waits, and touches nothing else of the engine;
//! 3. [`Scheduler::finish`] makes jobs of what happened.
//!
//! Then the host runs as many jobs as [`Scheduler::ready_len`] counts at that moment.
//! [`Scheduler::run_once`] is all of it, for hosts without a lock.
//!
//! ```
//! use std::{cell::Cell, rc::Rc};
//! use aioxide_engine::{Job, Scheduler, monotonic_ns};
//!
//! #[derive(Clone)]
//! struct Call(Rc<dyn Fn()>);
//! impl Job for Call {}
//!
//! # fn main() -> std::io::Result<()> {
//! let scheduler = Scheduler::new()?;
//! let fired = Rc::new(Cell::new(false));
//! let seen = Rc::clone(&fired);
//! scheduler.add_timer(monotonic_ns() + 1_000, Call(Rc::new(move || seen.set(true))));
//! while !fired.get() {
//!     scheduler.run_once(|Call(call)| call())?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! - No borrow of engine state is alive while a job runs, is dropped or is handed back: each of
//!   them may call the engine again.
//! - The engine has no global state and starts no thread.
//! - In a forked child nothing reaches the parent through a shared descriptor.

#[expect(
    unsafe_code,
    reason = "the engine's only syscalls that rustix has no safe form of"
)]
mod sys;

mod sync;

mod clock;
pub mod inbox;
mod job;
mod poll_budget;
pub mod process;
pub mod read_buffer;
mod ready;
mod remote;
pub mod resolver;
mod scheduler;
mod selector;
pub mod socket;
mod timers;
mod wait;
mod waker;
pub mod write_buffer;

pub use clock::monotonic_ns;
pub use job::Job;
pub use remote::Remote;
pub use scheduler::{Plan, Scheduler};
pub use timers::TimerId;
pub use wait::Wait;
