//! What all verbs that transfer have in common: settings, sockets, the DHT node, the session, and how
//! one torrent is watched to its end.

use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use btdht::net::{Dht, Error as DhtError, State};
use btdht::settings::{Flags, Program, Settings};
use btfetch::engine::{Listeners, Options, Session};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::descriptors;
use crate::failure::{Exit, Failure};

/// Ports that are tried when the user named none.
const PORTS: std::ops::RangeInclusive<u16> = 6881..=6889;
/// Runtime threads at most: connections and the torrents' owners. Disks have threads of their own.
const MAX_WORKERS: usize = 4;
/// Good-byes and the last save take no longer: three seconds are all that the end of a process may take.
const GOOD_BYE: Duration = Duration::from_millis(2900);
/// The node has as long as this for its last save, however long the session took: at most 2.7 s.
const LAST_SAVE: Duration = Duration::from_millis(250);

/// A session and its DHT node.
pub(crate) struct Running {
    pub(crate) session: Session,
    pub(crate) dht: Option<Dht>,
}

/// What a verb wants of the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    pub(crate) dht: bool,
    pub(crate) down: u64,
    pub(crate) up: u64,
}

/// Runs a verb on a runtime of its own. Whatever still runs afterwards is left behind: a name that
/// does not resolve must not hold up the end.
pub(crate) fn block_on(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    descriptors::raise();
    let runtime = runtime()?;
    let result = runtime.block_on(verb);
    runtime.shutdown_background();
    result
}

/// Half of the cores are for the network: hashing and writing need the rest. With two cores that is one
/// thread, so that a connection and its torrent's owner do not wake each other across cores.
fn runtime() -> Result<Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(1, MAX_WORKERS))
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("starting threads: {error}")))
}

/// Merges the settings of all places.
pub(crate) fn settings(flags: &Flags) -> Result<Settings, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    let program = Program { prefix: "BTFETCH", environment: &environment };
    Settings::load(&program, flags).map_err(|error| Failure::usage(error.to_string()))
}

/// Binds TCP and UDP to one port and starts a node and a session there.
pub(crate) fn start(settings: &Settings, wants: Wants) -> Result<Running, Failure> {
    let (listeners, dht) = bind(settings, wants.dht)?;
    let session = Session::new(Options {
        dht: dht.clone(),
        allow_local: settings.config.allow_local,
        down: wants.down,
        up: wants.up,
        ..Options::new(listeners)
    });
    let session = session.map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Running { session, dht })
}

impl Running {
    /// Says good-bye to trackers and peers and saves everything; within three seconds.
    pub(crate) async fn shutdown(self) {
        let Self { session, dht } = self;
        let save = async {
            match &dht {
                Some(dht) => dht.shutdown().await,
                None => Ok(()),
            }
        };
        good_bye(session.shutdown(), save).await;
    }
}

/// Ends the session and then its node, which has what is left of the time to save what it knows.
async fn good_bye(session: impl Future<Output = ()>, save: impl Future<Output = Result<(), DhtError>>) {
    let end = Instant::now() + GOOD_BYE;
    session.await;
    match tokio::time::timeout_at(end.max(Instant::now() + LAST_SAVE), save).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "state was not saved"),
        Err(_) => tracing::warn!("the disk is too slow: not everything was saved"),
    }
}

/// Ends a run in good order with what it came to. A second signal ends it at once, without a good-bye.
pub(crate) async fn end(
    result: Result<(), Failure>,
    good_byes: impl Future<Output = ()>,
    signal: impl Future<Output = Exit>,
) -> Result<(), Failure> {
    tokio::select! {
        () = good_byes => result,
        exit = signal => Err(Failure::quiet(exit)),
    }
}

fn bind(settings: &Settings, dht: bool) -> Result<(Listeners, Option<Dht>), Failure> {
    match settings.listen.port {
        Some(port) => bind_at(settings, dht, port).map_err(Busy::into_failure),
        None => {
            let mut last = None;
            for port in PORTS {
                match bind_at(settings, dht, port) {
                    Err(busy @ Busy { taken: true, .. }) => last = Some(busy),
                    result => return result.map_err(Busy::into_failure),
                }
            }
            let busy = last.expect("there are ports to try");
            Err(busy.into_failure().hint("6881 to 6889 are all taken; --port 0 takes any free one"))
        }
    }
}

/// A port that could not be had.
struct Busy {
    taken: bool,
    exit: Exit,
    message: String,
}

impl Busy {
    fn into_failure(self) -> Failure {
        Failure::new(self.exit, self.message)
    }
}

