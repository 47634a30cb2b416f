//! A whole DHT node under a sequence that the input spells: datagrams of strangers, answers to what it asks,
//! its owner's commands, time that passes or jumps. It may refuse anything; it must not panic, grow past
//! its caps, send what is no message or too long, or wake up without end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::addr::acceptable;
use btdht::item::Item;
use btdht::{
    Announce, Class, Command, Config, Counters, Event, Home, LookupId, NetworkChange, Node, Outbox, Question,
    ReadOnly, Seeds, Time, Transmit,
};
use krpc::bencode::Strings;
use krpc::compact::{Address as _, Contact, V4, V6, put_node, put_value};
use krpc::{Body, Id, Message, Query, Response, Want};

use super::hosts::{addr_of, id_at, id_of, items_target, mutable_of, target_of, value_of};
use super::input::Input;
use super::split::Shards;

/// Runs the sequence.
pub fn node(data: &[u8]) {
    play(data, 0);
}

/// Runs the sequence with a node of three shards.
pub fn shards(data: &[u8]) {
    play(data, 2);
}

/// Runs the sequence; what the node and so many satellites did.
fn play(data: &[u8], satellites: usize) -> Counters {
    let mut input = Input(data);
    let mut run = Run::new(satellites);
    while let Some(op) = input.byte() {
        match op % 8 {
            0 => run.raw(&mut input),
            1 | 2 => run.query(&mut input),
            3 | 4 => run.answer(&mut input),
            5 => run.command(&mut input),
            6 => run.pass(Duration::from_millis(10 << (input.next() % 10))),
            _ => run.jump(&mut input),
        }
        // What crosses shards may take its time, while other things happen.
        if op & 0x80 == 0 {
            run.carry();
        }
        run.check();
    }
    run.carry();
    // Whatever it was told, it comes to rest: every lookup and question ends.
    let end = run.now + run.config.lookup_max_time * (1 + run.open.len() as u32);
    while !run.open.is_empty() && run.now < end {
        run.pass(Duration::from_millis(200));
        run.check();
    }
    assert!(run.open.is_empty(), "never ended: {:?}", run.open);
    run.shards.counters(&run.node)
}

/// Sequences that reach every part.
pub(super) fn sequences() -> Vec<Vec<u8>> {
    // Each kind of query from several strangers, then again with the token that came.
    let queries =
        (0..9).flat_map(|kind| [1, kind, kind * 7, 0, 0, 1, kind, 2, 2, 0, 1, kind, kind * 7, 0xff, 0]);
    let join = [5, 11, 0, 5, 10, 4, 3, 0, 1, 9, 3, 1, 1, 9, 6, 2, 3, 0, 5, 8, 3, 0, 1, 7, 3, 0, 9, 6, 6, 8];
    let lookup = |command: u8, flags: u8| {
        let mut sequence = join.to_vec();
        sequence.extend([5, command, 0, 6, 1, 4, 255, 0, 7]);
        for n in 0..12 {
            sequence.extend([3, n, flags, n * 16, 6, 2]);
        }
        sequence.extend([4, 0, 0, 7, 1, 6, 9]);
        sequence
    };
    // More than a source gets answers to.
    let flood = [1, 0, 3, 0, 0].repeat(20);
    // A token, a put with it, a newer version, and the old one again.
    let items = [1, 4, 8, 0, 0, 1, 6, 10, 2, 0, 1, 6, 14, 6, 0, 1, 6, 10, 2, 0, 1, 4, 8, 0, 0];
    let peers = [1, 2, 1, 2, 0, 1, 3, 1, 2, 0, 1, 3, 1, 2, 0, 1, 2, 1, 4, 0];
    let mut sequences = vec![queries.clone().collect(), join.to_vec(), flood, items.to_vec(), peers.to_vec()];
    for command in 0..10 {
        for flags in [0b1, 0b111, 0b1111_0111, 0b1_1000, 0b10_0100] {
            sequences.push(lookup(command, flags));
        }
    }
    // Bytes as they come, and a suspended machine.
    sequences.push([&[0, 3, 60][..], crate::corpus::BEP_5[2], &[7, 200, 6, 3, 7, 30]].concat());
    // A node that comes back under another id, and two at one address.
    sequences.push(vec![5, 10, 4, 3, 2, 2, 1, 5, 10, 4, 3, 2, 2, 0xff]);
    sequences.push(vec![5, 10, 16, 3, 2, 2, 1, 5, 10, 17, 3, 2, 2, 1]);
    // An answer from an address that was not asked.
    sequences.push(vec![5, 10, 4, 3, 2, 2, 0xf8]);
    // A network that is lost, and somebody who answers all the same.
    sequences.push([&[7, 1, 6, 1, 5, 10, 4, 6, 1][..], &[3, 0, 2, 1].repeat(6)].concat());
    // Twelve networks that agree about its address.
    let voters = [24u8, 25, 26, 28, 29, 30, 32, 33, 34, 36, 37, 38];
    sequences.push(voters.into_iter().flat_map(|voter| [5, 10, voter, 3, 2, 2, 100]).collect());
    sequences.push([5, 13, 1].into_iter().chain(queries.clone()).collect());
    // A peer that strangers of its family are told, and an item that is longer than twelve queries; days later
    // there is neither.
    let told = [1, 2, 16, 0, 0, 1, 3, 16, 2, 0, 1, 2, 16, 0, 0, 7, 120, 6, 9];
    let long = [1, 4, 29, 8, 0, 1, 6, 29, 14, 0, 1, 4, 29, 8, 0, 7, 120, 6, 9];
    sequences.extend([told.to_vec(), long.to_vec()]);
    // More than waits to cross shards.
    sequences.push((0..20).flat_map(|n| [0x81, 7, n * 8, 0, 0]).collect());
    sequences.push(queries.chain([7, 255, 6, 11, 5, 12, 0, 5, 13, 0]).collect());
    sequences
}

