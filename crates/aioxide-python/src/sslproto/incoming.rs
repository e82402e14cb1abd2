//! From the transport below to the protocol above.

use crate::events::LoopRef;
use crate::ffi::{Buffer, Obj, PyRes, Ref, Session, Stop};
use crate::streams::{StreamReader, direct_reader, feed};
use crate::{names, stdlib};

use super::SSLProtocol;
use super::handshake::is_again;
use super::protocol::{Delivery, MAX_SIZE, State};

/// From so much on what is received is decrypted into a `bytes`, not into the loop's buffer and then copied.
const LARGE: usize = 32 * 1024;
/// More than a record holds: what may be inside OpenSSL already.
const RECORD: usize = 17 * 1024;
/// The size of the buffer where there is no native loop to lend one.
const FOREIGN_BUFFER: usize = 64 * 1024;

/// Where a batch of decrypted data goes.
struct Batch {
    /// What did not fit into the loop's buffer, or came by the `SSLObject`'s own method.
    gathered: Vec<u8>,
    /// Has the other side ended TLS?
    closed: bool,
}

impl Ref<SSLProtocol> {
    /// Bytes were received.
    #[inline]
    pub(crate) fn received(&self, bytes: &[u8]) -> PyRes<()> {
        if let Some(bio) = self.incoming_bio()
            && bio.write(bytes)
        {
            return Ok(());
        }
        self.incoming
            .get_or_none()
            .method(names::write(), [&Obj::bytes(bytes)?])
            .map(drop)
    }

    /// Deals with what was received.
    #[inline]
    pub(crate) fn updated(&self) -> PyRes<()> {
        match self.state.get() {
            State::Wrapped => self.do_read(),
            State::DoHandshake => self.do_handshake(),
            State::Flushing => self.do_flush(),
            State::Shutdown => self.do_shutdown(),
            State::Unwrapped => Ok(()),
        }
    }

    /// `_do_read`.
    #[inline]
    pub(super) fn do_read(&self) -> PyRes<()> {
        if !matches!(self.state.get(), State::Wrapped | State::Flushing) {
            return Ok(());
        }
        let outcome = self.read_and_write();
        self.or_fatal(outcome, "Fatal error on SSL protocol")
    }

    /// Reads, then writes what that made possible.
    #[inline]
    fn read_and_write(&self) -> PyRes<()> {
        if !self.app_reading_paused.get() {
            match (self.delivery.get(), self.session()) {
                (Delivery::Buffered, session) => self.read_buffered(session.as_ref())?,
                (_, Some(session)) => self.read_directly(&session)?,
                (_, None) => self.read_by_methods()?,
            }
            if self.write_backlog.borrow().is_empty() {
                self.process_outgoing()?;
            } else {
                self.do_write()?;
            }
        }
        self.control_ssl_reading()
    }

    /// Lends the loop's buffer.
    fn with_scratch<R>(&self, body: impl FnOnce(&mut [u8]) -> R) -> R {
        match self.loop_ref() {
            LoopRef::Native(native) => native.with_read_buffer(body),
            LoopRef::Foreign(_) => body(&mut vec![0; FOREIGN_BUFFER]),
        }
    }

    /// The stream reader that may be fed.
    #[inline]
    fn stream_reader(&self) -> Option<Ref<StreamReader>> {
        if self.delivery.get() != Delivery::Stream {
            return None;
        }
        self.app_protocol.get().as_ref().and_then(direct_reader)
    }

    /// `data_received`.
    #[inline]
    fn deliver(&self, data: &Obj) -> PyRes<()> {
        self.app_protocol
            .get_or_none()
            .method(names::data_received(), [data])
            .map(drop)
    }

