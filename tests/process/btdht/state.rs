//! The state folder: kept across runs, locked, never believed blindly.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use krpc::{Body, Id, Message, Query, Want};

use crate::harness::{GUARD, Home, INFOHASH, Loopback, NOBODY, Running};
use crate::uninterrupted::uninterrupted;

const STATE: &str = ".local/state/btdht/node.bencode";
const STORE: &str = ".local/state/btdht/store.bencode";

fn id_of(home: &Home) -> (Running, String) {
    let args = ["serve", "--bind", "127.0.0.1", "--port", "0", "--bootstrap", NOBODY];
    let node = Running::start(&mut home.command(&args));
    let line = node.line(|line| line.starts_with("listening "));
    (node, line.rsplit(' ').next().unwrap().to_owned())
}

#[test]
fn a_node_keeps_its_id_and_one_without_state_does_not() {
    let home = Home::new();
    let ids = [(); 2].map(|()| {
        let (node, id) = id_of(&home);
        node.signal("-TERM");
        node.finish().expect_code(143);
        id
    });
    assert_eq!(ids[0], ids[1]);
    let (_running, addr) = home.serve(NOBODY, &["--no-state"]);
    assert_ne!(addr.port(), 0);
}

#[test]
fn state_in_use_is_exit_code_6_and_one_shot_verbs_do_not_care() {
    let home = Home::new();
    let (node, addr) = home.serve(NOBODY, &[]);
    let args = ["serve", "--bind", "127.0.0.1", "--port", "0", "--bootstrap", NOBODY];
    let finished = home.run(&args).expect_code(6);
    assert!(finished.error().contains(".local/state/btdht") && finished.error().contains("--state"));
    home.run(&["ping", &addr.to_string(), "--bind", "127.0.0.1", "--allow-local", "--bootstrap", NOBODY])
        .expect_code(0);
    drop(node);
    let (_again, _) = home.serve(NOBODY, &[]);
}

#[test]
fn one_shot_verbs_start_from_the_table_of_a_folder_that_is_in_use() {
    let (home, network) = (Home::new(), Loopback::new(12));
    let (node, _) = home.serve(&network.router(), &[]);
    node.line(|line| line.starts_with("bootstrapped "));
    node.signal("-TERM");
    node.finish().expect_code(143);
    let (node, _) = home.serve(NOBODY, &[]);
    // They know no router: whom they find is in the table, or has been named by who is.
    let args = ["find-node", INFOHASH, "--bind", "127.0.0.1", "--allow-local", "--bootstrap", NOBODY];
    let file = home.path().join(STATE);
    let before = fs::read(&file).unwrap();
    let found = home.run(&args).expect_code(0);
    assert_eq!(found.stderr, "");
    let named = |line: &str| network.nodes().any(|(id, addr)| line == format!("{id} {addr}"));
    assert!(found.stdout.lines().filter(|line| named(line)).count() >= 7, "{found:#?}");
    assert_eq!(fs::read(&file).unwrap(), before, "it is read and never written");
    home.run(&[&args[..], &["--no-state", "--timeout", "1"]].concat()).expect_code(4);
    node.signal("-TERM");
    assert_eq!(node.finish().expect_code(143).stderr, "", "who serves noticed nothing");
}

#[test]
fn a_state_folder_that_the_disk_refuses_is_exit_code_5() {
    let home = Home::new();
    fs::write(home.path().join("file"), b"").unwrap();
    let state = home.path().join("file/state");
    let args = ["serve", "--bind", "127.0.0.1", "--port", "0", "--bootstrap", NOBODY, "--state"];
    let finished = home.run(&[&args[..], &[state.to_str().unwrap()]].concat()).expect_code(5);
    assert!(finished.error().contains("file/state"));
}

