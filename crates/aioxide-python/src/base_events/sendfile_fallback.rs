//! Sending files block by block, where the kernel does not copy. Answers `_sock_sendfile_fallback`, `_sendfile_fallback`
//! and `_SendfileFallbackProtocol` of `asyncio/base_events.py`.
//!
//! The executor reads a block, then it is sent: through `sock_sendall`, or into a transport. The transport's protocol is
//! swapped out meanwhile for one that waits while the transport asks not to be written to, and that passes the end of the
//! connection on.
//!
//! Differs: asyncio hands the transport a view of its one buffer, which the next block overwrites although the transport
//! may not have sent it yet; here each block is the transport's to keep. And what the protocol is told of the transport's
//! flow control is always what it does not know yet.

use std::cell::Cell;
use std::mem;

use crate::coroutines::{Coroutine, Delegate, coroutine};
use crate::events::EventLoop;
use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent,
    Slot, Visit, finally,
};
use crate::waiter::{Waiter, exception_of, is_cancelled, is_done, set_exception, set_result};
use crate::{names, stdlib};

use super::sock_calls::part;

/// The size of a block for transports.
const TRANSPORT_BLOCK: i64 = 16384;

/// `_sock_sendfile_fallback`.
pub(super) fn through_socket(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    let machine = Copying::new(this, args, None);
    coroutine("BaseEventLoop._sock_sendfile_fallback", machine)
}

/// `_sendfile_fallback`.
pub(super) fn through_transport(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    let machine = Copying::new(this, args, Some(TRANSPORT_BLOCK));
    coroutine("BaseEventLoop._sendfile_fallback", machine)
}

/// The body of either method.
struct Copying {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The socket or the transport.
    target: Obj,
    /// What the transport's protocol is, meanwhile; none for a socket.
    protocol: Option<Ref<FallbackProtocol>>,
    /// The file.
    file: Obj,
    /// Where in the file to begin.
    offset: Obj,
    /// How many bytes to send; all if `None` or zero.
    count: Obj,
    /// The most that is read at once; for a socket, asyncio's constant says it.
    block: Option<i64>,
    /// Where blocks are read to.
    buffer: Option<Obj>,
    /// How many bytes were sent.
    sent: i64,
    /// How many bytes the current block has.
    read: i64,
    /// How far it is.
    step: Step,
}

/// How far it is.
enum Step {
    /// Not begun.
    Start,
    /// The executor reads a block.
    Reading {
        /// The wait for it.
        delegate: Delegate,
        /// The part of the buffer that it reads to.
        view: Obj,
    },
    /// A block is sent.
    Sending(Delegate),
    /// A block is given to the transport, which asks to wait.
    Draining(Waiter),
    /// It is over.
    Over,
}

impl Copying {
    /// Nothing is done yet.
    fn new(this: &Ref<EventLoop>, args: &Args<'_>, block: Option<i64>) -> Self {
        Self {
            loop_: this.clone(),
            target: args.req(0).clone(),
            protocol: None,
            file: args.req(1).clone(),
            offset: args.req(2).clone(),
            count: args.req(3).clone(),
            block,
            buffer: None,
            sent: 0,
            read: 0,
            step: Step::Start,
        }
    }

    /// Has the file a position?
    fn seek(&self, position: &Obj) -> PyRes<()> {
        match self.file.getattr_opt(names::seek())? {
            Some(seek) => seek.call([position]).map(drop),
            None => Ok(()),
        }
    }

    /// The bytes that are still to be sent, at most a block.
    fn wanted(&self, block: i64) -> PyRes<i64> {
        if !self.count.truth()? {
            return Ok(block);
        }
        match self.count.as_i64() {
            Ok(count) => Ok(block.min(count - self.sent)),
            Err(raised) if raised.is(Builtin::Overflow) => {
                raised.discard();
                Ok(block)
            }
            Err(raised) => Err(raised),
        }
    }

