//! The class `Server`. Answers that of `asyncio/base_events.py`.
//!
//! A server knows its transports weakly, so that one that is abandoned can be told from one in use. It waits until it
//! is closed and the last of them is gone.
//!
//! The native transports of streams are kept in a table; asyncio's `_clients`, a `WeakSet`, is made when somebody asks for
//! it or another transport comes, and has all of them from then on.
//!
//! The transports of asyncio before 3.13 come and go without saying which they are: those are only counted.

use std::cell::{Cell, RefCell};

use crate::coroutines::Coroutine;
use crate::events::{ByAddress, EventLoop};
use crate::ffi::{
    Args, Builtin, Class, ClassBuilder, GilSlot, Native, Obj, PyRes, Raised, Ref, Slot, Visit,
    copy_current_context,
};
use crate::selector_events::is_stream_transport;
use crate::waiter::{create_future, is_done, set_result};
use crate::{names, stdlib};

use super::steps::{Next, Steps, in_steps};

/// A server.
pub(super) struct Server {
    /// The loop.
    loop_: Slot,
    /// The listening sockets in a list; gone once closed.
    sockets: Slot,
    /// Weak references to the transports, unless there is a `WeakSet` of them. That of a transport which nobody closed
    /// may be dead.
    ///
    /// Perf: "accept + close": adding to a `WeakSet` and discarding costs 4,000 instructions.
    known: RefCell<ByAddress<Obj>>,
    /// The `WeakSet`, once it is needed.
    clients: Slot,
    /// How many transports came without a name.
    anonymous: Cell<i64>,
    /// Who waits for the end, in a list; gone once it has come.
    waiters: Slot,
    /// What makes protocols.
    protocol_factory: Slot,
    /// How many connections may wait in the kernel.
    backlog: Slot,
    /// The `SSLContext`, if any.
    ssl_context: Slot,
    /// How long a handshake may take.
    ssl_handshake_timeout: Slot,
    /// How long the end of TLS may take.
    ssl_shutdown_timeout: Slot,
    /// Does it listen?
    serving: Cell<bool>,
    /// What `serve_forever` waits for.
    serving_forever_fut: Slot,
    /// The context in which it was made: each connection gets a copy.
    context: Slot,
}

/// Where the native base class is kept.
static SERVER: Class<Server> = Class::new();

/// The class that servers are instances of.
static SERVER_CLASS: GilSlot = GilSlot::new();

impl Native for Server {
    fn class() -> &'static Class<Self> {
        &SERVER
    }

    fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
            sockets: Slot::empty(),
            known: RefCell::default(),
            clients: Slot::empty(),
            anonymous: Cell::new(0),
            waiters: Slot::empty(),
            protocol_factory: Slot::empty(),
            backlog: Slot::empty(),
            ssl_context: Slot::empty(),
            ssl_handshake_timeout: Slot::empty(),
            ssl_shutdown_timeout: Slot::empty(),
            serving: Cell::new(false),
            serving_forever_fut: Slot::empty(),
            context: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        self.slots().into_iter().for_each(|slot| visit.slot(slot));
        if let Ok(known) = self.known.try_borrow() {
            known.values().for_each(|weak| visit.obj(weak));
        }
    }

    fn clear(&self) {
        self.slots().into_iter().for_each(Slot::clear);
        let known = self
            .known
            .try_borrow_mut()
            .map(|mut known| std::mem::take(&mut *known));
        drop(known);
    }
}

impl Server {
    /// All that is held.
    fn slots(&self) -> [&Slot; 11] {
        [
            &self.loop_,
            &self.sockets,
            &self.clients,
            &self.waiters,
            &self.protocol_factory,
            &self.backlog,
            &self.ssl_context,
            &self.ssl_handshake_timeout,
            &self.ssl_shutdown_timeout,
            &self.serving_forever_fut,
            &self.context,
        ]
    }

    /// Was it closed?
    pub(super) fn is_closed(&self) -> bool {
        self.sockets.is_none()
    }

    /// The transports that live.
    fn transports(&self) -> PyRes<Vec<Obj>> {
        if let Some(clients) = self.clients.get() {
            return clients.items();
        }
        let known: Vec<Obj> = self.known.borrow().values().cloned().collect();
        let mut alive = Vec::with_capacity(known.len());
        for weak in known {
            alive.extend(weak.referent()?);
        }
        Ok(alive)
    }

