//! [`Read`]: what a lookup for an item of BEP 44 told.

use super::Lookup;
use crate::item::{Item, MutableItem};
use crate::net::Error;
use crate::{Event, Outcome};

/// What a lookup for an item told.
pub(super) struct Read {
    /// The newest version; of several with its number, the first one.
    pub(super) newest: Option<Item>,
    /// Another value of that number.
    tie: Option<Item>,
    pub(super) outcome: Outcome,
}

impl Read {
    /// The version that another writer has stored beside or after `item`, if one was met.
    pub(super) fn other_than(&self, item: &Item) -> Option<MutableItem> {
        let seq = item.seq();
        let is_other = |found: &&MutableItem| {
            Some(found.seq) > seq || Some(found.seq) == seq && found.value != item.value()
        };
        let mutable = |found: &Item| match found {
            Item::Mutable(found) => Some(found).filter(is_other).cloned(),
            Item::Immutable { .. } => None,
        };
        self.newest.iter().chain(&self.tie).find_map(mutable)
    }
}

/// Reads a lookup for an item to its end.
pub(super) async fn read(mut lookup: Lookup) -> Result<Read, Error> {
    let (mut newest, mut tie): (Option<Item>, _) = (None, None);
    while let Some(event) = lookup.next().await {
        match event {
            Event::Item { item, .. } if newest.as_ref().is_some_and(|newest| newest.seq() == item.seq()) => {
                tie = Some(*item);
            }
            Event::Item { item, .. } => (newest, tie) = (Some(*item), None),
            Event::Done { outcome, .. } => return Ok(Read { newest, tie, outcome }),
            _ => {}
        }
    }
    Err(Error::Stopped)
}

/// The newest item that a lookup tells, and how the lookup ended.
pub(super) async fn newest(lookup: Lookup) -> Result<(Option<Item>, Outcome), Error> {
    let Read { newest, outcome, .. } = read(lookup).await?;
    Ok((newest, outcome))
}
