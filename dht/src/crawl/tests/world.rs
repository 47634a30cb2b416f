//! A crawl by one node of a virtual network of shipping nodes, over lines with delay and loss.

use std::collections::BTreeSet;

use super::*;
use crate::sim::fleet::{Fleet, Plan};
use crate::sim::scenario::Unwatched;
use crate::{Announce, Command, Event as NodeEvent, LookupId};

const NODES: usize = 400;
const STEP: Duration = Duration::from_millis(20);

/// A fleet whose first host crawls.
struct Walk {
    fleet: Fleet,
    crawler: Crawler,
    asked: BTreeMap<LookupId, u64>,
    events: Vec<Event>,
}

impl Walk {
    fn new(fleet: Fleet, config: &Config) -> Self {
        let now = fleet.world.now();
        let mut crawler = Crawler::new(now, config, Region::WHOLE, (true, false), Seeds::from_u64(1));
        crawler.set_own(vec![fleet.id(0).expect("a node")]);
        Self { fleet, crawler, asked: BTreeMap::new(), events: Vec::new() }
    }

    /// Lets time pass in steps, between which the crawl hears what its node was answered and asks more.
    fn run(&mut self, span: Duration) {
        let end = self.fleet.world.now() + span;
        while self.fleet.world.now() < end {
            let until = self.fleet.world.now() + STEP;
            let mut answers = Vec::new();
            self.fleet.world.run(until, |_, told| match told.event {
                NodeEvent::Answered { lookup, answer, .. } if told.host == 0 => {
                    answers.push((lookup, answer));
                }
                _ => {}
            });
            for (lookup, answer) in answers {
                let ticket = self.asked.remove(&lookup).expect("nothing is answered twice");
                let (bytes, mut out) = (answer.map(|(bytes, _)| bytes), Actions::default());
                self.crawler.handle_answer(until, ticket, bytes.as_deref(), &mut out);
                self.take(out);
            }
            if self.crawler.timeout() <= until {
                let mut out = Actions::default();
                self.crawler.handle_timeout(until, &mut out);
                self.take(out);
            }
        }
    }

    fn take(&mut self, mut out: Actions) {
        self.events.append(&mut out.events);
        for Query { ticket, to, question } in out.queries {
            let lookup = self.fleet.command(0, Command::Ask { to, question }).expect("it starts something");
            self.asked.insert(lookup, ticket);
        }
        if out.wants_nodes {
            let (now, mut out) = (self.fleet.world.now(), Actions::default());
            let known = self.fleet.node(0).expect("a node").table(now);
            let known: Vec<_> = known.into_iter().map(|known| (known.id, known.addr)).collect();
            self.crawler.handle_nodes(now, &known, &mut out);
            self.take(out);
        }
    }
}

#[test]
fn a_crawl_of_shipping_nodes_finds_what_they_store_how_large_it_is_and_how_many_they_are() {
    let mut fleet = Fleet::grow(Plan::new(NODES, 3, 1), Vec::new(), &mut Unwatched).unwrap();
    let mut rng = Rng::from_seed(5);
    let infohashes: BTreeSet<Id> = (0..40).map(|_| rng.id()).collect();
    // Three seeds and two others each.
    for (n, &infohash) in infohashes.iter().enumerate() {
        for member in 0..5 {
            let announce = Some(Announce { port: 7000, implied: false, seed: member < 3 });
            let host = 1 + (5 * n + member) % (NODES - 1);
            fleet.command(host, Command::GetPeers { infohash, announce, trace: false });
        }
    }
    fleet.world.run(fleet.world.now() + Duration::from_secs(30), |_, _| ());

    let config = Config { crawl_rate: 50, ..Config::default() };
    let mut walk = Walk::new(fleet, &config);
    walk.run(Duration::from_secs(60));
    let (counters, status) = (*walk.crawler.counters(), walk.crawler.status());
    assert!(
        status.rounds >= 1 && counters.answered * 100 >= counters.queries * 90,
        "{counters:?} {status:?}"
    );
    let size = status.size_v4.expect("an estimate");
    assert!((size.nodes - NODES as f64).abs() <= 3.0 * size.error && size.relative_error() < 0.2, "{size:?}");

    let mut told = BTreeMap::new();
    for event in std::mem::take(&mut walk.events) {
        if let Event::Samples { node, infohashes, .. } = event {
            told.extend(infohashes.into_iter().map(|infohash| (infohash, node)));
        }
    }
    assert_eq!(told.keys().copied().collect::<BTreeSet<_>>(), infohashes, "all, and nothing else");

    for (infohash, node) in told {
        walk.crawler.scrape(walk.fleet.world.now(), infohash, node);
    }
    walk.run(Duration::from_secs(120));
    let sizes: Vec<_> = walk
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Sized { estimate, .. } => Some((estimate.seeds, estimate.downloaders)),
            _ => None,
        })
        .collect();
    let right = sizes.iter().filter(|&&size| size == (3, 2)).count();
    assert!(sizes.len() == infohashes.len() && right * 10 >= sizes.len() * 9, "{sizes:?}");
}
