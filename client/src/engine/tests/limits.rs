//! Rate limits of sessions, torrents and connections, over real connections. Bytes are compared with the
//! time that passed on the session's own clock, which may be long: a slow machine moves less than it may.

use super::*;
use crate::engine::peer::meter::{Way, moved};

/// Bytes a second: what the torrent has takes two seconds, and without a limit a moment.
const RATE: u64 = 300_000;

/// One limit of [`RATE`], on the side of the torrent that it is for.
struct Case {
    name: &'static str,
    way: Way,
    session: [u64; 2],
    torrent: Rates,
}

impl Case {
    /// Moves a torrent from a session to another one.
    async fn run(self) {
        let (from, seed, _data) = seeder().await;
        let (to, folder) = (session(), tempfile::tempdir().unwrap());
        let [down, up] = self.session;
        let limited = if self.way == Way::Up { &from } else { &to };
        limited.set_rates(down, up);
        let (torrent, _events) = leech(&from, &to, &folder, State::Stopped);
        let rated = if self.way == Way::Up { &seed } else { &torrent };
        rated.set_rates(self.torrent).await;
        torrent.start().await;
        torrent.wait_complete().await.unwrap();
        assert_limited(self.name, limited, self.way);
    }
}

/// Fails if more than [`RATE`] was moved at any time, or not everything.
fn assert_limited(name: &str, limited: &Session, way: Way) {
    let moved = moved(limited.port(), way);
    assert!(moved.iter().map(|(_, bytes)| bytes).sum::<usize>() >= LEN, "{name}");
    // From whenever on: the savings of a quarter of a second, and one share that is paid for later.
    let most = RATE / 4 + RATE / 20;
    for (first, &(since, _)) in moved.iter().enumerate() {
        let mut bytes = 0;
        for &(at, more) in &moved[first..] {
            bytes += more as u64;
            let earned = at.since(since).as_micros() as u64 * RATE / 1_000_000;
            assert!(bytes <= most + earned, "{name}: {bytes} bytes, {earned} earned");
        }
    }
}

#[tokio::test]
async fn each_of_the_six_limits_holds_for_what_it_is_the_limit_of() {
    let free = Rates::default();
    let case = |name, way, session, torrent| Case { name, way, session, torrent }.run();
    tokio::join!(
        case("session down", Way::Down, [RATE, 0], free),
        case("session up", Way::Up, [0, RATE], free),
        case("torrent down", Way::Down, [0, 0], Rates { down: RATE, ..free }),
        case("torrent up", Way::Up, [0, 0], Rates { up: RATE, ..free }),
        case("peer down", Way::Down, [0, 0], Rates { peer_down: RATE, ..free }),
        case("peer up", Way::Up, [0, 0], Rates { peer_up: RATE, ..free }),
    );
}

#[tokio::test]
async fn the_limits_of_a_job_hold_while_it_is_open_and_after_a_restart() {
    let (from, _seed, _data) = seeder().await;
    for is_open in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("job");
        let (to, limit) = (session(), Rates { down: RATE, ..Rates::default() });
        let mut job = Job::create(&dir, super::jobs::magnet(from.local_addrs()[0])).unwrap();
        if !is_open {
            job.set_rates(limit).await.unwrap();
            drop(job);
            job = Job::load(&dir).unwrap();
        }
        let _events = job.open(&to).await.unwrap();
        if is_open {
            job.set_rates(limit).await.unwrap();
        }
        job.start().await.unwrap();
        job.torrent().unwrap().wait_complete().await.unwrap();
        assert_limited("a job", &to, Way::Down);
    }
}

#[tokio::test]
async fn a_handshake_waits_for_no_limit_however_much_is_owed() {
    for owes in
        [|from: &Session| Arc::clone(&from.shared().up), |from: &Session| Arc::clone(&from.shared().down)]
    {
        let (from, _seed, _data) = seeder().await;
        from.set_rates(10_000, 10_000);
        // Blocks wait for days now.
        owes(&from).owe(from.shared().clock.now(), 10 << 30);
        let (session, folder) = (session(), tempfile::tempdir().unwrap());
        let (_torrent, mut events) = leech(&from, &session, &folder, State::Paused);
        let end = |event: &Event| matches!(event, Event::PeerConnected(..) | Event::PeerClosed(..));
        // Without end if it waited, since no clock runs against the peer then.
        let event = tokio::time::timeout(std::time::Duration::from_secs(60), until(&mut events, end));
        let event = event.await.expect("the handshake stands in no line");
        assert!(matches!(event, Event::PeerConnected(..)), "{event:?}");
    }
}
