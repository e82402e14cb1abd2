//! Literals, ports, and the answers that need no C library.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Hints, RAW, TCP, UDP, is_literal, is_number, literal, port};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

const ANY: Hints = Hints {
    family: 0,
    kind: 0,
    protocol: 0,
    flags: 0,
};

#[test]
fn literal_is_an_address_written_in_full() {
    assert_eq!(literal("127.0.0.1"), Some(V4));
    assert_eq!(literal("::1"), Some(V6));
    assert_eq!(
        literal("::ffff:1.2.3.4"),
        Some(IpAddr::V6(Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped()))
    );
}

#[test]
fn literal_leaves_the_odd_forms_to_the_c_library() {
    for host in [
        "",
        " 127.0.0.1",
        "127.0.0.1 ",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "127.0.0.01",
        "127.0.0.256",
        "[::1]",
        "::1%1",
        ":::1",
        "12345::",
        "1:2:3:4:5:6:7:8:9",
        "localhost",
        "127.0.0.1\0",
    ] {
        assert_eq!(literal(host), None, "{host:?}");
    }
}

#[test]
fn literal_may_have_a_scope() {
    for host in ["fe80::1%lo", "fe80::1%1", "::1%nowhere"] {
        assert_eq!(is_literal(host), cfg!(target_os = "linux"), "{host}");
    }
    assert!(!is_literal("fe80::1%"));
    assert!(!is_literal("fe80::1%l o"));
    assert!(!is_literal("fe80::1%\0"));
    assert!(!is_literal("127.0.0.1%lo"));
    assert!(!is_literal("host%lo"));
}

#[test]
fn port_is_a_number_in_range() {
    assert_eq!(port("0"), Some(0));
    assert_eq!(port("080"), Some(80));
    assert_eq!(port("65535"), Some(65535));
    for service in [
        "",
        "65536",
        "-1",
        "+1",
        " 1",
        "1 ",
        "http",
        "99999999999999999999",
    ] {
        assert_eq!(port(service), None, "{service:?}");
    }
    assert!(is_number("99999999999999999999"));
    assert!(!is_number(""));
    assert!(!is_number("0x10"));
}

#[test]
fn answer_has_the_transports_in_order() {
    let stream = Hints {
        kind: libc::SOCK_STREAM,
        ..ANY
    };
    assert_eq!(stream.answer(V4), Some(&[TCP][..]));
    let udp = Hints {
        protocol: libc::IPPROTO_UDP,
        ..ANY
    };
    assert_eq!(udp.answer(V6), Some(&[UDP][..]));
    if cfg!(target_env = "gnu") {
        assert_eq!(ANY.answer(V4), Some(&[TCP, UDP, RAW][..]));
    }
}

#[test]
fn answer_leaves_the_rest_to_the_c_library() {
    let other_family = Hints {
        family: libc::AF_INET6,
        ..ANY
    };
    assert_eq!(other_family.answer(V4), None);
    let mismatch = Hints {
        kind: libc::SOCK_STREAM,
        protocol: libc::IPPROTO_UDP,
        ..ANY
    };
    assert_eq!(mismatch.answer(V4), None);
    let harmless = libc::AI_PASSIVE | libc::AI_NUMERICHOST | libc::AI_NUMERICSERV;
    for flags in (0..31)
        .map(|bit| 1 << bit)
        .filter(|flag| harmless & flag == 0)
    {
        assert_eq!(Hints { flags, ..ANY }.answer(V4), None, "{flags:#x}");
    }
    let passive = Hints {
        flags: harmless,
        kind: libc::SOCK_STREAM,
        ..ANY
    };
    assert_eq!(passive.answer(V4), Some(&[TCP][..]));
}
