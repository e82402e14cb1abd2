//! The making of transports, for those who have a connected socket already.

use crate::events::EventLoop;
use crate::ffi::{Args, ClassBuilder, PyRes, Ref, copy_current_context};
use crate::selector_events::make_socket_transport;

/// Adds this file's methods.
pub(super) fn methods(builder: ClassBuilder<EventLoop>) -> ClassBuilder<EventLoop> {
    builder.method(
        "_make_socket_transport(self, sock, protocol, waiter=None, *, extra=None, server=None, context=None)",
        "The transport of a connected stream socket.",
        socket_transport,
    )
}

/// `_make_socket_transport`.
fn socket_transport(this: &Ref<EventLoop>, args: &Args<'_>) -> PyRes {
    let context = match args.some(5) {
        Some(context) => context.clone(),
        None => copy_current_context()?,
    };
    make_socket_transport(
        this,
        args.req(0),
        args.req(1),
        args.some(2),
        args.some(3),
        args.some(4),
        context,
    )
}