/// Small caps and short times, so that short sequences reach them.
fn config() -> Config {
    Config {
        source_table_entries: 16,
        store_memory: 64 << 10,
        peers_per_infohash: 12,
        infohashes_per_ip: 6,
        max_items: 5,
        items_per_ip: 3,
        sampled_nodes: 4,
        max_lookups: 2,
        max_in_flight: 24,
        lookup_candidates: 12,
        lookup_max_queries: 40,
        lookup_max_peers: 20,
        query_timeout: Duration::from_secs(1),
        lookup_max_time: Duration::from_secs(4),
        lookup_max_silence: Duration::from_secs(2),
        reply_burst_per_ip: 4,
        wide_buckets: vec![12, 8],
        reach_min_network: 0,
        ..Config::default()
    }
}

struct Run {
    config: Config,
    node: Node,
    shards: Shards,
    now: Time,
    out: Outbox,
    /// What it asked and nobody has answered: transaction id, destination, and when.
    asked: Vec<(Vec<u8>, SocketAddr, Time)>,
    tokens: Vec<Vec<u8>>,
    /// Lookups and questions that have not ended.
    open: BTreeSet<LookupId>,
    peers: BTreeMap<LookupId, usize>,
}

impl Run {
    fn new(satellites: usize) -> Self {
        let config = config();
        let home = |n: u8, local: &str| Home {
            id: Id::new([n; 20]),
            local: local.parse().unwrap(),
            external: None,
            saved: vec![(id_of(200), addr_of(200)), (id_of(201), addr_of(201))],
        };
        let homes = vec![home(1, "80.0.0.1:6881"), home(2, "[2001:db8::1]:6881")];
        let now = Time::from_secs(1000);
        let mut node = Node::new(Arc::new(config.clone()), homes, Seeds::from_u64(1), now);
        let mut run = Self {
            config,
            shards: Shards::of(&mut node, now, satellites),
            node,
            now,
            out: Outbox::new(),
            asked: Vec::new(),
            tokens: vec![b"12345678".to_vec()],
            open: BTreeSet::new(),
            peers: BTreeMap::new(),
        };
        run.wake();
        run
    }

    /// A stranger's bytes as they are: a stranger, a length, the bytes.
    fn raw(&mut self, input: &mut Input<'_>) {
        let from = addr_of(input.next());
        let len = usize::from(input.next());
        let bytes = input.take(len).to_vec();
        self.deliver(from, &bytes);
    }

