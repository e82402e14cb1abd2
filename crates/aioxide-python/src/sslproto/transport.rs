//! `_SSLProtocolTransport`: what the protocol above sees of a TLS connection. All it does is to ask the [`SSLProtocol`].

use std::cell::Cell;

use crate::ffi::{
    Builtin, Class, ClassBuilder, Native, Obj, PyRes, Raised, Ref, Slot, Visit, Warning, warn,
};
use crate::{names, stdlib};

use super::SSLProtocol;

/// The transport of decrypted data.
pub(super) struct TlsTransport {
    /// The loop.
    loop_: Slot,
    /// The protocol; gone after a second `close`.
    ssl_protocol: Slot,
    /// Was it closed, or told that the connection is over?
    pub(super) closed: Cell<bool>,
}

/// Where the class is kept.
static CLASS: Class<TlsTransport> = Class::new();

impl Native for TlsTransport {
    const LAYOUT: crate::ffi::Layout = crate::ffi::Layout::Transport;
    const FREELIST: usize = 64;
    const FINALIZES: bool = true;

    fn class() -> &'static Class<Self> {
        &CLASS
    }

    fn empty() -> Self {
        Self {
            loop_: Slot::empty(),
            ssl_protocol: Slot::empty(),
            // There is nothing to be closed before `__init__`.
            closed: Cell::new(true),
        }
    }

    fn traverse(&self, visit: &mut Visit<'_>) {
        visit.slot(&self.loop_);
        visit.slot(&self.ssl_protocol);
    }

    fn clear(&self) {
        self.ssl_protocol.clear();
        self.loop_.clear();
    }

    fn needs_finalizer(&self) -> bool {
        !self.closed.get()
    }

    fn finalize(this: &Ref<Self>) {
        if this.closed.replace(true) {
            return;
        }
        let text = "unclosed transport <asyncio._SSLProtocolTransport object>";
        if let Err(raised) = warn(Warning::Resource, text, 1) {
            raised.write_unraisable(Some(this.obj()));
        }
    }
}

/// A transport for a protocol.
pub(super) fn create(loop_: &Obj, protocol: &Ref<SSLProtocol>) -> PyRes {
    Ref::new(TlsTransport {
        loop_: Slot::new(loop_.clone()),
        ssl_protocol: Slot::new(protocol.obj().clone()),
        closed: Cell::new(false),
    })
    .map(Ref::into_obj)
}

/// Marks an app transport as closed: `transport._closed = True`.
pub(super) fn mark_closed(transport: &Obj) -> PyRes<()> {
    match CLASS.cast(transport) {
        Some(native) => {
            native.closed.set(true);
            Ok(())
        }
        None => transport.setattr_str("_closed", &Obj::bool(true)),
    }
}

impl Ref<TlsTransport> {
    /// The protocol; after a second `close` what asyncio says when it asks `None` for `method`.
    #[inline]
    fn protocol(&self, method: &str) -> PyRes<Ref<SSLProtocol>> {
        let protocol = self.ssl_protocol.get();
        match protocol
            .as_ref()
            .and_then(|found| SSLProtocol::class().cast(found))
        {
            Some(protocol) => Ok(protocol.clone()),
            None => {
                Err(Builtin::Attribute
                    .raise(&format!("'NoneType' object has no attribute '{method}'")))
            }
        }
    }

    /// `close`.
    fn close(&self) -> PyRes<()> {
        if self.closed.replace(true) {
            self.ssl_protocol.clear();
            return Ok(());
        }
        self.protocol("_start_shutdown")?.start_shutdown()
    }

    /// `_force_close`.
    fn force_close(&self, exception: &Obj) -> PyRes<()> {
        self.closed.set(true);
        if self.ssl_protocol.is_none() {
            return Ok(());
        }
        self.protocol("_abort")?.abort(exception)
    }

    /// `is_closing`.
    fn is_closing(&self) -> PyRes<bool> {
        if self.closed.get() {
            return Ok(true);
        }
        self.protocol("_is_transport_closing")?
            .is_transport_closing()
    }

    /// `write`.
    #[inline]
    fn write(&self, data: &Obj) -> PyRes<()> {
        if !(data.is_exact_bytes()
            || data.as_bytes().is_some()
            || data.is_bytearray()
            || data.is_memoryview())
        {
            return Err(Raised::type_error(&format!(
                "data: expecting a bytes-like instance, got {}",
                data.class_name()
            )));
        }
        let is_empty = match data.as_bytes() {
            Some(bytes) => bytes.is_empty(),
            None => !data.truth()?,
        };
        if is_empty {
            return Ok(());
        }
        self.protocol("_write_appdata")?.write(data)
    }
}

/// The methods for reading.
fn reading(builder: ClassBuilder<TlsTransport>) -> ClassBuilder<TlsTransport> {
    builder
        .method(
            "is_reading(self)",
            "Does the protocol get data?",
            |this, _| Ok(!this.protocol("_app_reading_paused")?.app_reading_paused.get()),
        )
        .method(
            "pause_reading(self)",
            "Gives the protocol no more data until `resume_reading()`.",
            |this, _| {
                this.protocol("_pause_reading")?.app_reading_paused.set(true);
                Ok(())
            },
        )
        .method(
            "resume_reading(self)",
            "Gives the protocol data again after `pause_reading()`.",
            |this, _| this.protocol("_resume_reading")?.resume_app_reading(),
        )
        .method(
            "set_read_buffer_limits(self, high=None, low=None)",
            "Sets the water marks of what is received and not decrypted, in bytes: at `high` the transport below stops receiving, at `low` it goes on.",
            |this, args| {
                let protocol = this.protocol("_set_read_buffer_limits")?;
                protocol.incoming_limits.set(args.some(0), args.some(1))?;
                protocol.control_ssl_reading()
            },
        )
        .method(
            "get_read_buffer_limits(self)",
            "The water marks `(low, high)` of what is received, in bytes.",
            |this, _| this.protocol("_incoming_low_water")?.incoming_limits.pair(),
        )
        .method(
            "get_read_buffer_size(self)",
            "How many bytes are received and not decrypted.",
            |this, _| this.protocol("_get_read_buffer_size")?.read_buffer_size(),
        )
}

