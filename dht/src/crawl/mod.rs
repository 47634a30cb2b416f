//! A crawl of the DHT (BEP 51): which infohashes do nodes all over the key space store, how large are
//! their swarms (BEP 33), and how many nodes are there?
//!
//! [`Crawler`] is a core without clock, socket or thread: it says whom to ask what and when, takes the
//! answers, and tells what they bring. It keeps no results; whoever owns it does. `net::Crawl` runs one on
//! the sockets of a node.
//!
//! It asks one node after the other for samples, each far from the last in the key space, and most
//! of them about a point near the node itself: there the node knows everybody, so that in the course of a
//! round over the key space nearly every node is named by some neighbour. A node is left alone for as long as it wants
//! to be; one that does not answer or does not know BEP 51 for longer. How that memory is bounded is told in
//! `frontier`, how fast it goes and when it slows down in `pace`, who is to blame for silence in `line`. A share of the queries follows the way
//! to random points (`survey`), whose distances to their nearest nodes give the size of the DHT
//! ([`size`]).
//!
//! Everything in an answer is a stranger's word: addresses that cannot be, our own ids and more than
//! [`Config::crawl_nodes_per_reply`] nodes are ignored; samples are bounded by the datagram.

mod answers;
mod choose;
mod counters;
mod event;
mod frontier;
mod line;
mod pace;
mod region;
mod scrape;
pub mod size;
mod survey;
#[cfg(test)]
mod tests;
mod voids;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use krpc::{Body, Id, Message};

use self::frontier::Frontier;
use self::line::{Line, Verdict};
use self::pace::{Pace, Turn};
use self::scrape::{SAME_NODE_AFTER, Scrapes};
use self::size::SizeEstimate;
use self::survey::Survey;
use crate::addr::{SourceKey, acceptable, canonical};
use crate::{Config, Rng, Seeds, Time};

pub use self::counters::Counters;
pub use self::event::{Actions, Condition, Event, NodeRecord, Query, Standing, Status};
pub use self::region::{ParseRegionError, Region};

/// A crawl: a core that is fed with answers and the passing of time.
#[derive(Debug)]
pub struct Crawler {
    config: Arc<Config>,
    region: Region,
    rng: Rng,
    /// Whether we have sockets for IPv4 and for IPv6.
    families: [bool; 2],
    /// Our own ids.
    own: Vec<Id>,
    frontier: Frontier,
    pace: Pace,
    line: Line,
    /// Nodes that were silent while the line is suspected; what becomes of them is decided with it.
    suspects: Vec<InFlight>,
    in_flight: BTreeMap<u64, InFlight>,
    next_ticket: u64,
    surveys: Vec<Survey>,
    next_survey: u64,
    /// Of each family, the distances that surveys came to and when, the newest last.
    distances: [VecDeque<(Time, f64)>; 2],
    scrapes: Scrapes,
    /// Percent points that surveys and scrapes have saved up.
    survey_credit: u32,
    scrape_credit: u32,
    condition: Condition,
    rounds: u64,
    /// A node had its turn since the last round ended.
    has_asked: bool,
    /// There is nobody to ask.
    quiet: Option<Quiet>,
    nodes_wanted_at: Time,
    timeout: Time,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quiet {
    /// Nodes were wanted and have not come yet.
    Asking,
    /// There were none to ask among them either: the round is over.
    Over,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    purpose: Purpose,
    source: SourceKey,
    /// The node's place in the frontier; scrapes and pings have none.
    index: Option<u32>,
    /// Samples were asked for.
    is_sample: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The node's turn has come.
    Turn,
    /// It is on the way to the point of a survey.
    Survey(u64),
    /// The size of a swarm.
    Scrape(u64),
    /// To find out whether the line works.
    Ping,
}

impl Crawler {
    /// A crawl of `region` with sockets for the families that are said. It knows nobody yet and wants
    /// [`Crawler::handle_timeout`] at once.
    pub fn new(now: Time, config: &Config, region: Region, (ipv4, ipv6): (bool, bool), seeds: Seeds) -> Self {
        let mut config = config.lifted();
        // The node asks no more at a time: to whom it sends nothing would count as silent. Half is for its own.
        config.crawl_max_in_flight = config.crawl_max_in_flight.min((config.max_in_flight / 2).max(1));
        let config = Arc::new(config);
        Self {
            region,
            rng: Rng::new(seeds.derive("crawl")),
            families: [ipv4, ipv6],
            own: Vec::new(),
            frontier: Frontier::new(region, &config, Rng::new(seeds.derive("frontier"))),
            pace: Pace::new(&config),
            line: Line::WORKS,
            suspects: Vec::new(),
            in_flight: BTreeMap::new(),
            next_ticket: 0,
            surveys: Vec::new(),
            next_survey: 0,
            distances: [VecDeque::new(), VecDeque::new()],
            scrapes: Scrapes::new(config.crawl_scrape_nodes, config.crawl_scrape_queue),
            survey_credit: 0,
            scrape_credit: 0,
            condition: Condition::Starting,
            rounds: 0,
            has_asked: false,
            quiet: None,
            nodes_wanted_at: now,
            timeout: now,
            counters: Counters::default(),
            config,
        }
    }

