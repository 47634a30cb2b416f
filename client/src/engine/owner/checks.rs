//! Checks that the user asks for, one after the other.

use std::collections::VecDeque;
use std::ops::Range;

use super::Owner;
use crate::bitfield::Bitfield;
use crate::engine::inbound::CheckAnswer;
use crate::engine::phase::CheckError;
use crate::piece::PieceIndex;
use crate::swarm::{Command, Input};

/// Checks that wait, and the one that runs.
#[derive(Debug, Default)]
pub(super) struct Checks {
    waiting: VecDeque<(Bitfield, CheckAnswer)>,
    running: Option<(Vec<PieceIndex>, CheckAnswer)>,
}

impl Checks {
    /// A piece was hashed.
    pub(super) fn hashed(&mut self, piece: PieceIndex, right: bool) {
        if let Some((bad, _)) = self.running.as_mut().filter(|_| !right) {
            bad.push(piece);
        }
    }

    /// Forgets all; who waits hears that it has stopped.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn ended(&mut self) {
        if let Some((mut bad, answer)) = self.running.take() {
            bad.sort_unstable();
            // Whoever asked may have gone.
            let _ = answer.send(Ok(bad));
        }
    }

    fn next(&mut self) -> Option<Bitfield> {
        if self.running.is_some() {
            return None;
        }
        let (pieces, answer) = self.waiting.pop_front()?;
        self.running = Some((Vec::new(), answer));
        Some(pieces)
    }
}

impl Owner {
    /// Checks ranges of pieces; all pieces when there are none.
    pub(super) fn check(&mut self, ranges: Vec<Range<u32>>, answer: CheckAnswer) {
        let pieces = match (&self.disk, self.swarm.have()) {
            (Some(_), Some(have)) => chosen(&ranges, have.len()),
            _ => Err(CheckError::NotOpen),
        };
        match pieces {
            Ok(pieces) => {
                self.checks.waiting.push_back((pieces, answer));
                self.check_next();
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    pub(super) fn check_ended(&mut self) {
        self.checks.ended();
        self.check_next();
    }

    fn check_next(&mut self) {
        if let Some(pieces) = self.checks.next() {
            let check = Input::Command(Command::Check(pieces));
            self.swarm.handle(self.session.clock.now(), check, &mut self.actions);
            self.act();
        }
    }
}

fn chosen(ranges: &[Range<u32>], pieces: u32) -> Result<Bitfield, CheckError> {
    if ranges.is_empty() {
        return Ok(Bitfield::full(pieces));
    }
    let mut chosen = Bitfield::new(pieces);
    for range in ranges {
        if range.end > pieces {
            return Err(CheckError::NoSuchPiece { piece: range.end - 1, pieces });
        }
        for piece in range.clone() {
            chosen.insert(piece);
        }
    }
    Ok(chosen)
}
