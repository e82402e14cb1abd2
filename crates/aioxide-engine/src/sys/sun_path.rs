//! Names of Unix sockets, as the kernel wrote them.
//!
//! rustix expects each to end with a NUL, at the place where the address ends. Some systems tell of
//! a socket without name by an address full of zeros, and any program may bind a path without NUL.

use std::{
    mem::{offset_of, size_of},
    slice,
};

use rustix::net::{SocketAddrAny, addr::SocketAddrStorage};

/// What follows the family in an address of a Unix socket.
pub(crate) fn sun_path(address: &SocketAddrAny) -> &[u8] {
    let start = offset_of!(libc::sockaddr_un, sun_path);
    // The kernel tells the whole length of an address that it had to cut.
    let length = size_of::<SocketAddrStorage>().min(address.addr_len() as usize);
    // SAFETY: So many bytes are initialized, as rustix promises, and they live as long as the borrow.
    let bytes = unsafe { slice::from_raw_parts(address.as_ptr().cast::<u8>(), length) };
    bytes.get(start..).unwrap_or_default()
}
