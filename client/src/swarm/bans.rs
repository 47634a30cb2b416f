//! What becomes of liars, and of what they gave.

use std::net::SocketAddr;

use btdht::Time;

use super::{Action, Conn, Stage, Swarm};
use crate::storage::Job;

impl Swarm {
    /// Bans peers, closes all connections from where they are, and fetches anew what came from there of
    /// pieces that are not all there yet: each would turn out wrong, and blame those who gave the rest.
    pub(super) fn ban(&mut self, now: Time, liars: &[SocketAddr], why: &'static str, out: &mut Vec<Action>) {
        for &liar in liars {
            self.known.ban(liar, &self.limits);
        }
        let banned = |conn: &&Conn| self.known.is_banned(conn.addr, &self.limits);
        let slots: Vec<_> = match liars {
            [] => return,
            _ => self.conns.all().filter(banned).map(|conn| conn.slot).collect(),
        };
        for slot in slots {
            self.close(now, slot, why, out);
        }
        let Stage::Transfer(transfer) = &mut self.stage else { return };
        for block in transfer.disbelieve(|giver| self.known.is_banned(giver, &self.limits)) {
            self.wasted += u64::from(block.len);
            out.push(Action::Disk(Job::Forget(block)));
        }
        self.stirred = true;
    }
}
