//! [`Limits`]: every cap and interval of a swarm. Cores read nothing else about what they may do.

use std::time::Duration;

use super::intake::Intake;
use crate::peer::PeerConfig;
use crate::wire::extension::MAX_METADATA;

/// Caps and intervals of one swarm. The defaults are the house limits; the shell changes what the
/// user asked for (`--max-peers`, `--allow-local`, `--sequential`, ...).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Accept loopback, private and link-local addresses from strangers; limits per IP then count
    /// such an address together with its port.
    pub allow_local: bool,
    /// Announce to and search on the DHT (never for private torrents, BEP 27).
    pub dht: bool,
    /// Fetch again what a check finds to be wrong; else it counts as not wanted.
    pub fetch_lost: bool,
    /// Ask for pieces in ascending order instead of rarest first.
    pub sequential: bool,
    /// What holds for each connection, also where the swarm has to keep to it: how much a peer may have
    /// us read for it at once.
    pub peer: PeerConfig,

    /// Connections, half-open ones included.
    pub max_peers: usize,
    /// Connections that were dialed and have not shaken hands yet.
    pub max_half_open: usize,
    /// Dials per second.
    pub dials_per_second: u32,
    /// Dials that may be saved up while none is due.
    pub dial_burst: u32,
    /// Addresses that are remembered; further ones are dropped unless a dead one can go.
    pub max_known: usize,
    /// Addresses remembered that differ only in the port.
    pub ports_per_ip: usize,
    /// Addresses remembered of one IPv6 /64, which one host may have all to itself (RFC 4291, 2.5.4).
    pub addresses_per_64: usize,
    /// Dials of an address that has never completed a handshake, in all (except those given by the
    /// user).
    pub dials_of_silent: u8,
    /// The same of one that takes connections and closes them before the handshake, as a seed without
    /// a free place does, as long as something is missing.
    pub dials_of_full: u8,
    /// First wait before a second dial of the same address; doubles up to `dial_backoff_max`.
    pub dial_backoff: Duration,
    /// Longest wait between dials of one address.
    pub dial_backoff_max: Duration,
    /// Longest wait between dials of an address that closes every connection before the handshake.
    pub full_backoff_max: Duration,
    /// Longest wait between dials of an address given by the user.
    pub user_backoff_max: Duration,
    /// Banned sources that are remembered; the oldest goes first.
    pub max_banned: usize,
    /// A connection that gave nothing for this long makes room when all places are taken and
    /// untried addresses wait.
    pub useless_after: Duration,

    /// Bytes of requested and received blocks that are not on disk yet. Nothing is asked for beyond
    /// this, which is how a slow disk slows peers down; but for a few at a time while there are no more
    /// than the disk threads may keep of unfinished pieces
    /// ([`write_cache`](crate::storage::PoolConfig::write_cache)), which should be less.
    pub write_budget: u64,
    /// Requests that each peer may have although the budget is used up, as long as it is used by what
    /// other peers owe us and not by what the disk owes us.
    pub requests_beyond_budget: usize,
    /// What the shell lets in. No more is asked for than that brings in a few seconds, and who has to
    /// wait for it is not late.
    pub intake: Intake,
    /// A request that waits for longer than this goes to others as well, however fast its peer
    /// answers further ones.
    pub request_timeout: Duration,
    /// Bytes in unfinished pieces, counted by whole pieces. Beyond this peers share pieces that are
    /// started instead of starting further ones; two pieces may always be unfinished.
    pub unfinished_bytes: u64,
    /// Pieces chosen at random before rarest first (BEP 3: a newcomer needs something to trade).
    pub random_first: u32,
    /// Steps along the rarest-first order for one choice before any piece that the peer has is taken.
    pub pick_steps: usize,
    /// End game: how many peers may be asked for one block at once.
    pub endgame_holders: usize,
    /// The same once a request has been outstanding for `endgame_patience`; twice as many each time
    /// that this has passed again.
    pub endgame_holders_late: usize,
    /// See `endgame_holders_late`.
    pub endgame_patience: Duration,
    /// Before the end game, where nobody has given anything for this long, a block that was asked for as
    /// long ago is asked of one more peer that can give nothing else.
    pub silent_after: Duration,
    /// Pause after a peer rejected requests; doubles with each time in a row.
    pub reject_pause: Duration,
    /// Longest such pause.
    pub reject_pause_max: Duration,
    /// Pieces under suspicion whose block hashes are kept.
    pub max_suspicions: usize,

    /// Peers unchoked at once, the optimistic one included, however slow they are.
    pub unchoke_slots: usize,
    /// The same at most, where they are fast.
    pub unchoke_slots_max: usize,
    /// Bytes per second that the fastest of them has to take, the second fastest twice, and so on, for
    /// one more to be unchoked.
    pub slot_step: u64,
    /// Whom a seed serves.
    pub seed_choking: SeedChoking,
    /// How often unchoked peers are chosen anew.
    pub choke_interval: Duration,
    /// How often the optimistic unchoke moves on.
    pub optimistic_interval: Duration,
    /// Start as a super-seed (BEP 16) where nothing is missing from the beginning: each piece is given
    /// away as few times as possible.
    pub super_seed: bool,
    /// Connections that strangers of one address (IPv6: one /64) may have opened to us.
    pub incoming_per_ip: usize,

    /// Largest info dictionary that is fetched (BEP 9); none above [`MAX_METADATA`] can be.
    pub max_metadata: u32,
    /// Peers that are asked for the info dictionary at the same time, each for a copy of its own, if it is
    /// not too long for that ([`Limits::metadata_memory`]).
    pub metadata_racers: usize,
    /// Bytes of unfinished copies in all: so many may be claimed by those that race from the beginning, of which
    /// the first may claim anything; and beyond so many received the slowest of the longest is given up.
    pub metadata_memory: u64,
    /// Metadata requests outstanding with one peer.
    pub metadata_window: usize,
    /// A metadata request is repeated after this long, or after a reject.
    pub metadata_retry: Duration,
    /// One more racer is admitted each time this has passed without success.
    pub metadata_patience: Duration,

    /// Trackers of a torrent; further ones are dropped.
    pub max_trackers: usize,
    /// Announces under way at once.
    pub max_announces: usize,
    /// Without an answer for this long since its announce began, a tier goes on to its next tracker. What waits for a
    /// place among the announces of all torrents has not begun.
    pub tracker_patience: Duration,
    /// First wait after all trackers of a tier failed; doubles up to `tracker_backoff_max`.
    pub tracker_backoff: Duration,
    /// Longest such wait.
    pub tracker_backoff_max: Duration,
    /// Peers asked of a tracker.
    pub num_want: u16,
    /// Time between DHT lookups while there are few peers; doubles up to `lookup_interval_max`.
    pub lookup_interval: Duration,
    /// Longest time between DHT lookups while something is missing.
    pub lookup_interval_max: Duration,
    /// Time between DHT announces, plus or minus a fifth.
    pub dht_announce_interval: Duration,
    /// With fewer connections than this, sources are asked sooner.
    pub few_peers: usize,

    /// Progress is saved when this many bytes and a 256th of all were verified since the last time (at
    /// most once in `save_pause`): a save writes a bit for each piece that there is ...
    pub save_bytes: u64,
    /// ... or when something was and this long has passed.
    pub save_interval: Duration,
    /// Shortest time between saves.
    pub save_pause: Duration,
}

