//! Sending files. Answers `sock_sendfile` of `asyncio/unix_events.py` and `sendfile` of `asyncio/base_events.py`.
//!
//! The kernel copies from file to socket where it can; where it cannot, [`sendfile_fallback`](super::sendfile_fallback)
//! reads blocks in the executor and sends them. The steps between are methods of their own, as in asyncio, so that they
//! can be replaced.
//!
//! Whenever bytes went out, the file's position is left behind the last of them. Differs: after a cancellation, too.

use std::cell::Cell;
use std::mem;

use aioxide_engine::socket::send_file;

use crate::coroutines::{Coroutine, Delegate, coroutine};
use crate::events::{Direction, EventLoop};
use crate::ffi::{
    Args, Builtin, ClassBuilder, Machine, Obj, PyRes, Raised, Ref, Resume, Sent, Slot, Visit,
    check_signals, finally, os_error_instance, preserving_exception, without_gil,
};
use crate::{names, stdlib};

use super::sendfile_fallback;
use super::sock::{refuse_blocking, refuse_tls};
use super::sock_wait::{Operation, Wait};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            "sock_sendfile(self, sock, file, offset=0, count=None, *, fallback=True)",
            "Sends a file through a socket. Returns the number of bytes.",
            |this, args| attempts(this, args, "BaseEventLoop.sock_sendfile", &THROUGH_SOCKET),
        )
        .coroutine(
            "_sock_sendfile_native(self, sock, file, offset, count)",
            "Sends a file through a socket, copied by the kernel.",
            |this, args| {
                let machine = SocketNative {
                    loop_: this.clone(),
                    step: SocketStep::Start([0, 1, 2, 3].map(|index| args.req(index).clone())),
                };
                coroutine("BaseEventLoop._sock_sendfile_native", machine)
            },
        )
        .coroutine(
            "_sock_sendfile_fallback(self, sock, file, offset, count)",
            "Sends a file through a socket, block by block.",
            sendfile_fallback::through_socket,
        )
        .method(
            "_check_sendfile_params(self, sock, file, offset, count)",
            "Refuses what cannot be sent.",
            |_, args| check_parameters(args.req(0), args.req(1), args.req(2), args.req(3)),
        )
        .coroutine(
            "sendfile(self, transport, file, offset=0, count=None, *, fallback=True)",
            "Sends a file through a transport. Returns the number of bytes.",
            |this, args| attempts(this, args, "BaseEventLoop.sendfile", &THROUGH_TRANSPORT),
        )
        .coroutine(
            "_sendfile_native(self, transp, file, offset, count)",
            "Sends a file through a transport's socket, once it has sent what it was given before.",
            |this, args| {
                let machine = TransportNative {
                    loop_: this.clone(),
                    arguments: [0, 1, 2, 3].map(|index| args.req(index).clone()),
                    resume_reading: false,
                    step: TransportStep::Start,
                };
                coroutine("BaseEventLoop._sendfile_native", machine)
            },
        )
        .coroutine(
            "_sendfile_fallback(self, transp, file, offset, count)",
            "Sends a file through a transport, block by block.",
            sendfile_fallback::through_transport,
        )
}

/// What `sock_sendfile` and `sendfile` have in common: an attempt of the native way, then the fallback.
struct Attempts {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// Socket or transport, file, offset, count.
    arguments: [Obj; 4],
    /// The argument `fallback`.
    allowed: Obj,
    /// What differs between the two.
    way: &'static Way,
    /// How far it is.
    step: AttemptsStep,
}

/// What differs between `sock_sendfile` and `sendfile`.
struct Way {
    /// Checks the arguments. Is there a native way for them?
    check: fn(&Attempts) -> PyRes<bool>,
    /// The name of the native method.
    native: fn() -> &'static Obj,
    /// The name of the fallback.
    fallback: fn() -> &'static Obj,
}

/// `sock_sendfile`.
static THROUGH_SOCKET: Way = Way {
    check: check_for_socket,
    native: names::private_sock_sendfile_native,
    fallback: names::private_sock_sendfile_fallback,
};

