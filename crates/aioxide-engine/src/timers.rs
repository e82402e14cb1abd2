//! The timers, asyncio's `loop._scheduled`: a 4-ary heap of deadlines over a slab of jobs.
//!
//! - A heap entry is the deadline, `seq`, and the timer's id: 24 bytes without the job. `seq` counts
//!   timers, so equal deadlines fire in the order they were made.
//! - A slot of the slab holds the job. Cancelling takes the job out and moves the slot to its next
//!   generation at once, so the slot can serve another timer while the old entry, now dead, is still
//!   in the heap.
//! - A dead entry leaves the heap when it is the last leaf (a timeout around a fast operation),
//!   when it reaches the root, or when more than half of the heap is dead and the heap is built
//!   again from the live ones. Each entry is removed once, so cancelling costs O(1) amortised.
//! - A slot whose generations are used up is never used again: an old [`TimerId`] cannot name a new
//!   timer.
//!
//! No job is dropped or cloned in here: what leaves is handed to the caller.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

/// Children of a heap node: neighbours in memory, in a heap half as deep as a binary one.
const ARITY: usize = 4;

/// With fewer dead entries than this the heap is not rebuilt.
const REBUILD_MINIMUM: usize = 64;

/// Names a timer, also after it fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    /// Where the job is.
    slot: u32,
    /// Which timer of that slot.
    generation: NonZeroU32,
}

/// A deadline in the heap.
#[derive(Clone, Copy)]
struct Entry {
    /// When the timer is due, in nanoseconds.
    deadline: u64,
    /// How many timers were made before this one.
    seq: u64,
    /// The timer; dead if its slot has moved on.
    id: TimerId,
}

impl Entry {
    /// Whether this entry fires before the other.
    #[inline]
    fn is_before(&self, other: &Self) -> bool {
        (self.deadline, self.seq) < (other.deadline, other.seq)
    }
}

/// A place for a job.
struct Slot<J> {
    /// The job of a pending timer.
    job: Option<J>,
    /// Which timer of this slot is pending or, if none is, comes next.
    generation: NonZeroU32,
}

/// The pending timers.
pub(crate) struct TimerHeap<J> {
    /// The deadlines, the earliest at index 0.
    entries: Vec<Entry>,
    /// The jobs.
    slots: Vec<Slot<J>>,
    /// Slots that no pending timer uses, the last freed on top.
    free_slots: Vec<u32>,
    /// The number of dead entries.
    dead: usize,
    /// The number of timers made so far.
    seq: u64,
}

impl<J> TimerHeap<J> {
    /// Makes an empty heap.
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
            slots: Vec::new(),
            free_slots: Vec::new(),
            dead: 0,
            seq: 0,
        }
    }

    /// Adds a timer.
    pub(crate) fn add(&mut self, deadline: u64, job: J) -> TimerId {
        let id = self.occupy(job);
        let seq = self.seq;
        self.seq += 1;
        self.entries.push(Entry { deadline, seq, id });
        self.sift_up(self.entries.len() - 1);
        id
    }

    /// Takes the job of a pending timer; `None` if the timer fired or was cancelled before.
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<J> {
        let job = self.vacate(id)?;
        self.dead += 1;
        if self.dead == self.entries.len() {
            self.entries.clear();
            self.dead = 0;
            return Some(job);
        }
        while let Some(last) = self.entries.last() {
            if self.is_live(last.id) {
                break;
            }
            self.entries.pop();
            self.dead -= 1;
        }
        if self.dead >= REBUILD_MINIMUM && self.dead > self.entries.len() / 2 {
            self.rebuild();
        }
        Some(job)
    }

    /// The earliest deadline of a pending timer.
    #[inline]
    pub(crate) fn next_deadline(&mut self) -> Option<u64> {
        while let Some(root) = self.entries.first().copied() {
            if self.is_live(root.id) {
                return Some(root.deadline);
            }
            self.remove_root();
            self.dead -= 1;
        }
        None
    }

    /// Takes the job of the next timer whose deadline is not after `now`.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<J> {
        if self.next_deadline()? > now {
            return None;
        }
        let root = self.remove_root()?;
        self.vacate(root.id)
    }

    /// Shows each pending job to `visit`.
    pub(crate) fn for_each(&self, visit: impl FnMut(&J)) {
        self.slots
            .iter()
            .filter_map(|slot| slot.job.as_ref())
            .for_each(visit);
    }

    /// Cancels all timers and appends their jobs to `taken`.
    pub(crate) fn take_into(&mut self, taken: &mut Vec<J>) {
        for entry in std::mem::take(&mut self.entries) {
            taken.extend(self.vacate(entry.id));
        }
        self.dead = 0;
    }

    /// Puts a job into a slot.
    fn occupy(&mut self, job: J) -> TimerId {
        if let Some(index) = self.free_slots.pop() {
            let slot = &mut self.slots[index as usize];
            slot.job = Some(job);
            return TimerId {
                slot: index,
                generation: slot.generation,
            };
        }
        let index = u32::try_from(self.slots.len())
            .expect("2^32 pending timers need more memory than there is");
        self.slots.push(Slot {
            job: Some(job),
            generation: NonZeroU32::MIN,
        });
        TimerId {
            slot: index,
            generation: NonZeroU32::MIN,
        }
    }

    /// Takes the job out of its slot and frees the slot, if the timer is still pending.
    fn vacate(&mut self, id: TimerId) -> Option<J> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let job = slot.job.take()?;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free_slots.push(id.slot);
        }
        Some(job)
    }

    /// Whether the timer is pending.
    #[inline]
    fn is_live(&self, id: TimerId) -> bool {
        let slot = &self.slots[id.slot as usize];
        slot.generation == id.generation && slot.job.is_some()
    }

    /// Drops the dead entries and orders the rest.
    fn rebuild(&mut self) {
        let slots = &self.slots;
        self.entries.retain(|entry| {
            let slot = &slots[entry.id.slot as usize];
            slot.generation == entry.id.generation && slot.job.is_some()
        });
        self.dead = 0;
        let inner_nodes = self.entries.len().saturating_sub(1).div_ceil(ARITY);
        for index in (0..inner_nodes).rev() {
            self.sift_down(index);
        }
    }

    /// Takes the root out of the heap.
    fn remove_root(&mut self) -> Option<Entry> {
        if self.entries.is_empty() {
            return None;
        }
        let root = self.entries.swap_remove(0);
        self.sift_down(0);
        Some(root)
    }

    /// Moves an entry towards the root until its parent fires first.
    fn sift_up(&mut self, mut index: usize) {
        let entry = self.entries[index];
        while index > 0 {
            let parent = (index - 1) / ARITY;
            if !entry.is_before(&self.entries[parent]) {
                break;
            }
            self.entries[index] = self.entries[parent];
            index = parent;
        }
        self.entries[index] = entry;
    }

    /// Moves an entry towards the leaves until it fires before all its children.
    fn sift_down(&mut self, mut index: usize) {
        let Some(entry) = self.entries.get(index).copied() else {
            return;
        };
        loop {
            let first_child = index * ARITY + 1;
            let end = (first_child + ARITY).min(self.entries.len());
            let Some(next) = (first_child..end).reduce(|best, child| {
                if self.entries[child].is_before(&self.entries[best]) {
                    child
                } else {
                    best
                }
            }) else {
                break;
            };
            if !self.entries[next].is_before(&entry) {
                break;
            }
            self.entries[index] = self.entries[next];
            index = next;
        }
        self.entries[index] = entry;
    }
}
