//! [`Kept`]: everything that a node stores, for saving it and taking it back: one store, or one whose
//! peers lie in stripes beside it.

use std::time::Duration;

use super::archive::{Archive, Archiving, Counts, Damaged};
use super::{Store, Striped};
use crate::Time;

/// Everything that a node stores.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    store: &'a Store,
    striped: Option<&'a Striped>,
}

impl<'a> From<&'a Store> for Kept<'a> {
    fn from(store: &'a Store) -> Self {
        Self { store, striped: None }
    }
}

impl<'a> Kept<'a> {
    /// A store of items, and the peers beside it if there are any.
    pub fn new(store: &'a Store, striped: Option<&'a Striped>) -> Self {
        Self { store, striped }
    }

    /// Whether there is neither a peer nor an item.
    pub fn is_empty(&self) -> bool {
        self.store.is_empty() && self.store.items() == 0 && self.striped.is_none_or(Striped::is_empty)
    }

    /// How much there is, with expired ones that no sweep has met yet.
    pub fn counts(&self) -> Counts {
        let striped = self.striped.map_or(0, Striped::len);
        Counts { peers: (self.store.len() + striped) as u64, items: self.store.items() as u64 }
    }

    /// Copies some of it, one stripe after the other, each locked for a piece only; see
    /// [`Store::archive_some`].
    pub fn archive_some(&self, now: Time, archiving: &mut Archiving) -> bool {
        let Some(striped) = self.striped else { return self.store.archive_some(now, archiving) };
        let is_done = match archiving.part() {
            0 => self.store.archive_some(now, archiving),
            part => striped.nth(part - 1).is_none_or(|stripe| stripe.archive_some(now, archiving)),
        };
        if !is_done {
            return false;
        }
        archiving.next_part();
        archiving.part() > striped.stripes()
    }
}

impl Striped {
    /// Takes back what is in `archive`: the items into `store`, the peers into the stripes; see
    /// [`Store::restore`].
    ///
    /// # Errors
    /// [`Damaged`]; nothing was taken then.
    pub(crate) fn restore(
        &self,
        store: &mut Store,
        now: Time,
        (archive, away): (&Archive, Duration),
        allow_local: bool,
    ) -> Result<Counts, Damaged> {
        store.restore_by(now, (archive, away), allow_local, |_, infohash, peers| {
            self.stripe(infohash).take_back(now, infohash, peers);
        })?;
        Ok(Kept::new(store, Some(self)).counts())
    }
}
