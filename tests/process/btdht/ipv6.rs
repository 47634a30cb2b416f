//! The same over IPv6 (BEP 32), on real sockets.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use crate::harness::{Home, INFOHASH, NOBODY, run};

#[test]
fn a_peer_announced_over_ipv6_is_found_over_ipv6() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let flags = ["--ipv6-only", "--bind", "[::1]:0"];
    let (home_a, home_b) = (Home::new(), Home::new());
    let (_a, addr_a) = home_a.serve(NOBODY, &flags);
    assert!(addr_a.is_ipv6());
    let (b, addr_b) = home_b.serve(&addr_a.to_string(), &flags);
    b.line(|line| line.starts_with("bootstrapped ") && line.ends_with(" nodes"));

    let asked = |verb: &[&str], at: SocketAddr| run(&[verb, &flags].concat(), &at.to_string());
    let stored = asked(&["announce", INFOHASH, "--peer-port", "7777"], addr_a).expect_code(0).stdout;
    assert_eq!(stored.lines().count(), 2, "{stored}");
    let found = asked(&["get-peers", INFOHASH], addr_b).expect_code(0);
    assert_eq!(found.stdout, "[::1]:7777\n");
    let scraped = asked(&["scrape", INFOHASH], addr_b).expect_code(0);
    assert!(scraped.stdout.contains('1'), "{scraped:?}");
}
