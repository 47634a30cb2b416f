//! `btdht doctor`: why am I not finding peers?
//!
//! Runs a node of its own for some seconds, asks every router by name and some of the nodes that an earlier
//! run saved, looks for its own id and for a random one, and lets [`btdht::diagnosis`] judge what was seen. How it is shown is in `report`.

mod report;
mod saved;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use btdht::diagnosis::{
    ClockFacts, Facts, LookupFacts, RouterFacts, Severity, SocketFacts, StateFacts, diagnose,
};
use btdht::net::{Clock, Dht, SocketStats, State, Stats};
use btdht::{BucketFill, Event, LookupStats};
use krpc::{Id, Want};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::context::Context;
use crate::failure::Failure;
use crate::random::rng;

/// Find out why no peers are found
#[derive(clap::Args)]
#[command(after_help = "\
Runs a node for up to --timeout (20) seconds, asks all routers and some of the saved nodes, looks for two \
ids, and says in words what is wrong and what to do about it. The node answers queries, to see whether others reach it: --port \
takes the port that you have forwarded. Nothing is written.

Exit code 0 when the DHT works, 4 when nobody answered, 1 for other problems.

Example: btdht doctor --port 6881")]
pub(crate) struct Args {}

/// Addresses asked of one router.
const ADDRESSES: usize = 4;
/// A name server that says nothing is given up after this.
const RESOLVING: Duration = Duration::from_secs(5);
/// How often we look at the counters.
const POLL: Duration = Duration::from_millis(200);
/// Looks in a row without a new node after which the table counts as filled.
const CALM: u32 = 10;

pub(crate) async fn run(_: &Args, context: &Context) -> Result<(), Failure> {
    let facts = examine(context).await?;
    let verdict = diagnose(&facts);
    report::say(&facts, &verdict, &context.out)?;
    match verdict.severity() {
        Severity::Silence => Err(Failure::nothing("nobody answered")),
        Severity::Problem => Err(Failure::other("peers are not found as they should be")),
        Severity::Warning | Severity::Note => Ok(()),
    }
}

/// Runs a node and watches.
async fn examine(context: &Context) -> Result<Facts, Failure> {
    let (mut state, saved) = saved::look(context);
    let (clock, wall) = (Clock::start(), SystemTime::now());
    let (started, from) = (Instant::now(), clock.now());
    let deadline = started + context.timeout(Duration::from_secs(20));
    let dht = open(context)?;
    for (addr, id) in dht.local_addrs().zip(dht.ids()) {
        context.out.note_plain(|| format!("listening on {addr} as {id}"))?;
    }
    let watched = dht.clone();
    let mut bootstrapped = tokio::spawn(async move {
        watched.bootstrapped().await.ok()?;
        Some(started.elapsed())
    });
    let (routers, lookups, living) = tokio::join!(
        ask_routers(context, &dht, deadline),
        look(context, &dht, (started, deadline)),
        saved::ask(context, &dht, saved, deadline)
    );
    let (routers, lookups) = (routers?, lookups?);
    if let StateFacts::Readable { asked, answered, silent, .. } = &mut state {
        let living = living?;
        (*asked, *answered, *silent) = (living.asked, living.answered, living.silent);
    }
    let until = if heard(&routers, &lookups, &state) { deadline } else { Instant::now() };
    let took = timeout_at(until, &mut bootstrapped).await.ok().and_then(Result::ok).flatten();
    bootstrapped.abort();
    let told = match took {
        Some(took) => format!("bootstrapped in {:.1} s", took.as_secs_f64()),
        None => "not bootstrapped".into(),
    };
    context.out.note_plain(|| told)?;
    let stats = listen(context, &dht, until).await?;
    let drift = {
        let (ran, passed) = (clock.now().since(from), SystemTime::now().duration_since(wall));
        passed.map_or_else(|back| back.duration() + ran, |passed| passed.abs_diff(ran))
    };
    Ok(Facts {
        ran: started.elapsed(),
        k: context.settings.config.k,
        allow_local: context.settings.config.allow_local,
        sockets: sockets(&stats),
        routers,
        bootstrapped: took,
        counters: stats.counters,
        lookups,
        state,
        clock: ClockFacts { year: year(wall), drift },
    })
}

