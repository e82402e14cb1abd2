//! The transport of a child process.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;

use aioxide_engine::process::ExitWatch;

use crate::coroutines::coroutine;
use crate::events::{EventLoop, LoopRef};
use crate::ffi::{
    Builtin, Class, ClassBuilder, Layout, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent,
    Slot, Visit, finally, warn_resource,
};
use crate::selector_events::common::{Parts, Transport, methods};
use crate::waiter::{Waiter, is_done, set_result};
use crate::{names, stdlib};

use super::connecting::connect_pipes;
use super::pipe_protocols::is_disconnected;

/// `subprocess.PIPE`.
const PIPE: i64 = -1;

/// What is to be executed, and how.
pub(crate) struct Program<'a> {
    /// The program and its arguments, or a command for the shell.
    pub args: &'a Obj,
    /// Is it for the shell?
    pub shell: &'a Obj,
    /// The child's standard streams, as `Popen` takes them.
    pub streams: [&'a Obj; 3],
    /// 0: the pipes have no buffer of their own.
    pub bufsize: &'a Obj,
    /// All other options of `Popen`.
    pub options: Option<&'a Obj>,
}

/// The transport of a child process.
pub(crate) struct SubprocessTransport {
    /// What every transport has; the descriptor is the one that tells of the child's end.
    pub parts: Parts,
    /// The `Popen`, until the connection is lost.
    proc: Slot,
    /// The child's number.
    pid: Slot,
    /// How the child ended, once it has.
    returncode: Slot,
    /// The futures of those who wait for the end: a set, until then.
    exit_waiters: Slot,
    /// What the protocol is to be told once the pipes are connected: a deque, until then.
    pending_calls: Slot,
    /// The protocols of the pipes by number, `None` for one that is still to be connected: a dict.
    pipes: Slot,
    /// Is `connection_lost` on its way?
    finished: Cell<bool>,
    /// What tells of the child's end, while the loop watches it.
    exit_watch: RefCell<Option<ExitWatch>>,
}

/// Where the class is kept.
static CLASS: Class<SubprocessTransport> = Class::new();

impl Native for SubprocessTransport {
    const LAYOUT: Layout = Layout::Transport;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            parts: Parts::empty(),
            proc: Slot::empty(),
            pid: Slot::empty(),
            returncode: Slot::empty(),
            exit_waiters: Slot::empty(),
            pending_calls: Slot::empty(),
            pipes: Slot::empty(),
            finished: Cell::new(false),
            exit_watch: RefCell::new(None),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.parts.traverse(visit);
        visit.slot(&self.proc);
        visit.slot(&self.pid);
        visit.slot(&self.returncode);
        visit.slot(&self.exit_waiters);
        visit.slot(&self.pending_calls);
        visit.slot(&self.pipes);
    }

    fn clear(&self) {
        self.parts.clear();
        self.proc.clear();
        self.exit_waiters.clear();
        self.pending_calls.clear();
        self.pipes.clear();
    }

    fn needs_finalizer(&self) -> bool {
        !self.parts.closing.get()
    }

    fn finalize(this: &Ref<Self>) {
        if !this.needs_finalizer() {
            return;
        }
        let warned = this
            .repr_text()
            .and_then(|text| warn_resource(this.obj(), &format!("unclosed transport {text}"), 1));
        if let Err(raised) = warned {
            raised.write_unraisable(Some(this.obj()));
        }
        if let Err(raised) = this.close() {
            raised.write_unraisable(Some(this.obj()));
        }
    }
}

impl Transport for SubprocessTransport {
    fn parts(&self) -> &Parts {
        &self.parts
    }
}

/// Starts a child and makes its transport. The pipes are connected in a task, which tells `waiter` when it is done.
pub(crate) fn make_subprocess_transport(
    loop_: &Ref<EventLoop>,
    protocol: &Obj,
    program: &Program<'_>,
    waiter: &Obj,
    extra: Option<&Obj>,
) -> PyRes<Ref<SubprocessTransport>> {
    let extra = extra.map_or_else(Obj::dict, |extra| Ok(extra.clone()))?;
    let (pipes, pipe) = (Obj::dict()?, Obj::int(PIPE)?);
    for (fd, stream) in (0..).zip(program.streams) {
        if stream.equals(&pipe)? {
            pipes.set_item(&Obj::int(fd)?, &Obj::none())?;
        }
    }
    let empty = SubprocessTransport::empty();
    let this = Ref::new(SubprocessTransport {
        parts: Parts::new(loop_, -1, protocol, extra.clone())?,
        exit_waiters: Slot::new(Obj::set()?),
        pending_calls: Slot::new(stdlib::deque()?.call([])?),
        pipes: Slot::new(pipes),
        ..empty
    })?;
    match this.start(program, waiter, &extra) {
        Ok(()) => Ok(this),
        Err(raised) => finally(Err(raised), || {
            let closed = this.close();
            finally(closed, || this.close_files())
        }),
    }
}

