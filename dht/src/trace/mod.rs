//! Traces: [`Record`]s of a node as JSON Lines, one object a line.
//!
//! # The format, version 1
//!
//! Each object has a key `event`; those below belong to the trace, any other is passed over, so that
//! a trace may be mixed with what a verb prints for people and programs. Times are microseconds of
//! the node's clock, addresses `IP:PORT`, bytes hexadecimal.
//!
//! | `event` | keys |
//! |---|---|
//! | `trace` | the first: `version` (1), `program`, `seed` (32 bytes), `at`, `config` (keys of bootstrap.toml that differ from the default, as TOML), `homes` (each `id`, `local`, `external`: our IP as an earlier run knew it, `saved`: a list of `[id, addr]`) |
//! | `input` | `at`, `input`: `datagram` (with `socket`, `from`, `bytes`), `command` (with `command`, see the source of `trace/command.rs`), `network` (with `socket` and `change`) or `timeout`; `sent`: a list of `[to, socket, bytes]`; `told`: a sum over what the owner was told, absent where that was nothing |
//! | `trace_end` | `complete`: whether all inputs were recorded |
//!
//! A trace holds the seed of its run, and so the token secrets that this node used. Verbs that run
//! once draw a fresh seed each; whoever records a node that goes on should not hand the trace out.

mod command;
mod fields;

use std::fmt;
use std::io::{self, BufRead, Read as _};
use std::net::SocketAddr;
use std::time::Duration;

use krpc::Id;
use serde_json::{Map, Value, json};

use crate::replay::{Input, Origin, Record, Sent, Step};
use crate::settings::{config_from, config_keys};
use crate::{Home, NetworkChange, Seeds, Time};
use fields::{Fields, hex};

/// The form that is written and read.
pub const VERSION: u64 = 1;
/// Longest line that is read: a few thousand saved nodes take some 100 bytes each.
const MAX_LINE: u64 = 4 << 20;
/// Most homes: their index is a byte.
const MAX_HOMES: usize = 255;
/// Longest datagram that UDP has.
const MAX_DATAGRAM: usize = 65_535;
/// Longest run that is read, so that no deadline is beyond counting.
const MAX_RUN: Duration = Duration::from_secs(366 * 24 * 3600);

/// The line for `record`, without its end.
pub fn write(record: &Record) -> String {
    match record {
        Record::Origin(origin) => origin_to_json(origin),
        Record::Step(step) => step_to_json(step),
        Record::End { complete } => json!({"event": "trace_end", "complete": complete}),
    }
    .to_string()
}

/// Reads the records of a trace, a line at a time. Nothing in the file is trusted: lines are bounded,
/// values are checked, time does not go back.
#[derive(Debug)]
pub struct Reader<R> {
    lines: R,
    line: u64,
    buffer: Vec<u8>,
    /// Homes and earliest time of what may follow; `None` before the origin.
    begun: Option<(usize, Time, Time)>,
    ended: bool,
}

/// Why a trace cannot be read.
#[derive(Debug)]
pub struct TraceError {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug)]
pub enum Problem {
    /// It could not be read.
    Io(io::Error),
    /// It does not say what it should.
    Invalid(String),
}

impl<R: BufRead> Reader<R> {
    /// Reads from `lines`.
    pub fn new(lines: R) -> Self {
        Self { lines, line: 0, buffer: Vec::new(), begun: None, ended: false }
    }

    /// The line of the last record, counted from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next record; `None` at the end of the file.
    ///
    /// # Errors
    /// A line that is no JSON object or no sound record, a file that is no trace.
    pub fn next_record(&mut self) -> Result<Option<Record>, TraceError> {
        while self.read_line().map_err(|error| self.wrong(Problem::Io(error)))? {
            if let Some(record) = self.record().map_err(|why| self.wrong(Problem::Invalid(why)))? {
                return Ok(Some(record));
            }
        }
        if self.begun.is_none() {
            return Err(self.wrong(Problem::Invalid("this is no trace: it has no `trace` line".into())));
        }
        Ok(None)
    }