    /// Takes a node of an earlier run, before any other input. It is told again ([`Event::Node`]) when something
    /// happens to it, and at once if it has no place.
    pub fn restore(&mut self, now: Time, record: &NodeRecord) {
        if self.is_usable(record.id, record.addr) {
            self.frontier.restore(now, record);
        }
    }

    /// Says which ids the node has that we ask from: it is never asked itself.
    pub fn set_own(&mut self, own: Vec<Id>) {
        self.own = own;
    }

    /// Hears of nodes, from the routing table of the node that we ask from.
    pub fn handle_nodes(&mut self, now: Time, nodes: &[(Id, SocketAddr)], out: &mut Actions) {
        for &(id, addr) in nodes {
            self.offer(now, id, canonical(addr));
        }
        if self.quiet == Some(Quiet::Asking) && self.frontier.fresh() == 0 && self.frontier.len() > 0 {
            self.quiet = Some(Quiet::Over);
            // Sizes alone make no round.
            if std::mem::take(&mut self.has_asked) || self.rounds == 0 {
                self.rounds += 1;
                out.events.push(Event::RoundOver { rounds: self.rounds });
            }
        }
        self.settle(now, out);
    }

    /// Takes the whole datagram that answered a query, or `None` when nothing came in time.
    pub fn handle_answer(&mut self, now: Time, ticket: u64, answer: Option<&[u8]>, out: &mut Actions) {
        let Some(asked) = self.in_flight.remove(&ticket) else {
            return;
        };
        self.judge_line(now, asked, answer.is_some());
        match answer {
            None => self.silent(now, asked, out),
            Some(bytes) => {
                self.counters.answered += 1;
                match Message::decode(bytes).map(|message| message.body) {
                    Ok(Body::Response(response)) => self.answered(now, asked, &response, out),
                    Ok(Body::Error(error)) => self.failed(now, asked, Some(error.code), out),
                    Ok(Body::Query { .. }) | Err(_) => self.failed(now, asked, None, out),
                }
            }
        }
        self.settle(now, out);
    }

    /// Does what is due at `now`; call it when [`Crawler::timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Actions) {
        self.settle(now, out);
    }

    /// Wants to know the size of the swarm of an infohash that `node` told (BEP 33). Dropped when
    /// [`Config::crawl_scrape_queue`] wait already, and where [`Config::crawl_scrape_share`] leaves no query for it: it
    /// would wait for ever.
    pub fn scrape(&mut self, now: Time, infohash: Id, node: SocketAddr) {
        if self.config.crawl_scrape_share > 0 && self.scrapes.want(infohash, node) {
            self.timeout = self.timeout.min(self.pace.next().max(now));
        } else {
            self.counters.scrapes_dropped += 1;
        }
    }

    /// When [`Crawler::handle_timeout`] wants to be called, at the latest.
    pub fn timeout(&self) -> Time {
        self.timeout
    }

