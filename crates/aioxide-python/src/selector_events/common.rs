//! What kinds of transports have in common: protocol, extra information, the context of callbacks, what the selector
//! watches, how errors are reported, and the end. That of streams keeps its own parts and shares the reports.
//!
//! A transport schedules the callbacks of its life (`connection_made`, `connection_lost`) through the loop's `call_soon`;
//! what runs at each datagram or piece of data is a job of the selector without a handle. Each of them runs in the
//! transport's own context, a copy made with the transport: what 3.15 does for connections holds on every Python.

use std::cell::Cell;

use crate::events::{
    Direction, EventLoop, Handle, JobBody, LoopRef, leaves_the_loop, report_callback_error,
};
use crate::ffi::{
    Args, Builtin, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    copy_current_context, finally, in_context, warn_resource, while_handling,
};
use crate::{names, stdlib};

/// How many writes to a lost connection pass without a word: `LOG_THRESHOLD_FOR_CONNLOST_WRITES`.
const QUIET_WRITES: u32 = 5;

/// A chunk in a write buffer that is kept: an exact `bytes`, which never changes.
pub(crate) struct Chunk(pub Obj);

impl AsRef<[u8]> for Chunk {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes().unwrap_or(&[])
    }
}

/// What every transport has.
pub(crate) struct Parts {
    /// The loop, until the connection is lost.
    pub loop_: Slot<Ref<EventLoop>>,
    /// The protocol, until the connection is lost.
    pub protocol: Slot,
    /// Where its callbacks run.
    context: Slot,
    /// The dict behind `get_extra_info`.
    extra: Slot,
    /// The descriptor, also when it is closed.
    pub fd: Cell<i32>,
    /// Does the selector watch for something to read?
    pub reading: Cell<bool>,
    /// Does it watch for room to write?
    pub writing: Cell<bool>,
    /// Was it closed, or is it about to be?
    pub closing: Cell<bool>,
    /// Counts errors and, after the first, writes that went nowhere.
    pub conn_lost: Cell<u32>,
}

impl Parts {
    /// The parts of an object whose constructor has not run.
    pub(crate) const fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
            protocol: Slot::empty(),
            context: Slot::empty(),
            extra: Slot::empty(),
            fd: Cell::new(-1),
            reading: Cell::new(false),
            writing: Cell::new(false),
            closing: Cell::new(false),
            conn_lost: Cell::new(0),
        }
    }

    /// The parts of a new transport, with a copy of the current context.
    pub(crate) fn new(loop_: &Ref<EventLoop>, fd: i32, protocol: &Obj, extra: Obj) -> PyRes<Self> {
        Ok(Self {
            loop_: Slot::new(loop_.clone()),
            protocol: Slot::new(protocol.clone()),
            context: Slot::new(copy_current_context()?),
            extra: Slot::new(extra),
            fd: Cell::new(fd),
            ..Self::empty()
        })
    }

    /// Shows what is held to the collector.
    pub(crate) fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
        visit.slot(&self.protocol);
        visit.slot(&self.context);
        visit.slot(&self.extra);
    }

    /// Gives up what is held.
    pub(crate) fn clear(&self) {
        self.loop_.clear();
        self.protocol.clear();
        self.context.clear();
        self.extra.clear();
    }

    /// Does the selector watch in this direction?
    fn watched(&self, direction: Direction) -> &Cell<bool> {
        match direction {
            Direction::Read => &self.reading,
            Direction::Write => &self.writing,
        }
    }
}

/// Counts one more write to a lost connection, and logs it once there were some.
#[cold]
pub(crate) fn count_lost_write(conn_lost: &Cell<u32>, warning: &str) -> PyRes<()> {
    let count = conn_lost.get();
    conn_lost.set(count.saturating_add(1));
    if count >= QUIET_WRITES {
        stdlib::logger()?.method(names::warning(), [&Obj::str(warning)?])?;
    }
    Ok(())
}

/// What stands between a loop and a protocol.
pub(crate) trait Link: Native {
    /// The loop, until the connection is lost.
    fn loop_slot(&self) -> &Slot<Ref<EventLoop>>;

    /// The protocol, until the connection is lost.
    fn protocol_slot(&self) -> &Slot;
}