    /// Takes the transport over and reads the first block.
    fn start(&mut self) -> PyRes<Sent> {
        self.seek(&self.offset)?;
        let block = match self.block {
            Some(block) => block,
            None => stdlib::constants()?
                .getattr_str("SENDFILE_FALLBACK_READBUFFER_SIZE")?
                .as_i64()?,
        };
        let block = self.wanted(block)?;
        self.buffer = Some(stdlib::bytearray()?.call([&Obj::int(block)?])?);
        if self.block.is_some() {
            self.protocol = Some(FallbackProtocol::take_over(&self.target)?);
        }
        self.block = Some(block);
        let sent = self.read_block();
        self.go_on(sent)
    }

    /// Has the executor read a block.
    fn read_block(&mut self) -> PyRes<Sent> {
        loop {
            let wanted = self.wanted(self.block.unwrap_or(0))?;
            if wanted <= 0 {
                return Ok(Sent::Return(Obj::int(self.sent)?));
            }
            self.block = Some(wanted);
            let buffer = self.buffer.clone().unwrap_or_else(Obj::none);
            let view = stdlib::memoryview()?.call([&buffer])?;
            let view = part(&view, 0, usize::try_from(wanted).ok())?;
            let readinto = self.file.getattr(names::readinto())?;
            let reading = self
                .loop_
                .obj()
                .method(names::run_in_executor(), [&Obj::none(), &readinto, &view])?;
            let delegate = Delegate::new(&reading)?;
            let sent = match delegate.resume(Resume::Send)? {
                Sent::Yield(value) => {
                    self.step = Step::Reading { delegate, view };
                    return Ok(Sent::Yield(value));
                }
                Sent::Return(read) => self.send_block(&read, &view)?,
            };
            if let Some(sent) = sent {
                return Ok(sent);
            }
        }
    }

    /// Sends what was read: a wait, the end, or nothing if the next block can be read.
    fn send_block(&mut self, read: &Obj, view: &Obj) -> PyRes<Option<Sent>> {
        if !read.truth()? {
            return Ok(Some(Sent::Return(Obj::int(self.sent)?)));
        }
        self.read = read.as_i64()?;
        let block = part(view, 0, usize::try_from(self.read).ok())?;
        let Some(protocol) = self.protocol.clone() else {
            let sending = self
                .loop_
                .obj()
                .method(names::sock_sendall(), [&self.target, &block])?;
            let delegate = Delegate::new(&sending)?;
            if let Sent::Yield(value) = delegate.resume(Resume::Send)? {
                self.step = Step::Sending(delegate);
                return Ok(Some(Sent::Yield(value)));
            }
            self.sent += self.read;
            return Ok(None);
        };
        let block = stdlib::bytes()?.call([&block])?;
        self.target.method(names::write(), [&block])?;
        // To look has a transport of ours send it now: who has to wait is to hear of it before the next block, which may
        // come within the same job.
        self.target.getattr(names::protocol_paused())?;
        if self.target.method(names::is_closing(), [])?.truth()? {
            return Err(Builtin::Connection.raise("Connection closed by peer"));
        }
        if let Some(future) = protocol.ready.get() {
            let mut waiter = Waiter::on(future);
            if let Sent::Yield(value) = waiter.start()? {
                self.step = Step::Draining(waiter);
                return Ok(Some(Sent::Yield(value)));
            }
        }
        self.sent += self.read;
        Ok(None)
    }

    /// A block is sent, or is to be waited for.
    fn block_sent(&mut self, sent: Sent, step: Step) -> PyRes<Sent> {
        match sent {
            Sent::Yield(value) => {
                self.step = step;
                Ok(Sent::Yield(value))
            }
            Sent::Return(_) => {
                self.sent += self.read;
                self.read_block()
            }
        }
    }

    /// A block is read, or is to be waited for.
    fn block_read(&mut self, sent: Sent, delegate: Delegate, view: Obj) -> PyRes<Sent> {
        match sent {
            Sent::Yield(value) => {
                self.step = Step::Reading { delegate, view };
                Ok(Sent::Yield(value))
            }
            Sent::Return(read) => match self.send_block(&read, &view)? {
                Some(sent) => Ok(sent),
                None => self.read_block(),
            },
        }
    }