    fn wrong(&self, problem: Problem) -> TraceError {
        TraceError { line: self.line, problem }
    }

    /// Whether there was another line.
    fn read_line(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let len = self.lines.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut self.buffer)?;
        self.line += u64::from(len > 0);
        if len as u64 > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 4 MiB"));
        }
        Ok(len > 0)
    }

    fn record(&mut self) -> Result<Option<Record>, String> {
        if self.buffer.trim_ascii().is_empty() {
            return Ok(None);
        }
        let object: Map<String, Value> =
            serde_json::from_slice(&self.buffer).map_err(|error| format!("no JSON object: {error}"))?;
        let fields = Fields(&object);
        let event = fields.text("event")?;
        let record = match event {
            "trace" if self.begun.is_some() => return Err("a second `trace` line".into()),
            "trace" => {
                let origin = origin_from_json(fields)?;
                self.begun = Some((origin.homes.len(), origin.at, origin.at + MAX_RUN));
                Record::Origin(Box::new(origin))
            }
            "input" | "trace_end" if self.ended => return Err("a record after `trace_end`".into()),
            "input" => {
                let Some((homes, earliest, latest)) = &mut self.begun else {
                    return Err("an input before the `trace` line".into());
                };
                let step = step_from_json(fields, *homes)?;
                if step.at < *earliest || step.at > *latest {
                    return Err("`at` goes back, or more than a year ahead".into());
                }
                *earliest = step.at;
                Record::Step(step)
            }
            "trace_end" => {
                self.ended = true;
                Record::End { complete: fields.flag("complete")? }
            }
            _ => return Ok(None),
        };
        Ok(Some(record))
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Io(error) => write!(f, "line {}: {error}", self.line),
            Problem::Invalid(why) => write!(f, "line {}: {why}", self.line),
        }
    }
}

impl std::error::Error for TraceError {}

fn origin_to_json(origin: &Origin) -> Value {
    let home = |home: &Home| {
        let saved: Vec<_> = home.saved.iter().map(|(id, addr)| json!([id.to_string(), addr])).collect();
        json!({"id": home.id.to_string(), "local": home.local, "external": home.external, "saved": saved})
    };
    let config: Map<_, _> =
        config_keys(&origin.config).into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    json!({
        "event": "trace",
        "version": VERSION,
        "program": concat!("btdht ", env!("CARGO_PKG_VERSION")),
        "seed": hex(&origin.seeds.0),
        "at": origin.at.as_micros(),
        "config": config,
        "homes": origin.homes.iter().map(home).collect::<Vec<_>>(),
    })
}

fn origin_from_json(fields: Fields<'_>) -> Result<Origin, String> {
    let version = fields.number("version")?;
    if version != VERSION {
        return Err(format!("version {version} of the format; this program reads {VERSION}"));
    }
    let seed = fields.bytes("seed")?.try_into().map_err(|_| "`seed` has to be 32 bytes")?;
    let at = fields.number("at")?;
    if at > u64::MAX / 4 {
        return Err("`at` is beyond counting".into());
    }
    let mut pairs = Vec::new();
    for (key, value) in fields.object("config")?.0 {
        let value = value.as_str().ok_or_else(|| format!("`config` {key:?} has to be a text of TOML"))?;
        pairs.push((key.as_str(), value));
    }
    let config = config_from(&pairs).map_err(|error| error.to_string())?;
    let homes = fields.list("homes")?;
    if !(1..=MAX_HOMES).contains(&homes.len()) {
        return Err("`homes` has to be a list of 1 to 255".into());
    }
    let homes = homes.iter().map(home_from_json).collect::<Result<_, _>>()?;
    Ok(Origin { seeds: Seeds(seed), config, homes, at: Time::from_micros(at) })
}

fn home_from_json(value: &Value) -> Result<Home, String> {
    let fields = Fields::of(value, "a home")?;
    let node = |value: &Value| -> Option<(Id, SocketAddr)> {
        let [id, addr] = value.as_array()?.as_slice() else { return None };
        Some((Id::from_hex(id.as_str()?)?, addr.as_str()?.parse().ok()?))
    };
    let saved = fields.list("saved")?.iter().map(node).collect::<Option<_>>();
    let saved = saved.ok_or("`saved` has to be a list of [id, address]")?;
    let external = match fields.0.get("external") {
        None | Some(Value::Null) => None,
        Some(_) => Some(fields.ip("external")?),
    };
    Ok(Home { id: fields.id("id")?, local: fields.addr("local")?, external, saved })
}

