//! Huge pages for large worlds. Hosts come in no order, so that nearly each that is touched is one more page
//! that the processor has to look up: with 100,000 of them a fifth of the time goes into that. Linux gives
//! huge pages to who asks for them, and glibc asks if it is told so when the process starts.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What glibc is told by (`man 3 mallopt`; "Memory Allocation Tunables" in its manual).
const VARIABLE: &str = "GLIBC_TUNABLES";
/// Ask for huge pages by `madvise`, and that of one arena: those of threads grow by less than such a page at a
/// time, for which glibc does not ask. Threads get most of what they need from caches of their own.
const HUGE: &str = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1";

/// A world of fewer nodes takes some 100 MB, which is not worth a second start.
const LARGE: usize = 20_000;

/// Starts this program once more in its own place, with huge pages, if the world is large and the user has not
/// told glibc anything. If that cannot be done nothing is lost but time.
pub(super) fn enlarge(nodes: usize) {
    if !cfg!(all(target_os = "linux", target_env = "gnu"))
        || !wants(nodes, std::env::var_os(VARIABLE).as_deref())
    {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let error = Command::new(program).args(std::env::args_os().skip(1)).env(VARIABLE, HUGE).exec();
        tracing::debug!(%error, "no huge pages");
    }
}

fn wants(nodes: usize, told: Option<&OsStr>) -> bool {
    nodes >= LARGE && told.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_worlds_get_huge_pages_once_and_not_against_the_users_will() {
        assert!(wants(100_000, None));
        assert!(!wants(1000, None));
        assert!(!wants(100_000, Some(OsStr::new(HUGE))));
        assert!(!wants(100_000, Some(OsStr::new(""))));
    }
}
