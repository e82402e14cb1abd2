//! Drives a fuzz target without a fuzzer: byte strings from a seeded generator, for a while.
//!
//! A target is a function `run(data: &[u8])` that makes operations of bytes and panics if the outcome is wrong. It
//! accepts any bytes, so that cargo-fuzz or afl can call it as it is.
//!
//! `AIOXIDE_FUZZ_SECONDS` says how long each target runs, one second unless told; `AIOXIDE_FUZZ_SEED` the seed of the
//! first string. A failure names its seed: with that as `AIOXIDE_FUZZ_SEED` the string that failed is the first.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// The longest string.
const LONGEST: u64 = 2_048;

/// What is left of an input: gives out numbers, and zeros when it is over.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl Input<'_> {
    /// Is it over?
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    /// A number below `end`, which is at most 65536.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = u16::from_le_bytes([self.byte(), self.byte()]);
        usize::from(number) % end
    }
}

/// A generator of numbers: xorshift64*.
struct Numbers(u64);

impl Numbers {
    /// The numbers that follow from a seed.
    fn new(seed: u64) -> Self {
        // Neighbouring seeds shall have nothing in common, and the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A byte string.
    fn string(&mut self) -> Vec<u8> {
        let length = self.next() % LONGEST;
        // Of few different bytes, operations repeat and separators are found.
        let mask = [0xff, 0x0f, 0x83, 0x07][usize::from(self.next().to_le_bytes()[7] & 3)];
        (0..length)
            .map(|_| self.next().to_le_bytes()[7] & mask)
            .collect()
    }
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().expect("a whole number"))
}

/// Calls `run` with one string after the other.
pub(crate) fn fuzz(run: fn(&[u8])) {
    let first = setting("AIOXIDE_FUZZ_SEED").unwrap_or(0);
    let seconds = setting("AIOXIDE_FUZZ_SECONDS").unwrap_or(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    for seed in first.. {
        if Instant::now() >= end {
            return;
        }
        let data = Numbers::new(seed).string();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&data))) {
            eprintln!("failed with AIOXIDE_FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
