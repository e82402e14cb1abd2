//! From the protocol above to the transport below.

use crate::events::leaves_the_loop;
use crate::ffi::{Buffer, Native, Obj, Progress, PyRes, Ref, Session, while_handling};
use crate::{names, stdlib};

use super::handshake::is_again;
use super::incoming::size_of_bio;
use super::protocol::State;
use super::{SEND, SSLProtocol};

/// How many writes to a lost connection pass without a word: `LOG_THRESHOLD_FOR_CONNLOST_WRITES`.
const QUIET_WRITES: u32 = 5;
/// What `writelines` is given is encrypted together up to so much: the most that a record holds.
const TOGETHER: usize = 16 * 1024;

/// More than this is encrypted in pieces.
const PIECE: usize = 64 * 1024;

/// An exact `bytes` of what a buffer holds.
fn snapshot(data: &Obj) -> PyRes {
    if data.is_exact_bytes() {
        return Ok(data.clone());
    }
    Obj::bytes(Buffer::readable(data)?.as_slice())
}

impl Ref<SSLProtocol> {
    /// Is there no more writing? Counts the attempt then, and warns of those that are too many.
    #[inline]
    fn is_over(&self) -> PyRes<bool> {
        if matches!(self.state.get(), State::Wrapped | State::DoHandshake) {
            return Ok(false);
        }
        if self.conn_lost.get() >= QUIET_WRITES {
            let text = Obj::str("SSL connection is closed")?;
            stdlib::logger()?.method(names::warning(), [&text])?;
        }
        self.conn_lost.set(self.conn_lost.get().saturating_add(1));
        Ok(true)
    }

    /// `transport.write(data)`, of data that is not empty.
    #[inline]
    pub(super) fn write(&self, data: &Obj) -> PyRes<()> {
        if self.is_over()? {
            return Ok(());
        }
        if self.state.get() == State::Wrapped
            && self.write_backlog.borrow().is_empty()
            && let Some(session) = self.session()
        {
            let outcome = self.write_directly(&session, data);
            return self.or_fatal(outcome, "Fatal error on SSL protocol");
        }
        self.push_backlog(snapshot(data)?);
        self.write_waiting()
    }

    /// Encrypts data while nothing waits before it.
    #[inline]
    fn write_directly(&self, session: &Session, data: &Obj) -> PyRes<()> {
        let progress = match data.as_bytes() {
            Some(bytes) if bytes.len() <= PIECE => session.write(bytes),
            Some(_) => return self.write_in_pieces(session, data),
            None => {
                let view = Buffer::readable(data)?;
                if view.len() > PIECE {
                    let data = Obj::bytes(view.as_slice())?;
                    drop(view);
                    return self.write_in_pieces(session, &data);
                }
                session.write(view.as_slice())
            }
        };
        match progress {
            Progress::Done(_) => self.process_outgoing(),
            Progress::WantsMore => {
                self.push_backlog(snapshot(data)?);
                self.process_outgoing()
            }
            Progress::Other => self.ask_to_write(&snapshot(data)?),
        }
    }

