//! Downloads from a named peer, interrupted in every way.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddrV4, TcpListener};
use std::time::Duration;

use btdht::Rng;
use harness::process::Running;
use serde_json::Value;

use crate::world::{NAME, World, code, events, sha256, wait_event};

const PATIENCE: Duration = Duration::from_secs(60);

fn progress(event: &Value) -> Option<(u64, u64)> {
    Some((event["wanted"].as_u64()? - event["left"].as_u64()?, event["downloaded"].as_u64()?))
}

#[test]
fn a_download_from_a_named_peer_is_whole_and_a_second_run_has_nothing_to_do() {
    let world = World::new(10, 5_000_000);
    let (_seeder, addr) = world.start_seeder(&[]);
    let first = world.run(&mut world.download(addr));
    assert_eq!(code(first.status), 0, "{}", String::from_utf8_lossy(&first.stderr));
    assert!(world.is_whole());
    let names: Vec<_> =
        events(&first).iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    for name in ["metadata", "peer", "piece", "file", "verified", "done"] {
        assert!(names.iter().any(|seen| seen == name), "no {name} in {names:?}");
    }
    let again = world.run(&mut world.download(addr));
    assert_eq!(code(again.status), 0);
    let done = events(&again).into_iter().find(|event| event["event"] == "done").unwrap();
    assert!(done["downloaded"].as_u64().unwrap() <= 5_000_000 + (64 << 14), "{done}");
    assert!(!events(&again).iter().any(|event| event["event"] == "piece"), "nothing is fetched twice");
}

#[test]
fn a_torrent_that_is_named_twice_is_fetched_once_and_that_is_said() {
    let world = World::new(13, 1_000_000);
    let (_seeder, addr) = world.start_seeder(&[]);
    let run = world.run(world.download(addr).arg(world.torrent()));
    assert_eq!(code(run.status), 0, "{}", String::from_utf8_lossy(&run.stderr));
    assert!(world.is_whole());
    let count = |name: &str| events(&run).iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("done"), count("warning")), (1, 1));
}

