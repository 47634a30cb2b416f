//! [`Tracker`]: tells those who announce of some of the others.

use std::time::Duration;

use btdht::Rng;

/// Who takes part.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    members: Vec<u32>,
}

/// How often it wants to be asked.
pub(super) const INTERVAL: Duration = Duration::from_secs(1800);

impl Tracker {
    /// `host` announces itself; up to `want` others, chosen at random.
    pub(super) fn announce(&mut self, host: u32, want: usize, rng: &mut Rng) -> Vec<u32> {
        let known = self.members.len();
        for at in 0..want.min(known) {
            let other = at + rng.below(known - at);
            self.members.swap(at, other);
        }
        let told = self.members[..want.min(known)].iter().copied().filter(|&member| member != host).collect();
        if !self.members.contains(&host) {
            self.members.push(host);
        }
        told
    }

    /// `host` has gone.
    pub(super) fn forget(&mut self, host: u32) {
        if let Some(at) = self.members.iter().position(|&member| member == host) {
            self.members.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn others_are_named_once_each_and_those_who_have_gone_not() {
        let (mut tracker, mut rng) = (Tracker::default(), Rng::from_seed(1));
        assert!((0..20).all(|host| tracker.announce(host, 0, &mut rng).is_empty()));
        tracker.forget(7);
        let told = tracker.announce(3, 50, &mut rng);
        let all: BTreeSet<_> = told.iter().copied().collect();
        assert!(told.len() == 18 && all.len() == 18 && !all.contains(&7) && !all.contains(&3));
        let some: BTreeSet<_> = (0..50).flat_map(|_| tracker.announce(3, 4, &mut rng)).collect();
        assert_eq!(some, all);
    }
}
