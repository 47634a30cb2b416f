//! The crawl itself: runs it on a node, writes what it tells to the database in batches, and says how it
//! gets on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use btdht::Config;
use btdht::addr::source_key;
use btdht::crawl::{Condition, Event, NodeRecord, Standing};
use btdht::net::{Crawl, Error};
use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::args::Walk;
use super::batch::{Batch, Sizes};
use super::db::{Db, Written};
use super::open::Missing;
use super::record::{self, Node, moment, seconds};
use super::report::Report;
use super::task;
use crate::context::Context;
use crate::failure::Failure;
use crate::signals::{Signal, Stop};

/// What has been told is written so often: a kill costs no more.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// Progress is said so often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The same trouble is told again after this.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// A time that is farther ahead was written while the clock was wrong: BEP 51 knows no longer interval.
const LONGEST_REST: u64 = 6 * 3600;
/// Stopping the node takes no longer.
const GOODBYE: Duration = Duration::from_millis(2500);

/// Infohashes that are taken from an answer: BEP 51 nodes send 20, and a datagram has room for some 70.
const SAMPLES: usize = 20;

/// Why a crawl ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What was asked for is done.
    Enough,
    /// Nobody answered within `--timeout`.
    NoAnswer,
    Signal(Signal),
}

pub(super) async fn run(
    walk: &Walk,
    path: PathBuf,
    context: &Context,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let config = config(walk, context)?;
    let cap = walk.max_infohashes;
    let opening = task::blocking(move || {
        let db = Db::open(&path, Missing::Create)?.capped(cap);
        let (total, nodes) = (db.total()?, db.nodes()?);
        Ok((db, total, nodes))
    });
    let (db, total, nodes) = tokio::select! {
        opened = opening => opened?,
        signal = stop.requested() => return Err(Failure::signal(signal)),
    };
    let dht = context.open_to_stay()?;
    let mut crawl = Crawl::start(&dht, &config, walk.target.unwrap_or_default())?;
    let batch = restore(&mut crawl, nodes, &config);
    let mut walker = Walker::new(walk, context, crawl, (Arc::new(db), batch), total);
    let ended = walker.run(stop).await;
    let result = walker.finish(ended).await;
    if timeout(GOODBYE, dht.shutdown()).await.is_err() {
        tracing::warn!("the node is slow to stop");
    }
    result
}

/// The user's limits with those of the command line.
fn config(walk: &Walk, context: &Context) -> Result<Config, Failure> {
    let mut config = context.settings.config.clone();
    if walk.scrape && config.crawl_scrape_share == 0 {
        return Err(Failure::usage("--scrape asks for sizes, and crawl_scrape_share is 0: no query may")
            .hint("leave --scrape out, or let crawl_scrape_share be 1 to 100"));
    }
    config.crawl_rate = walk.rate.unwrap_or(config.crawl_rate);
    config.crawl_max_in_flight = walk.max_in_flight.map_or(config.crawl_max_in_flight, |most| most as usize);
    if !walk.scrape {
        config.crawl_scrape_share = 0;
    }
    Ok(config)
}

/// Gives a crawl the nodes that were kept. What is returned is to be kept otherwise: no time is farther ahead than
/// it can have been meant.
fn restore(crawl: &mut Crawl, nodes: Vec<Node>, config: &Config) -> Batch {
    let (mut batch, now) = (Batch::default(), seconds(SystemTime::now()));
    for node in nodes {
        let longest = match node.standing {
            record::Standing::Refused => config.crawl_refused_rest.as_secs(),
            _ => LONGEST_REST,
        };
        let meant = Node { until: node.until.min(now + longest + 1), ..node };
        if meant != node {
            batch.nodes.insert(source_key(node.addr, config.allow_local), Some(meant));
        }
        crawl.restore(&restored(crawl, &meant));
    }
    batch
}

/// A node as it is kept.
fn kept(crawl: &Crawl, record: NodeRecord) -> Node {
    let NodeRecord { id, addr, standing } = record;
    let until = |time| seconds(crawl.moment(time)) + 1;
    let (standing, until) = match standing {
        Standing::Fresh => (record::Standing::Fresh, 0),
        Standing::Resting(time) => (record::Standing::Resting, until(time)),
        Standing::Silent(time) => (record::Standing::Silent, until(time)),
        Standing::Refused(time) => (record::Standing::Refused, until(time)),
    };
    Node { id, addr, standing, until }
}

