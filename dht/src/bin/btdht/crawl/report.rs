//! How a crawl gets on, in words and as objects.

use std::time::Duration;

use btdht::crawl::size::SizeEstimate;
use btdht::crawl::{Counters, Status};
use serde_json::{Value, json};

/// Everything that is told of a crawl.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) status: Status,
    pub(super) counters: &'a Counters,
    /// Infohashes that the database did not have.
    pub(super) new: u64,
    /// Infohashes in the database.
    pub(super) total: u64,
    pub(super) elapsed: Duration,
    /// Queries a second since the last report.
    pub(super) rate: f64,
}

impl Report<'_> {
    /// One line of progress.
    pub(super) fn line(&self) -> String {
        let Status { condition, fresh, resting, .. } = self.status;
        let Counters { queries, answered, scrapes, .. } = *self.counters;
        let percent = answered * 100 / queries.max(1);
        let mut line = format!(
            "{} new infohashes, {} in all; nodes: {fresh} to ask, {resting} resting; {queries} queries at \
             {:.1}/s, {percent} % answered",
            self.new, self.total, self.rate
        );
        if scrapes > 0 {
            line += &format!("; {scrapes} sizes asked for");
        }
        for (family, size) in self.sizes() {
            line += &format!("; {}", size_line(family, size));
        }
        match condition.reason() {
            Some(_) => format!("{line}; {}", condition.word()),
            None => line,
        }
    }

    /// The same for machines.
    pub(super) fn json(&self, event: &str) -> Value {
        let status = &self.status;
        let counters: serde_json::Map<_, _> =
            self.counters.iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
        json!({
            "event": event,
            "condition": status.condition.word(),
            "infohashes_new": self.new,
            "infohashes_total": self.total,
            "ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            "rate": (self.rate * 10.0).round() / 10.0,
            "rate_limit": status.rate,
            "fresh": status.fresh,
            "resting": status.resting,
            "silent": status.silent,
            "refused": status.refused,
            "in_flight": status.in_flight,
            "rounds": status.rounds,
            "counters": counters,
            "dht_size": {
                "ipv4": size_json(status.size_v4.as_ref()),
                "ipv6": size_json(status.size_v6.as_ref()),
            },
        })
    }

    fn sizes(&self) -> impl Iterator<Item = (&'static str, &SizeEstimate)> {
        let sizes = [("IPv4", &self.status.size_v4), ("IPv6", &self.status.size_v6)];
        sizes.into_iter().filter_map(|(family, size)| Some((family, size.as_ref()?)))
    }
}

/// An estimate of the DHT's size in words.
pub(super) fn size_line(family: &str, size: &SizeEstimate) -> String {
    let SizeEstimate { nodes, error, points, bits } = size;
    let part = if *bits > 0 { format!(" of a part of {bits} bits") } else { String::new() };
    format!("{family} DHT: {nodes:.0} nodes, give or take {error:.0} ({points} points{part})")
}

/// An estimate of the DHT's size for machines; its standard error and the bounds of 95 of 100 cases.
pub(super) fn size_json(size: Option<&SizeEstimate>) -> Value {
    size.map_or(Value::Null, |size| {
        let (low, high) = size.bounds();
        json!({
            "nodes": size.nodes.round(), "error": size.error.round(), "points": size.points, "bits": size.bits,
            "low": low.round(), "high": high.round(),
        })
    })
}
