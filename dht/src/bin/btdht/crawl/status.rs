//! `btdht crawl status`: what the database of a crawl holds.

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::json;

use super::db::{Db, KeptSize};
use super::open::Missing;
use super::record::{Standing, seconds};
use super::report::{size_json, size_line};
use super::task;
use crate::context::Context;
use crate::failure::Failure;

/// Say what has been recorded so far
#[derive(clap::Args)]
#[command(after_help = "\
Infohashes and how many have a known size, nodes by what they may be asked, and the last estimate of \
the DHT's size.

Example: btdht crawl status")]
pub(super) struct Args {}

#[derive(Debug, Default)]
struct Summary {
    infohashes: u64,
    sized: u64,
    /// When the first was told, and the last.
    first: Option<u64>,
    last: Option<u64>,
    fresh: u64,
    resting: u64,
    silent: u64,
    refused: u64,
    /// Nodes whose interval is over.
    due: u64,
    sizes: [Option<KeptSize>; 2],
}

pub(super) async fn run(path: PathBuf, context: &Context) -> Result<(), Failure> {
    let shown = path.display().to_string();
    let summary = task::blocking(move || Summary::of(&Db::open(&path, Missing::Refuse)?)).await?;
    let size = |kept: &Option<KeptSize>| {
        kept.map(|kept| {
            let mut size = size_json(Some(&kept.estimate));
            size["at"] = kept.at.into();
            size
        })
    };
    let Summary { infohashes, sized, first, last, fresh, resting, silent, refused, due, sizes } = &summary;
    context.out.say(
        || {
            json!({
                "event": "status", "db": shown, "infohashes": infohashes, "sized": sized,
                "first_seen": first, "last_seen": last, "fresh": fresh, "resting": resting,
                "silent": silent, "refused": refused, "due": due,
                "dht_size": {"ipv4": size(&sizes[0]), "ipv6": size(&sizes[1])},
            })
        },
        || {
            let mut lines = vec![
                format!("{infohashes} infohashes, {sized} of known size, in {shown}"),
                format!(
                    "nodes: {fresh} may be asked, {resting} rest ({due} no longer), {silent} were silent, \
                     {refused} do not know BEP 51"
                ),
            ];
            for (family, size) in ["IPv4", "IPv6"].iter().zip(sizes) {
                lines.extend(size.map(|size| size_line(family, &size.estimate)));
            }
            lines.join("\n")
        },
    )?;
    Ok(())
}

impl Summary {
    fn of(db: &Db) -> Result<Self, Failure> {
        let now = seconds(SystemTime::now());
        let mut summary = Self { sizes: db.sizes()?, ..Self::default() };
        db.for_each(|_, infohash| {
            summary.infohashes += 1;
            summary.sized += u64::from(infohash.size().is_some());
            let (first, last) = (infohash.first_seen, infohash.last_seen);
            summary.first = Some(summary.first.map_or(first, |before| before.min(first)));
            summary.last = Some(summary.last.map_or(last, |before| before.max(last)));
            Ok(())
        })?;
        for node in db.nodes()? {
            let count = match node.standing {
                Standing::Fresh => &mut summary.fresh,
                Standing::Resting => &mut summary.resting,
                Standing::Silent => &mut summary.silent,
                Standing::Refused => &mut summary.refused,
            };
            *count += 1;
            summary.due += u64::from(node.standing == Standing::Resting && node.until <= now);
        }
        Ok(summary)
    }
}