    /// Waits on, or ends.
    fn go_on(&mut self, outcome: PyRes<Sent>) -> PyRes<Sent> {
        if let Ok(Sent::Yield(_)) = outcome {
            return outcome;
        }
        self.step = Step::Over;
        self.buffer = None;
        let outcome = finally(outcome, || {
            if self.sent == 0 {
                return Ok(());
            }
            self.seek(&self.offset.add(&Obj::int(self.sent)?)?)
        });
        let protocol = self.protocol.take();
        finally(outcome, || {
            protocol.map_or(Ok(()), |protocol| protocol.restore())
        })
    }
}

impl Machine for Copying {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let outcome = match mem::replace(&mut self.step, Step::Over) {
            Step::Start => return self.start(),
            Step::Reading { delegate, view } => match delegate.resume(input) {
                Ok(sent) => self.block_read(sent, delegate, view),
                Err(raised) => Err(raised),
            },
            Step::Sending(delegate) => match delegate.resume(input) {
                Ok(sent) => self.block_sent(sent, Step::Sending(delegate)),
                Err(raised) => Err(raised),
            },
            Step::Draining(mut waiter) => match waiter.resume(input) {
                Ok(sent) => self.block_sent(sent, Step::Draining(waiter)),
                Err(raised) => Err(raised),
            },
            Step::Over => {
                return Err(Raised::runtime_error(
                    "cannot reuse already awaited coroutine",
                ));
            }
        };
        self.go_on(outcome)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for object in [&self.target, &self.file, &self.offset, &self.count] {
            visit.obj(object);
        }
        if let Some(protocol) = &self.protocol {
            visit.native(protocol);
        }
        if let Some(buffer) = &self.buffer {
            visit.obj(buffer);
        }
        match &self.step {
            Step::Reading { delegate, view } => {
                visit.obj(delegate.awaited());
                visit.obj(view);
            }
            Step::Sending(delegate) => visit.obj(delegate.awaited()),
            Step::Draining(waiter) => waiter.traverse(visit),
            Step::Start | Step::Over => {}
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.step {
            Step::Reading { delegate, .. } | Step::Sending(delegate) => {
                Some(delegate.awaited().clone())
            }
            Step::Draining(waiter) => Some(waiter.future().clone()),
            Step::Start | Step::Over => None,
        }
    }
}

/// A transport's protocol while a file is sent through it.
struct FallbackProtocol {
    /// The transport.
    transport: Slot,
    /// Its own protocol.
    protocol: Slot,
    /// Did the transport read before?
    was_reading: Cell<bool>,
    /// Does the transport's own protocol know that it must not write?
    told_to_pause: Cell<bool>,
    /// What is waited for while the transport asks not to be written to.
    ready: Slot,
}

/// Where the class is kept.
static CLASS: Class<FallbackProtocol> = Class::new();

impl Native for FallbackProtocol {
    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            transport: Slot::empty(),
            protocol: Slot::empty(),
            was_reading: Cell::new(false),
            told_to_pause: Cell::new(false),
            ready: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.transport);
        visit.slot(&self.protocol);
        visit.slot(&self.ready);
    }

    fn clear(&self) {
        self.transport.clear();
        self.protocol.clear();
        self.ready.clear();
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    let reading = |_: &Ref<FallbackProtocol>, _: &Args<'_>| -> PyRes<()> {
        Err(Raised::runtime_error(
            "Invalid state: reading should be paused",
        ))
    };
    ClassBuilder::<FallbackProtocol>::new(
        "aioxide",
        "_SendfileFallbackProtocol",
        "The protocol of a transport while a file is sent through it.",
    )
    .base(stdlib::protocol()?.clone())
    .sealed()
    .method(
        "connection_made(self, transport)",
        "Never called.",
        |_, _| -> PyRes<()> {
            Err(Raised::runtime_error(
                "Invalid state: connection should have been established already.",
            ))
        },
    )
    .method(
        "connection_lost(self, exc)",
        "Ends the wait, and tells the transport's own protocol.",
        |this, args| this.connection_lost(args.req(0)),
    )
    .method(
        "pause_writing(self)",
        "The next block has to wait.",
        |this, _| this.pause_writing(),
    )
    .method("resume_writing(self)", "Ends the wait.", |this, _| {
        this.resume_writing()
    })
    .method("data_received(self, data)", "Never called.", reading)
    .method("eof_received(self)", "Never called.", reading)
    .build()
    .map(drop)
}

