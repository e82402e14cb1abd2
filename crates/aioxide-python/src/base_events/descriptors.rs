//! `add_reader`, `add_writer` and their removal.

use crate::events::{Direction, EventLoop, Handle, Job, run_handle};
use crate::ffi::{
    Args, Builtin, ClassBuilder, Obj, PyRes, Raised, Ref, copy_current_context, os_error,
};
use crate::names;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder
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
        )
}

/// The descriptor of an `int` or a file object.
fn descriptor(object: &Obj) -> PyRes<i32> {
    let number = if object.is_int() {
        object.as_i64()
    } else {
        fileno(object)
    };
    let number = match number {
        Ok(number) => number,
        Err(raised)
            if raised.is(Builtin::Attribute)
                || raised.is(Builtin::Type)
                || raised.is(Builtin::Value) =>
        {
            let context = raised.take();
            let error =
                Builtin::Value.instance(&format!("Invalid file object: {}", object.repr()?))?;
            error.set_exception_context(Some(context));
            error.setattr_str("__suppress_context__", &Obj::bool(true))?;
            return Err(Raised::restore(error));
        }
        Err(raised) => return Err(raised),
    };
    match i32::try_from(number) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => Err(Raised::value_error(&format!(
            "Invalid file descriptor: {number}"
        ))),
    }
}

/// `int(object.fileno())`.
fn fileno(object: &Obj) -> PyRes<i64> {
    let number = object.method(names::fileno(), [])?;
    Obj::import("builtins")?
        .getattr_str("int")?
        .call([&number])?
        .as_i64()
}

/// Registers a callback; one that was there is cancelled.
fn add(this: &Ref<EventLoop>, args: &Args<'_>, direction: Direction) -> PyRes<()> {
    let fd = descriptor(args.req(0))?;
    this.check_closed()?;
    let handle = Ref::new(Handle::payload(
        args.req(1),
        args.rest(),
        copy_current_context()?,
        this.obj(),
    )?)?;
    if this.debug.get() {
        handle.record_source()?;
    }
    let job = Job {
        body: run_handle,
        object: handle.obj().clone(),
    };
    let scheduler = this.scheduler()?;
    let replaced = match direction {
        Direction::Read => scheduler.add_reader(fd, job),
        Direction::Write => scheduler.add_writer(fd, job),
    }
    .map_err(|error| os_error(&error))?;
    drop(replaced);
    let previous = {
        let mut descriptors = this.descriptors.borrow_mut();
        let watched = descriptors.entry(fd).or_default();
        match direction {
            Direction::Read => watched.reader.replace(handle),
            Direction::Write => watched.writer.replace(handle),
        }
    };
    match previous {
        Some(previous) => previous.cancel(),
        None => Ok(()),
    }
}

/// Takes a registration out and cancels its handle. Was there one?
fn remove(this: &Ref<EventLoop>, object: &Obj, direction: Direction) -> PyRes<bool> {
    let fd = descriptor(object)?;
    if this.closed.get() {
        return Ok(false);
    }
    this.unwatch(fd, direction)
}
