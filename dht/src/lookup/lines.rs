//! [`Lines`]: how much a search has to do with each of its lines, which are the nodes to which it came over
//! referrals that began at the same node.
//!
//! Nodes that name others ever nearer to the target, without end, would have every query and every place
//! of a lookup: all that is nearer comes first. They do not make up all that a search begins with, though. So
//! when there are too many candidates the longest line loses some, and a search that has sent more queries than an
//! honest network wants gives every second one to the line that had fewest (as the disjoint paths of S/Kademlia
//! would from the start, at a multiple of the queries). Whoever is named in two lines belongs to the one with
//! fewer then: else those without end would name the honest ones first.

/// A number for each line, by the network of the node at which it began.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<(u64, u32)>);

/// Which line has the highest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Longest {
    /// None has one that counts.
    None,
    /// This one.
    One(u64),
    /// More than one.
    Several,
}

impl Lines {
    /// The sums of what is given for lines.
    pub(super) fn sum(numbers: impl Iterator<Item = (u64, u32)>) -> Self {
        let mut sums: Vec<(u64, u32)> = Vec::new();
        for (line, number) in numbers {
            match sums.iter_mut().find(|(known, _)| *known == line) {
                Some((_, sum)) => *sum += number,
                None => sums.push((line, number)),
            }
        }
        Self(sums)
    }

    /// The number of `line`.
    pub(super) fn of(&self, line: u64) -> u32 {
        self.0.iter().find(|(known, _)| *known == line).map_or(0, |&(_, sum)| sum)
    }

    /// Raises the number of a line by one.
    pub(super) fn add(&mut self, line: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == line) {
            Some((_, number)) => *number += 1,
            None => self.0.push((line, 1)),
        }
    }

    /// Lowers the number of a line by one.
    pub(super) fn remove(&mut self, line: u64) {
        if let Some(at) = self.0.iter().position(|&(known, _)| known == line) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.swap_remove(at);
            }
        }
    }

    /// The highest number.
    pub(super) fn most(&self) -> u32 {
        self.0.iter().map(|&(_, number)| number).max().unwrap_or(0)
    }

    /// The line with the highest number, if that is above `bound`.
    pub(super) fn longest_beyond(&self, bound: u32) -> Longest {
        let most = self.most();
        if most <= bound {
            return Longest::None;
        }
        let mut longest = self.0.iter().filter(|&&(_, number)| number == most).map(|&(line, _)| line);
        match (longest.next(), longest.next()) {
            (Some(line), None) => Longest::One(line),
            _ => Longest::Several,
        }
    }

    /// Of a sum, the line that came last.
    pub(super) fn last(&self) -> Option<u64> {
        self.0.last().map(|&(line, _)| line)
    }

    /// Whether these are the same numbers, in whatever order.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|&(line, number)| other.of(line) == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_line_is_one_several_or_none_that_counts() {
        let mut lines = Lines::sum([(7, 2), (8, 1), (7, 1)].into_iter());
        assert_eq!((lines.longest_beyond(2), lines.longest_beyond(3)), (Longest::One(7), Longest::None));
        lines.add(8);
        lines.add(8);
        assert_eq!((lines.longest_beyond(2), lines.most()), (Longest::Several, 3));
        lines.remove(7);
        assert_eq!(lines.longest_beyond(0), Longest::One(8));
        (0..2).for_each(|_| lines.remove(7));
        lines.remove(9);
        assert!(lines.is_same(&Lines::sum([(8, 3)].into_iter())) && !lines.is_same(&Lines::default()));
    }
}