/// The methods for writing.
fn writing(builder: ClassBuilder<TlsTransport>) -> ClassBuilder<TlsTransport> {
    builder
        .method(
            "write(self, data)",
            "Encrypts and sends bytes. The data may be changed afterwards.",
            |this, args| this.write(args.req(0)),
        )
        .method(
            "writelines(self, list_of_data)",
            "Encrypts and sends several pieces of bytes.",
            |this, args| this.protocol("_write_appdata")?.write_lines(args.req(0)),
        )
        .method(
            "write_eof(self)",
            "Not possible with TLS: raises `NotImplementedError`.",
            |_, _| Err::<(), _>(Builtin::NotImplemented.raise_bare()),
        )
        .method(
            "can_write_eof(self)",
            "Is there a `write_eof()`? `False`.",
            |_, _| Ok(false),
        )
        .method(
            "set_write_buffer_limits(self, high=None, low=None)",
            "Sets the water marks of what is to be sent, in bytes: at `high` the protocol's `pause_writing()` is called, at `low` its `resume_writing()`.",
            |this, args| {
                let protocol = this.protocol("_set_write_buffer_limits")?;
                protocol.outgoing_limits.set(args.some(0), args.some(1))?;
                protocol.control_app_writing()
            },
        )
        .method(
            "get_write_buffer_limits(self)",
            "The water marks `(low, high)` of what is to be sent, in bytes.",
            |this, _| this.protocol("_outgoing_low_water")?.outgoing_limits.pair(),
        )
        .method(
            "get_write_buffer_size(self)",
            "How many bytes wait to be sent.",
            |this, _| this.protocol("_get_write_buffer_size")?.total_write_buffer_size(),
        )
}

/// What asyncio's own modules and libraries use of it.
fn private(builder: ClassBuilder<TlsTransport>) -> ClassBuilder<TlsTransport> {
    builder
        .method(
            "_force_close(self, exc)",
            "Closes at once; the transport below is told why.",
            |this, args| this.force_close(args.req(0)),
        )
        .method(
            "_test__append_write_backlog(self, data)",
            "Adds data to be encrypted later: for tests.",
            |this, args| this.protocol("_write_backlog")?.append_backlog(args.req(0)),
        )
        .property(
            "_closed",
            |this| Ok(this.closed.get()),
            |this, value| {
                this.closed.set(value.map_or(Ok(false), Obj::truth)?);
                Ok(())
            },
        )
        .property(
            "_ssl_protocol",
            |this| Ok(this.ssl_protocol.get()),
            |this, value| {
                let value = value.filter(|value| !value.is_none());
                drop(this.ssl_protocol.replace(value.cloned()));
                Ok(())
            },
        )
        .property(
            "_loop",
            |this| Ok(this.loop_.get()),
            |this, value| {
                drop(this.loop_.replace(value.cloned()));
                Ok(())
            },
        )
        .getter("_protocol_paused", |this| {
            Ok(this
                .protocol("_app_writing_paused")?
                .app_writing_paused
                .get())
        })
        .getter("_start_tls_compatible", |_| Ok(true))
        .getter("_sendfile_compatible", |_| {
            stdlib::sendfile_fallback().cloned()
        })
}

/// Makes the class.
pub(super) fn make_class() -> PyRes {
    let builder = ClassBuilder::<TlsTransport>::new(
        "asyncio.sslproto",
        "_SSLProtocolTransport",
        "The transport of what TLS decrypts and encrypts.",
    )
    .base(stdlib::transport()?.clone())
    .init("(self, loop, ssl_protocol)", |this, args| {
        this.loop_.set(args.req(0).clone());
        this.ssl_protocol.set(args.req(1).clone());
        this.closed.set(false);
        Ok(())
    })
    .method(
        "get_extra_info(self, name, default=None)",
        "What is known of the connection by that name: `peercert`, `cipher`, `compression`, `sslcontext`, `ssl_object`, and all that the transport below knows.",
        |this, args| {
            let none = Obj::none();
            this.protocol("_get_extra_info")?
                .extra_info(args.req(0), args.get(1).unwrap_or(&none))
        },
    )
    .method(
        "set_protocol(self, protocol)",
        "Makes another protocol hear of this connection from now on.",
        |this, args| {
            this.protocol("_set_app_protocol")?
                .set_app_protocol(args.req(0))
        },
    )
    .method("get_protocol(self)", "The current protocol.", |this, _| {
        Ok(this.protocol("_app_protocol")?.app_protocol.get())
    })
    .method(
        "is_closing(self)",
        "Is the transport closed, or about to be?",
        |this, _| this.is_closing(),
    )
    .method(
        "close(self)",
        "Ends TLS and closes the connection once what was written is sent; then the protocol's `connection_lost(None)` is called.",
        |this, _| this.close(),
    )
    .method(
        "abort(self)",
        "Closes the connection at once; what is not sent is lost.",
        |this, _| {
            this.obj()
                .method(names::force_close(), [&Obj::none()])
                .map(drop)
        },
    );
    private(writing(reading(builder))).build()
}
