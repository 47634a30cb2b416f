//! The verbs that open no network connection, and what bad usage gets.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::Stdio;

use crate::world::{NAME, World, code, events, pieces_of};

#[test]
fn create_info_and_check_agree() {
    let world = World::new(1, 300_000);
    let info = world.run(world.command().args(["info", "--json"]).arg(world.torrent()));
    assert_eq!(code(info.status), 0, "{info:?}");
    let shown = &events(&info)[0];
    assert_eq!((shown["name"].as_str(), shown["length"].as_u64()), (Some(NAME), Some(300_000)));
    assert_eq!(shown["pieces"], 19);
    assert_eq!(shown["files"][0]["piece_index_range"], serde_json::json!([0, 18]));
    assert_eq!(shown["files"][0]["offset_start"], 0);
    assert_eq!(shown["infohash_v1"].as_str().unwrap().len(), 40);

    let check = |more: &[&str]| {
        world.run(world.command().arg("check").arg(world.torrent()).arg("-o").arg(world.seeder()).args(more))
    };
    assert_eq!(code(check(&[]).status), 0);
    // One wrong byte in piece 3.
    let path = world.seeder().join(NAME);
    let mut content = fs::read(&path).unwrap();
    content[3 * 16384 + 5] ^= 1;
    fs::write(&path, content).unwrap();
    let all = check(&["--json"]);
    assert_eq!(code(all.status), 1);
    let bad: Vec<_> = events(&all).into_iter().filter(|event| event["ok"] == false).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0]["index"], 3);
    assert_eq!(code(check(&["0-2,4"]).status), 0, "the wrong piece was not asked about");
    let plain = check(&["2-3"]);
    assert_eq!(String::from_utf8_lossy(&plain.stdout), "bad 3\n");
    assert_eq!(code(check(&["19"]).status), 2, "there is no such piece");
}

#[test]
fn the_same_input_makes_the_same_torrent() {
    let world = World::new(2, 100_000);
    let again = world.path("again.torrent");
    let made = world.run(world.command().arg("create").arg(world.seeder().join(NAME)).arg("-o").arg(&again));
    assert_eq!(code(made.status), 0);
    assert_eq!(fs::read(&again).unwrap(), fs::read(world.torrent()).unwrap());
    let clash = world.run(world.command().arg("create").arg(world.seeder().join(NAME)).arg("-o").arg(&again));
    assert_eq!(code(clash.status), 1, "an existing file is not replaced unasked");
}

#[test]
fn what_is_invalid_ends_with_exit_2_and_a_reason() {
    let world = World::new(3, 1000);
    let broken = world.path("broken.torrent");
    fs::write(&broken, b"d4:infod4:name1:xee").unwrap();
    let broken = broken.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["info", broken], "torrent"),
        (&["info", "magnet:?xt=urn:btih:123"], "magnet"),
        (&["info", "./missing.torrent"], "no such file"),
        (&["magnet:?xt=urn:btih:zz"], "magnet"),
        (&["616263646566676869"], "neither"),
        (&["inof"], "did you mean `info`"),
        (&["fetch"], "neither"),
        (&["-o", "x", "info", broken], "--output"),
        (&[broken, "--down", "fast"], "rate"),
        (&["check", broken, "5-1"], "list"),
        (&["--port", "70000", broken], "port"),
        (&[broken, "--peer", "nowhere"], "torrent"),
    ];
    for (words, reason) in cases {
        let ended = world.run(world.command().args(*words));
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(code(ended.status), 2, "{words:?}: {stderr}");
        assert!(stderr.contains(reason), "{words:?}: {stderr}");
        assert!(ended.stdout.is_empty(), "{words:?}");
    }
}

/// S29: what is refused opens nothing on the network, whatever it names.
#[test]
fn refused_links_open_no_connection() {
    let world = World::new(8, 1000);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    let hash = "6162636465666768696a30313233343536373839";
    let more =
        format!("tr=http://{addr}/a&x.pe={addr}&xs=http://{addr}/b&as=http://{addr}/c&ws=http://{addr}/d");
    for link in [
        format!("magnet:?{more}"),
        format!("magnet:?xt=urn:btih:{hash}0&{more}"),
        format!("magnet:?xt=urn:ed2k:31D6CFE0D16AE931B73C59D7E0C089C0&{more}"),
        format!("magnet:?xt=urn:btih:{hash}&{more}&x.pe=1.2.3.4:0"),
        format!("magnet:?xt=urn:btih:{hash}&{more}&so=2-1"),
        format!("magnet:?xt=urn:btih:{hash}&xt=urn:btih:{}&{more}", "0".repeat(40)),
    ] {
        let ended = world.run(&mut world.transfer(&[&link, "--timeout", "5"]));
        assert_eq!(code(ended.status), 2, "{link}: {}", String::from_utf8_lossy(&ended.stderr));
    }
    assert!(listener.accept().is_err(), "somebody connected");
}

