//! How a node starts: saved state, sockets, identities, and the tasks that go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use krpc::Id;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Dht, MAX_SHARDS, Options, Paces, Shared, State, recording};
use crate::net::heartbeat::Heartbeat;
use crate::net::interfaces::{self, Known};
use crate::net::keeper::StateKeeper;
use crate::net::moment::Moment;
use crate::net::persist::{Saved, SavedHome, StateFolder};
use crate::net::port::Port;
use crate::net::ports::Ports;
use crate::net::resolve::{self, Condition, Families, Routers};
use crate::net::satellites::Satellites;
use crate::net::shard::{Request, Shard};
use crate::net::udp::{self, Batching, UdpSocket};
use crate::net::{Bind, Clock, Error, stored};
use crate::replay::{Origin, Record, Recorded};
use crate::standing::Pace;
use crate::store::Counts;
use crate::{Command, Config, Home, Rng, Seeds, Time};

/// Requests that wait for the task; a caller beyond them waits itself.
const REQUESTS: usize = 256;

/// What a running node is made of.
pub(crate) struct Parts {
    pub(crate) node: Recorded,
    /// Its id at each port.
    pub(crate) ids: Vec<Id>,
    pub(crate) ports: Vec<Port>,
    /// What the node was made with.
    pub(crate) config: Config,
    /// For what the shell draws.
    pub(crate) seeds: Seeds,
    pub(crate) clock: Clock,
}

/// Whom a node can ask first.
struct Bootstrap {
    routers: Routers,
    /// A saved node, or nobody was to be known.
    knows_somebody: bool,
    /// Nodes known, if that is over already.
    done: Option<usize>,
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
        // A record holds what one shard was given.
        let can_split = udp::CAN_SHARE && records.is_none();
        let shards = if can_split { options.shards.clamp(1, MAX_SHARDS) } else { 1 };
        let sockets = bind_all(&options.binds, shards > 1)?;
        let (homes, absent) = homes(&sockets, &saved, folder.is_some(), &mut rng);
        let families = Families {
            ipv4: homes.iter().any(|home| home.local.is_ipv4()),
            ipv6: homes.iter().any(|home| home.local.is_ipv6()),
        };
        let routers = Routers::new(&options.bootstrap, families)?;
        let ids = homes.iter().map(|home| home.id).collect();
        let knows_somebody = options.bootstrap.is_empty() || homes.iter().any(|home| !home.saved.is_empty());
        let origin = Origin { seeds: seeds.derive("node"), config: options.config.clone(), homes, at: now };
        let is_recorded = records.is_some();
        let mut node = Recorded::new(origin, records.map(recording::tap));
        let cores = node.split(now, shards - 1);
        let state = folder.map(|folder| {
            let (loaded, now) = load(&mut node, &folder, &options.config, now, || clock.now());
            let keeper = StateKeeper::new(folder, saved, now);
            // Who starts without what is stored must not write over it.
            if is_recorded { keeper } else { keeper.with_store(loaded, now) }
        });
        let locals: Vec<_> = sockets.iter().map(UdpSocket::local_addr).collect();
        let interfaces = interfaces::concerning(&locals);
        let present = interfaces.as_ref().map(Known::present).unwrap_or_default();
        // They serve from now on, so that everything has to be in its place.
        let satellites = Satellites::start(cores, &locals, &present, clock)?;
        let mut ports: Vec<_> = (0..).zip(sockets).map(|(index, socket)| Port::new(index, socket)).collect();
        if options.lingers {
            ports.iter_mut().for_each(Port::allow_linger);
        }
        let parts = Parts { node, ids, config: options.config, seeds, clock, ports };
        let bootstrap = Bootstrap { routers, knows_somebody, done: None };
        Ok(Self::start_with(parts, satellites, bootstrap, (state, absent), interfaces).0)
    }

    /// Starts a node that needs no bootstrap any more, without state: its handle and its task.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub(crate) fn start_grown(parts: Parts) -> (Self, JoinHandle<()>) {
        let nodes = parts.node.stats(parts.clock.now()).iter().map(|home| home.nodes).sum();
        let bootstrap = Bootstrap { routers: Routers::default(), knows_somebody: true, done: Some(nodes) };
        let locals: Vec<_> = parts.ports.iter().map(Port::local).collect();
        let interfaces = interfaces::concerning(&locals);
        Self::start_with(parts, Satellites::default(), bootstrap, (None, Vec::new()), interfaces)
    }

    fn start_with(
        parts: Parts,
        satellites: Satellites,
        bootstrap: Bootstrap,
        (state, absent): (Option<StateKeeper>, Vec<SavedHome>),
        interfaces: Option<Known>,
    ) -> (Self, JoinHandle<()>) {
        let Parts { node, ids, config, seeds, clock, ports } = parts;
        let Bootstrap { routers, knows_somebody, done } = bootstrap;
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (announcer, bootstrapped) = watch::channel(done);
        let (readiness, ready) = watch::channel(knows_somebody);
        let (changing, ids) = watch::channel(ids);
        let condition = watch::channel(Condition { is_lonely: done.is_none(), changes: 0 });
        let shared = Shared {
            locals: ports.iter().map(Port::local).collect(),
            clock,
            paces: Paces {
                announces: Pace::of_announces(&config),
                items: Pace::of_items(&config),
                keys: Pace::of_keys(&config),
            },
            seeds: seeds.derive("orders"),
            tickets: AtomicU64::new(0),
            events: events_of_a_lookup(&config),
        };
        let mut ports = Ports::new(ports, clock.now());
        if let Some(known) = &interfaces {
            ports.answer_at(&known.present());
        }
        let shard = Shard {
            node,
            clock,
            ports,
            satellites,
            requests: inbox,
            bootstrapped: announcer,
            ready: readiness,
            ids: changing,
            state,
            heartbeat: Heartbeat::new(clock.now(), config.asleep_after),
            asleep_after: config.asleep_after,
            absent,
            has_routers: !routers.is_empty(),
            condition: condition.0,
        };
        let known = routers.addresses();
        if !known.is_empty() {
            requests.try_send(Request::Tell(Command::Routers(known))).expect("the channel is new");
        }
        let task = tokio::spawn(shard.run());
        if let Some(known) = interfaces {
            tokio::spawn(interfaces::watch(known, requests.downgrade()));
        }
        if !routers.is_empty() {
            let rng = Rng::new(seeds.derive("resolving"));
            tokio::spawn(keep_resolving(routers, rng, condition.1, requests.downgrade()));
        }
        (Self { requests, bootstrapped, ready, ids, shared: Arc::new(shared) }, task)
    }
}

