//! `StreamReaderProtocol`: hands on what a transport says to a reader, and says when the connection is closed.
//!
//! The class that Python sees is made by Python from the native one and the stdlib's `FlowControlMixin`, whose instances
//! its own have to be; the mixin's work is done in `flow.rs`.

use std::cell::Cell;

use crate::events::{LoopRef, get_event_loop};
use crate::ffi::{
    Builtin, Class, ClassBuilder, GilSlot, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
};
use crate::futures::{Observer, exact_or_task, observe_any};
use crate::waiter::{
    create_future, exception_of, is_cancelled, is_done, set_exception, set_result,
};
use crate::{names, stdlib};

use super::flow::{Flow, FlowControlled, flow_methods, lose_flow, no_attribute};
use super::overrides::{Overridable, Seen};
use super::reader::{
    FEED_DATA, FEED_EOF, REPLACE_TRANSPORT, SET_EXCEPTION, SET_TRANSPORT, StreamReader,
};
use super::writer::StreamWriter;

/// Overridable: `data_received`.
const DATA_RECEIVED: u32 = 1;
/// Overridable: the attribute `_stream_reader`.
const STREAM_READER: u32 = 1 << 1;
/// Overridable: `_drain_helper`.
pub(super) const DRAIN_HELPER: u32 = 1 << 2;
/// Overridable: `_get_close_waiter`.
pub(super) const GET_CLOSE_WAITER: u32 = 1 << 3;

/// What can be overridden.
static OVERRIDABLE: Overridable<4> = Overridable::new([
    names::data_received,
    names::private_stream_reader,
    names::drain_helper,
    names::get_close_waiter,
]);

/// The protocol of a stream.
pub(super) struct StreamReaderProtocol {
    /// The state of the transport's buffer.
    flow: Flow,
    /// A weak reference to the reader.
    reader: Slot,
    /// The reader itself, until a server's connection is made.
    strong_reader: Slot,
    /// The writer, which a server's protocol keeps up to 3.12.
    stream_writer: Slot,
    /// What a server calls for a connection.
    client_connected_cb: Slot,
    /// The task of what that returned, if it was a coroutine.
    task: Slot,
    /// The transport.
    transport: Slot,
    /// Shall a connection be refused?
    reject_connection: Cell<bool>,
    /// Is the transport an encrypted one?
    over_ssl: Cell<bool>,
    /// The future that is done when the connection is lost.
    closed: Slot,
    /// The loop.
    loop_: Slot,
    /// Where the reader was made, in debug mode.
    source_traceback: Slot,
    /// What is known about the class.
    seen: Seen,
}

/// Where the native class is kept.
static CLASS: Class<StreamReaderProtocol> = Class::new();

/// The class that Python sees.
static VISIBLE: GilSlot = GilSlot::new();

impl Native for StreamReaderProtocol {
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            flow: Flow::new(),
            reader: Slot::empty(),
            strong_reader: Slot::empty(),
            stream_writer: Slot::empty(),
            client_connected_cb: Slot::empty(),
            task: Slot::empty(),
            transport: Slot::empty(),
            reject_connection: Cell::new(false),
            over_ssl: Cell::new(false),
            closed: Slot::empty(),
            loop_: Slot::empty(),
            source_traceback: Slot::empty(),
            seen: Seen::new(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.flow.traverse(visit);
        visit.slot(&self.reader);
        visit.slot(&self.strong_reader);
        visit.slot(&self.stream_writer);
        visit.slot(&self.client_connected_cb);
        visit.slot(&self.task);
        visit.slot(&self.transport);
        visit.slot(&self.closed);
        visit.slot(&self.loop_);
        visit.slot(&self.source_traceback);
    }

    fn clear(&self) {
        self.flow.clear();
        self.reader.clear();
        self.strong_reader.clear();
        self.stream_writer.clear();
        self.client_connected_cb.clear();
        self.task.clear();
        self.transport.clear();
        self.closed.clear();
        self.loop_.clear();
        self.source_traceback.clear();
    }

    fn needs_finalizer(&self) -> bool {
        self.closed.is_some()
    }

    fn finalize(this: &Ref<Self>) {
        // Nobody has to ask why the connection was lost.
        if let Some(closed) = this.closed.get()
            && let Err(raised) = mark_retrieved(&closed)
        {
            raised.write_unraisable(Some(this.obj()));
        }
    }
}

impl FlowControlled for StreamReaderProtocol {
    #[inline]
    fn flow(&self) -> &Flow {
        &self.flow
    }

    fn loop_slot(&self) -> &Slot {
        &self.loop_
    }
}

