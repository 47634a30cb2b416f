//! The tokio shell around the swarm core.

pub mod http;
mod throttle;
