//! Streams: reading and writing by coroutines. Answers `asyncio/streams.py`, as of 3.15 on every Python.
//!
//! A transport feeds a protocol, the protocol its reader, and a task reads from that. What a reader has received is
//! native bytes until somebody looks at `_buffer` ([`received`]). Coroutines that find there what they want return it
//! without a future; the others leave one in the reader and are woken when it is there ([`reader`], [`reads`]).
//!
//! Streams work on any loop and with any transport. A native transport need not go through Python: [`direct_reader`]
//! gives it the reader behind a protocol ([`direct()`] looks at a reader alone), and [`feed`] takes bytes that are no
//! Python object; a writer calls it without Python as well ([`mod@direct`]).

mod connections;
mod direct;
mod flow;
mod overrides;
mod protocol;
mod reader;
mod reads;
mod received;
mod writer;

use crate::ffi::{Native, Obj, PyRes, Ref, add_to_module};
use crate::stdlib;

use protocol::StreamReaderProtocol;
use reader::FEED_DATA;

pub(crate) use direct::{DirectTransport, set_direct_transport};
pub(crate) use flow::{Flow, FlowControlled, flow_methods, lose_flow};
pub(crate) use overrides::{Overridable, Seen};
pub(crate) use reader::StreamReader;
pub(crate) use writer::StreamWriter;

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &[
    "StreamReader",
    "StreamWriter",
    "StreamReaderProtocol",
    "open_connection",
    "start_server",
    "open_unix_connection",
    "start_unix_server",
];

/// The limit of readers that are made without one.
const DEFAULT_LIMIT: usize = 1 << 16;

/// Is this a native protocol of streams, or of a class derived from it?
pub(crate) fn is_stream_protocol(protocol: &Obj) -> bool {
    StreamReaderProtocol::class().is_instance(protocol)
}

/// The reader that a transport may [`feed`] instead of calling `protocol.data_received`, if nobody could tell.
///
/// That holds as long as neither the protocol's `data_received` nor the reader's `feed_data` is overridden or replaced,
/// and the reader lives. All of this may change at any time, so it is to be asked for each piece of data; the answer
/// costs a few loads and compares.
#[inline]
pub(crate) fn direct_reader(protocol: &Obj) -> Option<Ref<StreamReader>> {
    StreamReaderProtocol::class()
        .cast(protocol)
        .and_then(Ref::<StreamReaderProtocol>::direct_reader)
}

/// The same for a reader that no `StreamReaderProtocol` stands before. One whose end was fed takes no more: what feeding
/// it means is for its `feed_data` to say.
#[inline]
pub(crate) fn direct(reader: &Obj) -> Option<Ref<StreamReader>> {
    let native = StreamReader::class().cast(reader)?;
    (!native.eof.get() && !native.overrides(FEED_DATA)).then(|| native.clone())
}

/// Feeds a reader that [`direct_reader`] gave, as its `feed_data` does.
#[inline]
pub(crate) fn feed(reader: &Ref<StreamReader>, data: &[u8]) -> PyRes<()> {
    reader.feed(data)
}

/// Makes the classes and functions.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    // The stdlib's own: once names are rebound it cannot be looked up.
    stdlib::stream_reader()?;
    stdlib::flow_control_mixin()?;
    add_to_module(module, "StreamReader", &reader::make_class()?)?;
    add_to_module(module, "StreamWriter", &writer::make_class()?)?;
    add_to_module(module, "StreamReaderProtocol", &protocol::make_class()?)?;
    connections::init(module)
}
