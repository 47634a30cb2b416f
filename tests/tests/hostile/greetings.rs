//! S37 and S38: handshakes that take too long, and peers that hang up.

use std::sync::Arc;
use std::time::Duration;

use harness::hostile::{Greetings, Honest, Mode, Peer, Torrent};

use crate::run::{Fetch, Source, addresses, each};

#[test]
fn a_handshake_of_one_byte_a_second_is_cut_off() {
    // Enough for sixteen seconds.
    let torrent = Arc::new(Torrent::new(2 << 20, 64 << 10, 0, 10));
    let modes =
        [Greetings::SlowLoris, Greetings::SlowLorisDialsBack, Greetings::Silence, Greetings::HalfHandshake];
    let evil = modes.map(|mode| Peer::hostile(&torrent, Mode::Greetings(mode)));
    let honest = Peer::honest(&torrent, Honest { rate: 128 << 10, ..Honest::default() });
    let outcome = Fetch::new(&torrent, Source::File, addresses(evil.iter().chain([&honest]))).run();
    println!("{}", outcome.complete(&torrent).unwrap());
    for (mode, peer) in modes.iter().zip(&evil) {
        let lifetimes = peer.seen.lifetimes();
        println!("{mode:?}: {lifetimes:?}");
        let first = lifetimes.first().unwrap_or_else(|| panic!("{mode:?}: never closed"));
        // Ten seconds, and what a busy machine adds; it would take 68 to the end.
        assert!(*first <= Duration::from_secs(14), "{mode:?}: {first:?}");
    }
}

#[test]
fn a_peer_that_hangs_up_is_not_dialed_without_end() {
    let modes = [Greetings::CloseAfterHandshake, Greetings::ResetAfterHandshake, Greetings::CloseAtOnce];
    each(&modes, |&mode| hangs_up(mode, 512 << 10));
}

#[test]
#[ignore = "takes a minute"]
fn a_peer_that_hangs_up_is_dialed_five_times_a_minute() {
    let modes = [Greetings::CloseAfterHandshake, Greetings::ResetAfterHandshake, Greetings::CloseAtOnce];
    each(&modes, |&mode| hangs_up(mode, 52 << 10));
}

/// S38: at most five connections a minute, and no spinning between them.
fn hangs_up(mode: Greetings, rate: u64) -> Result<String, String> {
    let torrent = Arc::new(Torrent::new(3 << 20, 64 << 10, 0, 11));
    let evil = Peer::hostile(&torrent, Mode::Greetings(mode));
    let honest = Peer::honest(&torrent, Honest { rate, ..Honest::default() });
    let live = Fetch::new(&torrent, Source::File, addresses([&evil, &honest])).start();
    let outcome = live.finish(Duration::from_secs(120));
    let figures = outcome.complete(&torrent)?;
    let connections = evil.seen.connections.total();
    let minutes = outcome.took.as_secs().div_ceil(60).max(1);
    if connections > 5 * minutes {
        return Err(format!("{connections} connections in {:?}", outcome.took));
    }
    // A twentieth of a core, and what starting and the honest peer's blocks take.
    let other = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
    if outcome.usage.cpu > outcome.took / 20 + other {
        return Err(format!("{:?} of CPU in {:?}", outcome.usage.cpu, outcome.took));
    }
    Ok(format!("{figures}, {connections} connections"))
}
