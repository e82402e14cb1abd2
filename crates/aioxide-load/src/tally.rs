//! How long a phase goes on, and what it did.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::options::{Options, Outcome};

/// When a phase is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// After some time.
    Time(Duration),
    /// After so many operations.
    Count(u64),
}

impl Extent {
    /// The warm-up and the measured phase: `--seconds` or `--messages`, and `--warmup` of the same.
    pub(crate) fn of(options: &Options) -> Outcome<(Self, Self)> {
        if let Some(messages) = options.optional("messages")? {
            let warmup = options.or("warmup", messages / 4)?;
            return Ok((Self::Count(warmup), Self::Count(messages)));
        }
        let seconds: f64 = options.or("seconds", 0.5)?;
        let warmup: f64 = options.or("warmup", seconds / 4.0)?;
        let time = Duration::try_from_secs_f64;
        Ok((Self::Time(time(warmup)?), Self::Time(time(seconds)?)))
    }
}

/// One phase: what may still begin, and what has ended.
#[derive(Debug)]
pub(crate) struct Tally {
    /// When the phase began.
    start: Instant,
    /// When it is over.
    extent: Extent,
    /// Operations that have begun.
    begun: u64,
    /// Nanoseconds of each operation that has ended.
    latencies: Vec<u64>,
    /// Operations for each latency: those of a batch end together.
    batch: u64,
}

impl Tally {
    /// A phase that begins now. A batch has `batch` operations.
    pub(crate) fn new(extent: Extent, batch: u64) -> Self {
        let latencies = Vec::with_capacity(1 << 20);
        let start = Instant::now();
        Self {
            start,
            extent,
            begun: 0,
            latencies,
            batch,
        }
    }

    /// May another batch begin? If so, it counts as begun.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let goes_on = match self.extent {
            Extent::Time(time) => now.duration_since(self.start) < time,
            Extent::Count(count) => self.begun < count,
        };
        if goes_on {
            self.begun += self.batch;
        }
        goes_on
    }

    /// A batch has ended.
    pub(crate) fn end(&mut self, latency: Duration) {
        self.latencies
            .push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Is a batch under way?
    pub(crate) fn is_busy(&self) -> bool {
        self.ended() < self.begun
    }

    /// Operations that have ended.
    fn ended(&self) -> u64 {
        self.latencies.len() as u64 * self.batch
    }

    /// The phase is over: its figures in JSON.
    pub(crate) fn into_json(mut self) -> String {
        let seconds = self.start.elapsed().as_secs_f64();
        let messages = self.ended();
        self.latencies.sort_unstable();
        let [p50, p99] = [50, 99].map(|percent| percentile(&self.latencies, percent));
        format!(r#"{{"messages": {messages}, "seconds": {seconds}, "p50": {p50}, "p99": {p99}}}"#)
    }
}

/// The value that `percent` of the sorted values do not exceed; 0 for none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}