/// A node as it was kept. Earlier versions kept those who refused without an end: theirs is over.
fn restored(crawl: &Crawl, node: &Node) -> NodeRecord {
    let until = || crawl.time(moment(node.until));
    let standing = match node.standing {
        record::Standing::Fresh => Standing::Fresh,
        record::Standing::Resting => Standing::Resting(until()),
        record::Standing::Silent => Standing::Silent(until()),
        record::Standing::Refused => Standing::Refused(until()),
    };
    NodeRecord { id: node.id, addr: node.addr, standing }
}

/// A crawl and what is done with what it tells.
struct Walker<'a> {
    walk: &'a Walk,
    context: &'a Context,
    crawl: Crawl,
    db: Arc<Db>,
    batch: Batch,
    writing: Option<JoinHandle<Result<Written, Failure>>>,
    started: Instant,
    /// What was written last of the size of the DHT.
    sizes: Sizes,
    /// Infohashes that the database did not have, and all.
    new: u64,
    total: u64,
    rounds: u64,
    /// When a report was made last, and the queries until then.
    reported: (Instant, u64),
    warned: Option<Instant>,
    troubled: bool,
    /// It was told that the database has no room.
    is_full: bool,
}

impl<'a> Walker<'a> {
    fn new(
        walk: &'a Walk,
        context: &'a Context,
        crawl: Crawl,
        (db, batch): (Arc<Db>, Batch),
        total: u64,
    ) -> Self {
        let started = Instant::now();
        Self {
            walk,
            context,
            crawl,
            db,
            batch,
            writing: None,
            started,
            sizes: [None, None],
            new: 0,
            total,
            rounds: 0,
            reported: (started, 0),
            warned: None,
            troubled: false,
            is_full: false,
        }
    }

    /// Runs until there is a reason to end.
    async fn run(&mut self, stop: &mut Stop) -> Result<End, Failure> {
        let mut writes = interval(WRITE_EVERY);
        let mut reports = interval(REPORT_EVERY);
        writes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reports.tick().await;
        let deadline = after(self.started, self.walk.duration);
        let mut waited = self.started;
        loop {
            if self.is_enough() {
                return Ok(End::Enough);
            }
            let nobody_yet = self.is_unanswered();
            if !nobody_yet {
                // Whoever is asked first after a rest has the whole time to answer.
                waited = Instant::now();
            }
            let patience = after(waited, self.context.flags.timeout);
            tokio::select! {
                signal = stop.requested() => return Ok(End::Signal(signal)),
                () = at(deadline) => return Ok(End::Enough),
                () = at(patience), if nobody_yet => return Ok(End::NoAnswer),
                written = done(&mut self.writing) => self.written(written)?,
                _ = writes.tick(), if self.writing.is_none() => self.write(),
                _ = reports.tick() => self.report()?,
                event = self.crawl.next(), if !self.batch.is_full() => {
                    self.take(event.ok_or(Error::Stopped)?)?;
                    if self.batch.is_full() && self.writing.is_none() {
                        self.write();
                    }
                }
            }
        }
    }

    /// Whether nobody answers: where all who are known from an earlier run rest, nobody was asked.
    fn is_unanswered(&self) -> bool {
        let counters = self.crawl.counters();
        counters.answered == 0 && (counters.queries > 0 || self.crawl.status().resting == 0)
    }

    fn is_enough(&self) -> bool {
        self.walk.limit.is_some_and(|limit| self.new >= limit)
            || self.walk.rounds.is_some_and(|rounds| self.rounds >= rounds) && self.is_settled()
    }

    /// Whether all that was told is written, and all sizes that are wanted are known.
    fn is_settled(&self) -> bool {
        let idle = self.batch.is_empty() && self.writing.is_none();
        !self.walk.scrape || idle && self.crawl.status().scrapes == 0
    }

