//! [`GivenUp`]: what is to be done about a piece that was begun and is not gone on with.

use crate::peer::PeerCommand;
use crate::piece::{BlockRef, PieceIndex, Slot};
use crate::storage::Job;
use crate::swarm::Action;

/// A begun piece that the disk is to forget.
#[derive(Debug)]
pub(in crate::swarm) struct GivenUp {
    pub(in crate::swarm) piece: PieceIndex,
    /// Bytes of it that had come.
    pub(in crate::swarm) bytes: u64,
    /// Blocks of it that were asked for and are overdue.
    pub(in crate::swarm) called_off: Vec<(Slot, BlockRef)>,
}

impl GivenUp {
    /// Tells the disk, and the peers who may bring something of it still.
    pub(in crate::swarm) fn tell(self, out: &mut Vec<Action>) {
        out.push(Action::Disk(Job::Discard(self.piece)));
        let cancel = |(slot, block)| Action::Tell(slot, PeerCommand::Cancel(block));
        out.extend(self.called_off.into_iter().map(cancel));
    }
}
