//! `btdht id`: a fresh node id.

use std::net::IpAddr;

use btdht::settings::Flags;
use btdht::{Rng, Seeds, secure_id};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Make a node id
#[derive(clap::Args)]
#[command(after_help = "Example: btdht id --ip 203.0.113.7")]
pub(crate) struct Args {
    /// Make it valid for a node at this address (BEP 42)
    #[arg(long, value_name = "ADDR")]
    ip: Option<IpAddr>,
}

pub(crate) fn run(args: &Args, flags: &Flags) -> Result<(), Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::other(format!("drawing random numbers: {error}")))?;
    let mut rng = Rng::new(Seeds(seed));
    let id = args.ip.map_or_else(|| rng.id(), |ip| secure_id::secure_id(ip, &mut Rng::new(Seeds(seed))));
    Output::new(flags)
        .say(|| json!({"event": "id", "id": id.to_string(), "ip": args.ip}), || id.to_string())?;
    Ok(())
}
