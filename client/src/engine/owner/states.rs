//! What a torrent is to do: started, paused, stopped, and how one becomes the other.
//!
//! A stopped torrent has no connections, no open files and no tasks; its owner waits for the user. When
//! it is started again a new swarm begins with what was learned: the info dictionary and the choices of
//! the user. What was fetched is found on the disk.

use std::mem;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::life::Life;
use super::{GOOD_BYE, Inbound, LAST_WORDS, LET_GO, Owner};
use crate::engine::disk::Disk;
use crate::engine::options::State;
use crate::engine::phase::Phase;
use crate::storage::Totals;
use crate::swarm::{Command, Input, Swarm};

impl Owner {
    /// Brings the torrent into a state; `told` hears when it is there, or that it has ended.
    pub(super) fn set_state(&mut self, state: State, told: oneshot::Sender<()>) {
        match (&mut self.life, state) {
            (Life::Over | Life::Leaving { then: None, .. }, _) => return,
            (Life::Leaving { then, .. }, _) => {
                *then = Some(state);
                return self.waiting.push(told);
            }
            (Life::Running, State::Stopped) => {
                self.waiting.push(told);
                return self.leave(Some(State::Stopped));
            }
            (Life::Running, State::Paused) => self.handle(Input::Command(Command::Pause)),
            (Life::Running, State::Started) => self.handle(Input::Command(Command::Unpause)),
            (Life::Stopped, State::Stopped) => {}
            (Life::Stopped, _) => self.begin(state),
        }
        self.state.send_replace(state);
        // Whoever asked may have gone.
        let _ = told.send(());
    }

    /// Ends a pause; a stopped torrent stays stopped.
    pub(super) fn resume(&mut self, told: oneshot::Sender<()>) {
        let state = match self.life {
            Life::Stopped | Life::Leaving { then: Some(State::Stopped), .. } => State::Stopped,
            _ => State::Started,
        };
        self.set_state(state, told);
    }

    /// Says good-bye; a state follows, or the end.
    pub(super) fn leave(&mut self, to: Option<State>) {
        match &mut self.life {
            Life::Running => {
                self.life = Life::Leaving { by: Instant::now() + GOOD_BYE, then: to };
                self.handle(Input::Command(Command::Stop));
            }
            // The end is for good.
            Life::Leaving { then, .. } => *then = then.and(to),
            Life::Stopped if to.is_none() => self.life = Life::Over,
            Life::Stopped | Life::Over => {}
        }
    }

    /// The swarm has said good-bye.
    pub(super) fn said_good_bye(&mut self) {
        if let Life::Leaving { by, .. } = &mut self.life {
            *by = Instant::now();
        }
    }

    /// Makes a swarm that never begins, for a torrent that is stopped from the start.
    pub(super) fn begin_stopped(&mut self) {
        self.tell_priorities();
        self.swarm.handle(self.session.clock.now(), Input::Command(Command::Stop), &mut Vec::new());
        self.life = Life::Stopped;
        self.state.send_replace(State::Stopped);
        self.phase.send_replace(Phase::Stopped);
    }

    /// Lets the first swarm begin.
    pub(super) fn begin_first(&mut self, state: State) {
        self.state.send_replace(state);
        self.tell_priorities();
        if state == State::Paused {
            self.handle(Input::Command(Command::Pause));
        }
        self.resolve(self.elsewhere.clone());
    }

    /// Tells a new swarm what the user wants of the files, if that was said.
    fn tell_priorities(&mut self) {
        if let Some(priorities) = self.priorities.clone() {
            self.handle(Input::Command(Command::Prioritize(priorities)));
        }
    }

    /// Starts a swarm anew.
    pub(super) fn begin(&mut self, state: State) {
        let now = self.session.clock.now();
        self.runs += 1;
        let seeds = self.seeds.derive(&format!("run {}", self.runs));
        self.swarm = Swarm::new(Arc::clone(&self.limits), self.origin.clone(), seeds, now);
        self.life = Life::Running;
        self.phase.send_replace(Phase::Running);
        self.state.send_replace(state);
        self.tell_intake();
        self.tell_priorities();
        if state == State::Paused {
            self.handle(Input::Command(Command::Pause));
        }
        self.resolve(self.elsewhere.clone());
    }

    /// Good-byes are said, or were waited for long enough: ends whatever still runs.
    pub(super) async fn rest(&mut self, then: Option<State>) {
        self.publish();
        // Connections end when their channels do.
        self.links.clear();
        // Trackers that answer are told that we leave; the others are not waited for.
        let told = async { while self.announces.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
        self.connections.shutdown().await;
        self.announces.shutdown().await;
        self.chores.shutdown().await;
        self.slots.clear();
        self.announced.clear();
        // At the end, files whose opening takes long are left to the thread that does it, and so is their lock;
        // the same with those that take long to close.
        if let Some(opening) = self.opening.take() {
            let opened = match then {
                Some(_) => Some(opening.await),
                None => tokio::time::timeout(LAST_WORDS, opening).await.ok(),
            };
            if let Some(Ok(Ok((disk, _)))) = opened {
                self.disk = Some(disk);
            }
        }
        if let Some(closing) = self.disk.take().map(Disk::close) {
            match then {
                Some(_) => closing.await,
                None => drop(tokio::time::timeout(LET_GO, closing).await),
            }
        }
        self.mailbox.clear();
        self.checks.clear();
        // Before its files are open a swarm does not know what earlier runs have counted.
        if self.swarm.have().is_some() {
            let status = *self.status.borrow();
            self.carried = Some(Totals { downloaded: status.downloaded, uploaded: status.uploaded });
        }
        self.publish();
        if !matches!(&*self.phase.borrow(), Phase::Failed(_)) {
            self.phase.send_replace(Phase::Stopped);
        }
        self.state.send_replace(State::Stopped);
        let wishes = self.wishes();
        match then {
            None => self.life = Life::Over,
            Some(State::Stopped) => self.life = Life::Stopped,
            Some(state) => self.begin(state),
        }
        for waiting in mem::take(&mut self.waiting) {
            let _ = waiting.send(());
        }
        wishes.into_iter().for_each(|wish| self.take(wish));
    }

    /// What the user wants, out of what has come meanwhile: the rest is of a swarm that is no more.
    fn wishes(&mut self) -> Vec<Inbound> {
        let mut wishes = Vec::new();
        while let Ok(inbound) = self.receiver.try_recv() {
            match inbound {
                Inbound::Peer(..)
                | Inbound::DialFailed(..)
                | Inbound::Incoming(..)
                | Inbound::Announcing(_)
                | Inbound::Tracker(..)
                | Inbound::Found(..)
                | Inbound::LookupEnded => {}
                wish => wishes.push(wish),
            }
        }
        wishes
    }
}
