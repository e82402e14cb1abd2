//! `Process.communicate` and its three parts.

use crate::combinators::gather_all;
use crate::coroutines::{Coroutine, coroutine};
use crate::events::LoopRef;
use crate::ffi::{Builtin, Machine, Obj, PyRes, Raised, Ref, Resume, Sent, Visit, while_handling};
use crate::steps::{Next, Steps, in_steps};
use crate::{names, stdlib};

use super::process::Process;

/// Logs a line about a child, in debug mode.
fn log<const N: usize>(process: &Ref<Process>, text: &str, more: [&Obj; N]) -> PyRes<()> {
    if !is_debug(process)? {
        return Ok(());
    }
    let text = Obj::str(text)?;
    let args: Vec<&Obj> = [&text, process.obj()].into_iter().chain(more).collect();
    stdlib::subprocess_logger()?
        .method_kw(names::debug(), &args, &[])
        .map(drop)
}

/// Is the loop in debug mode?
fn is_debug(process: &Ref<Process>) -> PyRes<bool> {
    LoopRef::new(&process.loop_.get_or_none()).debug()
}

/// The body of `_feed_stdin(input)`.
struct FeedStdin {
    /// The child.
    process: Ref<Process>,
    /// What to write.
    input: Option<Obj>,
    /// Does it wait for `drain()`?
    draining: bool,
}

/// `_feed_stdin(input)`.
pub(super) fn feed_stdin(process: &Ref<Process>, input: Option<&Obj>) -> PyRes<Ref<Coroutine>> {
    in_steps(
        "Process._feed_stdin",
        FeedStdin {
            process: process.clone(),
            input: input.cloned(),
            draining: false,
        },
    )
}

impl FeedStdin {
    /// Writes, up to the wait for room.
    fn write(&mut self) -> PyRes<Next> {
        let stdin = self.process.stdin.get_or_none();
        if let Some(input) = self.input.take() {
            stdin.method(names::write(), [&input])?;
            if is_debug(&self.process)? {
                let size = Obj::int(i64::try_from(input.len()?).unwrap_or(i64::MAX))?;
                log(
                    &self.process,
                    "%r communicate: feed stdin (%s bytes)",
                    [&size],
                )?;
            }
        }
        self.draining = true;
        stdin.method(names::drain(), []).map(Next::Await)
    }

    /// Closes the child's input. That the child does not read is no error.
    fn close(&self, outcome: PyRes<()>) -> PyRes<Next> {
        if let Err(raised) = outcome {
            let is_usual =
                raised.is(Builtin::ConnectionReset) || raised.matches(stdlib::broken_pipe_error()?);
            if !is_usual {
                return Err(raised);
            }
            let exception = raised.take();
            while_handling(&exception, || {
                log(&self.process, "%r communicate: stdin got %r", [&exception])
            })?;
        }
        log(&self.process, "%r communicate: close stdin", [])?;
        let stdin = self.process.stdin.get_or_none();
        stdin.method(names::close(), [])?;
        Ok(Next::Done(Obj::none()))
    }
}

impl Steps for FeedStdin {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        if self.draining {
            return self.close(outcome.map(drop));
        }
        outcome?;
        match self.write() {
            Ok(next) => Ok(next),
            Err(raised) => self.close(Err(raised)),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.process);
        if let Some(input) = &self.input {
            visit.obj(input);
        }
    }
}

/// The body of `_noop()`.
struct Noop;

impl Machine for Noop {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        match input {
            Resume::Send => Ok(Sent::Return(Obj::none())),
            Resume::Throw(exception) => Err(Raised::restore(exception)),
        }
    }

    fn traverse(&self, _: &mut Visit<'_>) {}
}

/// `_noop()`.
pub(super) fn noop() -> PyRes<Ref<Coroutine>> {
    coroutine("Process._noop", Noop)
}

/// The body of `_read_stream(fd)`.
struct ReadStream {
    /// The child.
    process: Ref<Process>,
    /// The number of the pipe.
    fd: Obj,
    /// The transport of the pipe, once it is read from.
    pipe: Option<Obj>,
}