/// Calls `subprocess.Popen`.
fn popen(program: &Program<'_>) -> PyRes {
    let options = Obj::dict()?;
    let set = |name: &Obj, value: &Obj| options.set_item(name, value);
    set(names::shell(), program.shell)?;
    let [stdin, stdout, stderr] = program.streams;
    set(names::stdin(), stdin)?;
    set(names::stdout(), stdout)?;
    set(names::stderr(), stderr)?;
    set(names::universal_newlines(), &Obj::bool(false))?;
    set(names::bufsize(), program.bufsize)?;
    if let Some(more) = program.options {
        options.method(names::update(), [more])?;
    }
    stdlib::start_child()?.call([program.args, &options])
}

impl Ref<SubprocessTransport> {
    /// Starts the child and the task that connects its pipes.
    fn start(&self, program: &Program<'_>, waiter: &Obj, extra: &Obj) -> PyRes<()> {
        let proc = popen(program)?;
        self.proc.set(proc.clone());
        self.pid.set(proc.getattr(names::pid())?);
        extra.set_item(names::subprocess(), &proc)?;
        let Some(loop_) = self.parts.loop_.get() else {
            return Ok(());
        };
        if LoopRef::Native(loop_.clone()).debug()? {
            let args = program.args;
            let name = if args.is_str() || args.as_bytes().is_some() {
                args.clone()
            } else {
                args.item(&Obj::int(0)?)?
            };
            let text = Obj::str("process %r created: pid %s")?;
            stdlib::base_subprocess_logger()?
                .method(names::debug(), [&text, &name, &self.pid.get_or_none()])?;
        }
        let connecting = connect_pipes(self, &proc, Some(waiter))?;
        loop_
            .obj()
            .method(names::create_task(), [connecting.obj()])
            .map(drop)
    }

    /// Closes the `Popen`'s file objects, if there is one.
    pub(super) fn close_files(&self) -> PyRes<()> {
        let Some(proc) = self.proc.get() else {
            return Ok(());
        };
        for name in [names::stdin(), names::stdout(), names::stderr()] {
            let file = proc.getattr(name)?;
            if !file.is_none() {
                file.method(names::close(), [])?;
            }
        }
        Ok(())
    }

    // What others of this module and the watching of children need.

    /// The child's number.
    pub(crate) fn pid(&self) -> PyRes<i32> {
        let pid = self.pid.get_or_none().as_i64()?;
        Ok(i32::try_from(pid).unwrap_or(-1))
    }

    /// The `Popen`.
    pub(crate) fn proc(&self) -> Option<Obj> {
        self.proc.get()
    }

    /// Did the transport hear of the child's end?
    pub(crate) fn has_exited(&self) -> bool {
        self.returncode.is_some()
    }

    /// The protocol, until the connection is lost.
    #[inline]
    pub(super) fn protocol(&self) -> Option<Obj> {
        self.parts.protocol.get()
    }

    /// Are the pipes connected, so that nothing is kept for later?
    #[inline]
    pub(super) fn is_connected(&self) -> bool {
        self.pending_calls.is_none()
    }

    /// The protocols of the pipes.
    pub(super) fn pipes(&self) -> Obj {
        self.pipes.get_or_none()
    }

    /// Takes what is kept for the protocol; from now on nothing is.
    pub(super) fn take_pending_calls(&self) -> Option<Obj> {
        self.pending_calls.take()
    }

    /// Keeps what tells of the child's end. Gives its descriptor.
    pub(crate) fn keep_exit_watch(&self, exit_watch: ExitWatch) -> i32 {
        let fd = exit_watch.as_raw_fd();
        self.parts.fd.set(fd);
        let previous = self.exit_watch.borrow_mut().replace(exit_watch);
        drop(previous);
        fd
    }

    /// Gives up what tells of the child's end.
    pub(crate) fn drop_exit_watch(&self) {
        let exit_watch = self.exit_watch.borrow_mut().take();
        self.parts.fd.set(-1);
        drop(exit_watch);
    }

    // What happens.

