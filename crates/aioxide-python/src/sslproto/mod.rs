//! TLS: a protocol for the transport below, a transport for the protocol above. Answers `asyncio/sslproto.py`, as of
//! 3.15 on every Python.
//!
//! The `SSLObject` is made as asyncio makes it (`sslcontext.wrap_bio` on two `ssl.MemoryBIO`s), so that subclasses of
//! contexts and `sslobject_class` keep their say. Handshake and shutdown go through its methods; whatever they raise is
//! `_ssl`'s own. What comes between, data, has two ways:
//!
//! - *Direct*: OpenSSL's functions on the `SSL` and the `BIO`s inside ([`crate::ffi::Session`]). Anything but data and
//!   "wants more" is asked again of the `SSLObject`'s own method: OpenSSL repeats the error, `_ssl` raises it.
//! - *By methods*: `read` and `write` of the `SSLObject`. For classes that override these, contexts that watch
//!   (`_msg_callback`, `keylog_filename`: what their callbacks raise travels through `_ssl`'s own state), other objects
//!   than `_ssl`'s (mocks), and where the self-test of the layout fails. `AIOXIDE_TLS=bio` in the environment asks for it.
//!
//! Over a native transport, and as long as no method on the way is replaced, bytes go from the loop's buffer into the
//! `BIO` and from the `BIO` into the transport's write buffer; a stream reader is fed without a `bytes`. Over any other
//! transport this is an ordinary `BufferedProtocol`.
//!
//! // Differs: `writelines` encrypts small pieces together and refuses what is no buffer before anything is written; a
//! chunk is a snapshot. A `get_buffer` that returns a `bytearray` gets all records of a batch: asyncio reads all but the
//! first one into a copy. `abort` in `data_received` during a close ends the connection without a report of a
//! `RuntimeError`.
//!
//! Perf: "TLS echo". Instructions for 1 KiB there and back, client and server together, in thousands: 57 directly (45 of
//! them inside OpenSSL and `memcpy`), 87 by methods, 163 by the stdlib. Each `write` makes a record, as in asyncio: two of
//! 512 bytes in one job instead of one of 1 KiB cost 16 more. To join a job's writes into one record would save that, but
//! plaintext would wait for the end of the job, and every look at the state (`close`, `abort`, sizes, the `SSLObject`)
//! would have to flush it first; `writelines` joins. To ask OpenSSL once more after each batch, only to hear that the rest
//! has not come, costs as much as to decrypt a short record; two questions about what is pending are cheaper. The
//! plaintext of a batch goes through the loop's buffer if it is small, straight into a `bytes` if it is large. A large
//! `write` is encrypted in pieces: 64 KiB in a `BIO` stay in the cache, and a `BIO` never gives memory back.
//!
//! Invariants: no borrow is alive while OpenSSL or Python runs: each may call back. What the session points to is
//! held by it.

mod handshake;
mod incoming;
mod outgoing;
mod protocol;
mod shutdown;
mod transport;

use crate::ffi::{self, GilCell, Kind, Native, Obj, PyRes, Ref, add_to_module, function};
use crate::stdlib;

pub(crate) use protocol::SSLProtocol;

/// Native names of this module.
pub(crate) const NAMES: &[&str] = &["SSLProtocol", "_SSLProtocolTransport"];

/// Sends so many bytes on a transport, which the function writes. `None` if it is not a native transport whose methods
/// are all its own.
pub(crate) type Send = fn(&Obj, usize, &mut dyn FnMut(&mut [u8]) -> usize) -> Option<PyRes<()>>;

/// How native transports send.
static SEND: GilCell<Option<Send>> = GilCell::new(None);

/// Tells how native transports, which come later in the order of modules, send.
pub(crate) fn set_send(send: Send) {
    SEND.set(Some(send));
}

/// Is this the native protocol, and no method of it replaced, so that a transport may hand over received bytes
/// ([`Ref::received`]) instead of calling `get_buffer` and `buffer_updated`?
#[inline]
pub(crate) fn direct(protocol: &Obj) -> Option<&Ref<SSLProtocol>> {
    SSLProtocol::class()
        .exact(protocol)
        .filter(|protocol| protocol.is_plain())
}

/// Makes the classes.
pub(crate) fn init(module: &Obj) -> PyRes<()> {
    // The stdlib's own: once names are rebound it cannot be looked up.
    stdlib::ssl_protocol()?;
    if std::env::var_os("AIOXIDE_TLS").is_some_and(|way| way == "bio") {
        ffi::openssl::allow(false);
    }
    add_to_module(module, "SSLProtocol", &protocol::make_class()?)?;
    add_to_module(module, "_SSLProtocolTransport", &transport::make_class()?)?;
    let (_, direct) = function(
        Kind::Builtin,
        "aioxide._aioxide",
        "_tls_direct(allowed=None)",
        "Is OpenSSL called directly? Allows or forbids it for new connections, to test both ways.",
        |args| {
            if let Some(allowed) = args.some(0) {
                ffi::openssl::allow(allowed.truth()?);
            }
            Ok(ffi::openssl::available())
        },
    )?;
    add_to_module(module, "_tls_direct", &direct)
}