    /// `_clients`.
    fn weak_set(&self) -> PyRes {
        if let Some(clients) = self.clients.get() {
            return Ok(clients);
        }
        let clients = stdlib::weak_set()?.call([&Obj::list(self.transports()?)?])?;
        self.set_weak_set(Some(clients.clone()));
        Ok(clients)
    }

    /// Assigns `_clients`.
    fn set_weak_set(&self, clients: Option<Obj>) {
        let before = (
            self.clients.replace(clients),
            std::mem::take(&mut *self.known.borrow_mut()),
        );
        drop(before);
    }

    /// Is there a transport?
    fn is_active(&self) -> PyRes<bool> {
        if self.anonymous.get() > 0 {
            return Ok(true);
        }
        if let Some(clients) = self.clients.get() {
            return Ok(clients.len()? > 0);
        }
        // Not a count: this is asked for each one that goes.
        loop {
            let found = self
                .known
                .borrow()
                .iter()
                .next()
                .map(|(at, weak)| (*at, weak.clone()));
            let Some((address, weak)) = found else {
                return Ok(false);
            };
            if weak.referent()?.is_some() {
                return Ok(true);
            }
            let dead = self.known.borrow_mut().remove(&address);
            drop(dead);
        }
    }

    /// `_active_count`.
    fn active_count(&self) -> PyRes<i64> {
        let known = match self.clients.get() {
            Some(clients) => clients.len()?,
            None => self.transports()?.len(),
        };
        let known = i64::try_from(known).unwrap_or(i64::MAX);
        Ok(known.saturating_add(self.anonymous.get()))
    }

    /// `_attach`.
    fn attach(&self, transport: Option<&Obj>) -> PyRes<()> {
        if self.is_closed() {
            return Err(Builtin::Assertion.raise_bare());
        }
        let Some(transport) = transport else {
            self.anonymous.set(self.anonymous.get() + 1);
            return Ok(());
        };
        if self.clients.is_some() || !is_stream_transport(transport) {
            return self.weak_set()?.method(names::add(), [transport]).map(drop);
        }
        let weak = transport.weak_reference()?;
        self.forget_dead()?;
        let before = self.known.borrow_mut().insert(transport.address(), weak);
        drop(before);
        Ok(())
    }

    /// Makes room in the table before it has to grow.
    fn forget_dead(&self) -> PyRes<()> {
        let is_full = {
            let known = self.known.borrow();
            known.len() == known.capacity()
        };
        if !is_full {
            return Ok(());
        }
        let entries = self.known.borrow().clone();
        for (address, weak) in entries {
            if weak.referent()?.is_none() {
                let dead = self.known.borrow_mut().remove(&address);
                drop(dead);
            }
        }
        Ok(())
    }

    /// `_detach`.
    fn detach(&self, transport: Option<&Obj>) -> PyRes<()> {
        if let Some(transport) = transport {
            if let Some(clients) = self.clients.get() {
                clients.method(names::discard(), [transport])?;
            } else {
                let weak = self.known.borrow_mut().remove(&transport.address());
                drop(weak);
            }
        } else if self.anonymous.get() > 0 {
            self.anonymous.set(self.anonymous.get() - 1);
        } else {
            return Err(Builtin::Assertion.raise_bare());
        }
        self.wake_up_if_over()
    }

    /// Ends the waits once it is closed and no transport is left.
    fn wake_up_if_over(&self) -> PyRes<()> {
        if self.is_closed() && !self.is_active()? {
            return self.wake_up();
        }
        Ok(())
    }

    /// `_wakeup`.
    fn wake_up(&self) -> PyRes<()> {
        let Some(waiters) = self.waiters.take() else {
            return Ok(());
        };
        for waiter in waiters.items()? {
            if !is_done(&waiter)? {
                set_result(&waiter, Obj::none())?;
            }
        }
        Ok(())
    }

    /// Calls a method of each transport.
    fn each_client(&self, method: &str) -> PyRes<()> {
        let name = Obj::str(method)?;
        // All of them first: transports that close leave.
        for transport in self.transports()? {
            transport.method(&name, [])?;
        }
        Ok(())
    }

