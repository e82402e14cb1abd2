//! What an event loop has in asyncio and not yet here: the network, TLS, pipes, subprocesses.
//!
//! Each method is there with asyncio's signature and says what is missing. As those of
//! `AbstractEventLoop`, which are `async def` too, it does so when it is awaited.

use crate::coroutines::coroutine;
use crate::events::EventLoop;
use crate::ffi::{Builtin, ClassBuilder, Machine, PyRes, Resume, Sent, Visit};

/// The body of a method that is missing.
struct Missing(&'static str);

impl Machine for Missing {
    fn resume(&mut self, _: Resume) -> PyRes<Sent> {
        let name = self.0;
        Err(Builtin::NotImplemented.raise(&format!("aioxide's event loop has no {name}() yet")))
    }

    fn traverse(&self, _: &mut Visit<'_>) {}
}

/// Adds methods from a table of names and parameters.
macro_rules! missing {
    ($builder:expr; $($name:literal $parameters:literal;)*) => {
        $builder$(.coroutine(
            concat!($name, "(", $parameters, ")"),
            "Not there yet.",
            |_, _| coroutine(concat!("BaseEventLoop.", $name), Missing($name)),
        ))*
    };
}

/// Adds this file's methods.
#[rustfmt::skip]
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    let builder = missing! { builder;
        "getnameinfo" "self, sockaddr, flags=0";
        "create_connection" "self, protocol_factory, host=None, port=None, *, ssl=None, family=0, proto=0, flags=0, sock=None, local_addr=None, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, happy_eyeballs_delay=None, interleave=None, all_errors=False";
        "create_server" "self, protocol_factory, host=None, port=None, *, family=__import__('socket').AF_UNSPEC, flags=__import__('socket').AI_PASSIVE, sock=None, backlog=100, ssl=None, reuse_address=None, reuse_port=None, keep_alive=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True";
        "create_unix_connection" "self, protocol_factory, path=None, *, ssl=None, sock=None, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None";
        "create_unix_server" "self, protocol_factory, path=None, *, sock=None, backlog=100, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, cleanup_socket=True";
        "connect_accepted_socket" "self, protocol_factory, sock, *, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None";
        "sendfile" "self, transport, file, offset=0, count=None, *, fallback=True";
        "start_tls" "self, transport, protocol, sslcontext, *, server_side=False, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None";
    };
    missing! { builder;
        "sock_recv" "self, sock, n";
        "sock_recv_into" "self, sock, buf";
        "sock_recvfrom" "self, sock, bufsize";
        "sock_recvfrom_into" "self, sock, buf, nbytes=0";
        "sock_sendall" "self, sock, data";
        "sock_sendto" "self, sock, data, address";
        "sock_accept" "self, sock";
        "sock_sendfile" "self, sock, file, offset=0, count=None, *, fallback=True";
        "subprocess_shell" "self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, universal_newlines=False, shell=True, bufsize=0, encoding=None, errors=None, text=None, **kwargs";
        "subprocess_exec" "self, protocol_factory, program, *args, stdin=-1, stdout=-1, stderr=-1, universal_newlines=False, shell=False, bufsize=0, encoding=None, errors=None, text=None, **kwargs";
    }
}
