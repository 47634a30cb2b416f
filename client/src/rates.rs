//! [`Bucket`]: a rate limit that many connections share, as a token bucket with a line in front of it.
//!
//! Whoever is at the head of the line may move a share of bytes once the
//! bucket is not in debt, pays for what was moved and steps back. So the bucket owes at most one
//! share, nobody passes anybody, and connections that always have something to move get equal
//! shares. Nobody is woken in vain: only the head has a time to wait for, and each that leaves says
//! who is next.
//!
//! Who has to stand in the line of a wider bucket, too, is lent its share and steps out of this line
//! with it: the wider line then has a place for each connection and not one for all that wait here. What
//! is lent is paid at once, so the rate holds; what comes back is credited.
//!
//! A core: time goes in; whom to wake, of whatever type `W` that is, comes out.

use std::collections::VecDeque;
use std::time::Duration;

use btdht::Time;

/// How much may be saved up while nobody moves anything. A connection that a narrower limit holds, too,
/// makes up with it for the time that it stood in the line of a wider one.
const BURST: Duration = Duration::from_millis(250);
/// What small messages take ahead of the line is within this time's worth, so that the rate is not
/// exceeded for longer. The two percent within which a rate holds are of what stands in the line.
const AHEAD: Duration = Duration::from_secs(2);
/// And it is every so many'th byte at most, so that the line goes on whatever strangers make us say.
const AHEAD_SHARE: i128 = 2;
/// The last part of it is for handshakes, which somebody's clock waits for.
const FOR_HANDSHAKES: i128 = 4;
/// How often a second the line goes round, as long as shares need not be shorter than `MIN_QUANTUM`.
const ROUNDS_A_SECOND: u64 = 20;
/// Shares in bytes are no shorter because of a long line: each costs a system call.
const MIN_QUANTUM: u64 = 2 << 10;
/// Longest share in bytes: above this, fast links hand over more often.
const MAX_QUANTUM: u64 = 256 << 10;
/// Balances are in millionths of a byte, so that no fill is rounded.
const UNIT: i128 = 1_000_000;

/// A token bucket. Rate 0 lifts the limit.
#[derive(Debug)]
pub(crate) struct Bucket<W> {
    rate: u64,
    /// Millionths of bytes that may be moved; negative is debt.
    balance: i128,
    /// Of these, what may be moved ahead of the line although they are owed.
    ahead: i128,
    filled_at: Time,
    /// As long as there are connections at most.
    line: VecDeque<(Ticket, W)>,
    issued: u64,
    /// Who holds a share that was lent.
    holders: usize,
}

/// A place in the line of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// What the holder of a ticket may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Move up to so many bytes now.
    Now(usize),
    /// Ask again then: it is at the head, and the bucket in debt.
    At(Time),
    /// Wait to be woken: others come first.
    Behind,
}

impl<W> Bucket<W> {
    /// An empty bucket that fills with `rate` bytes per second.
    pub(crate) fn new(rate: u64) -> Self {
        Self {
            rate,
            balance: 0,
            ahead: 0,
            filled_at: Time::ZERO,
            line: VecDeque::new(),
            issued: 0,
            holders: 0,
        }
    }

    /// Joins the end of the line; `waker` is handed out when it has become the head.
    pub(crate) fn join(&mut self, waker: W) -> Ticket {
        let ticket = Ticket(self.issued);
        self.issued += 1;
        self.line.push_back((ticket, waker));
        ticket
    }

