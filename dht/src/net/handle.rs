//! [`Dht`]: a cloneable handle of a running node. The node lives in one task; handles talk to it by
//! a bounded channel and wait when it is full.

mod items;
mod lookup;
mod orders;
mod recording;
mod swarms;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use krpc::{Id, Want};
use tokio::sync::{mpsc, oneshot, watch};

use super::keeper::StateKeeper;
use super::moment::Moment;
use super::persist::{Saved, StateFolder};
use super::port::Port;
use super::resolve::{Families, Routers};
use super::shard::{Request, Shard, Sink, Stats};
use super::subscribers::{Events, Topic, subscription};
use super::udp::{self, Batching, UdpSocket};
use super::{Bind, Clock, Error, interfaces};
use crate::replay::{Origin, Record, Recorded};
use crate::standing::Pace;
use crate::store::{Counts, Damaged};
use crate::{Announce, Command, Config, Event, Home, KnownNode, Question, Rng, Seeds, Time};

pub use self::items::PutReport;
pub use self::lookup::{Lookup, Peers};
pub use self::orders::AnnounceReport;

/// Requests that wait for the task; a caller beyond them waits itself.
const REQUESTS: usize = 256;

/// How to run a node.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Addresses to listen on; each has a node id of its own.
    pub binds: Vec<Bind>,
    /// The numbers of the core.
    pub config: Config,
    /// Routers, `host:port`, in order of preference.
    pub bootstrap: Vec<String>,
    /// What is kept between runs.
    pub state: State,
}

impl Options {
    /// A node on 127.0.0.1 at any free port that accepts local addresses and keeps nothing: for tests
    /// and for trying things out without a network.
    pub fn loopback(bootstrap: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            binds: vec![Bind { addr: ([127, 0, 0, 1], 0).into(), required: true }],
            config: Config { allow_local: true, ..Config::default() },
            bootstrap: bootstrap.into_iter().map(|addr| addr.to_string()).collect(),
            state: State::Nothing,
        }
    }
}

/// What a node keeps between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    #[default]
    Nothing,
    /// Start from the nodes in this folder, whoever holds it, under a fresh id; write nothing.
    Read(PathBuf),
    /// Hold this folder: start from its ids and nodes, save every minute and at the end.
    Keep(PathBuf),
}

/// A handle of a running node. When the last clone is dropped the node saves its state and stops.
#[derive(Clone, Debug)]
pub struct Dht {
    requests: mpsc::Sender<Request>,
    bootstrapped: watch::Receiver<Option<usize>>,
    ready: watch::Receiver<bool>,
    ids: watch::Receiver<Vec<Id>>,
    shared: Arc<Shared>,
}

/// A handle that does not keep the node running.
#[derive(Clone, Debug)]
struct WeakDht {
    requests: mpsc::WeakSender<Request>,
    bootstrapped: watch::Receiver<Option<usize>>,
    ready: watch::Receiver<bool>,
    ids: watch::Receiver<Vec<Id>>,
    shared: Arc<Shared>,
}

/// What never changes.
#[derive(Debug)]
struct Shared {
    locals: Vec<SocketAddr>,
    clock: Clock,
    paces: Paces,
    /// Of the standing orders.
    seeds: Seeds,
    tickets: AtomicU64,
    /// Events that one lookup can produce, which is how long its channel is.
    events: usize,
}

/// How often each kind of standing order has a round.
#[derive(Clone, Copy, Debug)]
struct Paces {
    announces: Pace,
    items: Pace,
    keys: Pace,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answered.
    pub from: SocketAddr,
    /// The whole datagram, as it came.
    pub bytes: Vec<u8>,
    /// Round-trip time.
    pub rtt: Duration,
}