    fn take(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Samples { node, source, infohashes, .. } => {
                let some = infohashes.into_iter().take(SAMPLES);
                self.batch.told.extend(some.map(|infohash| (infohash, node, source)));
            }
            Event::Sized { infohash, estimate } => {
                self.batch.sized.push((infohash, estimate));
                if estimate.nodes > 0 {
                    let (seeds, downloaders) = (estimate.seeds, estimate.downloaders);
                    self.context.out.say_json(|| {
                        json!({
                            "event": "size", "infohash": infohash.to_string(), "seeds": seeds,
                            "downloaders": downloaders, "nodes": estimate.nodes,
                        })
                    })?;
                }
            }
            Event::Node { source, record } => {
                let node = record.map(|record| kept(&self.crawl, record));
                self.batch.nodes.insert(source, node);
            }
            Event::Condition(condition) => self.warn(condition)?,
            Event::RoundOver { rounds } => self.rounds = rounds,
        }
        Ok(())
    }

    /// Begins to write what has been told.
    fn write(&mut self) {
        if self.is_written() {
            return;
        }
        self.sizes = self.sizes_now();
        let batch = Batch { sizes: self.sizes, ..std::mem::take(&mut self.batch) };
        let (db, now) = (Arc::clone(&self.db), seconds(SystemTime::now()));
        self.writing = Some(spawn_blocking(move || db.write(now, &batch)));
    }

    fn sizes_now(&self) -> Sizes {
        let status = self.crawl.status();
        [status.size_v4, status.size_v6]
    }

    /// Whether nothing is left to be written.
    fn is_written(&self) -> bool {
        self.batch.is_empty() && self.sizes == self.sizes_now()
    }

    /// A batch is on the disk: now it may be told.
    fn written(&mut self, written: Result<Written, Failure>) -> Result<(), Failure> {
        self.writing = None;
        // A failure of the database leaves nothing to write to.
        let written = written.inspect_err(|_| {
            (self.batch, self.sizes) = (Batch::default(), self.sizes_now());
        })?;
        self.total = written.total;
        if written.refused > 0 && !std::mem::replace(&mut self.is_full, true) {
            let most = self.walk.max_infohashes;
            self.context.out.say_json(|| json!({"event": "full", "max_infohashes": most}))?;
            tracing::warn!(most, "the database is full: new infohashes are dropped (--max-infohashes)");
        }
        for (infohash, node) in &written.new {
            self.new += 1;
            self.context.out.say_json(
                || json!({"event": "infohash", "infohash": infohash.to_string(), "node": node.to_string()}),
            )?;
        }
        if self.walk.scrape {
            for (infohash, node) in written.unsized_ {
                self.crawl.scrape(infohash, node);
            }
        }
        Ok(())
    }

    /// Tells trouble, and that it is over, at most once a minute.
    fn warn(&mut self, condition: Condition) -> Result<(), Failure> {
        self.context.out.say_json(
            || json!({"event": "condition", "condition": condition.word(), "reason": condition.reason()}),
        )?;
        match (condition, condition.reason()) {
            (Condition::Slowed | Condition::Unanswered | Condition::Full, Some(reason)) => {
                if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    tracing::warn!(rate = self.crawl.status().rate, "{reason}");
                    (self.warned, self.troubled) = (Some(Instant::now()), true);
                }
            }
            (Condition::Walking, _) if std::mem::take(&mut self.troubled) => {
                tracing::warn!(rate = self.crawl.status().rate, "the crawl has recovered");
            }
            (_, reason) => tracing::info!(reason, "condition: {}", condition.word()),
        }
        Ok(())
    }

    fn report(&mut self) -> Result<(), Failure> {
        let report = self.report_now();
        self.context.out.say_json(|| report.json("progress"))?;
        if !self.context.flags.quiet {
            // Nobody may be left to read it.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", report.line()));
        }
        self.reported = (Instant::now(), self.crawl.counters().queries);
        Ok(())
    }

    fn report_now(&self) -> Report<'_> {
        let (since, before) = self.reported;
        let queries = self.crawl.counters().queries - before;
        Report {
            status: self.crawl.status(),
            counters: self.crawl.counters(),
            new: self.new,
            total: self.total,
            elapsed: self.started.elapsed(),
            rate: queries as f64 / since.elapsed().as_secs_f64().max(0.001),
        }
    }

    /// Writes what is left, and says how it went.
    async fn finish(mut self, mut ended: Result<End, Failure>) -> Result<(), Failure> {
        // Whatever the end: where nobody reads the output any more, what was found is kept all the same.
        loop {
            if self.writing.is_some() {
                let written = done(&mut self.writing).await;
                let told = self.written(written);
                ended = ended.and_then(|end| told.map(|()| end));
            } else if self.is_written() {
                break;
            } else {
                self.write();
            }
        }
        let end = ended?;
        self.reported = (self.started, 0);
        let is_unanswered = self.is_unanswered();
        let report = self.report_now();
        self.context.out.say(|| report.json("done"), || report.line())?;
        match end {
            End::Signal(signal) => Err(Failure::signal(signal)),
            End::NoAnswer => Err(Failure::nothing("crawling: nobody answered before the timeout")
                .hint("is UDP blocked here? --bootstrap HOST:PORT asks another router")),
            End::Enough if is_unanswered && self.rounds == 0 => {
                Err(Failure::nothing("crawling: nobody answered")
                    .hint("is UDP blocked here? --bootstrap HOST:PORT asks another router"))
            }
            End::Enough if self.total == 0 => Err(Failure::nothing("crawling: nobody told an infohash")),
            End::Enough => Ok(()),
        }
    }
}

