//! [`Conns`]: the connections of a swarm and what is known of each, by generation-checked slot.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use btdht::Time;

use super::has::Has;
use super::io::Source;
use super::rate::Rate;
use crate::peer::Hello;
use crate::piece::{PieceIndex, Slot};

/// Connections by slot.
#[derive(Debug, Default)]
pub(super) struct Conns {
    places: Vec<Place>,
    free: Vec<u32>,
    open: usize,
}

/// One connection, half-open until `hello` is there.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) slot: Slot,
    /// The other end.
    pub(super) addr: SocketAddr,
    /// Where the peer listens, if that is known.
    pub(super) listens: Option<SocketAddr>,
    pub(super) source: Source,
    pub(super) dialed: bool,
    /// When the dial or connection began.
    pub(super) since: Time,
    pub(super) hello: Option<Hello>,
    /// The other side has closed it.
    pub(super) hung_up: bool,
    /// It has told the port of a DHT node.
    pub(super) named_node: bool,
    pub(super) has: Has,
    /// Pieces that it has and we want.
    pub(super) wanted: u32,
    /// Pieces that it suggested last (BEP 6).
    pub(super) suggested: ArrayVec<u32, MAX_SUGGESTED>,
    pub(super) upload_only: bool,
    /// It chokes us.
    pub(super) choking: bool,
    /// It wants something of us.
    pub(super) wants: bool,
    /// We told it that we are interested.
    pub(super) interested: bool,
    /// Requests that its connection could use.
    pub(super) room: u16,
    pub(super) snubbed: bool,
    /// Batches of rejected requests since the last block, and until when it is left alone for that.
    pub(super) rejects: u32,
    pub(super) paused_until: Time,
    pub(super) down: Rate,
    pub(super) up: Rate,
    pub(super) last_block: Time,
}

/// Suggestions kept of a peer; the oldest goes.
const MAX_SUGGESTED: usize = 10;

#[derive(Debug)]
struct Place {
    generation: u32,
    conn: Option<Box<Conn>>,
}

impl Conn {
    /// It suggests a piece; of many the last ones count.
    pub(super) fn suggest(&mut self, piece: PieceIndex) {
        if self.suggested.is_full() {
            self.suggested.remove(0);
        }
        self.suggested.push(piece.0);
    }
}

impl Conns {
    /// Begins a connection.
    pub(super) fn insert(&mut self, now: Time, addr: SocketAddr, source: Source, dialed: bool) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, conn: None }); // at most `Limits::max_peers`
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        let slot = Slot { index, generation: place.generation };
        place.conn = Some(Box::new(Conn {
            slot,
            addr,
            listens: dialed.then_some(addr),
            source,
            dialed,
            since: now,
            hello: None,
            hung_up: false,
            named_node: false,
            has: Has::Nothing,
            wanted: 0,
            suggested: ArrayVec::new(),
            upload_only: false,
            choking: true,
            wants: false,
            interested: false,
            room: 0,
            snubbed: false,
            rejects: 0,
            paused_until: Time::ZERO,
            down: Rate::new(now),
            up: Rate::new(now),
            last_block: now,
        }));
        slot
    }

    /// Ends a connection; its slot is stale from here on.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Conn> {
        let place = self.places.get_mut(slot.index as usize)?;
        let conn = place.conn.take_if(|conn| conn.slot == slot)?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot.index);
        self.open -= usize::from(conn.hello.is_some());
        Some(*conn)
    }

    /// The handshake is complete; `false` for a stale slot or a second handshake.
    pub(super) fn greet(&mut self, slot: Slot, hello: Hello) -> bool {
        match self.get_mut(slot) {
            Some(conn) if conn.hello.is_none() => conn.hello = Some(hello),
            _ => return false,
        }
        self.open += 1;
        true
    }

    /// A connection, unless the slot is stale.
    pub(super) fn get(&self, slot: Slot) -> Option<&Conn> {
        self.places.get(slot.index as usize)?.conn.as_deref().filter(|conn| conn.slot == slot)
    }

    /// A connection, unless the slot is stale.
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Conn> {
        self.places.get_mut(slot.index as usize)?.conn.as_deref_mut().filter(|conn| conn.slot == slot)
    }

    /// All connections that have shaken hands.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.all().filter(|conn| conn.hello.is_some())
    }

    /// All connections that have shaken hands.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.places
            .iter_mut()
            .filter_map(|place| place.conn.as_deref_mut())
            .filter(|conn| conn.hello.is_some())
    }

    /// All connections, half-open ones included.
    pub(super) fn all(&self) -> impl Iterator<Item = &Conn> {
        self.places.iter().filter_map(|place| place.conn.as_deref())
    }

    /// Connections, half-open ones included.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Connections that have shaken hands.
    pub(super) fn open(&self) -> usize {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_suggestions_the_last_ones_are_kept() {
        let mut conns = Conns::default();
        let slot = conns.insert(Time::ZERO, SocketAddr::from(([9, 9, 9, 9], 1)), Source::User, true);
        let conn = conns.get_mut(slot).unwrap();
        (0..1000).for_each(|piece| conn.suggest(PieceIndex(piece)));
        assert_eq!(conn.suggested[..], [990, 991, 992, 993, 994, 995, 996, 997, 998, 999]);
    }

    #[test]
    fn a_freed_slot_comes_back_with_another_generation() {
        let mut conns = Conns::default();
        let addr = SocketAddr::from(([9, 9, 9, 9], 1));
        let old = conns.insert(Time::ZERO, addr, Source::User, true);
        let hello =
            Hello { infohash: krpc::Id::ZERO, peer_id: [1; 20], extended: true, fast: true, dht: false };
        assert!(conns.greet(old, hello) && !conns.greet(old, hello));
        assert_eq!((conns.len(), conns.open()), (1, 1));
        assert!(conns.remove(old).is_some() && conns.remove(old).is_none());
        let new = conns.insert(Time::ZERO, addr, Source::User, true);
        assert_eq!((new.index, new.generation), (old.index, old.generation + 1));
        assert!(conns.get(old).is_none() && conns.get_mut(new).is_some());
        assert_eq!((conns.len(), conns.open(), conns.iter().count()), (1, 0, 0));
    }
}