    /// `sockets`.
    fn transport_sockets(&self) -> PyRes {
        let mut shown = Vec::new();
        if let Some(sockets) = self.sockets.get() {
            for sock in sockets.items()? {
                shown.push(stdlib::transport_socket()?.call([&sock])?);
            }
        }
        Obj::tuple(shown)
    }
}

impl Ref<Server> {
    /// `_start_serving`: listens, and has the loop accept.
    pub(super) fn start(&self) -> PyRes<()> {
        if self.serving.get() {
            return Ok(());
        }
        let sockets = self.sockets.get_or_none().items()?;
        self.serving.set(true);
        let loop_ = self.loop_.get_or_none();
        let backlog = self.backlog.get_or_none();
        let context = self.context.get_or_none();
        for sock in sockets {
            sock.method(names::listen(), [&backlog])?;
            loop_.method_kw(
                names::start_serving_private(),
                &[
                    &self.protocol_factory.get_or_none(),
                    &sock,
                    &self.ssl_context.get_or_none(),
                    self.obj(),
                    &backlog,
                    &self.ssl_handshake_timeout.get_or_none(),
                    &self.ssl_shutdown_timeout.get_or_none(),
                ],
                &[(names::context(), &context)],
            )?;
        }
        Ok(())
    }

    /// `close`. An error of one socket does not keep the others open.
    pub(super) fn close(&self) -> PyRes<()> {
        let Some(sockets) = self.sockets.take() else {
            return Ok(());
        };
        let loop_ = self.loop_.get_or_none();
        let mut first = None;
        for sock in sockets.items()? {
            if let Err(raised) = loop_.method(names::stop_serving_private(), [&sock]) {
                let exception = raised.take();
                first.get_or_insert(exception);
            }
        }
        self.serving.set(false);
        if let Some(exception) = first {
            return Err(Raised::restore(exception));
        }
        if let Some(future) = self.serving_forever_fut.get()
            && !is_done(&future)?
        {
            future.method(names::cancel(), [])?;
            self.serving_forever_fut.clear();
        }
        self.wake_up_if_over()
    }

    /// `wait_closed`.
    fn wait_closed(&self) -> PyRes<Ref<Coroutine>> {
        in_steps(
            "Server.wait_closed",
            WaitClosed {
                server: self.clone(),
                waiter: None,
            },
        )
    }
}

/// The body of `start_serving`.
struct StartServing {
    /// The server.
    server: Ref<Server>,
    /// Does it listen?
    started: bool,
}

impl Steps for StartServing {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        outcome?;
        if self.started {
            return Ok(Next::Done(Obj::none()));
        }
        self.started = true;
        self.server.start()?;
        Ok(Next::Skip)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.server);
    }
}

/// The body of `wait_closed`.
struct WaitClosed {
    /// The server.
    server: Ref<Server>,
    /// What is waited for.
    waiter: Option<Obj>,
}

impl Steps for WaitClosed {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        if let Some(waiter) = self.waiter.take() {
            return match outcome {
                Ok(_) => Ok(Next::Done(Obj::none())),
                Err(raised) => Err(self.leave(raised, &waiter)),
            };
        }
        outcome?;
        let Some(waiters) = self.server.waiters.get() else {
            return Ok(Next::Done(Obj::none()));
        };
        let waiter = create_future(&self.server.loop_.get_or_none())?;
        waiters.append(&waiter)?;
        self.waiter = Some(waiter.clone());
        Ok(Next::Await(waiter))
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.server);
        self.waiter.iter().for_each(|waiter| visit.obj(waiter));
    }
}

impl WaitClosed {
    /// Gives the wait up. Differs: asyncio leaves the future among the waiters, where it stays until the end.
    fn leave(&self, raised: Raised, waiter: &Obj) -> Raised {
        let exception = raised.take();
        if let Some(waiters) = self.server.waiters.get()
            && let Err(raised) = waiters.method(names::remove(), [waiter])
        {
            raised.discard();
        }
        Raised::restore(exception)
    }
}

/// The body of `serve_forever`.
struct ServeForever {
    /// The server.
    server: Ref<Server>,
    /// How far it is.
    at: Forever,
}

