//! [`Swarm`]: everything that one torrent decides. A sans-IO core: events of connections, disk
//! threads, trackers and the user go in with the time, [`Action`]s come out.
//!
//! It is a switchboard. The parts own the data and know nothing of each other:
//!
//! | part | decides |
//! |---|---|
//! | `known` | which address to dial, who is banned |
//! | `announce`, spoken with in `sources` | which source of peers to ask when (BEP 12, 27) |
//! | `metadata` | from whom to get the info dictionary (BEP 9) |
//! | `transfer` over `picker`, `rivals`, `deadlines`, `blocks`, `verify` | which blocks to ask whom for, who lied |
//! | `choker`, `uploads`, `suggest`, `super_seed` | whom to serve with what |
//!
//! A magnet starts in the metadata stage; then storage is opened; then pieces are transferred, for as
//! long as the swarm lives: a complete one seeds.

mod announce;
mod bans;
mod blocks;
mod check;
mod choker;
mod commands;
mod conns;
mod deadlines;
mod disk;
mod ending;
mod has;
mod intake;
mod io;
mod known;
mod learn;
mod limits;
mod metadata;
mod pause;
mod peers;
mod picker;
mod rate;
mod requests;
mod rivals;
mod saves;
mod serve;
mod sources;
mod suggest;
mod super_seed;
mod tracker_view;
mod transfer;
mod uploads;
mod verify;
mod view;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use btdht::{Rng, Seeds, Time};
use krpc::Id;
use krpc::magnet::Selection;

pub use intake::Intake;
pub use io::{
    Action, AnnounceJob, Command, Event, Input, NewTorrent, Refusal, Source, Status, TrackerId, TrackerUrl,
};
pub use limits::{Limits, SeedChoking};
pub use tracker_view::{TrackerState, TrackerView};
pub use view::PeerView;

use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::piece::Slot;
use crate::storage::Totals;
use announce::{Announce, Facts, Privacy};
use choker::{Candidate, Choker, Role};
use conns::{Conn, Conns};
use ending::Ending;
use known::Known;
use metadata::Fetch;
use rate::Rate;
use rivals::Rivals;
use saves::{Safety, Saves};
use suggest::Suggest;
use super_seed::{Company, SuperSeed};
use transfer::Transfer;
use uploads::Uploads;

/// One torrent.
#[derive(Debug)]
pub struct Swarm {
    limits: Arc<Limits>,
    infohash: Id,
    peer_id: [u8; 20],
    select: Select,
    rng: Rng,
    stage: Stage,
    conns: Conns,
    known: Known,
    announce: Announce,
    choker: Choker,
    uploads: Uploads,
    rivals: Rivals,
    super_seed: Option<SuperSeed>,
    suggest: Option<Suggest>,
    down: Rate,
    up: Rate,
    /// Counters of earlier runs.
    before: Totals,
    wasted: u64,
    failed_dials: u64,
    /// The disk has failed; nothing is asked for until [`Command::Retry`].
    held: bool,
    /// No block is asked for or given until [`Command::Unpause`].
    paused: bool,
    /// A check has found pieces to be wrong, which are not wanted again yet.
    lost: bool,
    /// Pieces that a check has found to be right, which peers do not know of yet.
    found: Option<Bitfield>,
    /// Somebody could use more requests than there were blocks or disk for.
    starved: bool,
    /// Blocks or disk have become free since.
    stirred: bool,
    /// Somebody has found all places taken since the last tick.
    turned_away: bool,
    /// Everything that is wanted is verified.
    completed: bool,
    /// Everything is, and trackers were told or need not be.
    full: bool,
    saves: Saves,
    ending: Ending,
    timers: [Time; Timer::COUNT],
}

/// How far a swarm is.
#[derive(Debug)]
enum Stage {
    /// The info dictionary is being fetched.
    Metadata(Box<Fetch>),
    /// Storage is being opened.
    Opening(Arc<Info>),
    /// Pieces go in and out.
    Transfer(Box<Transfer>),
    /// The torrent cannot be downloaded.
    Refused,
}