fn step_to_json(step: &Step) -> Value {
    let sent: Vec<_> = step.sent.iter().map(|s| json!([s.to, s.socket, hex(&s.bytes)])).collect();
    let mut object = match &step.input {
        Input::Datagram { socket, from, bytes } => {
            json!({"input": "datagram", "socket": socket, "from": from, "bytes": hex(bytes)})
        }
        Input::Command(command) => json!({"input": "command", "command": command::to_json(command)}),
        Input::Network { socket, change } => {
            let change = match change {
                NetworkChange::Lost => "lost",
                NetworkChange::Changed => "changed",
            };
            json!({"input": "network", "socket": socket, "change": change})
        }
        Input::Timeout => json!({"input": "timeout"}),
    };
    object["event"] = "input".into();
    object["at"] = step.at.as_micros().into();
    object["sent"] = sent.into();
    if step.told != 0 {
        object["told"] = format!("{:016x}", step.told).into();
    }
    object
}

fn step_from_json(fields: Fields<'_>, homes: usize) -> Result<Step, String> {
    let input = match fields.text("input")? {
        "datagram" => {
            let socket = socket(fields.number("socket")?, homes)?;
            let bytes = fields.bytes("bytes")?;
            if bytes.len() > MAX_DATAGRAM {
                return Err("`bytes` are more than a datagram has".into());
            }
            Input::Datagram { socket, from: fields.addr("from")?, bytes }
        }
        "command" => Input::Command(command::from_json(fields.object("command")?)?),
        "network" => {
            let change = match fields.text("change")? {
                "lost" => NetworkChange::Lost,
                "changed" => NetworkChange::Changed,
                _ => return Err("`change` has to be `lost` or `changed`".into()),
            };
            Input::Network { socket: socket(fields.number("socket")?, homes)?, change }
        }
        "timeout" => Input::Timeout,
        _ => return Err("`input` has to be `datagram`, `command`, `network` or `timeout`".into()),
    };
    let sent = |value: &Value| -> Option<Sent> {
        let [to, index, bytes] = value.as_array()?.as_slice() else { return None };
        let socket = socket(index.as_u64()?, homes).ok()?;
        Some(Sent { to: to.as_str()?.parse().ok()?, socket, bytes: fields::unhex(bytes.as_str()?)? })
    };
    let sent = fields.list("sent")?.iter().map(sent).collect::<Option<_>>();
    let told = match fields.0.get("told") {
        None => Some(0),
        Some(told) => told.as_str().and_then(|digits| u64::from_str_radix(digits, 16).ok()),
    };
    Ok(Step {
        at: Time::from_micros(fields.number("at")?),
        input,
        sent: sent.ok_or("`sent` has to be a list of [address, socket, bytes]")?,
        told: told.ok_or("`told` has to be 16 hexadecimal digits")?,
    })
}

