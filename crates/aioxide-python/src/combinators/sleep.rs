//! `sleep`.
//!
//! Without a delay it yields `None` once, which a task takes for "step again". With one, a future is finished by a
//! timer: on the direct path by a job in the scheduler, elsewhere through `loop.call_later`.

use std::mem;

use crate::coroutines::{Coroutine, coroutine};
use crate::events::{EventLoop, LoopRef, get_running_loop};
use crate::ffi::{Args, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Visit};
use crate::futures::Future;
use crate::waiter::{Waiter, create_future};
use crate::{names, stdlib};

use super::finally;
use super::timer::{Timer, report};

/// `sleep(delay, result=None)`.
#[inline]
pub(super) fn sleep(args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    sleep_for(args.req(0), args.some(1))
}

/// The coroutine of `sleep`.
#[inline]
fn sleep_for(delay: &Obj, result: Option<&Obj>) -> PyRes<Ref<Coroutine>> {
    coroutine(
        "sleep",
        Sleep::Start {
            delay: delay.clone(),
            result: result.cloned(),
        },
    )
}

/// Where a sleep is.
enum Sleep {
    /// Not begun.
    Start {
        /// How long.
        delay: Obj,
        /// What to return, `None` if nothing is held.
        result: Option<Obj>,
    },
    /// It let others run.
    Skipped {
        /// What to return.
        result: Option<Obj>,
    },
    /// A native timer runs.
    Timed {
        /// What the timer finishes.
        future: Ref<Future>,
        /// The timer.
        timer: Timer,
        /// What to return.
        result: Option<Obj>,
    },
    /// A timer handle waits.
    Scheduled {
        /// What the timer finishes.
        waiter: Waiter,
        /// The timer.
        handle: Obj,
    },
    /// Finished.
    Over,
}

/// Is the delay zero or less, as Python compares it?
#[inline]
fn is_skip(delay: &Obj) -> PyRes<bool> {
    if delay.is_exact_float() {
        return Ok(delay.as_f64()? <= 0.0);
    }
    if delay.is_exact_int() {
        match delay.as_i64() {
            Ok(delay) => return Ok(delay <= 0),
            Err(overflow) => overflow.discard(),
        }
    }
    delay.less_or_equal(&Obj::int(0)?)
}

/// The job of a native timer.
fn wake_up(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(future) = Future::class().exact(&object) else {
        return Ok(());
    };
    match future.finish_if_pending(Obj::none()) {
        Ok(()) => Ok(()),
        Err(raised) => report(loop_, raised, stdlib::set_result_unless_cancelled()?),
    }
}

impl Sleep {
    /// Everything up to the first wait.
    #[inline]
    fn start(&mut self, delay: &Obj, result: Option<Obj>) -> PyRes<Sent> {
        if is_skip(delay)? {
            *self = Self::Skipped { result };
            return Ok(Sent::Yield(Obj::none()));
        }
        if delay.as_f64()?.is_nan() {
            return Err(Raised::value_error("Invalid delay: NaN (not a number)"));
        }
        let loop_ = get_running_loop()?;
        if let reference @ LoopRef::Native(_) = LoopRef::new(&loop_)
            && reference.direct().is_some()
        {
            let future = Ref::new(Future::payload(reference))?;
            if let Some(timer) = Timer::native(&loop_, delay, wake_up, future.obj())? {
                let sent = future.wait();
                *self = Self::Timed {
                    future,
                    timer,
                    result,
                };
                return Ok(sent);
            }
        }
        self.schedule(&loop_, delay, &result.unwrap_or_else(Obj::none))
    }

    /// The wait on a loop off the direct path.
    #[cold]
    fn schedule(&mut self, loop_: &Obj, delay: &Obj, result: &Obj) -> PyRes<Sent> {
        let future = create_future(loop_)?;
        let callback = stdlib::set_result_unless_cancelled()?;
        let handle = loop_.method(names::call_later(), [delay, callback, &future, result])?;
        let mut waiter = Waiter::on(future);
        let sent = waiter.start();
        self.scheduled(sent, waiter, handle)
    }

    /// Waits on, or ends with the timer cancelled.
    fn scheduled(&mut self, sent: PyRes<Sent>, waiter: Waiter, handle: Obj) -> PyRes<Sent> {
        if matches!(sent, Ok(Sent::Yield(_))) {
            *self = Self::Scheduled { waiter, handle };
            return sent;
        }
        finally(sent, || handle.method(names::cancel(), []).map(drop))
    }
}

impl Machine for Sleep {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(self, Self::Over) {
            Self::Start { delay, result } => self.start(&delay, result),
            Self::Skipped { result } => match input {
                Resume::Send => Ok(Sent::Return(result.unwrap_or_else(Obj::none))),
                Resume::Throw(exception) => Err(Raised::restore(exception)),
            },
            Self::Timed {
                future,
                timer,
                result,
            } => {
                let outcome = finally(future.resumed(input), || timer.cancel().map(drop))?;
                // Somebody else may have finished the future.
                Ok(Sent::Return(if outcome.is_none() {
                    result.unwrap_or(outcome)
                } else {
                    outcome
                }))
            }
            Self::Scheduled { mut waiter, handle } => {
                let sent = waiter.resume(input);
                self.scheduled(sent, waiter, handle)
            }
            Self::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Start { delay, result } => {
                visit.obj(delay);
                if let Some(result) = result {
                    visit.obj(result);
                }
            }
            Self::Skipped { result } => {
                if let Some(result) = result {
                    visit.obj(result);
                }
            }
            Self::Timed {
                future,
                timer,
                result,
            } => {
                visit.native(future);
                timer.traverse(visit);
                if let Some(result) = result {
                    visit.obj(result);
                }
            }
            Self::Scheduled { waiter, handle } => {
                waiter.traverse(visit);
                visit.obj(handle);
            }
            Self::Over => {}
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Timed { future, .. } => Some(future.obj().clone()),
            Self::Scheduled { waiter, .. } => Some(waiter.future().clone()),
            _ => None,
        }
    }
}
