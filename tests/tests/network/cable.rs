//! Two namespaces, a virtual cable between them, and a small internet at the far end.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use btdht::KnownNode;
use btdht::net::{Bind, Dht, Options};
use harness::process::eventually;
use harness::rivals::ready;
use krpc::Id;
use tokio::sync::oneshot;

use crate::beyond::{Beyond, assign, ip, withdraw};

/// Nodes in the small internet, each in a network of its own.
const NODES: u8 = 80;
/// The near end.
const NEAR: &str = "near";

/// The address family that is spoken over a cable: nobody has an address of the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    V4,
    /// All of it in the addresses for documentation, which are ordinary ones to a node.
    V6,
}

impl Net {
    /// An address on the cable: 1 is the far end, the others are free.
    pub(crate) fn host(self, n: u8) -> String {
        match self {
            Self::V4 => format!("84.0.0.{n}"),
            Self::V6 => format!("2001:db8:84::{n:x}"),
        }
    }

    /// The same with a port.
    pub(crate) fn at(self, n: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.host(n).parse().unwrap(), port)
    }

    /// All addresses of the machine.
    pub(crate) fn anywhere(self, port: u16) -> SocketAddr {
        let ip = match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(ip, port)
    }

    /// Where the nodes of the small internet find one another.
    pub(crate) fn router(self) -> String {
        self.node(1).to_string()
    }

    /// Node `n` of the small internet.
    fn node(self, n: u8) -> SocketAddr {
        match self {
            Self::V4 => ([85, n, 0, 1], 6881).into(),
            Self::V6 => ([0x2001, 0xdb8, 0x8500 + u16::from(n), 0, 0, 0, 0, 1], 6881).into(),
        }
    }
}

/// A cable from the namespace of the calling thread to that of a small internet, which ends with it.
pub(crate) struct Cable {
    net: Net,
    /// The nodes of the small internet, the router first; they run in the namespace of the far end.
    internet: Vec<Dht>,
    _end: oneshot::Sender<()>,
    far_end: Beyond,
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
    pub(crate) fn lay(net: Net, test: &str) -> Option<Self> {
        if !ready(test, &[]) {
            return None;
        }
        let turn = turn();
        // `enter` made 85/8 local, which is the far end here.
        ip("route del local 85.0.0.0/8 dev lo");
        let far_end = Beyond::new();
        let (internet, end) = far_end.run(move || small_internet(net));
        let cable = Self { net, internet, _end: end, far_end, _turn: turn };
        cable.insert(&net.host(2));
        // The kernel says so up to a second later. Of an interface that is not up yet a node would learn as
        // of one that comes back, and bind its socket anew, which costs what waits in the old one.
        eventually("the interface is up", || cable.shown().contains(" state UP ").then_some(()));
        Some(cable)
    }

    /// How many nodes of the small internet have this node in their tables, and how many of
    /// them have heard of it since `since`. The router does not count: nobody takes it into a table, so
    /// that nobody pings it, and a node that finds those that it knew asks no router (DECISIONS.md 13).
    pub(crate) async fn known_and_heard_of(
        &self,
        (id, addr): (Id, SocketAddr),
        since: Instant,
    ) -> (usize, usize) {
        let (mut known_by, mut heard_by) = (0, 0);
        for node in &self.internet[1..] {
            let table = node.table().await.unwrap();
            if let Some(it) = table.iter().find(|known| (known.id, known.addr) == (id, addr)) {
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
        assign(address, NEAR);
        ip("link set near up");
        ip(&match self.net {
            Net::V4 => format!("route replace default via {}", self.net.host(1)),
            Net::V6 => format!("-6 route replace default via {}", self.net.host(1)),
        });
    }

    /// Takes the interface out of the machine, and its addresses and routes with it.
    pub(crate) fn remove(&self) {
        ip("link del near");
    }

    /// Puts a new interface into the machine, at this address.
    pub(crate) fn insert(&self, address: &str) {
        self.far_end.lay_cable();
        let far = self.net.host(1);
        self.far_end.run(move || {
            assign(&far, "far");
            ip("link set far up");
        });
        self.plug(address);
    }

    /// Replaces the address of the interface.
    pub(crate) fn readdress(&self, old: &str, new: &str) {
        withdraw(old, NEAR);
        self.plug(new);
    }

    /// The kernel's number of the interface, which no other one has had.
    pub(crate) fn index(&self) -> u32 {
        self.shown().split(':').next().unwrap().parse().unwrap()
    }

    /// What the kernel says of the interface.
    fn shown(&self) -> String {
        let shown = Command::new("ip").args(["-oneline", "link", "show", NEAR]).output().unwrap().stdout;
        String::from_utf8(shown).unwrap()
    }
}

/// Starts the nodes in the namespace of the calling thread; they end with what is returned beside them.
fn small_internet(net: Net) -> (Vec<Dht>, oneshot::Sender<()>) {
    if net == Net::V6 {
        // `enter` made 85/8 local for IPv4. A socket of IPv6 can be bound to addresses that are assigned,
        // to others only where /proc/sys can be written.
        let addresses: String =
            (1..=NODES).map(|n| format!("addr add {}/128 dev lo nodad\n", net.node(n).ip())).collect();
        ip_batch(&addresses);
    }
    let (grown, started) = channel();
    let (end, ended) = oneshot::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let nodes: Vec<Dht> = (1..=NODES).map(|n| internet_node(net, n)).collect();
            for node in &nodes[1..] {
                node.bootstrapped().await.unwrap();
            }
            grown.send(nodes).unwrap();
            let _ = ended.await;
        });
    });
    (started.recv().unwrap(), end)
}

fn internet_node(net: Net, n: u8) -> Dht {
    let bind = Bind { addr: net.node(n), required: true };
    let bootstrap = if n == 1 { Vec::new() } else { vec![net.router()] };
    Dht::bind(Options { binds: vec![bind], bootstrap, ..Options::default() }).unwrap()
}

/// Does what stands in the lines.
fn ip_batch(lines: &str) {
    let mut command = Command::new("ip");
    let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "ip -batch: {lines}");
}
