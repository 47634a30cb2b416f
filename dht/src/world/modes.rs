//! S24 and S27: hostile nodes around the target, of every conduct, and six honest ones. Whatever
//! they do, the true peer is found, in time, with few datagrams and next to none to bystanders.

use std::net::Ipv4Addr;
use std::rc::Rc;

use krpc::bencode::Strings;
use krpc::compact::{Address as _, Contact, V4, put_node, put_value};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HONEST: usize = 6;
/// So many that honest nodes have a place among the eight closest. Against more of them, each in a network
/// of its own, only a bound on ids helps (BEP 42).
const HOSTILE: usize = 7;

/// Who is there.
struct Scene {
    infohash: Id,
    honest: Vec<(Id, SocketAddr)>,
    /// Each nearer to the target than the one before.
    hostile: Vec<(Id, SocketAddr)>,
    /// The one who searches.
    searcher: (Id, SocketAddr),
}

/// A query that hostile node `me` got.
struct Asked<'a> {
    scene: &'a Scene,
    me: usize,
    from: SocketAddr,
    message: &'a Message<'a>,
}

type Datagrams = Vec<(SocketAddr, Vec<u8>)>;

/// A conduct: its name, how many follow it, and what they answer.
struct Mode {
    name: &'static str,
    hostile: usize,
    answer: fn(&Asked<'_>) -> Datagrams,
}

const fn mode(name: &'static str, answer: fn(&Asked<'_>) -> Datagrams) -> Mode {
    Mode { name, hostile: HOSTILE, answer }
}