    /// `_call(cb, *data)`: tells the protocol, in the next turn or once the pipes are connected.
    fn call(&self, callback: &Obj, data: &[&Obj]) -> PyRes<()> {
        if let Some(pending) = self.pending_calls.get() {
            let data = Obj::tuple(data.iter().map(|item| (*item).clone()))?;
            let call = Obj::tuple([callback.clone(), data])?;
            return pending.method(names::append(), [&call]).map(drop);
        }
        match self.parts.loop_.get() {
            Some(loop_) => LoopRef::Native(loop_)
                .call_soon(callback, data, None)
                .map(drop),
            None => Ok(()),
        }
    }

    /// Tells the protocol by one of its methods.
    fn call_protocol(&self, method: &Obj, data: &[&Obj]) -> PyRes<()> {
        let protocol = self.parts.protocol.get_or_none();
        self.call(&protocol.getattr(method)?, data)
    }

    /// `_process_exited(returncode)`.
    pub(crate) fn process_exited(&self, returncode: &Obj) -> PyRes<()> {
        if returncode.is_none() || self.returncode.is_some() {
            let text = self.returncode.get_or_none().repr()?;
            return Err(Builtin::Assertion.raise(&text));
        }
        if let Some(loop_) = self.parts.loop_.get()
            && LoopRef::Native(loop_).debug()?
        {
            let text = Obj::str("%r exited with return code %r")?;
            stdlib::base_subprocess_logger()?
                .method(names::info(), [&text, self.obj(), returncode])?;
        }
        self.returncode.set(returncode.clone());
        if let Some(proc) = self.proc.get()
            && proc.getattr(names::returncode())?.is_none()
        {
            proc.setattr(names::returncode(), returncode)?;
        }
        self.call_protocol(names::process_exited(), &[])?;
        self.try_finish()?;
        let Some(waiters) = self.exit_waiters.take() else {
            return Ok(());
        };
        for waiter in waiters.items()? {
            if !is_done(&waiter)? {
                set_result(&waiter, returncode.clone())?;
            }
        }
        Ok(())
    }

    /// `_try_finish()`: the end, if the child has ended and no pipe is open.
    fn try_finish(&self) -> PyRes<()> {
        if self.finished.get() {
            return Err(Builtin::Assertion.raise_bare());
        }
        if self.returncode.is_none() {
            return Ok(());
        }
        for pipe in self.pipes().method(names::values(), [])?.items()? {
            if !is_disconnected(&pipe)? {
                return Ok(());
            }
        }
        self.finished.set(true);
        let lost = self.obj().getattr(names::call_connection_lost())?;
        self.call(&lost, &[&Obj::none()])
    }

    /// `_call_connection_lost(exc)`.
    fn call_connection_lost(&self, exception: &Obj) -> PyRes<()> {
        let protocol = self.parts.protocol.get_or_none();
        let told = protocol
            .method(names::connection_lost(), [exception])
            .map(drop);
        finally(told, || {
            // There is one only if somebody else has told of the child's end.
            self.unwatch_child()?;
            let left = (
                self.parts.loop_.take(),
                self.proc.take(),
                self.parts.protocol.take(),
            );
            drop(left);
            Ok(())
        })
    }

    // What users ask for.

    /// `get_pipe_transport(fd)`.
    fn pipe_transport(&self, fd: &Obj) -> PyRes {
        match self.pipes().dict_get(fd)? {
            Some(protocol) => protocol.getattr(names::pipe()),
            None => Ok(Obj::none()),
        }
    }

    /// `send_signal(signal)`. A child that has ended, or that somebody else has waited for, gets none: its number may be
    /// another process's by now.
    fn send_signal(&self, signal: &Obj) -> PyRes<()> {
        let Some(proc) = self.proc.get() else {
            return Err(Raised::bare(stdlib::process_lookup_error()?));
        };
        if self.returncode.is_some() || !proc.getattr(names::returncode())?.is_none() {
            return Ok(());
        }
        let sent = match self.pidfd()? {
            Some((pidfd, send)) => send.call([&pidfd, signal]),
            None => {
                stdlib::os_module()?.method(names::kill(), [&proc.getattr(names::pid())?, signal])
            }
        };
        match sent {
            Err(raised) if raised.matches(stdlib::process_lookup_error()?) => {
                raised.discard();
                Ok(())
            }
            sent => sent.map(drop),
        }
    }

