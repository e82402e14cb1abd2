//! What an event loop has in asyncio and not yet here: subprocesses.
//!
//! Each method is there with asyncio's signature and says what is missing. As those of
//! `AbstractEventLoop`, which are `async def` too, it does so when it is awaited.

use crate::coroutines::coroutine;
use crate::events::EventLoop;
use crate::ffi::{Builtin, ClassBuilder, Machine, PyRes, Resume, Sent, Visit};

/// The body of a method that is missing.
struct Missing(&'static str);

impl Machine for Missing {
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        let name = self.0;
        Err(Builtin::NotImplemented.raise(&format!("aioxide's event loop has no {name}() yet")))
    }

    fn traverse(&self, _: &mut Visit<'_>) {}
}

/// Adds methods from a table of names and parameters.
macro_rules! missing {
    ($builder:expr; $($name:literal $parameters:literal;)*) => {
        $builder$(.coroutine(
            concat!($name, "(", $parameters, ")"),
            "Not there yet.",
            |_, _| coroutine(concat!("BaseEventLoop.", $name), Missing($name)),
        ))*
    };
}

/// Adds this file's methods.
#[rustfmt::skip]
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    missing! { builder;
        "subprocess_shell" "self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, universal_newlines=False, shell=True, bufsize=0, encoding=None, errors=None, text=None, **kwargs";
        "subprocess_exec" "self, protocol_factory, program, *args, stdin=-1, stdout=-1, stderr=-1, universal_newlines=False, shell=False, bufsize=0, encoding=None, errors=None, text=None, **kwargs";
    }
}