const MODES: &[Mode] = &[
    mode("honest conduct, as a control", |asked| asked.tell(&[], &[])),
    mode("silence", |_| Vec::new()),
    mode("bogus nodes, eight at a time", |asked| asked.tell(&bogus(asked, 8), &[])),
    mode("bogus nodes, as many as a datagram holds", |asked| asked.tell(&bogus(asked, 70), &[])),
    mode("bogus nodes by the thousand", |asked| asked.tell(&bogus(asked, 2000), &[])),
    mode("itself as closest to everything", |asked| {
        let itself = |k| (asked.near(k), asked.scene.hostile[asked.me].1);
        asked.tell(&(0..8).map(itself).collect::<Vec<_>>(), &[])
    }),
    mode("each other, under ids ever nearer", |asked| {
        let other = |k: u32| {
            let (_, addr) = asked.scene.hostile[(asked.me + k as usize) % HOSTILE];
            (asked.near(asked.me as u32 * 8 + k), addr)
        };
        asked.tell(&(0..8).map(other).collect::<Vec<_>>(), &[])
    }),
    Mode {
        name: "endless referrals",
        hostile: 500,
        answer: |asked| {
            let next = asked.scene.hostile.iter().skip(asked.me + 1).take(8);
            asked.tell(&next.copied().collect::<Vec<_>>(), &[])
        },
    },
    mode("referrals to one victim, under many ids and ports", |asked| {
        let at = |k: u32| (asked.near(k), SocketAddr::new(VICTIM, 1000 + (asked.me as u16 * 8 + k as u16)));
        asked.tell(&(0..8).map(at).collect::<Vec<_>>(), &[])
    }),
    mode("referrals to one victim at one port, under many ids", |asked| {
        let at = |k: u32| (asked.near(asked.me as u32 * 8 + k), SocketAddr::new(VICTIM, 53));
        asked.tell(&(0..8).map(at).collect::<Vec<_>>(), &[])
    }),
    mode("referrals to a victim network", |asked| {
        let at = |k: u32| {
            let host = (asked.me * 8 + k as usize) as u8;
            (asked.near(u32::from(host)), SocketAddr::from(([71, 7, 7, host], 6881)))
        };
        asked.tell(&(0..8).map(at).collect::<Vec<_>>(), &[])
    }),
    mode("honest addresses under false ids near the target", |asked| {
        let at = |k: usize| (asked.near((asked.me * 8 + k) as u32), asked.scene.honest[k % HONEST].1);
        asked.tell(&(0..8).map(at).collect::<Vec<_>>(), &[])
    }),
    mode("honest ids at false addresses", |asked| {
        let at = |k: usize| {
            let port = (asked.me * 8 + k) as u16;
            (asked.scene.honest[k % HONEST].0, SocketAddr::from(([72, port as u8, k as u8, 9], 6881)))
        };
        asked.tell(&(0..8).map(at).collect::<Vec<_>>(), &[])
    }),
    mode("the searcher itself", |asked| {
        let (id, addr) = asked.scene.searcher;
        asked.tell(&[(id, addr), (asked.near(0), addr), (id, asked.scene.honest[0].1)], &[])
    }),
    mode("nodes at addresses that cannot be", |asked| {
        let hosts =
            ["0.0.0.0:1", "127.0.0.1:1", "10.0.0.1:1", "224.0.0.1:1", "255.255.255.255:1", "9.9.9.9:0"];
        let nodes = hosts.iter().zip(0..).map(|(host, k)| (asked.near(k), host.parse().unwrap()));
        asked.tell(&nodes.collect::<Vec<_>>(), &[])
    }),
    mode("truncated nodes", |asked| {
        let nodes = records(&bogus(asked, 8));
        asked.lie_beside(&nodes[..nodes.len() - 1])
    }),
    mode("misaligned nodes of 27 bytes", |asked| asked.lie_beside(&[7; 27])),
    mode("nodes6 in an IPv4 network", |asked| {
        asked.reply(Response { nodes6: Some(&[0x20; 38 * 20]), ..asked.plain() })
    }),
    mode("wrong transaction ids", |asked| {
        let mut tid = asked.message.tid.to_vec();
        tid[0] ^= 1;
        asked.with_lies(&tid, asked.scene.hostile[asked.me].0)
    }),
    mode("transaction ids cut short or lengthened", |asked| {
        let tid = asked.message.tid;
        let short = asked.with_lies(&tid[..3], asked.scene.hostile[asked.me].0);
        let long = asked.with_lies(&[tid, b"x"].concat(), asked.scene.hostile[asked.me].0);
        short.into_iter().chain(long).collect()
    }),
    mode("another id than the one that was asked", |asked| {
        asked.with_lies(asked.message.tid, Id::new([9; 20]))
    }),
    mode("the id of an honest node", |asked| {
        asked.with_lies(asked.message.tid, asked.scene.honest[asked.me % HONEST].0)
    }),
    mode("the searcher's own id", |asked| asked.with_lies(asked.message.tid, asked.scene.searcher.0)),
    mode("the target as id", |asked| asked.with_lies(asked.message.tid, asked.scene.infohash)),
    mode(FROM_ANOTHER_PORT, |asked| {
        let (own, addr) = asked.scene.hostile[asked.me];
        let lies = asked.with_lies(asked.message.tid, own);
        lies.into_iter().map(|(_, bytes)| (relay(addr), bytes)).collect()
    }),
    mode("a hundred answers to each query", |asked| {
        let answer = asked.tell(&bogus(asked, 8), &[]).remove(0);
        vec![answer; 100]
    }),
    mode("a hundred queries for each query", |asked| {
        let (id, _) = asked.scene.hostile[asked.me];
        let ask = query(id, get_peers(asked.scene.infohash));
        let mut sent = asked.tell(&[], &[]);
        sent.resize(100, (asked.from, ask));
        sent
    }),
    mode("errors", |asked| asked.raw(b"d1:eli201e5:sorrye1:t4:", b"1:y1:ee")),
    mode("errors without shape", |asked| asked.raw(b"d1:ed1:xi1ee1:t4:", b"1:y1:ee")),
    mode("errors of control characters", |asked| {
        asked.raw(b"d1:eli-9223372036854775808e8:\x1b[2J\x1b]0;e1:t4:", b"1:y1:ee")
    }),
    mode("the query itself, sent back", |asked| {
        let mut bytes = Vec::new();
        asked.message.encode(&mut bytes);
        vec![(asked.from, bytes)]
    }),
    mode("random bytes", |asked| {
        let mut rng = Rng::from_seed(asked.me as u64);
        let mut bytes = vec![0; 300];
        rng.fill(&mut bytes);
        vec![(asked.from, bytes.clone()), (asked.from, [b"d", &bytes[..], b"e"].concat())]
    }),
    mode("nesting", |asked| {
        vec![
            (asked.from, vec![b'l'; 65_507]),
            (asked.from, [&b"d1:rd2:id"[..], &b"d1:a".repeat(400), &b"e".repeat(402)].concat()),
        ]
    }),
    mode("oversize answers", |asked| {
        let peers: Vec<_> = (1..=1000).map(|port| SocketAddr::new(VICTIM, port)).collect();
        asked.tell(&bogus(asked, 30), &peers)
    }),
    mode("peers of one victim at every port", |asked| {
        let peers: Vec<_> = (1..=100).map(|k| SocketAddr::new(VICTIM, asked.me as u16 * 100 + k)).collect();
        asked.tell(&[], &peers)
    }),
    mode("invented peers by the hundred", |asked| {
        let peer = |k: u32| (Ipv4Addr::from(0x4a00_0000 + asked.me as u32 * 1000 + k), 6881).into();
        asked.tell(&[], &(0..200).map(peer).collect::<Vec<_>>())
    }),
    mode("peers at addresses that cannot be", |asked| {
        let hosts = ["0.0.0.0:1", "127.0.0.1:1", "169.254.1.1:1", "224.0.0.1:1", "240.0.0.1:1", "9.9.9.9:0"];
        asked.tell(&[], &hosts.map(|host| host.parse().unwrap()))
    }),
    mode("values of odd lengths", |asked| {
        let values = Strings::from_raw(b"5:abcde7:abcdefg0:1:x").ok();
        asked.reply(Response { values, ..asked.plain() })
    }),
    mode("values that are no list", |asked| {
        let id = asked.scene.hostile[asked.me].0;
        asked.raw(&[b"d1:rd2:id20:", &id.as_bytes()[..], b"6:valuesd1:ai1eee1:t4:"].concat(), b"1:y1:re")
    }),
    mode("tokens of a kilobyte", |asked| {
        asked.reply(Response { token: Some(&[b't'; 1000]), ..asked.plain() })
    }),
    mode("answers of a read-only node", |asked| {
        let mut bytes = Vec::new();
        let nodes = records(&bogus(asked, 8));
        let body = Body::Response(Response { nodes: Some(&nodes), ..asked.plain() });
        Message { tid: asked.message.tid, version: None, ip: None, read_only: true, body }.encode(&mut bytes);
        vec![(asked.from, bytes)]
    }),
];

