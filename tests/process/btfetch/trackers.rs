//! Hostile and forbidden trackers: S58, S59, S60.

use std::io::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

use btfetch::metainfo::Metainfo;
use harness::process::Running;
use harness::tracker::{HttpTracker, LIES, Reply, UdpTracker, announce_reply};

use crate::world::{World, code, wait_event};

#[test]
fn peers_come_from_http_and_udp_trackers_and_the_torrent_says_good_bye() {
    let world = World::new(30, 1 << 20);
    let (_seeder, addr) = world.start_seeder(&[]);
    let http = HttpTracker::start(move |_| Reply::Body(announce_reply(&[addr], "i1800e")));
    let udp = UdpTracker::start(None, vec![addr]);
    for url in [http.url(), udp.url()] {
        let out = world.path(if url.starts_with("udp") { "udp" } else { "http" });
        let mut command = world.transfer(&["--tracker", &url]);
        command.arg(world.torrent()).arg("-o").arg(out);
        let ended = world.run(&mut command);
        assert_eq!(code(ended.status), 0, "{url}: {}", String::from_utf8_lossy(&ended.stderr));
    }
    let requests = http.requests();
    assert!(requests[0].contains("event=started") && requests[0].contains("left=1048576"), "{requests:?}");
    assert!(requests[0].contains("peer_id=-bd0100-"), "{requests:?}");
    assert!(requests.iter().any(|request| request.contains("event=completed")), "{requests:?}");
    assert!(requests.last().unwrap().contains("event=stopped"), "{requests:?}");
    assert!(udp.seen().1 >= 2, "started, completed and stopped: {:?}", udp.seen());
}

/// S58, all at once, with an honest peer beside them.
#[test]
fn hostile_http_trackers_cost_little_and_stop_nothing() {
    let world = World::new(31, 4 << 20);
    let (_seeder, addr) = world.start_seeder(&["--up", "2M"]);
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{more}\r\n").into_bytes();
    let endless = HttpTracker::start({
        let head = head("");
        move |_| Reply::Endless { head: head.clone(), chunk: vec![b'd'; 1 << 16], limit: 1 << 30 }
    });
    let bomb = gzip_of_zeros(256 << 20);
    let gzip = HttpTracker::start({
        let reply = [head("Content-Encoding: gzip\r\n"), bomb].concat();
        move |_| Reply::Raw(reply.clone())
    });
    let circles = HttpTracker::start(|target| {
        let next = target.len();
        Reply::Raw(
            format!("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /{}\r\n\r\n", "x".repeat(next))
                .into(),
        )
    });
    let odd_peers = HttpTracker::start(|_| Reply::Body(b"d8:intervali0e5:peers7:abcdefge".to_vec()));
    let intervals = ["i-1e", "i0e", "i9223372036854775807e", "i9223372036854775808e", "4:soon"]
        .map(|interval| HttpTracker::start(move |_| Reply::Body(announce_reply(&[], interval))));
    let deep = HttpTracker::start(|_| Reply::Body([b'l'; 500_000].to_vec()));
    let liar = HttpTracker::start(|_| {
        Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nd".to_vec())
    });

    let mut command = world.download(addr);
    let all = [&endless, &gzip, &circles, &odd_peers, &deep, &liar];
    for tracker in all.into_iter().chain(&intervals) {
        command.args(["--tracker", &tracker.url()]);
    }
    let mut leecher = Running::start("leecher", &mut command);
    wait_event(&mut leecher, "done", |_| Some(()));
    let rss = peak_memory(leecher.pid());
    assert_eq!(code(leecher.wait(std::time::Duration::from_secs(60))), 0, "{}", leecher.stderr());
    assert!(world.is_whole());
    assert!(rss < 150 << 20, "{} MiB resident at most", rss >> 20);
    // The kernel's buffers take some more than what was read.
    assert!(endless.sent() < 32 << 20, "{} bytes of an endless reply were taken", endless.sent());
    assert!(circles.requests().len() <= 8, "{} redirects followed", circles.requests().len());
    for tracker in &intervals {
        let regular = tracker.requests().iter().filter(|request| !request.contains("event=")).count();
        assert_eq!(regular, 0, "an interval below a minute was taken literally");
    }
}

/// S59: nothing on this machine is contacted because a stranger's magnet says so.
#[test]
fn local_trackers_of_a_magnet_are_never_contacted_without_allow_local() {
    let world = World::new(32, 1000);
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    http.set_nonblocking(true).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_nonblocking(true).unwrap();
    let (tcp_port, udp_port) = (http.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let mut magnet = "magnet:?xt=urn:btih:6162636465666768696a30313233343536373839".to_owned();
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
        for url in [format!("http://{host}:{tcp_port}/announce"), format!("udp://{host}:{udp_port}/announce")]
        {
            magnet += &format!("&tr={}", url.replace(':', "%3A").replace('/', "%2F"));
        }
    }
    magnet += &format!(
        "&x.pe=127.0.0.1:{tcp_port}&xs=http://127.0.0.1:{tcp_port}/a&as=http://127.0.0.1:{tcp_port}/b"
    );
    magnet += &format!("&ws=http://127.0.0.1:{tcp_port}/c");
    let mut command = world.command();
    command.args([&magnet, "--no-dht", "--no-state", "--port", "0", "--bind", "127.0.0.1", "--timeout", "4"]);
    let ended = world.run(command.arg("-o").arg(world.leecher()));
    assert_eq!(code(ended.status), 4, "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(http.accept().is_err(), "somebody connected");
    assert!(udp.recv_from(&mut [0; 2048]).is_err(), "somebody sent a datagram");
}

/// S60: lies are ignored and the next tracker of the tier is used.
#[test]
fn lying_udp_trackers_are_ignored_and_the_next_one_is_used() {
    let world = World::new(33, 500_000);
    let (_seeder, addr) = world.start_seeder(&[]);
    let decoy = "127.0.0.1:9".parse().unwrap();
    std::thread::scope(|scope| {
        for lie in LIES {
            let world = &world;
            scope.spawn(move || {
                let liar = UdpTracker::start(Some(lie), vec![decoy]);
                let honest = UdpTracker::start(None, vec![addr]);
                let path = world.path(&format!("{lie:?}.torrent"));
                let mut torrent = Metainfo::parse(&std::fs::read(world.torrent()).unwrap()).unwrap();
                torrent.trackers = vec![vec![liar.url(), honest.url()]];
                let mut bytes = Vec::new();
                torrent.write(&mut bytes);
                std::fs::write(&path, bytes).unwrap();
                let mut command = world.transfer(&["--timeout", "60"]);
                command.arg(&path).arg("-o").arg(world.path(&format!("{lie:?}")));
                let ended = world.run(&mut command);
                assert_eq!(code(ended.status), 0, "{lie:?}: {}", String::from_utf8_lossy(&ended.stderr));
                assert_eq!(liar.seen().1, 0, "{lie:?}: nobody announces to a liar");
            });
        }
    });
}

/// Zeros, compressed by the system's gzip.
fn gzip_of_zeros(len: usize) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .args(["-1", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is installed");
    let mut stdin = gzip.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..len >> 20 {
            stdin.write_all(&[0; 1 << 20]).unwrap();
        }
    });
    let compressed = gzip.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    compressed
}

/// The most memory that a process has had resident, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}
