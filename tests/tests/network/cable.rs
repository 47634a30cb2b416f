//! Two namespaces, a virtual cable between them, and a small internet at the far end.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use btdht::KnownNode;
use btdht::net::{Bind, Dht, Options};
use harness::netns;
use harness::rivals::ready;
use krpc::Id;

/// Where the nodes of the small internet find one another.
pub(crate) const ROUTER: &str = "85.1.0.1:6881";
/// Nodes there, each in a network of its own.
const NODES: u8 = 80;

/// The near end of the cable, in the namespace of the calling thread. The far end lives as long as the
/// process does.
pub(crate) struct Cable {
    /// The nodes of the small internet; they run in the namespace of the far end.
    internet: Vec<Dht>,
    _turn: Turn,
}

/// A test's turn: see [`turn`].
pub(crate) type Turn = MutexGuard<'static, ()>;

/// Waits for the others. What is found again within so many seconds is found by the clock, which eighty
/// nodes of another test on the same two cores would take from it.
pub(crate) fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cable {
    /// Moves the calling thread into a namespace that is joined to the small internet. `None`, said
    /// aloud, where that cannot be done.
    pub(crate) fn lay(test: &str) -> Option<Self> {
        if !ready(test, &[]) {
            return None;
        }
        let turn = turn();
        // `enter` made 85/8 local, which is the far end here.
        ip("route del local 85.0.0.0/8 dev lo");
        let (there, far_end) = channel();
        let (plug, plugged) = channel::<()>();
        let (grown, started) = channel();
        thread::spawn(move || {
            netns::enter().unwrap();
            there.send(thread_id()).unwrap();
            plugged.recv().unwrap();
            ip("addr add 84.0.0.1/24 dev far");
            ip("link set far up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let nodes: Vec<Dht> = (1..=NODES).map(internet_node).collect();
                for node in &nodes[1..] {
                    node.bootstrapped().await.unwrap();
                }
                grown.send(nodes.clone()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        let far_end = far_end.recv().unwrap();
        ip(&format!("link add near type veth peer name far netns {far_end}"));
        let mut cable = Self { internet: Vec::new(), _turn: turn };
        cable.plug("84.0.0.2");
        plug.send(()).unwrap();
        cable.internet = started.recv().unwrap();
        Some(cable)
    }

    /// How many nodes of the small internet have the node at `addr` in their tables, and how many of
    /// them have heard of it since `since`.
    pub(crate) async fn known_and_heard_of(&self, addr: SocketAddr, since: Instant) -> (usize, usize) {
        let (mut known_by, mut heard_by) = (0, 0);
        for node in &self.internet {
            let table = node.table().await.unwrap();
            if let Some(it) = table.iter().find(|known| known.addr == addr) {
                known_by += 1;
                heard_by += usize::from(it.age < since.elapsed());
            }
        }
        (known_by, heard_by)
    }

    /// Those of `known` that still live where they did, under the id that they had: nobody was right to
    /// forget them.
    pub(crate) async fn unchanged(&self, known: &[KnownNode]) -> Vec<(Id, SocketAddr)> {
        let mut homes = Vec::new();
        for node in &self.internet {
            let home = node.stats().await.unwrap().sockets.remove(0).home;
            homes.push((home.id, home.local));
        }
        let known = known.iter().map(|known| (known.id, known.addr));
        known.filter(|node| homes.contains(node)).collect()
    }

    /// Takes the interface down, which takes its routes along.
    pub(crate) fn unplug(&self) {
        ip("link set near down");
    }

    /// Brings the interface up, at this address.
    pub(crate) fn plug(&self, address: &str) {
        ip(&format!("addr replace {address}/24 dev near"));
        ip("link set near up");
        ip("route replace default via 84.0.0.1");
    }

    /// Replaces the address of the interface.
    pub(crate) fn readdress(&self, old: &str, new: &str) {
        ip(&format!("addr del {old}/24 dev near"));
        self.plug(new);
    }
}

fn internet_node(n: u8) -> Dht {
    let bind = Bind { addr: ([85, n, 0, 1], 6881).into(), required: true };
    let bootstrap = if n == 1 { Vec::new() } else { vec![ROUTER.to_owned()] };
    Dht::bind(Options { binds: vec![bind], bootstrap, ..Options::default() }).unwrap()
}

/// The kernel's number of the calling thread: `/proc/thread-self` leads to `PID/task/TID`.
pub(crate) fn thread_id() -> String {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

pub(crate) fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(status.success(), "ip {args}: {status}");
}
