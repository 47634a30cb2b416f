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
#[derive(Debug)]
pub(super) struct Lines(Vec<(u64, u32)>);

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

    /// The line with the highest number, if that is above `bound`.
    pub(super) fn longest_beyond(&self, bound: u32) -> Option<u64> {
        let longest = self.0.iter().max_by_key(|&&(_, sum)| sum);
        longest.filter(|&&(_, sum)| sum > bound).map(|&(line, _)| line)
    }
}
