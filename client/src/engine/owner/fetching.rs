//! [`Fetching`]: how many torrents share what a session lets in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether one torrent is counted among those that fetch something; it is not any more when this is dropped.
#[derive(Debug)]
pub(super) struct Fetching {
    all: Arc<AtomicUsize>,
    is_counted: bool,
}

impl Fetching {
    /// Not counted yet among `all`.
    pub(super) fn new(all: &Arc<AtomicUsize>) -> Self {
        Self { all: Arc::clone(all), is_counted: false }
    }

    /// Counts it, or does not; how many there are then.
    pub(super) fn set(&mut self, is_counted: bool) -> usize {
        if self.is_counted != is_counted {
            self.is_counted = is_counted;
            match is_counted {
                true => self.all.fetch_add(1, Ordering::Relaxed),
                false => self.all.fetch_sub(1, Ordering::Relaxed),
            };
        }
        self.all.load(Ordering::Relaxed)
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// What a torrent may expect of a session's rate that so many share, and of its own; 0 for no limit.
pub(super) fn let_in(session: u64, torrents: usize, own: u64) -> u64 {
    let share = session.div_ceil(torrents.max(1) as u64);
    [share, own].into_iter().filter(|&rate| rate > 0).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_expects_its_share_of_the_session_or_what_it_may_have_itself() {
        assert_eq!((let_in(0, 5, 0), let_in(0, 5, 70), let_in(100, 0, 0)), (0, 70, 100));
        assert_eq!((let_in(100, 5, 0), let_in(100, 5, 70), let_in(100, 5, 7)), (20, 20, 7));
        assert_eq!(let_in(3, 5, 0), 1, "not no limit");
    }

    #[test]
    fn torrents_that_fetch_nothing_or_have_gone_have_no_share() {
        let all = Arc::default();
        let mut torrents = [(); 3].map(|()| Fetching::new(&all));
        assert_eq!(torrents.each_mut().map(|torrent| torrent.set(true)), [1, 2, 3]);
        assert_eq!((torrents[0].set(true), torrents[0].set(false), torrents[0].set(false)), (3, 2, 2));
        drop(torrents);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
