//! What locks, queues and their kin share: the loop they are bound to. Answers `asyncio/mixins.py`.

use crate::events::running_loop;
use crate::ffi::{Obj, PyRes, Raised, Slot, Visit};

/// The loop of a synchronisation primitive, bound when it is first needed.
pub(crate) struct LoopBound {
    /// The loop.
    loop_: Slot,
}

impl LoopBound {
    /// Not bound yet.
    pub(crate) const fn new() -> Self {
        Self {
            loop_: Slot::empty(),
        }
    }

    /// The running loop, bound now if none was; fails if another one was. `owner` is named in the error.
    ///
    /// CPython: where no loop is running and none is bound, this gives `None`.
    #[inline]
    pub(crate) fn get(&self, owner: &Obj) -> PyRes {
        let running = running_loop()?;
        if self.loop_.is_none() {
            drop(self.loop_.replace(running.clone()));
        }
        match running {
            Some(running) if self.loop_.holds(&running) => return Ok(running),
            None if self.loop_.is_none() => return Ok(Obj::none()),
            _ => {}
        }
        Err(Raised::runtime_error(&format!(
            "{} is bound to a different event loop",
            owner.repr()?
        )))
    }

    /// The loop, if bound: the attribute `_loop`.
    pub(crate) fn bound(&self) -> Option<Obj> {
        self.loop_.get()
    }

    /// Binds another loop, or none: `_loop` is assigned or deleted.
    pub(crate) fn bind(&self, loop_: Option<&Obj>) {
        drop(
            self.loop_
                .replace(loop_.filter(|loop_| !loop_.is_none()).cloned()),
        );
    }

    /// Shows the loop to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
    }

    /// Gives the loop up.
    pub(crate) fn clear(&self) {
        self.loop_.clear();
    }
}
