//! `btdht serve`: ports, signals, lines of output.

use std::net::UdpSocket;

use crate::harness::{Home, NOBODY, Running};
use crate::uninterrupted::uninterrupted;

#[test]
fn a_busy_port_is_exit_code_3_with_a_reason_in_one_line() {
    let home = Home::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let finished =
        home.run(&["serve", "--bind", "127.0.0.1", "--port", &port, "--bootstrap", NOBODY]).expect_code(3);
    assert!(finished.error().contains(&format!("127.0.0.1:{port}")) && finished.error().contains("hint"));
    assert!(finished.stdout.is_empty());
    let finished = home.run(&["serve", "--bind", "203.0.113.1", "--bootstrap", NOBODY]).expect_code(3);
    assert!(finished.error().contains("203.0.113.1"));
}

#[test]
fn without_a_port_the_first_free_one_of_the_usual_is_taken() {
    let home = Home::new();
    let args = ["serve", "--bind", "127.0.0.1", "--no-state", "--bootstrap", NOBODY];
    let start = || {
        let running = Running::start(&mut home.command(&args));
        let line = running.line(|line| line.starts_with("listening 127.0.0.1:"));
        let port = line.split([':', ' ']).nth(2).unwrap().parse::<u16>().unwrap();
        (running, port)
    };
    let ((first, a), (second, b)) = (start(), start());
    assert!((6881..=6889).contains(&a) && (6881..=6889).contains(&b) && a != b, "{a} {b}");
    drop((first, second));
}

#[test]
fn signals_end_it_with_their_exit_code() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let home = Home::new();
        let (node, _) = home.serve(NOBODY, &[]);
        node.signal(signal);
        let finished = node.finish().expect_code(code);
        assert_eq!(finished.stderr, "");
        assert!(home.path().join(".local/state/btdht/node.bencode").exists(), "state is saved");
    }
}

#[cfg(unix)]
#[test]
fn a_second_signal_does_not_wait_for_a_disk_that_hangs() {
    let home = Home::new();
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    for signals in [&["-INT"][..], &["-INT", "-TERM"]] {
        let (node, _) = home.serve(NOBODY, &["--state", state.to_str().unwrap()]);
        // Nobody reads this pipe: whoever opens it to write the state waits. Not before the start, which
        // clears away what was half written.
        let pipe = state.join("node.bencode.new");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        signals.iter().for_each(|signal| node.signal(signal));
        let finished = node.finish();
        let code = finished.status.code();
        match signals {
            [_] => assert!(code == Some(130) && finished.error().contains("too slow"), "{finished:#?}"),
            // Both may be there before either is seen; the later one gives the code.
            _ => assert!(matches!(code, Some(130 | 143)) && finished.stderr.is_empty(), "{finished:#?}"),
        }
    }
}

#[test]
fn a_signal_ends_a_lookup_at_once() {
    let home = Home::new();
    let silent = crate::harness::silent_node();
    let router = silent.local_addr().unwrap().to_string();
    let args = ["get-peers", "08ada5a7a6183aae1e09d831df6748d566095a10", "--bind", "127.0.0.1"];
    let lookup =
        Running::start(&mut home.command(&[&args[..], &["--allow-local", "--bootstrap", &router]].concat()));
    // Its first query shows that it is running.
    silent.set_read_timeout(Some(crate::harness::GUARD)).unwrap();
    uninterrupted(|| silent.recv_from(&mut [0; 2048])).unwrap();
    lookup.signal("-INT");
    lookup.finish().expect_code(130);
}

#[test]
fn json_lines_say_what_the_plain_lines_say() {
    let home = Home::new();
    let args = ["--json", "serve", "--bind", "127.0.0.1", "--port", "0", "--no-state", "--bootstrap", NOBODY];
    let node = Running::start(&mut home.command(&args));
    let line: serde_json::Value = serde_json::from_str(&node.line(|_| true)).unwrap();
    assert_eq!(line["event"], "listening");
    assert!(line["addr"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(line["id"].as_str().unwrap().len(), 40);
}

#[test]
fn a_missing_family_is_a_warning_and_an_asked_for_one_an_error() {
    let home = Home::new();
    // Both families by default; on machines without IPv6 the other one serves alone.
    let node =
        Running::start(&mut home.command(&["serve", "--port", "0", "--no-state", "--bootstrap", NOBODY]));
    node.line(|line| line.starts_with("listening 0.0.0.0:"));
    if UdpSocket::bind("[::1]:0").is_ok() {
        node.line(|line| line.starts_with("listening [::]:"));
    }
    let finished = home.run(&["serve", "--bind", "2001:db8::1", "--bootstrap", NOBODY]).expect_code(3);
    assert!(finished.error().contains("2001:db8::1"));
}