/// `_read_stream(fd)`.
pub(super) fn read_stream(process: &Ref<Process>, fd: &Obj) -> PyRes<Ref<Coroutine>> {
    in_steps(
        "Process._read_stream",
        ReadStream {
            process: process.clone(),
            fd: fd.clone(),
            pipe: None,
        },
    )
}

impl ReadStream {
    /// Begins to read.
    fn start(&mut self) -> PyRes<Next> {
        let transport = self.process.transport.get_or_none();
        let pipe = transport.method(names::get_pipe_transport(), [&self.fd])?;
        let stream = if self.fd.equals(&Obj::int(2)?)? {
            self.process.stderr.get_or_none()
        } else if self.fd.equals(&Obj::int(1)?)? {
            self.process.stdout.get_or_none()
        } else {
            return Err(Builtin::Assertion.raise_bare());
        };
        self.pipe = Some(pipe);
        self.log("%r communicate: read %s")?;
        stream.method(names::read(), []).map(Next::Await)
    }

    /// Logs a line about the pipe, in debug mode.
    fn log(&self, text: &str) -> PyRes<()> {
        let is_stdout = self.fd.equals(&Obj::int(1)?)?;
        let name = Obj::str(if is_stdout { "stdout" } else { "stderr" })?;
        log(&self.process, text, [&name])
    }
}

impl Steps for ReadStream {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let Some(pipe) = self.pipe.clone() else {
            outcome?;
            return self.start();
        };
        let output = outcome?;
        self.log("%r communicate: close %s")?;
        pipe.method(names::close(), [])?;
        Ok(Next::Done(output))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.process);
        visit.obj(&self.fd);
        if let Some(pipe) = &self.pipe {
            visit.obj(pipe);
        }
    }
}

/// How far `communicate` is.
enum Communicating {
    /// Not begun; with what to write.
    Start(Option<Obj>),
    /// Writing and reading go on.
    Gathering,
    /// Only the end is missing; with output and error output.
    Waiting(Obj),
}

/// The body of `communicate(input)`.
struct Communicate {
    /// The child.
    process: Ref<Process>,
    /// How far it is.
    state: Communicating,
}

/// `communicate(input)`.
pub(super) fn communicate(process: &Ref<Process>, input: Option<&Obj>) -> PyRes<Ref<Coroutine>> {
    in_steps(
        "Process.communicate",
        Communicate {
            process: process.clone(),
            state: Communicating::Start(input.cloned()),
        },
    )
}

impl Communicate {
    /// Begins to write and to read.
    fn start(&self, input: &Obj) -> PyRes<Next> {
        let process = self.process.obj();
        let noop = || process.method(names::noop(), []);
        let read = |fd| process.method(names::read_stream(), [&Obj::int(fd)?]);
        let stdin = if self.process.stdin.is_some() {
            process.method(names::feed_stdin(), [input])?
        } else {
            noop()?
        };
        let stdout = if self.process.stdout.is_some() {
            read(1)?
        } else {
            noop()?
        };
        let stderr = if self.process.stderr.is_some() {
            read(2)?
        } else {
            noop()?
        };
        gather_all(&[stdin, stdout, stderr], false).map(Next::Await)
    }
}

impl Steps for Communicate {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let value = outcome?;
        match &mut self.state {
            Communicating::Start(input) => {
                let input = input.take().unwrap_or_else(Obj::none);
                self.state = Communicating::Gathering;
                self.start(&input)
            }
            Communicating::Gathering => {
                let mut parts = value.items()?.into_iter().skip(1);
                let pair = [parts.next(), parts.next()].map(|part| part.unwrap_or_else(Obj::none));
                self.state = Communicating::Waiting(Obj::tuple(pair)?);
                let process = self.process.obj();
                process.method(names::wait(), []).map(Next::Await)
            }
            Communicating::Waiting(pair) => Ok(Next::Done(pair.clone())),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.process);
        match &self.state {
            Communicating::Start(Some(held)) | Communicating::Waiting(held) => visit.obj(held),
            Communicating::Start(None) | Communicating::Gathering => {}
        }
    }
}
