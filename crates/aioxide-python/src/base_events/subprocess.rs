//! `subprocess_exec` and `subprocess_shell`.

use crate::base_subprocess::{Program, SubprocessTransport, make_subprocess_transport};
use crate::combinators::shielded;
use crate::coroutines::Coroutine;
use crate::events::{EventLoop, leaves_the_loop};
use crate::ffi::{Args, ClassBuilder, Obj, PyRes, Raised, Ref, Visit, while_handling};
use crate::steps::{Next, Steps, in_steps};
use crate::waiter::create_future;
use crate::{names, stdlib};

/// The parameters of the method for programs.
const EXEC: &str = "subprocess_exec(self, protocol_factory, program, *args, stdin=-1, stdout=-1, stderr=-1, universal_newlines=False, shell=False, bufsize=0, encoding=None, errors=None, text=None, **kwargs)";
/// The parameters of the method for the shell.
const SHELL: &str = "subprocess_shell(self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, universal_newlines=False, shell=True, bufsize=0, encoding=None, errors=None, text=None, **kwargs)";
/// The parameters of what both call.
const MAKE: &str = "_make_subprocess_transport(self, protocol, args, shell, stdin, stdout, stderr, bufsize, extra=None, **kwargs)";

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .coroutine(
            SHELL,
            "Has the shell run a command. Returns a transport and a protocol.",
            |this, args| Create::coroutine(this, args, true),
        )
        .coroutine(
            EXEC,
            "Runs a program. Returns a transport and a protocol.",
            |this, args| Create::coroutine(this, args, false),
        )
        .coroutine(
            MAKE,
            "Starts a child and waits until its pipes are connected. Returns its transport.",
            make,
        )
        .method(
            "_child_watcher_callback(self, pid, returncode, transp)",
            "Tells the transport of a child that this has ended.",
            |_, args| {
                let transport = args.req(2);
                transport.method(names::process_exited_private(), [args.req(1)])
            },
        )
}

/// The body of either method.
struct Create {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// Is the shell to run a command?
    shell: bool,
    /// Makes the protocol.
    factory: Obj,
    /// The program and its arguments, or the command.
    program: Vec<Obj>,
    /// The child's standard streams; `None` is a pipe.
    streams: [Option<Obj>; 3],
    /// The options that asyncio looks at.
    checked: Checked,
    /// All other options.
    keywords: Option<Obj>,
    /// The protocol, and the text for the log in debug mode, once begun.
    begun: Option<(Obj, Option<Obj>)>,
}

/// Options with only one value that is allowed.
struct Checked {
    /// `universal_newlines`.
    universal_newlines: Option<Obj>,
    /// `shell`.
    shell: Option<Obj>,
    /// `bufsize`.
    bufsize: Option<Obj>,
    /// `encoding`.
    encoding: Option<Obj>,
    /// `errors`.
    errors: Option<Obj>,
    /// `text`.
    text: Option<Obj>,
}

/// Is the option given and true?
fn is_true(option: Option<&Obj>) -> PyRes<bool> {
    option.map_or(Ok(false), Obj::truth)
}

impl Checked {
    /// Refuses every other value.
    fn check(&self, shell: bool) -> PyRes<()> {
        if is_true(self.universal_newlines.as_ref())? {
            return Err(Raised::value_error("universal_newlines must be False"));
        }
        if self.shell.as_ref().map_or(Ok(shell), Obj::truth)? != shell {
            return Err(Raised::value_error(if shell {
                "shell must be True"
            } else {
                "shell must be False"
            }));
        }
        if let Some(bufsize) = &self.bufsize
            && !bufsize.equals(&Obj::int(0)?)?
        {
            return Err(Raised::value_error("bufsize must be 0"));
        }
        if is_true(self.text.as_ref())? {
            return Err(Raised::value_error("text must be False"));
        }
        if self.encoding.is_some() {
            return Err(Raised::value_error("encoding must be None"));
        }
        if self.errors.is_some() {
            return Err(Raised::value_error("errors must be None"));
        }
        Ok(())
    }
}

impl Create {
    /// The coroutine of either method.
    fn coroutine(this: &Ref<EventLoop>, args: &Args<'_>, shell: bool) -> PyRes<Ref<Coroutine>> {
        let qualname = if shell {
            "BaseEventLoop.subprocess_shell"
        } else {
            "BaseEventLoop.subprocess_exec"
        };
        let (given, some) = (|at| args.get(at).cloned(), |at| args.some(at).cloned());
        in_steps(
            qualname,
            Self {
                loop_: this.clone(),
                shell,
                factory: args.req(0).clone(),
                program: std::iter::once(args.req(1))
                    .chain(args.rest())
                    .cloned()
                    .collect(),
                streams: [given(2), given(3), given(4)],
                checked: Checked {
                    universal_newlines: given(5),
                    shell: given(6),
                    bufsize: given(7),
                    encoding: some(8),
                    errors: some(9),
                    text: given(10),
                },
                keywords: args.keywords().cloned(),
                begun: None,
            },
        )
    }

