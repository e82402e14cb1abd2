//! Bodies of coroutines in steps: for methods that are called once per connection or server.
//!
//! A step runs from one `await` to the next. [`Stepper`] drives it: it waits for what a step asks for and hands the
//! outcome to the next one, at once if there is nothing to wait for.

use std::mem;

use crate::coroutines::{Coroutine, coroutine};
use crate::ffi::{Machine, Obj, PyRes, Raised, Ref, Resume, Sent, Visit};
use crate::waiter::Waiter;

/// What a step ends with.
pub(crate) enum Next {
    /// `await` this, then the next step.
    Await(Obj),
    /// `await sleep(0)`, then the next step.
    Skip,
    /// `return` this.
    Done(Obj),
}

/// A body in steps.
pub(crate) trait Steps: 'static {
    /// The next step. `outcome` is what the last `await` gave or raised; `None` to begin with.
    fn step(&mut self, outcome: PyRes) -> PyRes<Next>;

    /// Shows every reference held to the garbage collector.
    fn traverse(&self, visit: &mut Visit<'_>);
}

/// What goes on between two steps.
enum Wait {
    /// Nothing: the body has not begun, a step is being executed, or it is over.
    Nothing,
    /// Others run once.
    Turn,
    /// Something is awaited.
    For(Waiter),
}

/// A body in steps as a machine.
struct Stepper<S> {
    /// The body.
    steps: S,
    /// The wait.
    wait: Wait,
}

/// A coroutine around a body in steps.
pub(crate) fn in_steps<S: Steps>(qualname: &'static str, steps: S) -> PyRes<Ref<Coroutine>> {
    coroutine(
        qualname,
        Stepper {
            steps,
            wait: Wait::Nothing,
        },
    )
}

impl<S: Steps> Machine for Stepper<S> {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let mut sent = match (&mut self.wait, input) {
            (Wait::For(waiter), input) => waiter.resume(input),
            (_, Resume::Send) => Ok(Sent::Return(Obj::none())),
            (_, Resume::Throw(exception)) => Err(Raised::restore(exception)),
        };
        loop {
            let outcome = match sent {
                Ok(Sent::Yield(awaited)) => return Ok(Sent::Yield(awaited)),
                Ok(Sent::Return(value)) => Ok(value),
                Err(raised) => Err(raised),
            };
            drop(mem::replace(&mut self.wait, Wait::Nothing));
            match self.steps.step(outcome)? {
                Next::Done(value) => return Ok(Sent::Return(value)),
                Next::Skip => {
                    self.wait = Wait::Turn;
                    return Ok(Sent::Yield(Obj::none()));
                }
                Next::Await(awaitable) => {
                    let mut waiter = Waiter::on(awaitable);
                    sent = waiter.start();
                    self.wait = Wait::For(waiter);
                }
            }
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.steps.traverse(visit);
        if let Wait::For(waiter) = &self.wait {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.wait {
            Wait::For(waiter) => Some(waiter.future().clone()),
            Wait::Nothing | Wait::Turn => None,
        }
    }
}