/// Whether anybody answered. Without a single answer there is nothing to wait for.
fn heard(routers: &[RouterFacts], lookups: &[LookupFacts], state: &StateFacts) -> bool {
    routers.iter().any(|router| router.answered.is_some())
        || lookups.iter().any(|lookup| lookup.answered > 0)
        || matches!(state, StateFacts::Readable { answered: 1.., .. })
}

/// A node that reads saved nodes as other verbs do but answers queries: whether any come is one of
/// the questions.
fn open(context: &Context) -> Result<Dht, Failure> {
    let state = context.settings.folders.state.clone().map_or(State::Nothing, State::Read);
    let mut options = context.options(context.settings.listen.port.unwrap_or(0), state);
    options.config.read_only = btdht::ReadOnly::No;
    Ok(Dht::bind(options)?)
}

/// Asks every address of every router for nodes, all at once.
async fn ask_routers(context: &Context, dht: &Dht, deadline: Instant) -> Result<Vec<RouterFacts>, Failure> {
    let mut asking = JoinSet::new();
    for (index, name) in context.settings.routers.iter().cloned().enumerate() {
        let dht = dht.clone();
        asking.spawn(async move { (index, timeout_at(deadline, ask_router(&dht, &name)).await.ok(), name) });
    }
    let mut routers = Vec::new();
    while let Some(asked) = asking.join_next().await {
        let Ok((index, facts, name)) = asked else { continue };
        let unknown = RouterFacts { name, addresses: Vec::new(), answered: None };
        routers.push((index, facts.unwrap_or(unknown)));
    }
    routers.sort_by_key(|(index, _)| *index);
    let routers: Vec<_> = routers.into_iter().map(|(_, router)| router).collect();
    let resolved = routers.iter().filter(|router| !router.addresses.is_empty()).count();
    let answered = routers.iter().filter(|router| router.answered.is_some()).count();
    let all = routers.len();
    context.out.note_plain(|| format!("{all} routers, {resolved} resolved, {answered} answered"))?;
    Ok(routers)
}

async fn ask_router(dht: &Dht, name: &str) -> RouterFacts {
    let found = timeout(RESOLVING, btdht::net::lookup(name)).await;
    let mut addresses = found.ok().and_then(Result::ok).unwrap_or_default();
    addresses.retain(|addr| dht.local_addrs().any(|local| local.is_ipv4() == addr.is_ipv4()));
    addresses.truncate(ADDRESSES);
    let own = dht.ids().next().unwrap_or(Id::ZERO);
    let mut asking = JoinSet::new();
    for &addr in &addresses {
        let dht = dht.clone();
        asking.spawn(async move { dht.ask_nodes(addr, own, Want::UNSPECIFIED).await });
    }
    let mut answered: Option<(SocketAddr, Duration)> = None;
    while let Some(asked) = asking.join_next().await {
        if let Ok(Ok(Some(answer))) = asked
            && answered.is_none_or(|(_, rtt)| answer.rtt < rtt)
        {
            answered = Some((answer.from, answer.rtt));
        }
    }
    RouterFacts { name: name.escape_debug().to_string(), addresses, answered }
}

/// Looks for our own id and, if that got an answer, for a random one.
async fn look(
    context: &Context,
    dht: &Dht,
    (started, deadline): (Instant, Instant),
) -> Result<Vec<LookupFacts>, Failure> {
    // A node that knows nobody by then will not: the names have failed.
    if timeout_at(deadline.min(started + RESOLVING), dht.ready()).await.is_err() {
        return Ok(Vec::new());
    }
    let own = dht.ids().next().unwrap_or(Id::ZERO);
    let mut lookups = vec![look_for(dht, ("our own id", own), deadline).await?];
    if lookups[0].answered > 0 {
        lookups.push(look_for(dht, ("a random id", rng()?.id()), deadline).await?);
    }
    for lookup in &lookups {
        let LookupFacts { what, queries, answered, .. } = lookup;
        context.out.note_plain(|| format!("looked for {what}: {answered} of {queries} queries answered"))?;
    }
    Ok(lookups)
}