/// Which files are wanted.
#[derive(Debug)]
enum Select {
    All,
    List(Selection),
    /// A priority for each file; 1 for those that are not mentioned.
    Priorities(Vec<u16>),
}

impl Select {
    /// The priority of a file; 0 when it is not wanted.
    fn priority(&self, file: usize) -> u16 {
        match self {
            Self::All => 1,
            Self::List(list) => u16::from(list.contains(file as u32)),
            Self::Priorities(priorities) => priorities.get(file).copied().unwrap_or(1),
        }
    }
}

/// What a swarm waits for.
#[derive(Clone, Copy, Debug)]
enum Timer {
    /// Once a second while there are connections: peers that paused, end game, churn, saves.
    Tick,
    Dial,
    Announce,
    Choke,
    Fetch,
}

impl Timer {
    const COUNT: usize = 5;
}

/// The part of a large torrent that is worth a save.
const SAVED_SHARE: u64 = 256;
const TICK: std::time::Duration = std::time::Duration::from_secs(1);
/// The same while pieces have deadlines: late blocks are taken over then.
const URGENT_TICK: std::time::Duration = std::time::Duration::from_millis(100);

impl Swarm {
    /// A swarm that begins at once: look at [`Swarm::timeout`], which is `now`.
    pub fn new(limits: Arc<Limits>, torrent: NewTorrent, seeds: Seeds, now: Time) -> Self {
        let mut rng = Rng::new(seeds.derive("swarm"));
        let mut known = Known::new();
        for (source, addr) in torrent.peers {
            known.insert(now, addr, source, &limits, &mut rng);
        }
        let mut announce = Announce::new(torrent.trackers, &limits, &mut rng, now);
        let stage = match torrent.info {
            Some(info) => {
                announce.set_privacy(privacy(&info));
                Stage::Opening(info)
            }
            None => Stage::Metadata(Box::new(Fetch::new(torrent.infohash, now))),
        };
        Self {
            infohash: torrent.infohash,
            peer_id: torrent.peer_id,
            select: torrent.select.map_or(Select::All, Select::List),
            rng,
            stage,
            conns: Conns::default(),
            known,
            announce,
            choker: Choker::new(now),
            uploads: Uploads::default(),
            rivals: Rivals::new(torrent.peer_id),
            super_seed: None,
            suggest: None,
            down: Rate::new(now),
            up: Rate::new(now),
            before: Totals::default(),
            wasted: 0,
            failed_dials: 0,
            held: false,
            paused: false,
            lost: false,
            found: None,
            starved: false,
            stirred: false,
            turned_away: false,
            completed: false,
            full: false,
            saves: Saves { last: now, ..Saves::default() },
            ending: Ending::Not,
            timers: [now; Timer::COUNT],
            limits,
        }
    }