    /// A query: kind, target, options, and how many of its bytes are changed.
    fn query(&mut self, input: &mut Input<'_>) {
        let (kind, n, options) = (input.next(), input.next(), input.next());
        let target = target_of(n);
        let want = [Want::UNSPECIFIED, Want::BOTH][usize::from(options & 1)];
        let token = self.tokens[usize::from(options >> 1) % self.tokens.len()].clone();
        let value = value_of(n);
        let item = mutable_of(n % 8);
        let query = match kind % 9 {
            0 => Query::Ping,
            1 => Query::FindNode { target, want },
            2 => Query::GetPeers {
                infohash: target,
                want,
                scrape: options & 2 != 0,
                no_seed: options & 4 != 0,
            },
            3 => Query::AnnouncePeer {
                infohash: target,
                port: i64::from(options) - 1,
                implied_port: options & 8 != 0,
                token: &token,
                seed: options & 16 != 0,
            },
            4 => Query::Get { target: items_target(n), seq: (options & 2 != 0).then_some(3), want },
            5 => Query::Put { token: &token, value: &value, signed: None },
            6 => {
                let signed = item.as_signed((options & 2 != 0).then_some(2));
                Query::Put { token: &token, value: &item.value, signed: Some(signed) }
            }
            7 => Query::SampleInfohashes { target, want },
            _ => Query::Other { method: b"vote", target: (options & 2 != 0).then_some(target), want },
        };
        let who = options ^ n;
        let body = Body::Query { id: id_of(who), query };
        let tid = [b't'; 33];
        let tid = &tid[..1 + usize::from(options) % 33];
        let read_only = options & 0x40 != 0;
        let mut bytes = Vec::new();
        Message { tid, version: None, ip: None, read_only, body }.encode(&mut bytes);
        input.change(&mut bytes);
        self.deliver(addr_of(who), &bytes);
    }

