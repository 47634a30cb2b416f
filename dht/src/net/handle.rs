//! [`Dht`]: a cloneable handle of a running node. The node lives in one task; handles talk to it by
//! a bounded channel and wait when it is full.

mod items;
mod lookup;
mod options;
mod orders;
mod reading;
mod recording;
mod start;
mod swarms;
mod writing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use krpc::{Id, Want};
use tokio::sync::{mpsc, oneshot, watch};

use super::shard::{Request, Sink, Stats};
use super::subscribers::{Events, Topic, subscription};
use super::{Clock, Error};
use crate::standing::Pace;
use crate::{Announce, Command, Event, KnownNode, Question, Rng, Seeds};

pub use self::lookup::{Lookup, Peers};
pub use self::options::{MAX_SHARDS, Options, State};
pub use self::orders::AnnounceReport;
pub(crate) use self::start::Parts;
pub use self::writing::{PutReport, Writing};

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

    /// The known nodes nearest to `target`, without asking anybody: at most `count` (and at most 64) of
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

#[cfg(test)]
mod tests;
