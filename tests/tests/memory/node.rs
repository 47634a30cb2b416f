//! A node among a million: what it costs at rest, and what stays behind after work. The goals are of
//! PERFORMANCE.md, "Serving".

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Announce, Class, Command, Config, Home, Node, Outbox, ReadOnly, Rng, Seeds, Time};
use harness::heap::Held;
use krpc::{Body, Id, Message, Query, Response, Want};

use crate::around::{Around, HERE, K};

const NOW: Time = Time::from_secs(10_000);

/// What a virtual network of a million nodes gives each of them: the rules of every node, k nodes in
/// every bucket, and arrays of fixed size for a handful of strangers at once instead of for thousands.
fn config() -> Arc<Config> {
    Arc::new(Config {
        k: K,
        wide_buckets: Vec::new(),
        source_table_entries: 16,
        reach_contacts: 16,
        read_only: ReadOnly::No,
        ..Config::default()
    })
}

fn grown(config: &Arc<Config>, around: &mut Around, seed: u64) -> Node {
    let id = Rng::from_seed(seed).id();
    let ip = SocketAddr::from(HERE).ip();
    let home = Home { id, local: HERE.into(), external: Some(ip), saved: Vec::new() };
    let known = around.table_of(&id, NOW);
    Node::grown(Arc::clone(config), home, &known, Seeds::from_u64(seed), NOW)
}

/// Makes `count` nodes one after the other, each around its own network, which goes before the node is
/// weighed. The mean of the bytes that they take.
fn mean_weight(count: usize, make: impl Fn(&mut Around, u64) -> Node) -> usize {
    let (mut nodes, mut entries, mut buckets) = (Vec::with_capacity(count), 0, 0);
    let before = Held::now();
    for seed in 0..count as u64 {
        let node = make(&mut Around::new(seed), seed);
        let stats = node.stats(NOW).remove(0);
        (entries, buckets) = (entries + stats.nodes, buckets + stats.buckets);
        nodes.push(node);
    }
    let (heap, of) = (before.since(), |sum: usize| sum as f64 / count as f64);
    let (bytes, own) = (heap.bytes as usize / count, size_of::<Node>());
    println!(
        "{} bytes a node: {own} of its own and {bytes} on the heap in {:.1} blocks; {:.1} entries in {:.1} buckets",
        own + bytes,
        of(heap.blocks as usize),
        of(entries),
        of(buckets)
    );
    own + bytes
}

#[test]
fn idle_node_with_a_full_table_takes_six_kilobytes() {
    let config = config();
    let weight = mean_weight(10_000, |around, seed| grown(&config, around, seed));
    assert!(weight <= 6 * 1024, "{weight} bytes");
}

#[test]
fn node_gives_back_what_its_work_took() {
    let config = config();
    let weight = mean_weight(20, |around, seed| {
        let mut world = World { node: grown(&config, around, seed), now: NOW, out: Outbox::new(), around };
        world.serve(1000);
        (0..3).for_each(|n| world.look(n));
        world.rest(Duration::from_secs(600));
        world.node
    });
    assert!(weight <= 12_500, "{weight} bytes");
}

/// S15: strangers who poke a node in every way that they have, and answer it or do not.
#[test]
fn pokes_by_tens_of_thousands_of_hosts_cost_a_node_less_than_a_megabyte() {
    let config = Arc::new(Config { read_only: ReadOnly::No, ..Config::default() });
    let calm = mean_weight(1, |around, seed| grown(&config, around, seed));
    let poked = mean_weight(1, |around, seed| {
        let mut world = World { node: grown(&config, around, seed), now: NOW, out: Outbox::new(), around };
        world.be_poked(30_000);
        world.node
    });
    println!("{calm} bytes, and {poked} when poked");
    // The scenario allows 8 MiB.
    assert!(poked <= calm + (1 << 20), "{calm} {poked}");
}

/// A node at work.
struct World<'a> {
    node: Node,
    now: Time,
    out: Outbox,
    around: &'a mut Around,
}

