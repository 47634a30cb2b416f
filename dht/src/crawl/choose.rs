//! What a crawl asks next: whom, what, and about which point of the key space.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use krpc::{Id, Want};

use super::event::{Query, Standing};
use super::frontier::{Chosen, Known};
use super::line::Line;
use super::survey::{Step, Survey};
use super::{Crawler, InFlight, Purpose, size};
use crate::addr::SourceKey;
use crate::{Question, Time};

impl Crawler {
    /// The next query: a scrape or a step of a survey when they have saved up for it, a fresh node
    /// otherwise, and whatever there is when there is none.
    pub(super) fn choose(&mut self, now: Time) -> Option<Query> {
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
        if self.surveys.len() >= SURVEYS || self.frontier.fresh() == 0 || !self.frontier.has_room() {
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
                    self.surveyed(now, survey.ipv6, result);
                }
                Step::Ask(id, addr) => {
                    let (serial, target) = (survey.serial, survey.target);
                    if let Some(chosen) = self.frontier.claim(now, id, addr) {
                        self.counters.survey_queries += 1;
                        return Some(self.ask(chosen, Purpose::Survey(serial), target));
                    }
                    let source = self.frontier.source(addr);
                    match self.frontier.known(now, id, addr) {
                        // Whoever was not asked is not gone: with such a gap the survey would find those few
                        // who are remembered, and call them the whole DHT.
                        Known::Unknown | Known::Fresh if !self.frontier.has_room() => {
                            let survey = self.surveys.swap_remove(nth);
                            self.surveyed(now, survey.ipv6, None);
                        }
                        Known::Unknown | Known::Fresh | Known::Stale
                            if is_asked_apart(&self.in_flight, source) =>
                        {
                            survey.not_asked(source, Known::Asking);
                        }
                        Known::Unknown | Known::Fresh | Known::Stale => {
                            return Some(self.ask_apart(addr, serial, target));
                        }
                        known => survey.not_asked(source, known),
                    }
                }
            }
        }
        None
    }

    /// Asks a node for the sake of a survey alone, for nodes: its network has as many seats as it may have, and
    /// neither failing where many nodes share a network nor passing over them would give the right size; or it
    /// answered long ago, or was silent once, and may be gone.
    fn ask_apart(&mut self, to: SocketAddr, serial: u64, target: Id) -> Query {
        self.counters.survey_queries += 1;
        self.counters.node_queries += 1;
        let (purpose, source) = (Purpose::Survey(serial), self.frontier.source(to));
        let asked = InFlight { purpose, source, index: None, is_sample: false };
        self.send(to, asked, Question::FindNode(target, self.want()))
    }

    fn surveyed(&mut self, now: Time, ipv6: bool, result: Option<f64>) {
        let Some(distance) = result else {
            self.counters.surveys_failed += 1;
            return;
        };
        self.counters.surveys += 1;
        let distances = &mut self.distances[usize::from(ipv6)];
        while distances.len() >= DISTANCES
            || distances.front().is_some_and(|(at, _)| now.since(*at) > COUNTS_FOR)
        {
            distances.pop_front();
        }
        distances.push_back((now, distance));
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
        self.has_asked = true;
        let source = self.frontier.source(addr);
        self.send(addr, InFlight { purpose, source, index: Some(index), is_sample: is_inside }, question)
    }

    fn send(&mut self, to: SocketAddr, asked: InFlight, question: Question) -> Query {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.in_flight.insert(ticket, asked);
        Query { ticket, to, question }
    }
}

/// Whether a survey asks the node of a source that has no place in the frontier. All surveys hear of its answer.
fn is_asked_apart(in_flight: &BTreeMap<u64, InFlight>, source: SourceKey) -> bool {
    let is_survey = |asked: &InFlight| matches!(asked.purpose, Purpose::Survey(_));
    in_flight.values().any(|asked| asked.source == source && asked.index.is_none() && is_survey(asked))
}

/// Bits that a target shares with the node that is asked about its own place: in no DHT are two nodes nearer.
const OWN_PLACE: u32 = 60;
/// Surveys that run at the same time.
pub(super) const SURVEYS: usize = 4;
/// Distances that the estimate of a family is made of: its error is 2 %, and it follows the DHT's changes.
const DISTANCES: usize = 256;
/// A distance counts no longer once there is one that is so much newer. At 25 queries a second as many as count take
/// half as long; this is for slower crawls and for those that have rested: it was another DHT then.
const COUNTS_FOR: Duration = Duration::from_secs(30 * 60);
