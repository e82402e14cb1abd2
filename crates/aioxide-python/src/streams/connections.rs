//! `open_connection`, `start_server` and their kin for Unix sockets: streams around the loop's own methods.

use crate::coroutines::{Coroutine, Delegate, coroutine};
use crate::events::get_running_loop;
use crate::ffi::{
    Args, Class, ClassBuilder, Kind, Machine, Native, Obj, PyRes, Raised, Ref, Resume, Sent, Slot,
    Visit, add_to_module, function,
};
use crate::names;

use super::protocol::StreamReaderProtocol;
use super::reader::StreamReader;
use super::writer::StreamWriter;

/// The asyncio module that these functions are in.
const MODULE: &str = "asyncio.streams";

/// What the loop calls for a protocol.
struct Factory {
    /// The protocol that a client has made already.
    protocol: Slot,
    /// What a server calls for each connection.
    callback: Slot,
    /// The limit of the readers.
    limit: Slot,
    /// The loop.
    loop_: Slot,
}

/// Where the class is kept.
static FACTORY: Class<Factory> = Class::new();

impl Native for Factory {
    fn class() -> &'static Class<Self> {
        &FACTORY
    }

    fn empty() -> Self {
        Self {
            protocol: Slot::empty(),
            callback: Slot::empty(),
            limit: Slot::empty(),
            loop_: Slot::empty(),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.protocol);
        visit.slot(&self.callback);
        visit.slot(&self.limit);
        visit.slot(&self.loop_);
    }

    fn clear(&self) {
        self.protocol.clear();
        self.callback.clear();
        self.limit.clear();
        self.loop_.clear();
    }
}

impl Ref<Factory> {
    /// A protocol.
    fn make(&self) -> PyRes {
        if let Some(protocol) = self.protocol.get() {
            return Ok(protocol);
        }
        let loop_ = self.loop_.get_or_none();
        let reader = Ref::<StreamReader>::create(self.limit.get().as_ref(), &loop_)?;
        Ref::<StreamReaderProtocol>::create(reader.obj(), &self.callback.get_or_none(), &loop_)
    }
}

/// Which method of the loop is called.
#[derive(Clone, Copy)]
struct Entrance {
    /// Its name.
    method: fn() -> &'static Obj,
    /// Is it a server's?
    serves: bool,
    /// How many arguments follow the factory: host and port, or a path.
    places: usize,
}

/// The body of all four functions.
struct Connect {
    /// Which it is.
    entrance: Entrance,
    /// What a server calls for each connection.
    callback: Option<Obj>,
    /// Host and port, or a path.
    places: Vec<Obj>,
    /// The limit of readers.
    limit: Option<Obj>,
    /// All other arguments.
    keywords: Option<Obj>,
    /// The reader, the protocol and the loop of a client.
    client: Option<[Obj; 3]>,
    /// The wait for the loop's method.
    delegate: Option<Delegate>,
}

impl Connect {
    /// The coroutine of one of the functions, whose parameters come in one order.
    fn coroutine(
        qualname: &'static str,
        entrance: Entrance,
        args: &Args<'_>,
    ) -> PyRes<Ref<Coroutine>> {
        let first = usize::from(entrance.serves);
        let place = |index| args.get(first + index).cloned().unwrap_or_else(Obj::none);
        coroutine(
            qualname,
            Self {
                entrance,
                callback: entrance.serves.then(|| args.req(0).clone()),
                places: (0..entrance.places).map(place).collect(),
                limit: args.get(first + entrance.places).cloned(),
                keywords: args.keywords().cloned(),
                client: None,
                delegate: None,
            },
        )
    }

    /// Up to the wait for the loop's method.
    fn start(&mut self) -> PyRes<Sent> {
        let loop_ = get_running_loop()?;
        let factory = if self.entrance.serves {
            Ref::new(Factory {
                callback: self.callback.take().map_or_else(Slot::empty, Slot::new),
                limit: self.limit.take().map_or_else(Slot::empty, Slot::new),
                loop_: Slot::new(loop_.clone()),
                ..Factory::empty()
            })?
        } else {
            let reader = Ref::<StreamReader>::create(self.limit.as_ref(), &loop_)?.into_obj();
            let protocol = Ref::<StreamReaderProtocol>::create(&reader, &Obj::none(), &loop_)?;
            self.client = Some([reader, protocol.clone(), loop_.clone()]);
            Ref::new(Factory {
                protocol: Slot::new(protocol),
                ..Factory::empty()
            })?
        };
        let args =
            Obj::tuple(std::iter::once(factory.into_obj()).chain(self.places.iter().cloned()))?;
        let awaitable = loop_
            .getattr((self.entrance.method)())?
            .call_dict(&args, self.keywords.as_ref())?;
        let delegate = Delegate::new(&awaitable)?;
        let sent = delegate.resume(Resume::Send);
        self.delegate = Some(delegate);
        self.connected(sent?)
    }

