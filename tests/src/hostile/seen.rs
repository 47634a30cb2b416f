//! [`Seen`]: what a peer saw of the client, for assertions on counts.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that several threads add to.
#[derive(Default)]
pub struct Count(AtomicU64);

/// Everything one peer saw, over all its connections.
#[derive(Debug, Default)]
pub struct Seen {
    /// Connections that the client made.
    pub connections: Count,
    /// Handshakes that the client completed.
    pub handshakes: Count,
    /// Bytes read.
    pub bytes: Count,
    /// Messages read.
    pub messages: Count,
    /// Requests for blocks.
    pub requests: Count,
    /// Cancels of such.
    pub cancels: Count,
    /// Pieces that the client sent us: messages.
    pub blocks_received: Count,
    /// Requests for pieces of the info dictionary.
    pub metadata_requests: Count,
    /// Blocks that the peer sent, right or wrong.
    pub blocks_sent: Count,
    /// Blocks with wrong data among them.
    pub blocks_spoiled: Count,
    /// Connections that the peer made to the client and the client accepted.
    pub dialed_back: Count,
    spoiled: Mutex<BTreeSet<u32>>,
    lifetimes: Mutex<Vec<Duration>>,
    complaints: Mutex<Vec<String>>,
}

impl Count {
    /// Adds `n`; returns the number before.
    pub fn add(&self, n: u64) -> u64 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    /// The number so far.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Seen {
    /// A block with wrong data of this piece goes out.
    pub(super) fn spoil(&self, piece: u32) {
        self.blocks_spoiled.add(1);
        self.spoiled.lock().expect("no panic holds it").insert(piece);
    }

    /// A connection is over after this long.
    pub(super) fn ended(&self, lifetime: Duration) {
        self.lifetimes.lock().expect("no panic holds it").push(lifetime);
    }

    /// The client broke the protocol.
    pub(super) fn complain(&self, what: String) {
        self.complaints.lock().expect("no panic holds it").push(what);
    }

    /// Pieces of which the peer sent a wrong block.
    pub fn spoiled_pieces(&self) -> usize {
        self.spoiled.lock().expect("no panic holds it").len()
    }

    /// How long the ended connections lasted.
    pub fn lifetimes(&self) -> Vec<Duration> {
        self.lifetimes.lock().expect("no panic holds it").clone()
    }

    /// How the client broke the protocol.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().expect("no panic holds it").clone()
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.total().fmt(f)
    }
}