impl<T: Transport> Link for T {
    fn loop_slot(&self) -> &Slot<Ref<EventLoop>> {
        &self.parts().loop_
    }

    fn protocol_slot(&self) -> &Slot {
        &self.parts().protocol
    }
}

/// A transport that is made of [`Parts`].
pub(crate) trait Transport: Native {
    /// What every transport has.
    fn parts(&self) -> &Parts;
}

/// A transport that reads, and can be told to pause.
pub(crate) trait Reading: Transport {
    /// The job of a descriptor with something to read.
    const READ_READY: JobBody;

    /// Was it told to pause?
    fn paused(&self) -> &Cell<bool>;
}

/// Is the transport open, and reading not paused?
pub(crate) fn is_reading<T: Reading>(this: &Ref<T>) -> bool {
    !this.parts().closing.get() && !this.paused().get()
}

/// Has the selector watch for something to read, if the transport reads.
fn start_reading<T: Reading>(this: &Ref<T>) -> PyRes<()> {
    if !is_reading(this) {
        return Ok(());
    }
    watch(this, Direction::Read, T::READ_READY)
}

/// The loop's debug mode; off for a transport that has left its loop.
fn is_debug<T: Link>(this: &Ref<T>) -> PyRes<bool> {
    match this.loop_slot().get() {
        Some(loop_) => LoopRef::Native(loop_).debug(),
        None => Ok(false),
    }
}

/// Is there a loop, and an open one?
pub(crate) fn has_open_loop<T: Transport>(this: &Ref<T>) -> bool {
    this.parts()
        .loop_
        .get()
        .is_some_and(|loop_| !loop_.closed.get())
}

/// `loop.call_soon(callback, *args)` in the transport's context.
pub(crate) fn call_soon<T: Transport>(this: &Ref<T>, callback: &Obj, args: &[&Obj]) -> PyRes<()> {
    let Some(loop_) = this.parts().loop_.get() else {
        return Ok(());
    };
    let context = this.parts().context.get();
    LoopRef::Native(loop_)
        .call_soon(callback, args, context.as_ref())
        .map(drop)
}

/// Schedules the start of a transport's life: `connection_made`, then `start`, a method that begins to read, then the
/// waiter.
pub(crate) fn begin<T: Transport>(
    this: &Ref<T>,
    start: Option<&Obj>,
    waiter: Option<&Obj>,
) -> PyRes<()> {
    let protocol = this.parts().protocol.get_or_none();
    call_soon(
        this,
        &protocol.getattr(names::connection_made())?,
        &[this.obj()],
    )?;
    if let Some(start) = start {
        call_soon(this, &this.obj().getattr(start)?, &[])?;
    }
    match waiter {
        Some(waiter) => call_soon(
            this,
            stdlib::set_result_unless_cancelled()?,
            &[waiter, &Obj::none()],
        ),
        None => Ok(()),
    }
}

/// Schedules `_call_connection_lost(exception)`.
pub(crate) fn schedule_connection_lost<T: Transport>(
    this: &Ref<T>,
    exception: Option<&Obj>,
) -> PyRes<()> {
    let method = this.obj().getattr(names::call_connection_lost())?;
    let none = Obj::none();
    call_soon(this, &method, &[exception.unwrap_or(&none)])
}

/// Runs what a descriptor's readiness calls for, in the transport's context. An error is reported as that of a handle
/// for `method`, the method of the transport that asyncio would have called.
pub(crate) fn run_ready<T: Transport>(
    loop_: &Ref<EventLoop>,
    this: &Ref<T>,
    method: &Obj,
    body: fn(&Ref<T>) -> PyRes<()>,
) -> PyRes<()> {
    let Some(context) = this.parts().context.get() else {
        return Ok(());
    };
    match in_context(&context, || body(this)) {
        Ok(()) => Ok(()),
        Err(raised) => report_ready_error(loop_, this.obj(), method, context, raised),
    }
}

