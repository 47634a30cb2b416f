//! [`Screen`]: how far an experiment is, on stderr if that is a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use btdht::settings::Flags;
use btdht::sim::scenario::Watcher;

/// Shows progress in one line that is written over, and stops when told to.
pub(crate) struct Screen {
    shows: bool,
    stopped: Arc<AtomicBool>,
    /// What stands there.
    shown: String,
}

impl Screen {
    /// Shows what the flags allow, and stops the experiment once `stopped` is set.
    pub(crate) fn new(flags: &Flags, stopped: Arc<AtomicBool>) -> Self {
        let shows = !flags.quiet && !flags.json && io::stderr().is_terminal();
        Self { shows, stopped, shown: String::new() }
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
