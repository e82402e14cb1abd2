//! Waiting until a socket can be read or written: the handles of the `sock_*` methods.
//!
//! In asyncio a method that would block makes a future and registers one of its private callbacks, which tries again
//! whenever the descriptor is ready. Here the registration is a [`SocketWait`]: a handle without a Python callback, whose
//! job makes the next attempt of an [`Operation`]. Whoever registers the descriptor for something else cancels it, as any
//! handle. The waiting coroutine takes the registration back however its wait ends.

use std::cell::Cell;

use crate::events::{Direction, EventLoop, Handle, created_at, leaves_the_loop, report_error_in};
use crate::ffi::{
    Class, ClassBuilder, Extends, Native, Obj, PyRes, Ref, Resume, Sent, Slot, Visit,
    copy_current_context, finally, in_context,
};
use crate::names;
use crate::waiter::{Waiter, is_done, set_exception, set_result};

use super::descriptors::ensure_fd_no_transport;

/// What is to be done with a socket, once or in several attempts.
pub(super) trait Operation: 'static {
    /// What asyncio calls the callback that makes another attempt.
    const NAME: &'static str;

    /// What the descriptor has to be ready for.
    const DIRECTION: Direction;

    /// What comes before the first attempt.
    fn prepare(&self) -> PyRes<()> {
        Ok(())
    }

    /// The first attempt: the result, or nothing if it would block.
    fn begin(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        self.attempt(sock)
    }

    /// Another attempt, when the descriptor is ready.
    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>>;

    /// Nobody waits for the result any more.
    fn abandon(&self) -> PyRes<()> {
        Ok(())
    }

    /// An attempt gave the future its outcome, but whoever waited was cancelled before it could take it.
    fn undelivered(&self, _future: &Obj) -> PyRes<()> {
        Ok(())
    }

    /// Shows what is held to the collector.
    fn traverse(&self, visit: &mut Visit<'_>);

    /// Gives up what is held.
    fn clear(&self);
}

/// The part of an [`Operation`] that a wait needs, whatever operation it is.
trait Attempts {
    /// See [`Operation::NAME`].
    fn name(&self) -> &'static str;
    /// See [`Operation::attempt`].
    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>>;
    /// See [`Operation::abandon`].
    fn abandon(&self) -> PyRes<()>;
    /// See [`Operation::undelivered`].
    fn undelivered(&self, future: &Obj) -> PyRes<()>;
    /// See [`Operation::traverse`].
    fn traverse(&self, visit: &mut Visit<'_>);
    /// See [`Operation::clear`].
    fn clear(&self);
}

impl<O: Operation> Attempts for O {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        Operation::attempt(self, sock)
    }

    fn abandon(&self) -> PyRes<()> {
        Operation::abandon(self)
    }

    fn undelivered(&self, future: &Obj) -> PyRes<()> {
        Operation::undelivered(self, future)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        Operation::traverse(self, visit);
    }

    fn clear(&self) {
        Operation::clear(self);
    }
}

/// The handle of an operation that waits.
#[repr(C)]
pub(super) struct SocketWait {
    /// Context, loop, and whether it was cancelled.
    handle: Handle,
    /// What the coroutine waits for.
    future: Slot,
    /// The socket.
    sock: Slot,
    /// What is to be done; none for an object that was never filled.
    operation: Option<Box<dyn Attempts>>,
    /// The descriptor that is registered.
    fd: i32,
    /// What it is registered for.
    direction: Direction,
    /// Is it registered as far as this wait knows?
    registered: Cell<bool>,
}

/// Where the class is kept.
static CLASS: Class<SocketWait> = Class::new();

impl Native for SocketWait {
    const FREELIST: usize = 256;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            handle: Handle::empty(),
            future: Slot::empty(),
            sock: Slot::empty(),
            operation: None,
            fd: -1,
            direction: Direction::Read,
            registered: Cell::new(false),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.handle.traverse(visit);
        visit.slot(&self.future);
        visit.slot(&self.sock);
        if let Some(operation) = &self.operation {
            operation.traverse(visit);
        }
    }

    fn clear(&self) {
        self.forget();
        self.handle.clear();
    }
}

impl Extends<Handle> for SocketWait {
    fn base(&self) -> &Handle {
        &self.handle
    }
}

impl SocketWait {
    /// Gives up socket, future and what the operation holds.
    fn forget(&self) {
        self.future.clear();
        self.sock.clear();
        if let Some(operation) = &self.operation {
            operation.clear();
        }
    }
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    ClassBuilder::<SocketWait>::new(
        "aioxide",
        "socket_wait",
        "The handle of a `sock_*` method that waits.",
    )
    .base(Handle::class().object())
    .sealed()
    .repr(Ref::repr_text)
    .build()
    .map(drop)
}

/// What a coroutine holds while its operation waits.
pub(super) struct Wait {
    /// The wait for the future.
    waiter: Waiter,
    /// The registration.
    handle: Ref<SocketWait>,
}

impl Wait {
    /// Registers an operation that would have blocked.
    pub(super) fn register<O: Operation>(
        loop_: &Ref<EventLoop>,
        sock: &Obj,
        operation: O,
    ) -> PyRes<Self> {
        let waiter = Waiter::create(loop_.obj())?;
        let fileno = sock.method(names::fileno(), [])?;
        let fd = ensure_fd_no_transport(loop_, &fileno)?;
        let handle = Ref::new(SocketWait {
            handle: Handle::native(copy_current_context()?, loop_.obj()),
            future: Slot::new(waiter.future().clone()),
            sock: Slot::new(sock.clone()),
            operation: Some(Box::new(operation)),
            fd,
            direction: O::DIRECTION,
            registered: Cell::new(false),
        })?;
        if loop_.debug.get() {
            handle.upcast::<Handle>().record_source()?;
        }
        handle.register(loop_)?;
        Ok(Self { waiter, handle })
    }