/// Reports an error of a native job as that of a handle for `method` of a transport; `SystemExit` and
/// `KeyboardInterrupt` go on.
#[cold]
pub(crate) fn report_ready_error(
    loop_: &Ref<EventLoop>,
    transport: &Obj,
    method: &Obj,
    context: Obj,
    raised: Raised,
) -> PyRes<()> {
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let callback = transport.getattr(method)?;
    let handle = Ref::new(Handle::payload(&callback, &[], context, loop_.obj())?)?;
    report_callback_error(
        Raised::restore(exception),
        loop_.obj(),
        &callback,
        &Obj::tuple([])?,
        handle.obj(),
        None,
    )
}

/// Tells the loop's exception handler of an error in a transport.
pub(super) fn report<T: Link>(this: &Ref<T>, message: &str, exception: &Obj) -> PyRes<()> {
    let Some(loop_) = this.loop_slot().get() else {
        return Ok(());
    };
    let context = Obj::dict()?;
    context.set_item(names::message(), &Obj::str(message)?)?;
    context.set_item(names::exception(), exception)?;
    context.set_item(names::transport(), this.obj())?;
    context.set_item(names::protocol(), &this.protocol_slot().get_or_none())?;
    while_handling(exception, || {
        loop_
            .obj()
            .method(names::call_exception_handler(), [&context])
    })
    .map(drop)
}

/// The first half of `_fatal_error`: an error that `is_usual` is only worth a line in debug mode.
pub(crate) fn report_fatal<T: Link>(
    this: &Ref<T>,
    exception: &Obj,
    message: &str,
    is_usual: bool,
) -> PyRes<()> {
    if !is_usual {
        return report(this, message, exception);
    }
    if is_debug(this)? {
        let text = Obj::str("%r: %s")?;
        stdlib::logger()?.method_kw(
            names::debug(),
            &[&text, this.obj(), &Obj::str(message)?],
            &[(names::exc_info(), exception)],
        )?;
    }
    Ok(())
}

/// Logs a line about the transport, in debug mode.
pub(crate) fn log_in_debug<T: Link>(this: &Ref<T>, level: &Obj, text: &str) -> PyRes<()> {
    if is_debug(this)? {
        stdlib::logger()?.method(level, [&Obj::str(text)?, this.obj()])?;
    }
    Ok(())
}

/// Has the selector run `job` when there is something to read, or room to write.
pub(crate) fn watch<T: Transport>(this: &Ref<T>, direction: Direction, job: JobBody) -> PyRes<()> {
    let parts = this.parts();
    let Some(loop_) = parts.loop_.get() else {
        return Ok(());
    };
    loop_.watch(parts.fd.get(), direction, job, this.obj().clone())?;
    parts.watched(direction).set(true);
    Ok(())
}

/// Ends [`watch`].
pub(crate) fn unwatch<T: Transport>(this: &Ref<T>, direction: Direction) -> PyRes<()> {
    let parts = this.parts();
    if parts.watched(direction).replace(false)
        && let Some(loop_) = parts.loop_.get()
    {
        loop_.unwatch(parts.fd.get(), direction)?;
    }
    Ok(())
}

/// `_call_connection_lost`: tells the protocol, then lets go of everything and closes `file`, whatever the protocol did.
/// `before_close` runs between the two.
pub(crate) fn call_connection_lost<T: Transport>(
    this: &Ref<T>,
    file: &Slot,
    exception: Option<&Obj>,
    before_close: impl FnOnce(),
) -> PyRes<()> {
    let Some(open) = file.get() else {
        return Ok(());
    };
    let parts = this.parts();
    let none = Obj::none();
    let told = match parts.protocol.get() {
        Some(protocol) => protocol
            .method(names::connection_lost(), [exception.unwrap_or(&none)])
            .map(drop),
        None => Ok(()),
    };
    finally(told, || {
        unwatch(this, Direction::Read)?;
        unwatch(this, Direction::Write)?;
        before_close();
        let closed = open.method(names::close(), []).map(drop);
        let left = (file.take(), parts.protocol.take(), parts.loop_.take());
        finally(closed, || {
            drop(left);
            Ok(())
        })
    })
}

/// What happens to a transport that nobody closed: a warning, and its file or socket is closed.
pub(crate) fn close_unclosed<T: Transport>(this: &Ref<T>, file: Option<Obj>) {
    let Some(file) = file else {
        return;
    };
    let warned = this
        .obj()
        .repr()
        .and_then(|text| warn_resource(this.obj(), &format!("unclosed transport {text}"), 1));
    if let Err(raised) = warned {
        raised.write_unraisable(Some(this.obj()));
    }
    if let Err(raised) = file.method(names::close(), []) {
        raised.write_unraisable(Some(this.obj()));
    }
}