// S20
#[test]
fn garbage_in_the_state_file_is_one_warning_and_an_empty_start() {
    let mut nested = vec![b'l'; 500_000];
    nested.extend(vec![b'e'; 500_000]);
    for garbage in [vec![b'x'; 10 << 20], nested, b"d5:homesl".to_vec(), Vec::new()] {
        let home = Home::new();
        fs::create_dir_all(home.path().join(STATE).parent().unwrap()).unwrap();
        fs::write(home.path().join(STATE), &garbage).unwrap();
        let (node, _) = home.serve(NOBODY, &[]);
        // A second to start, of work: what it takes by the clock depends on what else the machine does.
        #[cfg(target_os = "linux")]
        assert!(node.cpu_ticks() <= 100, "{} ticks", node.cpu_ticks());
        node.signal("-TERM");
        let finished = node.finish().expect_code(143);
        assert_eq!(finished.stderr.lines().filter(|line| line.contains("starting empty")).count(), 1);
        let (_healed, _) = home.serve(NOBODY, &[]);
    }
}

#[test]
fn garbage_in_the_file_of_peers_is_one_warning_and_costs_no_node_its_id() {
    let home = Home::new();
    let id = stop(id_of(&home));
    let records = [&b"d4:boot0:5:items1:x6:peers40:6:peers60:5:savedi1e6:uptimei1e7:versioni1ee"[..]];
    for garbage in [vec![b'x'; 20 << 20], vec![b'l'; 100_000], b"d5:items".to_vec(), records.concat()] {
        fs::write(home.path().join(STORE), &garbage).unwrap();
        let (node, again) = id_of(&home);
        node.signal("-TERM");
        let finished = node.finish().expect_code(143);
        assert_eq!(again, id);
        assert_eq!(finished.stderr.lines().filter(|line| line.contains("starting without")).count(), 1);
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    }
}

#[test]
fn a_restart_loses_no_announce() {
    let home = Home::new();
    let (node, addr) = home.serve(NOBODY, &[]);
    announce_many(addr);
    assert_eq!(missing(addr), 0);
    node.signal("-TERM");
    node.finish().expect_code(143);
    let (node, addr) = home.serve(NOBODY, &[]);
    assert_eq!(missing(addr), 0);
    node.signal("-TERM");
    assert_eq!(node.finish().expect_code(143).stderr, "");
}

// S19, a bounded number of moments
#[test]
fn a_kill_while_saving_leaves_state_that_starts() {
    kill_while_saving(11, Duration::from_micros(150));
}

#[test]
#[ignore = "S19 whole: 50 starts of the program"]
fn fifty_kills_while_saving_leave_state_that_starts() {
    kill_while_saving(50, Duration::from_micros(35));
}

/// Kills that are aimed at a save before the test gives up.
const AIMED: usize = 20;

/// When a node that was told to end is killed.
#[derive(Clone, Copy)]
enum Moment {
    /// So long after the signal.
    After(Duration),
    /// As soon as what is to replace this file is seen beside it.
    OnSight(&'static str),
}

/// Kills a saving node at so many moments that lie `apart` from each other, and goes on until a kill has
/// left a file half written. What the next start finds is whole each time.
fn kill_while_saving(moments: u32, apart: Duration) {
    let home = Home::new();
    let (node, id, addr) = local_id_of(&home);
    announce_many(addr);
    node.signal("-TERM");
    node.finish().expect_code(143);
    // Saving takes from a few hundred microseconds to milliseconds, as the disk has it; these moments fall
    // before, into and after it.
    let mut hit = Vec::new();
    for moment in 1..=moments {
        hit.extend(killed_at(&home, &id, Moment::After(moment * apart)));
    }
    // The store is the larger one. In memory the table is written faster than anybody can look.
    let mut aimed = 0;
    while hit.is_empty() {
        assert!(aimed < AIMED, "no kill fell into a save");
        hit.extend(killed_at(&home, &id, Moment::OnSight(STORE)));
        aimed += 1;
    }
    println!("half written when the kill came: {hit:?}");
    let (node, again, addr) = local_id_of(&home);
    assert_eq!((again, missing(addr)), (id, 0), "what the first run saved is whole");
    node.signal("-TERM");
    assert_eq!(node.finish().expect_code(143).stderr, "");
}

/// Starts a node from what the last one left, which has to be all of it, and kills it while it ends; the files
/// that were being written.
fn killed_at(home: &Home, id: &str, moment: Moment) -> Vec<&'static str> {
    let half = |name: &str| home.path().join(format!("{name}.new")).exists();
    // Newer files under the names are what a save leaves that was over before it was seen.
    let written = |name: &str| fs::metadata(home.path().join(name)).unwrap().modified().unwrap();
    let (node, again, addr) = local_id_of(home);
    assert_eq!((&*again, missing(addr)), (id, 0), "what the first run saved is whole");
    assert!(!half(STATE) && !half(STORE), "what was half written is cleared away");
    let before = [STATE, STORE].map(written);
    node.signal("-TERM");
    let signalled = Instant::now();
    let is_time = || match moment {
        Moment::After(span) => signalled.elapsed() >= span,
        Moment::OnSight(name) => half(name) || written(name) != before[usize::from(name == STORE)],
    };
    while !is_time() {
        assert!(signalled.elapsed() < GUARD, "nothing is saved");
        std::hint::spin_loop();
    }
    node.kill();
    [STATE, STORE].into_iter().filter(|name| half(name)).collect()
}