#[test]
fn a_magnet_gets_metadata_and_data_from_a_named_peer() {
    let world = World::new(11, 2_000_000);
    let (_seeder, addr) = world.start_seeder(&[]);
    let info = world.run(world.command().args(["info", "--json"]).arg(world.torrent()));
    let infohash = events(&info)[0]["infohash_v1"].as_str().unwrap().to_owned();
    let magnet = format!("magnet:?xt=urn:btih:{infohash}&x.pe={addr}");
    let out = world.leecher();
    let fetched = world.run(world.transfer(&[&magnet]).arg("-o").arg(&out));
    assert_eq!(code(fetched.status), 0, "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(world.is_whole());

    // The infohash alone, and only the metadata.
    let mut command = world.transfer(&[&infohash, "--metadata-only", "--peer", &addr.to_string()]);
    let torrent = world.run(command.arg("-o").arg(&out));
    assert_eq!(code(torrent.status), 0, "{}", String::from_utf8_lossy(&torrent.stderr));
    let written = out.join(format!("{NAME}.torrent"));
    let shown = world.run(world.command().args(["info", "--json"]).arg(&written));
    assert_eq!(events(&shown)[0]["infohash_v1"], infohash.as_str());
}

#[test]
fn a_magnet_that_is_given_again_needs_nobody_to_know_what_it_stands_for() {
    let world = World::new(16, 2_000_000);
    let (mut seeder, addr) = world.start_seeder(&[]);
    let info = world.run(world.command().args(["info", "--json"]).arg(world.torrent()));
    let infohash = events(&info)[0]["infohash_v1"].as_str().unwrap().to_owned();
    let out = world.leecher();
    let run = |words: &[&str]| world.run(world.transfer(words).arg("-o").arg(&out));
    let first = run(&[&infohash, "--peer", &addr.to_string()]);
    assert_eq!(code(first.status), 0, "{}", String::from_utf8_lossy(&first.stderr));
    seeder.signal("TERM");
    seeder.wait(PATIENCE);

    // Nobody is there any more.
    let whole = run(&[&infohash]);
    assert_eq!(code(whole.status), 0, "{}", String::from_utf8_lossy(&whole.stderr));
    assert_eq!(events(&whole)[0]["event"], "metadata");
    let listed = run(&[&infohash, "--list"]);
    assert_eq!(code(listed.status), 0, "{}", String::from_utf8_lossy(&listed.stderr));
    fs::remove_file(out.join(NAME)).unwrap();
    let lacking = run(&[&infohash, "--timeout", "1"]);
    assert_eq!(code(lacking.status), 4, "{}", String::from_utf8_lossy(&lacking.stderr));
    let known = events(&lacking).into_iter().rfind(|event| event["event"] == "progress").unwrap();
    assert_eq!((&known["wanted"], &known["left"]), (&2_000_000.into(), &2_000_000.into()));

    // What is damaged is as good as nothing.
    let resume = out.join(format!(".{infohash}.btfetch"));
    let mut bytes = fs::read(&resume).unwrap();
    bytes[100] ^= 1;
    fs::write(&resume, bytes).unwrap();
    let unknown = run(&[&infohash, "--timeout", "1"]);
    assert_eq!(code(unknown.status), 4);
    assert!(!events(&unknown).iter().any(|event| event["event"] == "metadata"));
}

#[test]
fn files_are_listed_and_only_selected_ones_are_fetched() {
    let world = World::new(12, 10);
    let album = world.seeder().join("album");
    fs::create_dir(&album).unwrap();
    for (name, len) in [("a.txt", 70_000), ("b.bin", 90_000), ("c.txt", 50_000)] {
        let mut content = vec![0; len];
        Rng::from_seed(len as u64).fill(&mut content);
        fs::write(album.join(name), content).unwrap();
    }
    fs::remove_file(world.torrent()).unwrap();
    let made = world.run(world.command().arg("create").arg(&album).arg("-o").arg(world.torrent()));
    assert_eq!(code(made.status), 0);
    let (_seeder, addr) = world.start_seeder(&[]);

    let listed = world.run(world.command().args(["--list", "--no-dht", "--port", "0"]).arg(world.torrent()));
    assert_eq!(code(listed.status), 0);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("album/b.bin"));

    let fetched = world.run(world.download(addr).args(["--select", "*.txt"]));
    assert_eq!(code(fetched.status), 0, "{}", String::from_utf8_lossy(&fetched.stderr));
    for name in ["a.txt", "c.txt"] {
        assert_eq!(sha256(&album.join(name)), sha256(&world.leecher().join("album").join(name)), "{name}");
    }
    assert!(!world.leecher().join("album/b.bin").exists(), "what pieces bring of b.bin lies elsewhere");
    // The pieces at its edges are whole all the same.
    let check = |pieces: &str| {
        let command = world.run(
            world.command().arg("check").arg(world.torrent()).arg("-o").arg(world.leecher()).arg(pieces),
        );
        code(command.status)
    };
    let last = 70_000 / 16_384;
    assert_eq!((check(&format!("0-{last}")), check("0-6")), (0, 1));
    let none = world.run(world.download(addr).args(["--prio", "*=0"]));
    assert_eq!(code(none.status), 2, "nothing is left to be wanted");
    fs::remove_dir_all(world.leecher()).unwrap();
    let heavy = world.run(world.download(addr).args(["--prio", "*.txt=0", "--prio", "a.txt=9"]));
    assert_eq!(code(heavy.status), 0, "{}", String::from_utf8_lossy(&heavy.stderr));
    for (name, whole) in [("a.txt", true), ("b.bin", true), ("c.txt", false)] {
        let path = world.leecher().join("album").join(name);
        assert_eq!(path.exists(), whole, "{name}");
        assert!(!whole || sha256(&album.join(name)) == sha256(&path), "{name}");
    }
    let rest = world.run(world.download(addr).args(["--select", "0-2"]));
    assert_eq!(code(rest.status), 0);
    for name in ["a.txt", "b.bin", "c.txt"] {
        assert_eq!(sha256(&album.join(name)), sha256(&world.leecher().join("album").join(name)), "{name}");
    }
    let hidden = fs::read_dir(world.leecher()).unwrap().map(|entry| entry.unwrap().file_name());
    let parts = hidden.filter(|name| name.to_string_lossy().ends_with(".part")).count();
    assert_eq!((parts, check("0-12")), (0, 0));
}

