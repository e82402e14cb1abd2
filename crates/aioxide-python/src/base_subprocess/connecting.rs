//! `_connect_pipes`: the pipes of a child one after the other, by the loop's own methods.

use crate::coroutines::Coroutine;
use crate::events::{LoopRef, leaves_the_loop};
use crate::ffi::{Builtin, Obj, PyRes, Raised, Ref, Visit, while_handling};
use crate::names;
use crate::steps::{Next, Steps, in_steps};
use crate::waiter::{is_cancelled, set_exception, set_result};

use super::pipe_protocols::factory;
use super::transport::SubprocessTransport;

/// The coroutine that connects the pipes of `proc`, a `Popen`.
pub(super) fn connect_pipes(
    transport: &Ref<SubprocessTransport>,
    proc: &Obj,
    waiter: Option<&Obj>,
) -> PyRes<Ref<Coroutine>> {
    in_steps(
        "BaseSubprocessTransport._connect_pipes",
        ConnectPipes {
            transport: transport.clone(),
            proc: proc.clone(),
            waiter: waiter.cloned(),
            connecting: None,
        },
    )
}

/// The body.
struct ConnectPipes {
    /// The transport of the child.
    transport: Ref<SubprocessTransport>,
    /// The `Popen`.
    proc: Obj,
    /// Who waits for all of it.
    waiter: Option<Obj>,
    /// The pipe that is being connected.
    connecting: Option<i64>,
}

impl ConnectPipes {
    /// The `Popen`'s file objects, by number.
    fn file(&self, fd: i64) -> PyRes {
        self.proc.getattr(match fd {
            0 => names::stdin(),
            1 => names::stdout(),
            _ => names::stderr(),
        })
    }

    /// Notes a connected pipe and goes on with the next one.
    fn go_on(&mut self, outcome: PyRes) -> PyRes<Next> {
        let made = outcome?;
        if let Some(fd) = self.connecting {
            let [_, protocol] = made.tuple_items() else {
                return Err(Raised::value_error(
                    "not enough values to unpack (expected 2)",
                ));
            };
            let pipes = self.transport.pipes();
            pipes.set_item(&Obj::int(fd)?, protocol)?;
        }
        for fd in self.connecting.map_or(0, |fd| fd + 1)..3 {
            let file = self.file(fd)?;
            if file.is_none() {
                continue;
            }
            self.connecting = Some(fd);
            let method = if fd == 0 {
                names::connect_write_pipe()
            } else {
                names::connect_read_pipe()
            };
            let factory = factory(self.transport.obj(), fd)?;
            return self
                .current_loop()
                .method(method, [&factory, &file])
                .map(Next::Await);
        }
        self.connecting = Some(3);
        self.tell()?;
        Ok(Next::Done(Obj::none()))
    }

    /// The loop, or `None`.
    fn current_loop(&self) -> Obj {
        let loop_ = self.transport.parts.loop_.get();
        loop_.map_or_else(Obj::none, Ref::into_obj)
    }

    /// Tells the protocol of the connection and of all that has happened since.
    fn tell(&self) -> PyRes<()> {
        if self.transport.is_connected() {
            return Err(Builtin::Assertion.raise_bare());
        }
        let loop_ = LoopRef::new(&self.current_loop());
        let protocol = self.transport.parts.protocol.get_or_none();
        let made = protocol.getattr(names::connection_made())?;
        loop_.call_soon(&made, &[self.transport.obj()], None)?;
        let Some(pending) = self.transport.take_pending_calls() else {
            return Ok(());
        };
        for call in pending.items()? {
            if let [callback, data] = call.tuple_items() {
                let data: Vec<&Obj> = data.tuple_items().iter().collect();
                loop_.call_soon(callback, &data, None)?;
            }
        }
        Ok(())
    }

    /// Closes what was connected and what was not.
    fn abandon(&self) -> PyRes<()> {
        for protocol in self
            .transport
            .pipes()
            .method(names::values(), [])?
            .items()?
        {
            if !protocol.is_none() {
                protocol
                    .getattr(names::pipe())?
                    .method(names::close(), [])?;
            }
        }
        self.transport.close_files()
    }

    /// The waiter, if it still waits.
    fn waiting(&self) -> PyRes<Option<&Obj>> {
        match &self.waiter {
            Some(waiter) if !is_cancelled(waiter)? => Ok(Some(waiter)),
            _ => Ok(None),
        }
    }
}

impl Steps for ConnectPipes {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        match self.go_on(outcome) {
            Ok(next @ Next::Done(_)) => {
                if let Some(waiter) = self.waiting()? {
                    set_result(waiter, Obj::none())?;
                }
                Ok(next)
            }
            Ok(next) => Ok(next),
            Err(raised) if leaves_the_loop(&raised) => Err(raised),
            Err(raised) => {
                let exception = raised.take();
                while_handling(&exception, || {
                    self.abandon()?;
                    if let Some(waiter) = self.waiting()? {
                        set_exception(waiter, &exception)?;
                    }
                    Ok(Next::Done(Obj::none()))
                })
            }
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.transport);
        visit.obj(&self.proc);
        if let Some(waiter) = &self.waiter {
            visit.obj(waiter);
        }
    }
}
