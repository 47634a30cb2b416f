//! S40: requests without end to a client that has something to give.

use std::sync::Arc;
use std::time::Duration;

use harness::hostile::{Honest, Mode, Peer, Requests, Torrent};
use harness::process::eventually;

use crate::run::{Fetch, Source, addresses};

#[test]
fn a_peer_that_asks_and_never_reads_is_left_and_costs_little_memory() {
    let torrent = Arc::new(Torrent::new(3 << 20, 64 << 10, 0, 8));
    let quiet = seeding_peak(&torrent, &[]);
    let modes =
        [Requests::NeverRead, Requests::RequestFlood, Requests::TinyRequestFlood, Requests::NeverRead];
    let evil: Vec<_> = modes.iter().map(|&mode| Peer::hostile(&torrent, Mode::Requests(mode))).collect();
    let flooded = seeding_peak(&torrent, &evil);
    println!("{quiet} KiB without, {flooded} KiB with them");
    // At most 4 MiB a peer.
    assert!(flooded <= quiet + evil.len() as u64 * (4 << 10), "{flooded} KiB instead of {quiet} KiB");
}

#[test]
fn impossible_requests_are_never_answered() {
    let torrent = Arc::new(Torrent::new(3 << 20, 64 << 10, 0, 9));
    let evil: Vec<_> = [
        Requests::RequestOutOfRange,
        Requests::RequestZero,
        Requests::RequestHuge,
        Requests::RequestOverflow,
        Requests::RequestWhileChoked,
    ]
    .map(|mode| Peer::hostile(&torrent, Mode::Requests(mode)))
    .into();
    let honest = Peer::honest(&torrent, Honest::default());
    let outcome = Fetch::new(&torrent, Source::File, addresses(evil.iter().chain([&honest]))).run();
    println!("{}", outcome.complete(&torrent).unwrap());
    for peer in &evil {
        assert_eq!(peer.seen.blocks_received.total(), 0, "{:?}", peer.seen);
    }
}

/// Downloads, goes on seeding until every hostile peer's connection is over, and stops; the peak of
/// resident memory in KiB.
fn seeding_peak(torrent: &Arc<Torrent>, evil: &[Peer]) -> u64 {
    let honest = Peer::honest(torrent, Honest { rate: 20 << 20, ..Honest::default() });
    let peers = addresses(evil.iter().chain([&honest]));
    let live = Fetch::new(torrent, Source::File, peers).with(&["--seed"]).start();
    let file = &torrent.name;
    eventually("the download is complete", || {
        let bytes = std::fs::read(live.folder().join(file)).ok()?;
        (bytes == torrent.payload).then_some(())
    });
    for (n, peer) in evil.iter().enumerate() {
        eventually("the flooding peer is left", || (!peer.seen.lifetimes().is_empty()).then_some(()));
        let lifetime = peer.seen.lifetimes()[0];
        println!("peer {n} was left after {lifetime:?}");
        // Fifteen seconds for it to be unchoked, thirty from then on, and a margin.
        assert!(lifetime < Duration::from_secs(50), "{lifetime:?}");
    }
    live.running.signal("INT");
    let outcome = live.finish(Duration::from_secs(20));
    assert_eq!(outcome.code, Some(130), "{}", outcome.output());
    outcome.usage.peak_rss_kib
}
