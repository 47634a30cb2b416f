//! The part of the switchboard that gets the info dictionary (BEP 9), gives it to others, and has
//! storage opened once it is known.

use std::sync::Arc;

use btdht::Time;

use super::announce::Privacy;
use super::metadata::{self, Got};
use super::{Action, Event, Refusal, Stage, Swarm, Timer, privacy};
use crate::metainfo::Info;
use crate::peer::{MetadataMessage, PeerCommand};
use crate::piece::Slot;

impl Swarm {
    pub(super) fn metadata(
        &mut self,
        now: Time,
        slot: Slot,
        message: MetadataMessage,
        out: &mut Vec<Action>,
    ) {
        match message {
            MetadataMessage::Request { piece } => {
                // A private torrent's dictionary is given to nobody (BEP 27: who may join is the
                // tracker's business). That nobody has it too often is the connection's care.
                let raw = match &self.stage {
                    Stage::Transfer(transfer) => transfer.info().raw(),
                    Stage::Opening(info) => info.raw(),
                    Stage::Metadata(_) | Stage::Refused => &Arc::from([]),
                };
                let answer = if self.announce.is_public() {
                    metadata::answer(raw, piece)
                } else {
                    MetadataMessage::Reject { piece }
                };
                out.push(Action::Tell(slot, PeerCommand::Metadata(answer)));
            }
            MetadataMessage::Data { piece, total_size, bytes } => {
                let Stage::Metadata(fetch) = &mut self.stage else { return };
                let mut requests = Vec::new();
                let got = fetch.data(now, (slot, piece, total_size), bytes, &self.limits, &mut requests);
                self.ask_metadata(requests, out);
                match got {
                    Got::Progress | Got::Unfit => {}
                    Got::Whole(raw) => self.learn(now, raw, out),
                    Got::Garbage(liars) => {
                        self.ban(now, &liars, "sent garbage metadata", out);
                        self.drive_fetch(now, out);
                    }
                }
            }
            MetadataMessage::Reject { piece } => {
                if let Stage::Metadata(fetch) = &mut self.stage {
                    fetch.rejected(now, slot, piece, &self.limits);
                    self.drive_fetch(now, out);
                }
            }
        }
    }

    /// The info dictionary has arrived; its hash is right.
    fn learn(&mut self, now: Time, raw: Arc<[u8]>, out: &mut Vec<Action>) {
        match Info::of(raw) {
            Ok(info) => self.open(now, Arc::new(info), out),
            Err(error) => self.refuse(now, Refusal::Invalid(error), out),
        }
    }

    /// Has storage opened.
    fn open(&mut self, now: Time, info: Arc<Info>, out: &mut Vec<Action>) {
        if info.is_v2_only() {
            return self.refuse(now, Refusal::V2Only, out);
        }
        self.announce.set_privacy(privacy(&info));
        self.timers[Timer::Announce as usize] = self.announce.next();
        if matches!(self.stage, Stage::Metadata(_)) {
            out.push(Action::Event(Event::Metadata(Arc::clone(&info))));
        }
        // What the fetch was waiting for must not open storage once more.
        self.timers[Timer::Fetch as usize] = Time::NEVER;
        let shape = info.shape();
        out.push(Action::Open(Arc::clone(&info)));
        self.stage = Stage::Opening(info);
        out.extend(self.conns.iter().map(|conn| Action::Tell(conn.slot, PeerCommand::Torrent(shape))));
    }

    fn refuse(&mut self, now: Time, refusal: Refusal, out: &mut Vec<Action>) {
        self.stage = Stage::Refused;
        let slots: Vec<_> = self.conns.all().map(|conn| conn.slot).collect();
        for slot in slots {
            self.close(now, slot, "the torrent is refused", out);
        }
        self.announce.set_privacy(Privacy::Private);
        self.timers = [Time::NEVER; Timer::COUNT];
        out.push(Action::Event(Event::Refused(refusal)));
    }

    /// Asks for metadata, or has the storage of a torrent opened whose metadata is there from the
    /// beginning.
    pub(super) fn drive_fetch(&mut self, now: Time, out: &mut Vec<Action>) {
        match &mut self.stage {
            Stage::Metadata(fetch) => {
                let mut requests = Vec::new();
                fetch.drive(now, &self.limits, &mut requests);
                self.timers[Timer::Fetch as usize] = fetch.next(now, &self.limits);
                self.ask_metadata(requests, out);
            }
            Stage::Opening(info) => {
                let info = Arc::clone(info);
                self.open(now, info, out);
            }
            Stage::Transfer(_) | Stage::Refused => {}
        }
    }

    fn ask_metadata(&mut self, requests: Vec<(Slot, u32)>, out: &mut Vec<Action>) {
        out.extend(requests.into_iter().map(|(slot, piece)| {
            Action::Tell(slot, PeerCommand::Metadata(MetadataMessage::Request { piece }))
        }));
    }
}