fn socket(index: u64, homes: usize) -> Result<u8, String> {
    let known = u8::try_from(index).ok().filter(|&index| usize::from(index) < homes);
    known.ok_or_else(|| format!("socket {index} of {homes}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Config};

    fn origin() -> Record {
        let saved = vec![(Id::new([7; 20]), "[2001:db8::1]:6881".parse().unwrap())];
        let config = Config {
            allow_local: true,
            query_timeout: Duration::from_micros(1_234_567),
            wide_buckets: vec![4, 2],
            ..Config::default()
        };
        let (local, external) = ("[::]:6881".parse().unwrap(), Some("2001:db8::9".parse().unwrap()));
        let homes = vec![Home { id: Id::new([1; 20]), local, external, saved }];
        let at = Time::from_secs(3600);
        Record::Origin(Box::new(Origin { seeds: Seeds([5; 32]), config, homes, at }))
    }

    fn step(at: Time, input: Input) -> Record {
        let to = "81.2.3.4:5".parse().unwrap();
        let sent = vec![Sent { to, socket: 0, bytes: b"d1:\x00e".to_vec() }];
        Record::Step(Step { at, input, sent, told: 0x0123_4567_89ab_cdef })
    }

    fn read_all(text: &str) -> Result<Vec<Record>, TraceError> {
        let mut reader = Reader::new(text.as_bytes());
        let mut records = Vec::new();
        while let Some(record) = reader.next_record()? {
            records.push(record);
        }
        Ok(records)
    }

    fn whole() -> Vec<Record> {
        let at = Time::from_secs(3601);
        let from = "81.2.3.4:5".parse().unwrap();
        let command = Command::FindNode { target: Id::new([3; 20]), trace: true };
        vec![
            origin(),
            step(at, Input::Command(command)),
            step(at, Input::Datagram { socket: 0, from, bytes: vec![0, 255, 7] }),
            step(at, Input::Network { socket: 0, change: NetworkChange::Lost }),
            step(at, Input::Network { socket: 0, change: NetworkChange::Changed }),
            step(at, Input::Timeout),
            Record::End { complete: true },
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        let records = whole();
        let mut text = String::from("{\"event\":\"peer\",\"addr\":\"1.2.3.4:5\"}\n\n");
        for record in &records {
            text += &format!("{}\n{{\"event\":\"hop\"}}\n", write(record));
        }
        let read = read_all(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{records:?}"));
    }

    #[test]
    fn a_broken_line_is_named_with_its_number() {
        let [first, command, datagram, ..] = &whole()[..] else { unreachable!() };
        let (first, command, datagram) = (write(first), write(command), write(datagram));
        let back = command.replace("3601", "3599");
        for (text, line, says) in [
            (String::new(), 0, "no trace"),
            ("{\"event\":\"peer\"}\n".into(), 1, "no trace"),
            ("nonsense".into(), 1, "no JSON object"),
            ("[1,2]".into(), 1, "no JSON object"),
            (command.clone(), 1, "before the `trace` line"),
            (format!("{first}\n{first}"), 2, "a second"),
            (first.replace("\"version\":1", "\"version\":2"), 1, "version 2"),
            (first.replace("\"limits.query_timeout\"", "\"limits.query_timeuot\""), 1, "query_timeout"),
            (first.replace("[4, 2]", "x"), 1, "wide_buckets"),
            (first.replace("\"id\":\"01", "\"id\":\"1"), 1, "`id`"),
            (format!("{first}\n{back}"), 2, "goes back"),
            (format!("{first}\n{}", command.replace("3601", "99999999")), 2, "ahead"),
            (format!("{first}\n{}", command.replace("find_node", "find_fault")), 2, "find_fault"),
            (format!("{first}\n{}", datagram.replace("\"socket\":0", "\"socket\":1")), 2, "socket 1 of 1"),
            (format!("{first}\n{}", datagram.replace("00ff07", "00ff0")), 2, "`bytes`"),
            (format!("{first}\n{}", datagram.replace("81.2.3.4:5\",0", "81.2.3.4\",0")), 2, "`sent`"),
            (format!("{first}\n{}", datagram.replace("0123456789abcdef", "x")), 2, "`told`"),
            (format!("{first}\n{}", &command[..command.len() / 2]), 2, "no JSON object"),
            (format!("{}1", "[".repeat(100_000)), 1, "no JSON object"),
            ("{\"event\":\"trace_end\",\"complete\":true}\n{\"event\":\"trace_end\"}".into(), 2, "after"),
        ] {
            let error = read_all(&text).unwrap_err();
            let said = error.to_string();
            assert!(error.line == line && said.contains(says), "{says}: {said}");
        }
    }

    #[test]
    fn an_endless_line_is_not_read_to_its_end() {
        let mut reader = Reader::new(io::BufReader::new(io::repeat(b' ')));
        assert!(matches!(reader.next_record().unwrap_err(), TraceError { line: 1, problem: Problem::Io(_) }));
    }
}
