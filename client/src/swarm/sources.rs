//! The part of the switchboard that speaks with trackers and the DHT.

use btdht::Time;

use super::announce::Ask;
use super::{Action, Input, Source, Swarm, Timer};

impl Swarm {
    /// One of them has something to say, or can be asked anew.
    pub(super) fn source(&mut self, now: Time, input: Input) {
        match input {
            Input::Announcing(id) => self.announce.begun(now, id, &self.limits),
            Input::Tracker(id, reply) => {
                self.announce.answered(now, id, &reply, &self.facts(), &self.limits);
                if let Ok(reply) = reply {
                    self.found(now, Source::Tracker, &reply.peers);
                }
            }
            Input::LookupEnded => self.announce.lookup_ended(now, &self.facts(), &self.limits),
            Input::Moved => self.announce.moved(now, &self.limits),
            _ => {}
        }
        self.set(Timer::Announce, self.announce.next());
    }

    /// Has them asked.
    pub(super) fn ask(&mut self, asks: Vec<Ask>, out: &mut Vec<Action>) {
        // BEP 33 counts those that have everything.
        let seed = self.is_seed();
        out.extend(asks.into_iter().map(|ask| match ask {
            Ask::Tracker(id, job) => Action::Announce(id, job),
            Ask::Lookup { announce } => Action::Lookup { infohash: self.infohash, announce, seed },
        }));
    }
}