    /// Begins to wait.
    pub(super) fn start(&mut self, loop_: &Ref<EventLoop>) -> PyRes<Sent> {
        let sent = self.waiter.start();
        self.go_on(loop_, sent)
    }

    /// Goes on after the coroutine was resumed.
    pub(super) fn resume(&mut self, loop_: &Ref<EventLoop>, input: Resume) -> PyRes<Sent> {
        let sent = self.waiter.resume(input);
        self.go_on(loop_, sent)
    }

    /// Waits on, or ends the registration.
    fn go_on(&mut self, loop_: &Ref<EventLoop>, sent: PyRes<Sent>) -> PyRes<Sent> {
        match sent {
            Ok(Sent::Yield(_)) => sent,
            Ok(_) => finally(sent, || self.handle.end(loop_)),
            Err(_) => finally(sent, || {
                let ended = self.handle.end(loop_);
                finally(ended, || self.handle.undelivered(self.waiter.future()))
            }),
        }
    }

    /// What is waited for.
    pub(super) fn future(&self) -> &Obj {
        self.waiter.future()
    }

    /// Shows what is held to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit<'_>) {
        self.waiter.traverse(visit);
        visit.native(&self.handle);
    }
}

impl Ref<SocketWait> {
    /// The repr: that of the handle which asyncio would have registered.
    fn repr_text(&self) -> PyRes<String> {
        let mut words = vec![String::from("Handle")];
        if self.handle.is_cancelled() {
            words.push(String::from("cancelled"));
        }
        words.extend(self.source());
        words.extend(created_at(self.handle.source().as_ref())?);
        Ok(format!("<{}>", words.join(" ")))
    }

    /// What is called when the descriptor is ready, in asyncio's words.
    fn source(&self) -> Option<String> {
        let operation = self.operation.as_ref()?;
        Some(format!("{}()", operation.name()))
    }

    /// Has attempts made while the descriptor is ready; what watched it before does so no more.
    fn register(&self, loop_: &Ref<EventLoop>) -> PyRes<()> {
        loop_.watch(self.fd, self.direction, run, self.obj().clone())?;
        self.registered.set(true);
        let handle = Some(self.upcast::<Handle>().clone());
        let before = {
            let mut descriptors = loop_.descriptors.borrow_mut();
            let watched = descriptors.entry(self.fd).or_default();
            match self.direction {
                Direction::Read => std::mem::replace(&mut watched.reader, handle),
                Direction::Write => std::mem::replace(&mut watched.writer, handle),
            }
        };
        drop(before);
        Ok(())
    }

    /// Takes the registration back, unless something else has taken its place.
    fn unregister(&self, loop_: &Ref<EventLoop>) -> PyRes<()> {
        if self.registered.replace(false) && !self.handle.is_cancelled() {
            loop_.suspend_watch(self.fd, self.direction)?;
        }
        Ok(())
    }

    /// The coroutine waits no longer.
    fn end(&self, loop_: &Ref<EventLoop>) -> PyRes<()> {
        let abandoned = self.future.is_some();
        let unregistered = self.unregister(loop_);
        let outcome = finally(unregistered, || match &self.operation {
            Some(operation) if abandoned => operation.abandon(),
            _ => Ok(()),
        });
        self.forget();
        outcome
    }

    /// The coroutine ends with an error; maybe the future has a result nevertheless.
    fn undelivered(&self, future: &Obj) -> PyRes<()> {
        match &self.operation {
            Some(operation) if is_done(future)? => operation.undelivered(future),
            _ => Ok(()),
        }
    }

    /// Makes an attempt, and gives the future its outcome if there is one.
    fn attempt(&self, loop_: &Ref<EventLoop>) -> PyRes<()> {
        let (Some(future), Some(sock), Some(operation)) =
            (self.future.get(), self.sock.get(), &self.operation)
        else {
            return Ok(());
        };
        if self.handle.is_cancelled() || is_done(&future)? {
            return Ok(());
        }
        let outcome = match self.handle.context() {
            Some(context) => in_context(&context, || operation.attempt(&sock)),
            None => operation.attempt(&sock),
        };
        let outcome = match outcome {
            Ok(None) => return Ok(()),
            Ok(Some(result)) => Ok(result),
            Err(raised) if leaves_the_loop(&raised) => return Err(raised),
            Err(raised) => Err(raised.take()),
        };
        self.unregister(loop_)?;
        self.forget();
        // The socket's own methods may be Python code, which may have cancelled the future.
        if is_done(&future)? {
            return Ok(());
        }
        match outcome {
            Ok(result) => set_result(&future, result),
            Err(exception) => set_exception(&future, &exception),
        }
    }
}

/// The job of a wait.
fn run(loop_: &Ref<EventLoop>, object: Obj) -> PyRes<()> {
    let Some(wait) = CLASS.cast(&object) else {
        return Ok(());
    };
    match wait.attempt(loop_) {
        Err(raised) if !leaves_the_loop(&raised) => report_error_in(
            &wait.source().unwrap_or_default(),
            &raised.take(),
            loop_.obj(),
            wait.obj(),
            wait.handle.source().as_ref(),
        ),
        outcome => outcome,
    }
}
