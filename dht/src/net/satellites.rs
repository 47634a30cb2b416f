//! [`Satellites`]: the serving shards of a node as its own task sees them. Each has a thread and its own
//! sockets at the same addresses (see `station`); what they hand over comes through one bounded channel.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use super::interfaces::Difference;
use super::mailbox::{self, mailbox};
use super::port::PortCounters;
use super::station::{self, Handed, Report};
use super::{Clock, Error};
use crate::Counters;
use crate::shards::Satellite;

/// Crossings that wait for the node's task; what comes beyond them is dropped and counted.
const CROSSINGS: usize = 2048;

/// The serving shards beside the deciding one; none in a node that was not split.
#[derive(Debug, Default)]
pub(super) struct Satellites {
    crossings: Option<mpsc::Receiver<Handed>>,
    stations: Vec<Station>,
}

/// A thread, from outside. It ends when this is dropped.
#[derive(Debug)]
struct Station {
    orders: mailbox::Sender,
    report: Arc<Mutex<Report>>,
    thread: JoinHandle<()>,
    /// It was noticed that the thread has ended.
    is_lost: bool,
}

impl Satellites {
    /// Starts a thread for each of `cores`, with a socket at each of `locals`, which are bound already and
    /// shared. The machine has the addresses `present`.
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Shard`]; the threads that were started end.
    pub(super) fn start(
        cores: Vec<Satellite>,
        locals: &[SocketAddr],
        present: &BTreeSet<IpAddr>,
        clock: Clock,
    ) -> Result<Self, Error> {
        let (sender, crossings) = mpsc::channel(CROSSINGS);
        let mut stations = Vec::new();
        for (n, core) in (1..).zip(cores) {
            let (orders, inbox) = mailbox();
            let report = Arc::default();
            let plan = station::Plan {
                core,
                locals: locals.to_vec(),
                present: present.clone(),
                clock,
                crossings: sender.clone(),
                orders: inbox,
                report: Arc::clone(&report),
            };
            let thread = station::start(n, plan)?;
            stations.push(Station { orders, report, thread, is_lost: false });
        }
        Ok(Self { crossings: (!stations.is_empty()).then_some(crossings), stations })
    }

    /// Nobody but whoever hands over what comes through `crossings`.
    #[cfg(test)]
    pub(super) fn none(crossings: mpsc::Receiver<Handed>) -> Self {
        Self { crossings: Some(crossings), stations: Vec::new() }
    }

    /// What was handed over first, without waiting.
    pub(super) fn try_next(&mut self) -> Option<Handed> {
        self.crossings.as_mut()?.try_recv().ok()
    }

    /// Waits for what is handed over; for ever if there is nobody to do so. Cancel safe.
    pub(super) async fn next(&mut self) -> Handed {
        if let Some(crossings) = &mut self.crossings
            && let Some(handed) = crossings.recv().await
        {
            return handed;
        }
        std::future::pending().await
    }

    /// Lets all bind the sockets anew whose address came back, and answer as they should now.
    pub(super) fn interfaces_changed(&self, difference: &Difference) {
        for station in &self.stations {
            station.orders.tell(difference);
        }
    }

    /// Adds what they counted; socket by socket to `ports`.
    pub(super) fn add_counters(&self, counters: &mut Counters, ports: &mut [PortCounters]) {
        for station in &self.stations {
            let report = station.report.lock().unwrap_or_else(PoisonError::into_inner);
            counters.merge(&report.counters);
            for (port, counted) in ports.iter_mut().zip(&report.ports) {
                port.merge(counted);
            }
        }
    }

    /// What each of them counted.
    pub(super) fn counters(&self) -> Vec<Counters> {
        let reports = self.stations.iter().map(|station| &station.report);
        reports.map(|report| report.lock().unwrap_or_else(PoisonError::into_inner).counters).collect()
    }

    /// Complains about threads that have ended by themselves, once of each: what comes to their sockets is not read
    /// any more. How many it were this time.
    pub(super) fn notice_lost(&mut self) -> usize {
        let mut lost = 0;
        for (shard, station) in (1..).zip(&mut self.stations) {
            if station.thread.is_finished() && !std::mem::replace(&mut station.is_lost, true) {
                lost += 1;
                tracing::error!(
                    shard,
                    "a serving shard has ended; a part of all queries gets no answer any more"
                );
            }
        }
        lost
    }

    /// Ends all threads and waits for them.
    pub(super) async fn stop(&mut self) {
        self.crossings = None;
        let threads: Vec<_> = self.stations.drain(..).map(|station| station.thread).collect();
        if threads.is_empty() {
            return;
        }
        let join = move || threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
        match tokio::task::spawn_blocking(join).await {
            Ok(0) => {}
            Ok(panicked) => tracing::error!(panicked, "serving shards had ended before"),
            // The whole program ends: nobody would hear of it, and they end with it.
            Err(error) if error.is_cancelled() => {
                tracing::debug!("the runtime ended before the serving shards");
            }
            Err(error) => tracing::warn!(%error, "serving shards were not waited for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_has_ended_by_itself_is_noticed_once() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let working = move || {
            let _ = ended.recv();
        };
        let broken = || std::panic::resume_unwind(Box::new("without a word"));
        let threads = [std::thread::spawn(working), std::thread::spawn(broken)];
        while !threads[1].is_finished() {
            std::thread::yield_now();
        }
        let station =
            |thread| Station { orders: mailbox().0, report: Arc::default(), thread, is_lost: false };
        let mut satellites = Satellites { crossings: None, stations: threads.map(station).into() };
        assert_eq!((satellites.notice_lost(), satellites.notice_lost()), (1, 0));
        drop(end);
        while !satellites.stations[0].thread.is_finished() {
            std::thread::yield_now();
        }
        assert_eq!((satellites.notice_lost(), satellites.notice_lost()), (1, 0));
    }
}
