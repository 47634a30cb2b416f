//! [`Counters`]: what a node did, as plain numbers. Text formats and rates are for readers.
//!
//! Whoever needs a new counter adds one documented line to the table below; snapshots, sums and
//! names follow from it.

use krpc::ErrorCode;

use crate::store::Lost;

/// Makes the structs, their sum and the list of names from one table.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the node was made. They only grow (and wrap after 2^64).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds the counts of another node or shard.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }

            /// What happened since `earlier`, an older copy of the same counters.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name),)* }
            }

            /// Adds what a node counted lately.
            pub(crate) fn add(&mut self, tally: &Tally) {
                $(self.$name = self.$name.wrapping_add(u64::from(tally.$name));)*
            }

            /// Every counter with its name, in the order of their definition.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        /// The same in half the memory: what a node counted since [`Tally::is_full`] was true.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: u32,)*
        }
    };
}

impl Tally {
    /// Whether it has to be added to [`Counters`] and begun anew: asked after each input, none of which
    /// counts for 2^31. No counter grows faster than these four.
    pub(crate) fn is_full(&self) -> bool {
        (self.bytes_in | self.bytes_out | self.datagrams_in | self.datagrams_out) >> 31 != 0
    }
}

counters! {
    /// Datagrams that arrived.
    datagrams_in,
    /// Bytes of [`Counters::datagrams_in`], without IP and UDP headers.
    bytes_in,
    /// Datagrams given to the shell to send.
    datagrams_out,
    /// Bytes of [`Counters::datagrams_out`], without IP and UDP headers.
    bytes_out,

    /// Datagrams dropped before decoding: shorter than any message or longer than we read.
    dropped_length,
    /// Datagrams dropped before decoding: not `d`…`e`.
    dropped_not_dictionary,
    /// Datagrams dropped before decoding: port 0 or an address that strangers cannot have.
    dropped_address,
    /// Datagrams that were no KRPC message.
    dropped_undecodable,
    /// Queries dropped because we are read-only (BEP 43).
    dropped_read_only,
    /// Queries that got silence because their source or all sources together had enough replies.
    dropped_rate_limit,
    /// Queries that got silence because even the shortest answer would have been longer than a datagram may be,
    /// or than what they themselves brought allows.
    dropped_too_long,
    /// Replies and errors that answer none of our queries, or from another address or id.
    dropped_unsolicited,
    /// Of those, the ones with the transaction id of a query of ours that went to another address: a guess
    /// that hit, or somebody who listens (D8).
    replies_spoofed,
    /// Of those, the ones from the address that was asked, under another id than the node there is known by
    /// (D6). Where no certain node was asked they are heeded all the same.
    ids_mismatched,
    /// Messages with keys out of order, which we read all the same.
    tolerated_unsorted,

    /// `ping` queries answered or refused.
    queries_ping,
    /// `find_node` queries.
    queries_find_node,
    /// `get_peers` queries.
    queries_get_peers,
    /// `announce_peer` queries.
    queries_announce_peer,
    /// `get` queries (BEP 44).
    queries_get,
    /// `put` queries (BEP 44).
    queries_put,
    /// `sample_infohashes` queries (BEP 51).
    queries_sample_infohashes,
    /// Queries of a method that we do not know.
    queries_unknown,

    /// `get_peers` queries that were told peers.
    get_peers_hits,
    /// `get_peers` queries that were told none, for want of any or of room.
    get_peers_misses,
    /// Queries for filters (BEP 33) that went without, because all together had enough of them or because a reply
    /// to so short a query has no room for them.
    scrapes_withheld,

    /// Replies sent.
    replies_out,
    /// Replies that had to leave out nodes, samples or an item so as not to be too long.
    replies_shortened,
    /// Error 201 (generic) sent.
    errors_generic_out,
    /// Error 202 (server) sent.
    errors_server_out,
    /// Error 203 (protocol: malformed, invalid arguments, bad token) sent.
    errors_protocol_out,
    /// Error 204 (method unknown) sent.
    errors_method_out,
    /// Errors of BEP 44 (205, 206, 207, 301, 302) sent.
    errors_item_out,
    /// Announces and puts with a token that was not ours, or too old.
    tokens_refused,

    /// Our queries, all kinds.
    queries_out,
    /// Replies to our queries, by the nodes that were asked.
    replies_in,
    /// Errors in answer to our queries.
    errors_in,
    /// Our queries that nobody answered in time.
    timeouts,
    /// Our puts that were not sent: with the token of that node they are longer than what passes an Ethernet
    /// whole.
    puts_too_long,

    /// Announces stored for the first time.
    announces_stored,
    /// Announces of peers that were stored already.
    announces_refreshed,
    /// Announces refused by a cap.
    announces_refused,
    /// BEP 44 items stored, replaced or made young again.
    items_stored,
    /// BEP 44 items refused.
    items_refused,
    /// Peers that were not announced again in time.
    peers_expired,
    /// Peers that made room for others: in a full store, infohash or source.
    peers_evicted,
    /// BEP 44 items that were not put again in time.
    items_expired,
    /// BEP 44 items that made room for others.
    items_evicted,

    /// Nodes that entered the routing table.
    nodes_inserted,
    /// Nodes that left the routing table.
    nodes_removed,
    /// Nodes that would have entered the routing table but for a full bucket or a diversity rule.
    nodes_refused,

    /// Strangers that were pinged because they asked us, or because somebody named them for a gap in the table.
    newcomers_pinged,

    /// Answers that told us what our address is (BEP 42), whether it is believed or not.
    address_votes,
    /// Times that a home of ours took another id, because others agree on another address (BEP 42).
    own_ids_changed,
    /// Changes of the network that our owner told of, or that we slept through.
    network_changes,
    /// Times that a socket's network was lost: told by our owner, or nobody answered any more.
    network_losses,
    /// Times that somebody answered again after that.
    network_returns,
    /// Unanswered queries that were not held against the node asked, because of the network.
    timeouts_forgiven,

    /// What serving shards handed over to the deciding one; see [`crate::shards`].
    crossings,
    /// What serving shards had for the deciding one and dropped, because too much waited for it.
    crossings_dropped,

    /// Lookups of the table's upkeep: of our own neighbourhood, of buckets to be refreshed, and from nodes that
    /// came back. The others count for our owner's.
    lookups_of_upkeep,
    /// Lookups started.
    lookups_started,
    /// Lookups that ended with answers of the closest nodes.
    lookups_done,
    /// Lookups that ended with no answer at all.
    lookups_failed,
}