    /// A step of the loop's method.
    fn connected(&self, sent: Sent) -> PyRes<Sent> {
        let (answer, [reader, protocol, loop_]) = match (sent, &self.client) {
            (Sent::Return(answer), Some(client)) => (answer, client),
            (sent, _) => return Ok(sent),
        };
        let mut parts = answer.items()?;
        match parts.len() {
            2 => {}
            0 | 1 => {
                return Err(Raised::value_error(&format!(
                    "not enough values to unpack (expected 2, got {})",
                    parts.len()
                )));
            }
            _ => {
                return Err(Raised::value_error(
                    "too many values to unpack (expected 2)",
                ));
            }
        }
        let transport = parts.swap_remove(0);
        let writer = Ref::<StreamWriter>::create(&transport, protocol, reader, loop_)?;
        Obj::tuple([reader.clone(), writer.into_obj()]).map(Sent::Return)
    }
}

impl Machine for Connect {
    fn resume(&mut self, input: Resume) -> PyRes<Sent> {
        let Some(delegate) = &self.delegate else {
            return self.start();
        };
        let sent = delegate.resume(input)?;
        self.connected(sent)
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        let held = self.callback.iter().chain(&self.limit);
        for object in held.chain(&self.keywords).chain(&self.places) {
            visit.obj(object);
        }
        for object in self.client.iter().flatten() {
            visit.obj(object);
        }
        if let Some(delegate) = &self.delegate {
            visit.obj(delegate.awaited());
        }
    }

    fn awaits(&self) -> Option<Obj> {
        self.delegate
            .as_ref()
            .map(|delegate| delegate.awaited().clone())
    }
}

/// `open_connection`.
const OPEN_CONNECTION: Entrance = Entrance {
    method: names::create_connection,
    serves: false,
    places: 2,
};
/// `start_server`.
const START_SERVER: Entrance = Entrance {
    method: names::create_server,
    serves: true,
    places: 2,
};
/// `open_unix_connection`.
const OPEN_UNIX_CONNECTION: Entrance = Entrance {
    method: names::create_unix_connection,
    serves: false,
    places: 1,
};
/// `start_unix_server`.
const START_UNIX_SERVER: Entrance = Entrance {
    method: names::create_unix_server,
    serves: true,
    places: 1,
};

/// Makes the class and the functions.
pub(super) fn init(module: &Obj) -> PyRes<()> {
    ClassBuilder::<Factory>::new(
        "asyncio.streams",
        "factory",
        "Makes the protocol of a stream.",
    )
    .sealed()
    .call(|this, _, _| this.make())
    .build()?;
    let (_, open_connection) = function(
        Kind::CoroutineFunction,
        MODULE,
        "open_connection(host=None, port=None, *, limit=65536, **kwds)",
        "Connects to a server; returns a reader and a writer.\n\n\
         Takes what `loop.create_connection()` takes, and the limit of the reader.",
        |args| Connect::coroutine("open_connection", OPEN_CONNECTION, args),
    )?;
    add_to_module(module, "open_connection", &open_connection)?;
    let (_, start_server) = function(
        Kind::CoroutineFunction,
        MODULE,
        "start_server(client_connected_cb, host=None, port=None, *, limit=65536, **kwds)",
        "Starts a server that calls `client_connected_cb(reader, writer)` for each connection.\n\n\
         Of a coroutine function it makes a task. Takes what `loop.create_server()` takes, and the limit of readers.",
        |args| Connect::coroutine("start_server", START_SERVER, args),
    )?;
    add_to_module(module, "start_server", &start_server)?;
    let (_, open_unix_connection) = function(
        Kind::CoroutineFunction,
        MODULE,
        "open_unix_connection(path=None, *, limit=65536, **kwds)",
        "Like `open_connection()`, to a Unix socket.",
        |args| Connect::coroutine("open_unix_connection", OPEN_UNIX_CONNECTION, args),
    )?;
    add_to_module(module, "open_unix_connection", &open_unix_connection)?;
    let (_, start_unix_server) = function(
        Kind::CoroutineFunction,
        MODULE,
        "start_unix_server(client_connected_cb, path=None, *, limit=65536, **kwds)",
        "Like `start_server()`, on a Unix socket.",
        |args| Connect::coroutine("start_unix_server", START_UNIX_SERVER, args),
    )?;
    add_to_module(module, "start_unix_server", &start_unix_server)
}
