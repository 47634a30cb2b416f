//! The owner task of one [`Swarm`].
//!
//! Everything that happens to the torrent comes over one bounded channel, from the disk threads, or
//! from the timer; it goes into the swarm, and what the swarm wants done is done here. There is no `if`
//! about BitTorrent in this file.

mod checks;
mod fetching;
mod files;
mod life;
mod links;
mod seek;
mod states;

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use btdht::{Rng, Seeds};
use krpc::Id;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::disk::{Disk, Mailbox};
use super::inbound::Inbound;
use super::news::News;
use super::options::{AddOptions, Known, Select, Share, Source, State};
use super::phase::{Failed, Phase};
use super::shared::Shared;
use super::throttle::Limit;
use super::torrent::{Events, Torrent};
use checks::Checks;
use fetching::Fetching;
use files::{Opening, opened};
use life::Life;
use links::Link;
use seek::{Announced, Elsewhere, new_torrent};

use crate::metainfo::Info;
use crate::peer::PeerEvent;
use crate::piece::Slot;
use crate::storage::Totals;
use crate::swarm::{Action, Command, Event, Input, Limits, NewTorrent, Refusal, Status, Swarm, TrackerId};

/// Batches that wait for the owner.
const INBOX: usize = 256;
/// Inputs taken in one turn.
const TURN: usize = 64;
/// Commands that wait for one connection; one that has more does not take them and is closed.
const COMMANDS: usize = 4096;
/// Addresses of one lookup are handed on in batches of this size.
const FOUND_BATCH: usize = 64;
/// How often the status is renewed.
const STATUS_EVERY: Duration = Duration::from_millis(200);
/// A torrent that was told to stop is gone after this, saved or not.
const GOOD_BYE: Duration = Duration::from_millis(1600);
/// What trackers get for answering a good-bye.
const LAST_WORDS: Duration = Duration::from_millis(1000);
/// What the disk gets beside for ending what it does, where nobody needs the files again.
const LET_GO: Duration = Duration::from_millis(300);
/// The timer is looked at again after this, whatever the swarm says.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Starts the owner task. Returns the way to it, its handle and its events from the first on.
pub(super) fn start(
    session: Arc<Shared>,
    infohash: Id,
    (source, known): (Source, Known),
    options: AddOptions,
    seeds: Seeds,
) -> (mpsc::Sender<Inbound>, Torrent, Events) {
    let (inbox, receiver) = mpsc::channel(INBOX);
    let (news, user) = News::new();
    let (status, status_seen) = watch::channel(Status::default());
    let (phase, phase_seen) = watch::channel(Phase::Running);
    let (state, state_seen) = watch::channel(State::Started);
    let (info_known, info_seen) = watch::channel(None);
    let torrent = Torrent {
        infohash,
        peer_id: session.peer_id,
        port: session.port,
        inbox: inbox.downgrade(),
        status: status_seen,
        phase: phase_seen,
        state: state_seen,
        info: info_seen,
    };

    let mut limits = Limits {
        allow_local: session.allow_local,
        dht: session.dht.is_some(),
        fetch_lost: options.share == Share::Download,
        sequential: options.sequential || options.limits.sequential,
        ..options.limits.clone()
    };
    if let Some(max_peers) = options.max_peers {
        limits.max_peers = max_peers;
    }
    let (mut new, elsewhere) = new_torrent(infohash, session.peer_id, source, &options);
    new.info = new.info.or_else(|| known.info.map(Arc::new));
    let (info, origin) = (new.info.clone(), new.clone());
    let limits = Arc::new(limits);
    let key = Rng::new(seeds.derive("announce key")).next_u32();
    let swarm = Swarm::new(Arc::clone(&limits), new, Seeds(seeds.0), session.clock.now());
    let fetching = Fetching::new(&session.fetching);
    let mut owner = Owner {
        swarm,
        limits,
        infohash,
        inbox: inbox.clone(),
        receiver,
        links: Vec::new(),
        connections: JoinSet::new(),
        slots: HashMap::new(),
        announces: JoinSet::new(),
        announced: HashMap::new(),
        chores: JoinSet::new(),
        disk: None,
        mailbox: Arc::default(),
        actions: Vec::new(),
        down: Limit::new(options.rates.down),
        up: Limit::new(options.rates.up),
        options,
        info: None,
        key,
        origin,
        elsewhere,
        seeds,
        runs: 0,
        priorities: known.priorities,
        carried: None,
        opening: None,
        checks: Checks::default(),
        life: Life::Running,
        fetching,
        waiting: Vec::new(),
        state,
        info_known,
        news,
        status,
        phase,
        session,
    };
    match owner.options.initial_state {
        State::Stopped => owner.begin_stopped(),
        state => owner.begin_first(state),
    }
    if let Some(info) = info {
        // A swarm that had it from the start does not say so.
        owner.tell_user(Event::Metadata(info));
    }
    tokio::spawn(owner.run());
    (inbox, torrent, Events(user))
}

