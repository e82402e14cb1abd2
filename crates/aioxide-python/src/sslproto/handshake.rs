//! The handshake: by the `SSLObject`'s own method, so that whatever goes wrong is told by `_ssl`.

use crate::ffi::{Builtin, Obj, PyRes, Raised, Ref, Session, while_handling};
use crate::{names, stdlib};

use super::SSLProtocol;
use super::protocol::{AppState, State, cancel_timer};

/// Does this say that the other side has to send more, or take more?
pub(super) fn is_again(raised: &Raised) -> PyRes<bool> {
    Ok(raised.matches(stdlib::ssl_want_read_error()?)
        || raised.matches(stdlib::ssl_syscall_error()?))
}

impl Ref<SSLProtocol> {
    /// `_start_handshake`.
    pub(super) fn start_handshake(&self) -> PyRes<()> {
        let loop_ = self.loop_ref();
        if loop_.debug()? {
            self.log_in_debug("%r starts SSL handshake")?;
            self.handshake_start
                .set(loop_.obj().method(names::time(), [])?);
        } else {
            self.handshake_start.clear();
        }
        self.set_state(State::DoHandshake)?;
        let limit = self.handshake_timeout.get_or_none();
        let check = self.obj().getattr(names::check_handshake_timeout())?;
        let handle = loop_.obj().method(names::call_later(), [&limit, &check])?;
        self.handshake_timer.set(handle);
        self.do_handshake()
    }

    /// `_check_handshake_timeout`.
    pub(super) fn check_handshake_timeout(&self) -> PyRes<()> {
        if self.state.get() != State::DoHandshake {
            return Ok(());
        }
        let limit = self.handshake_timeout.get_or_none().to_str()?.text()?;
        let error = Builtin::ConnectionAborted.instance(&format!(
            "SSL handshake is taking longer than {limit} seconds: aborting the connection"
        ))?;
        self.fatal_error(&error, "Fatal error on transport")
    }

    /// `_do_handshake`.
    pub(super) fn do_handshake(&self) -> PyRes<()> {
        match self.ask_ssl(names::do_handshake(), []) {
            Ok(_) => self.on_handshake_complete(None),
            Err(raised) if is_again(&raised)? => {
                raised.discard();
                self.process_outgoing()
            }
            Err(raised) if raised.matches(stdlib::ssl_error()?) => {
                let exception = raised.take();
                while_handling(&exception, || self.on_handshake_complete(Some(&exception)))
            }
            Err(raised) => Err(raised),
        }
    }

    /// `_on_handshake_complete`.
    pub(super) fn on_handshake_complete(&self, exception: Option<&Obj>) -> PyRes<()> {
        cancel_timer(&self.handshake_timer)?;
        let sslobj = self.current_sslobj();
        let peercert = match self.peer_certificate(&sslobj, exception) {
            Ok(peercert) => peercert,
            Err(raised) if raised.is(Builtin::Exception) => {
                let exception = raised.take();
                return while_handling(&exception, || self.handshake_failed(&exception));
            }
            Err(raised) => return Err(raised),
        };
        self.log_duration()?;
        let extra = self.extra.get_or_none();
        extra.set_item(names::peercert(), &peercert)?;
        extra.set_item(names::cipher(), &sslobj.method(names::cipher(), [])?)?;
        let compression = sslobj.method(names::compression(), [])?;
        extra.set_item(names::compression(), &compression)?;
        extra.set_item(names::ssl_object(), &sslobj)?;
        self.look_inside(&sslobj)?;
        if self.app_state.get() == AppState::Init {
            self.app_state.set(AppState::ConnectionMade);
            let transport = self.current_app_transport()?;
            self.app_protocol
                .get_or_none()
                .method(names::connection_made(), [&transport])?;
        }
        self.wakeup_waiter(None)?;
        if self.app_reading_paused.get() {
            // Differs: asyncio keeps the end of the handshake from the other side until the application reads.
            self.process_outgoing()?;
        }
        self.do_read()
    }

    /// The certificate of the other side, after a handshake that did not fail.
    fn peer_certificate(&self, sslobj: &Obj, exception: Option<&Obj>) -> PyRes {
        match exception {
            None => self.set_state(State::Wrapped)?,
            Some(class) if class.is_exception_class() => {
                return Err(Raised::raise(&class.call([])?));
            }
            Some(exception) => return Err(Raised::restore(exception.clone())),
        }
        sslobj.method(names::getpeercert(), [])
    }

    /// Reports a handshake that failed.
    fn handshake_failed(&self, exception: &Obj) -> PyRes<()> {
        self.set_state(State::Unwrapped)?;
        let verification = exception.isinstance(stdlib::ssl_certificate_error()?)?;
        let message = if verification {
            "SSL handshake failed on verifying the certificate"
        } else {
            "SSL handshake failed"
        };
        self.fatal_error(exception, message)?;
        self.wakeup_waiter(Some(exception))
    }

    /// Logs how long it took, in debug mode.
    fn log_duration(&self) -> PyRes<()> {
        let loop_ = self.loop_ref();
        if let Some(start) = self.handshake_start.get()
            && loop_.debug()?
        {
            let now = loop_.obj().method(names::time(), [])?;
            let milliseconds = Obj::float((now.as_f64()? - start.as_f64()?) * 1e3)?;
            let text = Obj::str("%r: SSL handshake took %.1f ms")?;
            stdlib::logger()?.method(names::debug(), [&text, self.obj(), &milliseconds])?;
        }
        Ok(())
    }

    /// Finds out whether data may flow directly.
    fn look_inside(&self, sslobj: &Obj) -> PyRes<()> {
        let (Some(incoming), Some(outgoing)) = (self.incoming_bio(), self.outgoing_bio()) else {
            return Ok(());
        };
        if !reads_by_itself(sslobj)? {
            return Ok(());
        }
        let connection = sslobj.getattr(names::private_sslobj())?;
        let session = Session::new(&connection, &incoming, &outgoing);
        let before = std::mem::replace(&mut self.insides.borrow_mut().session, session);
        drop(before);
        Ok(())
    }
}

/// Does an `SSLObject` read and write as `ssl.SSLObject` does, with nobody watching?
fn reads_by_itself(sslobj: &Obj) -> PyRes<bool> {
    let base = stdlib::ssl_object_class()?;
    if !sslobj.class().is_subtype_of(base) {
        return Ok(false);
    }
    if !sslobj.is_exactly(base) {
        for name in [names::read(), names::write(), names::private_sslobj()] {
            let (own, known) = (sslobj.class().getattr_opt(name)?, base.getattr_opt(name)?);
            let same = match (own, known) {
                (Some(own), Some(known)) => own.is(&known),
                (None, None) => true,
                _ => false,
            };
            if !same {
                return Ok(false);
            }
        }
    }
    if let Some(own) = sslobj.getattr_opt(names::dunder_dict())? {
        for name in [names::read(), names::write()] {
            if own.contains(name)? {
                return Ok(false);
            }
        }
    }
    let context = sslobj.getattr(names::context())?;
    for name in [names::msg_callback(), names::keylog_filename()] {
        if context
            .getattr_opt(name)?
            .is_some_and(|watcher| !watcher.is_none())
        {
            return Ok(false);
        }
    }
    Ok(true)
}
