//! Lookups among hostile nodes: what the program makes of them. The conducts that the core withstands, on
//! virtual time, are in `dht/src/world/modes.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use krpc::compact::{Address as _, Contact, V4, put_node};
use krpc::{Body, Id, Message, Response};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

use crate::harness::{Finished, Home, INFOHASH, Loopback, run};

/// So few that each of them is told of the peer, the one that the lookup starts from among them.
const HONEST: usize = 6;
/// Nodes that each of the hostile ones names.
const NAMED: usize = 3;
/// Most queries of one lookup, of which a few are kept for the tokens of an announce.
const BUDGET: u64 = 300;

/// Hostile nodes on loopback, each of which names others that are nearer still: they begin to exist when
/// they are named, so that there is no end to them.
struct Lure {
    chain: Arc<Chain>,
    /// Behind the nodes, which end in it.
    _runtime: Runtime,
}

/// The nodes that there are, the farthest first.
struct Chain {
    target: Id,
    met: Mutex<Vec<SocketAddr>>,
}

impl Lure {
    fn new(target: Id) -> Self {
        let runtime = Runtime::new().unwrap();
        let chain = Arc::new(Chain { target, met: Mutex::default() });
        let entered = runtime.enter();
        chain.reach(1);
        drop(entered);
        Self { chain, _runtime: runtime }
    }

    /// The first one.
    fn entrance(&self) -> SocketAddr {
        self.chain.met.lock().unwrap()[0]
    }

    /// Whether one of them is at `addr`.
    fn has(&self, addr: &str) -> bool {
        self.chain.met.lock().unwrap().contains(&addr.parse().unwrap())
    }
}

impl Chain {
    /// Makes new nodes until there are so many, in the runtime of the caller.
    fn reach(self: &Arc<Self>, count: usize) {
        let mut met = self.met.lock().unwrap();
        while met.len() < count {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let n = met.len();
            met.push(socket.local_addr().unwrap());
            tokio::spawn(Arc::clone(self).serve(n, UdpSocket::from_std(socket).unwrap()));
        }
    }

    /// Is node `n`, until the runtime ends.
    async fn serve(self: Arc<Self>, n: usize, socket: UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            if let Some(answer) = self.answer(n, &buffer[..len]) {
                let _ = socket.send_to(&answer, from).await;
            }
        }
    }

    /// The id of node `n`: nearer to the target than anybody's whose id is left to chance, and than those
    /// before it.
    fn id(&self, n: usize) -> Id {
        let mut id = *self.target.as_bytes();
        let distance = (u16::MAX - u16::try_from(n).unwrap()).to_be_bytes();
        id[10] ^= distance[0];
        id[11] ^= distance[1];
        Id::new(id)
    }

    /// What node `n` answers, if this is a query.
    fn answer(self: &Arc<Self>, n: usize, datagram: &[u8]) -> Option<Vec<u8>> {
        let query = Message::decode(datagram).ok()?;
        if !matches!(query.body, Body::Query { .. }) {
            return None;
        }
        self.reach(n + 1 + NAMED);
        let mut nodes = Vec::new();
        for next in n + 1..=n + NAMED {
            let addr = V4::from_socket(self.met.lock().unwrap()[next]).unwrap();
            put_node(&mut nodes, &Contact { id: self.id(next), addr });
        }
        let response = Response { nodes: Some(&nodes), token: Some(b"lure"), ..Response::new(self.id(n)) };
        let body = Body::Response(response);
        let mut reply = Vec::new();
        Message { tid: query.tid, version: None, ip: None, read_only: false, body }.encode(&mut reply);
        Some(reply)
    }
}

/// Runs a lookup that starts from an honest node and a hostile one, and is told for programs.
fn run_among(honest: &Loopback, lure: &Lure, verb: &str) -> Finished {
    let (honest, hostile) = (honest.router(), lure.entrance().to_string());
    let local = ["--json", "--bind", "127.0.0.1", "--allow-local"];
    Home::new()
        .run(&[&[verb, INFOHASH, "--bootstrap", &honest, "--bootstrap", &hostile], &local[..]].concat())
}

/// Checks that a lookup was ended by its budget of queries, which is no failure.
#[track_caller]
fn expect_out_of_budget(finished: Finished) -> Finished {
    let finished = finished.expect_code(0);
    let done = finished.objects().pop().unwrap();
    assert_eq!((&done["event"], &done["outcome"]), (&"done".into(), &"out_of_budget".into()), "{done}");
    let queries = done["queries"].as_u64().unwrap();
    assert!((BUDGET - BUDGET / 6..=BUDGET).contains(&queries), "{done}");
    finished
}

// S24, S27
#[test]
fn lookups_that_are_lured_until_their_budget_is_spent_tell_what_they_found_and_exit_with_0() {
    let honest = Loopback::new(HONEST);
    let told = run(&["announce", INFOHASH, "--peer-port", "7777"], &honest.router()).expect_code(0);
    assert_eq!(told.stdout.lines().count(), HONEST, "{told:#?}");
    let lure = Lure::new(INFOHASH.parse().unwrap());

    let found = expect_out_of_budget(run_among(&honest, &lure, "get-peers")).objects();
    let peers: Vec<_> = found.iter().filter(|object| object["event"] == "peer").collect();
    assert_eq!(peers.len(), 1, "{found:#?}");
    assert_eq!(peers[0]["addr"], "127.0.0.1:7777");
    let teller = peers[0]["node"].as_str().unwrap();
    assert!(honest.nodes().any(|(_, addr)| addr.to_string() == teller), "{teller}");

    let found = expect_out_of_budget(run_among(&honest, &lure, "find-node")).objects();
    let nodes: Vec<_> = found.iter().filter(|object| object["event"] == "node").collect();
    assert_eq!(nodes.len(), 8, "{found:#?}");
    // They are the nearest that it has come to, and they do answer.
    assert!(nodes.iter().all(|node| lure.has(node["addr"].as_str().unwrap())), "{nodes:#?}");
}
