//! Reality check: the same nodes with the same ids, tables and lines on sockets and in the simulator. Both
//! make the same lookups, and what those came to is compared: by counts, so that a slow machine does not
//! matter. Where they differ, the simulator is wrong.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::simulated::world;
use super::{Options, Testnet};
use crate::net::Dht;
use crate::sim::{Links, World};
use crate::{Announce, Command, Config, Event, LookupId, LookupStats, Node, Outcome, Rng};

const NODES: usize = 200;
const LOOKUPS: usize = 60;
/// Lookups that run together: few enough for a busy machine to keep up with them.
const AT_ONCE: usize = 6;
/// Bounds of the time from one node to another.
const LATENCY: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(40);
/// Percent of the datagrams that are lost.
const LOSS: u32 = 3;
/// No run takes anywhere near as long; what does is stuck.
const GUARD: Duration = Duration::from_secs(120);
const SEED: u64 = 11;

/// Who looks for what, some at a time.
type Turns = Vec<Vec<(usize, Command)>>;

/// How a lookup ended.
#[derive(Debug)]
struct Ended {
    outcome: Outcome,
    stats: LookupStats,
    stored: u32,
}

/// What many lookups came to.
#[derive(Debug, PartialEq)]
struct Tally {
    /// Lookups that ended well, of a thousand.
    converged: u32,
    /// That found the peer, of a thousand; of announces, of a thousand stores by eight nodes each.
    found: u32,
    /// Hops, in the mean of a thousand.
    hops: u32,
    /// Queries, in the mean of ten.
    queries: u32,
    /// Answers to a thousand queries.
    answered: u32,
}

fn options() -> Options {
    // Only with narrow buckets a lookup among so few nodes takes hops, and only without a least number of
    // queries does it end when it has converged.
    let config = Config { wide_buckets: Vec::new(), lookup_min_queries: 0, ..Options::default().config };
    Options { nodes: NODES, seed: SEED, latency: LATENCY, loss: LOSS, config, ..Options::default() }
}

/// A log-normal distribution with the mean and the deviation of the even one on sockets, to a tenth of a
/// millisecond.
fn links() -> Links {
    Links {
        rtt_median: Duration::from_millis(47),
        rtt_sigma_permille: 337,
        rtt_hosts_permille: 0,
        minimum: Duration::from_millis(1),
        jitter_permille: 0,
        loss_ppm: LOSS * 10_000,
        ..Links::default()
    }
}

/// Each infohash is announced by one node and then looked for by another.
fn scenario() -> [Turns; 2] {
    let mut rng = Rng::from_seed(SEED);
    let infohashes: Vec<_> = (0..LOOKUPS).map(|_| rng.id()).collect();
    let mut turns = |announce| {
        let command = |&infohash| {
            let node = rng.below(NODES);
            (node, Command::GetPeers { infohash, announce, trace: false })
        };
        let all: Vec<_> = infohashes.iter().map(command).collect();
        all.chunks(AT_ONCE).map(<[_]>::to_vec).collect()
    };
    [turns(Some(Announce { port: 7777, implied: false, seed: false })), turns(None)]
}

async fn on_sockets(turns: Turns, nodes: &[Dht]) -> Tally {
    let mut ended = Vec::new();
    for turn in turns {
        let mut running = Vec::new();
        for (node, command) in turn {
            running.push(nodes[node].start(command).await.unwrap());
        }
        for mut lookup in running {
            let mut stored = 0;
            while let Some(event) = lookup.next().await {
                match event {
                    Event::Stored { .. } => stored += 1,
                    Event::Done { outcome, stats, .. } => ended.push(Ended { outcome, stats, stored }),
                    _ => {}
                }
            }
        }
    }
    Tally::of(&ended)
}

fn in_the_simulator(turns: Turns, world: &mut World<Node>) -> Tally {
    let mut ended = Vec::new();
    for turn in turns {
        let mut running: Vec<(usize, Option<LookupId>, u32)> = Vec::new();
        for (host, command) in turn {
            let name = world.act(host, |now, node, out| node.handle_command(now, command, out));
            running.push((host, name, 0));
        }
        while !running.is_empty() {
            world.run(world.now() + Duration::from_millis(100), |_, told| {
                let is_it = |(host, name, _): &(usize, Option<LookupId>, u32)| {
                    *host == told.host && told.event.lookup() == *name
                };
                let Some(index) = running.iter().position(is_it) else { return };
                match told.event {
                    Event::Stored { .. } => running[index].2 += 1,
                    Event::Done { outcome, stats, .. } => {
                        let (.., stored) = running.remove(index);
                        ended.push(Ended { outcome, stats, stored });
                    }
                    _ => {}
                }
            });
        }
    }
    Tally::of(&ended)
}

impl Tally {
    fn of(ended: &[Ended]) -> Self {
        assert_eq!(ended.len(), LOOKUPS);
        let sum = |of: &dyn Fn(&Ended) -> u32| ended.iter().map(of).sum::<u32>();
        let queries = sum(&|lookup| lookup.stats.queries);
        let count = LOOKUPS as u32;
        Self {
            converged: 1000 * sum(&|lookup| u32::from(lookup.outcome == Outcome::Converged)) / count,
            found: 1000 * sum(&|lookup| lookup.stored + 8 * u32::from(lookup.stats.peers > 0)) / (8 * count),
            hops: 1000 * sum(&|lookup| u32::from(lookup.stats.hops)) / count,
            queries: 10 * queries / count,
            answered: 1000 * sum(&|lookup| lookup.stats.answered) / queries,
        }
    }
}

/// Whether two counts differ by no more than that.
fn agree(a: u32, b: u32, most: u32) -> bool {
    a.abs_diff(b) <= most
}

#[tokio::test]
async fn lookups_on_sockets_and_in_the_simulator_come_to_the_same() {
    let mut world = world(&options(), links());
    let net = Testnet::start(options()).await.unwrap();
    for (what, turns) in ["announces", "lookups"].into_iter().zip(scenario()) {
        let simulated = in_the_simulator(turns.clone(), &mut world);
        let run = tokio::time::timeout(GUARD, on_sockets(turns, net.nodes()));
        let real = run.await.expect("long before the guard");
        println!("{what}: simulated {simulated:?}, real {real:?}");
        assert!(agree(simulated.converged, real.converged, 20), "{what}: {simulated:?} {real:?}");
        assert!(agree(simulated.found, real.found, 25), "{what}: {simulated:?} {real:?}");
        assert!(agree(simulated.hops, real.hops, 200), "{what}: {simulated:?} {real:?}");
        assert!(
            agree(simulated.queries, real.queries, simulated.queries / 10),
            "{what}: {simulated:?} {real:?}"
        );
        assert!(agree(simulated.answered, real.answered, 40), "{what}: {simulated:?} {real:?}");
        // Both are right, and not merely wrong alike.
        assert!(real.found >= 960 && (1000..1700).contains(&real.hops), "{what}: {real:?}");
    }
}