impl World<'_> {
    /// Lets strangers ask `count` questions, ten a second. One in 99 announces himself.
    fn serve(&mut self, count: u32) {
        for n in 0..count {
            let target = Rng::from_seed(n.into()).id();
            let (id, from) = self.around.sharing(&target, 0);
            let get_peers =
                Query::GetPeers { infohash: target, want: Want::UNSPECIFIED, scrape: false, no_seed: false };
            let query = match n % 3 {
                0 => Query::Ping,
                1 => Query::FindNode { target, want: Want::UNSPECIFIED },
                _ => get_peers,
            };
            let reply = self.ask((id, from), query);
            if n % 99 == 50 {
                let message = Message::decode(&reply).unwrap();
                let Body::Response(Response { token: Some(token), .. }) = message.body else {
                    panic!("a token")
                };
                self.ask(
                    (id, from),
                    Query::AnnouncePeer {
                        infohash: target,
                        port: 6881,
                        implied_port: false,
                        token,
                        seed: false,
                    },
                );
            }
            self.rest(Duration::from_millis(100));
        }
        assert_eq!(self.node.store().len(), (count as usize + 48) / 99);
    }

    fn ask(&mut self, (id, from): (Id, SocketAddr), query: Query<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        Message { tid: b"abcd", version: None, ip: None, read_only: false, body: Body::Query { id, query } }
            .encode(&mut bytes);
        self.node.handle_datagram(self.now, 0, from, &bytes, &mut self.out);
        let reply = self.out.transmits.iter().find(|sent| sent.class == Class::Reply).expect("a reply");
        let reply = self.out.datagram(reply).to_vec();
        self.around.answer_all(&mut self.node, &mut self.now, &mut self.out);
        reply
    }

    /// Takes questions of every kind and answers to none from `count` strangers whose ids lie at every
    /// distance. Two of three answer what they are asked, as themselves.
    fn be_poked(&mut self, count: u32) {
        let own = self.node.stats(self.now)[0].id;
        let before = self.node.stats(self.now).remove(0).nodes;
        let mut most = 0;
        for n in 0..count {
            let (id, from) = self.around.sharing(&own, n % Id::BITS);
            let target = Rng::from_seed(n.into()).id();
            let token = b"12345678";
            let kinds = [
                Query::Ping,
                Query::FindNode { target, want: Want::BOTH },
                Query::GetPeers { infohash: target, want: Want::BOTH, scrape: true, no_seed: true },
                Query::AnnouncePeer { infohash: target, port: 1, implied_port: false, token, seed: false },
                Query::Get { target, seq: None, want: Want::BOTH },
                Query::Put { token, value: b"i1e", signed: None },
                Query::SampleInfohashes { target, want: Want::BOTH },
                Query::Other { method: b"vote", target: None, want: Want::BOTH },
            ];
            let query = kinds[n as usize % kinds.len()];
            for (tid, body) in [
                (b"abcd", Body::Query { id, query }),
                (&n.to_be_bytes(), Body::Response(Response { nodes: Some(&[7; 208]), ..Response::new(id) })),
            ] {
                let mut bytes = Vec::new();
                Message { tid, version: None, ip: None, read_only: false, body }.encode(&mut bytes);
                self.node.handle_datagram(self.now, 0, from, &bytes, &mut self.out);
            }
            if n % 3 > 0 {
                self.around.answer_all(&mut self.node, &mut self.now, &mut self.out);
            }
            self.out.clear();
            self.rest(Duration::from_millis(20));
            let load = self.node.load();
            most = most.max(load.in_flight);
        }
        let stats = self.node.stats(self.now).remove(0);
        println!("{before} nodes, then {}; at most {most} queries in flight", stats.nodes);
        assert!(stats.nodes > 2 * before && self.node.store().is_empty(), "{stats:?}");
    }

    /// Looks for peers, and announces to the nodes that are nearest.
    fn look(&mut self, number: u64) {
        let infohash = Rng::from_seed(number + 1_000_000).id();
        let announce = Some(Announce { port: 6881, implied: false, seed: false });
        let command = Command::GetPeers { infohash, announce, trace: false };
        self.node.handle_command(self.now, command, &mut self.out);
        assert_eq!(self.node.load().lookups, 1);
        self.around.answer_all(&mut self.node, &mut self.now, &mut self.out);
        self.rest(Duration::from_secs(5));
        assert_eq!(self.node.load().lookups, 0);
    }

    /// Lets time pass in which nobody asks, and the node does what it has to.
    fn rest(&mut self, span: Duration) {
        let until = self.now + span;
        while self.node.timeout() <= until {
            self.now = self.now.max(self.node.timeout());
            self.node.handle_timeout(self.now, &mut self.out);
            self.around.answer_all(&mut self.node, &mut self.now, &mut self.out);
            self.out.clear();
        }
        self.now = self.now.max(until);
    }
}
