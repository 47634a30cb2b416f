//! [`PeerConfig`]: the limits of one connection.

use std::time::Duration;

/// What one connection may cost, and how long it may take. `tests/SCENARIOS.md` has the reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// From the first byte of the connection to the end of the peer's handshake, in all.
    pub handshake_timeout: Duration,
    /// Without a byte from the peer.
    pub idle_timeout: Duration,
    /// Without a byte from us: then a keep-alive goes out. BEP 3 says "generally two minutes".
    pub keep_alive: Duration,
    /// Without a block although requests are outstanding: then the peer counts as snubbing us.
    pub snub_timeout: Duration,
    /// Without progress in sending although there is something to send: then the connection ends.
    /// Where a limit of ours holds it up the time does not count; see [`Held`](super::Held).
    pub stall_timeout: Duration,
    /// Requests kept outstanding at first, if the peer takes as many; fewer only once it has shown to
    /// be slow.
    pub pipeline_min: u16,
    /// Requests kept outstanding at most.
    pub pipeline_max: u16,
    /// Requests that a peer which does not say (`reqq`) is believed to queue: libtorrent's default.
    pub request_queue_default: u16,
    /// Requests of the peer that wait here; it is told this number (`reqq`). Further ones are refused.
    pub upload_queue: u16,
    /// Longest block that a peer may ask for, in bytes.
    pub max_request: u32,
    /// Bytes to be sent to the peer: at so many, nothing more is read. Blocks that are read from disk or
    /// wait for the socket take three quarters of it, and a block: the other requests wait for these,
    /// and a peer that takes them slowly is read nevertheless.
    pub send_buffer: usize,
    /// Blocks that were never asked for: at so many the connection ends.
    pub strays: u32,
    /// Requests for metadata that wait for room in the send buffer, or one for each of its pieces where those are
    /// more; further ones are rejected.
    pub metadata_queue: u32,
    /// How often a peer is served each piece of the metadata, on average (and a queue's worth more).
    pub metadata_serves: u32,
    /// Messages without use (choke and interest flaps, keep-alives, requests while choked, unknown
    /// ones): a connection ends when it has this many to its account.
    pub chatter_burst: u32,
    /// Such messages forgiven per second.
    pub chatter_per_second: u32,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            keep_alive: Duration::from_secs(100),
            snub_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            pipeline_min: 16,
            pipeline_max: 512,
            request_queue_default: 250,
            upload_queue: 512,
            max_request: 128 << 10,
            send_buffer: 1 << 20,
            strays: 16,
            metadata_queue: 64,
            metadata_serves: 2,
            chatter_burst: 2000,
            chatter_per_second: 100,
        }
    }
}
