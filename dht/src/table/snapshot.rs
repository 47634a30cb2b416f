//! Copies of a table that others read while the table itself goes on.

use krpc::compact::Address;

use super::{FamilyTable, Table};
use crate::Config;

impl FamilyTable {
    /// A copy for answering queries, without those who wait for a place.
    pub(crate) fn copy_to_serve(&self) -> Self {
        match self {
            Self::V4(table) => Self::V4(table.copy_to_serve()),
            Self::V6(table) => Self::V6(table.copy_to_serve()),
        }
    }

    /// Whether `other` answers every query as this one does.
    pub(crate) fn serves_like(&self, other: &Self, config: &Config) -> bool {
        match (self, other) {
            (Self::V4(table), Self::V4(other)) => table.serves_like(other, config),
            (Self::V6(table), Self::V6(other)) => table.serves_like(other, config),
            _ => false,
        }
    }
}

impl AsRef<Self> for FamilyTable {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<A: Address> Table<A> {
    fn copy_to_serve(&self) -> Self {
        Self { candidates: Vec::new(), ..self.clone() }
    }

    fn serves_like(&self, other: &Self, config: &Config) -> bool {
        let is_good = |fails: u8| fails < config.bad_after_failures;
        self.own == other.own
            && self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(ours, theirs)| {
                ours.id == theirs.id
                    && ours.addr == theirs.addr
                    && is_good(ours.fails()) == is_good(theirs.fails())
            })
    }
}