/// An address of a socket, which `method` asks for; `None` if it has none.
pub(super) fn name_of(sock: &Obj, method: &Obj) -> PyRes {
    match sock.method(method, []) {
        Err(raised) if raised.is(Builtin::Os) => {
            raised.discard();
            Ok(Obj::none())
        }
        answer => answer,
    }
}

/// Does an error mean that the call would have to wait?
pub(crate) fn would_wait(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
    )
}

/// Is this what transports take as data?
pub(crate) fn is_bytes_like(data: &Obj) -> bool {
    data.as_bytes().is_some() || data.is_bytearray() || data.is_memoryview()
}

/// Is it an `OSError`?
pub(crate) fn is_os_error(exception: &Obj) -> bool {
    Builtin::Os.is_class_of(exception)
}

/// The words that the repr of a transport over `file` begins with.
pub(crate) fn first_words<T: Transport>(this: &Ref<T>, file: &Slot) -> Vec<String> {
    let mut words = vec![this.obj().class_name()];
    if file.is_none() {
        words.push(String::from("closed"));
    } else if this.parts().closing.get() {
        words.push(String::from("closing"));
    }
    words.push(format!("fd={}", this.parts().fd.get()));
    words
}

/// The message of `_fatal_error`: the second argument, or `default`.
pub(crate) fn error_message(args: &Args<'_>, default: &str) -> PyRes<String> {
    match args.get(1) {
        Some(message) => message.to_str()?.text(),
        None => Ok(String::from(default)),
    }
}

/// Adds what every transport has in Python's eyes.
pub(crate) fn methods<T: Transport>(builder: ClassBuilder<T>) -> ClassBuilder<T> {
    builder
        .method(
            "get_extra_info(self, name, default=None)",
            "What is known of the transport under a name.",
            |this, args| {
                let found = this.parts().extra.get_or_none().dict_get(args.req(0))?;
                Ok(found.or_else(|| args.get(1).cloned()))
            },
        )
        .method(
            "is_closing(self)",
            "Is the transport closed, or about to be?",
            |this, _| Ok(this.parts().closing.get()),
        )
        .method(
            "set_protocol(self, protocol)",
            "Sets another protocol.",
            |this, args| {
                this.parts().protocol.set(args.req(0).clone());
                Ok(())
            },
        )
        .method("get_protocol(self)", "The protocol.", |this, _| {
            Ok(this.parts().protocol.get())
        })
        .slot_property("_extra", |this| &this.parts().extra)
        .slot_property("_protocol", |this| &this.parts().protocol)
        .getter("_loop", |this| {
            Ok(this.parts().loop_.get().map(Ref::into_obj))
        })
        .getter("_context", |this| Ok(this.parts().context.get()))
        .getter("_closing", |this| Ok(this.parts().closing.get()))
        .getter("_conn_lost", |this| {
            Obj::int(this.parts().conn_lost.get().into())
        })
}

/// Adds what a transport that reads has in Python's eyes.
pub(crate) fn reading_methods<T: Reading>(builder: ClassBuilder<T>) -> ClassBuilder<T> {
    builder
        .method("is_reading(self)", "Does the transport read?", |this, _| {
            Ok(is_reading(this))
        })
        .method("pause_reading(self)", "Stops to read.", |this, _| {
            if !is_reading(this) {
                return Ok(());
            }
            this.paused().set(true);
            unwatch(this, Direction::Read)?;
            log_in_debug(this, names::debug(), "%r pauses reading")
        })
        .method("resume_reading(self)", "Reads again.", |this, _| {
            if this.parts().closing.get() || !this.paused().get() {
                return Ok(());
            }
            this.paused().set(false);
            start_reading(this)?;
            log_in_debug(this, names::debug(), "%r resumes reading")
        })
        .method("_start_reading(self)", "Begins to read.", |this, _| {
            start_reading(this)
        })
        .getter("_paused", |this| Ok(this.paused().get()))
}
