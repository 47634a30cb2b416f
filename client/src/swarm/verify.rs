//! [`Verify`]: who is to blame when a piece has the wrong hash.
//!
//! A peer that gave all of a bad piece is to blame at once. If several gave it, the piece is fetched
//! again from one peer, and when it is right, whoever gave blocks that differ from the right ones is
//! to blame. Until then the contributors are *suspects*, which get pieces of their own only: the next
//! bad piece of a liar convicts it. A peer that has not given anything right yet takes part in two
//! pieces at a time, a suspect in one. Who has given nothing right and took part in two bad tries is left
//! alone while others who are proven find out, for ten seconds at most: as a rule none can spoil more than
//! two.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use btdht::Time;
use sha1::{Digest as _, Sha1};

use crate::piece::{BLOCK_LEN, BlockRef, PieceIndex};

/// The memory of bad pieces.
#[derive(Debug, Default)]
pub(super) struct Verify {
    cases: BTreeMap<u32, Case>,
    suspects: BTreeMap<SocketAddr, Suspicion>,
    /// Peers that gave part of a right piece.
    proven: BTreeSet<SocketAddr>,
    /// The unverified pieces that peers without proof were asked for.
    involved: BTreeMap<SocketAddr, BTreeSet<u32>>,
    max_cases: usize,
}

/// What a suspect took part in.
#[derive(Debug)]
struct Suspicion {
    bad_tries: usize,
    latest: Time,
}

/// A piece that was bad and has not been right yet.
#[derive(Debug, Default)]
struct Case {
    attempts: Vec<Attempt>,
    /// SHA-1 of the blocks of the attempt that is under way, by block.
    latest: BTreeMap<u32, [u8; 20]>,
}

/// A bad try: who gave each block, and what it hashed to.
#[derive(Debug)]
struct Attempt {
    blocks: Vec<(SocketAddr, [u8; 20])>,
}

/// Unverified pieces at once that a peer may take part in before anything it gave was verified. With
/// this a liar with a deep pipeline spoils no more than a slow one.
const PIECES_OF_UNPROVEN: usize = 2;
/// Bad tries that a peer may take part in before anything it gave was verified.
const BAD_TRIES_OF_UNPROVEN: usize = 2;
/// A peer with so many bad tries is asked again after this long even though others are proven: they may
/// not have what it has, or not give it.
const LEFT_ALONE: Duration = Duration::from_secs(10);
/// Tries at one piece whose blocks are remembered.
const MAX_ATTEMPTS: usize = 4;
/// Blocks that are remembered in all: 3.4 MB.
const MAX_BLOCKS: usize = 1 << 16;

impl Verify {
    /// Nobody is under suspicion; at most `max_cases` bad pieces are remembered.
    pub(super) fn new(max_cases: usize) -> Self {
        Self { max_cases, ..Self::default() }
    }

    /// A block arrived. It is hashed only where its piece was bad before.
    pub(super) fn note(&mut self, block: BlockRef, bytes: &[u8]) {
        if let Some(case) = self.cases.get_mut(&block.piece.0) {
            case.latest.insert(block.begin / BLOCK_LEN, Sha1::digest(bytes).into());
        }
    }

    /// Whether a peer may be asked for blocks of `piece`.
    pub(super) fn admits(&self, now: Time, peer: SocketAddr, piece: PieceIndex) -> bool {
        let involved = self.involved.get(&peer);
        involved.is_some_and(|pieces| pieces.contains(&piece.0)) || self.admits_another(now, peer)
    }

    /// Whether a peer may be asked for blocks of a piece that it has nothing to do with yet.
    pub(super) fn admits_another(&self, now: Time, peer: SocketAddr) -> bool {
        let most = match (self.suspects.get(&peer), self.proven.contains(&peer)) {
            (Some(suspicion), false) if self.leaves_alone(now, suspicion) => 0,
            (Some(_), _) => 1,
            (None, true) => return true,
            (None, false) => PIECES_OF_UNPROVEN,
        };
        self.involved.get(&peer).map_or(0, BTreeSet::len) < most
    }

    /// A peer was asked for blocks of `piece`.
    pub(super) fn involve(&mut self, peer: SocketAddr, piece: PieceIndex) {
        if self.is_suspect(peer) || !self.proven.contains(&peer) {
            self.involved.entry(peer).or_default().insert(piece.0);
        }
    }