/// When a span is over; never, if that is beyond all that a clock can show.
fn after(start: Instant, span: Option<Duration>) -> Option<Instant> {
    start.checked_add(span?)
}

/// Waits until then, or for ever.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Waits for a batch that is being written, or for ever. Cancel safe.
async fn done(writing: &mut Option<JoinHandle<Result<Written, Failure>>>) -> Result<Written, Failure> {
    match writing {
        Some(task) => task::joined(task.await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use btdht::crawl::Region;
    use btdht::net::{Dht, Options};
    use krpc::Id;

    use super::*;

    #[test]
    fn a_span_that_no_clock_can_show_is_for_ever() {
        let now = Instant::now();
        assert_eq!(after(now, None), None);
        assert_eq!(after(now, Some(WRITE_EVERY)), Some(now + WRITE_EVERY));
        assert_eq!(after(now, Some(Duration::MAX)), None);
    }

    #[tokio::test]
    async fn a_time_that_cannot_have_been_meant_is_corrected_and_kept_so() {
        let options = Options::loopback([]);
        let dht = Dht::bind(options.clone()).unwrap();
        let mut crawl = Crawl::start(&dht, &options.config, Region::WHOLE).unwrap();
        let now = seconds(SystemTime::now());
        let node = |n: u8, until| Node {
            id: Id::new([n; 20]),
            addr: ([127, 0, 0, 1], 1000 + u16::from(n)).into(),
            standing: record::Standing::Resting,
            until,
        };
        let nodes = vec![node(1, now + 600), node(2, now + 2 * LONGEST_REST), node(3, u64::MAX)];
        let batch = restore(&mut crawl, nodes, &options.config);
        let kept: Vec<_> = batch.nodes.values().flatten().map(|node| node.addr.port()).collect();
        assert_eq!((kept, crawl.status().resting), (vec![1002, 1003], 3));
        let latest = now + LONGEST_REST;
        assert!(batch.nodes.values().flatten().all(|node| (latest..latest + 60).contains(&node.until)));
        assert!(crawl.status().next_due <= crawl.time(moment(now + 601)));
    }

    #[tokio::test]
    async fn a_refusal_ends_after_a_day_also_one_that_was_kept_without_an_end() {
        let options = Options::loopback([]);
        let dht = Dht::bind(options.clone()).unwrap();
        let mut crawl = Crawl::start(&dht, &options.config, Region::WHOLE).unwrap();
        let (now, day) = (seconds(SystemTime::now()), 24 * 3600);
        let addr = |n: u16| ([127, 0, 0, 1], 1000 + n).into();
        let refused =
            |n, until| Node { id: Id::ZERO, addr: addr(n), standing: record::Standing::Refused, until };
        // It is written as it is to be read again.
        let until = crawl.time(moment(now + day));
        let record = NodeRecord { id: Id::ZERO, addr: addr(1), standing: Standing::Refused(until) };
        let written = kept(&crawl, record);
        assert!(
            written.until.abs_diff(now + day) <= 2 && written == refused(1, written.until),
            "{written:?}"
        );
        let batch = restore(&mut crawl, vec![refused(0, 0), written, refused(2, u64::MAX)], &options.config);
        let changed: Vec<_> = batch.nodes.values().flatten().map(|node| node.addr.port()).collect();
        assert_eq!((changed, crawl.status().refused), (vec![1002], 2));
        assert!(batch.nodes.values().flatten().all(|node| node.until.abs_diff(now + day) < 60));
        let source = source_key(addr(0), true);
        let told = async { while crawl.next().await != Some(Event::Node { source, record: None }) {} };
        timeout(Duration::from_secs(60), told).await.expect("the database is told that it is forgotten");
    }
}
