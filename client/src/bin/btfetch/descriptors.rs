//! File descriptors: how many connections and open files they are enough for. What cannot be opened is a peer that is
//! tried for nothing, or a file whose download fails; so what there is is shared out before.

use std::num::NonZeroUsize;

use btfetch::storage::default_open_files;
use btfetch::swarm::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside files and connections: standard streams, the runtime's own, sockets of the node and of
/// trackers, locks, and files that are being replaced.
const OTHERS: u64 = 24;
/// An eighth is for incoming connections that have not said yet what they want.
const GREETED: u64 = 8;
/// Fewer connections than this make no swarm; with so few descriptors some of them will fail.
const LEAST: usize = 4;
/// As many as the limit is raised to: some hundred torrents.
const ENOUGH: u64 = 1 << 16;

/// Raises the limit of this process as far as it may be, and as is of use.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_some_and(|current| current < most) {
        // Without it there are fewer connections, which is said.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    }
}

/// What each of so many torrents may have: connections, which are what the user wants, or usual, or what
/// descriptors are enough for, and open files. Says so when there are fewer connections.
pub(crate) fn shares(wanted: Option<usize>, torrents: usize) -> (Option<usize>, NonZeroUsize) {
    let usual_files = default_open_files();
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return (wanted, usual_files);
    };
    let usual = wanted.unwrap_or_else(|| Limits::default().max_peers);
    let (most, files) = share(limit, usual_files, torrents as u64);
    if most >= usual {
        return (wanted, files);
    }
    tracing::warn!("{limit} open files are allowed (ulimit -n): {most} peers a torrent instead of {usual}");
    (Some(most), files)
}

/// Connections and open files of each torrent; of few descriptors files get half.
fn share(limit: u64, usual_files: NonZeroUsize, torrents: u64) -> (usize, NonZeroUsize) {
    let all = limit.saturating_sub(OTHERS + limit / GREETED);
    let each = usize::try_from(all / torrents.max(1)).unwrap_or(usize::MAX);
    let files = NonZeroUsize::new(each / 2).unwrap_or(NonZeroUsize::MIN).min(usual_files);
    (each.saturating_sub(files.get()).max(LEAST), files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_may_have_open_together_stays_below_the_limit() {
        let share = |limit, files, torrents| share(limit, NonZeroUsize::new(files).unwrap(), torrents);
        for (limit, files, torrents) in
            [(64, 16, 1), (256, 64, 1), (1024, 128, 1), (1024, 128, 9), (4096, 128, 9), (4096, 128, 30)]
        {
            let (connections, files) = share(limit, files, torrents);
            let all = torrents * (connections + files.get()) as u64 + limit / GREETED + OTHERS;
            assert!((limit - torrents..=limit).contains(&all), "{all} of {limit}");
        }
        let (few, files) = share(64, 16, 1);
        assert_eq!((few, files.get()), (16, 16));
        assert_eq!(share(16, 4, 1).0, LEAST);
        let most = Limits::default().max_peers;
        assert!(share(1024, 128, 1).0 > most);
        // Many torrents share in both.
        let (connections, files) = share(4096, 128, 30);
        assert!((50..most).contains(&connections) && files.get() >= 50, "{connections} {files}");
        let (connections, files) = share(1 << 16, 128, 430);
        assert!(connections >= 60 && files.get() >= 60, "{connections} {files}");
    }
}
