//! What can be asked of a [`Torrent`]: names, sizes, pieces, files and peers.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use btdht::Time;
use tokio::sync::oneshot;

use super::inbound::Inbound;
use super::torrent::Torrent;
use crate::bitfield::Bitfield;
use crate::metainfo::Info;
use crate::piece::PieceIndex;
use crate::swarm::{PeerView, Swarm, TrackerView};

/// How much of what is wanted is there, in pieces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Pieces that are verified.
    pub finished: u32,
    /// Pieces that are wanted and not verified.
    pub unfinished: u32,
    /// Finished ones of both, 0 to 100.
    pub percentage: f64,
}

impl Progress {
    fn new(finished: u32, unfinished: u32) -> Self {
        let all = f64::from(finished) + f64::from(unfinished);
        let percentage = if unfinished == 0 { 100.0 } else { f64::from(finished) * 100.0 / all };
        Self { finished, unfinished, percentage }
    }
}

/// A file of a torrent and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView {
    /// Its index.
    pub index: usize,
    /// Where it lies, below the folder of the download.
    pub path: PathBuf,
    /// Its bytes.
    pub length: u64,
    /// Where it begins in the torrent.
    pub offset_start: u64,
    /// The pieces that have bytes of it.
    pub piece_index_range: Range<u32>,
    /// Bytes of it in verified pieces.
    pub done: u64,
    /// 0 when it is skipped, else its weight.
    pub priority: u16,
}

impl Torrent {
    /// The peer id that peers and trackers see: the same for all torrents of a session.
    pub fn peer_id(&self) -> [u8; 20] {
        self.peer_id
    }

    /// Our TCP port; 0 when nobody can connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The info dictionary; `None` before a magnet's peers have told it.
    pub fn info(&self) -> Option<Arc<Info>> {
        self.info.borrow().clone()
    }

    /// Its name, what is no UTF-8 replaced; `None` before [`Torrent::info`]. [`Info::name`] has the
    /// bytes as they are.
    pub fn name(&self) -> Option<String> {
        self.info().map(|info| String::from_utf8_lossy(info.name()).into_owned())
    }

    /// Bytes in all files; `None` before [`Torrent::info`]. What is wanted of them is
    /// [`Status::wanted`](crate::swarm::Status::wanted).
    pub fn size(&self) -> Option<u64> {
        self.info().map(|info| info.total())
    }

    /// Bytes of a piece, the last one perhaps not; `None` before [`Torrent::info`].
    pub fn piece_length(&self) -> Option<u32> {
        self.info().map(|info| info.piece_length())
    }

    /// Payload bytes received, of earlier runs too, as of [`Torrent::status`].
    pub fn downloaded(&self) -> u64 {
        self.status().downloaded
    }

    /// Payload bytes sent, of earlier runs too, as of [`Torrent::status`].
    pub fn uploaded(&self) -> u64 {
        self.status().uploaded
    }

    /// Wanted bytes that are not verified, as of [`Torrent::status`].
    pub fn left(&self) -> u64 {
        self.status().left
    }

    /// The verified pieces; `None` before storage was open, or when the torrent has ended.
    pub async fn pieces(&self) -> Option<Bitfield> {
        self.look(|swarm, _| swarm.have().cloned()).await?
    }

    /// The pieces that are wanted and not verified; `None` as for [`Torrent::pieces`].
    pub async fn missing(&self) -> Option<Bitfield> {
        self.look(|swarm, _| swarm.missing().cloned()).await?
    }

    /// How many pieces are there; `None` as for [`Torrent::pieces`].
    pub async fn progress(&self) -> Option<Progress> {
        let counts = |swarm: &Swarm, _| Some((swarm.have()?.count(), swarm.missing()?.count()));
        self.look(counts).await?.map(|(finished, unfinished)| Progress::new(finished, unfinished))
    }

    /// Its files in order, those that are stored; empty before [`Torrent::info`]. Before storage was open
    /// nothing of them is done.
    pub async fn files(&self) -> Vec<FileView> {
        let Some(info) = self.info() else { return Vec::new() };
        let of_files =
            |swarm: &Swarm, count| -> Vec<u16> { (0..count).map(|file| swarm.priority(file)).collect() };
        let count = info.files().len();
        let looked = self.look(move |swarm, _| (swarm.have().cloned(), of_files(swarm, count))).await;
        let (have, priorities) = looked.unwrap_or_default();
        let have = have.unwrap_or_default();
        let view = |file: crate::metainfo::File<'_>| FileView {
            index: file.index,
            path: file.path(),
            length: file.len(),
            offset_start: file.extent.offset,
            piece_index_range: file.piece_range(),
            done: done(&info, &file, &have),
            priority: priorities.get(file.index).copied().unwrap_or(1),
        };
        info.files().filter(|file| file.is_stored()).map(view).collect()
    }

    /// The peers that it is connected with.
    pub async fn peers(&self) -> Vec<PeerView> {
        self.look(|swarm, now| swarm.peers(now)).await.unwrap_or_default()
    }

    /// Its trackers, tier by tier, in the order in which they are tried. Empty when it has ended; after a stop
    /// and a start they are as if never asked.
    pub async fn trackers(&self) -> Vec<TrackerView> {
        self.look(|swarm, now| swarm.trackers(now)).await.unwrap_or_default()
    }

    /// What its swarm expects to come in.
    #[cfg(test)]
    pub(super) async fn intake(&self) -> Option<crate::swarm::Intake> {
        self.look(|swarm, _| swarm.intake()).await
    }

    /// Asks the swarm something; `None` when it has ended.
    async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Swarm, Time) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let look = move |swarm: &Swarm, now: Time| drop(answer.send(question(swarm, now)));
        self.inbox.upgrade()?.send(Inbound::Look(Box::new(look))).await.ok()?;
        answered.await.ok()
    }
}

/// Bytes of a file in the pieces of `have`.
fn done(info: &Info, file: &crate::metainfo::File<'_>, have: &Bitfield) -> u64 {
    let (begin, end) = (file.extent.offset, file.extent.offset + file.len());
    let bytes = |piece: u32| {
        let start = u64::from(piece) * u64::from(info.piece_length());
        let stop = start + u64::from(info.layout().piece_len(PieceIndex(piece)));
        stop.min(end).saturating_sub(start.max(begin))
    };
    file.piece_range().filter(|&piece| have.contains(piece)).map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_to_a_hundred_and_nothing_wanted_is_all_there() {
        assert_eq!(Progress::new(0, 8).percentage, 0.0);
        assert_eq!(Progress::new(2, 6).percentage, 25.0);
        assert_eq!(Progress::new(8, 0).percentage, 100.0);
        assert_eq!(Progress::new(0, 0).percentage, 100.0);
    }
}
