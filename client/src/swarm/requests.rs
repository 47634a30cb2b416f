//! [`Requests`]: which connection was asked for which blocks, and which of them are overdue.

use std::collections::VecDeque;
use std::time::Duration;

use btdht::Time;

use crate::piece::{BlockRef, PieceIndex, Slot};

/// What all connections were asked for and have not answered.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// By slot index.
    holders: Vec<Holder>,
    outstanding: u64,
}

#[derive(Debug, Default)]
struct Holder {
    generation: u32,
    /// Oldest first.
    requests: VecDeque<Request>,
    late: usize,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    block: BlockRef,
    at: Time,
    overdue: bool,
}

impl Requests {
    /// `slot` is asked for `block`.
    pub(super) fn add(&mut self, now: Time, slot: Slot, block: BlockRef) {
        self.outstanding += u64::from(block.len);
        self.holder_mut(slot).requests.push_back(Request { block, at: now, overdue: false });
    }

    /// Strikes a request from the list of `slot`; returns whether it was on time.
    pub(super) fn strike(&mut self, slot: Slot, block: BlockRef) -> Option<bool> {
        let holder = self.holders.get_mut(slot.index as usize)?;
        if holder.generation != slot.generation {
            return None;
        }
        // Answers come in order as a rule, so the first entry is nearly always the one.
        let at = holder.requests.iter().position(|request| request.block == block)?;
        let request = holder.requests.remove(at)?;
        if request.overdue {
            holder.late -= 1;
        } else {
            self.outstanding -= u64::from(block.len);
        }
        Some(!request.overdue)
    }

    /// Strikes all requests for `block`; returns who had one.
    pub(super) fn strike_all(&mut self, block: BlockRef) -> Vec<Slot> {
        let slots: Vec<_> = (0..).zip(&self.holders).map(|(index, holder)| holder.slot(index)).collect();
        slots.into_iter().filter(|&slot| self.strike(slot, block).is_some()).collect()
    }

    /// Strikes all requests for blocks of `piece`; returns who was asked for what.
    pub(super) fn strike_piece(&mut self, piece: PieceIndex) -> Vec<(Slot, BlockRef)> {
        let held = |(index, holder): (u32, &Holder)| {
            let slot = holder.slot(index);
            let of_piece = holder.requests.iter().filter(|request| request.block.piece == piece);
            of_piece.map(|request| (slot, request.block)).collect::<Vec<_>>()
        };
        let struck: Vec<_> = (0..).zip(&self.holders).flat_map(held).collect();
        for &(slot, block) in &struck {
            self.strike(slot, block);
        }
        struck
    }

    /// All requests of `slot` are overdue from here on; returns those that were on time.
    pub(super) fn overdue(&mut self, slot: Slot) -> Vec<BlockRef> {
        let holder = self.holder_mut(slot);
        let mut blocks = Vec::new();
        for request in holder.requests.iter_mut().filter(|request| !request.overdue) {
            request.overdue = true;
            blocks.push(request.block);
        }
        holder.late += blocks.len();
        self.outstanding -= blocks.iter().map(|block| u64::from(block.len)).sum::<u64>();
        blocks
    }

    /// Connections with a request on time that has waited for longer than whoever has been asked for so many
    /// blocks may have it wait.
    pub(super) fn late(&self, now: Time, most: impl Fn(usize) -> Duration) -> Vec<Slot> {
        let is_late = |holder: &Holder| {
            let oldest = holder.requests.iter().find(|request| !request.overdue);
            oldest.is_some_and(|request| now.since(request.at) > most(holder.on_time()))
        };
        let late = (0..).zip(&self.holders).filter(|(_, holder)| is_late(holder));
        late.map(|(index, holder)| holder.slot(index)).collect()
    }

    /// Requests that are on time have been made now.
    pub(super) fn restart(&mut self, now: Time) {
        let requests = self.holders.iter_mut().flat_map(|holder| &mut holder.requests);
        requests.filter(|request| !request.overdue).for_each(|request| request.at = now);
    }

    /// The oldest request of `slot`.
    pub(super) fn front(&self, slot: Slot) -> Option<BlockRef> {
        Some(self.holder(slot)?.requests.front()?.block)
    }

    /// Whether `slot` was asked for `block` and may still answer.
    pub(super) fn holds(&self, slot: Slot, block: BlockRef) -> bool {
        self.holder(slot).is_some_and(|holder| holder.requests.iter().any(|request| request.block == block))
    }

    /// Whether any request of `slot` is overdue.
    pub(super) fn has_overdue(&self, slot: Slot) -> bool {
        self.holder(slot).is_some_and(|holder| holder.late > 0)
    }

    /// Requests of `slot` that are on time.
    pub(super) fn on_time(&self, slot: Slot) -> usize {
        self.holder(slot).map_or(0, Holder::on_time)
    }

    /// Connections with requests that are on time.
    pub(super) fn peers(&self) -> usize {
        self.holders.iter().filter(|holder| holder.on_time() > 0).count()
    }

    /// Bytes that were asked for and are on time.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// Requests of `slot`, overdue ones included.
    #[cfg(test)]
    pub(super) fn of(&self, slot: Slot) -> usize {
        self.holder(slot).map_or(0, |holder| holder.requests.len())
    }

    fn holder(&self, slot: Slot) -> Option<&Holder> {
        self.holders.get(slot.index as usize).filter(|holder| holder.generation == slot.generation)
    }

    fn holder_mut(&mut self, slot: Slot) -> &mut Holder {
        let index = slot.index as usize;
        if self.holders.len() <= index {
            self.holders.resize_with(index + 1, Holder::default); // as many as connections
        }
        let holder = &mut self.holders[index];
        if holder.generation != slot.generation {
            debug_assert!(holder.requests.is_empty(), "a closed connection gave its requests back");
            *holder = Holder { generation: slot.generation, ..Holder::default() };
        }
        holder
    }
}

impl Holder {
    fn slot(&self, index: u32) -> Slot {
        Slot { index, generation: self.generation }
    }

    fn on_time(&self) -> usize {
        self.requests.len() - self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::piece::BLOCK_LEN;

    fn block(piece: u32) -> BlockRef {
        BlockRef { piece: PieceIndex(piece), begin: 0, len: BLOCK_LEN }
    }

    #[test]
    fn a_peer_that_drips_is_late_with_its_oldest_request() {
        let mut requests = Requests::default();
        let (slot, minute) = (Slot { index: 3, generation: 7 }, Duration::from_secs(60));
        (0..4).for_each(|piece| requests.add(Time::from_secs(1), slot, block(piece)));
        requests.strike(slot, block(0));
        assert!(requests.late(Time::from_secs(61), |_| minute).is_empty());
        assert_eq!(requests.late(Time::from_secs(62), |_| minute), [slot]);
        assert_eq!(requests.overdue(slot), [block(1), block(2), block(3)]);
        assert_eq!((requests.on_time(slot), requests.outstanding()), (0, 0));
        assert!(requests.late(Time::from_secs(99), |_| minute).is_empty(), "said once");
        requests.add(Time::from_secs(99), slot, block(9));
        assert_eq!(requests.strike(slot, block(2)), Some(false), "a late answer is known as such");
        assert_eq!((requests.on_time(slot), requests.outstanding()), (1, u64::from(BLOCK_LEN)));
        assert_eq!(requests.late(Time::from_secs(160), |_| minute), [slot]);
    }
}