/// How far `serve_forever` is.
enum Forever {
    /// Not begun.
    Start,
    /// It serves.
    Serving,
    /// It was cancelled, with this exception, and waits for the transports to go.
    Closing(Obj),
}

impl ServeForever {
    /// Begins to serve.
    fn start(&mut self) -> PyRes<Next> {
        let server = &self.server;
        if server.serving_forever_fut.is_some() {
            return Err(Raised::runtime_error(&format!(
                "server {} is already being awaited on serve_forever()",
                server.obj().repr()?
            )));
        }
        if server.is_closed() {
            return Err(Raised::runtime_error(&format!(
                "server {} is closed",
                server.obj().repr()?
            )));
        }
        server.start()?;
        let future = create_future(&server.loop_.get_or_none())?;
        server.serving_forever_fut.set(future.clone());
        self.at = Forever::Serving;
        Ok(Next::Await(future))
    }

    /// Closes the server and its transports after a cancellation, which is what is raised whatever goes wrong here.
    fn close(&self) -> PyRes<Obj> {
        let server = self.server.obj();
        server.method(names::close(), [])?;
        server.method(names::close_clients(), [])?;
        server.method(names::wait_closed(), [])
    }
}

impl Steps for ServeForever {
    fn step(&mut self, outcome: PyRes) -> PyRes<Next> {
        match std::mem::replace(&mut self.at, Forever::Start) {
            Forever::Start => {
                outcome?;
                self.start()
            }
            Forever::Serving => match outcome {
                Err(raised) if raised.matches(stdlib::cancelled_error()?) => {
                    let cancelled = raised.take();
                    match self.close() {
                        Ok(closed) => {
                            self.at = Forever::Closing(cancelled);
                            Ok(Next::Await(closed))
                        }
                        Err(raised) => {
                            raised.discard();
                            self.server.serving_forever_fut.clear();
                            Err(Raised::restore(cancelled))
                        }
                    }
                }
                outcome => {
                    self.server.serving_forever_fut.clear();
                    outcome.map(|_| Next::Done(Obj::none()))
                }
            },
            Forever::Closing(cancelled) => {
                if let Err(raised) = outcome {
                    raised.discard();
                }
                self.server.serving_forever_fut.clear();
                Err(Raised::restore(cancelled))
            }
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.native(&self.server);
        if let Forever::Closing(cancelled) = &self.at {
            visit.obj(cancelled);
        }
    }
}

/// What a server is made of.
pub(super) struct Parts<'a> {
    /// The sockets.
    pub(super) sockets: Vec<Obj>,
    /// What makes protocols.
    pub(super) protocol_factory: &'a Obj,
    /// The `SSLContext`, or `None`.
    pub(super) ssl: &'a Obj,
    /// How many connections may wait.
    pub(super) backlog: &'a Obj,
    /// The time limit of a handshake, or `None`.
    pub(super) ssl_handshake_timeout: &'a Obj,
    /// The time limit of the end of TLS, or `None`.
    pub(super) ssl_shutdown_timeout: &'a Obj,
}

/// A new server of the loop.
pub(super) fn new_server(loop_: &Ref<EventLoop>, parts: Parts<'_>) -> PyRes<Ref<Server>> {
    let made = SERVER_CLASS.get()?.call([
        loop_.obj(),
        &Obj::list(parts.sockets)?,
        parts.protocol_factory,
        parts.ssl,
        parts.backlog,
        parts.ssl_handshake_timeout,
        parts.ssl_shutdown_timeout,
    ])?;
    SERVER
        .cast(&made)
        .cloned()
        .ok_or_else(|| Builtin::System.raise("the class of servers is none"))
}

/// The object as one of our servers.
pub(super) fn as_server(object: &Obj) -> Option<&Ref<Server>> {
    SERVER.cast(object)
}

/// `__init__`.
fn initialize(this: &Ref<Server>, args: &Args<'_>) -> PyRes<()> {
    let keep = |slot: &Slot, index: usize| drop(slot.replace(args.some(index).cloned()));
    keep(&this.loop_, 0);
    keep(&this.sockets, 1);
    keep(&this.protocol_factory, 2);
    keep(&this.ssl_context, 3);
    keep(&this.backlog, 4);
    keep(&this.ssl_handshake_timeout, 5);
    keep(&this.ssl_shutdown_timeout, 6);
    this.set_weak_set(None);
    this.waiters.set(Obj::list([])?);
    this.serving.set(false);
    this.serving_forever_fut.clear();
    this.context.set(copy_current_context()?);
    Ok(())
}