    /// The child's pidfd and the function that sends signals to one, if there are both.
    fn pidfd(&self) -> PyRes<Option<(Obj, Obj)>> {
        if !cfg!(any(target_os = "linux", target_os = "android")) {
            return Ok(None);
        }
        let fd = self.exit_watch.borrow().as_ref().map(AsRawFd::as_raw_fd);
        let Some(fd) = fd else {
            return Ok(None);
        };
        let send = stdlib::signal_module()?.getattr_opt(names::pidfd_send_signal())?;
        send.map_or(Ok(None), |send| Ok(Some((Obj::int(fd.into())?, send))))
    }

    /// `send_signal` with one of the signals of the module `signal`.
    fn send(&self, name: &str) -> PyRes<()> {
        let signal = stdlib::signal_module()?.getattr_str(name)?;
        self.obj().method(names::send_signal(), [&signal]).map(drop)
    }

    /// `close()`: closes the pipes, and kills the child if it runs.
    pub(crate) fn close(&self) -> PyRes<()> {
        if self.parts.closing.replace(true) {
            return Ok(());
        }
        let closed = self.close_pipes();
        finally(closed, || self.kill_running())
    }

    /// Closes the pipes, unless the loop is closed: it could not tell their protocols.
    fn close_pipes(&self) -> PyRes<()> {
        for protocol in self.pipes().method(names::values(), [])?.items()? {
            let open = self
                .parts
                .loop_
                .get()
                .is_some_and(|loop_| !loop_.closed.get());
            if open && !protocol.is_none() {
                protocol
                    .getattr(names::pipe())?
                    .method(names::close(), [])?;
            }
        }
        Ok(())
    }

    /// Kills the child, if it is still running.
    fn kill_running(&self) -> PyRes<()> {
        let Some(proc) = self.proc.get() else {
            return Ok(());
        };
        if self.returncode.is_some() || !proc.method(names::poll(), [])?.is_none() {
            return Ok(());
        }
        if let Some(loop_) = self.parts.loop_.get()
            && LoopRef::Native(loop_).debug()?
        {
            let text = Obj::str("Close running child process: kill %r")?;
            stdlib::base_subprocess_logger()?.method(names::warning(), [&text, self.obj()])?;
        }
        match proc.method(names::kill(), []) {
            // It may have ended just now, or run with other rights.
            Err(raised)
                if raised.matches(stdlib::process_lookup_error()?)
                    || raised.matches(stdlib::permission_error()?) =>
            {
                raised.discard();
                Ok(())
            }
            killed => killed.map(drop),
        }
    }

    /// The repr.
    fn repr_text(&self) -> PyRes<String> {
        let mut words = vec![self.obj().class_name()];
        if self.parts.closing.get() {
            words.push(String::from("closed"));
        }
        let pid = self.pid.get();
        if let Some(pid) = &pid {
            words.push(format!("pid={}", pid.to_str()?.text()?));
        }
        if let Some(returncode) = self.returncode.get() {
            words.push(format!("returncode={}", returncode.to_str()?.text()?));
        } else if pid.is_some() {
            words.push(String::from("running"));
        } else {
            words.push(String::from("not started"));
        }
        for (fd, name) in (0..).zip(["stdin", "stdout", "stderr"]) {
            if let Some(protocol) = self.pipes().dict_get(&Obj::int(fd)?)?
                && !protocol.is_none()
            {
                let pipe = protocol.getattr(names::pipe())?.to_str()?.text()?;
                words.push(format!("{name}={pipe}"));
            }
        }
        Ok(format!("<{}>", words.join(" ")))
    }
}

/// `_wait()`.
struct Wait {
    /// The transport.
    transport: Ref<SubprocessTransport>,
    /// The wait for its end, once begun.
    waiter: Option<Waiter>,
}

impl Wait {
    /// Leaves the set if the wait is over.
    fn after(&self, sent: PyRes<Sent>) -> PyRes<Sent> {
        match (sent, &self.waiter) {
            (Ok(sent @ Sent::Yield(_)), _) => Ok(sent),
            (outcome, Some(waiter)) => finally(outcome, || {
                if let Some(waiters) = self.transport.exit_waiters.get() {
                    waiters.method(names::discard(), [waiter.future()])?;
                }
                Ok(())
            }),
            (outcome, None) => outcome,
        }
    }
}

