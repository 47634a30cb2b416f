//! S15 (D6): hosts that want into a routing table, by every road. Nobody comes in who does not answer as
//! himself, none of the honest leaves, and of those who do answer there is one at an IP and two of a network
//! in a bucket.

use super::*;

const NODE: usize = 5;

/// A road: what 300 hosts send, three times, and how they answer.
struct Poke {
    name: &'static str,
    addr: fn(usize) -> SocketAddr,
    says: fn(&Scene, usize) -> Vec<u8>,
    answers: Answers,
    /// So many of them at most are in the table afterwards.
    most: usize,
}

/// How a host answers our queries; it says in its own that its id is [`Scene::evil`].
#[derive(Clone, Copy)]
enum Answers {
    /// Nobody is there.
    No,
    As(fn(u32, Id) -> Id),
    WithAnotherTid,
    WithErrors,
}

const HONESTLY: Answers = Answers::As(|_, id| id);

struct Scene {
    own: Id,
    honest: Vec<Id>,
}

impl Scene {
    /// Ids of the attackers: spread over our neighbourhood, where buckets have room.
    fn evil(&self, n: usize) -> Id {
        let mut id = *self.own.as_bytes();
        id[n % 3] ^= 0x80 >> (n % 8);
        id[18..].copy_from_slice(&(n as u16).to_be_bytes());
        Id::new(id)
    }
}

const EVIL: usize = 300;

fn apart(n: usize) -> SocketAddr {
    ([90, (n >> 8) as u8, n as u8, 1], 6881).into()
}

fn read_only(id: Id) -> Vec<u8> {
    let mut bytes = Vec::new();
    let body = Body::Query { id, query: Query::Ping };
    Message { tid: b"aa", version: None, ip: None, read_only: true, body }.encode(&mut bytes);
    bytes
}

/// Queries of all kinds in turn.
fn any_query(id: Id, n: usize) -> Vec<u8> {
    let target = Id::new([n as u8; 20]);
    let kinds = [
        Query::Ping,
        find_node(target),
        get_peers(target),
        Query::AnnouncePeer {
            infohash: target,
            port: 1,
            implied_port: false,
            token: b"12345678",
            seed: false,
        },
        Query::Get { target, seq: None, want: Want::BOTH },
        Query::Put { token: b"12345678", value: b"i1e", signed: None },
        Query::SampleInfohashes { target, want: Want::BOTH },
        Query::Other { method: b"vote", target: None, want: Want::BOTH },
    ];
    query(id, kinds[n % kinds.len()])
}