impl Tally {
    /// Counts what a store holds no longer.
    pub(crate) fn count_lost(&mut self, lost: Lost) {
        self.peers_expired += lost.peers_expired;
        self.peers_evicted += lost.peers_evicted;
        self.items_expired += lost.items_expired;
        self.items_evicted += lost.items_evicted;
    }

    /// The counter of errors sent with this code.
    pub(crate) fn errors_out(&mut self, code: ErrorCode) -> &mut u32 {
        match code {
            ErrorCode::Server => &mut self.errors_server_out,
            ErrorCode::Protocol => &mut self.errors_protocol_out,
            ErrorCode::MethodUnknown => &mut self.errors_method_out,
            ErrorCode::ValueTooBig
            | ErrorCode::InvalidSignature
            | ErrorCode::SaltTooBig
            | ErrorCode::CasMismatch
            | ErrorCode::SequenceTooLow => &mut self.errors_item_out,
            _ => &mut self.errors_generic_out,
        }
    }
}

impl Counters {
    /// Queries that came in and were answered or refused, of all methods.
    pub fn queries_in(&self) -> u64 {
        let queries = self.iter().filter(|(name, _)| name.starts_with("queries_") && *name != "queries_out");
        queries.map(|(_, count)| count).sum()
    }

    /// A copy for a reader.
    pub fn snapshot(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_adds_and_since_subtracts_every_counter() {
        let mut a = Counters { datagrams_in: 3, timeouts: u64::MAX, ..Counters::default() };
        let before = a.snapshot();
        a.merge(&Counters { datagrams_in: 4, timeouts: 2, lookups_failed: 1, ..Counters::default() });
        assert_eq!((a.datagrams_in, a.timeouts, a.lookups_failed), (7, 1, 1));
        let gained = a.since(&before);
        assert_eq!((gained.datagrams_in, gained.timeouts, gained.lookups_failed), (4, 2, 1));
        assert_eq!(gained.iter().map(|(_, count)| count).sum::<u64>(), 7);
        assert!(gained.iter().any(|(name, count)| name == "lookups_failed" && count == 1));
    }

    #[test]
    fn tally_is_full_before_a_counter_wraps_and_adds_up() {
        let (mut tally, mut counted) = (Tally::default(), Counters::default());
        let mut times = 0;
        for _ in 0..9 {
            tally.bytes_in += 1 << 30;
            tally.timeouts += 1;
            if tally.is_full() {
                counted.add(&std::mem::take(&mut tally));
                times += 1;
            }
        }
        assert_eq!((times, tally.bytes_in, tally.timeouts), (4, 1 << 30, 1));
        counted.add(&tally);
        assert_eq!((counted.bytes_in, counted.timeouts), (9 << 30, 9));
    }
}
