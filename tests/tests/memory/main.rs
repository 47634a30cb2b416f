//! What things cost in memory, counted by an allocator: tests that need one share this binary.
#![allow(clippy::unwrap_used)]

mod around;
mod fleet;
mod metainfo;
mod node;
mod queries;
mod store;

use harness::heap::Counting;

#[global_allocator]
static HEAP: Counting = Counting;