/// `sendfile`.
static THROUGH_TRANSPORT: Way = Way {
    check: check_for_transport,
    native: names::private_sendfile_native,
    fallback: names::private_sendfile_fallback,
};

/// How far [`Attempts`] are.
enum AttemptsStep {
    /// Not begun.
    Start,
    /// The kernel copies.
    Native(Delegate),
    /// The fallback sends.
    Fallback(Delegate),
    /// It is over.
    Over,
}

/// The coroutine of [`Attempts`].
fn attempts(
    this: &Ref<EventLoop>,
    args: &Args<'_>,
    qualname: &'static str,
    way: &'static Way,
) -> PyRes<Ref<Coroutine>> {
    let offset = args
        .get(2)
        .map_or_else(|| Obj::int(0), |given| Ok(given.clone()))?;
    let machine = Attempts {
        loop_: this.clone(),
        arguments: [
            args.req(0).clone(),
            args.req(1).clone(),
            offset,
            args.get(3).cloned().unwrap_or_else(Obj::none),
        ],
        allowed: args.get(4).cloned().unwrap_or_else(|| Obj::bool(true)),
        way,
        step: AttemptsStep::Start,
    };
    coroutine(qualname, machine)
}

/// The checks of `sock_sendfile`.
fn check_for_socket(this: &Attempts) -> PyRes<bool> {
    let [sock, file, offset, count] = &this.arguments;
    refuse_blocking(&this.loop_, sock)?;
    refuse_tls(sock)?;
    check_parameters(sock, file, offset, count)?;
    Ok(true)
}

/// The checks of `sendfile`.
fn check_for_transport(this: &Attempts) -> PyRes<bool> {
    let transport = &this.arguments[0];
    if transport.method(names::is_closing(), [])?.truth()? {
        return Err(Raised::runtime_error("Transport is closing"));
    }
    let mode = transport
        .getattr_opt(names::sendfile_compatible())?
        .map_or_else(|| Ok(stdlib::sendfile_unsupported()?.clone()), Ok)?;
    if mode.is(stdlib::sendfile_unsupported()?) {
        return Err(Raised::runtime_error(&format!(
            "sendfile is not supported for transport {}",
            transport.repr()?
        )));
    }
    if mode.is(stdlib::sendfile_try_native()?) {
        return Ok(true);
    }
    if !this.allowed.truth()? {
        return Err(Raised::runtime_error(&format!(
            "fallback is disabled and native sendfile is not supported for transport {}",
            transport.repr()?
        )));
    }
    Ok(false)
}

/// `_check_sendfile_params`.
fn check_parameters(sock: &Obj, file: &Obj, offset: &Obj, count: &Obj) -> PyRes<()> {
    if let Some(mode) = file.getattr_opt(names::mode())?
        && !mode.contains(&Obj::str("b")?)?
    {
        return Err(Raised::value_error("file should be opened in binary mode"));
    }
    if !sock
        .getattr(names::type_())?
        .equals(stdlib::sock_stream()?)?
    {
        return Err(Raised::value_error(
            "only SOCK_STREAM type sockets are supported",
        ));
    }
    if !count.is_none() {
        let text = || -> PyRes<String> {
            Ok(format!(
                "count must be a positive integer (got {})",
                count.repr()?
            ))
        };
        if !count.is_int() {
            return Err(Raised::type_error(&text()?));
        }
        if count.less_or_equal(&Obj::int(0)?)? {
            return Err(Raised::value_error(&text()?));
        }
    }
    let text = || -> PyRes<String> {
        Ok(format!(
            "offset must be a non-negative integer (got {})",
            offset.repr()?
        ))
    };
    if !offset.is_int() {
        return Err(Raised::type_error(&text()?));
    }
    if offset.less_than(&Obj::int(0)?)? {
        return Err(Raised::value_error(&text()?));
    }
    Ok(())
}