    /// Everything up to the making of the transport.
    fn start(&mut self) -> PyRes<Next> {
        let first = &self.program[0];
        if self.shell && !first.is_str() && first.as_bytes().is_none() {
            return Err(Raised::value_error("cmd must be a string"));
        }
        self.checked.check(self.shell)?;
        let protocol = self.factory.call([])?;
        let pipe = Obj::int(-1)?;
        let streams = [0, 1, 2].map(|at: usize| self.streams[at].clone().unwrap_or(pipe.clone()));
        let [stdin, stdout, stderr] = streams;
        // The arguments may be secret, and long.
        let log = if self.loop_.debug.get() {
            let what = if self.shell {
                "run shell command"
            } else {
                "execute program"
            };
            let text = Obj::str(&format!("{what} {}", first.repr()?))?;
            let method = names::log_subprocess();
            self.loop_
                .obj()
                .method(method, [&text, &stdin, &stdout, &stderr])?;
            Some(text)
        } else {
            None
        };
        let program = if self.shell {
            first.clone()
        } else {
            Obj::tuple(self.program.iter().cloned())?
        };
        let bufsize = match &self.checked.bufsize {
            Some(bufsize) => bufsize.clone(),
            None => Obj::int(0)?,
        };
        let shell = Obj::bool(self.shell);
        let args = Obj::tuple([
            protocol.clone(),
            program,
            shell,
            stdin,
            stdout,
            stderr,
            bufsize,
        ])?;
        self.begun = Some((protocol, log));
        self.loop_
            .obj()
            .getattr(names::make_subprocess_transport())?
            .call_dict(&args, self.keywords.as_ref())
            .map(Next::Await)
    }
}

impl Steps for Create {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let transport = outcome?;
        let Some((protocol, log)) = &self.begun else {
            return self.start();
        };
        if let Some(text) = log
            && self.loop_.debug.get()
        {
            let format = Obj::str("%s: %r")?;
            stdlib::logger()?.method(names::info(), [&format, text, &transport])?;
        }
        Obj::tuple([transport, protocol.clone()]).map(Next::Done)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        visit.obj(&self.factory);
        let checked = &self.checked;
        let options = [
            &checked.universal_newlines,
            &checked.shell,
            &checked.bufsize,
            &checked.encoding,
            &checked.errors,
            &checked.text,
            &self.keywords,
        ];
        let options = options.into_iter().chain(&self.streams).flatten();
        for object in self.program.iter().chain(options) {
            visit.obj(object);
        }
        if let Some((protocol, log)) = &self.begun {
            visit.obj(protocol);
            if let Some(text) = log {
                visit.obj(text);
            }
        }
    }
}

/// `_make_subprocess_transport`.
fn make(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes<Ref<Coroutine>> {
    in_steps(
        "_UnixSelectorEventLoop._make_subprocess_transport",
        Make {
            loop_: this.clone(),
            given: (0..7).map(|at| args.req(at).clone()).collect(),
            extra: args.some(7).cloned(),
            keywords: args.keywords().cloned(),
            transport: None,
            failure: None,
        },
    )
}

/// Its body.
struct Make {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The arguments up to `bufsize`, in their order.
    given: Vec<Obj>,
    /// What `get_extra_info` is to know besides.
    extra: Option<Obj>,
    /// All other options.
    keywords: Option<Obj>,
    /// The transport, once it is made.
    transport: Option<Ref<SubprocessTransport>>,
    /// What went wrong, while the end of the child is awaited.
    failure: Option<Obj>,
}

impl Make {
    /// Starts the child, up to the wait for its pipes.
    fn start(&mut self) -> PyRes<Next> {
        let waiter = create_future(self.loop_.obj())?;
        let given = &self.given;
        let program = Program {
            args: &given[1],
            shell: &given[2],
            streams: [&given[3], &given[4], &given[5]],
            bufsize: &given[6],
            options: self.keywords.as_ref(),
        };
        let (loop_, extra) = (&self.loop_, self.extra.as_ref());
        let transport = make_subprocess_transport(loop_, &given[0], &program, &waiter, extra)?;
        self.transport = Some(transport.clone());
        if let Err(raised) = transport.watch_child() {
            let exception = raised.take();
            while_handling(&exception, || transport.close())?;
            return Err(Raised::restore(exception));
        }
        Ok(Next::Await(waiter))
    }

    /// The wait failed: the child is killed, and its end awaited.
    fn give_up(&mut self, raised: Raised, transport: &Ref<SubprocessTransport>) -> PyRes<Next> {
        if leaves_the_loop(&raised) {
            return Err(raised);
        }
        let exception = raised.take();
        let ended = while_handling(&exception, || {
            transport.close()?;
            shielded(&transport.obj().method(names::process_wait(), [])?)
        })?;
        self.failure = Some(exception);
        Ok(Next::Await(ended))
    }
}

impl Steps for Make {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let Some(transport) = self.transport.clone() else {
            outcome?;
            return self.start();
        };
        match (outcome, self.failure.take()) {
            (Ok(_), None) => Ok(Next::Done(transport.into_obj())),
            (Err(raised), None) => self.give_up(raised, &transport),
            (Ok(_), Some(failure)) => Err(Raised::restore(failure)),
            (Err(raised), Some(failure)) => Err(raised.during(failure)),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        let held = self.given.iter().chain(&self.extra).chain(&self.keywords);
        for object in held.chain(&self.failure) {
            visit.obj(object);
        }
        if let Some(transport) = &self.transport {
            visit.native(transport);
        }
    }
}