const POKES: &[Poke] = &[
    Poke {
        name: "silent strangers",
        addr: apart,
        says: |s, n| any_query(s.evil(n), n),
        answers: Answers::No,
        most: 0,
    },
    Poke {
        name: "unsolicited replies",
        addr: apart,
        says: |s, n| {
            reply(&(n as u32).to_be_bytes(), Response { nodes: Some(&[7; 208]), ..Response::new(s.evil(n)) })
        },
        answers: HONESTLY,
        most: 0,
    },
    Poke {
        name: "unsolicited errors",
        addr: apart,
        says: |_, _| b"d1:eli201e1:xe1:t4:aaaa1:y1:ee".to_vec(),
        answers: HONESTLY,
        most: 0,
    },
    Poke {
        name: "read-only nodes",
        addr: apart,
        says: |s, n| read_only(s.evil(n)),
        answers: HONESTLY,
        most: 0,
    },
    Poke {
        name: "our own id",
        addr: apart,
        says: |s, n| any_query(s.own, n),
        answers: Answers::As(|_, id| id),
        most: 0,
    },
    Poke {
        name: "ids of honest nodes",
        addr: apart,
        says: |s, n| any_query(s.honest[n % s.honest.len()], n),
        answers: HONESTLY,
        most: 0,
    },
    Poke {
        name: "addresses that cannot be",
        addr: |n| match n % 4 {
            0 => ([127, 0, 0, n as u8], 6881).into(),
            1 => ([10, 9, n as u8, 1], 6881).into(),
            2 => ([224, 1, n as u8, 1], 6881).into(),
            _ => ([90, 3, n as u8, 1], 0).into(),
        },
        says: |s, n| any_query(s.evil(n), n),
        answers: Answers::No,
        most: 0,
    },
    Poke {
        name: "answers as somebody else",
        addr: apart,
        says: |s, n| any_query(s.evil(n), n),
        answers: Answers::As(|_, id| Id::new(id.as_bytes().map(|byte| byte ^ 1))),
        most: 0,
    },
    Poke {
        name: "answers with another transaction id",
        addr: apart,
        says: |s, n| any_query(s.evil(n), n),
        answers: Answers::WithAnotherTid,
        most: 0,
    },
    Poke {
        name: "errors for answers",
        addr: apart,
        says: |s, n| any_query(s.evil(n), n),
        answers: Answers::WithErrors,
        most: 0,
    },
    Poke {
        name: "another id in each answer",
        addr: apart,
        says: |s, n| any_query(s.evil(n), n),
        answers: Answers::As(|times, id| Id::new(id.as_bytes().map(|byte| byte ^ times as u8))),
        most: 0,
    },
    Poke {
        name: "honest answers from one IP",
        addr: |n| ([90, 5, 5, 5], 1000 + n as u16).into(),
        says: |s, n| any_query(s.evil(n), n),
        answers: HONESTLY,
        most: 1,
    },
    Poke {
        name: "honest answers from one network",
        addr: |n| ([90, 6, 6, (n % 250) as u8 + 1], 1000 + n as u16).into(),
        says: |s, n| any_query(s.evil(n), n),
        answers: HONESTLY,
        // Two in each of the 24 buckets that they aim at.
        most: 48,
    },
    Poke {
        name: "honest answers from everywhere",
        addr: apart,
        says: |s, n| any_query(s.evil(n), n),
        answers: HONESTLY,
        most: EVIL,
    },
];

fn poke(poke: &'static Poke) -> (World, Vec<(Id, SocketAddr)>) {
    let mut world = World::grown(15, 30, Duration::from_secs(60));
    let before = world.node(NODE).saved(world.now).remove(0).nodes;
    let scene = Scene { own: world.id(NODE), honest: before.iter().map(|node| node.0).collect() };
    let addr = world.addr(NODE);
    let mut home = BTreeSet::new();
    for n in 0..EVIL {
        let at = (poke.addr)(n);
        if !matches!(poke.answers, Answers::No) && home.insert(at) {
            let said = Message::decode(&(poke.says)(&scene, n)).ok().and_then(|message| match message.body {
                Body::Query { id, .. } => Some(id),
                _ => None,
            });
            let id = said.unwrap_or_else(|| scene.evil(n));
            world.add_host(&[at], Kind::Actor(conduct(poke.answers, id)));
        }
    }
    for _ in 0..3 {
        for n in 0..EVIL {
            world.inject(NODE, (poke.addr)(n), &(poke.says)(&scene, n));
        }
        world.run(Duration::from_secs(2));
    }
    world.run(Duration::from_secs(20));
    assert_eq!(world.addr(NODE), addr);
    (world, before)
}

fn conduct(answers: Answers, id: Id) -> Box<Conduct> {
    let mut times = 0;
    Box::new(move |_, from, message| {
        if !matches!(message.body, Body::Query { .. }) {
            return Vec::new();
        }
        times += 1;
        let tid = message.tid;
        match answers {
            Answers::No => Vec::new(),
            Answers::As(own) => vec![(from, reply(tid, Response::new(own(times, id))))],
            Answers::WithAnotherTid => vec![(from, reply(&[tid, b"x"].concat(), Response::new(id)))],
            Answers::WithErrors => vec![(from, [b"d1:eli201e1:xe1:t4:", tid, b"1:y1:ee"].concat())],
        }
    })
}

