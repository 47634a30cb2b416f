//! [`Crawl`]: runs a [`Crawler`] on the sockets of a node. It sends what the core wants asked, hands it the
//! answers, and shows it the node's routing table when it knows nobody. What to ask and when is the
//! core's business alone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use krpc::Id;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Clock, Dht, Error};
use crate::crawl::{Actions, Counters, Crawler, Event, NodeRecord, Query, Region, Status};
use crate::{Config, Seeds, Time};

/// Longest sleep: timers of the runtime stand still while the machine sleeps, ours do not.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// A node that has not bootstrapped after this shows the few nodes that it knows.
const BOOTSTRAP: Duration = Duration::from_secs(5);

/// Room for so many events is kept; more come only when many nodes of an earlier run have no place any more.
const FEW_EVENTS: usize = 1024;

/// A crawl on the sockets of a node (BEP 51). It goes on while [`Crawl::next`] is called: whoever is slow to
/// take its events slows it down. Dropping it ends it; the node runs on.
///
/// ```
/// # use btdht::Announce;
/// # use btdht::crawl::{Event, Region};
/// # use btdht::net::{Crawl, Dht, Options};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), btdht::net::Error> {
/// let first = Dht::bind(Options::loopback([]))?;
/// let options = Options::loopback(first.local_addrs());
/// let second = Dht::bind(options.clone())?;
/// let infohash = krpc::Id::new([7; 20]);
/// let announce = Announce { port: 7777, implied: false, seed: true };
/// second.get_peers(infohash, Some(announce), false).await?.finish().await;
///
/// let third = Dht::bind(Options::loopback(second.local_addrs()))?;
/// # third.ask(first.local_addrs().next().unwrap(), btdht::Question::Ping).await?;
/// let mut crawl = Crawl::start(&third, &options.config, Region::WHOLE)?;
/// while let Some(event) = crawl.next().await {
///     if let Event::Samples { node, infohashes, .. } = event {
///         assert_eq!(infohashes, [infohash]);
///         println!("{node} stores {infohashes:?}");
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Crawl {
    dht: Dht,
    clock: Clock,
    crawler: Crawler,
    running: JoinSet<Result<Ended, Error>>,
    events: VecDeque<Event>,
    /// The node's table is being looked at.
    looking: bool,
}

/// What a task has brought.
#[derive(Debug)]
enum Ended {
    Answer(u64, Option<Vec<u8>>),
    Nodes(Vec<(Id, SocketAddr)>),
}

impl Crawl {
    /// A crawl of `region` that asks from the sockets of `dht`, with the numbers of `config` that begin with
    /// `crawl_`. It takes up to [`Config::crawl_max_in_flight`] of the node's own
    /// [`Config::max_in_flight`], as `config` has it, but at most half of those.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn start(dht: &Dht, config: &Config, region: Region) -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(Error::Random)?;
        let clock = Clock::start();
        let family = |ipv6: bool| dht.local_addrs().any(|local| local.is_ipv6() == ipv6);
        let families = (family(false), family(true));
        let mut crawler = Crawler::new(clock.now(), config, region, families, Seeds(seed));
        crawler.set_own(dht.ids().collect());
        let (running, events) = (JoinSet::new(), VecDeque::new());
        Ok(Self { dht: dht.clone(), clock, crawler, running, events, looking: false })
    }

    /// Takes a node of an earlier run; its times as [`Crawl::time`] gives them.
    pub fn restore(&mut self, record: &NodeRecord) {
        self.crawler.restore(self.clock.now(), record);
    }

    /// The next thing to tell; `None` when the node has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            self.events.shrink_to(FEW_EVENTS);
            let pause = self.crawler.timeout().since(self.clock.now()).min(LONGEST_SLEEP);
            let ended = tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => Some(ended),
                () = sleep(pause) => None,
            };
            let (now, mut out) = (self.clock.now(), Actions::default());
            // They change with our address (BEP 42).
            self.crawler.set_own(self.dht.ids().collect());
            match ended {
                None => self.crawler.handle_timeout(now, &mut out),
                Some(Ok(Ok(Ended::Answer(ticket, answer)))) => {
                    self.crawler.handle_answer(now, ticket, answer.as_deref(), &mut out);
                }
                Some(Ok(Ok(Ended::Nodes(nodes)))) => {
                    self.looking = false;
                    self.crawler.handle_nodes(now, &nodes, &mut out);
                }
                Some(Ok(Err(_)) | Err(_)) => return None,
            }
            self.carry_out(out);
        }
    }

    /// Wants to know the size of the swarm of an infohash that `node` told: see [`Crawler::scrape`].
    pub fn scrape(&mut self, infohash: Id, node: SocketAddr) {
        self.crawler.scrape(self.clock.now(), infohash, node);
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.crawler.status()
    }

    /// What it did so far.
    pub fn counters(&self) -> &Counters {
        self.crawler.counters()
    }

    /// The crawl's time of a moment of the wall clock, for nodes that are kept between runs.
    pub fn time(&self, moment: SystemTime) -> Time {
        let (now, wall) = (self.clock.now(), SystemTime::now());
        match moment.duration_since(wall) {
            Ok(ahead) => now + ahead,
            Err(behind) => now - behind.duration(),
        }
    }

    /// The moment of the wall clock of a time of the crawl.
    pub fn moment(&self, time: Time) -> SystemTime {
        let (now, wall) = (self.clock.now(), SystemTime::now());
        if time >= now { wall + time.since(now) } else { wall - now.since(time) }
    }

    fn carry_out(&mut self, out: Actions) {
        self.events.extend(out.events);
        for Query { ticket, to, question } in out.queries {
            let dht = self.dht.clone();
            self.running.spawn(async move {
                let answer = dht.ask(to, question).await?;
                Ok(Ended::Answer(ticket, answer.map(|answer| answer.bytes)))
            });
        }
        if out.wants_nodes && !self.looking {
            self.looking = true;
            let dht = self.dht.clone();
            self.running.spawn(async move {
                // Where nobody answers there is no bootstrap to wait for.
                if let Ok(stopped @ Err(_)) = timeout(BOOTSTRAP, dht.bootstrapped()).await {
                    stopped?;
                }
                let table = dht.table().await?;
                Ok(Ended::Nodes(table.into_iter().map(|node| (node.id, node.addr)).collect()))
            });
        }
    }
}
