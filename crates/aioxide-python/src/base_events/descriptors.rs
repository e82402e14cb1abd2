//! `add_reader`, `add_writer` and their removal.

use crate::events::{Direction, EventLoop, Handle, Job, context_argument, run_handle};
use crate::ffi::{Args, Builtin, ClassBuilder, Obj, PyRes, Raised, Ref, copy_current_context};
use crate::names;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    let builder = builder
        .method(
            "add_reader(self, fd, callback, *args)",
            "Calls `callback(*args)` whenever the descriptor or file object can be read.",
            |this, args| add(this, args, Direction::Read),
        )
        .method(
            "remove_reader(self, fd)",
            "Ends `add_reader`; `False` if there was nothing.",
            |this, args| remove(this, args.req(0), Direction::Read),
        )
        .method(
            "add_writer(self, fd, callback, *args)",
            "Calls `callback(*args)` whenever the descriptor or file object can be written.",
            |this, args| add(this, args, Direction::Write),
        )
        .method(
            "remove_writer(self, fd)",
            "Ends `add_writer`; `False` if there was nothing.",
            |this, args| remove(this, args.req(0), Direction::Write),
        );
    builder
        .method(
            "_add_reader(self, fd, callback, *args, context=None)",
            "`add_reader` for the transport that owns the descriptor.",
            |this, args| add_unchecked(this, args, Direction::Read),
        )
        .method(
            "_remove_reader(self, fd)",
            "Ends `_add_reader`; `False` if there was nothing.",
            |this, args| remove_unchecked(this, args.req(0), Direction::Read),
        )
        .method(
            "_add_writer(self, fd, callback, *args, context=None)",
            "`add_writer` for the transport that owns the descriptor.",
            |this, args| add_unchecked(this, args, Direction::Write),
        )
        .method(
            "_remove_writer(self, fd)",
            "Ends `_add_writer`; `False` if there was nothing.",
            |this, args| remove_unchecked(this, args.req(0), Direction::Write),
        )
        .method(
            "_ensure_fd_no_transport(self, fd)",
            "Raises if a transport that is not closing uses the descriptor or file object.",
            |this, args| ensure_fd_no_transport(this, args.req(0)).map(drop),
        )
        .getter("_transports", known_transports)
}

/// The number of an `int` or a file object.
fn number(object: &Obj) -> PyRes<i64> {
    let number = if object.is_int() {
        object.as_i64()
    } else {
        fileno(object)
    };
    number.map_err(|raised| {
        let misses = [Builtin::Attribute, Builtin::Type, Builtin::Value];
        if misses.into_iter().any(|class| raised.is(class)) {
            invalid_file_object(raised, object)
        } else {
            raised
        }
    })
}

/// Says what is wrong with an object that has no descriptor.
#[cold]
fn invalid_file_object(raised: Raised, object: &Obj) -> Raised {
    let context = raised.take();
    let error = || -> PyRes {
        let error = Builtin::Value.instance(&format!("Invalid file object: {}", object.repr()?))?;
        error.set_exception_context(Some(context));
        error.setattr_str("__suppress_context__", &Obj::bool(true))?;
        Ok(error)
    };
    match error() {
        Ok(error) => Raised::restore(error),
        Err(raised) => raised,
    }
}

/// The descriptor that a number is.
fn descriptor(number: i64) -> PyRes<i32> {
    match i32::try_from(number) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => Err(Raised::value_error(&format!(
            "Invalid file descriptor: {number}"
        ))),
    }
}

/// `_transports`: a dict of the transports that are alive, by descriptor.
fn known_transports(this: &Ref<EventLoop>) -> PyRes {
    let found = Obj::dict()?;
    for (fd, transport) in this.known_transports()? {
        found.set_item(&Obj::int(fd.into())?, &transport)?;
    }
    Ok(found)
}

