//! Async generators: the hooks by which the loop knows them, and their end.

use crate::coroutines::coroutine;
use crate::events::EventLoop;
use crate::ffi::{
    Builtin, ClassBuilder, Machine, Obj, PyRes, Ref, Resume, Sent, Visit, warn_resource,
};
use crate::waiter::Waiter;
use crate::{names, stdlib};

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
        .method(
            "_asyncgen_firstiter_hook(self, agen)",
            "Notes an async generator that is about to start.",
            |this, args| first_iteration(this, args.req(0)),
        )
        .method(
            "_asyncgen_finalizer_hook(self, agen)",
            "Closes an async generator that nobody refers to.",
            |this, args| finalize(this, args.req(0)),
        )
        .coroutine(
            "shutdown_asyncgens(self)",
            "Closes every async generator that has started.",
            |this, _| {
                let machine = Shutdown {
                    loop_: this.clone(),
                    closing: Vec::new(),
                    waiter: None,
                };
                coroutine("BaseEventLoop.shutdown_asyncgens", machine)
            },
        )
}

/// The set of async generators, as Python code sees it.
fn known(this: &Ref<EventLoop>) -> Obj {
    this.asyncgens.get_or_none()
}

/// `_asyncgen_firstiter_hook`.
fn first_iteration(this: &Ref<EventLoop>, agen: &Obj) -> PyRes<()> {
    if this.asyncgens_shutdown_called.get() {
        let text = format!(
            "asynchronous generator {} was scheduled after loop.shutdown_asyncgens() call",
            agen.repr()?
        );
        warn_resource(this.obj(), &text, 1)?;
    }
    known(this).method(names::add(), [agen]).map(drop)
}

/// `_asyncgen_finalizer_hook`: runs in whatever thread dropped the generator.
fn finalize(this: &Ref<EventLoop>, agen: &Obj) -> PyRes<()> {
    known(this).method(names::discard(), [agen])?;
    if this.closed.get() {
        return Ok(());
    }
    let create_task = this.obj().getattr(names::create_task())?;
    let closing = agen.method(names::aclose(), [])?;
    this.obj()
        .method(names::call_soon_threadsafe(), [&create_task, &closing])
        .map(drop)
}

/// The body of `shutdown_asyncgens`.
struct Shutdown {
    /// The loop.
    loop_: Ref<EventLoop>,
    /// The generators being closed.
    closing: Vec<Obj>,
    /// The wait for all of them.
    waiter: Option<Waiter>,
}

impl Shutdown {
    /// Begins to close the generators.
    fn start(&mut self) -> PyRes<Sent> {
        self.loop_.asyncgens_shutdown_called.set(true);
        let known = known(&self.loop_);
        if known.len()? == 0 {
            return Ok(Sent::Return(Obj::none()));
        }
        self.closing = known.items()?;
        known.method(names::clear(), [])?;
        let closing = self
            .closing
            .iter()
            .map(|agen| agen.method(names::aclose(), []))
            .collect::<PyRes<Vec<Obj>>>()?;
        let closing: Vec<&Obj> = closing.iter().collect();
        let gathered = stdlib::gather()?
            .call_kw(&closing, &[(names::return_exceptions(), &Obj::bool(true))])?;
        let sent = self.waiter.insert(Waiter::on(gathered)).start()?;
        self.go_on(sent)
    }

    /// Waits on, or reports what went wrong.
    fn go_on(&mut self, sent: Sent) -> PyRes<Sent> {
        let results = match sent {
            Sent::Yield(value) => return Ok(Sent::Yield(value)),
            Sent::Return(results) => results.items()?,
        };
        let closing = std::mem::take(&mut self.closing);
        for (result, agen) in results.iter().zip(&closing) {
            if Builtin::Exception.is_class_of(result) {
                self.report(result, agen)?;
            }
        }
        Ok(Sent::Return(Obj::none()))
    }

    /// Tells the loop's exception handler of a generator that failed to close.
    fn report(&self, error: &Obj, agen: &Obj) -> PyRes<()> {
        let context = Obj::dict()?;
        let text = format!(
            "an error occurred during closing of asynchronous generator {}",
            agen.repr()?
        );
        context.set_item(names::message(), &Obj::str(&text)?)?;
        context.set_item(names::exception(), error)?;
        context.set_item(names::asyncgen(), agen)?;
        self.loop_
            .obj()
            .method(names::call_exception_handler(), [&context])
            .map(drop)
    }
}

impl Machine for Shutdown {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let sent = match &mut self.waiter {
            None => return self.start(),
            Some(waiter) => waiter.resume(input)?,
        };
        self.go_on(sent)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.loop_);
        for agen in &self.closing {
            visit.obj(agen);
        }
        if let Some(waiter) = &self.waiter {
            waiter.traverse(visit);
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.waiter.as_ref().map(|waiter| waiter.future().clone())
    }
}
