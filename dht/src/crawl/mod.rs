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

use krpc::compact::{self, Address, V4, V6};
use krpc::{Body, Id, Message, Response, Want};

use self::frontier::{Chosen, Frontier, Known};
use self::line::{Line, Verdict};
use self::pace::{Pace, Turn};
use self::scrape::{Named, SAME_NODE_AFTER, Scrapes};
use self::size::SizeEstimate;
use self::survey::{Step, Survey};
use crate::addr::{SourceKey, acceptable, canonical};
use crate::lookup::told_samples;
use crate::{Config, Question, Rng, Seeds, Time};

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
    /// Of each family, the distances that surveys came to, the newest last.
    distances: [VecDeque<f64>; 2],
    scrapes: Scrapes,
    /// Percent points that surveys and scrapes have saved up.
    survey_credit: u32,
    scrape_credit: u32,
    condition: Condition,
    rounds: u64,
    /// Since when there is nobody to ask, and whether we have heard of nodes since.
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
        let config = Arc::new(config.lifted());
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
            quiet: None,
            nodes_wanted_at: now,
            timeout: now,
            counters: Counters::default(),
            config,
        }
    }

    /// Takes a node of an earlier run, before any other input.
    pub fn restore(&mut self, now: Time, record: &NodeRecord) {
        if self.is_usable(record.id, record.addr) {
            self.frontier.restore(now, record);
        }
    }

    /// Hears of nodes, from the routing table of the node that we ask from, whose ids are `own`.
    pub fn handle_nodes(&mut self, now: Time, own: &[Id], nodes: &[(Id, SocketAddr)], out: &mut Actions) {
        self.own = own.to_vec();
        for &(id, addr) in nodes {
            self.offer(now, id, canonical(addr));
        }
        if self.quiet == Some(Quiet::Asking) && self.frontier.fresh() == 0 && self.frontier.len() > 0 {
            self.quiet = Some(Quiet::Over);
            self.rounds += 1;
            out.events.push(Event::RoundOver { rounds: self.rounds });
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
    /// [`Config::crawl_scrape_queue`] wait already.
    pub fn scrape(&mut self, now: Time, infohash: Id, node: SocketAddr) {
        if self.scrapes.want(infohash, node) {
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
            scrapes_waiting: self.scrapes.waiting(),
            rounds: self.rounds,
            next_due: self.frontier.next_due(),
            size_v4: self.size(false),
            size_v6: self.size(true),
        }
    }

    fn size(&self, ipv6: bool) -> Option<SizeEstimate> {
        let distances: Vec<f64> = self.distances[usize::from(ipv6)].iter().copied().collect();
        size::estimate(&distances)
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

    fn release_suspects(&mut self, now: Time, standing: Standing) {
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
        } else if found_nobody && self.in_flight.is_empty() {
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

    /// The next query: a scrape or a step of a survey when they have saved up for it, a fresh node
    /// otherwise, and whatever there is when there is none.
    fn choose(&mut self, now: Time) -> Option<Query> {
        if !self.line.works() {
            if self.frontier.resting() > 0 {
                return self.next_ping();
            }
            // Everybody who should answer has had his rest: whoever is silent now is asked in earnest.
            self.line = Line::WORKS;
            self.release_suspects(now, Standing::Fresh);
        }
        let whole = 100;
        self.scrape_credit = (self.scrape_credit + self.config.crawl_scrape_share).min(whole);
        self.survey_credit = (self.survey_credit + self.config.crawl_survey_share).min(whole);
        if self.scrape_credit == whole
            && let Some(query) = self.next_scrape(now)
        {
            self.scrape_credit = 0;
            return Some(query);
        }
        if self.survey_credit == whole
            && let Some(query) = self.next_survey(now)
        {
            self.survey_credit = 0;
            return Some(query);
        }
        if let Some(chosen) = self.frontier.next() {
            return Some(self.plain(chosen));
        }
        self.next_scrape(now).or_else(|| self.running_survey(now))
    }

    fn plain(&mut self, chosen: Chosen) -> Query {
        let target = self.target(&chosen);
        self.ask(chosen, Purpose::Turn, target)
    }

    /// A ping of somebody who should answer.
    fn next_ping(&mut self) -> Option<Query> {
        let to = self.frontier.anybody_alive().filter(|_| self.line.ping())?;
        self.counters.pings += 1;
        let source = self.frontier.source(to);
        let asked = InFlight { purpose: Purpose::Ping, source, index: None, is_sample: false };
        Some(self.send(to, asked, Question::Ping))
    }

    /// What to ask a node about. Half of the time the widest gap around it; a quarter its own place: where
    /// nodes lie close together they name one another; a quarter any point at all.
    fn target(&mut self, chosen: &Chosen) -> Id {
        match self.rng.below(4) {
            _ if !chosen.is_inside => self.region.random(&mut self.rng),
            0 => self.region.random(&mut self.rng),
            1 => self.region.near(&chosen.id, OWN_PLACE, &mut self.rng),
            _ => self.frontier.gap(chosen.index),
        }
    }

    fn next_scrape(&mut self, now: Time) -> Option<Query> {
        if self.config.crawl_scrape_share == 0 {
            return None;
        }
        let (serial, infohash, to) =
            self.scrapes.next(now, &mut self.rng, |addr| self.frontier.source(addr))?;
        self.counters.scrape_queries += 1;
        let (purpose, source) = (Purpose::Scrape(serial), self.frontier.source(to));
        let asked = InFlight { purpose, source, index: None, is_sample: false };
        Some(self.send(to, asked, Question::Scrape(infohash, self.want())))
    }

    /// A step of a survey that runs, or of one that begins.
    fn next_survey(&mut self, now: Time) -> Option<Query> {
        if let Some(query) = self.running_survey(now) {
            return Some(query);
        }
        if self.surveys.len() >= SURVEYS || self.frontier.fresh() == 0 {
            return None;
        }
        let ipv6 = match self.families {
            [true, true] => self.rng.chance(1, 2),
            [_, ipv6] => ipv6,
        };
        let target = self.region.random(&mut self.rng);
        let mut survey = Survey::new(self.next_survey, target, ipv6);
        self.next_survey += 1;
        for node in self.frontier.near(&target, ipv6, size::NEAREST) {
            survey.offer(node, self.frontier.source(node.1), Known::Fresh);
        }
        self.surveys.push(survey);
        self.running_survey(now)
    }

    fn running_survey(&mut self, now: Time) -> Option<Query> {
        let mut nth = 0;
        while let Some(survey) = self.surveys.get_mut(nth) {
            match survey.step() {
                Step::Wait => nth += 1,
                Step::Done(result) => {
                    let survey = self.surveys.swap_remove(nth);
                    self.surveyed(survey.ipv6, result);
                }
                Step::Ask(id, addr) => {
                    let (serial, target) = (survey.serial, survey.target);
                    if let Some(chosen) = self.frontier.claim(now, id, addr) {
                        self.counters.survey_queries += 1;
                        return Some(self.ask(chosen, Purpose::Survey(serial), target));
                    }
                    let known = self.frontier.known(now, id, addr);
                    survey.not_asked(self.frontier.source(addr), known);
                }
            }
        }
        None
    }

    fn surveyed(&mut self, ipv6: bool, result: Option<f64>) {
        let Some(distance) = result else {
            self.counters.surveys_failed += 1;
            return;
        };
        self.counters.surveys += 1;
        let distances = &mut self.distances[usize::from(ipv6)];
        if distances.len() == DISTANCES {
            distances.pop_front();
        }
        distances.push_back(distance);
    }

    fn want(&self) -> Want {
        if self.families == [true, true] { Want::BOTH } else { Want::UNSPECIFIED }
    }

    /// Asks a node for samples, or for nodes alone if it lives outside of the region.
    fn ask(&mut self, chosen: Chosen, purpose: Purpose, target: Id) -> Query {
        let Chosen { index, addr, is_inside, .. } = chosen;
        let question = if is_inside {
            self.counters.sample_queries += 1;
            Question::Sample(target, self.want())
        } else {
            self.counters.node_queries += 1;
            Question::FindNode(target, self.want())
        };
        let source = self.frontier.source(addr);
        self.send(addr, InFlight { purpose, source, index: Some(index), is_sample: is_inside }, question)
    }

    fn send(&mut self, to: SocketAddr, asked: InFlight, question: Question) -> Query {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.in_flight.insert(ticket, asked);
        Query { ticket, to, question }
    }

    fn answered(&mut self, now: Time, asked: InFlight, response: &Response<'_>, out: &mut Actions) {
        let nodes = self.named(response);
        for &(id, addr, _) in &nodes {
            self.offer(now, id, addr);
        }
        match asked.purpose {
            Purpose::Scrape(serial) => return self.scraped(serial, Some((response, &nodes)), out),
            Purpose::Survey(serial) => {
                if let Some(survey) = self.surveys.iter_mut().find(|survey| survey.serial == serial) {
                    for &(id, addr, source) in &nodes {
                        survey.offer((id, addr), source, self.frontier.known(now, id, addr));
                    }
                }
            }
            Purpose::Ping => return,
            Purpose::Turn => {}
        }
        let standing = match told_samples(response) {
            _ if !asked.is_sample => Standing::Resting(now + self.config.crawl_rest_min),
            None => {
                self.counters.refused += 1;
                Standing::Refused
            }
            Some(told) => {
                let rest = Duration::from_secs(told.interval.into()).max(self.config.crawl_rest_min);
                self.counters.samples += 1;
                self.counters.infohashes += told.samples.len() as u64;
                let all = told.samples.len();
                let inside: Vec<_> =
                    told.samples.into_iter().filter(|infohash| self.region.contains(infohash)).collect();
                self.counters.infohashes_ignored += (all - inside.len()) as u64;
                if let Some((_, node)) = asked.index.map(|index| self.frontier.node(index)) {
                    let (num, interval, source) = (told.num, told.interval, asked.source);
                    out.events.push(Event::Samples { node, source, infohashes: inside, num, interval });
                }
                Standing::Resting(now + rest)
            }
        };
        self.place(now, asked, Some(response.id), standing);
    }

    /// The node answered with an error or with nonsense.
    fn failed(&mut self, now: Time, asked: InFlight, error: Option<i64>, out: &mut Actions) {
        match asked.purpose {
            Purpose::Scrape(serial) => return self.scraped(serial, None, out),
            Purpose::Ping => return,
            Purpose::Turn | Purpose::Survey(_) => {}
        }
        self.counters.refused += 1;
        // Error 201 and 202 are of the moment: the node has too much to do, for instance.
        let standing = match error {
            Some(201 | 202) => Standing::Silent(now + self.config.crawl_silent_rest),
            _ => Standing::Refused,
        };
        // An error does not say who sent it, but somebody lives there.
        let id = asked.index.filter(|_| error.is_some()).map(|index| self.frontier.node(index).0);
        self.place(now, asked, id, standing);
    }

    fn silent(&mut self, now: Time, asked: InFlight, out: &mut Actions) {
        self.counters.silent += 1;
        match (asked.purpose, self.line) {
            (Purpose::Scrape(serial), _) => self.scraped(serial, None, out),
            (Purpose::Ping, _) => {}
            (_, Line::Works { .. }) => {
                let until = now + self.config.crawl_silent_rest;
                self.place(now, asked, None, Standing::Silent(until));
            }
            // It stays among those that are being asked.
            (_, Line::Suspect { .. }) => self.suspects.push(asked),
            (_, Line::Dead) => {
                self.counters.forgiven += 1;
                self.place(now, asked, None, Standing::Fresh);
            }
        }
    }

    fn place(&mut self, now: Time, asked: InFlight, id: Option<Id>, standing: Standing) {
        if let Some(index) = asked.index {
            self.frontier.settle(now, index, id, standing);
        }
        for survey in &mut self.surveys {
            survey.settled(asked.source, id);
        }
    }

    fn scraped(&mut self, serial: u64, answer: Option<(&Response<'_>, &[Named])>, out: &mut Actions) {
        if let Some((infohash, estimate)) = self.scrapes.ended(serial, answer) {
            self.counters.scrapes += 1;
            self.counters.scrapes_answered += u64::from(estimate.nodes > 0);
            out.events.push(Event::Sized { infohash, estimate });
        }
    }

    /// The nodes that an answer names, of both families.
    fn named(&mut self, response: &Response<'_>) -> Vec<Named> {
        fn addresses<A: Address>(raw: Option<&[u8]>, most: usize) -> impl Iterator<Item = (Id, SocketAddr)> {
            let raw = raw.filter(|raw| compact::is_whole_nodes::<A>(raw)).unwrap_or_default();
            compact::nodes::<A>(raw).take(most).map(|node| (node.id, canonical(node.addr.to_socket())))
        }
        let most = self.config.crawl_nodes_per_reply;
        let nodes = addresses::<V4>(response.nodes, most).chain(addresses::<V6>(response.nodes6, most));
        let nodes: Vec<_> = nodes.collect();
        self.counters.nodes_named += nodes.len() as u64;
        let usable = nodes.iter().filter(|(id, addr)| self.is_usable(*id, *addr));
        let named: Vec<_> = usable.map(|&(id, addr)| (id, addr, self.frontier.source(addr))).collect();
        self.counters.nodes_unusable += (nodes.len() - named.len()) as u64;
        named
    }
}

/// Bits that a target shares with the node that is asked about its own place: in no DHT are two nodes nearer.
const OWN_PLACE: u32 = 60;
/// Surveys that run at the same time.
const SURVEYS: usize = 4;
/// Distances that the estimate of a family is made of: its error is 2 %, and it follows the DHT's changes.
const DISTANCES: usize = 256;
/// While nobody is known, nodes are wanted so often,
const FIRST_NODES_WANTED_EVERY: Duration = Duration::from_secs(1);
/// and while there is nobody else to ask.
const NODES_WANTED_EVERY: Duration = Duration::from_secs(10);