    /// Encrypts a large `bytes`. Each piece goes to the transport below before the next one, so that the `BIO`, which
    /// never gives memory back, stays small.
    fn write_in_pieces(&self, session: &Session, data: &Obj) -> PyRes<()> {
        let bytes = data.as_bytes().unwrap_or_default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE)];
            match session.write(piece) {
                Progress::Done(count) => rest = rest.get(count..).unwrap_or_default(),
                Progress::WantsMore => {
                    self.push_backlog(Obj::bytes(rest)?);
                    break;
                }
                Progress::Other => return self.ask_to_write(&Obj::bytes(rest)?),
            }
            if !self.ssl_writing_paused.get() {
                // Not the protocol above: it could write in between.
                self.send_directly()?;
            }
        }
        self.process_outgoing()
    }

    /// Has the `SSLObject` itself encrypt a `bytes` that OpenSSL refused.
    #[cold]
    fn ask_to_write(&self, data: &Obj) -> PyRes<()> {
        self.push_backlog(data.clone());
        match self.ask_ssl(names::write(), [data]) {
            Ok(count) => {
                self.take_from_backlog(data, usize::try_from(count.as_i64()?).unwrap_or(0))?;
                self.do_write()
            }
            Err(raised) if is_again(&raised)? => {
                raised.discard();
                self.process_outgoing()
            }
            Err(raised) => Err(raised),
        }
    }

    /// `_write_appdata`.
    pub(super) fn write_lines(&self, lines: &Obj) -> PyRes<()> {
        if self.is_over()? {
            return Ok(());
        }
        let mut chunks = Vec::new();
        let mut joined: Vec<u8> = Vec::new();
        for line in lines.items()? {
            let view = Buffer::readable(&line)?;
            if joined.len() + view.len() > TOGETHER && !joined.is_empty() {
                chunks.push(Obj::bytes(&joined)?);
                joined.clear();
            }
            if view.len() < TOGETHER {
                joined.extend_from_slice(view.as_slice());
            } else {
                drop(view);
                chunks.push(snapshot(&line)?);
            }
        }
        if !joined.is_empty() {
            chunks.push(Obj::bytes(&joined)?);
        }
        for chunk in chunks {
            self.push_backlog(chunk);
        }
        self.write_waiting()
    }

    /// Adds data to what waits, without doing anything about it.
    pub(super) fn append_backlog(&self, data: &Obj) -> PyRes<()> {
        self.push_backlog(snapshot(data)?);
        Ok(())
    }

    /// Adds an exact `bytes` to what waits.
    fn push_backlog(&self, data: Obj) {
        let size = data.as_bytes().map_or(0, <[u8]>::len);
        self.write_backlog.borrow_mut().push_back(data);
        self.write_buffer_size
            .set(self.write_buffer_size.get() + size);
    }

    /// Encrypts what waits, if the handshake is over.
    fn write_waiting(&self) -> PyRes<()> {
        if self.state.get() != State::Wrapped {
            return Ok(());
        }
        let outcome = self.do_write();
        self.or_fatal(outcome, "Fatal error on SSL protocol")
    }

    /// `_do_write`.
    pub(super) fn do_write(&self) -> PyRes<()> {
        let session = self.session();
        loop {
            let first = self.write_backlog.borrow().front().cloned();
            let Some(first) = first else {
                break;
            };
            match self.encrypt(session.as_ref(), &first) {
                Ok(count) => self.take_from_backlog(&first, count)?,
                Err(raised) if is_again(&raised)? => {
                    raised.discard();
                    break;
                }
                Err(raised) => return Err(raised),
            }
        }
        self.process_outgoing()
    }

    /// Encrypts what it can of a `bytes`; raises `SSLWantReadError` if that is nothing.
    fn encrypt(&self, session: Option<&Session>, data: &Obj) -> PyRes<usize> {
        let bytes = data.as_bytes().unwrap_or_default();
        if let Some(session) = session
            && let Progress::Done(count) = session.write(&bytes[..bytes.len().min(PIECE)])
        {
            if count < bytes.len() && !self.ssl_writing_paused.get() {
                self.send_directly()?;
            }
            return Ok(count);
        }
        let count = self.ask_ssl(names::write(), [data])?;
        Ok(usize::try_from(count.as_i64()?).unwrap_or(0))
    }

    /// Takes so much of the first `bytes` out of what waits.
    fn take_from_backlog(&self, first: &Obj, count: usize) -> PyRes<()> {
        let bytes = first.as_bytes().unwrap_or_default();
        let count = count.min(bytes.len());
        let rest = if count < bytes.len() {
            Some(Obj::bytes(&bytes[count..])?)
        } else {
            None
        };
        let mut backlog = self.write_backlog.borrow_mut();
        // To encrypt may have run code that wrote or gave up.
        if backlog.front().is_none_or(|front| !front.is(first)) {
            return Ok(());
        }
        let before = match rest {
            Some(rest) => backlog
                .front_mut()
                .map(|front| std::mem::replace(front, rest)),
            None => backlog.pop_front(),
        };
        drop(backlog);
        drop(before);
        self.write_buffer_size
            .set(self.write_buffer_size.get().saturating_sub(count));
        Ok(())
    }

    /// `_process_outgoing`: gives the transport below what is encrypted.
    #[inline]
    pub(super) fn process_outgoing(&self) -> PyRes<()> {
        self.send_outgoing()?;
        self.control_app_writing()
    }

    /// The same, of which the protocol above is not told.
    #[inline]
    fn send_outgoing(&self) -> PyRes<()> {
        if !self.ssl_writing_paused.get() && !self.send_directly()? {
            let data = self.outgoing.get_or_none().method(names::read(), [])?;
            if data.len()? > 0
                && let Some(transport) = self.transport.get()
            {
                transport.method(names::write(), [&data])?;
            }
        }
        Ok(())
    }

    /// Gives the transport below what is encrypted, also by a protocol of TLS above this one: there will be a fork, after
    /// which two processes would do so.
    pub(crate) fn send_before_fork(&self) -> PyRes<()> {
        let above = self.app_protocol.get();
        if let Some(inner) = above
            .as_ref()
            .and_then(|above| SSLProtocol::class().cast(above))
        {
            inner.send_before_fork()?;
        }
        self.send_outgoing()
    }

    /// Moves what is encrypted into the buffer of a native transport, if there is one below.
    #[inline]
    fn send_directly(&self) -> PyRes<bool> {
        let Some(bio) = self.outgoing_bio() else {
            return Ok(false);
        };
        let size = bio.pending();
        if size == 0 {
            return Ok(true);
        }
        let (Some(send), Some(transport)) = (SEND.get(), self.transport.get()) else {
            return Ok(false);
        };
        match send(&transport, size, &mut |room| bio.read(room)) {
            Some(outcome) => outcome.map(|()| true),
            None => Ok(false),
        }
    }

    /// `_get_write_buffer_size`.
    #[inline]
    pub(super) fn total_write_buffer_size(&self) -> PyRes<usize> {
        let encrypted = match self.outgoing_bio() {
            Some(bio) => bio.pending(),
            None => size_of_bio(&self.outgoing.get_or_none())?,
        };
        Ok(encrypted + self.write_buffer_size.get())
    }

    /// `_control_app_writing`.
    #[inline]
    pub(super) fn control_app_writing(&self) -> PyRes<()> {
        let size = self.total_write_buffer_size()?;
        let paused = &self.app_writing_paused;
        if !paused.get() && self.outgoing_limits.is_full(size) {
            paused.set(true);
            self.tell(names::pause_writing(), "pause_writing")
        } else if paused.get() && self.outgoing_limits.has_room(size) {
            paused.set(false);
            self.tell(names::resume_writing(), "resume_writing")
        } else {
            Ok(())
        }
    }

    /// Calls a method of the protocol above; what it raises is reported, and the connection goes on.
    fn tell(&self, method: &Obj, name: &str) -> PyRes<()> {
        let Err(raised) = self.app_protocol.get_or_none().method(method, []) else {
            return Ok(());
        };
        if leaves_the_loop(&raised) {
            return Err(raised);
        }
        let exception = raised.take();
        let context = Obj::dict()?;
        let message = Obj::str(&format!("protocol.{name}() failed"))?;
        context.set_item(names::message(), &message)?;
        context.set_item(names::exception(), &exception)?;
        context.set_item(names::transport(), &self.app_transport.get_or_none())?;
        context.set_item(names::protocol(), self.obj())?;
        while_handling(&exception, || {
            self.loop_ref().call_exception_handler(&context)
        })
    }
}
