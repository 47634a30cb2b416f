//! File descriptors: how many connections they are enough for. What cannot be opened is a peer that is
//! tried for nothing, or a file whose download fails; so what there is is shared out before.

use btfetch::storage::default_open_files;
use btfetch::swarm::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside files and connections: standard streams, the runtime's own, sockets of the node and of
/// trackers, locks, and files that are being replaced.
const OTHERS: u64 = 24;
/// An eighth is for incoming connections that have not said yet what they want.
const GREETED: u64 = 8;
/// Fewer connections than this make no swarm; with so few descriptors some of them will fail.
const LEAST: u64 = 4;
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

/// The connections of each of so many torrents: what the user wants, or usual, or what descriptors are
/// enough for. Says so when that is less.
pub(crate) fn max_peers(wanted: Option<usize>, torrents: usize) -> Option<usize> {
    let limit = getrlimit(Resource::Nofile).current?;
    let usual = wanted.unwrap_or_else(|| Limits::default().max_peers);
    let most = share(limit, default_open_files().get() as u64, torrents as u64);
    if most >= usual {
        return wanted;
    }
    tracing::warn!("{limit} open files are allowed (ulimit -n): {most} peers a torrent instead of {usual}");
    Some(most)
}

fn share(limit: u64, files: u64, torrents: u64) -> usize {
    let sockets = limit.saturating_sub(OTHERS + limit / GREETED);
    let each = (sockets / torrents.max(1)).saturating_sub(files).max(LEAST);
    usize::try_from(each).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_may_have_open_together_stays_below_the_limit() {
        assert_eq!(share(64, 16, 1), 16);
        for (limit, files, torrents) in [(64, 16, 1), (256, 64, 1), (1024, 128, 1), (4096, 128, 9)] {
            let connections = share(limit, files, torrents) as u64;
            let all = torrents * (connections + files) + limit / GREETED + OTHERS;
            assert!((limit - torrents..=limit).contains(&all), "{all} of {limit}");
        }
        assert_eq!(share(16, 4, 1), LEAST as usize);
        assert!(share(1024, 128, 1) > Limits::default().max_peers);
    }
}
