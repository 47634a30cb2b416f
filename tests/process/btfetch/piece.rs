//! One piece from one peer.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use crate::world::{NAME, World, code, events};

const LEN: usize = 300_000;
const PIECE: usize = 16_384;

impl World {
    fn infohash(&self) -> String {
        let info = self.run(self.command().args(["info", "--json"]).arg(self.torrent()));
        events(&info)[0]["infohash_v1"].as_str().unwrap().to_owned()
    }

    /// `btfetch piece` with these words.
    fn piece(&self, words: &[&str]) -> std::process::Output {
        let mut command = self.command();
        command.arg("piece").args(words).args(["--no-state", "--allow-local", "--port", "0"]);
        self.run(command.args(["--bind", "127.0.0.1"]))
    }
}

#[test]
fn a_piece_comes_from_a_named_peer_with_nothing_known_but_the_infohash() {
    let world = World::new(60, LEN);
    let (_seeder, addr) = world.start_seeder(&[]);
    let (peer, infohash) = (addr.to_string(), world.infohash());
    let content = fs::read(world.seeder().join(NAME)).unwrap();
    for index in [3, LEN / PIECE] {
        let piece = world.piece(&[&peer, &infohash, &index.to_string()]);
        assert_eq!(code(piece.status), 0, "{}", String::from_utf8_lossy(&piece.stderr));
        let end = LEN.min((index + 1) * PIECE);
        assert!(piece.stdout == content[index * PIECE..end], "piece {index}");
    }
    let beyond = world.piece(&[&peer, &infohash, "19"]);
    assert_eq!((code(beyond.status), beyond.stdout.len()), (2, 0), "{beyond:?}");
}

#[test]
fn a_piece_goes_to_a_file_and_json_tells_of_it() {
    let world = World::new(61, LEN);
    let (_seeder, addr) = world.start_seeder(&[]);
    let (peer, infohash, torrent) = (addr.to_string(), world.infohash(), world.torrent());
    let path = world.path("piece.bin");
    let words = [&peer, &infohash, "5", "--torrent", torrent.to_str().unwrap(), "-o", path.to_str().unwrap()];
    let got = world.piece(&[&words[..], &["--json"]].concat());
    assert_eq!(code(got.status), 0, "{}", String::from_utf8_lossy(&got.stderr));
    let content = fs::read(world.seeder().join(NAME)).unwrap();
    assert!(fs::read(&path).unwrap() == content[5 * PIECE..6 * PIECE]);
    let events = events(&got);
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["connected", "unchoked", "block", "done"]);
    let done = &events[3];
    assert_eq!((&done["index"], &done["size"], &done["verified"]), (&5.into(), &PIECE.into(), &true.into()));

    fs::write(&path, "mine").unwrap();
    assert_eq!(code(world.piece(&words).status), 1, "an existing file is not replaced unasked");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert_eq!(code(world.piece(&[&words[..], &["--force"]].concat()).status), 0);
    assert_eq!(fs::read(&path).unwrap().len(), PIECE);
}

#[test]
fn a_piece_with_wrong_bytes_is_not_written() {
    let world = World::new(62, LEN);
    let (_seeder, addr) = world.start_seeder(&[]);
    // The seeder has checked its file; now one byte of piece 3 changes under it.
    let file = world.seeder().join(NAME);
    let mut content = fs::read(&file).unwrap();
    content[3 * PIECE + 5] ^= 1;
    fs::write(&file, content).unwrap();
    let (peer, infohash) = (addr.to_string(), world.infohash());
    let path = world.path("piece.bin");
    let wrong = world.piece(&[&peer, &infohash, "3", "-o", path.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(code(wrong.status), 1, "{stderr}");
    assert!(stderr.contains("another hash") && !path.exists(), "{stderr}");
}

#[test]
fn what_cannot_be_fetched_ends_with_the_exit_code_that_says_so() {
    let world = World::new(63, LEN);
    let (infohash, torrent) = (world.infohash(), world.torrent());
    let torrent = torrent.to_str().unwrap();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = free.local_addr().unwrap().to_string();
    drop(free);
    let other = "6162636465666768696a30313233343536373839";
    let cases: &[(&[&str], i32, &str)] = &[
        (&["127.0.0.1", &infohash, "0"], 2, "HOST:PORT"),
        (&[&peer, "xyz", "0"], 2, "not an infohash"),
        (&[&peer, &infohash, "-1"], 2, ""),
        (&[&peer, &infohash, "0", "--json"], 2, "name a file with -o"),
        (&[&peer, other, "0", "--torrent", torrent], 2, "not that of the infohash"),
        (&[&peer, &infohash, "19", "--torrent", torrent], 2, "no piece 19"),
        (&[&peer, &infohash, "0", "--torrent", torrent], 4, "no connection"),
        // It does not go on until it has waited for a minute.
        (&[&peer, &infohash, "0"], 4, "no connection"),
    ];
    for (words, exit, reason) in cases {
        let ended = world.piece(words);
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(code(ended.status), *exit, "{words:?}: {stderr}");
        assert!(stderr.contains(reason), "{words:?}: {stderr}");
    }
    let help = world.run(world.command().args(["piece", "--help"]));
    assert!(code(help.status) == 0 && String::from_utf8_lossy(&help.stdout).contains("Example"));
}
