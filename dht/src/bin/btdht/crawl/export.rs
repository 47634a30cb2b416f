//! `btdht crawl export`: what a crawl has found, for other programs.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use super::db::Db;
use super::open::Missing;
use super::place::{self, Place, beside, is_same, straight};
use super::record::Infohash;
use super::task;
use crate::failure::Failure;
use crate::signals::Stop;
use krpc::Id;

/// Write the recorded infohashes as JSON Lines or CSV
#[derive(clap::Args)]
#[command(after_help = "\
One infohash a line, in their order, the same one for the same database: when it was first and last \
told and how often, about how many nodes told it, and the size of its swarm and when somebody last knew \
it, where somebody did. Times are seconds since 1970.

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

pub(super) async fn run(args: &Args, path: PathBuf, stop: &mut Stop) -> Result<(), Failure> {
    let (format, output) = (args.format, args.output.clone());
    let progress = Arc::new(Progress::default());
    let seen = Arc::clone(&progress);
    let mut work = pin!(task::blocking(move || {
        let db = Db::open(&path, Missing::Refuse)?;
        refuse_itself(&path, output.as_deref())?;
        match output
            .map_or(Ok(Place::Stdout), |path| Place::of(&path).map_err(|error| failed(&path, &error)))?
        {
            Place::Stdout => write(&db, format, || true, io::stdout().lock()),
            Place::Other(path) => {
                let out = straight(&path).map_err(|error| failed(&path, &error))?;
                write(&db, format, || true, out)
            }
            Place::File(path) if seen.begin() => to_file(&db, format, || seen.goes_on(), &path),
            Place::File(_) => Ok(()),
        }
    }));
    tokio::select! {
        result = &mut work => result,
        signal = stop.requested() => {
            if progress.stop() {
                // It sees that at the next line, and takes away what it has written.
                let _ = work.await;
            }
            Err(Failure::signal(signal))
        }
    }
}

/// How far a file is.
#[derive(Debug, Default)]
struct Progress(AtomicU8);

impl Progress {
    const OPENING: u8 = 0;
    const WRITING: u8 = 1;
    const STOPPED: u8 = 2;

    /// Begins to write, unless it is stopped.
    fn begin(&self) -> bool {
        self.0.compare_exchange(Self::OPENING, Self::WRITING, SeqCst, SeqCst).is_ok()
    }

    fn goes_on(&self) -> bool {
        self.0.load(SeqCst) == Self::WRITING
    }

    /// Stops it; whether it was being written.
    fn stop(&self) -> bool {
        self.0.swap(Self::STOPPED, SeqCst) == Self::WRITING
    }
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::disk(format!("writing {}: {error}", path.display()))
}

/// Refuses to write over the database what is read from it, by whatever name.
fn refuse_itself(database: &Path, output: Option<&Path>) -> Result<(), Failure> {
    let is_it = match output {
        Some(path) => is_same(database, path),
        None => place::is_our_output(database),
    };
    if !is_it {
        return Ok(());
    }
    let shown = output.map_or_else(|| "stdout".to_owned(), |path| path.display().to_string());
    let database = database.display();
    Err(Failure::usage(format!("{shown} is {database}, the database that is exported"))
        .hint("-o FILE names another file; the database is left as it is"))
}

fn to_file(db: &Db, format: Format, goes_on: impl Fn() -> bool, path: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| failed(path, &error);
    let (temporary, file) = beside(path).map_err(failed)?;
    let written = write(db, format, goes_on, &file)
        .and_then(|()| file.sync_all().map_err(failed))
        .and_then(|()| fs::rename(&temporary, path).map_err(failed));
    if written.is_err() {
        // What is half done helps nobody; why it is, is told.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes a line for each infohash, as long as it `goes_on`.
fn write(db: &Db, format: Format, goes_on: impl Fn() -> bool, out: impl Write) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    if format == Format::Csv {
        writeln!(out, "infohash,first_seen,last_seen,times_seen,nodes,seeds,downloaders,sized_at")?;
    }
    db.for_each(|id, infohash| {
        if !goes_on() {
            return Err(Failure::other("stopped"));
        }
        match format {
            Format::Jsonl => writeln!(out, "{}", as_json(id, infohash))?,
            Format::Csv => writeln!(out, "{}", as_csv(id, infohash))?,
        }
        Ok(())
    })?;
    Ok(out.flush()?)
}

fn as_json(id: Id, infohash: &Infohash) -> serde_json::Value {
    let size = infohash.size();
    json!({
        "infohash": id.to_string(),
        "first_seen": infohash.first_seen,
        "last_seen": infohash.last_seen,
        "times_seen": infohash.times_seen,
        "nodes": infohash.nodes(),
        "seeds": size.map(|(swarm, _)| swarm.seeds),
        "downloaders": size.map(|(swarm, _)| swarm.downloaders),
        "sized_at": size.map(|(_, at)| at),
    })
}

fn as_csv(id: Id, infohash: &Infohash) -> String {
    let Infohash { first_seen, last_seen, times_seen, .. } = infohash;
    let size = match infohash.size() {
        Some((swarm, at)) => format!("{},{},{at}", swarm.seeds, swarm.downloaders),
        None => ",,".to_owned(),
    };
    format!("{id},{first_seen},{last_seen},{times_seen},{},{size}", infohash.nodes())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use btdht::SwarmEstimate;
    use btdht::addr::source_key;

    use super::super::batch::Batch;
    use super::*;

    #[test]
    fn a_line_tells_the_size_and_when_somebody_knew_it_or_neither() {
        let (id, mut infohash) = (Id::new([0x0a; 20]), Infohash::default());
        infohash.told(1000, 1);
        let hex = "0a".repeat(20);
        assert_eq!(as_csv(id, &infohash), format!("{hex},1000,1000,1,1,,,"));
        assert_eq!(as_json(id, &infohash)["sized_at"], serde_json::Value::Null);
        infohash.sized(1100, SwarmEstimate { seeds: 5, downloaders: 2, nodes: 3, ignored: 0 });
        infohash.sized(1200, SwarmEstimate::default());
        assert_eq!(as_csv(id, &infohash), format!("{hex},1000,1000,1,1,5,2,1100"));
        let line = as_json(id, &infohash);
        assert_eq!(
            (&line["seeds"], &line["downloaders"], &line["sized_at"]),
            (&json!(5), &json!(2), &json!(1100))
        );
    }

    #[test]
    fn a_file_that_is_stopped_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("crawl.redb"), Missing::Create).unwrap();
        let node = ([81, 2, 3, 4], 6881).into();
        let told = (0..9).map(|n| (Id::new([n; 20]), node, source_key(node, false))).collect();
        db.write(1000, &Batch { told, ..Batch::default() }).unwrap();
        let (path, lines) = (folder.path().join("all.csv"), Cell::new(0));
        let files = || fs::read_dir(folder.path()).unwrap().count();
        let until = |most: u32| {
            lines.set(0);
            to_file(&db, Format::Csv, || lines.replace(lines.get() + 1) < most, &path)
        };
        assert!(until(5).is_err());
        assert_eq!((lines.get(), files()), (6, 1), "the database alone");
        until(9).unwrap();
        assert_eq!((files(), fs::read_to_string(&path).unwrap().lines().count()), (2, 10));
    }

    #[test]
    fn what_is_stopped_before_it_began_never_begins() {
        let progress = Progress::default();
        assert!(progress.begin() && progress.goes_on() && progress.stop());
        assert!(!progress.goes_on() && !progress.stop());
        let progress = Progress::default();
        assert!(!progress.stop() && !progress.begin() && !progress.goes_on());
    }
}
