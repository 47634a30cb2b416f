//! [`Stats`]: what became of the datagrams of a world.

/// Counts since the world began. Every datagram sent is in `sent` and, once it is no longer under way, in
/// exactly one of the counts from `delivered` to `oversize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams that hosts sent.
    pub sent: u64,
    /// Their payloads' bytes.
    pub bytes: u64,
    /// Handed to a host.
    pub delivered: u64,
    /// Lost on the way or on a line.
    pub lost: u64,
    /// Sent to an address or port where nobody lives.
    pub stray: u64,
    /// Sent by or to a host that is offline or down.
    pub offline: u64,
    /// Sent across a partition.
    pub parted: u64,
    /// Kept out by a NAT.
    pub filtered: u64,
    /// Did not fit the queue of a line.
    pub queue_full: u64,
    /// Longer than an MTU, with a fragment lost, or than a datagram may be.
    pub oversize: u64,
    /// Times that a host's timer came and it had something to do.
    pub timeouts: u64,
    /// Times that it came and the host had put it off meanwhile.
    pub early: u64,
    /// Times that a host wanted to be woken up again at once; it had to wait a millisecond.
    pub hasty: u64,
}

impl Stats {
    /// Datagrams that were delivered and timers that came: what a simulator's speed is measured in.
    pub fn events(&self) -> u64 {
        self.delivered + self.timeouts
    }

    pub(super) fn merge(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            bytes: self.bytes + other.bytes,
            delivered: self.delivered + other.delivered,
            lost: self.lost + other.lost,
            stray: self.stray + other.stray,
            offline: self.offline + other.offline,
            parted: self.parted + other.parted,
            filtered: self.filtered + other.filtered,
            queue_full: self.queue_full + other.queue_full,
            oversize: self.oversize + other.oversize,
            timeouts: self.timeouts + other.timeouts,
            early: self.early + other.early,
            hasty: self.hasty + other.hasty,
        }
    }
}
