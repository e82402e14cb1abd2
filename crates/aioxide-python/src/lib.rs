//! `aioxide._aioxide`: asyncio in native code. A file per asyncio module, of the same name.

#[expect(unsafe_code, reason = "the C API lives here, behind safe faces")]
mod ffi;
mod names;
mod stdlib;

mod addresses;
mod base_events;
mod base_subprocess;
mod chaining;
mod clock;
mod combinators;
mod coroutines;
mod eager_tasks;
mod events;
mod futures;
mod locks;
mod mixins;
mod queues;
mod runners;
mod selector_events;
mod sslproto;
mod staggered;
mod steps;
mod streams;
mod subprocess;
mod taskgroups;
mod tasks;
mod threads;
mod timeouts;
mod unix_events;
mod waiter;
mod water_marks;

use pyo3::prelude::*;

use ffi::{GilCell, Obj, PyRes};

/// The module as it was made first. Sandboxes and tools that reload import it once more.
static FIRST: GilCell<Option<&'static Obj>> = GilCell::new(None);

/// The extension module.
#[pymodule]
fn _aioxide(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let object = ffi::module_object(module);
    let outcome = match FIRST.get() {
        Some(first) => share(first, &object),
        None => init(&object),
    };
    outcome.map_err(|raised| ffi::into_pyerr(module.py(), raised))
}

/// Gives another module object the classes and functions of the first: there is one set of them in a process.
fn share(first: &Obj, module: &Obj) -> PyRes<()> {
    let names = first.getattr_str("__dict__")?;
    for name in Obj::tuple(names.items()?)?.tuple_items() {
        let text = name.text()?;
        // The others are the module's own: its name, its loader.
        if !text.starts_with("__") || text == "__version__" {
            module.setattr(name, &names.item(name)?)?;
        }
    }
    Ok(())
}

/// Makes every class and function, in the order of their dependencies.
fn init(module: &Obj) -> PyRes<()> {
    // First of all: `_asyncio` imports parts of `asyncio`, which import `_asyncio`; the other way round it is made twice.
    Obj::import("asyncio")?;
    ffi::init()?;
    coroutines::init()?;
    events::init()?;
    futures::init(module)?;
    tasks::init(module)?;
    ffi::task_state::init()?;
    chaining::init(module)?;
    eager_tasks::init(module)?;
    timeouts::init(module)?;
    locks::init(module)?;
    queues::init(module)?;
    taskgroups::init(module)?;
    threads::init(module)?;
    combinators::init(module)?;
    staggered::init(module)?;
    streams::init(module)?;
    sslproto::init(module)?;
    subprocess::init(module)?;
    selector_events::init()?;
    base_subprocess::init()?;
    unix_events::init()?;
    base_events::init(module)?;
    runners::init(module)?;
    let (_, native_tasks) = ffi::function(
        ffi::Kind::Builtin,
        "aioxide._aioxide",
        "_native_tasks()",
        "All tasks of the native registry (up to 3.13).",
        |_| Obj::list(ffi::task_state::registered()),
    )?;
    ffi::add_to_module(module, "_native_tasks", &native_tasks)?;
    let names = Obj::dict()?;
    for (asyncio_module, parts) in NAMES {
        let public = Obj::tuple(
            parts
                .concat()
                .iter()
                .map(|name| Obj::str(name))
                .collect::<PyRes<Vec<Obj>>>()?,
        )?;
        names.set_item(&Obj::str(asyncio_module)?, &public)?;
    }
    ffi::add_to_module(module, "NAMES", &names)?;
    ffi::add_to_module(module, "__version__", &Obj::str(env!("CARGO_PKG_VERSION"))?)?;
    FIRST.set(Some(Box::leak(Box::new(module.clone()))));
    Ok(())
}

/// The native names, by the asyncio module that they answer.
const NAMES: &[(&str, &[&[&str]])] = &[
    ("events", &[events::NAMES]),
    ("futures", &[futures::NAMES, chaining::NAMES]),
    ("locks", &[locks::NAMES]),
    ("queues", &[queues::NAMES]),
    ("runners", &[runners::NAMES]),
    ("staggered", &[staggered::NAMES]),
    ("sslproto", &[sslproto::NAMES]),
    ("streams", &[streams::NAMES]),
    ("subprocess", &[subprocess::NAMES]),
    ("taskgroups", &[taskgroups::NAMES]),
    (
        "tasks",
        &[
            tasks::NAMES,
            eager_tasks::NAMES,
            combinators::NAMES,
            threads::TASKS_NAMES,
        ],
    ),
    ("threads", &[threads::NAMES]),
    ("timeouts", &[timeouts::NAMES]),
];
