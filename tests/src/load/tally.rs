//! [`Tally`]: what a run of the generator gave.

/// What a run gave.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Seconds that it took.
    pub seconds: f64,
    /// Right replies within these seconds.
    pub replies: u64,
    /// Those, and the right ones that came after.
    pub answered: u64,
    /// Replies that said something wrong.
    pub wrong: u64,
    /// What was wrong first.
    pub first_wrong: Option<String>,
    /// Queries without a reply after a second.
    pub lost: u64,
    /// Queries that were due while as many as there are slots for were outstanding: the generator, the node or
    /// the machine stood still.
    pub unsent: u64,
    /// Replies to `find_node` that a full table might give, and how many replies there were.
    pub nodes: (u64, u64),
    /// Bytes of replies.
    pub reply_bytes: u64,
    /// Round trips, µs, unsorted.
    pub micros: Vec<u32>,
}

impl Tally {
    /// Right replies a second.
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.seconds
    }

    /// Takes in what a later run gave.
    pub fn add(&mut self, later: Self) {
        self.seconds += later.seconds;
        self.replies += later.replies;
        self.answered += later.answered;
        self.wrong += later.wrong;
        self.first_wrong = self.first_wrong.take().or(later.first_wrong);
        self.lost += later.lost;
        self.unsent += later.unsent;
        self.nodes = (self.nodes.0 + later.nodes.0, self.nodes.1 + later.nodes.1);
        self.reply_bytes += later.reply_bytes;
        self.micros.extend(later.micros);
    }

    /// A quantile of the round trips, µs.
    pub fn quantile(&mut self, q: f64) -> u32 {
        let at = (self.micros.len().saturating_sub(1) as f64 * q) as usize;
        if self.micros.is_empty() { 0 } else { *self.micros.select_nth_unstable(at).1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_gave_is_added_up() {
        let turn = |n: u64, why: Option<&str>| Tally {
            seconds: n as f64,
            replies: n,
            answered: 2 * n,
            wrong: 3 * n,
            first_wrong: why.map(str::to_owned),
            lost: 4 * n,
            unsent: 5 * n,
            nodes: (6 * n, 7 * n),
            reply_bytes: 8 * n,
            micros: vec![n as u32],
        };
        let mut sum = turn(1, None);
        sum.add(turn(10, Some("first")));
        sum.add(turn(100, Some("second")));
        let wanted = Tally { micros: vec![1, 10, 100], ..turn(111, Some("first")) };
        assert_eq!(format!("{sum:?}"), format!("{wanted:?}"));
    }
}
