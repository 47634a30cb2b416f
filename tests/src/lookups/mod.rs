//! Lookups of the shipping node in a virtual network of ten million others, beside an oracle: what
//! `cargo run --release -p harness --bin lookups` measures, in virtual time and repeatable by its seed.
//!
//! Only the node under test is real. Everybody else is a function of a seed ([`network`]): who lives,
//! how far away, whom it knows, what it stores. The [`oracle`] walks the same network asking everyone
//! at once and losing nothing, which no policy can beat. [`run`] steps the real node through it.

pub mod network;
pub mod oracle;
pub mod run;