impl FallbackProtocol {
    /// Takes the place of a transport's protocol, and stops it from reading.
    fn take_over(transport: &Obj) -> PyRes<Ref<Self>> {
        // Other transports are told apart by what is needed of them.
        if !transport.isinstance(stdlib::transport_flow_control()?)?
            && transport.getattr_opt(names::protocol_paused())?.is_none()
        {
            return Err(Raised::type_error(
                "transport should be _FlowControlMixin instance",
            ));
        }
        let this = Ref::new(Self {
            transport: Slot::new(transport.clone()),
            protocol: Slot::new(transport.method(names::get_protocol(), [])?),
            was_reading: Cell::new(transport.method(names::is_reading(), [])?.truth()?),
            told_to_pause: Cell::new(transport.getattr(names::protocol_paused())?.truth()?),
            ready: Slot::empty(),
        })?;
        transport.method(names::pause_reading(), [])?;
        transport.method(names::set_protocol(), [this.obj()])?;
        if this.told_to_pause.get() {
            this.pause_writing()?;
        }
        Ok(this)
    }
}

impl Ref<FallbackProtocol> {
    /// The next block has to wait.
    fn pause_writing(&self) -> PyRes<()> {
        if self.ready.is_none()
            && let Some(transport) = self.transport.get()
        {
            let loop_ = transport.getattr(names::private_loop())?;
            self.ready.set(loop_.method(names::create_future(), [])?);
        }
        Ok(())
    }

    /// Ends the wait.
    fn resume_writing(&self) -> PyRes<()> {
        match self.ready.take() {
            Some(future) if !is_done(&future)? => set_result(&future, Obj::bool(false)),
            _ => Ok(()),
        }
    }

    /// Ends the wait, and tells the transport's own protocol.
    fn connection_lost(&self, exc: &Obj) -> PyRes<()> {
        if let Some(future) = self.ready.get()
            && !is_done(&future)?
        {
            // The peer does not close while it is owed a part of the file, unless something is wrong.
            let error = if exc.is_none() {
                Builtin::Connection.instance("Connection is closed by peer")?
            } else {
                exc.clone()
            };
            set_exception(&future, &error)?;
        }
        let protocol = self.protocol.get_or_none();
        protocol.method(names::connection_lost(), [exc]).map(drop)
    }

    /// Gives the transport its own protocol back, and tells that what it missed.
    fn restore(&self) -> PyRes<()> {
        let (transport, protocol) = (self.transport.get_or_none(), self.protocol.get_or_none());
        transport.method(names::set_protocol(), [&protocol])?;
        if self.was_reading.get() {
            transport.method(names::resume_reading(), [])?;
        }
        if let Some(future) = self.ready.take()
            && !future.method(names::cancel(), [])?.truth()?
            && !is_cancelled(&future)?
        {
            // The connection was lost while nobody waited; that was told otherwise.
            exception_of(&future)?;
        }
        let paused = transport.getattr(names::protocol_paused())?.truth()?
            && !transport.method(names::is_closing(), [])?.truth()?;
        match (self.told_to_pause.get(), paused) {
            (true, false) => protocol.method(names::resume_writing(), []).map(drop),
            (false, true) => protocol.method(names::pause_writing(), []).map(drop),
            _ => Ok(()),
        }
    }
}
