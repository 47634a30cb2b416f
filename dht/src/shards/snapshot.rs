//! [`Snapshot`]: what a reply depends on, at one moment.

use crate::Config;
use crate::home::Place;
use crate::table::FamilyTable;
use crate::token::TokenServer;

/// What shards answer from.
pub(crate) struct Snapshot {
    /// Of each home: who lives there, and our id.
    pub(crate) tables: Vec<FamilyTable>,
    /// Of each home: whether it answers nobody (BEP 43).
    pub(crate) read_only: Vec<bool>,
    pub(crate) tokens: TokenServer,
    /// Stored announces are told to our owner.
    pub(crate) tells_announces: bool,
}

impl Snapshot {
    pub(crate) fn new(places: &[Place], tokens: &TokenServer, tells_announces: bool) -> Self {
        Self {
            tables: places.iter().map(|place| place.table.copy_to_serve()).collect(),
            read_only: places.iter().map(|place| place.reach.is_read_only()).collect(),
            tokens: tokens.clone(),
            tells_announces,
        }
    }

    /// Whether replies would be the same as from another one of `places`.
    pub(crate) fn is_current(&self, places: &[Place], config: &Config) -> bool {
        let is_same = |(table, place): (&FamilyTable, &Place)| table.serves_like(&place.table, config);
        self.tables.iter().zip(places).all(is_same)
    }
}
