//! The exception handler protocol.

use crate::events::{EventLoop, leaves_the_loop};
use crate::ffi::{ClassBuilder, Obj, PyRes, Raised, Ref, while_handling};
use crate::{names, stdlib};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .method("get_exception_handler(self)", "The handler that was set, or `None`.", |this, _| {
            Ok(this.exception_handler.get())
        })
        .method(
            "set_exception_handler(self, handler)",
            "Has errors reported to `handler(loop, context)`; `None` for the default.",
            |this, args| {
                let handler = args.req(0);
                if !handler.is_none() && !handler.is_callable() {
                    return Err(Raised::type_error(&format!(
                        "A callable object or None is expected, got {}",
                        handler.repr()?
                    )));
                }
                drop(this.exception_handler.replace(args.some(0).cloned()));
                Ok(())
            },
        )
        .method(
            "call_exception_handler(self, context)",
            "Reports an error; `context` is a dict with `message` and, if known, `exception`, `future`, `task`, `handle`, …",
            |this, args| call_exception_handler(this, args.req(0)),
        )
}

/// `call_exception_handler`.
fn call_exception_handler(this: &Ref<EventLoop>, context: &Obj) -> PyRes<()> {
    let Some(handler) = this.exception_handler.get() else {
        return match this
            .obj()
            .method(names::default_exception_handler(), [context])
        {
            Ok(_) => Ok(()),
            Err(raised) if leaves_the_loop(&raised) => Err(raised),
            Err(raised) => log_error(raised, "Exception in default exception handler"),
        };
    };
    let Err(raised) = call_handler(this, &handler, context) else {
        return Ok(());
    };
    if leaves_the_loop(&raised) {
        return Err(raised);
    }
    let exception = raised.take();
    let report = Obj::dict()?;
    report.set_item(
        names::message(),
        &Obj::str("Unhandled error in exception handler")?,
    )?;
    report.set_item(names::exception(), &exception)?;
    report.set_item(names::context(), context)?;
    match while_handling(&exception, || {
        this.obj()
            .method(names::default_exception_handler(), [&report])
    }) {
        Ok(_) => Ok(()),
        Err(raised) if leaves_the_loop(&raised) => Err(raised),
        Err(raised) => log_error(
            raised,
            "Exception in default exception handler while handling an unexpected error in custom exception handler",
        ),
    }
}

/// Calls the handler in the context of the task, future or handle that the report is about.
fn call_handler(this: &Ref<EventLoop>, handler: &Obj, context: &Obj) -> PyRes<()> {
    for name in [names::task(), names::future(), names::handle()] {
        let Some(thing) = context
            .method(names::get(), [name])
            .map(|thing| (!thing.is_none()).then_some(thing))?
        else {
            continue;
        };
        if let Some(get_context) = thing.getattr_opt(names::get_context())? {
            let own = get_context.call([])?;
            if let Some(run) = own.getattr_opt(names::run())? {
                return run.call([handler, this.obj(), context]).map(drop);
            }
        }
        break;
    }
    handler.call([this.obj(), context]).map(drop)
}

/// Logs an error with its traceback.
fn log_error(raised: Raised, message: &str) -> PyRes<()> {
    let exception = raised.take();
    stdlib::logger()?
        .method_kw(
            names::error(),
            &[&Obj::str(message)?],
            &[(names::exc_info(), &exception)],
        )
        .map(drop)
}