    /// What this crawl did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        Status {
            condition: self.condition,
            rate: self.pace.rate(),
            fresh: self.frontier.fresh(),
            resting: self.frontier.resting(),
            silent: self.frontier.silent(),
            refused: self.frontier.refused(),
            in_flight: self.in_flight.len(),
            scrapes: self.scrapes.len(),
            rounds: self.rounds,
            next_due: self.frontier.next_due(),
            size_v4: self.size(false),
            size_v6: self.size(true),
        }
    }

    fn size(&self, ipv6: bool) -> Option<SizeEstimate> {
        let distances: Vec<f64> =
            self.distances[usize::from(ipv6)].iter().map(|&(_, distance)| distance).collect();
        size::estimate(&distances, self.region.bits())
    }

    fn is_usable(&self, id: Id, addr: SocketAddr) -> bool {
        acceptable(addr, self.config.allow_local)
            && self.families[usize::from(addr.is_ipv6())]
            && !self.own.contains(&id)
    }

    fn offer(&mut self, now: Time, id: Id, addr: SocketAddr) {
        if !self.is_usable(id, addr) {
            self.counters.nodes_unusable += 1;
        } else if self.frontier.offer(now, id, addr) {
            self.counters.nodes_new += 1;
        }
    }

    /// What the end of a query says about the line and the pace.
    fn judge_line(&mut self, now: Time, asked: InFlight, is_answered: bool) {
        let is_ping = asked.purpose == Purpose::Ping;
        let verdict = match is_answered {
            true => self.line.answered(),
            false if is_ping => self.line.ping_silent(),
            false => {
                self.line.silent(self.frontier.resting() > 0);
                Verdict::Same
            }
        };
        if verdict == Verdict::Dead {
            self.counters.slowed += 1;
            self.pace.stop();
        } else if !is_ping && self.pace.ended(is_answered) == Some(Turn::Slower) {
            self.counters.slowed += 1;
        }
        let standing = match verdict {
            Verdict::Same => return,
            Verdict::Works => Standing::Silent(now + self.config.crawl_silent_rest),
            Verdict::Dead => {
                self.counters.forgiven += self.suspects.len() as u64;
                Standing::Fresh
            }
        };
        self.release_suspects(now, standing);
    }

    /// Decides what becomes of those who were silent under suspicion. Where they are forgiven, whatever surveys
    /// found meanwhile is worth nothing: of those near their points some count as gone who are not.
    fn release_suspects(&mut self, now: Time, standing: Standing) {
        if standing == Standing::Fresh {
            self.counters.surveys_failed += self.surveys.len() as u64;
            self.surveys.clear();
        }
        for suspect in std::mem::take(&mut self.suspects) {
            self.place(now, suspect, None, standing);
        }
    }

    /// Asks what may be asked, and computes when to wake up.
    fn settle(&mut self, now: Time, out: &mut Actions) {
        self.frontier.wake(now);
        let (mut found_nobody, asked_before) = (false, self.counters.queries);
        while self.in_flight.len() < self.config.crawl_max_in_flight && self.pace.next() <= now {
            let Some(query) = self.choose(now) else {
                found_nobody = true;
                break;
            };
            self.pace.take(now);
            self.counters.queries += 1;
            out.queries.push(query);
        }
        let is_full = self.frontier.fresh() > 0 && !self.frontier.has_room();
        if self.counters.queries > asked_before || self.frontier.fresh() > 0 {
            self.quiet = None;
        } else if found_nobody && self.in_flight.is_empty() && self.scrapes.is_idle() {
            self.quiet.get_or_insert(Quiet::Asking);
        }
        if self.quiet.is_some() && self.nodes_wanted_at <= now {
            let nobody = self.frontier.len() == 0;
            self.nodes_wanted_at = now + if nobody { FIRST_NODES_WANTED_EVERY } else { NODES_WANTED_EVERY };
            out.wants_nodes = true;
        }
        self.timeout = match (found_nobody, self.in_flight.len() < self.config.crawl_max_in_flight) {
            (true, _) => self.next_work(now),
            (false, true) => self.pace.next(),
            // An answer, or its absence, comes.
            (false, false) => Time::NEVER,
        };
        self.tell(is_full, out);
    }

    /// When somebody may be asked though nobody can be now.
    fn next_work(&self, now: Time) -> Time {
        let scrape = if self.scrapes.is_idle() { Time::NEVER } else { now + SAME_NODE_AFTER };
        let nodes = if self.quiet.is_some() { self.nodes_wanted_at } else { Time::NEVER };
        self.frontier.next_due().min(scrape).min(nodes)
    }

    /// Tells what has changed with the nodes and with the crawl itself.
    fn tell(&mut self, is_full: bool, out: &mut Actions) {
        out.events.extend(self.frontier.changes().map(|(source, record)| Event::Node { source, record }));
        let condition = match () {
            () if self.line == Line::Dead => Condition::Unanswered,
            () if self.pace.is_slow() => Condition::Slowed,
            () if self.frontier.len() == 0 => Condition::Starting,
            () if is_full => Condition::Full,
            () if self.quiet == Some(Quiet::Over) => Condition::Resting,
            () => Condition::Walking,
        };
        if condition != self.condition {
            self.condition = condition;
            out.events.push(Event::Condition(condition));
        }
    }
}

/// While nobody is known, nodes are wanted so often,
const FIRST_NODES_WANTED_EVERY: Duration = Duration::from_secs(1);
/// and while there is nobody else to ask.
const NODES_WANTED_EVERY: Duration = Duration::from_secs(10);
