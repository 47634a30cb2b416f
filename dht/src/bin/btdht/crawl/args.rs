//! What a walk is told on the command line.

use std::time::Duration;

use btdht::crawl::Region;

/// How to walk.
#[derive(clap::Args)]
pub(super) struct Walk {
    /// Queries a second at most, nearly each to another address [default: crawl_rate, 25]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) rate: Option<u32>,
    /// Unanswered queries at the same time at most [default: crawl_max_in_flight, 128]; half of max_in_flight at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) max_in_flight: Option<u32>,
    /// Ask for the sizes of swarms too (BEP 33), with a quarter of the queries
    #[arg(long)]
    pub(super) scrape: bool,
    /// End after so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) duration: Option<Duration>,
    /// End after so many infohashes that the database did not have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// Infohashes in the database at most, some 200 bytes each: then those it has are still updated
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_infohashes: u64,
    /// End when everybody known has been asked so many times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rounds: Option<u64>,
    /// Walk the part of the key space that begins with these hexadecimal digits
    #[arg(long, value_name = "PREFIX")]
    pub(super) target: Option<Region>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let span = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    span.ok_or_else(|| "expected seconds, more than 0".to_owned())
}