/// Marks the exception of a future as retrieved, if it has one.
fn mark_retrieved(future: &Obj) -> PyRes<()> {
    if let Some(native) = exact_or_task(future) {
        native.mark_retrieved();
        return Ok(());
    }
    if is_done(future)? && !is_cancelled(future)? {
        exception_of(future)?;
    }
    Ok(())
}

/// Watches the task of a client, whose transport is closed if it fails.
static CLIENT_TASK: Observer = Observer {
    body: client_task_done,
    qualname: "StreamReaderProtocol.connection_made.<locals>.callback",
};

/// The task of a client is done; `owner` is a tuple of loop and transport.
fn client_task_done(owner: &Obj, task: &Obj) -> PyRes<()> {
    let [loop_, transport] = owner.tuple_items() else {
        return Ok(());
    };
    if !is_cancelled(task)? {
        let Some(exception) = exception_of(task)? else {
            return Ok(());
        };
        report_client(loop_, transport, &exception)?;
    }
    transport.method(names::close(), []).map(drop)
}

/// Reports what `client_connected_cb` raised.
fn report_client(loop_: &Obj, transport: &Obj, exception: &Obj) -> PyRes<()> {
    let context = Obj::dict()?;
    let message = Obj::str("Unhandled exception in client_connected_cb")?;
    context.set_item(names::message(), &message)?;
    context.set_item(names::exception(), exception)?;
    context.set_item(names::transport(), transport)?;
    LoopRef::new(loop_).call_exception_handler(&context)
}

impl Ref<StreamReaderProtocol> {
    /// A protocol of the class that Python sees.
    pub(super) fn create(reader: &Obj, callback: &Obj, loop_: &Obj) -> PyRes {
        VISIBLE.get()?.call([reader, callback, loop_])
    }

    /// `__init__`.
    fn initialize(&self, reader: &Obj, callback: Option<&Obj>, loop_: Option<&Obj>) -> PyRes<()> {
        let loop_ = match loop_ {
            Some(loop_) => loop_.clone(),
            None => get_event_loop()?,
        };
        self.loop_.set(loop_.clone());
        self.flow.reset();
        if reader.is_none() {
            self.reader.clear();
        } else {
            self.reader.set(reader.weak_reference()?);
            let traceback = match StreamReader::class().cast(reader) {
                Some(native) => native.source_traceback.get(),
                None => Some(reader.getattr(names::private_source_traceback())?)
                    .filter(|traceback| !traceback.is_none()),
            };
            drop(self.source_traceback.replace(traceback));
        }
        if callback.is_some() {
            let strong = (!reader.is_none()).then(|| reader.clone());
            drop(self.strong_reader.replace(strong));
        }
        self.reject_connection.set(false);
        self.task.clear();
        self.transport.clear();
        drop(self.client_connected_cb.replace(callback.cloned()));
        self.over_ssl.set(false);
        self.closed.set(create_future(&loop_)?);
        Ok(())
    }

    /// Is one of these overridden?
    #[inline]
    pub(super) fn overrides(&self, names: u32) -> bool {
        OVERRIDABLE.overrides(&self.seen, self, names)
    }

    /// The reader behind `data_received`, if feeding that reader is all that it would do.
    #[inline]
    pub(super) fn direct_reader(&self) -> Option<Ref<StreamReader>> {
        if self.overrides(DATA_RECEIVED | STREAM_READER) {
            return None;
        }
        let reader = self.own_reader().unwrap_or_else(|raised| {
            raised.discard();
            None
        })?;
        let native = StreamReader::class().cast(&reader)?;
        (!native.overrides(FEED_DATA)).then(|| native.clone())
    }

    /// The reader, while it lives.
    #[inline]
    fn own_reader(&self) -> PyRes<Option<Obj>> {
        match self.reader.get() {
            Some(reference) => reference.referent(),
            None => Ok(None),
        }
    }

    /// `self._stream_reader`.
    #[inline]
    fn current_reader(&self) -> PyRes<Option<Obj>> {
        if self.overrides(STREAM_READER) {
            let reader = self.obj().getattr(names::private_stream_reader())?;
            return Ok((!reader.is_none()).then_some(reader));
        }
        self.own_reader()
    }

    /// `self._closed`.
    pub(super) fn close_waiter(&self) -> PyRes {
        self.closed
            .get()
            .ok_or_else(|| no_attribute(self.obj(), "_closed"))
    }