/// Whom a seed serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeedChoking {
    /// Everybody in turns.
    #[default]
    RoundRobin,
    /// Those that take it fastest, and one by luck.
    FastestUpload,
    /// Those that have few pieces, whom others give nothing, and those that have nearly all, who will
    /// be seeds soon; and one by luck. Whoever wants to live off seeds alone is slowest in between.
    AntiLeech,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allow_local: false,
            dht: true,
            fetch_lost: true,
            sequential: false,
            peer: PeerConfig::default(),

            max_peers: 100,
            max_half_open: 24,
            dials_per_second: 10,
            dial_burst: 10,
            max_known: 1000,
            ports_per_ip: 2,
            addresses_per_64: 8,
            dials_of_silent: 3,
            dials_of_full: 24,
            dial_backoff: Duration::from_secs(5),
            dial_backoff_max: Duration::from_secs(600),
            full_backoff_max: Duration::from_secs(1800),
            user_backoff_max: Duration::from_secs(30),
            max_banned: 1000,
            useless_after: Duration::from_secs(15),

            write_budget: 12 << 20,
            requests_beyond_budget: 4,
            intake: Intake::default(),
            request_timeout: Duration::from_secs(60),
            unfinished_bytes: 48 << 20,
            random_first: 4,
            pick_steps: 512,
            endgame_holders: 2,
            endgame_holders_late: 4,
            endgame_patience: Duration::from_secs(2),
            silent_after: Duration::from_secs(5),
            reject_pause: Duration::from_millis(50),
            reject_pause_max: Duration::from_secs(30),
            max_suspicions: 64,

            unchoke_slots: 8,
            unchoke_slots_max: 50,
            slot_step: 2 << 10,
            seed_choking: SeedChoking::RoundRobin,
            choke_interval: Duration::from_secs(10),
            optimistic_interval: Duration::from_secs(30),
            super_seed: false,
            incoming_per_ip: 8,

            max_metadata: MAX_METADATA,
            metadata_racers: 3,
            metadata_memory: 64 << 20,
            metadata_window: 8,
            metadata_retry: Duration::from_secs(3),
            metadata_patience: Duration::from_secs(3),

            max_trackers: 100,
            max_announces: 10,
            tracker_patience: Duration::from_secs(14),
            tracker_backoff: Duration::from_secs(30),
            tracker_backoff_max: Duration::from_secs(1800),
            num_want: 100,
            lookup_interval: Duration::from_secs(15),
            lookup_interval_max: Duration::from_secs(300),
            dht_announce_interval: Duration::from_secs(900),
            few_peers: 10,

            save_bytes: 16 << 20,
            save_interval: Duration::from_secs(10),
            save_pause: Duration::from_secs(1),
        }
    }
}