    /// Reads through OpenSSL's functions.
    #[inline]
    fn read_directly(&self, session: &Session) -> PyRes<()> {
        let reader = self.stream_reader();
        let pending = session.undecrypted();
        if reader.is_none() && pending >= LARGE {
            return self.read_much(session, pending + RECORD);
        }
        let mut batch = Batch {
            gathered: Vec::new(),
            closed: false,
        };
        loop {
            let (stop, fed) = self.with_scratch(|room| {
                let (count, stop) = session.decrypt(room);
                let bytes = &room[..count];
                if stop != Stop::WantsMore || !batch.gathered.is_empty() {
                    batch.gathered.extend_from_slice(bytes);
                    return (stop, Ok(None));
                }
                let fed = match &reader {
                    _ if bytes.is_empty() => Ok(None),
                    Some(reader) => feed(reader, bytes).map(|()| None),
                    None => Obj::bytes(bytes).map(Some),
                };
                (stop, fed)
            });
            if let Some(data) = fed? {
                self.deliver(&data)?;
            }
            match stop {
                Stop::WantsMore => break,
                Stop::Full => {}
                Stop::Other => {
                    if !self.ask(&mut batch)? {
                        break;
                    }
                }
            }
        }
        self.finish(batch, reader.as_ref())
    }

    /// Reads much at once, straight into a `bytes`.
    fn read_much(&self, session: &Session, room: usize) -> PyRes<()> {
        let mut stop = Stop::WantsMore;
        let data = Obj::bytes_with(room, |room| {
            let (count, why) = session.decrypt_uninit(room);
            stop = why;
            Ok::<_, std::convert::Infallible>(count)
        })?;
        let Ok(data) = data;
        let mut batch = Batch {
            gathered: Vec::new(),
            closed: false,
        };
        if stop == Stop::WantsMore {
            if data.as_bytes().is_some_and(|bytes| !bytes.is_empty()) {
                self.deliver(&data)?;
            }
            return Ok(());
        }
        batch
            .gathered
            .extend_from_slice(data.as_bytes().unwrap_or_default());
        while self.ask(&mut batch)? {}
        self.finish(batch, None)
    }

    /// Asks the `SSLObject` itself. Is there more?
    fn ask(&self, batch: &mut Batch) -> PyRes<bool> {
        let size = Obj::int(i64::try_from(MAX_SIZE).unwrap_or(i64::MAX))?;
        match self.ask_ssl(names::read(), [&size]) {
            Ok(data) => {
                let view = Buffer::readable(&data)?;
                batch.closed = view.as_slice().is_empty();
                batch.gathered.extend_from_slice(view.as_slice());
                Ok(!batch.closed)
            }
            Err(raised) if is_again(&raised)? => {
                raised.discard();
                Ok(false)
            }
            Err(raised) => Err(raised),
        }
    }

    /// Hands on what was gathered, and the end.
    fn finish(&self, batch: Batch, reader: Option<&Ref<StreamReader>>) -> PyRes<()> {
        if !batch.gathered.is_empty() {
            match reader {
                Some(reader) => feed(reader, &batch.gathered)?,
                None => self.deliver(&Obj::bytes(&batch.gathered)?)?,
            }
        }
        if batch.closed {
            return self.peer_closed();
        }
        Ok(())
    }

    /// The other side has ended TLS.
    fn peer_closed(&self) -> PyRes<()> {
        self.call_eof_received()?;
        self.start_shutdown()
    }

    /// `_do_read__copied`: reads by the `SSLObject`'s own method.
    fn read_by_methods(&self) -> PyRes<()> {
        let size = Obj::int(i64::try_from(MAX_SIZE).unwrap_or(i64::MAX))?;
        let mut chunks = Vec::new();
        let closed = loop {
            match self.ask_ssl(names::read(), [&size]) {
                Ok(chunk) if chunk.truth()? => chunks.push(chunk),
                Ok(_) => break true,
                Err(raised) if is_again(&raised)? => {
                    raised.discard();
                    break false;
                }
                Err(raised) => return Err(raised),
            }
        };
        match &chunks[..] {
            [] => {}
            [only] => self.deliver(only)?,
            _ => {
                let chunks = Obj::list(chunks)?;
                let data = Obj::bytes(b"")?.method(names::join(), [&chunks])?;
                self.deliver(&data)?;
            }
        }
        if closed {
            return self.peer_closed();
        }
        Ok(())
    }

