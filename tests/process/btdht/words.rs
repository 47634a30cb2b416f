//! What the program says besides its results, how loud, in which colours, and where nobody can hear it.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::harness::{Finished, Home, INFOHASH, Loopback, NOBODY, Running, run, silent_node};

const SERVE: [&str; 9] =
    ["serve", "--bind", "127.0.0.1", "--port", "0", "--bootstrap", NOBODY, "--timeout", "0.2"];

/// A home whose saved state is damaged: `serve` warns of it.
fn damaged() -> Home {
    let home = Home::new();
    let folder = home.path().join(".local/state/btdht");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("node.bencode"), "no bencode").unwrap();
    home
}

fn serve(more: &[&str], rust_log: Option<&str>) -> Finished {
    let home = damaged();
    let mut command = home.command(&[&SERVE, more].concat());
    command.envs(rust_log.map(|value| ("RUST_LOG", value)));
    Running::start(&mut command).finish().expect_code(0)
}

#[test]
fn quiet_and_verbose_say_less_and_more() {
    let warns = |finished: &Finished| finished.stderr.contains("WARN") && finished.stderr.contains("damaged");
    let usual = serve(&[], None);
    assert!(warns(&usual) && usual.stderr.lines().count() == 1, "{usual:#?}");
    for quiet in ["-q", "--quiet"] {
        let finished = serve(&[quiet], None);
        assert_eq!(finished.stderr, "");
        assert!(finished.stdout.starts_with("listening "), "results are no noise: {finished:#?}");
    }
    for verbose in ["-v", "--verbose"] {
        let finished = serve(&[verbose], None);
        assert!(warns(&finished) && !finished.stderr.contains("DEBUG"), "{finished:#?}");
    }
    let finished = serve(&["-vv"], None);
    assert!(warns(&finished) && finished.stderr.contains("DEBUG"), "{finished:#?}");
    Home::new().run(&["serve", "-q", "-v"]).expect_code(2);
    // Errors are said however quiet it is to be.
    let finished = run(&["ping", NOBODY, "-q", "--timeout", "0.2"], NOBODY).expect_code(4);
    assert!(finished.error().contains("no answer"), "{finished:#?}");
}

#[test]
fn rust_log_says_which_parts_are_heard() {
    assert_eq!(serve(&[], Some("off")).stderr, "");
    assert_eq!(serve(&[], Some("error")).stderr, "");
    let finished = serve(&[], Some("btdht=debug"));
    assert!(finished.stderr.contains("DEBUG") && finished.stderr.contains("WARN"), "{finished:#?}");
    let finished = serve(&[], Some("off,btdht::net=debug"));
    assert!(finished.stderr.lines().all(|line| line.contains(" btdht::net")), "{finished:#?}");
    // Flags beat the environment.
    assert_eq!(serve(&["-q"], Some("btdht=debug")).stderr, "");
    assert!(serve(&["-vv"], Some("off")).stderr.contains("DEBUG"));
    // What cannot be read is as if it were not there.
    assert_eq!(serve(&[], Some("btdht=loud")).stderr.lines().count(), 1);
}

/// What a terminal gets of stdout and stderr.
#[cfg(target_os = "linux")]
fn on_a_terminal(home: &Home, words: &[&str], no_color: Option<&str>) -> String {
    let program = home.command(&[]).get_program().to_str().unwrap().to_owned();
    let line = [&[&*program], words].concat().join(" ");
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("HOME", home.path());
    command.env_remove("RUST_LOG").env_remove("NO_COLOR").env("TERM", "xterm-256color");
    command.envs(no_color.map(|value| ("NO_COLOR", value))).stdin(Stdio::null());
    let output = command.output().expect("bsdutils");
    String::from_utf8(output.stdout).unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn colours_are_for_terminals_that_want_them() {
    const ESCAPE: char = '\x1b';
    let on = |no_color| on_a_terminal(&damaged(), &SERVE, no_color);
    let coloured = on(None);
    assert!(coloured.contains("damaged") && coloured.contains(ESCAPE), "{coloured:?}");
    // no-color.org: an empty value is none.
    assert!(on(Some("")).contains(ESCAPE));
    let plain = on(Some("1"));
    assert!(plain.contains("damaged") && !plain.contains(ESCAPE), "{plain:?}");
    assert!(!serve(&[], None).stderr.contains(ESCAPE), "a pipe is no terminal");
    let usage = on_a_terminal(&Home::new(), &["ping"], Some("1"));
    assert!(usage.contains("required") && !usage.contains(ESCAPE), "{usage:?}");
}

#[test]
fn a_port_is_p_for_short() {
    let home = Home::new();
    let taken = silent_node();
    let port = taken.local_addr().unwrap().port().to_string();
    let args = ["serve", "--no-state", "--bind", "127.0.0.1", "--bootstrap", NOBODY, "--timeout", "0.2"];
    let finished = home.run(&[&args[..], &["-p", &port]].concat()).expect_code(3);
    assert!(finished.error().contains(&format!("binding 127.0.0.1:{port}")), "{finished:#?}");
    drop(taken);
    let finished = home.run(&[&args[..], &["-p", &port]].concat()).expect_code(0);
    assert!(finished.stdout.starts_with(&format!("listening 127.0.0.1:{port} ")), "{finished:#?}");
    home.run(&[&args[..], &["-p", "65536"]].concat()).expect_code(2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_exit_code_5() {
    let home = Home::new();
    let world = Loopback::new(8);
    let router = world.router();
    run(&["announce", INFOHASH, "--peer-port", "7001"], &router).expect_code(0);
    for args in [
        &["serve", "--no-state"][..],
        &["config"],
        &["man"],
        &["id"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
        &["get-peers", INFOHASH],
        &["get-peers", INFOHASH, "--json"],
        &["find-node", INFOHASH],
        &["sample", &router],
        &["ping", &router],
        &["krpc", &router, "{\"q\":\"ping\"}"],
    ] {
        let local = ["--bind", "127.0.0.1", "--allow-local", "--bootstrap", &router];
        let mut command = home.command(&[args, &local].concat());
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command.stdout(full).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(5), "{args:?} {said}");
        assert!(
            said.starts_with("btdht: writing the output: ") && said.lines().count() == 1,
            "{args:?} {said}"
        );
    }
}
