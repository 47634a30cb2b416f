//! The disk of a [`World`]: in memory, as slow as a test wants it.

use std::collections::VecDeque;

use sha1::{Digest as _, Sha1};

use super::World;
use crate::piece::Block;
use crate::storage::{Done, Job, Verdict};
use crate::swarm::Input;

impl World {
    pub(super) fn disk(&mut self, job: Job, inputs: &mut Vec<Input>) {
        match job {
            Job::Write(block, bytes) => {
                self.disk_bytes += bytes.len() as u64;
                self.disk_peak = self.disk_peak.max(self.disk_bytes);
                self.writes.push_back((block, bytes));
            }
            Job::Forget(block) => match self.writes.iter().position(|(at, _)| *at == block) {
                Some(at) => {
                    self.writes.remove(at);
                    self.disk_bytes -= u64::from(block.len);
                    inputs.push(Input::Disk(Done::Freed(block.len)));
                }
                None => {
                    let piece = self.pieces.get_mut(&block.piece).expect("it is not whole");
                    piece.remove(&block.begin).expect("it was written");
                }
            },
            Job::Discard(piece) => {
                // What was given before is done before.
                let (gone, left): (VecDeque<_>, _) =
                    self.writes.drain(..).partition(|(at, _)| at.piece == piece);
                self.writes = left;
                for (at, _) in gone {
                    self.disk_bytes -= u64::from(at.len);
                    inputs.push(Input::Disk(Done::Freed(at.len)));
                }
                self.pieces.remove(&piece);
            }
            Job::Read(slot, block) => {
                let begin = block.piece.0 as usize * self.info.piece_length() as usize + block.begin as usize;
                let bytes = self.payload[begin..begin + block.len as usize].to_vec();
                inputs.push(Input::Disk(Done::Read(slot, block, Block::from(bytes))));
            }
            Job::MakeEmpty(files) => self.made.extend(files),
            Job::Check(_) | Job::Want(_) => {}
            Job::Save(id, _) if self.saves_stuck => self.saves.push_back(id),
            Job::Save(id, _) => inputs.push(Input::Disk(Done::Saved { id, doubted: 0 })),
        }
    }

    pub(super) fn work_disk(&mut self) {
        let speed = if self.disk_stuck { 0 } else { self.disk_speed };
        for _ in 0..speed {
            let Some((at, bytes)) = self.writes.pop_front() else { return };
            let piece = self.pieces.entry(at.piece).or_default();
            assert!(piece.insert(at.begin, bytes.to_vec()).is_none(), "written twice: {at:?}");
            let len: usize = piece.values().map(Vec::len).sum();
            let is_whole = len as u32 == self.info.shape().piece_len(at.piece);
            self.disk_kept += u64::from(at.len);
            let written = is_whole || self.disk_kept > self.disk_cache;
            if is_whole {
                let blocks = self.pieces.remove(&at.piece).unwrap();
                let whole: Vec<u8> = blocks.values().flatten().copied().collect();
                let good = self.info.piece_hash(at.piece) == Some(&Sha1::digest(&whole).into());
                self.bad_pieces += usize::from(!good);
                let verdict = if good {
                    self.have.insert(at.piece.0);
                    Verdict::Good
                } else {
                    Verdict::Bad { blocks: blocks.values().map(|block| Sha1::digest(block).into()).collect() }
                };
                self.input(Input::Disk(Done::Piece(at.piece, verdict)));
            }
            if written {
                let freed = std::mem::take(&mut self.disk_kept);
                self.disk_bytes -= freed;
                self.input(Input::Disk(Done::Freed(freed as u32)));
            }
        }
    }
}