impl Dht {
    /// Binds the sockets and starts the node as a task of the current tokio runtime. Reads the state
    /// folder, which blocks for as long as the disk takes.
    ///
    /// # Errors
    /// A busy port or a missing required address, a state folder in use or refused by the disk, a
    /// router that is not `host:port`. Names that do not resolve are no error: they are tried on.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn bind(options: Options) -> Result<Self, Error> {
        Self::bind_recorded(options, None)
    }

    /// Like [`Dht::bind`]; everything that the node is given and that it sends goes to `records`,
    /// until the node has stopped. When that channel is full the recording ends, with
    /// [`Record::End`] saying so; the node goes on.
    ///
    /// # Errors
    /// See [`Dht::bind`].
    ///
    /// # Panics
    /// See [`Dht::bind`], and when the channel is full already.
    pub fn bind_recorded(options: Options, records: Option<mpsc::Sender<Record>>) -> Result<Self, Error> {
        let clock = Clock::start();
        let now = clock.now();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(Error::Random)?;
        let seeds = Seeds(seed);
        let mut rng = Rng::new(seeds.derive("shell"));

        let (folder, saved) = match &options.state {
            State::Nothing => (None, Saved::default()),
            State::Read(path) => (None, Saved::read(path)),
            State::Keep(path) => {
                let folder = StateFolder::open(path)?;
                let saved = folder.read();
                (Some(folder), saved)
            }
        };
        let sockets = bind_all(&options.binds)?;
        let homes = homes(&sockets, &saved, folder.is_some(), &mut rng);
        let families = Families {
            ipv4: homes.iter().any(|home| home.local.is_ipv4()),
            ipv6: homes.iter().any(|home| home.local.is_ipv6()),
        };
        let routers = Routers::new(&options.bootstrap, families)?;

        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (announcer, bootstrapped) = watch::channel(None);
        let knows_somebody = options.bootstrap.is_empty() || homes.iter().any(|home| !home.saved.is_empty());
        let (readiness, ready) = watch::channel(knows_somebody);
        let (changing, ids) = watch::channel(homes.iter().map(|home| home.id).collect());
        let shared = Shared {
            locals: homes.iter().map(|home| home.local).collect(),
            clock,
            paces: Paces {
                announces: Pace::of_announces(&options.config),
                items: Pace::of_items(&options.config),
                keys: Pace::of_keys(&options.config),
            },
            seeds: seeds.derive("orders"),
            tickets: AtomicU64::new(0),
            events: events_of_a_lookup(&options.config),
        };
        let origin = Origin { seeds: seeds.derive("node"), config: options.config, homes, at: now };
        let is_recorded = records.is_some();
        let mut node = Recorded::new(origin, records.map(recording::tap));
        let state = folder.map(|folder| {
            let loaded = restored(&mut node, &folder, now);
            let keeper = StateKeeper::new(folder, saved, now);
            // Who starts without what is stored must not write over it.
            if is_recorded { keeper } else { keeper.with_store(loaded, now) }
        });
        let shard = Shard {
            node,
            clock,
            ports: (0..).zip(sockets).map(|(index, socket)| Port::new(index, socket)).collect(),
            requests: inbox,
            bootstrapped: announcer,
            ready: readiness,
            ids: changing,
            state,
            has_routers: !options.bootstrap.is_empty(),
        };
        let known = routers.addresses();
        if !known.is_empty() {
            requests.try_send(Request::Tell(Command::Routers(known))).expect("the channel is new");
        }
        tokio::spawn(shard.run());
        tokio::spawn(interfaces::watch(requests.downgrade()));
        tokio::spawn(keep_resolving(routers, rng, requests.downgrade()));
        Ok(Self { requests, bootstrapped, ready, ids, shared: Arc::new(shared) })
    }

    /// Looks for peers of `infohash`, and announces to the closest nodes if asked to.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn get_peers(
        &self,
        infohash: Id,
        announce: Option<Announce>,
        trace: bool,
    ) -> Result<Lookup, Error> {
        self.start(Command::GetPeers { infohash, announce, trace }).await
    }

    /// Looks for the closest nodes to `target`, which are in [`Event::Done`].
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn find_node(&self, target: Id, trace: bool) -> Result<Lookup, Error> {
        self.start(Command::FindNode { target, trace }).await
    }

    /// Asks one address one question and waits for the answer; `None` when there is none in time.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn ask(&self, to: SocketAddr, question: Question) -> Result<Option<Answer>, Error> {
        let mut lookup = self.start(Command::Ask { to, question }).await?;
        while let Some(event) = lookup.next().await {
            if let Event::Answered { from, answer, .. } = event {
                return Ok(answer.map(|(bytes, rtt)| Answer { from, bytes, rtt }));
            }
        }
        Err(Error::Stopped)
    }

    /// Pings one address; see [`Dht::ask`].
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn ping(&self, to: SocketAddr) -> Result<Option<Answer>, Error> {
        self.ask(to, Question::Ping).await
    }

    /// Asks one address for nodes close to `target`; see [`Dht::ask`].
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn ask_nodes(&self, to: SocketAddr, target: Id, want: Want) -> Result<Option<Answer>, Error> {
        self.ask(to, Question::FindNode(target, want)).await
    }

    /// Names an address that may be a DHT node. Nothing is heard of it again.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn add_node(&self, addr: SocketAddr) -> Result<(), Error> {
        self.send(Request::Tell(Command::AddNode(addr))).await
    }

    /// Hears of what concerns the whole node, or of peers that are announced to it, from now on.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    ///
    /// ```
    /// # use btdht::net::{Dht, Options, Topic};
    /// # use btdht::{Announce, Event};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), btdht::net::Error> {
    /// let first = Dht::bind(Options::loopback([]))?;
    /// let mut announces = first.subscribe(Topic::Announces).await?;
    /// let second = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// let announce = Announce { port: 7777, implied: false, seed: true };
    /// second.get_peers(krpc::Id::new([7; 20]), Some(announce), false).await?.finish().await;
    /// let event = announces.next().await.expect("the node runs");
    /// let Event::Announced { infohash, peer, seed } = event else { panic!("not subscribed to") };
    /// assert_eq!((infohash, peer.port(), seed), (krpc::Id::new([7; 20]), 7777, true));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(&self, topic: Topic) -> Result<Events, Error> {
        let (subscriber, events) = subscription(topic);
        self.send(Request::Subscribe(subscriber)).await?;
        Ok(events)
    }

    /// A copy of the routing tables: everybody in them, home by home, farthest bucket first.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn table(&self) -> Result<Vec<KnownNode>, Error> {
        let (reply, table) = oneshot::channel();
        self.send(Request::Table(reply)).await?;
        table.await.map_err(|_| Error::Stopped)
    }

    /// Forgets the node at `addr`. It comes back when it is heard of again.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn remove_node(&self, addr: SocketAddr) -> Result<(), Error> {
        self.send(Request::Tell(Command::RemoveNode(addr))).await
    }

    /// The known nodes nearest to `target`, without asking anybody: at most `count` (and at most 20) of
    /// each socket, nearest first. [`Dht::find_node`] asks the network.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn closest(&self, target: Id, count: usize) -> Result<Vec<(Id, SocketAddr)>, Error> {
        let (reply, closest) = oneshot::channel();
        self.send(Request::Closest(target, count, reply)).await?;
        closest.await.map_err(|_| Error::Stopped)
    }

    /// The addresses bound, one per socket.
    pub fn local_addrs(&self) -> impl ExactSizeIterator<Item = SocketAddr> {
        self.shared.locals.iter().copied()
    }

    /// The node ids, one per socket. They change when others agree that our address is another than was
    /// thought (BEP 42); [`Event::ExternalAddress`] tells.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = Id> {
        self.ids.borrow().clone().into_iter()
    }

    /// A copy of the counters.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn stats(&self) -> Result<Stats, Error> {
        let (reply, stats) = oneshot::channel();
        self.send(Request::Stats(reply)).await?;
        stats.await.map_err(|_| Error::Stopped)
    }

    /// Waits until the first bootstrap is complete: the number of nodes known then.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn bootstrapped(&self) -> Result<usize, Error> {
        let mut bootstrapped = self.bootstrapped.clone();
        let nodes = *bootstrapped.wait_for(Option::is_some).await.map_err(|_| Error::Stopped)?;
        nodes.ok_or(Error::Stopped)
    }

    /// Waits until the node knows somebody to ask: a router whose name resolved, or a saved node. At
    /// once when no router was named. A lookup that starts earlier ends with nobody to ask.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn ready(&self) -> Result<(), Error> {
        self.ready.clone().wait_for(|ready| *ready).await.map(drop).map_err(|_| Error::Stopped)
    }

    /// Saves the state and stops the node, for all clones.
    ///
    /// # Errors
    /// [`Error::State`] when the state could not be saved, [`Error::Stopped`] when it had stopped.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let (reply, done) = oneshot::channel();
        self.send(Request::Shutdown(reply)).await?;
        done.await.map_err(|_| Error::Stopped)?
    }

    /// Runs `command`; its events come from the [`Lookup`], which is empty for a command that has
    /// none.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn start(&self, command: Command) -> Result<Lookup, Error> {
        let ticket = self.shared.tickets.fetch_add(1, Ordering::Relaxed);
        let (events, receiver) = mpsc::channel(self.shared.events);
        let last = events.clone().try_reserve_owned().expect("the channel is new");
        self.send(Request::Start { command, sink: Sink { ticket, events, last } }).await?;
        Ok(Lookup { events: receiver, ticket, requests: self.requests.downgrade(), ended: false })
    }

    async fn send(&self, request: Request) -> Result<(), Error> {
        self.requests.send(request).await.map_err(|_| Error::Stopped)
    }

    fn downgrade(&self) -> WeakDht {
        let Self { bootstrapped, ready, ids, shared, .. } = self.clone();
        WeakDht { requests: self.requests.downgrade(), bootstrapped, ready, ids, shared }
    }
}