impl Attempts {
    /// Calls a method of the loop with the arguments, to await what it returns.
    fn call(&self, name: &Obj) -> PyRes<Delegate> {
        let [target, file, offset, count] = &self.arguments;
        let awaitable = self
            .loop_
            .obj()
            .method(name, [target, file, offset, count])?;
        Delegate::new(&awaitable)
    }

    /// The first step.
    fn start(&mut self) -> PyRes<Sent> {
        if !(self.way.check)(self)? {
            return self.start_fallback();
        }
        match self.call((self.way.native)()) {
            Ok(delegate) => {
                let outcome = delegate.resume(Resume::Send);
                self.native(outcome, delegate)
            }
            // A method that is no coroutine function raises when it is called.
            Err(raised) => self.unless_available(raised),
        }
    }

    /// Goes on with the native way, or with the fallback if there is none.
    fn native(&mut self, outcome: PyRes<Sent>, delegate: Delegate) -> PyRes<Sent> {
        match outcome {
            Ok(sent) => {
                if matches!(sent, Sent::Yield(_)) {
                    self.step = AttemptsStep::Native(delegate);
                }
                Ok(sent)
            }
            Err(raised) => self.unless_available(raised),
        }
    }

    /// Falls back if the error is that there is no native way.
    fn unless_available(&mut self, raised: Raised) -> PyRes<Sent> {
        if !raised.matches(stdlib::sendfile_not_available_error()?) {
            return Err(raised);
        }
        let exception = raised.take();
        if !self.allowed.truth()? {
            return Err(Raised::restore(exception));
        }
        drop(exception);
        self.start_fallback()
    }

    /// The fallback's first step.
    fn start_fallback(&mut self) -> PyRes<Sent> {
        let delegate = self.call((self.way.fallback)())?;
        let sent = delegate.resume(Resume::Send)?;
        Ok(self.falling_back(sent, delegate))
    }

    /// Waits for the fallback, or returns.
    fn falling_back(&mut self, sent: Sent, delegate: Delegate) -> Sent {
        if matches!(sent, Sent::Yield(_)) {
            self.step = AttemptsStep::Fallback(delegate);
        }
        sent
    }
}

impl Machine for Attempts {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.step, AttemptsStep::Over) {
            AttemptsStep::Start => self.start(),
            AttemptsStep::Native(delegate) => {
                let outcome = delegate.resume(input);
                self.native(outcome, delegate)
            }
            AttemptsStep::Fallback(delegate) => {
                let sent = delegate.resume(input)?;
                Ok(self.falling_back(sent, delegate))
            }
            AttemptsStep::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for argument in &self.arguments {
            visit.obj(argument);
        }
        visit.obj(&self.allowed);
        if let AttemptsStep::Native(delegate) | AttemptsStep::Fallback(delegate) = &self.step {
            visit.obj(delegate.awaited());
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.step {
            AttemptsStep::Native(delegate) | AttemptsStep::Fallback(delegate) => {
                Some(delegate.awaited().clone())
            }
            AttemptsStep::Start | AttemptsStep::Over => None,
        }
    }
}

/// The most that one system call is asked for, as asyncio limits it for small address spaces.
const MOST: usize = (isize::MAX / 2 + 1).cast_unsigned();

/// A file on its way to a socket.
struct Transfer {
    /// The file.
    file: Slot,
    /// Where the next byte is.
    offset: Cell<u64>,
    /// How many bytes were sent.
    sent: Cell<u64>,
    /// How many are to be sent; all if not given.
    count: Option<u64>,
    /// The file's size at the beginning.
    size: u64,
    /// Was the first attempt made?
    begun: Cell<bool>,
    /// Does the file's position say what was sent?
    positioned: Cell<bool>,
}

impl Transfer {
    /// Leaves the file's position behind the last byte that was sent.
    fn update_position(&self) -> PyRes<()> {
        self.positioned.set(true);
        let fd = self.file.get_or_none().method(names::fileno(), [])?;
        let offset = Obj::int(self.offset.get().cast_signed())?;
        stdlib::lseek()?
            .call([&fd, &offset, &Obj::int(0)?])
            .map(drop)
    }