    /// A piece had the wrong hash. `givers` are the contributors and `hashes` the SHA-1, by block.
    /// Returns those to be banned.
    pub(super) fn bad(
        &mut self,
        now: Time,
        piece: PieceIndex,
        givers: &[SocketAddr],
        hashes: &[[u8; 20]],
    ) -> Vec<SocketAddr> {
        self.settle(piece);
        let distinct: BTreeSet<_> = givers.iter().copied().collect();
        let remembered: usize =
            self.cases.values().flat_map(|case| &case.attempts).map(|attempt| attempt.blocks.len()).sum();
        if self.cases.contains_key(&piece.0) || self.cases.len() < self.max_cases {
            let case = self.cases.entry(piece.0).or_default();
            case.latest.clear();
            if case.attempts.len() < MAX_ATTEMPTS && remembered + hashes.len() <= MAX_BLOCKS {
                let blocks = givers.iter().copied().zip(hashes.iter().copied()).collect();
                case.attempts.push(Attempt { blocks });
            }
        }
        if distinct.len() == 1 {
            self.suspects.retain(|suspect, _| !distinct.contains(suspect));
            return distinct.into_iter().collect();
        }
        for giver in distinct {
            let suspicion = self.suspects.entry(giver).or_insert(Suspicion { bad_tries: 0, latest: now });
            suspicion.bad_tries += 1;
            suspicion.latest = now;
        }
        Vec::new()
    }

    /// A piece is right, given by `givers`. Returns those whose blocks of earlier tries differ from
    /// the right ones: to be banned.
    pub(super) fn good(&mut self, piece: PieceIndex, givers: &[SocketAddr]) -> Vec<SocketAddr> {
        self.settle(piece);
        let mut culprits = BTreeSet::new();
        if let Some(case) = self.cases.remove(&piece.0) {
            for attempt in &case.attempts {
                for (index, (giver, hash)) in (0..).zip(&attempt.blocks) {
                    if case.latest.get(&index).is_some_and(|right| right != hash) {
                        culprits.insert(*giver);
                    }
                }
            }
            let cleared: BTreeSet<_> =
                case.attempts.iter().flat_map(|attempt| &attempt.blocks).map(|(giver, _)| *giver).collect();
            self.suspects.retain(|suspect, _| !cleared.contains(suspect));
        }
        // A whole right piece of its own also clears a suspect.
        if let Some(sole) = givers.first().filter(|first| givers.iter().all(|giver| giver == *first)) {
            self.suspects.remove(sole);
        }
        for giver in givers {
            if self.proven.insert(*giver) && !self.is_suspect(*giver) {
                self.involved.remove(giver);
            }
        }
        culprits.into_iter().collect()
    }

    /// Whether others are to find out first what became of a suspect's tries.
    fn leaves_alone(&self, now: Time, suspicion: &Suspicion) -> bool {
        suspicion.bad_tries >= BAD_TRIES_OF_UNPROVEN
            && !self.proven.is_empty()
            && now.since(suspicion.latest) < LEFT_ALONE
    }

    /// A piece is no longer under way.
    pub(super) fn settle(&mut self, piece: PieceIndex) {
        self.involved.retain(|_, pieces| {
            pieces.remove(&piece.0);
            !pieces.is_empty()
        });
    }

    /// Whether a peer gave part of a bad piece and is neither convicted nor cleared.
    pub(super) fn is_suspect(&self, peer: SocketAddr) -> bool {
        self.suspects.contains_key(&peer)
    }

    /// Whether a piece was bad and must be fetched from one peer.
    pub(super) fn is_case(&self, piece: PieceIndex) -> bool {
        self.cases.contains_key(&piece.0)
    }

