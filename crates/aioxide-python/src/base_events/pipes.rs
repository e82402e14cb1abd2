//! `connect_read_pipe` and `connect_write_pipe`.

use crate::coroutines::{Coroutine, coroutine};
use crate::events::EventLoop;
use crate::ffi::{Args, ClassBuilder, Machine, Obj, PyRes, Ref, Resume, Sent, Visit};
use crate::unix_events::read_pipe::make_read_pipe_transport;
use crate::unix_events::write_pipe::make_write_pipe_transport;
use crate::waiter::Waiter;
use crate::{names, stdlib};

use super::opening::Opening;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            "connect_read_pipe(self, protocol_factory, pipe)",
            "Has a protocol read from a pipe. Returns a transport and the protocol.",
            |this, args| connect(this, args, End::Read),
        )
        .coroutine(
            "connect_write_pipe(self, protocol_factory, pipe)",
            "Has a protocol write to a pipe. Returns a transport and the protocol.",
            |this, args| connect(this, args, End::Write),
        )
}

/// An end of a pipe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The one to read from.
    Read,
    /// The one to write to.
    Write,
}

/// The coroutine of either method.
fn connect(this: &Ref<EventLoop>, args: &Args<'_>, end: End) -> PyRes<Ref<Coroutine>> {
    let name = match end {
        End::Read => "BaseEventLoop.connect_read_pipe",
        End::Write => "BaseEventLoop.connect_write_pipe",
    };
    let machine = Connect {
        loop_: this.clone(),
        factory: args.req(0).clone(),
        pipe: args.req(1).clone(),
        end,
        opening: None,
    };
    coroutine(name, machine)
}

/// The body of either method.
struct Connect {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// Makes the protocol.
    factory: Obj,
    /// The file object.
    pipe: Obj,
    /// Which end of a pipe it is.
    end: End,
    /// The transport, once it is made.
    opening: Option<Opening>,
}

impl Connect {
    /// Makes protocol and transport.
    fn start(&mut self) -> PyRes<Sent> {
        let protocol = self.factory.call([])?;
        let waiter = Waiter::create(self.loop_.obj())?;
        let (loop_, pipe, future) = (&self.loop_, &self.pipe, Some(waiter.future()));
        let transport = match self.end {
            End::Read => make_read_pipe_transport(loop_, pipe, &protocol, future, None)?.into_obj(),
            End::Write => {
                make_write_pipe_transport(loop_, pipe, &protocol, future, None)?.into_obj()
            }
        };
        let opening = self.opening.insert(Opening {
            transport,
            protocol,
            waiter,
        });
        let sent = opening.start()?;
        self.finish(sent)
    }

    /// Logs the end, in debug mode.
    fn finish(&self, sent: Sent) -> PyRes<Sent> {
        if let (Sent::Return(_), Some(opening), true) =
            (&sent, &self.opening, self.loop_.debug.get())
        {
            let text = Obj::str(match self.end {
                End::Read => "Read pipe %r connected: (%r, %r)",
                End::Write => "Write pipe %r connected: (%r, %r)",
            })?;
            // Differs: asyncio asks the file object, which is closed by now if `connection_made` closed the transport.
            let fd = opening.transport.getattr_str("_fileno")?;
            stdlib::logger()?.method(
                names::debug(),
                [&text, &fd, &opening.transport, &opening.protocol],
            )?;
        }
        Ok(sent)
    }
}

impl Machine for Connect {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = match &mut self.opening {
            None => return self.start(),
            Some(opening) => opening.resume(input)?,
        };
        self.finish(sent)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        visit.obj(&self.factory);
        visit.obj(&self.pipe);
        if let Some(opening) = &self.opening {
            opening.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        let opening = self.opening.as_ref()?;
        Some(opening.waiter.future().clone())
    }
}
