//! [`Chatter`]: an account of messages without use, so that nobody makes us work by flapping.

use btdht::Time;

use super::PeerConfig;

/// Suggestions that blocks may earn in advance.
const MAX_EARNED: u32 = 64;

/// Useless messages that are not forgiven yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chatter {
    count: u32,
    since: Time,
    earned: u32,
}

impl Chatter {
    /// Counts one. `false` when it is one too many.
    pub(super) fn count(&mut self, now: Time, config: &PeerConfig) -> bool {
        self.count_as(now, 1, config)
    }

    /// Counts one that weighs as much as `messages`. `false` when it is too much.
    pub(super) fn count_as(&mut self, now: Time, messages: u32, config: &PeerConfig) -> bool {
        let seconds = u32::try_from(now.since(self.since).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.since = now;
            self.count = self.count.saturating_sub(seconds.saturating_mul(config.chatter_per_second));
        }
        self.count = self.count.saturating_add(messages);
        self.count <= config.chatter_burst
    }

    /// A block came: its giver may give a piece of advice without being counted. A quick seed suggests as
    /// many pieces as it gives, of which a second may see thousands.
    pub(super) fn earn(&mut self) {
        self.earned = (self.earned + 1).min(MAX_EARNED);
    }

    /// Takes a piece of advice. `false` when it was not earned.
    pub(super) fn spend(&mut self) -> bool {
        let earned = self.earned > 0;
        self.earned -= u32::from(earned);
        earned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_forgiven_with_time() {
        let config = PeerConfig { chatter_burst: 20, chatter_per_second: 10, ..PeerConfig::default() };
        let mut chatter = Chatter::default();
        let start = Time::from_secs(5);
        assert!((0..20).all(|_| chatter.count(start, &config)));
        assert!(!chatter.count(start, &config));
        let later = Time::from_secs(6);
        assert!((0..9).all(|_| chatter.count(later, &config)) && !chatter.count(later, &config));
    }
}
