//! Task factories whose tasks start at once. Answers `eager_task_factory` of `asyncio/tasks.py`, on every Python.

use crate::events::LoopRef;
use crate::ffi::{
    Args, Class, ClassBuilder, GilSlot, Kind, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    add_to_module, function,
};
use crate::tasks::{Task, TaskOptions};
use crate::{names, stdlib};

/// Native names, of the asyncio module `tasks`.
pub(crate) const NAMES: &[&str] = &["eager_task_factory", "create_eager_task_factory"];

/// What `create_eager_task_factory` returns.
struct Factory {
    /// What makes the tasks.
    constructor: Slot,
}

/// Where the class is kept.
static FACTORY: Class<Factory> = Class::new();

impl Native for Factory {
    fn class() -> &'static Class<Self> {
        &FACTORY
    }

    fn empty() -> Self {
        Self {
            constructor: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.constructor);
    }

    fn clear(&self) {
        self.constructor.clear();
    }
}

/// `eager_task_factory`, which has the signature of every factory.
static EAGER_TASK_FACTORY: GilSlot = GilSlot::new();

/// What anyio reads of a factory, to make tasks that do not start at once: its code and its closure's constructor.
const STUB: &str = "\
def create_eager_task_factory(custom_task_constructor):
    def factory(loop, coro, *, eager_start=True, **kwargs):
        return custom_task_constructor
    return factory
";

/// The Python function whose code and closure `eager_task_factory` shows.
fn stub() -> PyRes {
    let builtins = Obj::import("builtins")?;
    let namespace = Obj::dict()?;
    let code = builtins.getattr_str("compile")?.call([
        &Obj::str(STUB)?,
        &Obj::str("<aioxide>")?,
        &Obj::str("exec")?,
    ])?;
    builtins.getattr_str("exec")?.call([&code, &namespace])?;
    let stub = namespace
        .item(&Obj::str("create_eager_task_factory")?)?
        .call([&Task::class().object()])?;
    stub.setattr_str("__module__", &Obj::str("asyncio.tasks")?)?;
    Ok(stub)
}

/// An attribute by which `inspect` finds the signature of a function.
fn of_signature(name: &str) -> PyRes {
    EAGER_TASK_FACTORY.get()?.getattr_str(name)
}

/// `constructor(coro, loop=loop, eager_start=eager_start, **kwargs)`, for `(loop, coro, *, eager_start=True, **kwargs)`.
fn construct(constructor: &Obj, args: &Args<'_>) -> PyRes {
    let yes = Obj::bool(true);
    let mut pairs = Vec::new();
    if let Some(keywords) = args.keywords() {
        for name in keywords.items()? {
            let value = keywords.item(&name)?;
            pairs.push((name, value));
        }
    }
    let mut all = vec![
        (names::loop_(), args.req(0)),
        (names::eager_start(), args.get(2).unwrap_or(&yes)),
    ];
    all.extend(pairs.iter().map(|(name, value)| (name, value)));
    constructor.call_kw(&[args.req(1)], &all)
}

/// `eager_task_factory(loop, coro, *, eager_start=True, **kwargs)`.
fn eager_task(args: &Args<'_>) -> PyRes {
    // Perf: eager tasks. Without a name or a context there is nothing to bind.
    if args.keywords().is_none()
        && let Some(direct) = LoopRef::new(args.req(0)).direct()
    {
        let options = TaskOptions {
            eager_start: args.truth(2, true)?,
            ..TaskOptions::default()
        };
        return Ref::<Task>::spawn(direct, args.req(1), &options).map(Ref::into_obj);
    }
    construct(&Task::class().object(), args)
}

/// Makes the class and the functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    ClassBuilder::<Factory>::new(
        "asyncio.tasks",
        "factory",
        "A task factory whose tasks start at once.",
    )
    .sealed()
    .repr(|this| {
        Ok(format!(
            "<function create_eager_task_factory.<locals>.factory at {:#x}>",
            this.obj().address()
        ))
    })
    .method(
        "__call__(self, loop, coro, *, eager_start=True, **kwargs)",
        "Makes a task.",
        |this, args| match this.constructor.get() {
            Some(constructor) => construct(&constructor, args),
            None => Err(Raised::runtime_error("the task factory was torn down")),
        },
    )
    .method(
        "__get__(self, instance, owner=None)",
        "Binds, as functions do.",
        |this, args| match args.some(0) {
            Some(instance) => stdlib::method_type()?.call([this.obj(), instance]),
            None => Ok(this.obj().clone()),
        },
    )
    .getter("__name__", |_| Obj::str("factory"))
    .getter("__qualname__", |_| {
        Obj::str("create_eager_task_factory.<locals>.factory")
    })
    .getter("__code__", |_| of_signature("__code__"))
    .getter("__closure__", |this| {
        let constructor = this.constructor.get_or_none();
        let cell = Obj::import("types")?.getattr_str("CellType")?;
        Obj::tuple([cell.call([&constructor])?])
    })
    .getter("__defaults__", |_| of_signature("__defaults__"))
    .getter("__kwdefaults__", |_| of_signature("__kwdefaults__"))
    .getter("__annotations__", |_| of_signature("__annotations__"))
    .build()?;
    let (_, create) = function(
        Kind::Function,
        "asyncio.tasks",
        "create_eager_task_factory(custom_task_constructor)",
        "A task factory whose tasks, made by `custom_task_constructor`, start at once.",
        |args| {
            Ref::new(Factory {
                constructor: Slot::new(args.req(0).clone()),
            })
        },
    )?;
    add_to_module(module, "create_eager_task_factory", &create)?;
    let (spec, eager) = function(
        Kind::Function,
        "asyncio.tasks",
        "create_eager_task_factory.<locals>.factory(loop, coro, *, eager_start=True, **kwargs)",
        "A task factory whose tasks start at once: what does not wait needs no turn of the loop.",
        eager_task,
    )?;
    spec.set_stub(stub()?);
    EAGER_TASK_FACTORY.set(&eager);
    add_to_module(module, "eager_task_factory", &eager)
}
