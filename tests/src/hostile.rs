//! Hostile and honest peers on real sockets, for the tests of RELIABILITY.md's S34 and its kin: one
//! way of misbehaving each.
