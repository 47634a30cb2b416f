//! [`Held`]: while it is a limit of ours that moves no bytes, no clock runs against the peer.

use std::mem;

use btdht::Time;

use super::{Phase, State};

/// What a rate limit of ours keeps from going on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Something has come and may not be read.
    pub receiving: bool,
    /// Something is to be sent, the socket would take it, and it may not go out.
    pub sending: bool,
}

impl State {
    /// Sets the clocks forward by the time for which they were held, and holds them or not from now on.
    pub(super) fn hold(&mut self, now: Time, held: Held) {
        let since = mem::replace(&mut self.held_at, now);
        let before = mem::replace(&mut self.held, held);
        // A clock that was started meanwhile was held from then on only.
        let forward = |clock: Time| clock + now.since(since.max(clock));
        if before.receiving {
            self.heard = forward(self.heard);
        }
        if before.sending {
            self.progress = forward(self.progress);
        }
        if let Phase::Greeting { deadline } = &mut self.phase
            && (before.receiving || before.sending)
        {
            *deadline += now.since(since);
        }
        // Blocks cannot come before the peer has our requests.
        self.download.hold(now, since, held.receiving || held.sending && self.send.has_messages());
    }
}
