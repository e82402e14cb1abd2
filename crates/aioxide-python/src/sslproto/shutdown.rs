//! The end of TLS: by the `SSLObject`'s own `unwrap`, within a time limit.

use crate::ffi::{Builtin, Obj, PyRes, Ref, while_handling};
use crate::{names, stdlib};

use super::SSLProtocol;
use super::handshake::is_again;
use super::protocol::{AppState, State, cancel_timer};
use super::transport;

impl Ref<SSLProtocol> {
    /// `_start_shutdown`.
    pub(super) fn start_shutdown(&self) -> PyRes<()> {
        let state = self.state.get();
        if self.waits_for_reader() {
            // Differs: asyncio waits on for an application that reads no more, without a time limit.
            self.set_state(State::Shutdown)?;
            return self.do_shutdown();
        }
        if matches!(state, State::Flushing | State::Shutdown | State::Unwrapped) {
            return Ok(());
        }
        if let Some(transport) = self.app_transport.get() {
            transport::mark_closed(&transport)?;
        }
        if state == State::DoHandshake || self.loop_ref().is_parents() {
            // Differs: a forked child that does not go on with the loop does not end TLS for its parent.
            return self.abort(&Obj::none());
        }
        self.set_state(State::Flushing)?;
        self.limit_shutdown()?;
        self.do_flush()
    }

    /// Has the connection below ended while the application does not read, so that nothing happens until it does?
    fn waits_for_reader(&self) -> bool {
        self.state.get() == State::Flushing
            && self.eof_received.get()
            && self.app_reading_paused.get()
            && self.shutdown_timer.is_none()
    }

    /// Starts the time limit.
    fn limit_shutdown(&self) -> PyRes<()> {
        let limit = self.shutdown_timeout.get_or_none();
        let check = self.obj().getattr(names::check_shutdown_timeout())?;
        let loop_ = self.loop_.get_or_none();
        let handle = loop_.method(names::call_later(), [&limit, &check])?;
        self.shutdown_timer.set(handle);
        Ok(())
    }

    /// `_check_shutdown_timeout`.
    pub(super) fn check_shutdown_timeout(&self) -> PyRes<()> {
        if !matches!(self.state.get(), State::Flushing | State::Shutdown) {
            return Ok(());
        }
        let Some(transport) = self.transport.get() else {
            return Ok(());
        };
        let error = Builtin::Timeout.instance("SSL shutdown timed out")?;
        transport.method(names::force_close(), [&error]).map(drop)
    }

    /// `_do_flush`.
    pub(super) fn do_flush(&self) -> PyRes<()> {
        self.do_read()?;
        if self.state.get() != State::Flushing {
            // Differs: the application has aborted meanwhile, or did all this itself.
            return Ok(());
        }
        self.set_state(State::Shutdown)?;
        self.do_shutdown()
    }

    /// `_do_shutdown`.
    pub(super) fn do_shutdown(&self) -> PyRes<()> {
        let unwrapped = if self.eof_received.get() {
            Ok(())
        } else {
            self.ask_ssl(names::unwrap(), []).map(drop)
        };
        match unwrapped {
            Ok(()) => {
                self.process_outgoing()?;
                self.call_eof_received()?;
                self.on_shutdown_complete(None)
            }
            Err(raised) if is_again(&raised)? => {
                raised.discard();
                self.process_outgoing()
            }
            Err(raised) if raised.matches(stdlib::ssl_error()?) => {
                let exception = raised.take();
                while_handling(&exception, || self.on_shutdown_complete(Some(&exception)))
            }
            Err(raised) => Err(raised),
        }
    }

    /// `_on_shutdown_complete`.
    pub(super) fn on_shutdown_complete(&self, exception: Option<&Obj>) -> PyRes<()> {
        if let Some(exception) = exception {
            cancel_timer(&self.shutdown_timer)?;
            return self.fatal_error(exception, "Fatal error on transport");
        }
        // The transport below still sends what it has, which takes for ever if nobody reads: the limit holds on.
        if self.shutdown_timer.is_none() {
            self.limit_shutdown()?;
        }
        match self.transport.get() {
            Some(transport) => {
                let close = transport.getattr(names::close())?;
                self.loop_ref().call_soon(&close, &[], None).map(drop)
            }
            None => Ok(()),
        }
    }

    /// `_abort`.
    pub(super) fn abort(&self, exception: &Obj) -> PyRes<()> {
        self.set_state(State::Unwrapped)?;
        let Some(transport) = self.transport.get() else {
            return Ok(());
        };
        if !cfg!(Py_3_13) && exception.is_none() {
            // CPython: up to 3.12 there was no reason to tell.
            return transport.method(names::abort_transport(), []).map(drop);
        }
        transport
            .method(names::force_close(), [exception])
            .map(drop)
    }

    /// `eof_received`: the other side has closed the connection below.
    pub(super) fn lower_eof_received(&self) -> PyRes {
        self.eof_received.set(true);
        match self.after_eof() {
            Ok(true) => Ok(Obj::bool(true)),
            Ok(false) => Ok(Obj::none()),
            Err(raised) if raised.is(Builtin::Exception) => {
                let exception = raised.take();
                while_handling(&exception, || {
                    self.transport
                        .get_or_none()
                        .method(names::close(), [])
                        .map(drop)
                })?;
                Err(crate::ffi::Raised::restore(exception))
            }
            Err(raised) => Err(raised),
        }
    }

    /// What that means in each state. Shall the connection below stay open?
    fn after_eof(&self) -> PyRes<bool> {
        self.log_in_debug("%r received EOF")?;
        match self.state.get() {
            State::DoHandshake => {
                self.on_handshake_complete(Some(&Builtin::ConnectionReset.class()))?;
            }
            State::Wrapped => {
                self.set_state(State::Flushing)?;
                if self.app_reading_paused.get() {
                    return Ok(true);
                }
                self.do_flush()?;
            }
            State::Flushing => {
                self.do_write()?;
                self.set_state(State::Shutdown)?;
                self.do_shutdown()?;
            }
            State::Shutdown => self.do_shutdown()?,
            State::Unwrapped => {}
        }
        Ok(false)
    }

    /// `_call_eof_received`.
    pub(super) fn call_eof_received(&self) -> PyRes<()> {
        if self.app_state.get() != AppState::ConnectionMade {
            return Ok(());
        }
        self.app_state.set(AppState::Eof);
        let keep_open = self
            .app_protocol
            .get_or_none()
            .method(names::eof_received(), [])
            .and_then(|answer| answer.truth());
        match keep_open {
            Ok(false) => Ok(()),
            Ok(true) => {
                let text = "returning true from eof_received() has no effect when using ssl";
                stdlib::logger()?
                    .method(names::warning(), [&Obj::str(text)?])
                    .map(drop)
            }
            Err(raised) if crate::events::leaves_the_loop(&raised) => Err(raised),
            Err(raised) => {
                let exception = raised.take();
                while_handling(&exception, || {
                    self.fatal_error(&exception, "Error calling eof_received()")
                })
            }
        }
    }
}