/// What the owner task owns.
struct Owner {
    session: Arc<Shared>,
    swarm: Swarm,
    limits: Arc<Limits>,
    infohash: Id,
    /// For the tasks that it starts.
    inbox: mpsc::Sender<Inbound>,
    receiver: mpsc::Receiver<Inbound>,
    /// By slot index.
    links: Vec<Option<Link>>,
    connections: JoinSet<()>,
    /// Whose task is whose, for those that end in a panic.
    slots: HashMap<task::Id, Slot>,
    announces: JoinSet<()>,
    /// By tracker, the last announce to it.
    announced: HashMap<TrackerId, Announced>,
    /// Lookups, names being resolved, files being opened.
    chores: JoinSet<()>,
    disk: Option<Disk>,
    mailbox: Arc<Mailbox>,
    actions: Vec<Action>,
    /// What all connections receive and send.
    down: Arc<Limit>,
    up: Arc<Limit>,
    options: AddOptions,
    info: Option<Arc<Info>>,
    /// Tells trackers that we are the same when our address changes.
    key: u32,
    /// What each swarm starts from, with what was learned since.
    origin: NewTorrent,
    elsewhere: Elsewhere,
    seeds: Seeds,
    /// Swarms before this one.
    runs: u32,
    /// What the user wants of the files, once that is known.
    priorities: Option<Vec<u16>>,
    /// The counters when it was stopped last.
    carried: Option<Totals>,
    /// Files that are being opened.
    opening: Option<JoinHandle<Opening>>,
    checks: Checks,
    life: Life,
    fetching: Fetching,
    /// Who waits for the next state.
    waiting: Vec<oneshot::Sender<()>>,
    state: watch::Sender<State>,
    info_known: watch::Sender<Option<Arc<Info>>>,
    news: News,
    status: watch::Sender<Status>,
    phase: watch::Sender<Phase>,
}

impl Owner {
    async fn run(mut self) {
        let mut publish = tokio::time::interval(STATUS_EVERY);
        publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let mailbox = Arc::clone(&self.mailbox);
        let mut moved = self.session.moved.clone();
        // Not in `start`: whoever adds a torrent has them all locked.
        self.tell_intake();
        while self.life != Life::Over {
            let wait = self.swarm.timeout().since(self.session.clock.now()).min(LONGEST_SLEEP);
            let mut wake = Instant::now() + wait;
            if let Life::Leaving { by, then } = self.life {
                if by <= Instant::now() {
                    self.rest(then).await;
                    continue;
                }
                wake = wake.min(by);
            }
            timer.as_mut().reset(wake);
            tokio::select! {
                inbound = self.receiver.recv() => {
                    let mut next = inbound;
                    for _ in 0..TURN {
                        let Some(inbound) = next else { break };
                        self.take(inbound);
                        next = self.receiver.try_recv().ok();
                    }
                    if let Some(inbound) = next {
                        self.take(inbound);
                    }
                }
                done = mailbox.take() => done.into_iter().for_each(|done| self.disk_did(done)),
                Some(ended) = self.connections.join_next_with_id() => self.connection_ended(ended),
                opened = opened(&mut self.opening) => self.opened_or_not(opened),
                Some(_) = self.chores.join_next() => {}
                Some(_) = self.announces.join_next() => {}
                Ok(()) = moved.changed() => self.handle(Input::Moved),
                _ = publish.tick() => {
                    self.tell_intake();
                    self.publish();
                }
                () = timer.as_mut() => {}
            }
            let now = self.session.clock.now();
            if self.swarm.timeout() <= now {
                self.swarm.handle_timeout(now, &mut self.actions);
                self.act();
            }
            self.tell_fresh();
        }
    }

