//! Telling a forked child from its parent without a system call.
//!
//! A handler that libc runs in each forked child counts. Where it cannot be installed, the process
//! is asked for its id.

use std::{
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// How many forks lie between this process and the one that installed the handler.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Whether the handler is installed.
static COUNTS: OnceLock<bool> = OnceLock::new();

/// Runs in a forked child, which may do little there.
extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Installs the handler.
fn install() -> bool {
    if cfg!(miri) {
        return false;
    }
    // SAFETY: the handler does what a signal handler may do, and this library is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(forked)) == 0 }
}

/// A number that is another one in a process than in those that it forks.
pub(crate) fn lineage() -> u32 {
    if *COUNTS.get_or_init(install) {
        FORKS.load(Ordering::Relaxed)
    } else {
        process::id()
    }
}