    /// `connection_made(transport)`.
    fn connection_made(&self, transport: &Obj) -> PyRes<()> {
        if self.reject_connection.get() {
            return self.reject(transport);
        }
        self.transport.set(transport.clone());
        let reader = self.current_reader()?;
        if let Some(reader) = &reader {
            match StreamReader::class().cast(reader) {
                Some(native) if !native.overrides(SET_TRANSPORT) => {
                    native.set_transport(transport)?;
                }
                _ => drop(reader.method(names::set_transport(), [transport])?),
            }
        }
        self.note_encryption(transport)?;
        match self.client_connected_cb.get() {
            None => Ok(()),
            Some(callback) => self.call_client(&callback, transport, reader),
        }
    }

    /// Refuses a connection that nobody waits for any more.
    #[cold]
    fn reject(&self, transport: &Obj) -> PyRes<()> {
        let context = Obj::dict()?;
        let message = Obj::str(
            "An open stream was garbage collected prior to establishing network connection; \
             call \"stream.close()\" explicitly.",
        )?;
        context.set_item(names::message(), &message)?;
        if let Some(traceback) = self.source_traceback.get()
            && traceback.truth()?
        {
            context.set_item(names::source_traceback(), &traceback)?;
        }
        LoopRef::new(&self.loop_.get_or_none()).call_exception_handler(&context)?;
        transport.method(names::abort_transport(), []).map(drop)
    }

    /// Asks whether the transport is an encrypted one.
    fn note_encryption(&self, transport: &Obj) -> PyRes<()> {
        let context = transport.method(names::get_extra_info(), [names::sslcontext()])?;
        self.over_ssl.set(!context.is_none());
        Ok(())
    }

    /// Calls `client_connected_cb`, and makes a task of a coroutine that it returns.
    fn call_client(&self, callback: &Obj, transport: &Obj, reader: Option<Obj>) -> PyRes<()> {
        let loop_ = self.loop_.get_or_none();
        let reader = reader.unwrap_or_else(Obj::none);
        let writer = Ref::<StreamWriter>::create(transport, self.obj(), &reader, &loop_)?;
        if !cfg!(Py_3_13) {
            self.stream_writer.set(writer.obj().clone());
        }
        let answer = match callback.call([&reader, writer.obj()]) {
            Ok(answer) => answer,
            Err(raised) if raised.is(Builtin::Exception) => {
                let exception = raised.take();
                report_client(&loop_, transport, &exception)?;
                transport.method(names::close(), [])?;
                self.strong_reader.clear();
                return Ok(());
            }
            Err(raised) => return Err(raised),
        };
        if stdlib::iscoroutine()?.call([&answer])?.truth()? {
            let task = loop_.method(names::create_task(), [&answer])?;
            self.task.set(task.clone());
            let owner = Obj::tuple([loop_, transport.clone()])?;
            observe_any(&task, &CLIENT_TASK, &owner)?;
        }
        self.strong_reader.clear();
        Ok(())
    }

    /// `connection_lost(exc)`.
    fn connection_lost(&self, exception: &Obj) -> PyRes<()> {
        let exception = (!exception.is_none()).then_some(exception);
        if let Some(reader) = self.current_reader()? {
            match (StreamReader::class().cast(&reader), exception) {
                (Some(native), None) if !native.overrides(FEED_EOF) => native.feed_eof()?,
                (_, None) => drop(reader.method(names::feed_eof(), [])?),
                (Some(native), Some(exception)) if !native.overrides(SET_EXCEPTION) => {
                    native.set_exception(exception)?;
                }
                (_, Some(exception)) => {
                    drop(reader.method(names::set_exception(), [exception])?);
                }
            }
        }
        let closed = self.close_waiter()?;
        if !is_done(&closed)? {
            match exception {
                None => set_result(&closed, Obj::none())?,
                Some(exception) => set_exception(&closed, exception)?,
            }
        }
        lose_flow(self, exception)?;
        self.reader.clear();
        self.stream_writer.clear();
        self.task.clear();
        self.transport.clear();
        Ok(())
    }

    /// `data_received(data)`.
    fn data_received(&self, data: &Obj) -> PyRes<()> {
        let Some(reader) = self.current_reader()? else {
            return Ok(());
        };
        if let Some(native) = StreamReader::class().cast(&reader)
            && data.is_exact_bytes()
            && let Some(bytes) = data.as_bytes()
            && !native.overrides(FEED_DATA)
        {
            return native.feed(bytes);
        }
        reader.method(names::feed_data(), [data]).map(drop)
    }

    /// `eof_received()`. A half-closed connection stays open, but for encrypted ones, which cannot be.
    fn eof_received(&self) -> PyRes<bool> {
        if let Some(reader) = self.current_reader()? {
            match StreamReader::class().cast(&reader) {
                Some(native) if !native.overrides(FEED_EOF) => native.feed_eof()?,
                _ => drop(reader.method(names::feed_eof(), [])?),
            }
        }
        Ok(!self.over_ssl.get())
    }

