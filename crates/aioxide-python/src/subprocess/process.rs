//! `Process`: a child that runs, or has run.

use crate::coroutines::{Delegate, coroutine};
use crate::ffi::{
    Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit,
};
use crate::names;

use super::MODULE;
use super::communicate::{communicate, feed_stdin, noop, read_stream};

/// A child.
pub(super) struct Process {
    /// The transport.
    pub(super) transport: Slot,
    /// The protocol.
    protocol: Slot,
    /// The loop.
    pub(super) loop_: Slot,
    /// The writer of its input.
    pub(super) stdin: Slot,
    /// The reader of its output.
    pub(super) stdout: Slot,
    /// The reader of its error output.
    pub(super) stderr: Slot,
    /// Its number.
    pid: Slot,
}

/// Where the class is kept.
static CLASS: Class<Process> = Class::new();

impl Native for Process {
    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            transport: Slot::empty(),
            protocol: Slot::empty(),
            loop_: Slot::empty(),
            stdin: Slot::empty(),
            stdout: Slot::empty(),
            stderr: Slot::empty(),
            pid: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        for slot in self.slots() {
            visit.slot(slot);
        }
    }

    fn clear(&self) {
        for slot in self.slots() {
            slot.clear();
        }
    }
}

impl Process {
    /// Every reference.
    fn slots(&self) -> [&Slot; 7] {
        [
            &self.transport,
            &self.protocol,
            &self.loop_,
            &self.stdin,
            &self.stdout,
            &self.stderr,
            &self.pid,
        ]
    }
}

impl Ref<Process> {
    /// The child of a transport and a protocol.
    pub(super) fn create(transport: &Obj, protocol: &Obj, loop_: &Obj) -> PyRes<Self> {
        let process = Self::new(Process::empty())?;
        process.initialize(transport, protocol, loop_)?;
        Ok(process)
    }

    /// `__init__`.
    fn initialize(&self, transport: &Obj, protocol: &Obj, loop_: &Obj) -> PyRes<()> {
        let set = |slot: &Slot, value: Obj| {
            drop(slot.replace(Some(value).filter(|value| !value.is_none())));
        };
        set(&self.transport, transport.clone());
        set(&self.protocol, protocol.clone());
        set(&self.loop_, loop_.clone());
        set(&self.stdin, protocol.getattr(names::stdin())?);
        set(&self.stdout, protocol.getattr(names::stdout())?);
        set(&self.stderr, protocol.getattr(names::stderr())?);
        set(&self.pid, transport.method(names::get_pid(), [])?);
        Ok(())
    }

    /// Calls a method of the transport.
    fn ask<const N: usize>(&self, method: &Obj, args: [&Obj; N]) -> PyRes {
        self.transport.get_or_none().method(method, args)
    }

    /// The repr.
    fn repr_text(&self) -> PyRes<String> {
        let pid = self.pid.get_or_none().to_str()?.text()?;
        Ok(format!("<{} {pid}>", self.obj().class_name()))
    }
}

/// `wait()`.
enum Wait {
    /// Not begun.
    Start(Ref<Process>),
    /// It waits for the transport's `_wait()`.
    Waiting(Delegate),
}

impl Machine for Wait {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let process = match self {
            Self::Waiting(delegate) => return delegate.resume(input),
            Self::Start(process) => process,
        };
        let delegate = Delegate::new(&process.ask(names::process_wait(), [])?)?;
        let sent = delegate.resume(Resume::Send);
        *self = Self::Waiting(delegate);
        sent
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        match self {
            Self::Start(process) => visit.native(process),
            Self::Waiting(delegate) => visit.obj(delegate.awaited()),
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match self {
            Self::Start(_) => None,
            Self::Waiting(delegate) => Some(delegate.awaited().clone()),
        }
    }
}

/// Makes the class.
pub(super) fn make_class() -> PyRes {
    let builder = ClassBuilder::<Process>::new(MODULE, "Process", "A child process with streams.")
        .init("(self, transport, protocol, loop)", |this, args| {
            this.initialize(args.req(0), args.req(1), args.req(2))
        })
        .repr(Ref::<Process>::repr_text)
        .property(
            "returncode",
            |this| this.ask(names::get_returncode(), []),
            |this, value| Err(Raised::no_setter(this.obj(), "returncode", value)),
        )
        .coroutine(
            "wait(self)",
            "Waits until the child has ended; returns how.",
            |this, _| coroutine("Process.wait", Wait::Start(this.clone())),
        )
        .method(
            "send_signal(self, signal)",
            "Sends a signal to the child, unless it has ended.",
            |this, args| this.ask(names::send_signal(), [args.req(0)]).map(drop),
        )
        .method("terminate(self)", "Sends SIGTERM.", |this, _| {
            this.ask(names::terminate(), []).map(drop)
        })
        .method("kill(self)", "Sends SIGKILL.", |this, _| {
            this.ask(names::kill(), []).map(drop)
        })
        .coroutine(
            "communicate(self, input=None)",
            "Writes `input`, reads what the child writes, and waits for its end. Returns output and error output.",
            |this, args| communicate(this, args.some(0)),
        );
    builder
        .coroutine(
            "_feed_stdin(self, input)",
            "Writes to the child and closes its input.",
            |this, args| feed_stdin(this, args.some(0)),
        )
        .coroutine("_noop(self)", "Nothing.", |_, _| noop())
        .coroutine(
            "_read_stream(self, fd)",
            "Reads all that the child writes to a pipe.",
            |this, args| read_stream(this, args.req(0)),
        )
        .slot_property("stdin", |this| &this.stdin)
        .slot_property("stdout", |this| &this.stdout)
        .slot_property("stderr", |this| &this.stderr)
        .slot_property("pid", |this| &this.pid)
        .slot_property("_transport", |this| &this.transport)
        .slot_property("_protocol", |this| &this.protocol)
        .slot_property("_loop", |this| &this.loop_)
        .build()
}