/// All is right about these answers but where they come from.
const FROM_ANOTHER_PORT: &str = "answers from another port";

/// Another port of the machine of a hostile node. What the node sends there goes on to the searcher.
fn relay(hostile: SocketAddr) -> SocketAddr {
    SocketAddr::new(hostile.ip(), hostile.port() + 1)
}

const VICTIM: IpAddr = IpAddr::V4(Ipv4Addr::new(70, 1, 2, 3));

impl<'a> Asked<'a> {
    /// An id that is nearer to the target than anybody's: the nearer, the smaller `k`.
    fn near(&self, k: u32) -> Id {
        let mut id = *self.scene.infohash.as_bytes();
        for (byte, other) in id[16..].iter_mut().zip((k + 1).to_be_bytes()) {
            *byte ^= other;
        }
        Id::new(id)
    }

    fn plain(&self) -> Response<'a> {
        Response { token: Some(b"token"), ..Response::new(self.scene.hostile[self.me].0) }
    }

    fn reply(&self, response: Response<'_>) -> Datagrams {
        vec![(self.from, reply(self.message.tid, response))]
    }

    /// A well-formed answer with these nodes and peers.
    fn tell(&self, nodes: &[(Id, SocketAddr)], peers: &[SocketAddr]) -> Datagrams {
        let (nodes, mut values) = (records(nodes), Vec::new());
        peers.iter().for_each(|&peer| put_value(&mut values, peer));
        let values = Strings::from_raw(&values).ok().filter(|values| !values.is_empty());
        self.reply(Response { nodes: Some(&nodes), values, ..self.plain() })
    }

    /// An answer that should not count, with a peer that must never be told.
    fn with_lies(&self, tid: &[u8], id: Id) -> Datagrams {
        self.lie(tid, id, &records(&bogus(self, 8)))
    }

    /// The same, with nothing wrong about it but its `nodes`.
    fn lie_beside(&self, nodes: &[u8]) -> Datagrams {
        self.lie(self.message.tid, self.scene.hostile[self.me].0, nodes)
    }

    fn lie(&self, tid: &[u8], id: Id, nodes: &[u8]) -> Datagrams {
        let mut values = Vec::new();
        put_value(&mut values, LIE);
        let values = Strings::from_raw(&values).ok();
        vec![(self.from, reply(tid, Response { id, nodes: Some(nodes), values, ..self.plain() }))]
    }

    fn raw(&self, before: &[u8], behind: &[u8]) -> Datagrams {
        vec![(self.from, [before, self.message.tid, behind].concat())]
    }
}

/// Told only by answers that do not count.
const LIE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(73, 1, 1, 1)), 666);

/// Nodes near the target where nobody is, each in a network of its own.
fn bogus(asked: &Asked<'_>, count: u32) -> Vec<(Id, SocketAddr)> {
    let at = |k: u32| {
        let n = asked.me as u32 * 2000 + k;
        (asked.near(n), SocketAddr::from((Ipv4Addr::from(0x3c00_0000 + n * 256 + 1), 6881)))
    };
    (0..count).map(at).collect()
}

