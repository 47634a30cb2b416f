//! How a transfer is doing, on stderr: a bar on a terminal, a plain line now and then otherwise.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use btfetch::swarm::Status;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;
use crate::text;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows one transfer.
pub(crate) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// In a log: the line before was written then.
    Lines { output: Output, last: Option<Instant> },
    /// Nowhere.
    Off,
}

/// What is done before it is known how much is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The info dictionary is looked for.
    Metadata,
    /// It is known: files are opened and checked.
    Files,
    /// So many pieces of so many that may be there were hashed.
    Check(u32, u32),
    /// So many bytes of so many are reserved for the files.
    Space(u64, u64),
}

impl Progress {
    /// Picks the form that fits where stderr goes.
    pub(crate) fn new(output: Output) -> Self {
        if output.quiet || output.json {
            return Self::Off;
        }
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if dumb || !std::io::stderr().is_terminal() {
            return Self::Lines { output, last: None };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        Self::Bar(bar.with_style(style("{spinner} {msg}")))
    }

    /// Shows `status` of the torrent called `name` (already escaped).
    pub(crate) fn update(&mut self, (name, what): (&str, Before), status: &Status) {
        match self {
            Self::Bar(bar) => {
                if status.wanted > 0 && bar.length() != Some(status.wanted) {
                    bar.set_style(style("{bar:30} {percent:>3}%  {msg}"));
                    bar.set_length(status.wanted);
                }
                bar.set_position(status.wanted - status.left.min(status.wanted));
                bar.set_message(line(name, what, status));
                bar.tick();
            }
            Self::Lines { output, last } => {
                if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                    *last = Some(Instant::now());
                    output.say(line(name, what, status));
                }
            }
            Self::Off => {}
        }
    }

    /// Writes a line of text above the bar.
    pub(crate) fn say(&self, output: Output, line: impl AsRef<str>) {
        match self {
            Self::Bar(bar) => bar.suspend(|| output.say(line)),
            _ => output.say(line),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One line: how much of what, how fast, with whom.
pub(crate) fn line(name: &str, what: Before, status: &Status) -> String {
    let peers = format!("{} peers ({} seeds)", status.peers, status.seeds);
    if status.wanted == 0 {
        let doing = match what {
            Before::Metadata => "looking for the metadata".into(),
            Before::Files => "looking at what is there".into(),
            Before::Check(done, total) => format!("checking what is there, piece {done} of {total}"),
            Before::Space(done, total) => {
                format!("preallocating, {} of {}", text::size(done), text::size(total))
            }
        };
        return format!("{name}: {doing}, {peers}, {} addresses known", status.known);
    }
    let done = status.wanted - status.left.min(status.wanted);
    let mut line = format!(
        "{name}: {} of {}, down {}/s, up {}/s, {peers}",
        text::size(done),
        text::size(status.wanted),
        text::size(status.rate_down),
        text::size(status.rate_up),
    );
    if let Some(eta) = status.eta.filter(|_| status.left > 0) {
        line += &format!(", {} left", text::span(eta));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_how_far_and_with_whom() {
        let mut status = Status { known: 7, ..Status::default() };
        let before = |what| line("x", what, &status);
        let peers = "0 peers (0 seeds), 7 addresses known";
        assert_eq!(before(Before::Metadata), format!("x: looking for the metadata, {peers}"));
        assert_eq!(before(Before::Files), format!("x: looking at what is there, {peers}"));
        let check = before(Before::Check(3, 7));
        assert_eq!(check, format!("x: checking what is there, piece 3 of 7, {peers}"));
        let space = before(Before::Space(1 << 30, 4 << 30));
        assert_eq!(space, format!("x: preallocating, 1.0 GiB of 4.0 GiB, {peers}"));
        status = Status {
            wanted: 4 << 20,
            left: 1 << 20,
            rate_down: 2048,
            peers: 3,
            seeds: 1,
            eta: Some(Duration::from_secs(61)),
            ..status
        };
        let expected = "x: 3.0 MiB of 4.0 MiB, down 2.0 KiB/s, up 0 B/s, 3 peers (1 seeds), 1:01 left";
        assert_eq!(line("x", Before::Files, &status), expected);
    }
}
