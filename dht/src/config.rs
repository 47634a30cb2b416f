//! [`Config`]: every cap, interval and probability of a node as a documented field with its default
//! and where the number comes from. Parsing files and flags is the shell's business.
//!
//! A cap of 0 lifts it ([`Config::lifted`] names them), as do the rates that say so. What has to be
//! more than 0 for a node to work is refused by the settings. Where 0 is a number like any other, or 1, the
//! field says so; a test goes over all of them (`settings/keys.rs`).
//!
//! Numbers that are no fields, because nobody would set them, and where they are:
//! - what a format says: how deep and how long messages may be (`krpc::bencode::Limits`), values and salts
//!   of items (`item.rs`), intervals of BEP 51 (`lookup/findings.rs`), tokens (`token.rs`);
//! - the weights by which a lookup chooses whom it asks next (`lookup/weights.rs`) and how long it waits for
//!   whom (`rpc.rs`);
//! - the steps in which the upkeep is spread over time (at the ends of `maintain.rs` and
//!   `maintain/newcomers.rs`);
//! - how arrays are laid out in memory, and how much of them is swept at a time (at the ends of the files
//!   of `guard`, `reach`, `store` and `table`);
//! - queues and pauses of the tokio shell (`net`), which decide nothing about the protocol.
//!
//! The threats to a node by their numbers in the design (`tests/SCENARIOS.md`), and what bounds each; names
//! without a file are fields:
//!
//! | | threat | bounds |
//! |---|---|---|
//! | D1 | nesting and sizes of messages | `krpc::bencode::Limits::KRPC`; shortest datagram in `guard.rs` |
//! | D2 | amplification | `max_datagram`, `max_amplification`, `max_error_amplification`, `reply_bytes_per_second` |
//! | D3 | floods of queries | `replies_per_second_per_ip`, `reply_burst_per_ip`, `source_table_entries` |
//! | D4 | guessed tokens | `token_rotation`, `failed_tokens_per_minute`; 8 bytes of HMAC in `token.rs` |
//! | D5 | a full store | `store_memory`, `peers_per_infohash`, `ports_per_ip`, `infohashes_per_ip`, `peer_expiry` |
//! | D6 | a table of liars | `nodes_per_subnet_per_bucket`, `newcomer_ping_pause`, `newcomer_sources` |
//! | D7 | lookups led astray | the `lookup_` fields; one node of a network in the closest set, `lookup/search.rs` |
//! | D8 | forged replies | random tids of 4 bytes and the address asked, `rpc.rs` |
//! | D9 | forged peers | `lookup_values_per_reply`, `lookup_max_peers`, `lookup_ports_per_ip`; the downloader's dials |
//! | D10 | lies about our address | the `address_` fields |
//! | D11 | items | `max_items`, `items_per_ip`, `signature_checks_per_second`; 1,000 bytes and 64 of salt, `item.rs` |
//! | D12 | samples | `max_samples`, `sample_interval` |
//! | D13 | strangers' text on a terminal | 64 bytes, escaped, `bin/btdht/output.rs` |

use std::sync::Arc;
use std::time::Duration;

