//! [`OpenFiles`]: how many files several torrents keep open together, whose number nobody knows beforehand.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Files that may be kept open, shared out evenly among the [`FileStorage`](super::FileStorage)s that there
/// are. Each has one at least, and one that came early closes what is more than its share with the next file
/// that it opens.
#[derive(Debug)]
pub struct OpenFiles {
    most: NonZeroUsize,
    sharers: AtomicUsize,
}

/// The share of one.
#[derive(Debug)]
pub(super) struct Share(Arc<OpenFiles>);

impl OpenFiles {
    /// So many in all.
    pub fn new(most: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { most, sharers: AtomicUsize::new(0) })
    }
}

impl Share {
    pub(super) fn of(all: Arc<OpenFiles>) -> Self {
        all.sharers.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }

    /// Files that it may keep open now.
    pub(super) fn most(&self) -> usize {
        (self.0.most.get() / self.0.sharers.load(Ordering::Relaxed).max(1)).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.sharers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_nobody_has_none() {
        let all = OpenFiles::new(NonZeroUsize::new(8).unwrap());
        let one = Share::of(Arc::clone(&all));
        assert_eq!(one.most(), 8);
        let others: Vec<_> = (0..3).map(|_| Share::of(Arc::clone(&all))).collect();
        assert_eq!((one.most(), others[2].most()), (2, 2));
        let many: Vec<_> = (0..100).map(|_| Share::of(Arc::clone(&all))).collect();
        assert_eq!(many[99].most(), 1);
        drop((others, many));
        assert_eq!(one.most(), 8);
    }
}