impl WeakDht {
    /// Runs `command` once there is somebody to ask; `None` when the node has stopped.
    async fn start(&self, command: Command) -> Option<Lookup> {
        self.ready.clone().wait_for(|ready| *ready).await.ok()?;
        self.upgrade()?.start(command).await.ok()
    }

    fn upgrade(&self) -> Option<Dht> {
        let Self { bootstrapped, ready, ids, shared, .. } = self.clone();
        Some(Dht { requests: self.requests.upgrade()?, bootstrapped, ready, ids, shared })
    }
}

impl Shared {
    /// A generator for one more standing order.
    fn rng(&self) -> Rng {
        let nth = self.tickets.fetch_add(1, Ordering::Relaxed);
        Rng::new(self.seeds.derive(&nth.to_string()))
    }
}

/// Binds every address that the machine has.
fn bind_all(binds: &[Bind]) -> Result<Vec<UdpSocket>, Error> {
    if binds.len() > usize::from(u8::MAX) {
        return Err(Error::TooManyAddresses);
    }
    let mut sockets = Vec::new();
    for &Bind { addr, required } in binds {
        match UdpSocket::bind(addr, Batching::Native) {
            Ok(socket) => {
                let buffer = socket.receive_buffer().unwrap_or(0);
                tracing::debug!(local = %socket.local_addr(), buffer, "socket bound");
                sockets.push(socket);
            }
            Err(error) if !required && udp::is_family_missing(&error) => {
                let family = if addr.is_ipv4() { "IPv4" } else { "IPv6" };
                tracing::warn!(%error, "this machine has no {family}; going on without");
            }
            Err(source) => return Err(Error::Bind { addr, source }),
        }
    }
    if sockets.is_empty() { Err(Error::NoAddress) } else { Ok(sockets) }
}

