//! The bodies of `Queue.put`, `Queue.get` and `Queue.join`.

use crate::coroutines::Delegate;
use crate::ffi::{Machine, Obj, PyRes, Ref, Resume, Sent, Visit, finally};
use crate::names;
use crate::tasks::cancel_any;
use crate::waiter::{Waiter, is_cancelled};

use super::overrides::{GET_NOWAIT, PUT_NOWAIT};
use super::{Queue, Side, shut_down};

impl Ref<Queue> {
    /// Begins to wait on one side, or goes on. `None` says that the wait is over and the queue is to be looked at again.
    #[inline]
    fn wait(
        &self,
        side: Side,
        place: &mut Option<Waiter>,
        input: Option<Resume>,
    ) -> PyRes<Option<Sent>> {
        let sent = if let (Some(waiter), Some(input)) = (place.as_mut(), input) {
            waiter.resume(input)
        } else {
            let waiter = place.insert(Waiter::create(&self.current_loop()?)?);
            self.line(side).push(waiter.future())?;
            waiter.start()
        };
        match sent {
            Ok(sent @ Sent::Yield(_)) => Ok(Some(sent)),
            Ok(Sent::Return(_)) => {
                *place = None;
                Ok(None)
            }
            Err(raised) => match place.take() {
                // It failed or was cancelled; a wake-up that came nevertheless must not be lost.
                Some(waiter) => finally(Err(raised), || self.leave(side, waiter.future())),
                None => Err(raised),
            },
        }
    }

    /// Leaves the line of one side.
    fn leave(&self, side: Side, future: &Obj) -> PyRes<()> {
        cancel_any(future, None)?;
        self.line(side).remove(future)?;
        let must_wait = match side {
            Side::Getters => self.is_empty()?,
            Side::Putters => self.is_full()?,
        };
        if !must_wait && !is_cancelled(future)? {
            self.wake(side)?;
        }
        Ok(())
    }
}

/// `Queue.put`.
pub(super) struct Put {
    /// The queue.
    pub(super) queue: Ref<Queue>,
    /// The item.
    pub(super) item: Obj,
    /// What is waited for, while the queue is full.
    pub(super) waiter: Option<Waiter>,
}

impl Machine for Put {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if self.waiter.is_some()
            && let Some(sent) = self
                .queue
                .wait(Side::Putters, &mut self.waiter, Some(input))?
        {
            return Ok(sent);
        }
        while self.queue.is_full()? {
            if self.queue.is_shutdown.get() {
                return Err(shut_down());
            }
            if let Some(sent) = self.queue.wait(Side::Putters, &mut self.waiter, None)? {
                return Ok(sent);
            }
        }
        if self.queue.is_direct() && !self.queue.is_shutdown.get() {
            self.queue.put_in(&self.item)?;
        } else if self.queue.overrides(PUT_NOWAIT) {
            let put_nowait = names::put_nowait();
            return self
                .queue
                .obj()
                .method(put_nowait, [&self.item])
                .map(Sent::Return);
        } else {
            self.queue.put_nowait(&self.item)?;
        }
        Ok(Sent::Return(Obj::none()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.queue);
        visit.obj(&self.item);
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// `Queue.get`.
pub(super) struct Get {
    /// The queue.
    pub(super) queue: Ref<Queue>,
    /// What is waited for, while the queue is empty.
    pub(super) waiter: Option<Waiter>,
}

impl Machine for Get {
    #[inline]
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if self.waiter.is_some()
            && let Some(sent) = self
                .queue
                .wait(Side::Getters, &mut self.waiter, Some(input))?
        {
            return Ok(sent);
        }
        while self.queue.is_empty()? {
            // Asked twice, since an overridden `empty` sees every question.
            if self.queue.is_shutdown.get() && self.queue.is_empty()? {
                return Err(shut_down());
            }
            if let Some(sent) = self.queue.wait(Side::Getters, &mut self.waiter, None)? {
                return Ok(sent);
            }
        }
        if self.queue.is_direct() {
            return self.queue.take_out().map(Sent::Return);
        }
        if self.queue.overrides(GET_NOWAIT) {
            return self
                .queue
                .obj()
                .method(names::get_nowait(), [])
                .map(Sent::Return);
        }
        self.queue.get_nowait().map(Sent::Return)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.queue);
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// `Queue.join`.
pub(super) struct Join {
    /// The queue.
    pub(super) queue: Ref<Queue>,
    /// The wait for the event, while tasks are unfinished.
    pub(super) wait: Option<Delegate>,
}

impl Machine for Join {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = match &self.wait {
            Some(wait) => wait.resume(input)?,
            None if self.queue.unfinished_tasks.get() > 0 => {
                let awaitable = self.queue.finished_event()?.method(names::wait(), [])?;
                self.wait
                    .insert(Delegate::new(&awaitable)?)
                    .resume(Resume::Send)?
            }
            None => Sent::Return(Obj::none()),
        };
        Ok(match sent {
            Sent::Return(_) => Sent::Return(Obj::none()),
            sent @ Sent::Yield(_) => sent,
        })
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.queue);
        if let Some(wait) = &self.wait {
            visit.obj(wait.awaited());
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.wait.as_ref().map(|wait| wait.awaited().clone())
    }
}
