//! What a swarm does while nothing comes of it: S38, S39 and S46 say that it does not spin.

use std::time::Duration;

use super::torrents::torrent;
use super::world::{Kind, World};
use crate::storage::{DiskError, DiskErrorKind, Done};
use crate::swarm::{Event, Input};

/// Timers that may come due in a minute: one a second is the swarm's own, another for tries and deadlines.
const SOME: usize = 120;

#[test]
fn a_minute_beside_useless_peers_is_two_timers_a_second() {
    for kind in [
        Kind::ClosesAfter(0),
        Kind::ClosesAfter(1),
        Kind::Rejects,
        Kind::ChokeFlaps,
        Kind::Silent,
        Kind::NeverUnchokes,
    ] {
        let mut world = World::new(torrent(4_000_000, 64 << 10), false);
        world.add(kind);
        world.run(Duration::from_secs(60));
        assert!(world.wakeups <= SOME, "{kind:?}: {} timers", world.wakeups);
        assert!(world.peer(0).dials <= 5, "{kind:?}: {} dials", world.peer(0).dials);
    }
}

#[test]
fn a_disk_that_refused_is_told_of_at_once_and_waited_for() {
    for kind in [DiskErrorKind::NoSpace, DiskErrorKind::Io] {
        let mut world = World::new(torrent(4_000_000, 64 << 10), false);
        world.add(Kind::Honest);
        world.run(Duration::from_millis(50));
        let error = DiskError { kind, doing: "writing", path: "t".into(), detail: "refused".to_owned() };
        world.disk_stuck = true;
        world.input(Input::Disk(Done::Failed(error)));
        assert_eq!(world.count(|event| matches!(event, Event::DiskFailed(_))), 1, "{kind:?}");
        let (wakeups, asked) = (world.wakeups, world.peer(0).requests);
        world.run(Duration::from_secs(60));
        assert_eq!(world.peer(0).requests, asked, "{kind:?}: nobody is asked for what cannot be written");
        assert!(world.wakeups - wakeups <= SOME, "{kind:?}: {} timers", world.wakeups - wakeups);
    }
}
