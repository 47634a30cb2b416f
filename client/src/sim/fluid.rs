//! [`Filling`]: max-min fair shares of what hosts can send and receive, by progressive filling.
//!
//! The rates of all flows grow together. A flow stops when it has what it can use, or when the line of
//! its sender or of its receiver is full; the others go on. So no flow could have more without taking
//! from one that has no more than itself, which is what many TCP connections come to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bytes under way from one host to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    /// The sender's index.
    pub(super) from: u32,
    /// The receiver's index.
    pub(super) to: u32,
    /// The most that it can use.
    pub(super) demand: u64,
    /// What it gets: set by [`Filling::fill`].
    pub(super) share: u64,
}

/// What is needed to share lines out; kept from one time to the next for its memory alone.
#[derive(Debug, Default)]
pub(super) struct Filling {
    /// Two a host: what it sends, what it receives.
    lines: Vec<Line>,
    /// The flows of each line, one line after the other.
    members: Vec<u32>,
    settled: Vec<bool>,
    by_demand: Vec<u32>,
    full: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    left: u64,
    /// Flows that still grow.
    open: u64,
    /// Where its flows begin in `members`.
    start: u32,
    end: u32,
}

impl Filling {
    /// Sets the share of each flow. `lines` tells for each host what it can send and receive. Takes
    /// O(n log n) steps for n flows and hosts; remainders of divisions go to nobody.
    pub(super) fn fill(&mut self, flows: &mut [Flow], lines: impl Iterator<Item = (u64, u64)>) {
        self.prepare(flows, lines);
        let mut next = 0;
        while let Some(&Reverse((level, index))) = self.full.peek() {
            let line = self.lines[index as usize];
            let Some(now) = line.left.checked_div(line.open) else {
                self.full.pop();
                continue;
            };
            if now > level {
                // Flows that need less have stopped meanwhile.
                self.full.pop();
                self.full.push(Reverse((now, index)));
                continue;
            }
            let least = self.by_demand.get(next).copied();
            if let Some(flow) = least.filter(|&flow| flows[flow as usize].demand <= level) {
                next += 1;
                self.settle(flows, flow, flows[flow as usize].demand);
                continue;
            }
            self.full.pop();
            for at in line.start..line.end {
                self.settle(flows, self.members[at as usize], level);
            }
        }
    }

    fn prepare(&mut self, flows: &[Flow], lines: impl Iterator<Item = (u64, u64)>) {
        self.lines.clear();
        for (up, down) in lines {
            self.lines.extend([up, down].map(|left| Line { left, ..Line::default() }));
        }
        for flow in flows {
            ends(flow).iter().for_each(|&line| self.lines[line].open += 1);
        }
        let mut start = 0;
        for line in &mut self.lines {
            (line.start, line.end) = (start, start);
            start += line.open as u32;
        }
        self.members.clear();
        self.members.resize(start as usize, 0);
        for (index, flow) in (0..).zip(flows) {
            for line in ends(flow) {
                let line = &mut self.lines[line];
                self.members[line.end as usize] = index;
                line.end += 1;
            }
        }
        self.settled.clear();
        self.settled.resize(flows.len(), false);
        self.by_demand.clear();
        self.by_demand.extend(0..flows.len() as u32);
        self.by_demand.sort_unstable_by_key(|&index| (flows[index as usize].demand, index));
        self.full.clear();
        let levels = (0..)
            .zip(&self.lines)
            .filter_map(|(index, line)| Some(Reverse((line.left.checked_div(line.open)?, index))));
        self.full.extend(levels);
    }

    fn settle(&mut self, flows: &mut [Flow], index: u32, share: u64) {
        if std::mem::replace(&mut self.settled[index as usize], true) {
            return;
        }
        let flow = &mut flows[index as usize];
        flow.share = share;
        for line in ends(flow) {
            let line = &mut self.lines[line];
            line.left -= share;
            line.open -= 1;
        }
    }
}

fn ends(flow: &Flow) -> [usize; 2] {
    [2 * flow.from as usize, 2 * flow.to as usize + 1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(lines: &[(u64, u64)], flows: &[(u32, u32, u64)]) -> Vec<u64> {
        let mut flows: Vec<_> =
            flows.iter().map(|&(from, to, demand)| Flow { from, to, demand, share: 0 }).collect();
        Filling::default().fill(&mut flows, lines.iter().copied());
        flows.iter().map(|flow| flow.share).collect()
    }

    #[test]
    fn what_one_flow_cannot_use_goes_to_the_others() {
        let lines = [(100, 100), (100, 100), (100, 10), (100, 100)];
        assert_eq!(shares(&lines, &[(0, 1, 900), (0, 3, 900)]), [50, 50]);
        assert_eq!(shares(&lines, &[(0, 1, 20), (0, 3, 900)]), [20, 80]);
        assert_eq!(shares(&lines, &[(0, 1, 900), (0, 2, 900), (3, 1, 900)]), [50, 10, 50]);
        assert_eq!(shares(&lines, &[(0, 1, 0)]), [0]);
        assert!(shares(&lines, &[]).is_empty());
    }

    proptest! {
        #[test]
        fn no_flow_could_have_more_but_of_one_that_has_no_more(
            lines in prop::collection::vec((0u64..5000, 0u64..5000), 6),
            flows in prop::collection::vec((0u32..6, 0u32..6, 0u64..3000), 0..40),
        ) {
            let shares = shares(&lines, &flows);
            let of = |host: u32, end: usize| -> Vec<u64> {
                let is = |flow: &(u32, u32, u64)| [flow.0, flow.1][end] == host;
                flows.iter().zip(&shares).filter(|(flow, _)| is(flow)).map(|(_, &share)| share).collect()
            };
            for (&(from, to, demand), &share) in flows.iter().zip(&shares) {
                prop_assert!(share <= demand);
                let binds = |host: u32, end: usize, most: u64| {
                    let all = of(host, end);
                    let sum: u64 = all.iter().sum();
                    // Remainders: less than one a flow at each level.
                    let slack = (all.len() * all.len()) as u64;
                    (sum <= most, sum + slack >= most && all.iter().all(|&other| other <= share + slack))
                };
                let (up, down) = (binds(from, 0, lines[from as usize].0), binds(to, 1, lines[to as usize].1));
                prop_assert!(up.0 && down.0, "a line carries more than it can");
                prop_assert!(share == demand || up.1 || down.1, "{from} {to} {demand}: {share}");
            }
        }
    }
}