/// All of it is there at once then, but in the part file.
#[test]
fn a_file_that_came_with_the_edge_of_another_is_brought_out_when_it_is_wanted() {
    let world = World::new(23, 10);
    let film = world.seeder().join("film");
    fs::create_dir(&film).unwrap();
    for (name, len) in [("film.mkv", 300_000), ("film.nfo", 100)] {
        let mut content = vec![0; len];
        Rng::from_seed(len as u64).fill(&mut content);
        fs::write(film.join(name), content).unwrap();
    }
    fs::remove_file(world.torrent()).unwrap();
    let made = world.run(world.command().arg("create").arg(&film).arg("-o").arg(world.torrent()));
    assert_eq!(code(made.status), 0);
    let (_seeder, addr) = world.start_seeder(&[]);
    let small = world.leecher().join("film/film.nfo");
    let fetched = world.run(world.download(addr).args(["--select", "0"]));
    assert_eq!((code(fetched.status), small.exists()), (0, false));
    let rest = world.run(&mut world.download(addr));
    assert_eq!(code(rest.status), 0, "{}", String::from_utf8_lossy(&rest.stderr));
    assert_eq!(sha256(&film.join("film.nfo")), sha256(&small));
}

/// BEP 16, and limits on both sides that do not stop it.
#[test]
fn a_super_seed_feeds_a_single_leecher_within_limits() {
    let world = World::new(22, 3 << 20);
    let (_seeder, addr) = world.start_seeder(&["--super-seed", "--up", "8M", "--max-peers", "3"]);
    let fetched = world.run(world.download(addr).args(["--down", "4M"]));
    assert_eq!(code(fetched.status), 0, "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(world.is_whole());
}

#[test]
fn a_seed_serves_by_each_rule_and_knows_no_other() {
    let world = World::new(18, 300_000);
    for rule in ["round-robin", "fastest-upload", "anti-leech"] {
        let (_seeder, addr) = world.start_seeder(&["--seed-choking", rule]);
        let fetched = world.run(&mut world.download(addr));
        assert_eq!(code(fetched.status), 0, "{rule}: {}", String::from_utf8_lossy(&fetched.stderr));
        assert!(world.is_whole());
        fs::remove_file(world.leecher().join(NAME)).unwrap();
    }
    let other = world.run(world.transfer(&["seed", "--seed-choking", "nobody"]).arg(world.torrent()));
    assert_eq!(code(other.status), 2);
    assert!(String::from_utf8_lossy(&other.stderr).contains("anti-leech"), "it names those that there are");
}

/// S50, and running the same command again.
#[test]
fn a_signal_saves_and_ends_with_its_code_and_the_next_run_resumes() {
    for (signal, expected) in [("TERM", 143), ("INT", 130)] {
        let world = World::new(13, 8 << 20);
        let (_seeder, addr) = world.start_seeder(&["--up", "4M"]);
        let mut leecher = Running::start("leecher", &mut world.download(addr));
        wait_event(&mut leecher, "piece", |event| (event["index"].as_u64()? > 0).then_some(()));
        wait_event(&mut leecher, "progress", |event| progress(event).filter(|(done, _)| *done > 1 << 20));
        leecher.signal(signal);
        let status = leecher.wait(PATIENCE);
        assert_eq!(code(status), expected, "{}", leecher.stderr());
        let before = pieces(leecher.seen());

        let again = world.run(&mut world.download(addr));
        assert_eq!(code(again.status), 0, "{}", String::from_utf8_lossy(&again.stderr));
        assert!(world.is_whole());
        let text = String::from_utf8(again.stdout).unwrap();
        let after = pieces(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        assert!(before > 0 && before + after <= 512, "{before} pieces before, {after} after, 512 in all");
    }
}

/// Pieces that were fetched.
fn pieces(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.contains(r#""event":"piece""#)).count()
}

/// S50: nobody has to wait for a tracker that does not answer. How long a good-bye takes is tested on
/// virtual time (`a_session_ends_within_three_seconds_whoever_does_not_answer`,
/// `a_second_signal_waits_for_no_good_bye`).
#[test]
fn a_second_signal_ends_at_once() {
    let world = World::new(14, 1 << 20);
    // A tracker that takes the connection and says nothing keeps the good-bye busy.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", mute.local_addr().unwrap());
    let mut command = world.transfer(&[]);
    command.arg(world.torrent()).arg("-o").arg(world.leecher()).args(["--tracker", &url]);
    let mut leecher = Running::start("leecher", &mut command);
    let (_held, _) = mute.accept().unwrap();
    leecher.signal("TERM");
    leecher.signal("TERM");
    assert_eq!(code(leecher.wait(PATIENCE)), 143);
}

/// S44: kills at random moments against a seeder with a rate limit.
fn survives_kills(kills: u32, len: usize, rate: &str) {
    let world = World::new(15, len);
    let (mut seeder, addr) = world.start_seeder(&["--up", rate]);
    let mut rng = Rng::from_seed(15);
    let mut fetched = Fetched::of(&world);
    for kill in 1..=kills {
        let mut leecher = Running::start("leecher", &mut world.download(addr));
        // Each run gets a little further, and is killed after a random further piece.
        let (share, more) = (len as u64 / u64::from(kills + 1), 1 + rng.below(20) as u64);
        let target = share * u64::from(kill) + more * fetched.piece_len;
        leecher.wait_for("progress worth a kill", |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            fetched.note(&event);
            (fetched.bytes() >= target).then_some(())
        });
        leecher.signal("KILL");
        leecher.wait(PATIENCE);
        fetched.run_ended();
    }
    let finished = world.run(&mut world.download(addr));
    assert_eq!(code(finished.status), 0, "{}", String::from_utf8_lossy(&finished.stderr));
    assert!(world.is_whole());
    events(&finished).iter().for_each(|event| fetched.note(event));
    fetched.run_ended();
    let sent = uploaded(&mut seeder, len as u64);
    // Beside these, for each kill the unfinished pieces and what was on its way.
    let most = len as u64 + fetched.again + u64::from(kills) * (4 << 20);
    assert!(sent <= most, "{sent} bytes were sent for {len}, {} of them for pieces again", fetched.again);
}

/// What a seeder has sent, at least `least`, once it has nothing more to do.
fn uploaded(seeder: &mut Running, least: u64) -> u64 {
    let mut before = 0;
    wait_event(seeder, "progress", |event| {
        let now = event["uploaded"].as_u64()?;
        (now >= least && std::mem::replace(&mut before, now) == now).then_some(now)
    })
}

/// The pieces that some run of several has fetched.
struct Fetched {
    piece_len: u64,
    pieces: BTreeSet<u64>,
    /// Bytes of pieces that were there when they were fetched: in all, and when the run began.
    again: u64,
    before: u64,
}

impl Fetched {
    fn of(world: &World) -> Self {
        let info = world.run(world.command().args(["info", "--json"]).arg(world.torrent()));
        let piece_len = events(&info)[0]["piece_length"].as_u64().unwrap();
        Self { piece_len, pieces: BTreeSet::new(), again: 0, before: 0 }
    }

    fn note(&mut self, event: &Value) {
        if let Some(index) = event["index"].as_u64().filter(|_| event["event"] == "piece")
            && !self.pieces.insert(index)
        {
            self.again += self.piece_len;
        }
    }

    /// S44: what was not saved when the run before was killed, 16 MiB at most, is fetched again.
    fn run_ended(&mut self) {
        let again = self.again - std::mem::replace(&mut self.before, self.again);
        assert!(again <= 16 << 20, "{again} bytes of pieces that were there are fetched again");
    }

    fn bytes(&self) -> u64 {
        self.pieces.len() as u64 * self.piece_len
    }
}

fn last_downloaded(events: &[Value]) -> u64 {
    let done = events.iter().rfind(|event| event["event"] == "done").unwrap();
    done["downloaded"].as_u64().unwrap()
}

#[test]
fn kills_at_random_moments_lose_nothing_that_was_saved() {
    survives_kills(4, 48 << 20, "12M");
}

#[test]
#[ignore = "S44 in full: 20 kills of a 256 MiB download take minutes"]
fn twenty_kills_of_a_large_download() {
    survives_kills(20, 256 << 20, "20M");
}

/// S49.
#[test]
fn a_second_process_on_the_same_torrent_and_folder_is_refused() {
    let world = World::new(16, 4 << 20);
    let (_seeder, addr) = world.start_seeder(&["--up", "1M"]);
    let mut first = Running::start("first", &mut world.download(addr));
    wait_event(&mut first, "piece", |_| Some(()));
    let second = world.run(&mut world.download(addr));
    assert_eq!(code(second.status), 6, "{}", String::from_utf8_lossy(&second.stderr));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process"));

    // Another torrent into that folder goes on.
    let other = World::new(17, 500_000);
    let (_seeder, other_addr) = other.start_seeder(&[]);
    let mut beside = other.transfer(&[]);
    beside.arg(other.torrent()).arg("-o").arg(world.path("beside")).args(["--peer", &other_addr.to_string()]);
    assert_eq!(code(other.run(&mut beside).status), 0);
    first.signal("TERM");
    assert_eq!(code(first.wait(PATIENCE)), 143);
}

/// S52.
#[test]
fn without_peers_it_gives_up_with_exit_4_and_says_why() {
    let world = World::new(18, 1000);
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for peers in [&[] as &[&str], &["--peer", &nobody]] {
        let mut command = world.transfer(&["--timeout", "2"]);
        command.arg(world.torrent()).arg("-o").arg(world.leecher()).args(peers);
        let ended = world.run(&mut command);
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(code(ended.status), 4, "{stderr}");
        assert!(stderr.contains("no peer"), "{stderr}");
        assert!(!events(&ended).iter().any(|event| event["event"] == "done"));
    }
}

#[test]
fn a_taken_port_is_exit_3_and_the_default_ports_step_aside() {
    let world = World::new(19, 1000);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = world.command();
    command.arg(world.torrent()).args(["--no-dht", "--no-state", "--bind", "127.0.0.1", "--port", &port]);
    let ended = world.run(&mut command);
    assert_eq!(code(ended.status), 3);
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(stderr.contains("binding") && stderr.lines().count() == 1, "{stderr}");
}

/// What is there already, but wrong, is fetched again; a longer file is not cut silently (S47).
#[test]
fn wrong_data_on_disk_is_found_and_replaced() {
    let world = World::new(20, 1 << 20);
    let (_seeder, addr) = world.start_seeder(&[]);
    let mut content = fs::read(world.seeder().join(NAME)).unwrap();
    content[100_000..200_000].fill(7);
    fs::write(world.leecher().join(NAME), content).unwrap();
    let fetched = world.run(&mut world.download(addr));
    assert_eq!(code(fetched.status), 0, "{}", String::from_utf8_lossy(&fetched.stderr));
    assert!(world.is_whole());
    let fetched_bytes = last_downloaded(&events(&fetched));
    assert!(
        (100_000..300_000).contains(&fetched_bytes),
        "only the wrong pieces are fetched: {fetched_bytes}"
    );
}

/// The address of a listener that accepts and never speaks.
pub(crate) fn mute_peer() -> (TcpListener, SocketAddrV4) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    match listener.local_addr().unwrap() {
        std::net::SocketAddr::V4(addr) => (listener, addr),
        std::net::SocketAddr::V6(_) => unreachable!("bound to IPv4"),
    }
}

#[test]
fn a_peer_that_never_speaks_does_not_hold_up_the_others() {
    let world = World::new(21, 1 << 20);
    let (_seeder, addr) = world.start_seeder(&[]);
    let (_mute, silent) = mute_peer();
    let fetched = world.run(world.download(silent).args(["--peer", &addr.to_string()]));
    assert_eq!(code(fetched.status), 0);
    assert!(world.is_whole());
}