/// All numbers of a node. One `Arc<Config>` serves any number of nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    // ---- routing table ----
    /// Nodes in a bucket, and in a reply that carries nothing else as many of them as fit (BEP 5: k = 8).
    pub k: usize,
    /// Capacities of the buckets farthest from us, farthest first; the rest hold [`Config::k`].
    /// Wide top buckets save a hop (libtorrent: 128, 64, 32, 16).
    pub wide_buckets: Vec<usize>,
    /// Replacement candidates per contested bucket; 0 lifts it.
    pub candidates_per_bucket: usize,
    /// Nodes of one /24 (IPv6: /64) in one bucket.
    pub nodes_per_subnet_per_bucket: usize,
    /// A node is questionable after this silence (BEP 5: 15 minutes).
    pub questionable_after: Duration,
    /// Failures in a row that make a node bad when somebody waits for its place; 0 lifts it.
    pub bad_after_failures: u8,
    /// Failures in a row after which a node goes even without a successor; 0 lifts it.
    pub drop_after_failures: u8,

    // ---- maintenance ----
    /// A bucket that did not change for this long is refreshed (BEP 5: 15 minutes).
    pub refresh_after: Duration,
    /// Pings of questionable nodes per second, at least 1.
    pub questionable_pings_per_second: u32,
    /// Pings of newcomers: burst, at least 1.
    pub newcomer_ping_burst: u32,
    /// Pings of newcomers: per second, at least 1.
    pub newcomer_pings_per_second: u32,
    /// While the table holds fewer nodes than this, newcomers are pinged faster; 0: never.
    pub young_table: usize,
    /// Pings of newcomers per second, in all, while the table is young, at least 1; one per source address.
    pub young_newcomer_pings_per_second: u32,
    /// A source address (IPv6: /64) that queries us is pinged once in this span, so that forged queries cannot
    /// use us as a reflector; once more where a node of the table that lives there asks under another id.
    pub newcomer_ping_pause: Duration,
    /// Sources that are remembered to have been pinged, 4 bytes each; a power of two up to 256.
    pub newcomer_sources: usize,
    /// First pause before an unanswered bootstrap is tried again; doubles up to
    /// [`Config::bootstrap_retry_max`], with jitter.
    pub bootstrap_retry_min: Duration,
    /// Longest pause between bootstrap attempts.
    pub bootstrap_retry_max: Duration,
    /// When so many trusty nodes in a row (all of them, if they are fewer) did not answer and nobody else
    /// did, our own line is dead: none of them is to blame.
    pub lost_after_silences: usize,
    /// Pause between pings that find out whether a dead line is back.
    pub lost_ping_interval: Duration,
    /// After a change of the network every node of the table is pinged once, so many per second, at least 1.
    pub recovery_pings_per_second: u32,
    /// Nodes that fell silent and lost their place in the table whom a home remembers, some 60 bytes each, to
    /// ask them again: after the network has fallen in parts they are the way back to the others (16 are more
    /// than a bucket, so that two thirds may be gone for good). 0 remembers nobody.
    pub missing_nodes: usize,
    /// One of them is asked after this, to a minute; all of them within half an hour.
    pub missing_retry: Duration,
    /// A node that wakes up so much later than it wanted has slept, and its network may be another one.
    pub asleep_after: Duration,

    // ---- queries and lookups ----
    /// A query is given up after this.
    pub query_timeout: Duration,
    /// Bounds of the adaptive time after which a silent node frees its lookup slot.
    pub soft_timeout_min: Duration,
    /// See [`Config::soft_timeout_min`].
    pub soft_timeout_max: Duration,
    /// The soft timeout before any round trip was measured.
    pub soft_timeout_start: Duration,
    /// Queries that a lookup opens with.
    pub lookup_start_width: usize,
    /// Further queries that an answer nearer than all others allows; the rest allow one less.
    pub lookup_queries_per_answer: usize,
    /// Queries that a lookup sends before it ends, if it knows so many nodes: those around the target may
    /// be a ring of liars. 0: as few as it needs.
    pub lookup_min_queries: usize,
    /// Most queries of one lookup in flight.
    pub lookup_max_in_flight: usize,
    /// Most queries in one lookup; one of the table's upkeep makes do with a third of them. One that has spent
    /// them announces to the closest nodes that it has come to all the same, which takes up to
    /// [`Config::announce_nodes`] more in each family, and one more for each that is slow to take it.
    pub lookup_max_queries: u32,
    /// Longest lookup.
    pub lookup_max_time: Duration,
    /// Longest wait of a lookup that nobody has answered, and for somebody to ask.
    pub lookup_max_silence: Duration,
    /// Candidates that a lookup remembers.
    pub lookup_candidates: usize,
    /// Nodes taken from one reply, per family.
    pub lookup_nodes_per_reply: usize,
    /// Queries of one lookup to an address (IP) that never answered.
    pub lookup_queries_per_silent_ip: u32,
    /// Nodes of one network (IPv4 /24, IPv6 /64) that may answer in one search, and as many that may be
    /// silent: each could refer us to a nearer neighbour for ever.
    pub lookup_nodes_per_subnet: usize,
    /// Peers that one lookup reports.
    pub lookup_max_peers: usize,
    /// Lookups whose closest nodes are remembered, so that the next one of the same target starts there;
    /// each takes some 500 bytes. 0 remembers none.
    pub lookups_remembered: usize,
    /// For so long: many of them are gone by then.
    pub lookups_remembered_for: Duration,
    /// Nodes that are remembered for having told samples (BEP 51), some 60 bytes each.
    pub sampled_nodes: usize,
    /// Nodes whose filters one scrape merges (BEP 33); each pair takes 512 bytes.
    pub lookup_max_filters: usize,
    /// Values taken from one reply.
    pub lookup_values_per_reply: usize,
    /// Ports of one IP among the peers of a lookup.
    pub lookup_ports_per_ip: usize,
    /// Nodes that an announce is sent to (BEP 5: the k closest).
    pub announce_nodes: usize,
    /// Lookups of our owner that run at once; a further one waits.
    pub max_lookups: usize,
    /// Queries of one node in flight, in all.
    pub max_in_flight: usize,

    // ---- standing orders ----
    /// An announce is renewed after this, a tenth more or less; nodes forget peers after 30 to 45
    /// minutes.
    pub announce_every: Duration,
    /// An item is put again after this, a tenth more or less (BEP 44: hourly).
    pub keep_every: Duration,
    /// A key is asked for a newer version after this, a tenth more or less (BEP 46).
    pub follow_every: Duration,
    /// Pause after a round of a standing order that came to nothing; doubled by each further one. Also
    /// the shortest pause between two rounds, whatever happens to the network.
    pub renew_retry_min: Duration,
    /// Longest such pause.
    pub renew_retry_max: Duration,

    // ---- serving ----
    /// Whether queries are answered (BEP 43). Auto is never on together with [`Config::allow_local`].
    pub read_only: ReadOnly,
    /// A home is reachable for so long after a query from an address that it had not asked for as long.
    pub reach_window: Duration,
    /// A home that is read-only because nobody reaches it answers for so long, to see whether somebody does,
    pub reach_probe: Duration,
    /// once in every such span, which is the longer one.
    pub reach_probe_every: Duration,
    /// In a network of fewer nodes, by the density of our neighbourhood, no home becomes read-only by
    /// itself: they all ask one another so often that nobody is a stranger. 0: however few they are.
    pub reach_min_network: u64,
    /// Addresses that a home remembers to have asked, 8 bytes each; a power of two.
    pub reach_contacts: usize,
    /// Largest datagram that we send (BEP 32: 1024).
    pub max_datagram: usize,
    /// Largest reply that carries an item of BEP 44, whose 1,000 bytes do not fit the rest's limit: what
    /// passes every IPv6 link whole (1,280 bytes less headers).
    pub max_item_datagram: usize,
    /// A reply is at most so many times longer than its query.
    pub max_amplification: usize,
    /// An error is at most so many times longer than what it answers, which may be no query at all
    /// (S4).
    pub max_error_amplification: usize,
    /// Largest datagram that we read.
    pub max_incoming: usize,
    /// Longest transaction id that we echo.
    pub max_tid: usize,
    /// Peers in one reply.
    pub max_values: usize,
    /// Replies per second to one source address (IPv6: /64); 0 lifts it.
    pub replies_per_second_per_ip: u32,
    /// Burst of [`Config::replies_per_second_per_ip`], at least 1.
    pub reply_burst_per_ip: u32,
    /// Bytes of replies per second in all; 0 lifts it.
    pub reply_bytes_per_second: u64,
    /// Replies with filters (BEP 33) per second in all, with a burst of a second's; further ones go without.
    /// Filters over a full infohash cost a hundred times what any other reply does. 0 lifts it.
    pub scrapes_per_second: u32,
    /// Entries of the per-source table; a power of two.
    pub source_table_entries: usize,
    /// After this many bad tokens in a minute from one IP its failures get silence; 0 lifts it.
    pub failed_tokens_per_minute: u32,

    // ---- tokens ----
    /// A secret is replaced after this; two are accepted (BEP 5: 5 and 10 minutes).
    pub token_rotation: Duration,

    // ---- storage ----
    /// Memory for announced peers, in bytes; the stalest go first. Items are beside it: at most
    /// [`Config::max_items`] of some 1.2 KB.
    pub store_memory: usize,
    /// Peers of one infohash.
    pub peers_per_infohash: usize,
    /// Ports stored of one IP for one infohash.
    pub ports_per_ip: usize,
    /// Infohashes announced by one IP (IPv6: /64); 0 lifts it.
    pub infohashes_per_ip: usize,
    /// An announce is forgotten after this.
    pub peer_expiry: Duration,

    /// Infohashes told in one answer (BEP 51): 20 of them fit a datagram beside eight nodes of the asker's
    /// family and most of eight of the other. What does not fit is left out; 0 tells as many as can fit,
    /// [`Config::MOST_SAMPLES`].
    pub max_samples: usize,
    /// They stay the same for so long (BEP 51; libtorrent: six hours).
    pub sample_interval: Duration,
    /// Items of BEP 44; the least recently used go first. Each takes at most 1,200 bytes.
    pub max_items: usize,
    /// Items put by one IP (IPv6: /64); 0 lifts it.
    pub items_per_ip: usize,
    /// An item is forgotten after this (BEP 44: two hours).
    pub item_expiry: Duration,
    /// Checks of signatures of puts per second in all, with a burst of a second's; each costs some
    /// 50 µs. Further puts get error 202. 0 lifts it.
    pub signature_checks_per_second: u32,

    // ---- addresses ----
    /// Accept loopback, private and link-local addresses as nodes and peers, each IP and port
    /// counting as an address of its own.
    pub allow_local: bool,
    /// Networks (IPv4 /24, IPv6 /64) whose last word on our own address counts (BEP 42;
    /// D10).
    pub address_votes: usize,
    /// So many of [`Config::address_votes`] have to agree.
    pub address_agreement: usize,
    /// Our address, and with it our id, stays for so long at least once others agreed on it.
    pub address_change_pause: Duration,

    // ---- crawling (BEP 51) ----
    /// Queries of a crawl per second, nearly each to another address; 0 lifts it. 25 a second leave some
    /// 750 entries in a router's table of connections, which forgets UDP after 30 seconds.
    pub crawl_rate: u32,
    /// Queries of a crawl that may go out at once after a pause, at least 1.
    pub crawl_burst: u32,
    /// Queries of a crawl in flight; at most half of `max_in_flight`.
    pub crawl_max_in_flight: usize,
    /// Nodes that a crawl has heard of and not asked yet, some 130 bytes each. When there are more, each part
    /// of the key space keeps an even choice of its own.
    pub crawl_frontier: usize,
    /// Nodes that a crawl remembers for having asked them, some 190 bytes each. When all of them are within
    /// their interval nobody else is asked until the first one's is over.
    pub crawl_asked: usize,
    /// Nodes of one network (IPv4 /24) that a crawl knows at a time, but for those that were silent lately. An
    /// IPv6 /64 has one. For the size of the DHT further ones are asked, for nodes, and forgotten again.
    pub crawl_nodes_per_subnet: usize,
    /// Nodes taken from one reply to a crawl, per family.
    pub crawl_nodes_per_reply: usize,
    /// A node that told samples is left alone for so long at least, whatever its interval.
    pub crawl_rest_min: Duration,
    /// A node that did not answer a crawl is not asked for samples again for so long, however often it is named, and
    /// for nodes once more.
    pub crawl_silent_rest: Duration,
    /// A node that does not know BEP 51 is not asked by a crawl again for so long.
    pub crawl_refused_rest: Duration,
    /// Percent of a crawl's queries that look for the nodes nearest to random points, by which the size of
    /// the DHT is estimated.
    pub crawl_survey_share: u32,
    /// Percent of a crawl's queries that ask for the sizes of swarms (BEP 33), where that is wanted.
    pub crawl_scrape_share: u32,
    /// Nodes that are asked for the size of one swarm.
    pub crawl_scrape_nodes: usize,
    /// Swarms that wait for being asked for; further ones go without.
    pub crawl_scrape_queue: usize,
}