/// A node that takes announces from this machine: its id and address.
fn local_id_of(home: &Home) -> (Running, String, SocketAddr) {
    let args = ["serve", "--bind", "127.0.0.1", "--port", "0", "--allow-local", "--bootstrap", NOBODY];
    let node = Running::start(&mut home.command(&args));
    let line = node.line(|line| line.starts_with("listening "));
    let mut words = line.split(' ').skip(1);
    let addr = words.next().unwrap().parse().unwrap();
    (node, words.last().unwrap().to_owned(), addr)
}

fn stop((node, id): (Running, String)) -> String {
    node.signal("-TERM");
    node.finish().expect_code(143);
    id
}

/// Torrents that are announced, one peer each.
const TORRENTS: u8 = 200;
/// Torrents per socket: a node answers one source 50 times at once and no more.
const PER_SOURCE: usize = 20;

fn announce_many(node: SocketAddr) {
    let torrents: Vec<u8> = (0..TORRENTS).collect();
    for some in torrents.chunks(PER_SOURCE) {
        let socket = asker();
        for &n in some {
            let infohash = Id::new([n; 20]);
            let token = ask(&socket, node, get_peers(infohash), |body| match body {
                Body::Response(response) => response.token.unwrap().to_vec(),
                other => panic!("{other:?}"),
            });
            let announce =
                Query::AnnouncePeer { infohash, port: 7, implied_port: false, token: &token, seed: false };
            ask(&socket, node, announce, |body| assert!(matches!(body, Body::Response(_)), "{body:?}"));
        }
    }
}

/// How many of the announced torrents the node knows no peer of.
fn missing(node: SocketAddr) -> usize {
    let torrents: Vec<u8> = (0..TORRENTS).collect();
    let of_some = |some: &[u8]| {
        let socket = asker();
        let knows = |n: u8| {
            ask(&socket, node, get_peers(Id::new([n; 20])), |body| match body {
                Body::Response(response) => response.values.is_some_and(|values| values.len() == 1),
                other => panic!("{other:?}"),
            })
        };
        some.iter().filter(|&&n| !knows(n)).count()
    };
    torrents.chunks(PER_SOURCE).map(of_some).sum()
}

fn get_peers(infohash: Id) -> Query<'static> {
    Query::GetPeers { infohash, want: Want::UNSPECIFIED, scrape: false, no_seed: false }
}

fn asker() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(GUARD)).unwrap();
    socket
}

/// Asks `node` and reads its answer; its own queries are passed over.
fn ask<T>(socket: &UdpSocket, node: SocketAddr, query: Query<'_>, read: impl FnOnce(&Body<'_>) -> T) -> T {
    let mut bytes = Vec::new();
    let body = Body::Query { id: Id::new([b'n'; 20]), query };
    Message { tid: b"aa", version: None, ip: None, read_only: true, body }.encode(&mut bytes);
    socket.send_to(&bytes, node).unwrap();
    let mut buffer = [0; 2048];
    loop {
        let (len, _) = uninterrupted(|| socket.recv_from(&mut buffer)).unwrap();
        let message = Message::decode(&buffer[..len]).unwrap();
        if !matches!(message.body, Body::Query { .. }) {
            return read(&message.body);
        }
    }
}