/// Binds every address that the machine has, and shares it with other shards if there will be any.
fn bind_all(binds: &[Bind], is_shared: bool) -> Result<Vec<UdpSocket>, Error> {
    if binds.len() > usize::from(u8::MAX) {
        return Err(Error::TooManyAddresses);
    }
    let mut sockets = Vec::new();
    for &Bind { addr, required } in binds {
        match UdpSocket::bind(addr, Batching::Native) {
            Ok(mut socket) => {
                if is_shared {
                    socket.share().map_err(|source| Error::Bind { addr, source })?;
                }
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
/// processes under one id would spoil each other's place in other nodes' tables. And what is saved of
/// addresses that there is no socket for: it is kept for a run that has them again.
fn homes(sockets: &[UdpSocket], saved: &Saved, keep: bool, rng: &mut Rng) -> (Vec<Home>, Vec<SavedHome>) {
    if keep {
        Saved::warn_of_too_many(sockets.len());
    }
    let locals: Vec<_> = sockets.iter().map(UdpSocket::local_addr).collect();
    let (dealt, absent) = saved.deal(&locals);
    let home = |(&local, home): (&SocketAddr, Option<&SavedHome>)| Home {
        id: home.filter(|_| keep).map_or_else(|| rng.id(), |home| home.id),
        local,
        external: home.filter(|_| keep).and_then(|home| home.external),
        saved: saved.starts(home, &absent, &local),
    };
    let homes = locals.iter().zip(dealt).map(home).collect();
    (homes, absent.into_iter().cloned().collect())
}

/// Gives back what others stored in an earlier run, and lets the node begin; how much that is, and when it
/// begins. Whatever is wrong with it costs no more than the announces.
fn load(
    node: &mut Recorded,
    folder: &StateFolder,
    config: &Config,
    now: Time,
    clock: impl Fn() -> Time,
) -> (Counts, Time) {
    let (present, mut counts) = (Moment::now(), Counts::default());
    folder.read_store(stored::max_len(config), |at, piece| {
        counts = node.restore(now, piece, present.since(at))?;
        Ok(())
    });
    // A large store takes a while, which must not look like a sleep.
    let begun = clock();
    node.begin(begun);
    (counts, begun)
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
async fn keep_resolving(
    routers: Routers,
    rng: Rng,
    condition: watch::Receiver<Condition>,
    requests: mpsc::WeakSender<Request>,
) {
    let tell = |addrs| {
        let requests = requests.clone();
        async move {
            let Some(requests) = requests.upgrade() else { return false };
            requests.send(Request::Tell(Command::Routers(addrs))).await.is_ok()
        }
    };
    let lookup = |name: String| async move { resolve::lookup(&name).await };
    routers.resolve(rng, condition, lookup, tell).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Node, Outbox};

    #[test]
    fn a_load_that_takes_long_is_no_sleep() {
        let (config, now) = (Config::default(), Time::from_secs(100_000));
        let home =
            Home { id: Id::ZERO, local: ([127, 0, 0, 1], 1).into(), external: None, saved: Vec::new() };
        let mut node: Recorded =
            Node::new(Arc::new(config.clone()), vec![home], Seeds::from_u64(1), now).into();
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let later = now + Duration::from_secs(3600);
        let (loaded, begun) = load(&mut node, &state, &config, now, || later);
        assert_eq!((loaded, begun), (Counts::default(), later));
        node.handle_timeout(later, &mut Outbox::new());
        assert_eq!(node.counters().network_changes, 0);
    }
}
