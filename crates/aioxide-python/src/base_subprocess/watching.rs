//! Watching for the end of a child. Answers the child watchers of `asyncio/unix_events.py`.
//!
//! A descriptor that the loop's selector watches tells of the end (`aioxide_engine::process`): no thread, no signal
//! handler, whichever thread the loop runs in, and other children are nobody's business. Only where there is no such
//! descriptor, a thread waits (`aioxide/_child_threads.py`). Either way the status is taken by the loop's thread, and in
//! one step with telling the transport: as long as signals are sent, the number is the child's.

use aioxide_engine::process::ExitWatch;

use crate::events::{Direction, EventLoop, JobBody, method_of};
use crate::ffi::{Builtin, Native, Obj, PyRes, Ref};
use crate::selector_events::common::{run_ready, unwatch, watch};
use crate::{names, stdlib};

use super::transport::SubprocessTransport;

impl Ref<SubprocessTransport> {
    /// Has the transport be told of its child's end.
    pub(crate) fn watch_child(&self) -> PyRes<()> {
        let Ok(exit_watch) = ExitWatch::new(self.pid()?) else {
            return self.watch_in_thread();
        };
        self.keep_exit_watch(exit_watch);
        match watch(self, Direction::Read, child_ended) {
            // The selector takes no more.
            Err(raised) if raised.is(Builtin::Os) => {
                raised.discard();
                self.drop_exit_watch();
                self.watch_in_thread()
            }
            watched => watched,
        }
    }

    /// Has a thread wait for the child.
    fn watch_in_thread(&self) -> PyRes<()> {
        let loop_ = self.parts.loop_.get();
        let loop_ = loop_.map_or_else(Obj::none, Ref::into_obj);
        let ended = self.obj().getattr(names::child_ended())?;
        stdlib::watch_child_in_thread()?
            .call([&loop_, &Obj::int(self.pid()?.into())?, &ended])
            .map(drop)
    }

    /// Ends the watch, if there is one.
    pub(super) fn unwatch_child(&self) -> PyRes<()> {
        let unwatched = unwatch(self, Direction::Read);
        self.drop_exit_watch();
        unwatched
    }

    /// The child has ended, or somebody else has waited for it. `status` is what a thread has found, if one had to.
    pub(super) fn child_ended(&self, status: Option<&Obj>) -> PyRes<()> {
        self.unwatch_child()?;
        if self.has_exited() {
            return Ok(());
        }
        let returncode = match status {
            Some(status) => Some(status.clone()),
            None => self.reap()?,
        };
        match returncode {
            Some(returncode) => self.process_exited(&returncode),
            // Somebody traces it, and is told first; or it is an Apple system's child, and not quite gone.
            None => self.watch_in_thread(),
        }
    }

    /// Takes the status of the child that has ended. `None` says that it cannot be taken yet.
    fn reap(&self) -> PyRes<Option<Obj>> {
        let os = stdlib::os_module()?;
        let pid = Obj::int(self.pid()?.into())?;
        match os.method(names::waitpid(), [&pid, &os.getattr_str("WNOHANG")?]) {
            Ok(waited) => match waited.items()?.as_slice() {
                [found, status] if found.truth()? => os
                    .method(names::waitstatus_to_exitcode(), [status])
                    .map(Some),
                _ => Ok(None),
            },
            Err(raised) if raised.matches(stdlib::child_process_error()?) => {
                raised.discard();
                self.taken_status(&pid).map(Some)
            }
            Err(raised) => Err(raised),
        }
    }

    /// What is known of a child that somebody else has waited for: a good deal if that was its `Popen`.
    fn taken_status(&self, pid: &Obj) -> PyRes {
        if let Some(proc) = self.proc() {
            let returncode = proc.getattr(names::returncode())?;
            if !returncode.is_none() {
                return Ok(returncode);
            }
        }
        let text = Obj::str("Unknown child process pid %d, will report returncode 255")?;
        stdlib::unix_events_module()?
            .getattr(names::logger())?
            .method(names::warning(), [&text, pid])?;
        Obj::int(255)
    }
}

/// The job of a descriptor that tells of a child's end.
fn child_ended(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    match SubprocessTransport::class().cast(&object) {
        Some(this) if this.parts.reading.get() => {
            run_ready(loop_, this, names::child_ended(), |this| {
                this.child_ended(None)
            })
        }
        _ => Ok(()),
    }
}

/// The method of a transport that stands for a job of this file; `None` for jobs of others.
pub(crate) fn ready_method(body: JobBody) -> Option<&'static Obj> {
    method_of(body, &[(child_ended, names::child_ended)])
}
