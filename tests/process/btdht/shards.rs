//! `btdht serve --shards`: several sockets and threads, one node.
#![cfg(target_os = "linux")]

use std::net::{SocketAddr, UdpSocket};

use krpc::{Body, Message};

use crate::harness::{GUARD, Home, INFOHASH, NOBODY, run};
use crate::uninterrupted::uninterrupted;

/// Sockets bound to a port of 127.0.0.1, as the kernel says.
fn sockets_at(addr: SocketAddr) -> usize {
    let local = format!(" 0100007F:{:04X} ", addr.port());
    std::fs::read_to_string("/proc/net/udp").unwrap().lines().filter(|line| line.contains(&local)).count()
}

/// Asks from a port of its own; whether a reply came.
fn is_answered(addr: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(GUARD)).unwrap();
    socket.send_to(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", addr).unwrap();
    let mut buffer = [0; 2048];
    // The ping of a newcomer may come first.
    while let Ok(len) = uninterrupted(|| socket.recv(&mut buffer)) {
        let message = Message::decode(&buffer[..len]).unwrap();
        if matches!(message.body, Body::Response(_)) {
            return true;
        }
    }
    false
}

#[test]
fn two_shards_answer_at_one_port_and_serve_what_was_announced() {
    let home = Home::new();
    let (node, addr) = home.serve(NOBODY, &["--shards", "2"]);
    assert_eq!(sockets_at(addr), 2);
    // All of 64 ports go to one of two sockets once in 2^63 runs.
    assert!((0..64).all(|_| is_answered(addr)));

    let router = addr.to_string();
    let stored = run(&["announce", INFOHASH, "--peer-port", "7777"], &router).expect_code(0).stdout;
    assert!(stored.lines().any(|line| line.ends_with(&format!(" {addr}"))), "{stored}");
    for _ in 0..4 {
        assert_eq!(run(&["get-peers", INFOHASH], &router).expect_code(0).stdout, "127.0.0.1:7777\n");
    }
    node.signal("-TERM");
    node.finish().expect_code(143);
    UdpSocket::bind(addr).expect("every socket is closed");

    // What was stored is there again, for another number of shards.
    let (node, addr) = home.serve(NOBODY, &["--shards", "1"]);
    assert_eq!(sockets_at(addr), 1);
    let found = run(&["get-peers", INFOHASH], &addr.to_string()).expect_code(0);
    assert_eq!(found.stdout, "127.0.0.1:7777\n");
    drop(node);
}

#[test]
fn shards_are_a_number_from_1_to_64_or_auto() {
    let home = Home::new();
    for bad in ["0", "65", "many"] {
        let finished = home.run(&["serve", "--shards", bad]).expect_code(2);
        assert!(finished.stderr.contains("from 1 to 64"), "{finished:?}");
    }
    let text = home.run(&["config"]).expect_code(0).stdout;
    assert!(text.contains("shards = \"auto\""), "{text}");
    let (node, addr) = home.serve(NOBODY, &["--shards", "auto"]);
    assert!((1..=64).contains(&sockets_at(addr)));
    drop(node);
}