    /// An answer to something that it asked: which, what is in it, what it names.
    fn answer(&mut self, input: &mut Input<'_>) {
        let (which, flags, n) = (input.next(), input.next(), input.next());
        if self.asked.is_empty() {
            return;
        }
        let which = usize::from(which) % self.asked.len();
        let (tid, to, _) =
            if flags & 0x80 == 0 { self.asked.remove(which) } else { self.asked[which].clone() };
        let (mut nodes, mut nodes6, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for k in n..n.saturating_add(flags % 21) {
            match (V4::from_socket(addr_of(k)), V6::from_socket(addr_of(k))) {
                (Some(addr), _) => put_node(&mut nodes, &Contact { id: id_of(k), addr }),
                (_, Some(addr)) => put_node(&mut nodes6, &Contact { id: id_of(k), addr }),
                _ => {}
            }
            put_value(&mut values, SocketAddr::new(addr_of(k).ip(), u16::from(k)));
        }
        let (immutable, mutable) = (value_of(n), mutable_of(n % 8));
        let filter = [n; 256];
        let has = |bit: u8| flags >> bit & 1 == 1;
        let mut response = Response::new(if n == 0xff { Id::new([9; 20]) } else { id_at(to) });
        response.nodes = has(0).then_some(&nodes);
        response.nodes6 = has(0).then_some(&nodes6);
        response.token = has(1).then_some(b"token");
        response.values = Strings::from_raw(&values).ok().filter(|_| has(2));
        response.samples = has(3).then_some(&nodes[..nodes.len() / 20 * 20]);
        response.interval = has(3).then_some(i64::from(n) - 1);
        response.bloom_seeds = has(4).then_some(&filter);
        response.bloom_peers = has(4).then_some(&filter);
        if has(5) {
            response.value = Some(if has(6) { &mutable.value } else { &immutable });
            response.key = has(6).then_some(&mutable.key[..]);
            response.signature = has(6).then_some(&mutable.signature[..]);
            response.seq = has(6).then_some(mutable.seq);
        }
        let mut bytes = Vec::new();
        if flags == 0 {
            bytes = [&b"d1:eli301e1:xe1:t4:"[..], &tid, b"1:y1:ee"].concat();
        } else {
            let body = Body::Response(response);
            Message {
                tid: &tid,
                version: Some(b"LT12"),
                // Two stories about where it lives, so that one of them wins now and then.
                ip: Some(&[80, 1, 2, n & 1, 1, 2]),
                read_only: n == 3,
                body,
            }
            .encode(&mut bytes);
        }
        if flags & 0x60 == 0x40 {
            input.change(&mut bytes);
        }
        let from = if matches!(n, 0xf8..=0xfe) { addr_of(n) } else { to };
        self.deliver(from, &bytes);
    }

    fn command(&mut self, input: &mut Input<'_>) {
        let (kind, n) = (input.next(), input.next());
        let (target, trace, item) = (target_of(n), n & 1 == 1, mutable_of(n % 8));
        let announce =
            (n & 2 == 0).then_some(Announce { port: u16::from(n), implied: n & 4 != 0, seed: n & 8 != 0 });
        let command = match kind % 16 {
            0 => Command::FindNode { target, trace },
            1 => Command::GetPeers { infohash: target, announce, trace },
            2 => Command::Scrape { infohash: target, trace },
            3 => Command::Sample { target, trace },
            4 => Command::GetImmutable { target: items_target(n), trace },
            5 => Command::GetMutable { key: item.key, salt: item.salt, seq: announce.map(|_| 2), trace },
            6 => Command::Put { item: Box::new(Item::Mutable(item)), cas: announce.map(|_| 2), trace },
            7 => Command::Put { item: Box::new(Item::Immutable { value: value_of(n) }), cas: None, trace },
            8 => Command::Ask { to: addr_of(n), question: Question::Ping },
            9 => Command::Ask { to: addr_of(n), question: Question::Sample(target, Want::BOTH) },
            10 => Command::AddNode(addr_of(n)),
            11 => Command::Routers((n..n.saturating_add(4)).map(addr_of).collect()),
            12 => Command::Cancel(LookupId(u64::from(n))),
            13 => {
                let setting = if announce.is_some() { ReadOnly::Auto } else { ReadOnly::No };
                let setting = if trace { ReadOnly::Yes } else { setting };
                return self.node.set_read_only(self.now, setting);
            }
            14 => Command::Ask { to: addr_of(n), question: Question::GetPeers(target, Want::BOTH) },
            _ => Command::Ask { to: addr_of(n), question: Question::FindNode(target, Want::UNSPECIFIED) },
        };
        let name = self.node.handle_command(self.now, command, &mut self.out);
        assert!(name.is_none_or(|name| self.open.insert(name)), "{name:?} was given twice");
    }

    /// Time passes, and it is woken up when it wants to be.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.node.timeout() <= end {
            self.now = self.now.max(self.node.timeout());
            self.wake();
        }
        self.now = end;
    }

    /// A machine that slept, for minutes or days, and may have lost its network or come to another one.
    fn jump(&mut self, input: &mut Input<'_>) {
        let minutes = u64::from(input.next());
        self.now += Duration::from_secs(minutes * minutes * 60);
        let change = match minutes % 4 {
            1 => Some(NetworkChange::Lost),
            2 => Some(NetworkChange::Changed),
            _ => None,
        };
        self.wake();
        if let Some(change) = change {
            self.node.handle_network(self.now, (minutes >> 2 & 1) as u8, change, &mut self.out);
        }
    }

    fn wake(&mut self) {
        self.node.handle_timeout(self.now, &mut self.out);
        assert!(self.node.timeout() > self.now, "it wants to wake up again at once");
        self.look();
    }

    fn deliver(&mut self, from: SocketAddr, bytes: &[u8]) {
        let socket = u8::from(from.is_ipv6());
        let before = self.out.transmits.len();
        self.shards.deliver(&mut self.node, self.now, (socket, from), bytes, &mut self.out);
        check_replies(&self.out.transmits[before..], (socket, from), bytes);
    }

    /// What was to cross shards does.
    fn carry(&mut self) {
        self.shards.carry(&mut self.node, self.now, &mut self.out);
    }

    /// Looks at what it wants sent and told.
    fn look(&mut self) {
        for transmit in &self.out.transmits {
            let bytes = self.out.datagram(transmit);
            let message = Message::decode(bytes).expect("it sends messages");
            let longest = match message.body {
                Body::Query { query: Query::Put { .. }, .. } => 1400,
                Body::Response(response) if response.value.is_some() => self.config.max_item_datagram,
                _ => self.config.max_datagram,
            };
            assert!(bytes.len() <= longest, "{} bytes", bytes.len());
            assert_ne!(transmit.to.port(), 0);
            match message.body {
                Body::Query { .. } => self.asked.push((message.tid.to_vec(), transmit.to, self.now)),
                Body::Response(Response { token: Some(token), .. }) if self.tokens.len() < 8 => {
                    self.tokens.push(token.to_vec());
                }
                _ => {}
            }
        }
        let (now, timeout) = (self.now, self.config.query_timeout);
        self.asked.retain(|&(_, _, at)| now.since(at) < timeout);
        for event in &self.out.events {
            match event {
                Event::Done { lookup, .. } | Event::Answered { lookup, .. } => {
                    assert!(self.open.remove(lookup), "{lookup:?} ended twice");
                }
                Event::Peer { lookup, addr, .. } => {
                    let peers = self.peers.entry(*lookup).or_default();
                    *peers += 1;
                    assert!(*peers <= self.config.lookup_max_peers && acceptable(*addr, false));
                }
                Event::Samples { samples, .. } => assert!(samples.len() <= 102),
                _ => {}
            }
        }
        self.out.clear();
    }

    /// Looks at what it holds, too.
    fn check(&mut self) {
        self.look();
        let (load, store, config) = (self.node.load(), self.node.store(), &self.config);
        assert!(load.in_flight <= config.max_in_flight, "{load:?}");
        // Those of the upkeep come on top: each home starts one in half a second, and none lasts longer
        // than a lookup may.
        let upkeep = 2 * 2 * config.lookup_max_time.as_secs() as usize;
        assert!(load.lookups <= config.max_lookups + upkeep, "{load:?}");
        let most = config.lookup_candidates + config.lookup_max_queries as usize;
        assert!(load.candidates <= most, "{load:?}");
        assert!(store.memory() <= config.store_memory && store.items() <= config.max_items);
        // A peer takes eight bytes at the least, in whatever stripe.
        assert!(self.node.kept().counts().peers as usize <= config.store_memory / 8);
        for home in self.node.stats(self.now) {
            assert!(home.nodes <= config.wide_buckets.iter().sum::<usize>() + 158 * config.k);
            assert!(home.candidates <= 160 * config.candidates_per_bucket);
        }
    }
}

