//! What the end of a query brings: samples, nodes, the size of a swarm, or silence.

use std::net::SocketAddr;
use std::time::Duration;

use krpc::compact::{self, Address, V4, V6};
use krpc::{Id, Response};

use super::event::{Actions, Event, Standing};
use super::line::Line;
use super::scrape::Named;
use super::{Crawler, InFlight, Purpose, size};
use crate::Time;
use crate::addr::canonical;
use crate::lookup::told_samples;

/// Nodes near the point of a survey that it hears of from us: where two in three are gone there are enough.
const NEAREST_KNOWN: usize = 3 * size::NEAREST;

impl Crawler {
    pub(super) fn answered(
        &mut self,
        now: Time,
        asked: InFlight,
        response: &Response<'_>,
        out: &mut Actions,
    ) {
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
                    let nearest = self.frontier.nearest(now, &survey.target, survey.ipv6, NEAREST_KNOWN);
                    for (id, addr, known) in nearest {
                        survey.offer((id, addr), self.frontier.source(addr), known);
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
                Standing::Refused(now + self.config.crawl_refused_rest)
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
    pub(super) fn failed(&mut self, now: Time, asked: InFlight, error: Option<i64>, out: &mut Actions) {
        match asked.purpose {
            Purpose::Scrape(serial) => return self.scraped(serial, None, out),
            Purpose::Ping => return,
            Purpose::Turn | Purpose::Survey(_) => {}
        }
        self.counters.refused += 1;
        // Error 201 and 202 are of the moment: the node has too much to do, for instance.
        let standing = match error {
            Some(201 | 202) => Standing::Silent(now + self.config.crawl_silent_rest),
            _ => Standing::Refused(now + self.config.crawl_refused_rest),
        };
        // An error does not say who sent it, but somebody lives there.
        let id = error.and_then(|_| self.id_of(asked));
        self.place(now, asked, id, standing);
    }

    pub(super) fn silent(&mut self, now: Time, asked: InFlight, out: &mut Actions) {
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

    pub(super) fn place(&mut self, now: Time, asked: InFlight, id: Option<Id>, standing: Standing) {
        match asked.index {
            Some(index) => self.frontier.settle(now, index, id, standing),
            None => self.frontier.asked_anew(now, asked.source, id, standing),
        }
        let was_silent = matches!(standing, Standing::Silent(_) | Standing::Fresh);
        for survey in &mut self.surveys {
            survey.settled(asked.source, id, was_silent);
        }
    }

    /// The id of whom was asked, as far as somebody has told it.
    fn id_of(&self, asked: InFlight) -> Option<Id> {
        let surveyed = || self.surveys.iter().find_map(|survey| survey.id_of(asked.source));
        asked.index.map(|index| self.frontier.node(index).0).or_else(surveyed)
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
