//! The same over IPv6 (BEP 32), on real sockets.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use crate::harness::{Home, INFOHASH, NOBODY, run};

/// Says so aloud where there is none, and fails where nothing may be skipped.
pub(crate) fn has_ipv6() -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        let required = std::env::var_os("INTEROP_REQUIRED").is_some_and(|value| value == "1");
        assert!(!required, "this machine has no IPv6, and INTEROP_REQUIRED=1 allows no skipping");
        eprintln!("SKIPPED: this machine has no IPv6");
    }
    has
}

#[test]
fn a_peer_announced_over_ipv6_is_found_over_ipv6() {
    if !has_ipv6() {
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

#[test]
fn items_samples_and_single_questions_work_over_ipv6() {
    if !has_ipv6() {
        return;
    }
    let flags = ["--ipv6-only", "--bind", "[::1]:0"];
    let (home_a, home_b) = (Home::new(), Home::new());
    let (_a, addr_a) = home_a.serve(NOBODY, &flags);
    let (b, addr_b) = home_b.serve(&addr_a.to_string(), &flags);
    b.line(|line| line.starts_with("bootstrapped ") && line.ends_with(" nodes"));

    let asked = |verb: &[&str], at: SocketAddr| run(&[verb, &flags].concat(), &at.to_string()).expect_code(0);
    let target = asked(&["put", "over six"], addr_a).stdout;
    assert_eq!(asked(&["get", target.trim_end()], addr_b).stdout, "over six\n");
    asked(&["announce", INFOHASH, "--peer-port", "7777"], addr_b);
    assert_eq!(asked(&["sample", "--limit", "1"], addr_a).stdout, format!("{INFOHASH}\n"));
    let near = asked(&["find-node", INFOHASH], addr_a).stdout;
    assert!(near.contains(&addr_a.to_string()) && near.contains(&addr_b.to_string()), "{near}");
    asked(&["ping", &addr_a.to_string()], addr_a);
}

#[test]
fn a_node_bound_twice_serves_both_families() {
    if !has_ipv6() {
        return;
    }
    let home = Home::new();
    let (node, first) = home.serve(NOBODY, &["--bind", "[::1]:0"]);
    let line = node.line(|line| line.starts_with("listening "));
    let second: SocketAddr = line.split(' ').nth(1).unwrap().parse().unwrap();
    assert_ne!(first.is_ipv6(), second.is_ipv6());
    let ask = |addr: SocketAddr| {
        let bind = if addr.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
        let addr = addr.to_string();
        let answer =
            Home::new().run(&["ping", &addr, "--json", "--bind", bind, "--allow-local"]).expect_code(0);
        answer.objects()[0]["id"].as_str().unwrap().to_owned()
    };
    assert_ne!(ask(first), ask(second), "each socket has an id of its own (BEP 32, BEP 45)");
}