    /// It is over: the number of bytes.
    fn finish(&self) -> PyRes<Option<Obj>> {
        self.update_position()?;
        Obj::int(self.sent.get().cast_signed()).map(Some)
    }

    /// The system call failed: the error that the caller gets.
    fn fail(&self, error: &std::io::Error) -> PyRes<Raised> {
        self.update_position()?;
        if self.sent.get() == 0 {
            // The file may be of a kind that the kernel does not copy from.
            return Ok(Raised::with(
                stdlib::sendfile_not_available_error()?,
                "os.sendfile call failed",
            ));
        }
        let exception = os_error_instance(error)?;
        if self.begun.get() && is_not_connected(error) {
            let text = Obj::str("socket is not connected")?;
            let number = exception.getattr(names::errno())?;
            let newer = Builtin::Connection.class().call([&text, &number])?;
            newer.set_exception_cause(Some(exception));
            return Ok(Raised::raise(&newer));
        }
        Ok(Raised::raise(&exception))
    }

    /// One system call: what was sent, nothing if it would block.
    fn send(&self, sock: &Obj, most: u64) -> PyRes<Result<Option<usize>, std::io::Error>> {
        let fd = number(&sock.method(names::fileno(), [])?)?;
        // Asked again each time: if the file was closed, the number may be another file's.
        let file = number(&self.file.get_or_none().method(names::fileno(), [])?)?;
        let (offset, most) = (
            self.offset.get(),
            usize::try_from(most).unwrap_or(MOST).min(MOST),
        );
        loop {
            let outcome = without_gil(|| send_file(fd, file, offset, most));
            return Ok(match outcome {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    check_signals()?;
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
                outcome => outcome.map(Some),
            });
        }
    }
}

/// Is it the error of a socket whose connection is gone?
fn is_not_connected(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotConnected
}

/// A descriptor's number; one that does not fit is none.
fn number(fileno: &Obj) -> PyRes<i32> {
    Ok(i32::try_from(fileno.as_i64()?).unwrap_or(-1))
}

impl Operation for Transfer {
    const NAME: &'static str = "_UnixSelectorEventLoop._sock_sendfile_native_impl";
    const DIRECTION: Direction = Direction::Write;

    fn begin(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        let outcome = self.attempt(sock);
        self.begun.set(true);
        outcome
    }