/// The identity of each socket: a saved one if this process keeps the state, or a fresh one. Two
/// processes under one id would spoil each other's place in other nodes' tables.
fn homes(sockets: &[UdpSocket], saved: &Saved, keep: bool, rng: &mut Rng) -> Vec<Home> {
    let mut seen = [0; 2];
    let mut homes = Vec::new();
    for socket in sockets {
        let local = socket.local_addr();
        let nth = &mut seen[usize::from(local.is_ipv6())];
        let home = saved.home(local.is_ipv6(), *nth);
        *nth += 1;
        homes.push(Home {
            id: home.filter(|_| keep).map_or_else(|| rng.id(), |home| home.id),
            local,
            external: home.filter(|_| keep).and_then(|home| home.external),
            saved: home.map(|home| home.nodes.clone()).unwrap_or_default(),
        });
    }
    homes
}

/// Gives back what others stored in an earlier run; how much that is. Whatever is wrong with it costs
/// no more than the announces.
fn restored(node: &mut Recorded, folder: &StateFolder, now: Time) -> Counts {
    let Some(stored) = folder.read_store() else { return Counts::default() };
    let away = Moment::now().since(&stored.at);
    node.restore(now, &stored.archive, away).unwrap_or_else(|Damaged| {
        folder.warn_of_damaged_store();
        Counts::default()
    })
}