    /// Tells what happened; what is to be done is appended to `out`.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Vec<Action>) {
        if self.ending != Ending::Not {
            return self.handle_ending(input, out);
        }
        match input {
            Input::Found(source, addrs) => self.found(now, source, &addrs),
            Input::DialFailed(slot) => {
                self.failed_dials += u64::from(self.conns.get(slot).is_some());
                self.ended(now, slot, "no connection", out);
            }
            Input::Peer(slot, events) => self.peer_events(now, slot, events, out),
            Input::Disk(done) => self.disk(now, done, out),
            Input::Opened(have, totals) => self.opened(now, have, totals, out),
            Input::Announcing(_) | Input::Tracker(..) | Input::LookupEnded | Input::Moved => {
                self.source(now, input);
            }
            Input::Command(command) => self.command(now, command, out),
        }
        self.settle(now, out);
    }

    /// Does what is due; call it when [`Swarm::timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.ending != Ending::Not {
            return;
        }
        // Before storage is open nobody can be told how much is left; `opened` sets the timer again.
        if self.take_due(now, Timer::Announce) && !matches!(self.stage, Stage::Opening(_)) {
            let asks = self.announce.due(now, &self.facts(), &self.limits, &mut self.rng);
            self.ask(asks, out);
            self.set(Timer::Announce, self.announce.next());
        }
        if self.take_due(now, Timer::Dial) {
            self.dial(now, out);
        }
        if self.take_due(now, Timer::Fetch) {
            self.drive_fetch(now, out);
        }
        if self.take_due(now, Timer::Choke) {
            self.choke_round(now, out);
        }
        if self.take_due(now, Timer::Tick) {
            self.tick(now, out);
        }
        self.settle(now, out);
    }

    /// When [`Swarm::handle_timeout`] is to be called; [`Time::NEVER`] when nothing is due.
    pub fn timeout(&self) -> Time {
        match self.ending {
            Ending::Not => self.timers.into_iter().min().unwrap_or(Time::NEVER),
            Ending::Saving | Ending::Stopped => Time::NEVER,
        }
    }

    /// A peer whose handshake names our infohash has connected. `None`: it is not wanted (banned, no
    /// place, too many from there, storage not open yet); else its events follow, [`PeerEvent::Ready`] first.
    ///
    /// [`PeerEvent::Ready`]: crate::peer::PeerEvent::Ready
    pub fn accept(&mut self, now: Time, addr: SocketAddr) -> Option<Slot> {
        let ready =
            matches!(self.stage, Stage::Metadata(_) | Stage::Transfer(_)) && self.ending == Ending::Not;
        let source = |addr| btdht::addr::source_key(addr, self.limits.allow_local);
        let same = |conn: &&Conn| !conn.dialed && source(conn.addr) == source(addr);
        if !ready
            || self.conns.all().filter(same).count() >= self.limits.incoming_per_ip
            || self.known.is_banned(addr, &self.limits)
        {
            return None;
        }
        if self.conns.len() >= self.limits.max_peers {
            // A pause keeps the connections that there are.
            self.turned_away = !self.paused;
            return None;
        }
        Some(self.conns.insert(now, addr, Source::Incoming, false))
    }

    /// The infohash.
    pub fn infohash(&self) -> Id {
        self.infohash
    }

    /// The verified pieces; `None` before storage is open.
    pub fn have(&self) -> Option<&Bitfield> {
        Some(self.transfer()?.have())
    }

    /// The info dictionary, once it is known.
    pub fn info(&self) -> Option<&Arc<Info>> {
        match &self.stage {
            Stage::Metadata(_) | Stage::Refused => None,
            Stage::Opening(info) => Some(info),
            Stage::Transfer(transfer) => Some(transfer.info()),
        }
    }

    /// Whether everything is verified and on disk, wanted or not.
    pub fn is_seed(&self) -> bool {
        self.have().is_some_and(Bitfield::is_full)
    }

    /// The pieces that are wanted and not verified yet; `None` before storage is open.
    pub fn missing(&self) -> Option<&Bitfield> {
        Some(self.transfer()?.missing())
    }

    /// Whether everything that was wanted is verified and on disk: it may be a partial seed.
    pub fn is_complete(&self) -> bool {
        self.transfer().is_some_and(|transfer| transfer.missing().is_empty())
    }

    fn found(&mut self, now: Time, source: Source, addrs: &[SocketAddr]) {
        let new = addrs
            .iter()
            .filter(|addr| self.known.insert(now, **addr, source, &self.limits, &mut self.rng))
            .count();
        if new > 0 {
            self.set(Timer::Dial, now);
        }
    }

    fn dial(&mut self, now: Time, out: &mut Vec<Action>) {
        if !matches!(self.stage, Stage::Metadata(_) | Stage::Transfer(_)) {
            return; // `opened` sets the timer again
        }
        // Strangers who connect and are slow with their handshake do not keep us from dialing.
        let half_open = self.conns.all().filter(|conn| conn.dialed && conn.hello.is_none()).count();
        let places = self
            .limits
            .max_peers
            .saturating_sub(self.conns.len())
            .min(self.limits.max_half_open.saturating_sub(half_open));
        for addr in self.known.due(now, places, &self.limits) {
            let source = self.known.source(addr).unwrap_or(Source::Tracker);
            let slot = self.conns.insert(now, addr, source, true);
            out.push(Action::Dial(slot, addr));
        }
        let next = self.known.next(&self.limits);
        // Without a place, the end of a connection sets the timer again.
        self.timers[Timer::Dial as usize] = if places == 0 { Time::NEVER } else { next };
    }

    /// What every input may lead to: more requests for those who could use them.
    fn settle(&mut self, now: Time, out: &mut Vec<Action>) {
        if std::mem::take(&mut self.stirred) && std::mem::take(&mut self.starved) {
            self.refill_all(now, out);
        }
        let share = self.info().map_or(0, |info| info.total() / SAVED_SHARE);
        if self.saves.dirty >= self.limits.save_bytes.max(share) {
            self.save_if_due(now, self.limits.save_pause, out);
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.conns.open() > 0 || self.saves.dirty > 0 {
            let urgent = self.transfer().is_some_and(Transfer::is_urgent);
            self.set(Timer::Tick, now + if urgent { URGENT_TICK } else { TICK });
        }
        self.make_room(now, out);
        self.offer_pieces(now, out);
        self.snub_late(now);
        self.refill_all(now, out);
        if self.saves.dirty > 0 {
            self.save_if_due(now, self.limits.save_interval, out);
        }
    }

    fn choke_round(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.paused {
            return; // `unpause` sets the timer again
        }
        let role = if self.is_complete() { Role::Seed } else { Role::Leech };
        let pieces = self.info().map_or(0, |info| info.pieces());
        let candidates: Vec<_> = self
            .conns
            .iter()
            .filter(|conn| conn.wants)
            .map(|conn| Candidate {
                slot: conn.slot,
                source: btdht::addr::source_key(conn.addr, self.limits.allow_local),
                rate_down: conn.down.per_second(now),
                rate_up: conn.up.per_second(now),
                snubs: conn.snubbed,
                progress: conn.has.permille(pieces),
            })
            .collect();
        let changes = self.choker.round(now, &candidates, role, &self.limits, &mut self.rng);
        for slot in changes.choke {
            self.dismiss(slot, out);
        }
        for slot in changes.unchoke {
            self.serve(slot, out);
        }
        self.timers[Timer::Choke as usize] =
            if candidates.is_empty() { Time::NEVER } else { self.choker.next() };
    }

    fn facts(&self) -> Facts {
        let totals = self.totals();
        Facts {
            peers: self.conns.open(),
            complete: self.is_complete(),
            uploaded: totals.uploaded,
            downloaded: totals.downloaded,
            left: self.transfer().map(|transfer| transfer.info().total() - transfer.have_bytes()),
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            downloaded: self.before.downloaded + self.down.total(),
            uploaded: self.before.uploaded + self.up.total(),
        }
    }

    fn transfer(&self) -> Option<&Transfer> {
        match &self.stage {
            Stage::Transfer(transfer) => Some(transfer),
            Stage::Metadata(_) | Stage::Opening(_) | Stage::Refused => None,
        }
    }

    /// Makes `timer` due at `at`, or sooner if it was.
    fn set(&mut self, timer: Timer, at: Time) {
        let due = &mut self.timers[timer as usize];
        *due = at.min(*due);
    }

    fn take_due(&mut self, now: Time, timer: Timer) -> bool {
        let due = &mut self.timers[timer as usize];
        let is_due = *due <= now;
        if is_due {
            *due = Time::NEVER;
        }
        is_due
    }
}

fn privacy(info: &Info) -> Privacy {
    if info.is_private() { Privacy::Private } else { Privacy::Public }
}
