//! What locks, queues and their kin share: the loop they are bound to. Answers `asyncio/mixins.py`.

use crate::events::running_loop;
use crate::ffi::{Obj, PyRes, Raised, Slot, Visit};

/// The loop of a synchronisation primitive, bound when it is first needed.
pub struct LoopBound {
    /// The loop.
    loop_: Slot,
}

impl LoopBound {
    /// Not bound yet.
    pub const fn new() -> Self {
        Self {
            loop_: Slot::empty(),
        }
    }

    /// The loop, bound now if it was not; fails if another loop is running. `owner` is named in the error.
    #[inline]
    pub fn get(&self, owner: &Obj) -> PyRes {
        let running =
            running_loop()?.ok_or_else(|| Raised::runtime_error("no running event loop"))?;
        if self.loop_.is_none() {
            self.loop_.set(running.clone());
        }
        if self.loop_.holds(&running) {
            return Ok(running);
        }
        Err(Raised::runtime_error(&format!(
            "{} is bound to a different event loop",
            owner.repr()?
        )))
    }

    /// The loop, if bound: the attribute `_loop`.
    pub fn bound(&self) -> Option<Obj> {
        self.loop_.get()
    }

    /// Shows the loop to the collector.
    pub fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
    }

    /// Gives the loop up.
    pub fn clear(&self) {
        self.loop_.clear();
    }
}