/// Makes the class.
pub(super) fn init() -> PyRes<()> {
    let builder = ClassBuilder::<Server>::new(
        "aioxide",
        "Server",
        "The native part of servers.",
    )
    .init(
        "(self, loop, sockets, protocol_factory, ssl_context, backlog, ssl_handshake_timeout, ssl_shutdown_timeout=None)",
        initialize,
    )
    .repr(|this| {
        let sockets = this.obj().getattr(names::sockets())?.repr()?;
        Ok(format!("<{} sockets={sockets}>", this.obj().class_name()))
    });
    let native = builder
        .method("_attach(self, transport=None)", "Adds a transport.", |this, args| {
            this.attach(args.some(0))
        })
        .method("_detach(self, transport=None)", "Removes a transport.", |this, args| {
            this.detach(args.some(0))
        })
        .method("_wakeup(self)", "Ends the waits for the end.", |this, _| this.wake_up())
        .method("_start_serving(self)", "Begins to listen.", |this, _| this.start())
        .method("get_loop(self)", "The loop.", |this, _| Ok(this.loop_.get()))
        .method("is_serving(self)", "Does it accept connections?", |this, _| {
            Ok(this.serving.get())
        })
        .method(
            "close(self)",
            "Stops serving and closes the sockets; connections stay as they are.",
            |this, _| this.close(),
        )
        .method("close_clients(self)", "Closes all connections.", |this, _| {
            this.each_client("close")
        })
        .method("abort_clients(self)", "Closes all connections at once.", |this, _| {
            this.each_client("abort")
        })
        .coroutine("start_serving(self)", "Begins to accept connections.", |this, _| {
            in_steps(
                "Server.start_serving",
                StartServing { server: this.clone(), started: false },
            )
        })
        .coroutine(
            "serve_forever(self)",
            "Accepts connections until it is cancelled, which closes the server and its connections.",
            |this, _| {
                in_steps(
                    "Server.serve_forever",
                    ServeForever { server: this.clone(), at: Forever::Start },
                )
            },
        )
        .coroutine(
            "wait_closed(self)",
            "Waits until the server is closed and its last connection is gone.",
            |this, _| this.wait_closed(),
        )
        .getter("sockets", |this| this.transport_sockets())
        .getter("_active_count", |this| this.active_count())
        .property("_clients", |this| this.weak_set(), |this, value| {
            this.set_weak_set(value.filter(|value| !value.is_none()).cloned());
            Ok(())
        })
        .flag_property("_serving", |this| &this.serving)
        .slot_property("_loop", |this| &this.loop_)
        .slot_property("_sockets", |this| &this.sockets)
        .slot_property("_waiters", |this| &this.waiters)
        .slot_property("_protocol_factory", |this| &this.protocol_factory)
        .slot_property("_backlog", |this| &this.backlog)
        .slot_property("_ssl_context", |this| &this.ssl_context)
        .slot_property("_ssl_handshake_timeout", |this| &this.ssl_handshake_timeout)
        .slot_property("_ssl_shutdown_timeout", |this| &this.ssl_shutdown_timeout)
        .slot_property("_serving_forever_fut", |this| &this.serving_forever_fut)
        .slot_property("_context", |this| &this.context)
        .build()?;
    // Derived from asyncio's own class, too, so that `isinstance(server, asyncio.Server)` holds.
    let namespace = Obj::dict()?;
    namespace.set_item(&Obj::str("__module__")?, &Obj::str("asyncio.base_events")?)?;
    namespace.set_item(
        &Obj::str("__doc__")?,
        &Obj::str("A server, made by `create_server()`.")?,
    )?;
    let bases = Obj::tuple([native, stdlib::server()?.clone()])?;
    let class = Obj::import("builtins")?.getattr_str("type")?.call([
        &Obj::str("Server")?,
        &bases,
        &namespace,
    ])?;
    SERVER_CLASS.set(&class);
    SERVER.set_usual_subclass(&class);
    Ok(())
}