    fn take(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Peer(slot, batch) => {
                if matches!(batch.last(), Some(PeerEvent::Closed(_))) {
                    self.unlink(slot);
                }
                self.handle(Input::Peer(slot, batch));
            }
            Inbound::DialFailed(slot, addr, error) => {
                self.unlink(slot);
                // Of the addresses that strangers name most lead nowhere.
                if self.options.peers.contains(&addr) {
                    self.tell_user(Event::DialFailed(addr, error));
                }
                self.handle(Input::DialFailed(slot));
            }
            Inbound::Incoming(stream, from, greeting) => self.incoming(stream, from, greeting),
            Inbound::Announcing(tracker) => self.handle(Input::Announcing(tracker)),
            Inbound::Tracker(tracker, reply) => self.handle(Input::Tracker(tracker, reply)),
            Inbound::Found(source, addrs) => self.handle(Input::Found(source, addrs)),
            Inbound::LookupEnded => self.handle(Input::LookupEnded),
            Inbound::End => self.leave(None),
            Inbound::Set(state, told) => self.set_state(state, told),
            Inbound::Resume(told) => self.resume(told),
            Inbound::Look(look) => look(&self.swarm, self.session.clock.now()),
            Inbound::Check(ranges, answer) => self.check(ranges, answer),
            Inbound::Retry => self.retry(),
            Inbound::Prioritize(priorities) => self.prioritize(priorities),
            Inbound::Command(command) => self.command(command),
            Inbound::Rates(rates) => self.limit_rates(rates),
        }
    }

    /// Gives the swarm an input and does what it wants.
    fn handle(&mut self, input: Input) {
        self.swarm.handle(self.session.clock.now(), input, &mut self.actions);
        self.act();
    }

    fn act(&mut self) {
        // Doing something can make the swarm want more.
        while !self.actions.is_empty() {
            for action in mem::take(&mut self.actions) {
                self.carry_out(action);
            }
        }
        // Together, so that a disk thread is woken once for all blocks of a batch.
        if let Some(disk) = &mut self.disk {
            disk.flush();
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Dial(slot, addr) => self.dial(slot, addr),
            Action::Tell(slot, command) => self.tell(slot, command),
            Action::Disk(job) => self.give(job),
            Action::Open(info) => self.open(info),
            Action::Announce(tracker, job) => self.announce(tracker, job),
            Action::Lookup { infohash, announce, seed } => self.look_up(infohash, announce, seed),
            Action::DhtNode(addr) => self.add_node(addr),
            Action::Event(event) => self.tell_user(event),
        }
    }

    // ---- the user ----

    fn tell_user(&mut self, event: Event) {
        match &event {
            Event::Metadata(info) => {
                self.info = Some(Arc::clone(info));
                self.origin.info = Some(Arc::clone(info));
                self.info_known.send_replace(Some(Arc::clone(info)));
                self.select_files(&Arc::clone(info));
            }
            Event::Verified => self.publish(),
            Event::Complete => {
                self.publish();
                self.phase.send_replace(Phase::Complete);
            }
            Event::DiskFailed(error) => {
                self.phase.send_replace(Phase::Failed(Failed::Disk(error.clone())));
            }
            Event::Refused(refusal) => {
                let failed = match refusal {
                    Refusal::Invalid(error) => Failed::Invalid(format!("the metadata is refused: {error}")),
                    Refusal::V2Only => {
                        Failed::Unsupported("a torrent of version 2 alone cannot be downloaded yet".into())
                    }
                };
                self.phase.send_replace(Phase::Failed(failed));
            }
            Event::Stopped => self.said_good_bye(),
            Event::Checked(piece, right) => self.checks.hashed(*piece, *right),
            _ => {}
        }
        let check_ended = matches!(event, Event::CheckEnded);
        self.news.tell(event);
        if check_ended {
            self.goes_on();
            self.check_ended();
            self.all_is_there();
        }
    }

    /// Applies the selection to the files, now that they are known: unless the user has said something
    /// else since.
    fn select_files(&mut self, info: &Info) {
        if let (Select::Matching(wanted), None) = (&self.options.select, &self.priorities) {
            let mut priorities = vec![0; info.files().len()];
            info.files().for_each(|file| priorities[file.index] = wanted.priority(file.index, &file.path()));
            if priorities.iter().all(|&priority| priority == 0) {
                return self.fail(Failed::Invalid("no file of the torrent is selected".into()));
            }
            self.priorities = Some(priorities.clone());
            let select = Input::Command(Command::Prioritize(priorities));
            self.swarm.handle(self.session.clock.now(), select, &mut self.actions);
        }
    }

    fn prioritize(&mut self, priorities: Vec<u16>) {
        self.priorities = Some(priorities.clone());
        self.handle(Input::Command(Command::Prioritize(priorities)));
        let wanted = self.wanted();
        if let Some(disk) = &mut self.disk {
            disk.want(wanted);
        }
        self.goes_on();
    }

    /// What was complete may miss something now.
    fn goes_on(&mut self) {
        let more = !self.swarm.is_complete();
        self.phase.send_if_modified(|phase| {
            let goes_on = more && *phase == Phase::Complete;
            if goes_on {
                *phase = Phase::Running;
            }
            goes_on
        });
    }

    /// It cannot go on: stops, and can be started again where that may help.
    fn fail(&mut self, failed: Failed) {
        let then = failed.may_heal().then_some(State::Stopped);
        self.phase.send_replace(Phase::Failed(failed));
        self.leave(then);
    }

    fn command(&mut self, command: Command) {
        if let Command::MaxPeers(most) = command {
            // Also for later swarms.
            Arc::make_mut(&mut self.limits).max_peers = most;
        }
        self.handle(Input::Command(command));
    }

    fn publish(&self) {
        let (checked, to_check) = self.disk.as_ref().map_or((0, 0), Disk::checked);
        let status = self.swarm.status(self.session.clock.now());
        self.status.send_replace(Status { checked, to_check, ..status });
    }
}