#[test]
fn nobody_enters_by_a_lie_and_nobody_leaves_by_one() {
    for road in POKES {
        let (mut world, before) = poke(road);
        let saved = world.node(NODE).saved(world.now).remove(0).nodes;
        let evil = |addr: &SocketAddr| {
            before.iter().all(|known| known.1 != *addr) && addr.ip().to_string().starts_with("90.")
        };
        let inside = saved.iter().filter(|(_, addr)| evil(addr)).count();
        assert!(inside <= road.most, "{}: {inside} inside", road.name);
        assert!(road.most < EVIL || inside >= 60, "{}: only {inside} inside", road.name);
        let gone = before.iter().filter(|node| !saved.contains(node)).count();
        assert_eq!(gone, 0, "{}: honest nodes are gone", road.name);

        // It is alive, and names no others than those.
        let stranger = SocketAddr::from(([85, 6, 7, 8], 6881));
        for n in 0..16 {
            let target = if n % 2 == 0 { world.id(NODE) } else { world.random_id() };
            let sent = world.inject(NODE, stranger, &query(Id::new([1; 20]), find_node(target)));
            let answer = sent.iter().map(|bytes| Message::decode(bytes).unwrap()).find_map(|message| {
                if let Body::Response(response) = message.body { response.nodes } else { None }
            });
            let named = krpc::compact::nodes::<krpc::compact::V4>(answer.expect("an answer"));
            for node in named {
                let addr = krpc::compact::Address::to_socket(node.addr);
                assert!(saved.contains(&(node.id, addr)), "{}: {addr} is named", road.name);
            }
        }
        // Nothing grew but what may: 30 KiB for 500 nodes.
        let stats = world.node(NODE).stats(world.now).remove(0);
        assert!(
            stats.nodes <= 128 + 64 + 32 + 16 + 160 * 8 && stats.candidates <= 4 * stats.buckets,
            "{stats:?}"
        );
        assert!(world.node(NODE).store().is_empty());
    }
}

/// The same under ids of nodes that were silent for as long as makes them questionable, and that belong to no
/// address (BEP 42): whoever had the id is asked, and stays as long as it answers.
#[test]
fn nobody_takes_the_id_of_a_questionable_node_that_answers() {
    let mut world =
        World::new(16, Config { questionable_after: Duration::from_secs(2), ..Config::default() });
    let mut honest = Vec::new();
    for _ in 0..20 {
        let id = world.random_id();
        let host = world.add_actor(conduct(HONESTLY, id));
        honest.push((id, world.addr(host)));
    }
    let node = world.add_node(&honest);
    world.run(Duration::from_secs(60));
    let known = |world: &World| world.node(node).saved(world.now).remove(0).nodes;
    assert!(honest.iter().all(|node| known(&world).contains(node)));
    let doubtful = world.node(node).table(world.now);
    let doubtful = doubtful.iter().filter(|known| known.standing == crate::Standing::Questionable).count();
    assert!(doubtful >= 10, "{doubtful} of 20 are questionable");

    for n in 0..EVIL {
        world.add_host(&[apart(n)], Kind::Actor(conduct(HONESTLY, honest[n % 20].0)));
    }
    let mut pinged = 0;
    for n in 0..EVIL {
        let sent = world.inject(node, apart(n), &any_query(honest[n % 20].0, n));
        pinged += sent.iter().filter(|bytes| bytes.starts_with(b"d1:ad2:id")).count();
        world.run(Duration::from_millis(50));
    }
    world.run(Duration::from_secs(20));
    assert!(pinged >= 100, "{pinged} could prove that they answer");
    assert!(honest.iter().all(|node| known(&world).contains(node)), "an honest node is gone");
    assert_eq!(known(&world).len(), 20);

    // Who has moved is believed once its old address is silent.
    let (id, old) = honest[7];
    let new = SocketAddr::from(([91, 1, 1, 1], 6881));
    world.kill(7);
    world.add_host(&[new], Kind::Actor(conduct(HONESTLY, id)));
    world.run(Duration::from_secs(3));
    world.command(node, Command::AddNode(new));
    world.run(Duration::from_secs(30));
    assert!(known(&world).contains(&(id, new)) && !known(&world).contains(&(id, old)));
}
