//! `btdht replay`: what a recorded node did, done again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::PathBuf;

use btdht::replay::{Difference, Input, Record, Replay, Replayed, Sent, Step};
use btdht::trace::{Problem, Reader, TraceError};
use btdht::{Event, LookupId};
use krpc::Id;
use serde_json::json;

use crate::failure::Failure;
use crate::hops::{HEADING, Hops};
use crate::output::Output;

/// Differences that are shown; all are counted.
const MAX_SHOWN: u64 = 20;

/// Replay a recorded run and check that it does the same
#[derive(clap::Args)]
#[command(after_help = "\
FILE is what a verb printed with --trace --json: the seed of its node, and every command, datagram \
and timeout that the node was given. A fresh node is given the same; what it does is shown as a table \
of hops and compared with the record. No network is opened. `-` reads stdin.

A trace holds the seed, and so the token secrets, of the run that it records. Verbs that run once \
draw a fresh seed each time, so that nothing of use to anybody is in their traces but the addresses \
that were met.

Exit code 0 when everything is as recorded, 1 when something differs, 2 when FILE is no trace.

Example: btdht get-peers 08ada5a7a6183aae1e09d831df6748d566095a10 --trace --json > run.jsonl
         btdht replay run.jsonl")]
pub(crate) struct Args {
    /// The trace
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(args: &Args, out: &Output) -> Result<(), Failure> {
    let name = args.file.display().to_string().escape_debug().to_string();
    if args.file.as_os_str() == "-" {
        return replay(BufReader::new(stdin().lock()), &name, out);
    }
    let file = File::open(&args.file).map_err(|error| Failure::usage(format!("opening {name}: {error}")))?;
    replay(BufReader::new(file), &name, out)
}

fn replay(lines: impl BufRead, name: &str, out: &Output) -> Result<(), Failure> {
    let wrong = |error: TraceError| match &error.problem {
        Problem::Io(_) => Failure::usage(format!("reading {name}: {error}")),
        Problem::Invalid(_) => Failure::usage(format!("reading {name}: {error}"))
            .hint("a verb with --trace --json prints a trace"),
    };
    let mut reader = Reader::new(lines);
    let mut node = None;
    let mut table = Table::default();
    let (mut inputs, mut sent, mut complete) = (0u64, 0, false);
    let mut different = Vec::new();
    while let Some(record) = reader.next_record().map_err(wrong)? {
        match record {
            Record::Origin(origin) => node = Some(Replay::new(*origin)),
            Record::End { complete: whole } => complete = whole,
            Record::Step(step) => {
                // The reader lets no step stand before the origin.
                let Some(node) = &mut node else { continue };
                inputs += 1;
                sent += step.sent.len();
                let replayed = node.step(&step);
                table.show(&step, &replayed, out)?;
                if let Some(difference) = &replayed.difference {
                    different.push(reader.line());
                    if different.len() as u64 <= MAX_SHOWN {
                        say(reader.line(), difference, out)?;
                    }
                }
            }
        }
    }
    out.say(
        || {
            json!({
                "event": "done", "inputs": inputs, "sent": sent, "different": different.len(),
                "complete": complete,
            })
        },
        || {
            let cut = if complete { "" } else { "; the recording breaks off here" };
            format!("replayed {inputs} inputs, {sent} datagrams sent{cut}")
        },
    )?;
    match different.first() {
        None => Ok(()),
        Some(line) => Err(Failure::other(format!(
            "replaying {name}: {} of {inputs} inputs came to something else than recorded, the first in line {line}",
            different.len()
        ))
        .hint("was the file changed, or recorded by another version?")),
    }
}

/// The hops of all lookups, each towards its own target.
#[derive(Default)]
struct Table {
    lookups: BTreeMap<LookupId, Id>,
    hops: BTreeMap<LookupId, Hops>,
    headed: bool,
}

impl Table {
    fn show(&mut self, step: &Step, replayed: &Replayed, out: &Output) -> Result<(), Failure> {
        if let (Input::Command(command), Some(lookup)) = (&step.input, replayed.lookup) {
            self.lookups.extend(command.target().map(|target| (lookup, target)));
        }
        for event in &replayed.events {
            match event {
                Event::Hop { lookup, hop } => {
                    let target = self.lookups.get(lookup).copied().unwrap_or(Id::ZERO);
                    let hops = *self.hops.entry(*lookup).or_insert_with(|| Hops::new(target, hop.at));
                    if !std::mem::replace(&mut self.headed, true) {
                        out.say_plain(|| HEADING.into())?;
                    }
                    out.say(|| hops.json(hop), || hops.line(hop))?;
                }
                Event::Done { lookup, .. } => {
                    self.lookups.remove(lookup);
                    self.hops.remove(lookup);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn say(line: u64, difference: &Difference, out: &Output) -> Result<(), Failure> {
    let shown = |sent: &Option<Sent>| match sent {
        None => "nothing".to_owned(),
        Some(Sent { to, socket, bytes }) => {
            format!("to {to} from socket {socket}: {}", bytes.escape_ascii())
        }
    };
    let (what, recorded, now) = match difference {
        Difference::Sent { index, recorded, now } => {
            (format!("datagram {}", index + 1), shown(recorded), shown(now))
        }
        Difference::Told => ("events".into(), "as recorded".into(), "others".into()),
    };
    out.say(
        || json!({"event": "difference", "line": line, "what": what, "recorded": recorded, "now": now}),
        || format!("line {line}: {what} differs\n  recorded: {recorded}\n  now:      {now}"),
    )?;
    Ok(())
}
