//! [`Table`]: an address family, and where its peers are in a store.

use krpc::compact::{V4, V6};

use super::Full;
use crate::addr::Family;
use crate::store::peers::{Peers, Stored};

/// An address family and where its peers are.
pub(in crate::store) trait Table: Stored {
    const FAMILY: Family;
    type Other: Table<Other = Self>;
    fn of(store: &Full) -> &Peers<Self>;
    fn of_mut(store: &mut Full) -> &mut Peers<Self>;
}

impl Table for V4 {
    const FAMILY: Family = Family::V4;
    type Other = V6;
    fn of(store: &Full) -> &Peers<Self> {
        &store.v4
    }
    fn of_mut(store: &mut Full) -> &mut Peers<Self> {
        &mut store.v4
    }
}

impl Table for V6 {
    const FAMILY: Family = Family::V6;
    type Other = V4;
    fn of(store: &Full) -> &Peers<Self> {
        &store.v6
    }
    fn of_mut(store: &mut Full) -> &mut Peers<Self> {
        &mut store.v6
    }
}
