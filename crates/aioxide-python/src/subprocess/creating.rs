//! `create_subprocess_exec` and `create_subprocess_shell`: streams around the loop's own methods.

use crate::coroutines::Coroutine;
use crate::events::get_running_loop;
use crate::ffi::{Args, Kind, Obj, PyRes, Raised, Ref, Visit, add_to_module, function};
use crate::names;
use crate::steps::{Next, Steps, in_steps};

use super::MODULE;
use super::process::Process;
use super::protocol::factory;

/// The body of either function.
struct Create {
    /// The name of the loop's method.
    method: fn() -> &'static Obj,
    /// The program and its arguments, or the command.
    args: Vec<Obj>,
    /// The child's standard streams.
    streams: [Obj; 3],
    /// The limit of readers; `None` is the default.
    limit: Option<Obj>,
    /// All other options.
    keywords: Option<Obj>,
    /// The loop, once its method was called.
    loop_: Option<Obj>,
}

impl Create {
    /// The coroutine of either function.
    fn coroutine(
        qualname: &'static str,
        method: fn() -> &'static Obj,
        args: &Args<'_>,
    ) -> PyRes<Ref<Coroutine>> {
        let stream = |index| args.get(index).cloned().unwrap_or_else(Obj::none);
        in_steps(
            qualname,
            Self {
                method,
                args: std::iter::once(args.req(0))
                    .chain(args.rest())
                    .cloned()
                    .collect(),
                streams: [stream(1), stream(2), stream(3)],
                limit: args.get(4).cloned(),
                keywords: args.keywords().cloned(),
                loop_: None,
            },
        )
    }

    /// Calls the loop's method.
    fn start(&mut self) -> PyRes<Next> {
        let loop_ = get_running_loop()?;
        let limit = match &self.limit {
            Some(limit) => limit.clone(),
            None => Obj::int(1 << 16)?,
        };
        let factory = factory(&limit, &loop_)?;
        let args = Obj::tuple(std::iter::once(factory).chain(self.args.iter().cloned()))?;
        let options = Obj::dict()?;
        for (name, stream) in [names::stdin(), names::stdout(), names::stderr()]
            .into_iter()
            .zip(&self.streams)
        {
            options.set_item(name, stream)?;
        }
        if let Some(keywords) = &self.keywords {
            options.method(names::update(), [keywords])?;
        }
        let method = loop_.getattr((self.method)())?;
        self.loop_ = Some(loop_);
        method.call_dict(&args, Some(&options)).map(Next::Await)
    }
}

impl Steps for Create {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        let value = outcome?;
        let Some(loop_) = &self.loop_ else {
            return self.start();
        };
        let pair = value.items()?;
        let [transport, protocol] = pair.as_slice() else {
            return Err(Raised::value_error(&format!(
                "expected a transport and a protocol, got {} values",
                pair.len()
            )));
        };
        let process = Ref::<Process>::create(transport, protocol, loop_)?;
        Ok(Next::Done(process.into_obj()))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        let held = self.args.iter().chain(&self.streams).chain(&self.limit);
        for object in held.chain(&self.keywords).chain(&self.loop_) {
            visit.obj(object);
        }
    }
}

/// Makes the functions.
pub(super) fn init(module: &Obj) -> PyRes<()> {
    let (_, shell) = function(
        Kind::CoroutineFunction,
        MODULE,
        "create_subprocess_shell(cmd, stdin=None, stdout=None, stderr=None, limit=65536, **kwds)",
        "Has the shell run a command; returns a `Process`.\n\n\
         Takes what `subprocess.Popen` takes, and the limit of the readers.",
        |args| Create::coroutine("create_subprocess_shell", names::subprocess_shell, args),
    )?;
    add_to_module(module, "create_subprocess_shell", &shell)?;
    let (_, exec) = function(
        Kind::CoroutineFunction,
        MODULE,
        "create_subprocess_exec(program, *args, stdin=None, stdout=None, stderr=None, limit=65536, **kwds)",
        "Runs a program; returns a `Process`.\n\n\
         Takes what `subprocess.Popen` takes, and the limit of the readers.",
        |args| Create::coroutine("create_subprocess_exec", names::subprocess_exec, args),
    )?;
    add_to_module(module, "create_subprocess_exec", &exec)
}
