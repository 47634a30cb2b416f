//! [`Testnet`]: a DHT of many real nodes on loopback in one process, for integrators' tests and for
//! trying things out without a network.
//!
//! Every node is the shipping one behind a UDP socket of its own; all of them are tasks of the runtime that
//! they are started in, with no thread each. The network starts grown: routing tables are filled before the
//! first datagram, each bucket with nodes drawn by the seed from all that belong there, so that hundreds of
//! nodes are ready at once and no storm of pings loses what a test wants to see.
//!
//! ```
//! use btdht::Announce;
//! use btdht::net::Dht;
//! use btdht::testnet::Testnet;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), btdht::net::Error> {
//! let net = Testnet::new(20).await?;
//! let infohash = krpc::Id::new([7; 20]);
//! let announce = Announce { port: 6881, implied: false, seed: false };
//! net.nodes()[3].get_peers(infohash, Some(announce), false).await?.finish().await;
//!
//! // Anything that speaks the protocol can join at `net.bootstrap()`; this is a node of ours.
//! let guest = Dht::bind(net.guest())?;
//! let mut peers = guest.get_peers(infohash, None, false).await?.peers();
//! assert_eq!(peers.next().await, Some(([127, 0, 0, 1], 6881).into()));
//! # Ok(())
//! # }
//! ```
//!
//! Lines that take time and lose datagrams, and nodes that leave:
//!
//! ```
//! use std::time::Duration;
//!
//! use btdht::testnet::{Options, Testnet};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), btdht::net::Error> {
//! let ms = Duration::from_millis;
//! let options = Options { nodes: 30, seed: 7, latency: ms(1)..=ms(4), loss: 5, ..Options::default() };
//! let mut net = Testnet::start(options).await?;
//! for index in 0..5 {
//!     net.stop(index).await;
//! }
//! assert_eq!(net.running().count(), 25);
//! let target = krpc::Id::new([9; 20]);
//! let closest = net.nodes()[20].find_node(target, false).await?.finish().await;
//! assert!(closest.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! A program without a runtime makes one that lives as long as the network does, and keeps it running in
//! threads of its own: `tokio::runtime::Runtime::new()?` and `runtime.block_on(Testnet::new(20))`.

mod options;
mod plan;
#[cfg(test)]
mod reality;
#[cfg(test)]
mod simulated;
mod topology;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::task::JoinHandle;

pub use self::options::Options;
use self::plan::Plan;
use crate::Config;
use crate::net::udp::{Batching, UdpSocket};
use crate::net::{self, Bind, Clock, Dht, Error, Parts, Port, State};

/// Nodes on loopback. When it is dropped all of them end, whoever else holds handles.
#[derive(Debug)]
pub struct Testnet {
    nodes: Vec<Dht>,
    /// Of each node; none once it was stopped.
    tasks: Vec<Option<JoinHandle<()>>>,
    ip: IpAddr,
}

impl Testnet {
    /// A network of so many nodes, with neither latency nor loss. See [`Testnet::start`].
    ///
    /// # Errors
    /// See [`Testnet::start`].
    ///
    /// # Panics
    /// See [`Testnet::start`].
    pub async fn new(nodes: usize) -> Result<Self, Error> {
        Self::start(Options { nodes, ..Options::default() }).await
    }

    /// A network as `options` say, when all of its nodes answer.
    ///
    /// # Errors
    /// [`Error::Bind`] for a first port that is busy, and when the system has no more ports or descriptors:
    /// each node takes one of either.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let ip: IpAddr = if options.ipv6 { Ipv6Addr::LOCALHOST.into() } else { options.ipv4.into() };
        let sockets = bind(ip, &options)?;
        let plan = Plan::new(&options, sockets.iter().map(UdpSocket::local_addr).collect());
        let started = (0..).zip(sockets).map(|(number, socket)| start(&plan, number, socket));
        let (nodes, tasks): (Vec<_>, Vec<_>) = started.map(|(dht, task)| (dht, Some(task))).unzip();
        for node in &nodes {
            // Whoever answers this has begun to receive.
            node.stats().await?;
        }
        Ok(Self { nodes, tasks, ip })
    }

    /// Handles of all nodes, stopped ones among them.
    pub fn nodes(&self) -> &[Dht] {
        &self.nodes
    }

    /// Handles of the nodes that were not stopped.
    pub fn running(&self) -> impl Iterator<Item = &Dht> {
        self.nodes.iter().zip(&self.tasks).filter(|(_, task)| task.is_some()).map(|(node, _)| node)
    }

    /// The address to bootstrap from: that of the first node that runs. A node that is given it as its
    /// router asks it, but never puts it into its routing table (BEP 5).
    pub fn bootstrap(&self) -> impl ExactSizeIterator<Item = SocketAddr> {
        let first = self.running().next();
        first.into_iter().flat_map(Dht::local_addrs).collect::<Vec<_>>().into_iter()
    }

    /// How a further node, which is none of this network's, joins it: for [`Dht::bind`]. Its datagrams take
    /// as long and are lost as often as everybody's, both ways together where the answer leaves.
    pub fn guest(&self) -> net::Options {
        net::Options {
            binds: vec![Bind { addr: (self.ip, 0).into(), required: true }],
            shards: 1,
            lingers: false,
            config: Config { allow_local: true, ..Config::default() },
            bootstrap: self.bootstrap().map(|addr| addr.to_string()).collect(),
            state: State::Nothing,
        }
    }

    /// Ends a node, as if its process had been killed: nothing is said to anybody, and its port is free
    /// when this returns. Other nodes find out when it does not answer.
    ///
    /// # Panics
    /// When there is no node with that index.
    pub async fn stop(&mut self, index: usize) {
        if let Some(task) = self.tasks[index].take() {
            task.abort();
            // What it says is that it was cancelled.
            let _ = task.await;
        }
    }
}

impl Drop for Testnet {
    fn drop(&mut self) {
        self.tasks.iter().flatten().for_each(JoinHandle::abort);
    }
}

/// Starts a node as a task.
fn start(plan: &Plan, number: u32, socket: UdpSocket) -> (Dht, JoinHandle<()>) {
    let clock = Clock::start();
    Dht::start_grown(Parts {
        node: plan.node(number, clock.now()).into(),
        ids: vec![plan.id(number)],
        ports: vec![Port::new(0, socket).behind(plan.link(number))],
        config: plan.config().clone(),
        seeds: plan.seeds(number),
        clock,
    })
}

/// A socket for each node.
fn bind(ip: IpAddr, options: &Options) -> Result<Vec<UdpSocket>, Error> {
    let ports = std::iter::once(options.port).chain(std::iter::repeat(0));
    let bind = |port| {
        let addr = SocketAddr::new(ip, port);
        UdpSocket::bind(addr, Batching::Native).map_err(|source| Error::Bind { addr, source })
    };
    ports.take(options.nodes.max(1)).map(bind).collect()
}

#[cfg(test)]
mod tests;
