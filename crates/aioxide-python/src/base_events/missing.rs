//! What an event loop has in asyncio and not yet here: the network, TLS, pipes, subprocesses, signals.
//!
//! Each method is there with asyncio's signature and says what is missing. As in `AbstractEventLoop` those that are
//! `async def` say so when they are awaited, the others when they are called.

use crate::coroutines::coroutine;
use crate::events::EventLoop;
use crate::ffi::{Builtin, ClassBuilder, Machine, Obj, PyRes, Raised, Resume, Sent, Visit};

/// The error.
fn not_yet(name: &str) -> Raised {
    Builtin::NotImplemented.raise(&format!("aioxide's event loop has no {name}() yet"))
}

/// The body of an `async def` that is missing.
struct Missing(&'static str);

impl Machine for Missing {
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        Err(not_yet(self.0))
    }

    fn traverse(&self, _: &mut Visit<'_>) {}
}

/// Adds methods from a table of names and parameters.
macro_rules! missing {
    ($builder:expr; $($kind:ident $name:literal $parameters:literal;)*) => {
        $builder$(.$kind(
            concat!($name, "(", $parameters, ")"),
            "Not there yet.",
            missing!(@body $kind $name),
        ))*
    };
    (@body coroutine $name:literal) => { |_, _| coroutine(concat!("BaseLoop.", $name), Missing($name)) };
    (@body method $name:literal) => { |_, _| -> PyRes<Obj> { Err(not_yet($name)) } };
}

/// Adds this file's methods.
#[rustfmt::skip]
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    let builder = missing! { builder;
        coroutine "getaddrinfo" "self, host, port, *, family=0, type=0, proto=0, flags=0";
        coroutine "getnameinfo" "self, sockaddr, flags=0";
        coroutine "create_connection" "self, protocol_factory, host=None, port=None, *, ssl=None, family=0, proto=0, flags=0, sock=None, local_addr=None, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, happy_eyeballs_delay=None, interleave=None, all_errors=False";
        coroutine "create_server" "self, protocol_factory, host=None, port=None, *, family=__import__('socket').AF_UNSPEC, flags=__import__('socket').AI_PASSIVE, sock=None, backlog=100, ssl=None, reuse_address=None, reuse_port=None, keep_alive=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True";
        coroutine "create_unix_connection" "self, protocol_factory, path=None, *, ssl=None, sock=None, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None";
        coroutine "create_unix_server" "self, protocol_factory, path=None, *, sock=None, backlog=100, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, cleanup_socket=True";
        coroutine "connect_accepted_socket" "self, protocol_factory, sock, *, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None";
        coroutine "create_datagram_endpoint" "self, protocol_factory, local_addr=None, remote_addr=None, *, family=0, proto=0, flags=0, reuse_port=None, allow_broadcast=None, sock=None";
        coroutine "sendfile" "self, transport, file, offset=0, count=None, *, fallback=True";
        coroutine "start_tls" "self, transport, protocol, sslcontext, *, server_side=False, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None";
    };
    missing! { builder;
        coroutine "sock_recv" "self, sock, n";
        coroutine "sock_recv_into" "self, sock, buf";
        coroutine "sock_recvfrom" "self, sock, bufsize";
        coroutine "sock_recvfrom_into" "self, sock, buf, nbytes=0";
        coroutine "sock_sendall" "self, sock, data";
        coroutine "sock_sendto" "self, sock, data, address";
        coroutine "sock_connect" "self, sock, address";
        coroutine "sock_accept" "self, sock";
        coroutine "sock_sendfile" "self, sock, file, offset=0, count=None, *, fallback=True";
        coroutine "connect_read_pipe" "self, protocol_factory, pipe";
        coroutine "connect_write_pipe" "self, protocol_factory, pipe";
        coroutine "subprocess_shell" "self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, universal_newlines=False, shell=True, bufsize=0, encoding=None, errors=None, text=None, **kwargs";
        coroutine "subprocess_exec" "self, protocol_factory, program, *args, stdin=-1, stdout=-1, stderr=-1, universal_newlines=False, shell=False, bufsize=0, encoding=None, errors=None, text=None, **kwargs";
        method "add_signal_handler" "self, sig, callback, *args";
        method "remove_signal_handler" "self, sig";
    }
}