impl Machine for Wait {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        if let Some(waiter) = &mut self.waiter {
            let sent = waiter.resume(input);
            return self.after(sent);
        }
        if let Some(returncode) = self.transport.returncode.get() {
            return Ok(Sent::Return(returncode));
        }
        let loop_ = self.transport.parts.loop_.get();
        let loop_ = loop_.map_or_else(Obj::none, Ref::into_obj);
        let waiter = self.waiter.insert(Waiter::create(&loop_)?);
        let waiters = self.transport.exit_waiters.get_or_none();
        waiters.method(names::add(), [waiter.future()])?;
        let sent = waiter.start();
        self.after(sent)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.transport);
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    let builder = ClassBuilder::<SubprocessTransport>::new(
        "asyncio.unix_events",
        "_UnixSubprocessTransport",
        "The transport of a child process.",
    )
    .base(stdlib::subprocess_transport()?.clone())
    .sealed()
    .repr(Ref::<SubprocessTransport>::repr_text);
    private(methods(builder))
        .method("close(self)", "Closes the pipes, and kills the child if it runs.", |this, _| {
            this.close()
        })
        .method("get_pid(self)", "The child's number.", |this, _| Ok(this.pid.get()))
        .method(
            "get_returncode(self)",
            "How the child ended; `None` if it has not.",
            |this, _| Ok(this.returncode.get()),
        )
        .method(
            "get_pipe_transport(self, fd)",
            "The transport of a pipe, by the number that it has in the child; `None` if there is none.",
            |this, args| this.pipe_transport(args.req(0)),
        )
        .method(
            "send_signal(self, signal)",
            "Sends a signal to the child, unless it has ended.",
            |this, args| this.send_signal(args.req(0)),
        )
        .method("terminate(self)", "Sends SIGTERM.", |this, _| this.send("SIGTERM"))
        .method("kill(self)", "Sends SIGKILL.", |this, _| this.send("SIGKILL"))
        .build()
        .map(drop)
}

/// Adds the private methods and attributes.
fn private(builder: ClassBuilder<SubprocessTransport>) -> ClassBuilder<SubprocessTransport> {
    builder
        .inherited_from("BaseSubprocessTransport")
        .coroutine(
            "_wait(self)",
            "Waits until the child has ended; returns how.",
            |this, _| {
                coroutine(
                    "BaseSubprocessTransport._wait",
                    Wait {
                        transport: this.clone(),
                        waiter: None,
                    },
                )
            },
        )
        .coroutine(
            "_connect_pipes(self, waiter)",
            "Connects the pipes, then tells the protocol.",
            |this, args| connect_pipes(this, &this.proc.get_or_none(), args.some(0)),
        )
        .method(
            "_check_proc(self)",
            "Raises if the connection is lost.",
            |this, _| {
                if this.proc.is_some() {
                    return Ok(());
                }
                Err(Raised::bare(stdlib::process_lookup_error()?))
            },
        )
        .method(
            "_call(self, cb, *data)",
            "Tells the protocol.",
            |this, args| {
                let data: Vec<&Obj> = args.rest().iter().collect();
                this.call(args.req(0), &data)
            },
        )
        .method(
            "_pipe_connection_lost(self, fd, exc)",
            "A pipe is closed, or lost by an error.",
            |this, args| {
                this.call_protocol(names::pipe_connection_lost(), &[args.req(0), args.req(1)])?;
                this.try_finish()
            },
        )
        .method(
            "_pipe_data_received(self, fd, data)",
            "The child has written something.",
            |this, args| {
                this.call_protocol(names::pipe_data_received(), &[args.req(0), args.req(1)])
            },
        )
        .method(
            "_child_ended(self, status=None)",
            "The child has ended, or somebody else has waited for it.",
            |this, args| this.child_ended(args.some(0)),
        )
        .method(
            "_process_exited(self, returncode)",
            "The child has ended.",
            |this, args| this.process_exited(args.req(0)),
        )
        .method(
            "_try_finish(self)",
            "The end, if there is nothing left to come.",
            |this, _| this.try_finish(),
        )
        .method(
            "_call_connection_lost(self, exc)",
            "Tells the protocol that everything is over.",
            |this, args| this.call_connection_lost(args.req(0)),
        )
        .slot_property("_proc", |this| &this.proc)
        .slot_property("_pid", |this| &this.pid)
        .slot_property("_returncode", |this| &this.returncode)
        .slot_property("_exit_waiters", |this| &this.exit_waiters)
        .slot_property("_pending_calls", |this| &this.pending_calls)
        .slot_property("_pipes", |this| &this.pipes)
        .property(
            "_finished",
            |this| Ok(this.finished.get()),
            |this, value| {
                this.finished.set(value.map_or(Ok(false), Obj::truth)?);
                Ok(())
            },
        )
        .property(
            "_closed",
            |this| Ok(this.parts.closing.get()),
            |this, value| {
                this.parts.closing.set(value.map_or(Ok(false), Obj::truth)?);
                Ok(())
            },
        )
}
