//! The programs that are compared, each with its limits lifted, and how they are started.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use harness::load::{Load, Target, Tids};
use harness::process::workspace;
use harness::rivals::{Libtorrent, Series, mainline_program};

use super::{FLOOR, Memory, NODE, Row};

/// The name of our own row.
pub(crate) const OURS: &str = "btdht";

/// The echo.
pub(crate) fn floor() -> Row {
    let mut echo = pinned(std::env::current_exe().unwrap());
    echo.args(["echo", FLOOR]);
    row("floor", Target::Echo, Tids::Four, echo)
}

/// A program that is not installed.
pub(crate) struct Missing {
    pub(crate) name: &'static str,
    /// Where it would be, and what makes it.
    pub(crate) why: String,
}

/// The nodes that are installed, and the others.
pub(crate) fn nodes() -> (Vec<Row>, Vec<Missing>) {
    let router = Load::router().to_string();
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    let mut add = |name, tids, program: PathBuf, arguments: &[&str]| {
        if program.exists() {
            let mut command = pinned(program);
            command.args(arguments);
            rows.push(row(name, Target::Node, tids, command));
        } else {
            let made_by = if name == OURS { BUILD } else { INSTALL };
            missing.push(Missing { name, why: format!("{} is not there ({made_by})", program.display()) });
        }
    };
    let config = std::env::temp_dir().join("serving-bootstrap.toml");
    std::fs::write(&config, "[limits]\nreplies_per_second_per_ip = 0\nreply_bytes_per_second = 0\n").unwrap();
    let ours = std::env::current_exe().unwrap().with_file_name("btdht");
    let config = config.to_str().expect("a temporary folder in UTF-8");
    let arguments =
        ["serve", "--ipv4-only", "--no-state", "--port", "6882", "--bind", "85.255.0.1", "--config"];
    add(OURS, Tids::Any, ours, &[&arguments[..], &[config, "--bootstrap", &router]].concat());
    let script = workspace().join("tests/bench/serving_libtorrent.py");
    let script = script.to_str().expect("a workspace in UTF-8");
    for (name, series) in [("libtorrent-2.1", Series::V21), ("libtorrent-2.0", Series::V20)] {
        add(name, Tids::Four, Libtorrent::python(series), &[script, NODE, &router]);
    }
    let (ip, port) = NODE.split_once(':').expect("an address");
    add("mainline-8.0", Tids::Four, mainline_program(), &["serve", ip, port, &router]);
    add("rqbit-9.1", Tids::Four, mainline_program(), &["serve-rqbit", NODE, &router]);
    (rows, missing)
}

/// What makes our own program, and what makes those of the others.
const BUILD: &str = "cargo build --release -p btdht -p harness";
const INSTALL: &str = "tests/interop/install.sh";

fn row(name: &'static str, target: Target, tids: Tids, command: Command) -> Row {
    let (closed, gentle, half) = (Vec::new(), Vec::new(), Vec::new());
    let (memory, flaws) = (Memory::default(), BTreeSet::new());
    Row { name, target, tids, command, closed, gentle, half, memory, flaws }
}

/// A program that is never started.
#[cfg(test)]
pub(crate) fn row_of(name: &'static str) -> Row {
    row(name, Target::Node, Tids::Four, Command::new("true"))
}

/// `program` on core 0, with all threads that it will ever have.
fn pinned(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}