    /// `_do_read__buffered`: reads into the buffer that the protocol gives.
    fn read_buffered(&self, session: Option<&Session>) -> PyRes<()> {
        let [Some(get_buffer), Some(buffer_updated)] =
            [self.buffer_methods[0].get(), self.buffer_methods[1].get()]
        else {
            return Ok(());
        };
        let size = Obj::int(i64::try_from(self.read_buffer_size()?).unwrap_or(i64::MAX))?;
        let buffer = get_buffer.call([&size])?;
        let wants = Buffer::writable(&buffer)?.len();
        let (mut offset, mut closed) = (0, wants == 0);
        while !closed {
            if offset == wants {
                self.call_soon(names::do_read())?;
                break;
            }
            if let Some(session) = session {
                let mut view = Buffer::writable(&buffer)?;
                let room = view.as_mut_slice().get_mut(offset..).unwrap_or_default();
                // An object may give another buffer each time, and a shorter one: that is for the `SSLObject` to see.
                let stop = if room.is_empty() {
                    Stop::Other
                } else {
                    let (count, stop) = session.decrypt(room);
                    offset += count;
                    stop
                };
                match stop {
                    Stop::WantsMore => break,
                    Stop::Full => continue,
                    Stop::Other => {}
                }
            }
            match self.read_into(&buffer, offset, wants) {
                Ok(0) => closed = true,
                Ok(count) => offset += count,
                Err(raised) if is_again(&raised)? => {
                    raised.discard();
                    break;
                }
                Err(raised) => return Err(raised),
            }
        }
        drop(buffer);
        if offset > 0 {
            let count = Obj::int(i64::try_from(offset).unwrap_or(i64::MAX))?;
            buffer_updated.call([&count])?;
        }
        if closed {
            return self.peer_closed();
        }
        Ok(())
    }

    /// Reads into the rest of a buffer by the `SSLObject`'s own method. How much? 0 is the end.
    fn read_into(&self, buffer: &Obj, offset: usize, wants: usize) -> PyRes<usize> {
        let left = Obj::int(i64::try_from(wants - offset).unwrap_or(i64::MAX))?;
        let part = if offset == 0 {
            buffer.clone()
        } else {
            let view = stdlib::memoryview()?.call([buffer])?;
            let view = view.method(names::cast(), [&Obj::str("B")?])?;
            let start = Obj::int(i64::try_from(offset).unwrap_or(i64::MAX))?;
            view.item(&stdlib::slice()?.call([&start, &Obj::none()])?)?
        };
        let count = self.ask_ssl(names::read(), [&left, &part])?;
        Ok(usize::try_from(count.as_i64()?).unwrap_or(0))
    }

    /// `_resume_reading`: the application wants data again.
    pub(super) fn resume_app_reading(&self) -> PyRes<()> {
        if self.app_reading_paused.replace(false) {
            return self.call_soon(names::private_resume());
        }
        Ok(())
    }

    /// What that leads to in the next turn.
    pub(super) fn read_again(&self) -> PyRes<()> {
        match self.state.get() {
            State::Wrapped => self.do_read(),
            State::Flushing => self.do_flush(),
            State::Shutdown => self.do_shutdown(),
            State::Unwrapped | State::DoHandshake => Ok(()),
        }
    }

    /// `_get_read_buffer_size`.
    #[inline]
    pub(super) fn read_buffer_size(&self) -> PyRes<usize> {
        if let Some(bio) = self.incoming_bio() {
            return Ok(bio.pending());
        }
        size_of_bio(&self.incoming.get_or_none())
    }

    /// `_control_ssl_reading`.
    #[inline]
    pub(super) fn control_ssl_reading(&self) -> PyRes<()> {
        let size = self.read_buffer_size()?;
        let paused = &self.ssl_reading_paused;
        let method = if !paused.get() && self.incoming_limits.is_full(size) {
            names::pause_reading()
        } else if paused.get() && self.incoming_limits.has_room(size) {
            names::resume_reading()
        } else {
            return Ok(());
        };
        paused.set(!paused.get());
        match self.transport.get() {
            Some(transport) => transport.method(method, []).map(drop),
            None => Ok(()),
        }
    }
}

/// `bio.pending`.
pub(super) fn size_of_bio(bio: &Obj) -> PyRes<usize> {
    let pending = bio.getattr(names::pending())?.as_i64()?;
    Ok(usize::try_from(pending).unwrap_or(0))
}