async fn look_for(
    dht: &Dht,
    (what, target): (&'static str, Id),
    deadline: Instant,
) -> Result<LookupFacts, Failure> {
    let started = Instant::now();
    let mut lookup = dht.find_node(target, false).await?;
    let done = async {
        loop {
            match lookup.next().await {
                Some(Event::Done { outcome, stats, closest, .. }) => {
                    return Some((outcome, stats, closest.len()));
                }
                Some(_) => {}
                None => return None,
            }
        }
    };
    let done = timeout_at(deadline, done).await.ok().flatten();
    let (outcome, stats, closest) = match done {
        Some((outcome, stats, closest)) => (Some(outcome), stats, closest),
        None => (None, LookupStats::default(), 0),
    };
    let LookupStats { queries, answered, hops, .. } = stats;
    Ok(LookupFacts { what, outcome, queries, answered, hops, closest, elapsed: started.elapsed() })
}

/// Waits until a stranger has asked us something and the table has stopped to grow, and copies the
/// counters.
async fn listen(context: &Context, dht: &Dht, until: Instant) -> Result<Stats, Failure> {
    if Instant::now() < until {
        context.out.note_plain(|| "waiting for the table to fill, and for queries of other nodes".into())?;
    }
    let nodes = |stats: &Stats| stats.sockets.iter().map(|socket| socket.home.nodes).sum::<usize>();
    let config = &context.settings.config;
    let mut stats = dht.stats().await?;
    let mut calm = 0;
    while Instant::now() < until {
        // On one machine nobody is a stranger.
        let reached = config.allow_local || stats.sockets.iter().any(|s| s.home.last_unsolicited.is_some());
        let enough = reached && stats.counters.queries_in() > 0 && nodes(&stats) >= config.k;
        if enough && calm >= CALM {
            break;
        }
        sleep(POLL).await;
        let before = nodes(&stats);
        stats = dht.stats().await?;
        calm = if nodes(&stats) > before { 0 } else { calm + 1 };
    }
    Ok(stats)
}

fn sockets(stats: &Stats) -> Vec<SocketFacts> {
    let of = |(socket, buckets): (&SocketStats, &Vec<BucketFill>)| {
        let (home, udp) = (&socket.home, &socket.counters.udp);
        SocketFacts {
            local: home.local,
            id: home.id,
            nodes: home.nodes,
            trusty: home.trusty,
            bad: buckets.iter().map(|bucket| bucket.bad).sum(),
            buckets: buckets.clone(),
            candidates: home.candidates,
            median_rtt: home.median_rtt,
            sent: udp.sent,
            refused: udp.send_errors,
            received: udp.received,
            external: home.external,
            votes: home.votes.clone(),
            reached: home.last_unsolicited,
            insecure: home.insecure,
        }
    };
    stats.sockets.iter().zip(&stats.buckets).map(of).collect()
}

/// The year of a wall clock, wrong by a day at its turn.
fn year(wall: SystemTime) -> i64 {
    const YEAR: i64 = 31_556_952;
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match wall.duration_since(UNIX_EPOCH) {
        Ok(since) => 1970 + seconds(since) / YEAR,
        Err(before) => 1969 - seconds(before.duration()) / YEAR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start from saved nodes whose lookups were too late.
    #[test]
    fn saved_nodes_that_answer_are_reason_enough_to_wait() {
        let saved = |answered| StateFacts::Readable {
            nodes: 9,
            in_use: false,
            age: None,
            asked: 9,
            answered,
            silent: 9 - answered,
        };
        let router = RouterFacts { name: "a.invalid:1".into(), addresses: Vec::new(), answered: None };
        let at = |answered: bool| {
            let addr = SocketAddr::from(([81, 2, 3, 4], 6881));
            RouterFacts { answered: answered.then_some((addr, Duration::ZERO)), ..router.clone() }
        };
        assert!(heard(&[at(false)], &[], &saved(1)));
        assert!(heard(&[at(true)], &[], &saved(0)));
        assert!(!heard(&[at(false)], &[], &saved(0)) && !heard(&[], &[], &StateFacts::Missing));
    }

    #[test]
    fn years_are_told_before_and_after_the_epoch() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!((year(at(0)), year(at(1_790_000_000))), (1970, 2026));
        assert_eq!(year(UNIX_EPOCH - Duration::from_secs(86_400)), 1969);
    }
}
