//! Sockets made by the standard library, driven through the calls.

use std::{
    io::{IoSlice, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd,
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
};

use super::*;

#[test]
fn bytes_go_through_a_pair() {
    let (mut near, far) = UnixStream::pair().expect("a pair");
    near.write_all(b"hello").expect("written");
    let mut buffer = [0; 16];
    assert_eq!(recv(far.as_raw_fd(), &mut buffer).expect("read"), 5);
    assert_eq!(&buffer[..5], b"hello");
    let pieces = [IoSlice::new(b"a"), IoSlice::new(b""), IoSlice::new(b"bc")];
    let sent = send_vectored(far.as_raw_fd(), &pieces).expect("sent");
    assert_eq!(sent, 3);
    near.read_exact(&mut buffer[..3]).expect("read");
    assert_eq!(&buffer[..3], b"abc");
}

#[test]
fn the_end_of_a_stream_is_zero_and_a_broken_one_is_an_error_without_signal() {
    let (near, far) = UnixStream::pair().expect("a pair");
    drop(near);
    assert_eq!(recv(far.as_raw_fd(), &mut [0; 1]).expect("the end"), 0);
    let error = send(far.as_raw_fd(), b"x").expect_err("nobody reads");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn closed_and_impossible_numbers_are_errors() {
    for fd in [-1, i32::MIN, 1_000_000] {
        let error = recv(fd, &mut [0; 1]).expect_err("no such descriptor");
        assert_eq!(error.raw_os_error(), Some(9), "EBADF");
    }
}

#[test]
fn an_accepted_connection_does_not_block_and_knows_its_peer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    let client = TcpStream::connect(address).expect("connected");
    let (connection, peer) = accept(listener.as_raw_fd()).expect("accepted");
    let SocketAddr::V4(expected) = client.local_addr().expect("an address") else {
        panic!("an IPv4 socket");
    };
    assert_eq!(peer, Some(Address::V4(expected)));
    assert_eq!(
        peer_address(connection.as_raw_fd()).expect("a peer"),
        Some(Address::V4(expected))
    );
    let error = recv(connection.as_raw_fd(), &mut [0; 1]).expect_err("nothing there");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    set_nodelay(connection.as_raw_fd()).expect("a TCP socket");
}

#[test]
fn datagrams_carry_their_sender() {
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let SocketAddr::V4(target) = far.local_addr().expect("an address") else {
        panic!("an IPv4 socket");
    };
    send_to(near.as_raw_fd(), b"ping", &Address::V4(target)).expect("sent");
    let mut buffer = [0; 16];
    let (count, sender) = recv_from(far.as_raw_fd(), &mut buffer).expect("received");
    assert_eq!(&buffer[..count], b"ping");
    assert_eq!(sender, local_address(near.as_raw_fd()).expect("an address"));
}

#[test]
fn unix_addresses_are_paths_nothing_or_abstract_names() {
    let (near, far) = UnixDatagram::pair().expect("a pair");
    near.send(b"x").expect("sent");
    let (_, sender) = recv_from(far.as_raw_fd(), &mut [0; 1]).expect("received");
    assert!(
        matches!(&sender, None | Some(Address::Unix(_))),
        "{sender:?}"
    );
    let unnamed = Some(Address::Unix(Vec::new()));
    let fd = near.as_raw_fd();
    assert_eq!(local_address(fd).expect("an address"), unnamed);
    assert_eq!(peer_address(fd).expect("an address"), unnamed);

    let path = std::env::temp_dir().join(format!("aioxide-{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("bound");
    let client = UnixStream::connect(&path).expect("connected");
    std::fs::remove_file(&path).expect("removed");
    let (connection, peer) = accept(listener.as_raw_fd()).expect("accepted");
    assert_eq!(peer, unnamed);
    let named = Some(Address::Unix(path.into_os_string().into_encoded_bytes()));
    for (fd, own, other) in [
        (connection.as_raw_fd(), &named, &unnamed),
        (client.as_raw_fd(), &unnamed, &named),
    ] {
        assert_eq!(&local_address(fd).expect("an address"), own);
        assert_eq!(&peer_address(fd).expect("an address"), other);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_empty_abstract_name_is_a_name() {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    let name = SocketAddr::from_abstract_name(b"").expect("a name");
    let socket = UnixDatagram::bind_addr(&name).expect("bound");
    assert_eq!(
        local_address(socket.as_raw_fd()).expect("an address"),
        Some(Address::Unix(vec![0]))
    );
}

#[test]
fn what_the_kernel_wrote_of_a_name_may_end_with_zeros() {
    for written in [&b"/path"[..], b"/path\0", b"/path\0\0\0"] {
        assert_eq!(unix_name(written), b"/path");
    }
    assert_eq!(unix_name(b""), b"");
    let linux = cfg!(any(target_os = "linux", target_os = "android"));
    for written in [&b"\0"[..], b"\0name", b"\0a\0b\0", &[0; 14]] {
        assert_eq!(unix_name(written), if linux { written } else { b"" });
    }
}

#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
#[test]
fn a_file_is_sent_from_an_offset_to_its_end() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    let near = TcpStream::connect(address).expect("connected");
    let (mut far, _) = listener.accept().expect("accepted");
    let path = std::env::current_exe().expect("a path");
    let file = std::fs::File::open(path).expect("a file");
    let mut head = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 2).expect("read");
    let (fd, file) = (near.as_raw_fd(), file.as_raw_fd());
    assert_eq!(send_file(fd, file, 2, 8).expect("sent"), 8);
    let mut received = [0; 8];
    far.read_exact(&mut received).expect("read");
    assert_eq!(received, head);
    assert_eq!(send_file(fd, file, 1 << 40, 8).expect("the end"), 0);
    assert_eq!(send_file(fd, file, 2, 0).expect("nothing"), 0);
    near.set_nonblocking(true).expect("set");
    let mut total = 0;
    let error = loop {
        match send_file(fd, file, 0, 1 << 16) {
            Ok(sent) => total += sent,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let mut all = vec![0; total];
    far.read_exact(&mut all).expect("what was counted");
    far.set_nonblocking(true).expect("set");
    let error = far.read(&mut [0]).expect_err("no more than that");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_second_look_tells_how_a_connection_attempt_went() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let SocketAddr::V4(address) = listener.local_addr().expect("an address") else {
        panic!("not of IPv4");
    };
    let flags = net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK;
    let kind = net::SocketType::STREAM;
    let socket = || net::socket_with(AddressFamily::INET, kind, flags, None).expect("a socket");
    let client = socket();
    while connect(client.as_raw_fd(), &Address::V4(address)).expect("no error")
        == Connection::UnderWay
    {}
    let peer = peer_address(client.as_raw_fd()).expect("a peer");
    assert_eq!(peer, Some(Address::V4(address)));
    drop(listener);
    let client = socket();
    let error = loop {
        match connect(client.as_raw_fd(), &Address::V4(address)) {
            Ok(Connection::UnderWay) => {}
            Ok(Connection::Made) => panic!("nobody listens"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