#[test]
fn what_does_not_exist_yet_says_so() {
    let world = World::new(4, 1000);
    let torrent = world.torrent();
    let torrent = torrent.to_str().unwrap();
    for words in [
        &["daemon"] as &[&str],
        &["job", "start", "--all"],
        &[torrent, "--no-tcp"],
        &[torrent, "--encryption", "require"],
        &["create", torrent, "--v2"],
    ] {
        let ended = world.run(world.command().args(words));
        assert_eq!(code(ended.status), 1, "{words:?}: {ended:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("not there yet"), "{words:?}");
    }
}

#[test]
fn help_has_examples_and_global_flags_stand_on_both_sides_of_the_verb() {
    let world = World::new(5, 1000);
    for verb in [None, Some("demo"), Some("seed"), Some("info"), Some("check"), Some("create")] {
        let help = world.run(world.command().args(verb).arg("--help"));
        assert_eq!(code(help.status), 0);
        assert!(String::from_utf8_lossy(&help.stdout).contains("xample"), "{verb:?}");
    }
    let torrent = world.torrent();
    let before = world.run(world.command().args(["--json", "info"]).arg(&torrent));
    let after = world.run(world.command().arg("info").arg(&torrent).arg("--json"));
    assert_eq!((code(before.status), &before.stdout), (0, &after.stdout));
    for shell in ["bash", "zsh", "fish"] {
        let script = world.run(world.command().args(["completions", shell]));
        assert!(code(script.status) == 0 && script.stdout.len() > 1000, "{shell}");
    }
    let man = world.run(world.command().arg("man"));
    assert!(String::from_utf8_lossy(&man.stdout).contains(".TH btfetch"));
}

#[test]
fn a_closed_pipe_and_a_dumb_terminal_are_quiet() {
    let world = World::new(6, 40 << 14);
    for env in [("TERM", "dumb"), ("LANG", "C"), ("NO_COLOR", "1")] {
        let mut command = world.command();
        command.arg("check").arg(world.torrent()).arg("-o").arg(world.seeder()).arg("--json");
        command.env(env.0, env.1).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One byte, and the pipe is closed.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{env:?}");
        code(ended.status);
    }
}

/// S53: what is there by then is kept, and fetched on by the next run.
#[test]
fn a_download_whose_reader_has_gone_ends_quietly_and_can_be_gone_on_with() {
    let world = World::new(8, 40 << 14);
    let (_seeder, addr) = world.start_seeder(&["--up", "200k"]);
    let mut command = world.download(addr);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first piece is told of, and the pipe is closed.
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(r#""event":"piece""#) {
        line.clear();
        assert_ne!(told.read_line(&mut line).unwrap(), 0, "it goes on");
    }
    drop(told);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((code(ended.status), &*String::from_utf8_lossy(&ended.stderr)), (0, ""));
    assert!(!world.is_whole(), "it ended before");
    let again = world.run(&mut world.download(addr));
    assert_eq!(code(again.status), 0, "{}", String::from_utf8_lossy(&again.stderr));
    assert!(world.is_whole() && pieces_of(&again) < 40);
}

#[test]
fn names_of_strangers_are_escaped_everywhere() {
    let world = World::new(7, 1000);
    let torrent = world.path("evil.torrent");
    let name = "\x1b[31m<script>\u{202e}gpj";
    let made = world.run(
        world
            .command()
            .arg("create")
            .arg(world.seeder().join(NAME))
            .args(["--name", name])
            .arg("-o")
            .arg(&torrent),
    );
    assert_eq!(code(made.status), 0, "{made:?}");
    for words in [&["info"] as &[&str], &["info", "--json"]] {
        let shown = world.run(world.command().args(words).arg(&torrent));
        assert_eq!(code(shown.status), 0);
        let control = |byte: &u8| *byte != b'\n' && (*byte < 0x20 || *byte == 0x7f);
        assert!(!shown.stdout.iter().any(control), "{}", String::from_utf8_lossy(&shown.stdout));
        assert!(!String::from_utf8_lossy(&shown.stdout).contains('\u{202e}'));
    }
}
