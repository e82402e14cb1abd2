//! Socket addresses as Python's `socket` module has them, to and from the engine's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use aioxide_engine::socket::Address;

use crate::ffi::{Obj, PyRes};
use crate::stdlib;

/// A family of addresses that is read natively.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
    /// `AF_UNIX`.
    Unix,
}

/// Unix names shorter than this fit everywhere.
const UNIX_NAME_MAX: usize = 100;

/// The address as Python has it; `None` for no address.
pub(crate) fn to_python(address: Option<&Address>) -> PyRes {
    match address {
        None => Ok(Obj::none()),
        Some(Address::V4(address)) => {
            Obj::tuple([ipv4_text(*address.ip())?, Obj::int(address.port().into())?])
        }
        Some(Address::V6(address)) => Obj::tuple([
            Obj::str(&ipv6_text(*address.ip()))?,
            Obj::int(address.port().into())?,
            // The kernel's byte order is the network's.
            Obj::int(u32::from_be(address.flowinfo()).into())?,
            Obj::int(address.scope_id().into())?,
        ]),
        Some(Address::Unix(name)) if name.first() == Some(&0) => Obj::bytes(name),
        Some(Address::Unix(path)) => match std::str::from_utf8(path) {
            Ok(text) if text.is_ascii() => Obj::str(text),
            _ => stdlib::fsdecode()?.call([&Obj::bytes(path)?]),
        },
    }
}

/// An IPv4 address as a `str`.
///
/// Perf: UDP, where each sender is put into words: Rust's formatting takes a thousand instructions more.
fn ipv4_text(ip: Ipv4Addr) -> PyRes {
    let mut text = [b'.'; 15];
    let mut len = 0;
    for (index, octet) in ip.octets().into_iter().enumerate() {
        // The dot is there already.
        len += usize::from(index > 0);
        for (digit, least) in [(octet / 100, 100), (octet / 10 % 10, 10), (octet % 10, 0)] {
            if octet >= least {
                text[len] = b'0' + digit;
                len += 1;
            }
        }
    }
    Obj::str(std::str::from_utf8(&text[..len]).unwrap_or_default())
}

/// An IPv6 address in the words of `inet_ntop`: other than Rust's, `::a.b.c.d` is dotted there.
pub(crate) fn ipv6_text(ip: Ipv6Addr) -> String {
    let [zeros @ .., high, low] = ip.segments();
    if zeros == [0; 6] && high != 0 {
        let ip = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
        return format!("::{ip}");
    }
    ip.to_string()
}

/// Reads an address that needs no look-up and no judgement: a tuple with a literal host and a port, or a Unix name.
/// `None` for anything else, which Python's own socket methods then read or refuse.
pub(crate) fn from_python(family: Family, address: &Obj) -> PyRes<Option<Address>> {
    if family == Family::Unix {
        let name = match address.as_bytes() {
            Some(name) if address.is_exact_bytes() => name.to_vec(),
            _ if address.is_exact_str() => {
                let text = address.text()?;
                if !text.is_ascii() {
                    return Ok(None);
                }
                text.into_bytes()
            }
            _ => return Ok(None),
        };
        // A NUL inside or an overlong name, Python refuses in words of its own. A NUL at the head
        // means something on Linux alone.
        let linux = cfg!(any(target_os = "linux", target_os = "android"));
        let head = usize::from(linux);
        let plain = (1..UNIX_NAME_MAX).contains(&name.len()) && !name[head..].contains(&0);
        return Ok(plain.then_some(Address::Unix(name)));
    }
    let [host, port, rest @ ..] = address.tuple_items() else {
        return Ok(None);
    };
    let (Some(host), true) = (host.utf8(), port.is_exact_int()) else {
        return Ok(None);
    };
    let Some(port) = small(port)?.and_then(|port| u16::try_from(port).ok()) else {
        return Ok(None);
    };
    match (family, rest) {
        (Family::V4, []) => Ok(host
            .parse()
            .ok()
            .map(|ip| Address::V4(SocketAddrV4::new(ip, port)))),
        (Family::V6, [] | [_] | [_, _]) => {
            let Ok(ip) = host.parse() else {
                return Ok(None);
            };
            let mut numbers = [0, 0];
            for (number, given) in numbers.iter_mut().zip(rest) {
                let read = small(given)?.and_then(|given| u32::try_from(given).ok());
                match read {
                    Some(read) => *number = read,
                    None => return Ok(None),
                }
            }
            let [flowinfo, scope_id] = numbers;
            if flowinfo > 0xf_ffff {
                return Ok(None);
            }
            let address = SocketAddrV6::new(ip, port, flowinfo.to_be(), scope_id);
            Ok(Some(Address::V6(address)))
        }
        _ => Ok(None),
    }
}

/// The value of an exact `int` that fits 64 bits; `None` for anything else.
fn small(number: &Obj) -> PyRes<Option<i64>> {
    if !number.is_exact_int() {
        return Ok(None);
    }
    match number.as_i64() {
        Ok(number) => Ok(Some(number)),
        Err(raised) if raised.is(crate::ffi::Builtin::Overflow) => {
            raised.discard();
            Ok(None)
        }
        Err(raised) => Err(raised),
    }
}