    /// `_replace_transport(transport)`.
    fn replace_transport(&self, transport: &Obj) -> PyRes<()> {
        self.transport.set(transport.clone());
        self.note_encryption(transport)?;
        let Some(reader) = self.current_reader()? else {
            return Ok(());
        };
        match StreamReader::class().cast(&reader) {
            Some(native) if !native.overrides(REPLACE_TRANSPORT) => {
                native.replace_transport(transport)
            }
            _ => reader
                .method(names::replace_transport(), [transport])
                .map(drop),
        }
    }
}

/// Adds the methods that transports call.
fn called_by_transports(
    builder: ClassBuilder<StreamReaderProtocol>,
) -> ClassBuilder<StreamReaderProtocol> {
    builder
        .method(
            "connection_made(self, transport)",
            "The connection is made.",
            |this, args| this.connection_made(args.req(0)),
        )
        .method(
            "connection_lost(self, exc)",
            "The connection is closed, or lost by an error.",
            |this, args| this.connection_lost(args.req(0)),
        )
        .method(
            "data_received(self, data)",
            "Data came in.",
            |this, args| this.data_received(args.req(0)),
        )
        .method(
            "eof_received(self)",
            "The other side writes no more.",
            |this, _| this.eof_received(),
        )
        .method(
            "_replace_transport(self, transport)",
            "Goes on with another transport.",
            |this, args| this.replace_transport(args.req(0)),
        )
        .method(
            "_get_close_waiter(self, stream)",
            "What is done when the connection is closed.",
            |this, _| this.close_waiter(),
        )
}

/// Makes the native class.
fn make_native_class() -> PyRes {
    let builder = ClassBuilder::<StreamReaderProtocol>::new(
        "asyncio.streams",
        "StreamReaderProtocol",
        "The native part of `StreamReaderProtocol`.",
    )
    .init(
        "(self, stream_reader, client_connected_cb=None, loop=None)",
        |this, args| this.initialize(args.req(0), args.some(1), args.some(2)),
    );
    let builder = called_by_transports(builder)
        .property(
            "_stream_reader",
            Ref::<StreamReaderProtocol>::own_reader,
            |this, value| Err(Raised::no_setter(this.obj(), "_stream_reader", value)),
        )
        .property(
            "_closed",
            Ref::<StreamReaderProtocol>::close_waiter,
            |this, value| {
                drop(this.closed.replace(value.cloned()));
                Ok(())
            },
        );
    let builder = flow_methods(builder);
    let builder = builder
        .flag_property("_reject_connection", |this| &this.reject_connection)
        .flag_property("_over_ssl", |this| &this.over_ssl)
        .slot_property("_stream_reader_wr", |this| &this.reader)
        .slot_property("_strong_reader", |this| &this.strong_reader)
        .slot_property("_stream_writer", |this| &this.stream_writer)
        .slot_property("_client_connected_cb", |this| &this.client_connected_cb)
        .slot_property("_task", |this| &this.task)
        .slot_property("_transport", |this| &this.transport)
        .slot_property("_loop", |this| &this.loop_)
        .slot_property("_source_traceback", |this| &this.source_traceback);
    if cfg!(Py_3_13) {
        return builder.build();
    }
    // What subclasses of these versions may call.
    builder
        .inherited_from("StreamReaderProtocol")
        .method(
            "_replace_writer(self, writer)",
            "Goes on with the transport of this writer.",
            |this, args| {
                this.stream_writer.set(args.req(0).clone());
                this.replace_transport(&args.req(0).getattr(names::transport())?)
            },
        )
        .build()
}

/// Makes the class that Python sees.
pub(super) fn make_class() -> PyRes {
    let native = make_native_class()?;
    let namespace = Obj::dict()?;
    let set = |name: &str, value: &Obj| namespace.set_item(&Obj::str(name)?, value);
    set("__module__", &Obj::str("asyncio.streams")?)?;
    set("__slots__", &Obj::tuple([])?)?;
    set(
        "__doc__",
        &Obj::str(
            "The protocol of a stream: feeds a `StreamReader`.\n\n\
             It is given to transports; with `client_connected_cb` it is that of a server.",
        )?,
    )?;
    let bases = Obj::tuple([native, stdlib::flow_control_mixin()?.clone()])?;
    let class = Obj::import("builtins")?.getattr_str("type")?.call([
        &Obj::str("StreamReaderProtocol")?,
        &bases,
        &namespace,
    ])?;
    OVERRIDABLE.remember(&class)?;
    CLASS.set_usual_subclass(&class);
    VISIBLE.set(&class);
    Ok(class)
}
