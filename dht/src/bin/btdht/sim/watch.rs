//! [`Screen`]: how far an experiment is, on stderr if that is a terminal, and what it cost so far.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use btdht::settings::Flags;
use btdht::sim::scenario::Watcher;

/// Shows progress in one line that is written over, and stops when told to.
pub(crate) struct Screen {
    shows: bool,
    stopped: Arc<AtomicBool>,
    /// What stands there.
    shown: String,
    /// When the last step was over.
    last: Instant,
    spent: Arc<Mutex<Spent>>,
}

/// What an experiment took so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// In which worlds were made, and in which they ran.
    pub(crate) growing: Duration,
    pub(crate) running: Duration,
    /// Resident bytes when the last world was made and after the last step, before anything was given
    /// back; `None` where the system does not tell.
    pub(crate) grown_rss: Option<u64>,
    pub(crate) rss: Option<u64>,
}

/// What worlds are made in; all other stages run them.
const GROWING: &str = "growing";

impl Screen {
    /// Shows what the flags allow, and stops the experiment once `stopped` is set.
    pub(crate) fn new(flags: &Flags, stopped: Arc<AtomicBool>) -> Self {
        let shows = !flags.quiet && !flags.json && io::stderr().is_terminal();
        Self { shows, stopped, shown: String::new(), last: Instant::now(), spent: Arc::default() }
    }

    /// What is spent, also after the experiment has taken the screen.
    pub(crate) fn spent(&self) -> Arc<Mutex<Spent>> {
        Arc::clone(&self.spent)
    }

    /// Books the step that is over.
    fn book(&mut self, stage: &str) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, rss) = (Instant::now(), status("VmRSS:"));
        let step = now.duration_since(self.last);
        if stage == GROWING {
            spent.growing += step;
            spent.grown_rss = rss;
        } else {
            spent.running += step;
        }
        (spent.rss, self.last) = (rss, now);
    }

    /// Nobody may be left to look, which is no reason to stop.
    fn write(&mut self, text: String) {
        if self.shows && text != self.shown {
            let width = self.shown.chars().count();
            let _ = write!(io::stderr(), "\r{text:width$}");
            let _ = io::stderr().flush();
            self.shown = text;
        }
    }
}

impl Watcher for Screen {
    fn progress(&mut self, stage: &str, done: f64) -> ControlFlow<()> {
        if self.stopped.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        self.book(stage);
        self.write(format!("{stage}: {:.0} %", 100.0 * done.clamp(0.0, 1.0)));
        ControlFlow::Continue(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.write(String::new());
        if self.shows {
            let _ = write!(io::stderr(), "\r");
        }
    }
}

/// A figure of this process in bytes, by the name that Linux has for it.
pub(crate) fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}