/// Whether a node answers queries (BEP 43).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnly {
    /// As long as strangers reach it, or may.
    #[default]
    Auto,
    /// It answers nobody and says so in its own queries.
    Yes,
    /// It answers whoever asks.
    No,
}

impl Config {
    /// Infohashes that fit 1,024 bytes beside eight IPv4 nodes and a short transaction id (BEP 51).
    pub const MOST_SAMPLES: usize = 34;

    /// The same as [`Config::lifted`], and the same memory if there is nothing to lift: nodes share it.
    pub(crate) fn lifted_once(self: Arc<Self>) -> Arc<Self> {
        let lifted = self.lifted();
        if lifted == *self { self } else { Arc::new(lifted) }
    }

    /// The same with every cap of 0 replaced by the largest number, so that the core only has to
    /// compare. Rates and [`Config::infohashes_per_ip`] keep their 0, which saves their bookkeeping.
    pub(crate) fn lifted(&self) -> Self {
        macro_rules! lift {
            ($config:ident: $($cap:ident),+) => {$(
                if $config.$cap == 0 {
                    $config.$cap = !0;
                }
            )+};
        }
        let mut config = self.clone();
        lift!(config:
            candidates_per_bucket, nodes_per_subnet_per_bucket, bad_after_failures, drop_after_failures, lookup_max_in_flight, lookup_max_queries, lookup_candidates,
            lookup_nodes_per_reply, lookup_queries_per_silent_ip, lookup_nodes_per_subnet, lookup_max_peers, lookup_values_per_reply,
            lookup_ports_per_ip, sampled_nodes, lookup_max_filters, max_item_datagram, max_lookups, max_in_flight, max_incoming, max_tid, max_values, store_memory,
            peers_per_infohash, ports_per_ip, max_amplification, max_error_amplification, max_items, items_per_ip, lost_after_silences,
            crawl_max_in_flight, crawl_frontier, crawl_asked, crawl_nodes_per_subnet, crawl_nodes_per_reply, crawl_scrape_nodes,
            crawl_scrape_queue
        );
        // More than that is never sent, so that there is nothing to choose more for.
        if config.max_samples == 0 {
            config.max_samples = Self::MOST_SAMPLES;
        }
        config
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            k: 8,
            wide_buckets: vec![128, 64, 32, 16],
            candidates_per_bucket: 4,
            nodes_per_subnet_per_bucket: 2,
            questionable_after: Duration::from_secs(15 * 60),
            bad_after_failures: 2,
            drop_after_failures: 5,

            refresh_after: Duration::from_secs(15 * 60),
            questionable_pings_per_second: 1,
            newcomer_ping_burst: 16,
            newcomer_pings_per_second: 4,
            young_table: 64,
            young_newcomer_pings_per_second: 200,
            newcomer_ping_pause: Duration::from_secs(60),
            newcomer_sources: 256,
            bootstrap_retry_min: Duration::from_secs(1),
            bootstrap_retry_max: Duration::from_secs(60),
            lost_after_silences: 8,
            lost_ping_interval: Duration::from_secs(5),
            recovery_pings_per_second: 20,
            missing_nodes: 16,
            missing_retry: Duration::from_secs(2 * 60),
            asleep_after: Duration::from_secs(10),

            query_timeout: Duration::from_secs(4),
            soft_timeout_min: Duration::from_millis(100),
            soft_timeout_max: Duration::from_secs(1),
            soft_timeout_start: Duration::from_millis(250),
            lookup_start_width: 8,
            lookup_queries_per_answer: 3,
            lookup_min_queries: 44,
            lookup_max_in_flight: 32,
            lookup_max_queries: 300,
            lookup_max_time: Duration::from_secs(30),
            lookup_max_silence: Duration::from_secs(10),
            lookup_candidates: 200,
            lookup_nodes_per_reply: 8,
            lookup_queries_per_silent_ip: 3,
            lookup_nodes_per_subnet: 4,
            lookup_max_peers: 2000,
            lookups_remembered: 256,
            lookups_remembered_for: Duration::from_secs(60 * 60),
            sampled_nodes: 4096,
            lookup_max_filters: 32,
            lookup_values_per_reply: 200,
            lookup_ports_per_ip: 8,
            announce_nodes: 8,
            max_lookups: 64,
            max_in_flight: 2048,

            announce_every: Duration::from_secs(15 * 60),
            keep_every: Duration::from_secs(60 * 60),
            follow_every: Duration::from_secs(60 * 60),
            renew_retry_min: Duration::from_secs(10),
            renew_retry_max: Duration::from_secs(5 * 60),

            read_only: ReadOnly::Auto,
            reach_window: Duration::from_secs(10 * 60),
            reach_probe: Duration::from_secs(5 * 60),
            reach_probe_every: Duration::from_secs(30 * 60),
            reach_min_network: 4096,
            reach_contacts: 4096,
            max_datagram: 1024,
            max_item_datagram: 1232,
            max_amplification: 12,
            max_error_amplification: 2,
            max_incoming: 2048,
            max_tid: 32,
            max_values: 100,
            replies_per_second_per_ip: 25,
            reply_burst_per_ip: 50,
            reply_bytes_per_second: 8_000_000,
            scrapes_per_second: 100,
            source_table_entries: 16_384,
            failed_tokens_per_minute: 10,

            token_rotation: Duration::from_secs(300),

            store_memory: 64 << 20,
            peers_per_infohash: 2000,
            ports_per_ip: 8,
            infohashes_per_ip: 500,
            peer_expiry: Duration::from_secs(45 * 60),
            max_samples: 20,
            sample_interval: Duration::from_secs(6 * 60 * 60),
            max_items: 1000,
            items_per_ip: 100,
            item_expiry: Duration::from_secs(2 * 60 * 60),
            signature_checks_per_second: 200,

            allow_local: false,
            address_votes: 16,
            address_agreement: 9,
            address_change_pause: Duration::from_secs(10 * 60),

            crawl_rate: 25,
            crawl_burst: 5,
            crawl_max_in_flight: 128,
            crawl_frontier: 131_072,
            crawl_asked: 524_288,
            crawl_nodes_per_subnet: 32,
            crawl_nodes_per_reply: 16,
            crawl_rest_min: Duration::from_secs(5 * 60),
            crawl_silent_rest: Duration::from_secs(60 * 60),
            crawl_refused_rest: Duration::from_secs(24 * 60 * 60),
            crawl_survey_share: 25,
            crawl_scrape_share: 25,
            crawl_scrape_nodes: 4,
            crawl_scrape_queue: 4096,
        }
    }
}