/// `_ensure_fd_no_transport`: refuses the descriptor of a transport that is in use; gives its number.
pub(super) fn ensure_fd_no_transport(this: &Ref<EventLoop>, object: &Obj) -> PyRes<i32> {
    let fd = descriptor(number(object)?)?;
    if let Some(transport) = this.transport_of(fd)?
        && !transport.method(names::is_closing(), [])?.truth()?
    {
        return Err(Raised::runtime_error(&format!(
            "File descriptor {} is used by transport {}",
            object.repr()?,
            transport.repr()?
        )));
    }
    Ok(fd)
}

/// `int(object.fileno())`.
fn fileno(object: &Obj) -> PyRes<i64> {
    let number = object.method(names::fileno(), [])?;
    if number.is_exact_int() {
        return number.as_i64();
    }
    Obj::import("builtins")?
        .getattr_str("int")?
        .call([&number])?
        .as_i64()
}

/// `add_reader` and `add_writer`.
fn add(this: &Ref<EventLoop>, args: &Args<'_>, direction: Direction) -> PyRes<()> {
    let fd = ensure_fd_no_transport(this, args.req(0))?;
    let context = copy_current_context()?;
    watch(this, fd, args, context, direction).map(drop)
}

/// `_add_reader` and `_add_writer`.
fn add_unchecked(
    this: &Ref<EventLoop>,
    args: &Args<'_>,
    direction: Direction,
) -> PyRes<Ref<Handle>> {
    let fd = descriptor(number(args.req(0))?)?;
    let context = context_argument(args, 2)?;
    watch(this, fd, args, context, direction)
}

/// Registers a callback; one that was there is cancelled.
fn watch(
    this: &Ref<EventLoop>,
    fd: i32,
    args: &Args<'_>,
    context: Obj,
    direction: Direction,
) -> PyRes<Ref<Handle>> {
    this.check_closed()?;
    let (file, callback) = (args.req(0), args.req(1));
    let handle = Handle::payload(callback, args.rest(), context, this.obj())?;
    let handle = Ref::new(handle)?;
    if this.debug.get() {
        handle.record_source()?;
    }
    let job = Job {
        body: run_handle,
        object: handle.obj().clone(),
    };
    this.register(fd, direction, job)?;
    let (previous, object) = {
        let mut descriptors = this.descriptors.borrow_mut();
        let watched = descriptors.entry(fd).or_default();
        let object = (!file.is_int()).then(|| file.clone());
        (
            watched.handle_mut(direction).replace(handle.clone()),
            std::mem::replace(&mut watched.object, object),
        )
    };
    drop(object);
    if let Some(previous) = previous {
        previous.cancel()?;
    }
    Ok(handle)
}

/// The number at which a file object is watched that has been closed since, and so has none any more.
fn number_before_close(this: &Ref<EventLoop>, object: &Obj) -> Option<i32> {
    let descriptors = this.descriptors.borrow();
    descriptors
        .iter()
        .find(|(_, watched)| watched.object.as_ref().is_some_and(|it| it.is(object)))
        .map(|(fd, _)| *fd)
}

/// `remove_reader` and `remove_writer`: takes a registration out and cancels its handle. Was there one?
fn remove(this: &Ref<EventLoop>, object: &Obj, direction: Direction) -> PyRes<bool> {
    if number(object)? == -1 {
        if this.closed.get() {
            return Ok(false);
        }
        if let Some(fd) = number_before_close(this, object) {
            return this.unwatch(fd, direction);
        }
    }
    let fd = ensure_fd_no_transport(this, object)?;
    if this.closed.get() {
        return Ok(false);
    }
    this.suspend_watch(fd, direction)
}

/// `_remove_reader` and `_remove_writer`; for a closed file nothing but what was begun with the same object is watched.
fn remove_unchecked(this: &Ref<EventLoop>, object: &Obj, direction: Direction) -> PyRes<bool> {
    if this.closed.get() {
        return Ok(false);
    }
    let found = match i32::try_from(number(object)?) {
        Ok(fd) if fd >= 0 => Some(fd),
        _ => number_before_close(this, object),
    };
    found.map_or(Ok(false), |fd| this.unwatch(fd, direction))
}
