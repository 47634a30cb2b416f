//! How loud the program is besides its results: flags beat the environment, which beats the default.

use std::fs;

use crate::world::{World, code};

/// What a download from nobody says on stderr. The saved table of its node is damaged, of which it warns.
fn download(world: &World, more: &[&str], rust_log: Option<&str>) -> String {
    let folder = world.path("home").join(".local/state/btfetch");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("node.bencode"), "no bencode").unwrap();
    let mut command = world.command();
    command.arg(world.torrent()).arg("-o").arg(world.leecher()).args(more);
    command.args(["--bind", "127.0.0.1", "--port", "0", "--allow-local", "--no-lsd"]);
    command.args(["--bootstrap", "127.0.0.1:1", "--timeout", "0.3"]);
    command.envs(rust_log.map(|value| ("RUST_LOG", value)));
    let ended = world.run(&mut command);
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(code(ended.status), 4, "{stderr}");
    assert!(stderr.contains("no peer"), "errors are said however quiet it is to be: {stderr}");
    stderr
}

#[test]
fn flags_beat_the_environment_in_how_loud_it_is() {
    let world = World::new(40, 1000);
    let said = |more: &[&str], rust_log| {
        let stderr = download(&world, more, rust_log);
        ["WARN", "INFO", "DEBUG"].map(|level| stderr.contains(level))
    };
    let (silent, warns) = ([false; 3], [true, false, false]);
    assert_eq!(said(&[], None), warns);
    assert_eq!(said(&["-q"], None), silent);
    assert!(said(&["-vv"], None)[2]);
    // The environment alone.
    assert_eq!(said(&[], Some("off")), silent);
    assert!(said(&[], Some("btdht=debug"))[2]);
    // Both.
    assert_eq!(said(&["-q"], Some("btdht=debug")), silent);
    assert_eq!(said(&["--quiet"], Some("trace")), silent);
    assert!(said(&["-v"], Some("off"))[0]);
    assert!(said(&["-vv"], Some("off"))[2]);
    // What cannot be read is as if it were not there.
    assert_eq!(said(&[], Some("btdht=loud")), warns);
}
