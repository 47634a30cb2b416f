//! How many pieces may be unfinished at once, and which one makes way when there are too many.
//!
//! [`Limits::unfinished_bytes`] has peers share what is begun instead of beginning more. A piece whose
//! givers have gone or choke us stays begun, and who does not have it cannot share it. Such pieces do not
//! count for that peer: else three rare ones, begun with peers that leave, would be the end of a download
//! of large pieces. [`MOST`] bounds them nevertheless.

use super::given_up::GivenUp;
use super::{Asked, Picked, Transfer};
use crate::piece::PieceIndex;
use crate::swarm::limits::Limits;

/// Pieces that may be unfinished however large they are.
const FEWEST: usize = 2;
/// Times [`Limits::unfinished_bytes`] (and [`FEWEST`]) that all pieces may have which are unfinished, also
/// those that nobody can go on with. What each costs in memory is little: 48 bytes a block.
const MOST: u64 = 4;

impl Transfer {
    /// Whether one more piece may be begun with a peer, where those that somebody works on or this peer
    /// has may have `times` the bytes that `limits` says. Then [`Transfer::make_way`] is next.
    pub(super) fn may_begin(&self, peer: Asked<'_>, times: u64, limits: &Limits, out: &Picked) -> bool {
        let (bytes, pieces) = (self.blocks.committed(), self.blocks.unfinished());
        let most = times.saturating_mul(limits.unfinished_bytes);
        if self.has_room(bytes, pieces, most, FEWEST) {
            return true;
        }
        let (mut stuck, mut stuck_bytes) = (0, 0);
        for (piece, _) in self.stuck(peer) {
            stuck += 1;
            stuck_bytes += u64::from(self.shape.piece_len(piece));
        }
        if stuck == 0 || !self.has_room(bytes - stuck_bytes, pieces - stuck, most, FEWEST) {
            return false;
        }
        // For each piece that makes way one is fetched: who has nothing else to do is worth that.
        let idle = out.blocks.is_empty() && self.blocks.requests().on_time(peer.slot) == 0;
        idle || self.has_room_for_stuck(limits)
    }

    /// Gives up a piece if there is no room for one more, of those that nobody can go on with the one of
    /// which least has come: whoever begins many to push others out pushes out its own.
    pub(super) fn make_way(&mut self, peer: Asked<'_>, limits: &Limits, out: &mut Picked) {
        if self.has_room_for_stuck(limits) {
            return;
        }
        let least = self.stuck(peer).min_by_key(|&(_, blocks)| blocks);
        if let Some((piece, _)) = least {
            out.given_up.push(self.give_up(piece));
        }
    }

    /// Gives up begun pieces of weight 0 of which nothing is on its way.
    pub(super) fn give_up_unwanted(&mut self, weights: &[u16]) -> Vec<GivenUp> {
        let unwanted = |piece: &PieceIndex| weights[piece.0 as usize] == 0;
        let idle: Vec<_> = self.blocks.idle().map(|(piece, _)| piece).filter(unwanted).collect();
        idle.into_iter().map(|piece| self.give_up(piece)).collect()
    }

    /// Begun pieces that neither this peer nor, as it looks, anybody else works on, and the blocks of each
    /// that are there.
    fn stuck(&self, peer: Asked<'_>) -> impl Iterator<Item = (PieceIndex, u32)> {
        self.blocks.idle().filter(move |(piece, _)| !peer.has.contains(piece.0))
    }

    fn has_room_for_stuck(&self, limits: &Limits) -> bool {
        let most = limits.unfinished_bytes.saturating_mul(MOST);
        self.has_room(self.blocks.committed(), self.blocks.unfinished(), most, MOST as usize * FEWEST)
    }

    fn has_room(&self, bytes: u64, pieces: usize, most: u64, fewest: usize) -> bool {
        bytes + u64::from(self.shape.piece_len) <= most || pieces < fewest
    }

    fn give_up(&mut self, piece: PieceIndex) -> GivenUp {
        let (bytes, called_off) = self.blocks.give_up(piece);
        self.verify.settle(piece);
        self.put_back(piece);
        GivenUp { piece, bytes, called_off }
    }
}