fn records(nodes: &[(Id, SocketAddr)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(id, addr) in nodes {
        put_node(&mut bytes, &Contact { id, addr: V4::from_socket(addr).unwrap() });
    }
    bytes
}

/// What a searcher went through.
struct Ambush {
    world: World,
    found: Found,
    searcher: usize,
}

fn ambush(mode: &'static Mode) -> Ambush {
    let mut world = World::new(24, Config::default());
    for _ in 0..HONEST {
        world.add_node(&[]);
    }
    for index in 0..HONEST {
        for other in (0..HONEST).filter(|&other| other != index) {
            let addr = world.addr(other);
            world.command(index, Command::AddNode(addr));
        }
    }
    world.run(MINUTE);
    let infohash = world.random_id();
    assert_eq!(world.announce(0, infohash, 4444).stored.len(), HONEST - 1);

    let honest: Vec<_> = (0..HONEST).map(|index| (world.id(index), world.addr(index))).collect();
    let hostile: Vec<_> = (0..mode.hostile)
        .map(|n| {
            let mut id = *infohash.as_bytes();
            let distance = (60_000 - n as u16).to_be_bytes();
            (id[10], id[11]) = (id[10] ^ distance[0], id[11] ^ distance[1]);
            (Id::new(id), World::v4(HONEST + 1 + n))
        })
        .collect();
    // Two honest ones know the way to the others.
    let saved: Vec<_> = hostile.iter().take(HOSTILE).chain(&honest[..2]).copied().collect();
    let searcher = world.add_node(&saved);
    let me = (world.id(searcher), world.addr(searcher));
    let scene = Rc::new(Scene { infohash, honest, hostile, searcher: me });
    for me in 0..mode.hostile {
        let scene = Rc::clone(&scene);
        world.add_actor(Box::new(move |_, from, message| {
            if !matches!(message.body, Body::Query { .. }) {
                return Vec::new();
            }
            (mode.answer)(&Asked { scene: &scene, me, from, message })
        }));
    }
    for &(_, hostile) in &scene.hostile {
        world.add_actor_at(
            relay(hostile),
            Box::new(move |_, from, message| {
                let mut bytes = Vec::new();
                message.encode(&mut bytes);
                if from == hostile { vec![(me.1, bytes)] } else { Vec::new() }
            }),
        );
    }
    let found = world.get_peers(searcher, infohash);
    Ambush { world, found, searcher }
}

/// S24. The peer may be missed in one mode at most; we miss it in none.
#[test]
fn hostile_nodes_of_every_conduct_hide_no_peer_and_aim_us_at_nobody() {
    let mut failures = Vec::new();
    for mode in MODES {
        let Ambush { mut world, found, searcher } = ambush(mode);
        let (queries, sent) = (world.node(searcher).counters().queries_out, world.hosts[searcher].sent);
        let (victim, most) = world.strays.iter().max_by_key(|(_, count)| **count).unzip();
        let most = most.copied().unwrap_or_default();
        let true_peer = SocketAddr::new(World::v4(0).ip(), 4444);
        let fate = format!(
            "{}: {sent} datagrams, {queries} queries, {most} to {victim:?}, {:?}",
            mode.name, found.stats
        );
        println!("{fate} {:?}", found.outcome);
        let good = found.peers.contains(&true_peer)
            && !found.peers.contains(&LIE)
            && matches!(found.outcome, Outcome::Converged | Outcome::OutOfBudget)
            && found.stats.elapsed <= Duration::from_secs(15)
            && found.stats.queries <= 300
            && sent <= 500
            && most <= 20;
        if !good {
            failures.push(fate);
        }
        // It is alive, and knows the honest ones still.
        world.run(MINUTE);
        let stranger = SocketAddr::from(([85, 6, 7, 8], 6881));
        let sent = world.inject(searcher, stranger, &query(Id::new([1; 20]), Query::Ping));
        assert!(!sent.is_empty(), "{}", mode.name);
        let known = world.node(searcher).saved(world.now).remove(0).nodes;
        let honest =
            (0..HONEST).filter(|&index| known.contains(&(world.id(index), world.addr(index)))).count();
        if honest < HONEST {
            failures.push(format!("{}: only {honest} honest nodes are known afterwards", mode.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// That mode does what it is called: the answers come to queries that wait for them, and count as what somebody
/// else sent.
#[test]
fn answers_from_another_port_of_the_nodes_that_were_asked_are_spoofed() {
    let mode = MODES.iter().find(|mode| mode.name == FROM_ANOTHER_PORT).unwrap();
    let Ambush { world, found, searcher } = ambush(mode);
    let counters = world.node(searcher).counters();
    assert!(counters.replies_spoofed >= HOSTILE as u64, "{counters:?}");
    assert_eq!(found.peers, [SocketAddr::new(World::v4(0).ip(), 4444)]);
}