    /// Whether it is this ticket's turn.
    pub(crate) fn ask(&mut self, now: Time, ticket: Ticket) -> Turn {
        if self.rate == 0 {
            return Turn::Now(usize::MAX);
        }
        if self.line.front().is_none_or(|(head, _)| *head != ticket) {
            return Turn::Behind;
        }
        self.fill(now);
        match u128::try_from(-self.balance) {
            Ok(debt) if debt > 0 => {
                let wait = debt.div_ceil(u128::from(self.rate));
                Turn::At(now + Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX)))
            }
            // Of savings everybody has the same share, whoever happens to be the head after a pause.
            _ => Turn::Now(self.quantum().max((self.balance / UNIT) as usize / self.members())),
        }
    }

    /// Whether a small message may be moved at once, whoever stands in line; it is paid for then. All of
    /// it or nothing, since pieces of it help nobody. A handshake may take what is kept for those.
    pub(crate) fn pass_ahead(&mut self, now: Time, bytes: usize, is_handshake: bool) -> bool {
        self.fill(now);
        let cost = bytes as i128 * UNIT;
        let kept = if is_handshake { 0 } else { self.most_ahead() / FOR_HANDSHAKES };
        let may = self.rate == 0 || self.ahead - cost >= kept;
        if may && self.rate > 0 {
            self.ahead -= cost;
            self.balance -= cost;
        }
        may
    }

    /// So many bytes were not moved ahead of the line.
    pub(crate) fn refund_ahead(&mut self, bytes: usize) {
        let cost = bytes as i128 * UNIT;
        self.ahead += cost;
        self.balance += cost;
    }

    /// Pays for bytes that were moved.
    pub(crate) fn spend(&mut self, now: Time, bytes: usize) {
        if self.rate > 0 {
            self.fill(now);
            self.balance -= bytes as i128 * UNIT;
        }
    }

    /// Lends a share of `most` bytes, or of what is fair, to the head, which leaves the line with it. What
    /// was saved up is not lent: it would be held for as long as the wider line takes. Returns the share,
    /// and whom to wake. To be asked only by who may move something [now](Turn::Now).
    pub(crate) fn lend(&mut self, ticket: Ticket, most: usize) -> (usize, Option<&W>) {
        let share = most.min(self.quantum());
        self.balance -= share as i128 * UNIT;
        self.holders += 1;
        (share, self.leave(ticket))
    }

    /// Adds up to `most` bytes to a share that was lent, if they are saved up: its holder has its turn
    /// in the wider line and may move as much as others there, as far as this rate allows. Nobody is
    /// passed, since nobody waits in front of savings.
    pub(crate) fn extend(&mut self, now: Time, most: usize) -> usize {
        self.fill(now);
        let more = most.min(usize::try_from(self.balance / UNIT).unwrap_or(0));
        self.balance -= more as i128 * UNIT;
        more
    }

    /// Takes back what is left of a share that was lent. Returns whom to wake: the head, which has less
    /// to wait for.
    pub(crate) fn give_back(&mut self, left: usize) -> Option<&W> {
        self.holders -= 1;
        self.balance += left as i128 * UNIT;
        self.line.front().filter(|_| left > 0).map(|(_, waker)| waker)
    }

    /// Leaves the line, from wherever it stands. Returns whom to wake: the new head, if there is one.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<&W> {
        // It is the head nearly always.
        let at = self.line.iter().position(|(held, _)| *held == ticket)?;
        self.line.remove(at);
        self.line.front().filter(|_| at == 0).map(|(_, waker)| waker)
    }

    /// Changes the rate. Returns those that have to ask anew: the whole line, since nobody waits where
    /// there is no limit.
    pub(crate) fn set_rate(&mut self, now: Time, rate: u64) -> impl Iterator<Item = &W> {
        self.fill(now);
        // What was owed at the old rate is not waited for at the new one for longer than a share.
        if std::mem::replace(&mut self.rate, rate) != rate {
            self.balance = self.balance.max(-(self.quantum() as i128 * UNIT));
        }
        self.line.iter().map(|(_, waker)| waker)
    }

    #[cfg(test)]
    pub(crate) fn line_is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The most that one turn moves beyond what was saved up.
    fn quantum(&self) -> usize {
        let round = (self.rate / ROUNDS_A_SECOND).max(1);
        let share = round / self.members() as u64;
        share.max(round.min(MIN_QUANTUM)).min(MAX_QUANTUM) as usize
    }

    /// Those who share it; at least one.
    fn members(&self) -> usize {
        (self.line.len() + self.holders).max(1)
    }

    fn fill(&mut self, now: Time) {
        let earned = i128::from(self.rate) * now.since(self.filled_at).as_micros() as i128;
        let most = i128::from(self.rate) * BURST.as_micros() as i128;
        self.balance = self.balance.saturating_add(earned).min(most);
        self.ahead = self.ahead.saturating_add(earned / AHEAD_SHARE).min(self.most_ahead());
        self.filled_at = self.filled_at.max(now);
    }

    /// The most that may be moved ahead of the line at once, in millionths of bytes.
    fn most_ahead(&self) -> i128 {
        i128::from(self.rate) * AHEAD.as_micros() as i128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections that move bytes through one bucket for `span`; each moves at most `chunk` bytes at
    /// a time. Returns what each has moved, and how often somebody was told to wait.
    fn run(rate: u64, chunks: &[usize], span: Duration) -> (Vec<u64>, u64) {
        let mut bucket = Bucket::new(rate);
        let (mut now, end) = (Time::ZERO, Time::ZERO + span);
        let (mut moved, mut waits) = (vec![0; chunks.len()], 0);
        let mut tickets: Vec<_> = (0..chunks.len()).map(|who| bucket.join(who)).collect();
        let mut head = 0;
        while now < end {
            match bucket.ask(now, tickets[head]) {
                Turn::At(at) => {
                    assert!(at > now, "a wait that is over at once would spin");
                    (now, waits) = (at, waits + 1);
                }
                Turn::Now(quantum) => {
                    let mut left = quantum;
                    while left > 0 {
                        let n = left.min(chunks[head]);
                        bucket.spend(now, n);
                        moved[head] += n as u64;
                        left -= n;
                    }
                    let ticket = std::mem::replace(&mut tickets[head], bucket.join(head));
                    head = *bucket.leave(ticket).unwrap();
                }
                Turn::Behind => unreachable!("only the head asks"),
            }
        }
        (moved, waits)
    }

    #[test]
    fn every_rate_holds_within_two_percent_over_half_a_minute() {
        for rate in [1_000, 20_000, 1 << 20, 100 << 20, 10_000_000_007] {
            for connections in [1, 7, 100] {
                let (moved, _) = run(rate, &vec![16_384; connections], Duration::from_secs(30));
                let total: u64 = moved.iter().sum();
                let expected = rate * 30;
                let off = total.abs_diff(expected) as f64 / expected as f64;
                assert!(off <= 0.02, "{connections} at {rate}: {total} of {expected}");
            }
        }
    }

    #[test]
    fn connections_get_equal_shares_whatever_the_size_of_their_reads() {
        let (moved, waits) = run(1 << 20, &[100, 1_400, 16_384, 1 << 20], Duration::from_secs(30));
        let fair = moved.iter().sum::<u64>() / 4;
        assert!(moved.iter().all(|&share| share.abs_diff(fair) <= fair / 50), "{moved:?}");
        assert!(waits <= 30 * 5 * ROUNDS_A_SECOND, "{waits} waits");
    }

    #[test]
    fn short_turns_lose_nothing_to_rounding() {
        let mut bucket = Bucket::new(100_000);
        let ticket = bucket.join(());
        let (mut now, mut moved) = (Time::from_secs(1), 0);
        // Polled every 15 us, in which one byte and a half are earned.
        while now < Time::from_secs(3) {
            if matches!(bucket.ask(now, ticket), Turn::Now(_)) {
                bucket.spend(now, 2);
                moved += 2;
            }
            now += Duration::from_micros(15);
        }
        // The bucket is never full for long: what is saved up at first comes on top.
        assert!((200_000..=230_010).contains(&moved), "{moved}");
    }

    #[test]
    fn idle_time_is_saved_up_for_a_quarter_of_a_second_only() {
        let mut bucket = Bucket::new(1_000_000);
        let ticket = bucket.join(());
        let now = Time::from_secs(3600);
        let mut burst = 0;
        while let Turn::Now(quantum) = bucket.ask(now, ticket) {
            bucket.spend(now, quantum);
            burst += quantum;
        }
        assert_eq!(burst, 300_000, "a quarter of a second and the last share");
    }

    #[test]
    fn small_messages_pass_the_line_and_neither_stop_it_nor_exceed_the_rate_for_long() {
        let mut bucket = Bucket::new(10_000);
        let line = bucket.join(());
        let (mut now, end) = (Time::from_secs(100), Time::from_secs(160));
        let (mut small, mut data, mut at_once) = (0, 0, 0);
        bucket.spend(now, 10_000);
        while now < end {
            // Strangers have us say as much as they can.
            while bucket.pass_ahead(now, 68, true) {
                small += 68;
            }
            if at_once == 0 {
                at_once = small;
                assert!(matches!(bucket.ask(now, line), Turn::At(_)), "all that was owed already");
            }
            if let Turn::Now(most) = bucket.ask(now, line) {
                bucket.spend(now, most);
                data += most;
            }
            now += Duration::from_millis(1);
        }
        assert_eq!(at_once, 19_992, "two seconds' worth");
        assert!(data >= 270_000, "{data}");
        assert!((small + data).abs_diff(600_000) <= 20_000, "{small} and {data}");
    }

    #[test]
    fn what_did_not_pass_ahead_of_the_line_is_not_paid_for() {
        let mut bucket = Bucket::new(10_000);
        let ticket = bucket.join(());
        let now = Time::from_secs(100);
        assert!(bucket.pass_ahead(now, 20_000, true) && !bucket.pass_ahead(now, 1, true));
        bucket.refund_ahead(20_000);
        assert!(bucket.pass_ahead(now, 68, false));
        bucket.refund_ahead(68);
        assert_eq!(bucket.ask(now, ticket), Turn::Now(2_500));
    }

    #[test]
    fn small_messages_leave_something_to_handshakes() {
        let mut bucket = Bucket::<()>::new(10_000);
        let now = Time::from_secs(100);
        assert!(!bucket.pass_ahead(now, 15_001, false) && bucket.pass_ahead(now, 15_000, false));
        assert!(!bucket.pass_ahead(now, 1, false) && bucket.pass_ahead(now, 5_000, true));
        assert!(!bucket.pass_ahead(now, 1, true));
    }

    #[test]
    fn a_rate_that_stays_as_it_is_forgives_no_debt() {
        let mut bucket = Bucket::new(10_000);
        let (ticket, now) = (bucket.join(()), Time::from_secs(100));
        bucket.spend(now, 30_000);
        let owed = bucket.ask(now, ticket);
        assert_eq!(bucket.set_rate(now, 10_000).count(), 1);
        assert_eq!(bucket.ask(now, ticket), owed);
        assert_eq!(bucket.set_rate(now, 10_001).count(), 1);
        assert_ne!(bucket.ask(now, ticket), owed);
    }

    #[test]
    fn who_leaves_from_the_middle_wakes_nobody_and_who_leaves_the_head_the_next() {
        let mut bucket = Bucket::new(10);
        let [a, b, c] = ["a", "b", "c"].map(|name| bucket.join(name));
        let now = Time::from_secs(1);
        assert_eq!(bucket.ask(now, c), Turn::Behind);
        assert_eq!(bucket.leave(b), None);
        assert_eq!(bucket.leave(a), Some(&"c"));
        assert!(matches!(bucket.ask(now, c), Turn::Now(_)));
        assert_eq!(bucket.leave(c), None);
        assert_eq!(bucket.leave(c), None, "twice is once");
    }

    #[test]
    fn a_rate_changes_while_others_wait_and_zero_lifts_it() {
        let mut bucket = Bucket::new(1_000);
        let (first, second) = (bucket.join(1), bucket.join(2));
        let now = Time::from_secs(1);
        bucket.spend(now, 100_000);
        assert_eq!(bucket.ask(now, first), Turn::At(now + Duration::from_micros(99_750_000)));
        assert_eq!(bucket.set_rate(now, 100_000).copied().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(bucket.ask(now, first), Turn::At(now + Duration::from_millis(25)));
        assert_eq!(bucket.ask(now, second), Turn::Behind);
        bucket.set_rate(now, 0).for_each(drop);
        assert_eq!(bucket.ask(now, second), Turn::Now(usize::MAX));
    }
}
