//! `btfetch` as a process against peers that misbehave (S30 to S32 and S34 to S40 of `tests/SCENARIOS.md`): the
//! file must come out right, in bounded time, memory and work. What is counted is counted by the peers.
#![allow(clippy::unwrap_used)]

mod bans;
mod floods;
mod greetings;
mod metadata;
mod modes;
mod run;