fn bind_at(settings: &Settings, dht: bool, port: u16) -> Result<(Listeners, Option<Dht>), Busy> {
    // With port 0 the system's choice for TCP may be taken in UDP: it is asked again.
    let mut tries = if port == 0 { 16 } else { 1 };
    loop {
        tries -= 1;
        match bind_both(settings, dht, port) {
            Err(Busy { taken: true, .. }) if tries > 0 => {}
            result => return result,
        }
    }
}

fn bind_both(settings: &Settings, dht: bool, port: u16) -> Result<(Listeners, Option<Dht>), Busy> {
    let listeners = Listeners::bind(&settings.binds(port)).map_err(|error| Busy {
        taken: error.source.kind() == io::ErrorKind::AddrInUse,
        exit: Exit::Bind,
        message: error.to_string(),
    })?;
    if !dht {
        return Ok((listeners, None));
    }
    match node(settings, listeners.port()) {
        Ok(dht) => Ok((listeners, Some(dht))),
        Err(DhtError::Bind { addr, source }) => Err(Busy {
            taken: source.kind() == io::ErrorKind::AddrInUse,
            exit: Exit::Bind,
            message: format!("binding {addr} (UDP): {source}"),
        }),
        Err(error) => Err(Busy { taken: false, exit: exit_of(&error), message: error.to_string() }),
    }
}

/// Starts a node that keeps its table for the next run. When another process holds the folder, or
/// the disk refuses, the node starts from what is there and keeps nothing: a download does not fail
/// for that.
fn node(settings: &Settings, port: u16) -> Result<Dht, DhtError> {
    let options = |state| btdht::net::Options {
        binds: settings.binds(port),
        shards: 1,
        lingers: false,
        config: settings.config.clone(),
        bootstrap: settings.routers.clone(),
        state,
    };
    let Some(folder) = settings.folders.state.clone() else {
        return Dht::bind(options(State::Nothing));
    };
    match Dht::bind(options(State::Keep(folder.clone()))) {
        Err(error @ (DhtError::State { .. } | DhtError::StateInUse { .. })) => {
            tracing::info!("{error}; the nodes found in this run are not kept");
            Dht::bind(options(State::Read(folder)))
        }
        result => result,
    }
}

fn exit_of(error: &DhtError) -> Exit {
    match error {
        DhtError::NoAddress | DhtError::TooManyAddresses => Exit::Bind,
        DhtError::Router { .. } => Exit::Usage,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use tokio::time::sleep;

    use super::*;

    /// S50: three seconds for all of it. A disk that is busy with a download is slow to take what the node saves.
    #[tokio::test(start_paused = true)]
    async fn the_node_saves_for_as_long_as_the_session_has_left_it() {
        let ms = Duration::from_millis;
        for (session, save, expected) in [
            (ms(0), Some(ms(2800)), (true, ms(2800))),
            (ms(1000), Some(ms(1500)), (true, ms(2500))),
            (ms(1000), None, (false, ms(2900))),
            // The longest that a session takes.
            (ms(2700), Some(ms(240)), (true, ms(2940))),
            (ms(2700), None, (false, ms(2950))),
        ] {
            let (begun, saved) = (Instant::now(), Cell::new(false));
            let saving = async {
                match save {
                    Some(save) => sleep(save).await,
                    None => pending().await,
                }
                saved.set(true);
                Ok(())
            };
            good_bye(sleep(session), saving).await;
            let elapsed = begun.elapsed();
            // The timer rounds up to milliseconds.
            assert!((expected.1..=expected.1 + ms(2)).contains(&elapsed), "{elapsed:?} {expected:?}");
            assert_eq!(saved.get(), expected.0, "{session:?} {save:?}");
        }
    }

    /// S50. Time is virtual: whoever waited for the good-byes would wait for ever.
    #[tokio::test(start_paused = true)]
    async fn a_second_signal_waits_for_no_good_bye() {
        let begun = tokio::time::Instant::now();
        let first = Err(Failure::quiet(Exit::Terminated));
        let end = end(first, pending(), ready(Exit::Interrupted)).await;
        assert_eq!(end.unwrap_err().exit, Exit::Interrupted);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn without_one_the_good_byes_are_waited_for_and_change_nothing() {
        let second = Duration::from_secs(1);
        for result in [Ok(()), Err(Failure::quiet(Exit::Disk))] {
            let (expected, begun) = (result.is_ok(), tokio::time::Instant::now());
            let end = end(result, tokio::time::sleep(second), pending()).await;
            assert_eq!((end.is_ok(), begun.elapsed()), (expected, second));
        }
    }
}
