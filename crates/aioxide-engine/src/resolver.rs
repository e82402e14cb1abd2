//! What needs no name service: literal addresses, numeric ports, and the answers that every C library gives to them.
//!
//! A host that [`literal`] knows is no question for a server, so that `getaddrinfo` may be called for it where
//! blocking is forbidden. For the usual [`Hints`], the answer is known even without that call: [`Hints::answer`].
//! Answers `_ipaddr_info` in `asyncio/base_events.py`.

use std::net::{IpAddr, Ipv6Addr};

#[cfg(test)]
mod tests;

/// The address that `host` is, if it is written in full: four decimal numbers without leading zeros, or the text form
/// of IPv6 without a scope. What else C libraries take for an address (`127.1`, `0x7f.0.0.1`) is not for here.
#[must_use]
pub fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok()
}

/// Is `host` a literal address, perhaps of IPv6 with a scope?
///
/// No C library that takes scopes asks a server for a name that has one, be the scope as wrong as it may; of macOS that
/// is not known.
#[must_use]
pub fn is_literal(host: &str) -> bool {
    if literal(host).is_some() {
        return true;
    }
    let Some((address, scope)) = host.split_once('%') else {
        return false;
    };
    cfg!(target_os = "linux")
        && !scope.is_empty()
        && scope.bytes().all(|byte| byte.is_ascii_graphic())
        && address.parse::<Ipv6Addr>().is_ok()
}

/// Is `service` a number, so that nobody looks for it among the names of services?
#[must_use]
pub fn is_number(service: &str) -> bool {
    !service.is_empty() && service.bytes().all(|byte| byte.is_ascii_digit())
}

/// The port that `service` is, if it is a number in range.
#[must_use]
pub fn port(service: &str) -> Option<u16> {
    if is_number(service) {
        service.parse().ok()
    } else {
        None
    }
}

/// Do these flags of `getaddrinfo` forbid to ask a server for the host?
#[must_use]
pub fn is_numeric_host(flags: i32) -> bool {
    flags & libc::AI_NUMERICHOST != 0
}

/// Do these flags of `getnameinfo` ask for numbers only?
#[must_use]
pub fn is_numeric_name(flags: i32) -> bool {
    let numbers = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    flags & numbers == numbers
}

/// `SOCK_STREAM`.
pub const STREAM: i32 = libc::SOCK_STREAM;

/// `SOCK_DGRAM`.
pub const DATAGRAM: i32 = libc::SOCK_DGRAM;

/// A kind of socket and the protocol that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// `SOCK_STREAM` and the like.
    pub kind: i32,
    /// `IPPROTO_TCP` and the like.
    pub protocol: i32,
}

/// TCP.
const TCP: Transport = Transport {
    kind: STREAM,
    protocol: libc::IPPROTO_TCP,
};

/// UDP.
const UDP: Transport = Transport {
    kind: DATAGRAM,
    protocol: libc::IPPROTO_UDP,
};

/// Any protocol of one's own.
const RAW: Transport = Transport {
    kind: libc::SOCK_RAW,
    protocol: 0,
};

/// What a caller of `getaddrinfo` asks for.
#[derive(Clone, Copy, Debug)]
pub struct Hints {
    /// `AF_INET` and the like, 0 for any.
    pub family: i32,
    /// `SOCK_STREAM` and the like, 0 for any.
    pub kind: i32,
    /// `IPPROTO_TCP` and the like, 0 for any.
    pub protocol: i32,
    /// `AI_PASSIVE` and the like.
    pub flags: i32,
}

impl Hints {
    /// The transports for which a literal address and a port in range are listed, in order; nothing if the C library
    /// has to say.
    #[must_use]
    pub fn answer(&self, address: IpAddr) -> Option<&'static [Transport]> {
        // These change nothing for literals. Others do, as AI_CANONNAME, or depend on the machine, as AI_ADDRCONFIG.
        let harmless = libc::AI_PASSIVE | libc::AI_NUMERICHOST | libc::AI_NUMERICSERV;
        let family = match address {
            IpAddr::V4(_) => libc::AF_INET,
            IpAddr::V6(_) => libc::AF_INET6,
        };
        if self.flags & !harmless != 0 || (self.family != 0 && self.family != family) {
            return None;
        }
        match (self.kind, self.protocol) {
            (STREAM, 0 | libc::IPPROTO_TCP) | (0, libc::IPPROTO_TCP) => Some(&[TCP]),
            (DATAGRAM, 0 | libc::IPPROTO_UDP) | (0, libc::IPPROTO_UDP) => Some(&[UDP]),
            (0, 0) if cfg!(target_env = "gnu") => Some(&[TCP, UDP, RAW]),
            _ => None,
        }
    }
}
