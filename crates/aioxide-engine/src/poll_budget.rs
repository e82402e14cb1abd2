//! How much ready work may run before the selector is looked at again.
//!
//! Looking costs a syscall, which is more than a small job. So while jobs are ready, turns are
//! run without it until one of these is used up:
//!
//! - [`MAX_TURNS`] turns;
//! - the allowance of jobs, at most [`MAX_JOBS`], which follows how many jobs ran in
//!   [`TARGET_NS`] between the last two looks: slow jobs soon have a look each, as in asyncio;
//! - [`TARGET_NS`] of time, if the turn reads the clock for its timers anyway.

#[cfg(test)]
mod tests;

/// Turns from one look to the next.
const MAX_TURNS: u32 = 16;

/// Turns from one look to the next if only the waker is watched. Its bytes are then of no
/// interest, they must just not pile up.
const MAX_TURNS_UNWATCHED: u32 = 1024;

/// Jobs from one look to the next.
const MAX_JOBS: u64 = 256;

/// The time from one look to the next that is aimed at, in nanoseconds.
const TARGET_NS: u64 = 50_000;

/// What was spent since the last look.
#[derive(Clone, Copy)]
pub(crate) struct PollBudget {
    /// Turns since the last look.
    turns: u32,
    /// Jobs since the last look.
    jobs: u64,
    /// Jobs that may run between looks.
    allowance: u64,
    /// When the last look was, if the clock was read then.
    looked_at: Option<u64>,
}

impl PollBudget {
    /// A budget that calls for a look at once.
    pub(crate) fn new() -> Self {
        Self {
            turns: MAX_TURNS_UNWATCHED,
            jobs: 0,
            allowance: MAX_JOBS,
            looked_at: None,
        }
    }

    /// Notes a turn that runs so many jobs.
    pub(crate) fn spend(&mut self, jobs: usize) {
        self.turns = self.turns.saturating_add(1);
        self.jobs = self.jobs.saturating_add(jobs as u64);
    }

    /// Whether it is time to look at watched descriptors. `now` is the time, if it is known.
    pub(crate) fn is_spent(&mut self, now: Option<u64>) -> bool {
        if self.turns >= MAX_TURNS || self.jobs >= self.allowance {
            return true;
        }
        match (now, self.looked_at) {
            (Some(now), Some(then)) => now.saturating_sub(then) >= TARGET_NS,
            (Some(now), None) => {
                self.looked_at = Some(now);
                false
            }
            (None, _) => false,
        }
    }

    /// Whether it is time to look although nothing but the waker is watched.
    pub(crate) fn is_overdue(&self) -> bool {
        self.turns >= MAX_TURNS_UNWATCHED
    }

    /// Notes a look between two turns of ready work.
    pub(crate) fn looked(&mut self, now: Option<u64>) {
        if let (Some(now), Some(then)) = (now, self.looked_at) {
            let elapsed = now.saturating_sub(then).max(1);
            self.allowance = (self.jobs.saturating_mul(TARGET_NS) / elapsed).clamp(1, MAX_JOBS);
        }
        self.waited(now);
    }

    /// Notes a look that may have blocked: its time says nothing about the jobs.
    pub(crate) fn waited(&mut self, now: Option<u64>) {
        self.turns = 0;
        self.jobs = 0;
        self.looked_at = now;
    }

    /// Calls for a look on the next turn if descriptors are watched.
    pub(crate) fn exhaust(&mut self) {
        self.turns = self.turns.max(MAX_TURNS);
    }
}
