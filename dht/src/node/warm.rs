//! What a virtual network has a node read ahead of its next input; see [`crate::sim::Host::warm`]. It is a
//! choice of fields some 64 bytes apart: which of them lie in one cache line is the compiler's business,
//! and one more costs little.

use super::Node;
use crate::home::Place;

impl Node {
    /// Reads what most inputs need: of the node with a `depth` of 0, of its boxes with 1, and of its table
    /// with 2. The number that comes out means nothing.
    pub(crate) fn warm(&self, depth: usize) -> u64 {
        match depth {
            0 => self.warm_own(),
            1 => {
                let upkeep = self.maintain.timeout().min(self.rpc.timeout());
                upkeep.as_micros() ^ self.places.first().map_or(0, warm_place)
            }
            _ => self.guard.warm() ^ self.places.first().map_or(0, warm_boxes),
        }
    }

    fn warm_own(&self) -> u64 {
        let times = [self.timeout, self.tokens.timeout(), self.store.timeout()];
        let counters = &self.counters;
        let counts = [
            counters.datagrams_in,
            counters.dropped_read_only,
            counters.queries_find_node,
            counters.replies_in,
            counters.nodes_inserted,
            counters.lookups_failed,
        ];
        let sum = times.into_iter().fold(self.places.len() as u64, |sum, time| sum ^ time.as_micros());
        counts.into_iter().fold(sum, |sum, count| sum ^ u64::from(count))
    }
}

fn warm_place(place: &Place) -> u64 {
    let flags = [place.reach.is_read_only(), place.line.is_lost(), place.external.ip().is_some()];
    let sum = flags.into_iter().fold(place.table.len() as u64, |sum, flag| sum << 1 ^ u64::from(flag));
    sum ^ place.reach.timeout().as_micros() ^ u64::from(place.local.port()) ^ place.saved.len() as u64
}

fn warm_boxes(place: &Place) -> u64 {
    place.table.warm() ^ place.reach.warm() ^ place.external.warm()
}