    /// A peer has gone.
    pub(super) fn forget(&mut self, peer: SocketAddr) {
        self.suspects.remove(&peer);
        self.proven.remove(&peer);
        self.involved.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(1);
    const PIECE: PieceIndex = PieceIndex(7);

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([9, 9, 9, last], 1))
    }

    fn hash(text: &str) -> [u8; 20] {
        Sha1::digest(text).into()
    }

    fn note(verify: &mut Verify, blocks: &[&str]) {
        for (index, text) in (0..).zip(blocks) {
            let block = BlockRef { piece: PIECE, begin: index * BLOCK_LEN, len: BLOCK_LEN };
            verify.note(block, text.as_bytes());
        }
    }

    #[test]
    fn the_sole_contributor_of_a_bad_piece_is_banned_at_once() {
        let mut verify = Verify::new(8);
        assert_eq!(verify.bad(NOW, PIECE, &[addr(1); 2], &[hash("a"), hash("x")]), [addr(1)]);
        assert!(!verify.is_suspect(addr(1)) && verify.is_case(PIECE));
    }

    #[test]
    fn the_culprit_of_a_shared_bad_piece_is_found_by_the_block_that_differs() {
        let mut verify = Verify::new(8);
        assert!(verify.bad(NOW, PIECE, &[addr(1), addr(2)], &[hash("a"), hash("x")]).is_empty());
        assert!(verify.is_suspect(addr(1)) && verify.is_suspect(addr(2)));
        note(&mut verify, &["a", "b"]);
        assert_eq!(verify.good(PIECE, &[addr(1), addr(1)]), [addr(2)]);
        assert!(!verify.is_suspect(addr(1)) && !verify.is_case(PIECE));
    }

    #[test]
    fn several_bad_tries_convict_everybody_who_lied_and_nobody_else() {
        let mut verify = Verify::new(8);
        verify.bad(NOW, PIECE, &[addr(1), addr(2)], &[hash("a"), hash("x")]);
        note(&mut verify, &["y", "b"]);
        verify.bad(NOW, PIECE, &[addr(3), addr(4)], &[hash("y"), hash("b")]);
        note(&mut verify, &["a", "b"]);
        assert_eq!(verify.good(PIECE, &[addr(5), addr(5)]), [addr(2), addr(3)]);
        assert!((1..=5).all(|peer| !verify.is_suspect(addr(peer))));
    }

    #[test]
    fn a_peer_without_proof_takes_part_in_two_pieces_and_a_suspect_in_one() {
        let mut verify = Verify::new(8);
        let admitted =
            |verify: &Verify| (10..20).filter(|&n| verify.admits(NOW, addr(1), PieceIndex(n))).count();
        verify.involve(addr(1), PieceIndex(10));
        assert_eq!(admitted(&verify), 10);
        verify.involve(addr(1), PieceIndex(11));
        assert_eq!(admitted(&verify), 2);
        verify.bad(NOW, PieceIndex(10), &[addr(1), addr(2)], &[hash("a"), hash("b")]);
        assert_eq!(admitted(&verify), 1);
        verify.good(PieceIndex(11), &[addr(1)]);
        assert_eq!(admitted(&verify), 10);
        verify.involve(addr(1), PieceIndex(12));
        assert!(verify.involved.is_empty());
    }

    #[test]
    fn who_proved_nothing_in_two_bad_tries_is_left_alone_while_others_find_out() {
        let mut verify = Verify::new(8);
        let admits = |verify: &Verify, now, last| verify.admits(now, addr(last), PieceIndex(20));
        for piece in [10, 11] {
            verify.bad(NOW, PieceIndex(piece), &[addr(1), addr(2)], &[hash("a"), hash("x")]);
            assert!(admits(&verify, NOW, 1) && admits(&verify, NOW, 2), "there is nobody else");
        }
        verify.good(PieceIndex(12), &[addr(3)]);
        assert!(!admits(&verify, NOW, 1) && admits(&verify, NOW, 3));
        assert!(admits(&verify, NOW + LEFT_ALONE, 1), "the others may not have it");
        // The suspicion ends with the first of its cases.
        verify.note(BlockRef { piece: PieceIndex(10), begin: 0, len: BLOCK_LEN }, b"a");
        verify.note(BlockRef { piece: PieceIndex(10), begin: BLOCK_LEN, len: BLOCK_LEN }, b"b");
        assert_eq!(verify.good(PieceIndex(10), &[addr(3); 2]), [addr(2)]);
        assert!(admits(&verify, NOW, 1) && !verify.is_suspect(addr(1)));
    }

    #[test]
    fn bad_pieces_are_remembered_up_to_the_cap() {
        let mut verify = Verify::new(2);
        for piece in 0..5 {
            verify.bad(NOW, PieceIndex(piece), &[addr(1), addr(2)], &[hash("a"), hash("b")]);
        }
        assert_eq!(verify.cases.len(), 2);
        assert!(verify.good(PieceIndex(4), &[addr(1)]).is_empty());
        assert!(!verify.is_suspect(addr(1)) && verify.is_suspect(addr(2)));
    }
}
