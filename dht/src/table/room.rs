//! How the lists of a table grow and shrink.

use super::entry::Entry;

/// Entries that a table grows by: few, because those that are spare count in a node at rest.
pub(super) const ENTRIES: usize = 4;

/// Makes room for one more, by a few and not by doubling: the table is most of what a node at rest costs
/// in memory.
pub(super) fn make_room<A>(entries: &mut Vec<Entry<A>>, room: usize) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact(room);
    }
}

/// Gives back the room of many that have gone.
pub(super) fn give_back<A>(entries: &mut Vec<Entry<A>>, room: usize) {
    if entries.capacity() > entries.len() + 2 * room || entries.is_empty() {
        entries.shrink_to(entries.len());
    }
}
