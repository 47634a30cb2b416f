//! SIGINT and SIGTERM: the first asks the program to save and end, the second ends it at once.

use std::io;

use tokio::sync::watch;

/// A signal that ends the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

/// Tells when to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<Option<Signal>>);

impl Signal {
    /// 128 and the number of the signal, as shells count.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl Stop {
    /// Waits for the first signal.
    pub(crate) async fn requested(&mut self) -> Signal {
        let signal = self.0.wait_for(Option::is_some).await.map(|signal| *signal);
        match signal {
            Ok(Some(signal)) => signal,
            // The watcher lives as long as the runtime.
            _ => std::future::pending().await,
        }
    }
}

/// Starts to watch.
///
/// # Errors
/// When the system has no room for another signal handler.
pub(crate) fn watch() -> io::Result<Stop> {
    let mut signals = Signals::new()?;
    let (requested, stop) = watch::channel(None);
    tokio::spawn(async move {
        requested.send_replace(Some(signals.next().await));
        let second = signals.next().await;
        std::process::exit(second.exit_code().into());
    });
    Ok(Stop(stop))
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}
