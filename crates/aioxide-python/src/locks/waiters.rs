//! The queue of those who wait: the attribute `_waiters`.
//!
//! As long as nobody looks, the futures stand in a queue of Rust's. The first look moves them into a `collections.deque`
//! of Python's, which is the truth from then on, so that users may change it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::ffi::{Builtin, Obj, PyRes, Raised, Slot, Visit};
use crate::futures::{Future, exact_or_task};
use crate::waiter::{is_cancelled, is_done};
use crate::{names, stdlib};

/// Futures, first come first served.
pub(super) struct Waiters {
    /// Is it a queue, rather than `None`?
    made: Cell<bool>,
    /// The futures, while nobody has looked. Borrowed only where no Python code can run.
    queue: RefCell<VecDeque<Obj>>,
    /// What `_waiters` gave, or what was assigned to it.
    visible: Slot,
}

impl Waiters {
    /// No queue as yet: `_waiters` is `None`.
    pub(super) fn none() -> Self {
        Self {
            made: Cell::new(false),
            queue: RefCell::default(),
            visible: Slot::empty(),
        }
    }

    /// An empty queue.
    pub(super) fn empty() -> Self {
        Self {
            made: Cell::new(true),
            ..Self::none()
        }
    }

    /// Starts anew with an empty queue.
    pub(super) fn restart(&self) {
        self.assign(None);
        self.made.set(true);
    }

    /// Is nobody waiting, as far as can be told at a glance? If not, ask.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.visible.is_none() && self.queue.borrow().is_empty()
    }

    /// How many wait: `len(_waiters)`.
    pub(super) fn len(&self) -> PyRes<usize> {
        match self.visible.get() {
            Some(visible) => visible.len(),
            None => Ok(self.queue.borrow().len()),
        }
    }

    /// What reprs add.
    pub(super) fn repr_suffix(&self) -> PyRes<String> {
        let count = match self.visible.get() {
            Some(visible) if !visible.truth()? => 0,
            _ => self.len()?,
        };
        Ok(if count == 0 {
            String::new()
        } else {
            format!(", waiters:{count}")
        })
    }

    /// Appends a future; makes the queue if there was none.
    #[inline]
    pub(super) fn push(&self, future: &Obj) -> PyRes<()> {
        if let Some(visible) = self.visible.get() {
            return visible.method(names::append(), [future]).map(drop);
        }
        self.made.set(true);
        self.queue.borrow_mut().push_back(future.clone());
        Ok(())
    }

    /// Takes a future out.
    #[inline]
    pub(super) fn remove(&self, future: &Obj) -> PyRes<()> {
        if let Some(visible) = self.visible.get() {
            return visible.method(names::remove(), [future]).map(drop);
        }
        let mut queue = self.queue.borrow_mut();
        let gone = match queue.front() {
            Some(first) if first.is(future) => queue.pop_front(),
            _ => {
                let place = queue.iter().position(|waiter| waiter.is(future));
                place.and_then(|place| queue.remove(place))
            }
        };
        drop(queue);
        match gone {
            Some(_) => Ok(()),
            None => Err(self.missing()),
        }
    }

    /// The error of taking out what is not there: somebody emptied the queue.
    #[cold]
    fn missing(&self) -> Raised {
        if self.made.get() {
            Raised::value_error("deque.remove(x): x not in deque")
        } else {
            Builtin::Attribute.raise("'NoneType' object has no attribute 'remove'")
        }
    }

    /// All futures as they stand now.
    pub(super) fn snapshot(&self) -> PyRes<Vec<Obj>> {
        match self.visible.get() {
            Some(visible) if visible.is_none() => Ok(Vec::new()),
            Some(visible) => visible.items(),
            None => Ok(self.queue.borrow().iter().cloned().collect()),
        }
    }

    /// The first future.
    #[inline]
    pub(super) fn first(&self) -> PyRes<Option<Obj>> {
        if self.visible.is_none() {
            return Ok(self.queue.borrow().front().cloned());
        }
        Ok(self.snapshot()?.into_iter().next())
    }

    /// The first future of which something holds; native futures are asked in place.
    fn find(
        &self,
        native: fn(&Future) -> bool,
        any: fn(&Obj) -> PyRes<bool>,
    ) -> PyRes<Option<Obj>> {
        if self.visible.is_none() {
            let mut foreign = false;
            for waiter in self.queue.borrow().iter() {
                match exact_or_task(waiter) {
                    Some(future) if native(future) => return Ok(Some(waiter.clone())),
                    Some(_) => {}
                    None => {
                        foreign = true;
                        break;
                    }
                }
            }
            if !foreign {
                return Ok(None);
            }
        }
        for waiter in self.snapshot()? {
            if any(&waiter)? {
                return Ok(Some(waiter));
            }
        }
        Ok(None)
    }

    /// The first future that is not done.
    #[inline]
    pub(super) fn first_pending(&self) -> PyRes<Option<Obj>> {
        self.find(
            |future| !future.is_done(),
            |future| is_done(future).map(|done| !done),
        )
    }

    /// Does anybody wait who was not cancelled?
    #[inline]
    pub(super) fn any_not_cancelled(&self) -> PyRes<bool> {
        if self.is_idle() {
            return Ok(false);
        }
        let found = self.find(
            |future| !future.is_cancelled(),
            |future| is_cancelled(future).map(|gone| !gone),
        )?;
        Ok(found.is_some())
    }

    /// What `_waiters` is in a copy. An empty queue is not shown for that.
    pub(super) fn copy(&self) -> PyRes {
        if self.made.get() && self.is_idle() {
            return stdlib::deque()?.call([]);
        }
        self.show()
    }

    /// `_waiters`.
    pub(super) fn show(&self) -> PyRes {
        if let Some(visible) = self.visible.get() {
            return Ok(visible);
        }
        if !self.made.get() {
            return Ok(Obj::none());
        }
        let deque = stdlib::deque()?.call([])?;
        // From here to the last `append` nothing runs that could change the queue.
        let waiters = self.queue.take();
        self.visible.set(deque.clone());
        for waiter in waiters {
            deque.method(names::append(), [&waiter])?;
        }
        Ok(deque)
    }

    /// `_waiters = value`; `None` for `del`.
    pub(super) fn assign(&self, value: Option<&Obj>) {
        self.made.set(value.is_some_and(|value| !value.is_none()));
        let old = self.queue.take();
        drop(
            self.visible
                .replace(value.filter(|value| !value.is_none()).cloned()),
        );
        drop(old);
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.visible);
        if let Ok(queue) = self.queue.try_borrow() {
            queue.iter().for_each(|waiter| visit.obj(waiter));
        }
    }

    /// Gives everything up.
    pub(super) fn clear(&self) {
        self.visible.clear();
        let queue = self
            .queue
            .try_borrow_mut()
            .map(|mut queue| std::mem::take(&mut *queue));
        drop(queue);
    }
}