    fn attempt(&self, sock: &Obj) -> PyRes<Option<Obj>> {
        // Differs: asyncio goes through the selector after each piece, also to learn that there is nothing left.
        for _ in 0..2 {
            let most = match self.count {
                Some(count) if count <= self.sent.get() => return self.finish(),
                Some(count) => count - self.sent.get(),
                None => self.size,
            };
            let sent = match self.send(sock, most)? {
                Ok(None) => return Ok(None),
                Ok(Some(0)) => return self.finish(),
                Ok(Some(sent)) => sent as u64,
                Err(error) => return Err(self.fail(&error)?),
            };
            self.positioned.set(false);
            self.offset.set(self.offset.get() + sent);
            self.sent.set(self.sent.get() + sent);
            let all = self.count.is_some_and(|count| count <= self.sent.get());
            if !all && self.offset.get() < self.size {
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn abandon(&self) -> PyRes<()> {
        if !self.positioned.get() {
            preserving_exception(|| {
                // The file may be closed by now, and then has no position.
                if let Err(raised) = self.update_position() {
                    raised.discard();
                }
            });
        }
        Ok(())
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.file);
    }

    fn clear(&self) {
        self.file.clear();
    }
}

/// The body of `_sock_sendfile_native`.
struct SocketNative {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// How far it is.
    step: SocketStep,
}

/// How far `_sock_sendfile_native` is.
enum SocketStep {
    /// Not begun: socket, file, offset, count.
    Start([Obj; 4]),
    /// The socket takes no more at the moment.
    Waiting(Wait),
    /// It is over.
    Over,
}

impl SocketNative {
    /// The first attempt.
    fn start(&mut self, [sock, file, offset, count]: [Obj; 4]) -> PyRes<Sent> {
        let size = file_size(&file)?;
        let count = if count.truth()? { Some(count) } else { None };
        if count.is_none() && size == 0 {
            return Ok(Sent::Return(Obj::int(0)?));
        }
        let operation = Transfer {
            file: Slot::new(file),
            offset: Cell::new(offset.as_i64()?.cast_unsigned()),
            sent: Cell::new(0),
            count: match count {
                Some(count) => Some(large(&count)?),
                None => None,
            },
            size,
            begun: Cell::new(false),
            positioned: Cell::new(true),
        };
        match operation.begin(&sock) {
            Ok(Some(sent)) => return Ok(Sent::Return(sent)),
            Ok(None) => {}
            Err(raised) => {
                operation.abandon()?;
                return Err(raised);
            }
        }
        let mut wait = Wait::register(&self.loop_, &sock, operation)?;
        let sent = wait.start(&self.loop_)?;
        Ok(self.waiting(sent, wait))
    }

    /// Waits on, or returns.
    fn waiting(&mut self, sent: Sent, wait: Wait) -> Sent {
        if matches!(sent, Sent::Yield(_)) {
            self.step = SocketStep::Waiting(wait);
        }
        sent
    }
}

/// The file's size; raises `SendfileNotAvailableError` if it is no file of the system's.
fn file_size(file: &Obj) -> PyRes<u64> {
    let fd = match file.method(names::fileno(), []) {
        Ok(fd) => fd,
        Err(raised)
            if raised.is(Builtin::Attribute)
                || raised.matches(stdlib::unsupported_operation()?) =>
        {
            return Err(not_regular(raised));
        }
        Err(raised) => return Err(raised),
    };
    match stdlib::fstat()?.call([&fd]) {
        Ok(status) => large(&status.getattr_str("st_size")?),
        Err(raised) if raised.is(Builtin::Os) => Err(not_regular(raised)),
        Err(raised) => Err(raised),
    }
}

/// The error for a file that the kernel cannot copy from.
fn not_regular(raised: Raised) -> Raised {
    let cause = raised.take();
    match stdlib::sendfile_not_available_error() {
        Ok(class) => Raised::with(class, "not a regular file").during(cause),
        Err(raised) => raised,
    }
}

/// A positive number; one that does not fit is more than there can be.
fn large(number: &Obj) -> PyRes<u64> {
    match number.as_i64() {
        Ok(number) => Ok(u64::try_from(number).unwrap_or(0)),
        Err(raised) if raised.is(Builtin::Overflow) => {
            raised.discard();
            Ok(i64::MAX.cast_unsigned())
        }
        Err(raised) => Err(raised),
    }
}

impl Machine for SocketNative {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.step, SocketStep::Over) {
            SocketStep::Start(arguments) => self.start(arguments),
            SocketStep::Waiting(mut wait) => {
                let sent = wait.resume(&self.loop_, input)?;
                Ok(self.waiting(sent, wait))
            }
            SocketStep::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        match &self.step {
            SocketStep::Start(arguments) => {
                for argument in arguments {
                    visit.obj(argument);
                }
            }
            SocketStep::Waiting(wait) => wait.traverse(visit),
            SocketStep::Over => {}
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.step {
            SocketStep::Waiting(wait) => Some(wait.future().clone()),
            SocketStep::Start(_) | SocketStep::Over => None,
        }
    }
}

/// The body of `_sendfile_native`.
struct TransportNative {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// Transport, file, offset, count.
    arguments: [Obj; 4],
    /// Did the transport read?
    resume_reading: bool,
    /// How far it is.
    step: TransportStep,
}

/// How far `_sendfile_native` is.
enum TransportStep {
    /// Not begun.
    Start,
    /// The transport sends what it was given before.
    Flushing(Delegate),
    /// The file is sent.
    Sending(Delegate),
    /// It is over.
    Over,
}

/// The number of a transport's socket.
fn socket_number(transport: &Obj) -> PyRes<i32> {
    number(&transport.getattr(names::sock_fd())?)
}

impl TransportNative {
    /// Takes the descriptor from the transport and waits until it has sent everything.
    fn start(&mut self) -> PyRes<Sent> {
        let transport = &self.arguments[0];
        // It refuses a second file; what follows is not to be undone then, since it is the first one's.
        let waiter = transport.method(names::make_empty_waiter(), [])?;
        let begun = (|| {
            self.loop_
                .forget_transport(socket_number(transport)?, transport);
            self.resume_reading = transport.method(names::is_reading(), [])?.truth()?;
            transport.method(names::pause_reading(), [])?;
            let waiter = Delegate::new(&waiter)?;
            let sent = waiter.resume(Resume::Send)?;
            Ok((sent, waiter))
        })();
        match begun {
            Ok((sent, waiter)) => self.flushing(Ok(sent), waiter),
            Err(raised) => self.finish(Err(raised)),
        }
    }

    /// Waits on, or begins to send the file.
    fn flushing(&mut self, outcome: PyRes<Sent>, waiter: Delegate) -> PyRes<Sent> {
        match outcome {
            Ok(Sent::Yield(value)) => {
                self.step = TransportStep::Flushing(waiter);
                return Ok(Sent::Yield(value));
            }
            Ok(Sent::Return(_)) => {}
            Err(raised) => return self.finish(Err(raised)),
        }
        let [transport, file, offset, count] = &self.arguments;
        let begun = (|| {
            let sock = transport.getattr(names::private_sock())?;
            if sock.is_none() {
                // Differs: asyncio fails with an AttributeError of its own.
                let text = "Connection is closed by peer";
                return Err(Builtin::Connection.raise(text));
            }
            let awaitable = self.loop_.obj().method_kw(
                names::sock_sendfile(),
                &[&sock, file, offset, count],
                &[(names::fallback(), &Obj::bool(false))],
            )?;
            let delegate = Delegate::new(&awaitable)?;
            let sent = delegate.resume(Resume::Send)?;
            Ok((sent, delegate))
        })();
        match begun {
            Ok((sent, delegate)) => self.sending(Ok(sent), delegate),
            Err(raised) => self.finish(Err(raised)),
        }
    }

    /// Waits on, or gives the descriptor back.
    fn sending(&mut self, outcome: PyRes<Sent>, delegate: Delegate) -> PyRes<Sent> {
        if let Ok(Sent::Yield(_)) = outcome {
            self.step = TransportStep::Sending(delegate);
            return outcome;
        }
        self.finish(outcome)
    }

    /// Gives the descriptor back to the transport, however it ended. Differs: asyncio does not if the wait for the
    /// transport's own bytes ends with an error.
    fn finish(&mut self, outcome: PyRes<Sent>) -> PyRes<Sent> {
        let transport = &self.arguments[0];
        finally(outcome, || {
            transport.method(names::reset_empty_waiter(), [])?;
            if self.resume_reading {
                transport.method(names::resume_reading(), [])?;
            }
            if transport.method(names::is_closing(), [])?.truth()? {
                return Ok(());
            }
            let fd = socket_number(transport)?;
            self.loop_.note_transport(fd, transport)
        })
    }
}

impl Machine for TransportNative {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match mem::replace(&mut self.step, TransportStep::Over) {
            TransportStep::Start => self.start(),
            TransportStep::Flushing(waiter) => {
                let outcome = waiter.resume(input);
                self.flushing(outcome, waiter)
            }
            TransportStep::Sending(delegate) => {
                let outcome = delegate.resume(input);
                self.sending(outcome, delegate)
            }
            TransportStep::Over => Err(Raised::runtime_error(
                "cannot reuse already awaited coroutine",
            )),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for argument in &self.arguments {
            visit.obj(argument);
        }
        if let TransportStep::Flushing(delegate) | TransportStep::Sending(delegate) = &self.step {
            visit.obj(delegate.awaited());
        }
    }

    fn awaits(&self) -> Option<Obj> {
        match &self.step {
            TransportStep::Flushing(delegate) | TransportStep::Sending(delegate) => {
                Some(delegate.awaited().clone())
            }
            TransportStep::Start | TransportStep::Over => None,
        }
    }
}
