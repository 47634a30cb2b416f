//! `btdht crawl export`: what a crawl has found, for other programs.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::db::Db;
use super::open::Missing;
use super::record::Infohash;
use super::task;
use crate::failure::Failure;
use krpc::Id;

/// Write the recorded infohashes as JSON Lines or CSV
#[derive(clap::Args)]
#[command(after_help = "\
One infohash a line, in their order, the same one for the same database: when it was first and last \
told and how often, about how many nodes told it, and the size of its swarm and when that was asked \
for, where it is known. Times are seconds since 1970.

Example: btdht crawl export --format csv -o infohashes.csv")]
pub(super) struct Args {
    /// How to write
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Write to a file, which is there as a whole or not at all [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

pub(super) async fn run(args: &Args, path: PathBuf) -> Result<(), Failure> {
    let (format, output) = (args.format, args.output.clone());
    task::blocking(move || {
        let db = Db::open(&path, Missing::Refuse)?;
        match output {
            None => write(&db, format, io::stdout().lock()),
            Some(output) => to_file(&db, format, &output),
        }
    })
    .await
}

fn to_file(db: &Db, format: Format, path: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::disk(format!("writing {}: {error}", path.display()));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let file = File::create(&temporary).map_err(failed)?;
    let written = write(db, format, &file)
        .and_then(|()| file.sync_all().map_err(failed))
        .and_then(|()| fs::rename(&temporary, path).map_err(failed));
    if written.is_err() {
        // What is half done helps nobody; why it is, is told.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write(db: &Db, format: Format, out: impl Write) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    if format == Format::Csv {
        writeln!(out, "infohash,first_seen,last_seen,times_seen,nodes,seeds,downloaders,sized_at")?;
    }
    db.for_each(|id, infohash| {
        match format {
            Format::Jsonl => writeln!(out, "{}", as_json(id, infohash))?,
            Format::Csv => writeln!(out, "{}", as_csv(id, infohash))?,
        }
        Ok(())
    })?;
    Ok(out.flush()?)
}

fn as_json(id: Id, infohash: &Infohash) -> serde_json::Value {
    let sized = infohash.has_size();
    json!({
        "infohash": id.to_string(),
        "first_seen": infohash.first_seen,
        "last_seen": infohash.last_seen,
        "times_seen": infohash.times_seen,
        "nodes": infohash.nodes(),
        "seeds": sized.then_some(infohash.swarm.seeds),
        "downloaders": sized.then_some(infohash.swarm.downloaders),
        "sized_at": sized.then_some(infohash.sized_at),
    })
}

fn as_csv(id: Id, infohash: &Infohash) -> String {
    let Infohash { first_seen, last_seen, times_seen, swarm, sized_at, .. } = infohash;
    let size = match infohash.has_size() {
        true => format!("{},{},{sized_at}", swarm.seeds, swarm.downloaders),
        false => ",,".to_owned(),
    };
    format!("{id},{first_seen},{last_seen},{times_seen},{},{size}", infohash.nodes())
}