/// The most events that one lookup can have within its limits: each query is asked, slow, and
/// answered or silent; each peer and each announce is told once.
fn events_of_a_lookup(config: &Config) -> usize {
    let config = config.lifted();
    let hops = (config.lookup_max_queries as usize).saturating_mul(4);
    let all = config.lookup_max_peers.saturating_add(hops).saturating_add(config.announce_nodes);
    all.clamp(64, 65_536) + 2
}

/// Tells the node of routers as their names resolve, as long as it runs.
async fn keep_resolving(routers: Routers, rng: Rng, requests: mpsc::WeakSender<Request>) {
    let tell = |addrs| {
        let requests = requests.clone();
        async move {
            let Some(requests) = requests.upgrade() else { return false };
            requests.send(Request::Tell(Command::Routers(addrs))).await.is_ok()
        }
    };
    routers.resolve(rng, tell).await;
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;

    use krpc::{Body, Message};

    use super::*;
    use crate::Outcome;

    const GUARD: Duration = Duration::from_secs(30);

    fn options(bootstrap: &[SocketAddr]) -> Options {
        Options {
            binds: vec![Bind { addr: "127.0.0.1:0".parse().unwrap(), required: true }],
            config: Config { allow_local: true, ..Config::default() },
            bootstrap: bootstrap.iter().map(ToString::to_string).collect(),
            state: State::Nothing,
        }
    }

    fn start(bootstrap: &[SocketAddr]) -> (Dht, SocketAddr) {
        let dht = Dht::bind(options(bootstrap)).unwrap();
        let local = dht.local_addrs().next().unwrap();
        (dht, local)
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(GUARD, future).await.expect("long before the guard")
    }

    /// Waits until nobody holds `addr` any more, which is when a node's task has ended.
    async fn freed(addr: SocketAddr) {
        within(async {
            while StdSocket::bind(addr).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_node_answers_a_ping_of_another() {
        let ((a, _), (b, addr_b)) = (start(&[]), start(&[]));
        let answer = within(a.ping(addr_b)).await.unwrap().expect("an answer");
        assert_eq!(answer.from, addr_b);
        let message = Message::decode(&answer.bytes).unwrap();
        let Body::Response(response) = message.body else { panic!("{message:?}") };
        assert_eq!(Some(response.id), b.ids().next());
        let stats = within(b.stats()).await.unwrap();
        assert!(stats.sockets[0].counters.udp.received >= 1);
        assert_eq!(stats.sockets[0].home.local, addr_b);
    }

    #[tokio::test]
    async fn datagrams_of_other_protocols_are_counted_and_dropped() {
        let (dht, addr) = start(&[]);
        let stranger = StdSocket::bind("127.0.0.1:0").unwrap();
        for datagram in [&b"\x41\x02utp"[..], b"\0\0\0\0tracker", b""] {
            stranger.send_to(datagram, addr).unwrap();
        }
        within(async {
            while dht.stats().await.unwrap().sockets[0].counters.foreign < 3 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let (other, _) = start(&[]);
        assert!(within(other.ping(addr)).await.unwrap().is_some(), "the node goes on");
    }

    #[tokio::test]
    async fn nodes_bootstrap_from_one_another_and_announce() {
        let (_a, addr_a) = start(&[]);
        let (b, addr_b) = start(&[addr_a]);
        within(b.bootstrapped()).await.unwrap();
        let (c, _) = start(&[addr_b]);
        let infohash = Id::new([7; 20]);
        let announce = Announce { port: 7777, implied: false, seed: false };
        let mut lookup = within(c.get_peers(infohash, Some(announce), false)).await.unwrap();
        let (mut stored, mut done) = (0, false);
        while let Some(event) = within(lookup.next()).await {
            stored += usize::from(matches!(event, Event::Stored { .. }));
            done |= matches!(event, Event::Done { .. });
        }
        assert!(stored >= 1 && done);
        let (d, _) = start(&[addr_b]);
        let mut lookup = within(d.get_peers(infohash, None, false)).await.unwrap();
        let mut peers = Vec::new();
        while let Some(event) = within(lookup.next()).await {
            if let Event::Peer { addr, .. } = event {
                peers.push(addr);
            }
        }
        assert_eq!(peers, ["127.0.0.1:7777".parse().unwrap()]);
    }

    #[tokio::test]
    async fn the_table_can_be_looked_at_and_a_node_taken_out() {
        let (_a, addr_a) = start(&[]);
        let (b, addr_b) = start(&[addr_a]);
        within(b.bootstrapped()).await.unwrap();
        let (c, _) = start(&[addr_a, addr_b]);
        let mut events = within(c.subscribe(Topic::Node)).await.unwrap();
        within(c.bootstrapped()).await.unwrap();
        let event = within(events.next()).await;
        assert!(
            matches!(event, Some(Event::Bootstrapped { .. } | Event::ExternalAddress { .. })),
            "{event:?}"
        );

        let (d, _) = start(&[addr_a]);
        within(d.add_node(addr_b)).await.unwrap();
        let known = within(async {
            loop {
                let known = d.table().await.unwrap();
                if let Some(node) = known.into_iter().find(|node| node.addr == addr_b) {
                    return node;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let own = d.ids().next().unwrap();
        assert_eq!(known.bucket, own.distance(&known.id).bit_len());
        let nearest = within(d.closest(known.id, 1)).await.unwrap();
        assert_eq!(nearest, [(known.id, addr_b)]);
        let removed = within(d.stats()).await.unwrap().counters.nodes_removed;
        within(d.remove_node(addr_b)).await.unwrap();
        // It may be back already, with an answer that was on its way.
        assert_eq!(within(d.stats()).await.unwrap().counters.nodes_removed, removed + 1);
    }

    #[tokio::test]
    async fn dropping_a_lookup_cancels_it() {
        let silent = StdSocket::bind("127.0.0.1:0").unwrap();
        let (dht, _) = start(&[silent.local_addr().unwrap()]);
        let lookup = within(dht.find_node(Id::new([1; 20]), false)).await.unwrap();
        assert_eq!(within(dht.stats()).await.unwrap().running, 1);
        drop(lookup);
        assert_eq!(within(dht.stats()).await.unwrap().running, 0);
        let mut lookup = within(dht.find_node(Id::new([1; 20]), false)).await.unwrap();
        lookup.cancel();
        let last = within(lookup.next()).await;
        assert!(matches!(last, Some(Event::Done { outcome: Outcome::Cancelled, .. })), "{last:?}");
        assert!(within(lookup.next()).await.is_none());
    }

    #[tokio::test]
    async fn dropping_the_last_handle_saves_and_frees_the_port() {
        let folder = tempfile::tempdir().unwrap();
        let keep = |binds| Options { state: State::Keep(folder.path().into()), binds, ..options(&[]) };
        let dht = Dht::bind(keep(options(&[]).binds)).unwrap();
        let (addr, id) = (dht.local_addrs().next().unwrap(), dht.ids().next().unwrap());
        let again = Dht::bind(keep(options(&[]).binds));
        assert!(matches!(again, Err(Error::StateInUse { .. })));
        let clone = dht.clone();
        drop(dht);
        within(clone.stats()).await.expect("a clone keeps it running");
        let lookup = within(clone.find_node(id, false)).await.unwrap();
        drop(clone);
        freed(addr).await;
        drop(lookup);
        assert_eq!(Saved::read(folder.path()).home(false, 0).map(|home| home.id), Some(id));
        let back = Dht::bind(keep(vec![Bind { addr, required: true }])).unwrap();
        assert_eq!(back.ids().next(), Some(id));
        let reader = Dht::bind(Options { state: State::Read(folder.path().into()), ..options(&[]) }).unwrap();
        assert_ne!(reader.ids().next(), Some(id), "two processes under one id would harm each other");
    }

    #[tokio::test]
    async fn a_stopped_node_says_so() {
        let (dht, addr) = start(&[]);
        let clone = dht.clone();
        within(dht.shutdown()).await.unwrap();
        freed(addr).await;
        assert!(matches!(within(clone.ping(addr)).await, Err(Error::Stopped)));
        assert!(matches!(within(clone.bootstrapped()).await, Err(Error::Stopped)));
        assert!(matches!(within(clone.shutdown()).await, Err(Error::Stopped)));
    }
}