/// Whether replies go to who asked, and are not much longer than what was asked.
pub(super) fn check_replies(sent: &[Transmit], (socket, from): (u8, SocketAddr), bytes: &[u8]) {
    for transmit in sent.iter().filter(|transmit| transmit.class == Class::Reply) {
        assert_eq!((transmit.to, transmit.socket), (from, socket));
        assert!(usize::from(transmit.len) <= 12 * bytes.len(), "amplified");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds of events that no seed brought about, and that were not to be `rare`.
    fn missed(satellites: usize, rare: &[&str]) -> Vec<&'static str> {
        let mut sum = Counters::default();
        sequences().iter().for_each(|sequence| sum.merge(&play(sequence, satellites)));
        let missed = sum.iter().filter(|&(name, count)| count == 0 && !rare.contains(&name));
        missed.map(|(name, _)| name).collect()
    }

    // What only an unexpected input, or a flood, could bring about.
    const RARE: [&str; 12] = [
        "dropped_length",
        "dropped_not_dictionary",
        "dropped_undecodable",
        "tolerated_unsorted",
        "errors_generic_out",
        "errors_server_out",
        "announces_refused",
        // An error to a few bytes that are no query.
        "dropped_too_long",
        "scrapes_withheld",
        "peers_evicted",
        "items_evicted",
        // The largest item, salt, numbers and token at once.
        "puts_too_long",
    ];

    #[test]
    fn seeds_reach_every_part_of_a_node() {
        // What a node that serves alone has none of.
        let shards = ["crossings", "crossings_dropped"];
        assert_eq!(missed(0, &[&RARE[..], &shards].concat()), [""; 0]);
    }

    #[test]
    fn seeds_reach_every_part_of_three_shards() {
        assert_eq!(missed(2, &RARE), [""; 0]);
    }
}
