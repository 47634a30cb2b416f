//! What time does to a connection: it ends where nothing comes or goes any more, a peer that owes blocks is snubbed, and
//! one that hears nothing else from us gets a keep-alive.

use btdht::Time;

use super::{PeerConn, Phase, State};
use crate::peer::{CloseReason, PeerEvent};
use crate::wire::message::Message;

impl PeerConn {
    /// When [`handle_timeout`](Self::handle_timeout) is due; [`Time::NEVER`] once closed.
    pub fn timeout(&self) -> Time {
        let State { setup, heard, sent, progress, download, held, .. } = &self.state;
        let config = &setup.config;
        let unless = |held: bool, due: Time| if held { Time::NEVER } else { due };
        match self.state.phase {
            Phase::Greeting { deadline } => unless(held.receiving || held.sending, deadline),
            Phase::Open { .. } => download
                .timeout(config)
                .min(unless(held.receiving, *heard + config.idle_timeout))
                .min(*sent + config.keep_alive)
                .min(unless(held.sending, *progress + config.stall_timeout)),
            Phase::Closed => Time::NEVER,
        }
    }
}

impl State {
    pub(super) fn handle_timeout(&mut self, now: Time, out: &mut Vec<PeerEvent>) {
        let config = self.setup.config;
        self.hold(now, self.held);
        match self.phase {
            Phase::Greeting { deadline } if now >= deadline => self.close(CloseReason::HandshakeTimeout, out),
            Phase::Open { .. } if now >= self.heard + config.idle_timeout => {
                self.close(CloseReason::Idle, out);
            }
            Phase::Open { .. } if now >= self.progress + config.stall_timeout => {
                self.close(CloseReason::Stalled, out);
            }
            Phase::Open { .. } => {
                self.download.check_snub(now, &config, out);
                if now >= self.sent + config.keep_alive {
                    self.sent = now;
                    if self.send.is_empty() {
                        self.send.put(Message::KeepAlive);
                    }
                }
            }
            Phase::Greeting { .. } | Phase::Closed => {}
        }
    }
}
