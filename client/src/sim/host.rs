//! [`Host`]: who takes part in a virtual swarm, and what becomes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use btdht::Time;

use crate::piece::Slot;
use crate::swarm::{Input, Swarm};

/// Who takes part, and how.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// What it is.
    pub kind: Kind,
    /// Bytes per second that it can send.
    pub up: u64,
    /// Bytes per second that it can receive.
    pub down: u64,
    /// When it comes, after the beginning.
    pub arrives: Duration,
    /// When it goes.
    pub leaves: Leaves,
}

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has everything.
    Seed,
    /// It has nothing at first, and gives what it gets.
    Leech,
    /// It has nothing at first and unchokes nobody.
    FreeRider,
}

/// When a host goes, without a word to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Not.
    Never,
    /// So long after it has everything.
    Complete(Duration),
    /// When it has sent so many bytes of payload.
    Sent(u64),
    /// So long after it came, whatever it has.
    After(Duration),
}

/// What became of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// From its arrival until it had everything.
    pub completed: Option<Duration>,
    /// Whether it has gone.
    pub left: bool,
    /// Bytes of payload that it has sent.
    pub uploaded: u64,
    /// Bytes of payload that it has received.
    pub downloaded: u64,
    /// Pieces that it has.
    pub pieces: u32,
    /// Connections that it has had.
    pub connections: u32,
}

impl Host {
    /// A host that downloads and stays.
    pub fn new(up: u64, down: u64, arrives: Duration) -> Self {
        Self { kind: Kind::Leech, up, down, arrives, leaves: Leaves::Never }
    }
}

/// A host as the world keeps it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) plan: Host,
    pub(super) arrived: Time,
    pub(super) fate: Fate,
    /// `None` before it comes and after it has gone.
    pub(super) swarm: Option<Box<Swarm>>,
    /// Its connections by slot index.
    ends: Vec<Option<(Slot, Side)>>,
    /// What happens to it later, by time and number.
    pub(super) later: BTreeMap<(Time, u64), Later>,
    /// Bytes of unfinished pieces with the disk.
    pub(super) written: BTreeMap<u32, u32>,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Dialing,
    /// The number of its end.
    Open(u32),
}

/// What happens to a host later.
#[derive(Debug)]
pub(super) enum Later {
    Input(Input),
    /// Somebody has dialed: the host and its connection.
    Knock(u32, Slot),
    /// Nobody was there.
    Refused(Slot),
    /// Whoever was there has no place, and hung up.
    HungUp(Slot),
    Arrive,
    Leave,
}

impl Running {
    pub(super) fn new(plan: Host, arrived: Time) -> Self {
        Self {
            plan,
            arrived,
            fate: Fate::default(),
            swarm: None,
            ends: Vec::new(),
            later: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// When something is due.
    pub(super) fn timeout(&self) -> Time {
        let later = self.later.keys().next().map_or(Time::NEVER, |&(at, _)| at);
        later.min(self.swarm.as_ref().map_or(Time::NEVER, |swarm| swarm.timeout()))
    }

    /// The connection that its swarm calls `slot`.
    pub(super) fn side(&self, slot: Slot) -> Option<Side> {
        let (named, side) = (*self.ends.get(slot.index as usize)?)?;
        (named == slot).then_some(side)
    }

    pub(super) fn set_side(&mut self, slot: Slot, side: Option<Side>) {
        let index = slot.index as usize;
        if self.ends.len() <= index {
            self.ends.resize(index + 1, None); // as many as connections
        }
        if side.is_some() || self.side(slot).is_some() {
            self.ends[index] = side.map(|side| (slot, side));
        }
    }

    /// Forgets all connections; the numbers of the open ones.
    pub(super) fn take_ends(&mut self) -> Vec<u32> {
        let open = |(_, side)| match side {
            Side::Open(end) => Some(end),
            Side::Dialing => None,
        };
        self.ends.drain(..).flatten().filter_map(open).collect()
    }

    /// Notes how it stands.
    pub(super) fn account(&mut self, now: Time) {
        if let Some(swarm) = &self.swarm {
            let status = swarm.status(now);
            (self.fate.uploaded, self.fate.downloaded) = (status.uploaded, status.downloaded);
            self.fate.pieces = swarm.have().map_or(0, |have| have.count());
        }
    }
}
