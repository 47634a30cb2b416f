//! Follows one torrent: shows its events and progress, and says how it ended.

mod told;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use btfetch::engine::{Events, Phase, Torrent};
use btfetch::metainfo::Info;
use btfetch::one_piece::End;
use btfetch::swarm::{Event, Status};
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::{Output, write_raw};
use crate::progress::{Before, Progress};
use crate::text::{escape, escape_bytes, escape_path, size, span};

/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(200);
/// What the part file held of a file is copied and synced within this.
const ON_ITS_WAY: Duration = Duration::from_secs(5);
/// Events that are shown in one write while others wait.
const AT_ONCE: usize = 256;
/// Between two progress events (JSON).
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The info dictionary is known.
    Metadata,
    /// The same, or none of these peers, so many, can be connected to.
    MetadataOf(usize),
    /// Everything is verified and synced.
    Complete,
}

/// When seeding ends; whatever comes first. None at all: with a signal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SeedLimits {
    /// Sent bytes over the size.
    pub(crate) ratio: Option<f64>,
    /// Since the torrent was complete.
    pub(crate) time: Option<Duration>,
}

/// One torrent being followed.
pub(crate) struct Watch {
    torrent: Torrent,
    events: Events,
    folder: PathBuf,
    output: Output,
    /// Lines of events that are not written yet (JSON).
    lines: String,
    progress: Progress,
    info: Option<Arc<Info>>,
    /// Reserved bytes, and those that are to be, while that goes on.
    reserved: Option<(u64, u64)>,
    /// [`Event::Complete`] was read, and so was all before it.
    complete: bool,
    started: Instant,
    reported: Option<Instant>,
    /// Peers that could not be connected to.
    unreachable: BTreeSet<SocketAddr>,
}

impl Watch {
    /// Follows `torrent`, which downloads into `folder`.
    pub(crate) fn new(torrent: Torrent, events: Events, folder: PathBuf, output: Output) -> Self {
        let progress = Progress::new(output);
        let started = Instant::now();
        Self {
            torrent,
            events,
            folder,
            output,
            lines: String::new(),
            progress,
            info: None,
            reserved: None,
            complete: false,
            started,
            reported: None,
            unreachable: BTreeSet::new(),
        }
    }

    /// The info dictionary, once it is known.
    pub(crate) fn info(&self) -> Option<&Arc<Info>> {
        self.info.as_ref()
    }

    /// Waits for `until`. Gives up when nothing of use came for `timeout`.
    pub(crate) async fn wait(&mut self, until: Until, timeout: Option<Duration>) -> Result<(), Failure> {
        let result = self.wait_inner(until, timeout).await;
        self.progress.clear();
        result
    }

    async fn wait_inner(&mut self, until: Until, timeout: Option<Duration>) -> Result<(), Failure> {
        let mut tick = tokio::time::interval(TICK);
        let mut useful = (self.torrent.status(), Instant::now());
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => {
                        // A slow disk is no reason to give up.
                        if self.show_with_waiting(event, Some(until))? {
                            useful.1 = Instant::now();
                        }
                    }
                    None => return Err(Failure::failed(format!("{}: stopped", self.name()))),
                },
                _ = tick.tick() => {
                    let status = self.torrent.status();
                    self.tick(&status)?;
                    if came_closer(&useful.0, &status) {
                        useful = (status, Instant::now());
                    }
                    // What is all there waits for the disk alone.
                    let late = |timeout: &Duration| !status.complete && useful.1.elapsed() >= *timeout;
                    if let Some(timeout) = timeout.filter(late) {
                        return Err(self.nothing(&status, timeout));
                    }
                }
            }
            if until != Until::Complete && self.info.is_some() {
                return Ok(());
            }
            match self.torrent.phase() {
                Phase::Running => {}
                Phase::Complete => {
                    self.drain().await?;
                    return Ok(());
                }
                Phase::Failed(failed) => return Err(Failure::from(&failed)),
                Phase::Stopped => return Err(Failure::failed(format!("{}: stopped", self.name()))),
            }
        }
    }

    /// Gives up when nobody is left to ask.
    fn nobody_left(&mut self, until: Until, event: &Event) -> Result<(), Failure> {
        if let (Until::MetadataOf(peers), Event::DialFailed(addr, why)) = (until, event) {
            self.unreachable.insert(*addr);
            if self.unreachable.len() >= peers {
                let end = End::Unreachable(why.clone());
                return Err(Failure::new(Exit::Nothing, format!("{addr}: {end}")));
            }
        }
        Ok(())
    }

    /// Seeds until a limit is reached.
    pub(crate) async fn seed(&mut self, limits: SeedLimits) -> Result<(), Failure> {
        let mut tick = tokio::time::interval(TICK);
        let since = Instant::now();
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Some(event) => {
                        self.show_with_waiting(event, None)?;
                    }
                    None => return Ok(()),
                },
                _ = tick.tick() => {
                    let status = self.torrent.status();
                    self.tick(&status)?;
                    let sent_enough = limits.ratio.is_some_and(|ratio| {
                        status.wanted > 0 && status.uploaded as f64 >= ratio * status.wanted as f64
                    });
                    if sent_enough || limits.time.is_some_and(|time| since.elapsed() >= time) {
                        self.progress.clear();
                        return Ok(());
                    }
                }
            }
            if let Phase::Failed(failed) = self.torrent.phase() {
                self.progress.clear();
                return Err(Failure::from(&failed));
            }
        }
    }

    /// Says that everything is there.
    ///
    /// # Errors
    /// A file was taken away after it was written: writing to it does not fail.
    pub(crate) async fn done(&self) -> Result<(), Failure> {
        let status = self.torrent.status();
        if let Some(path) = self.gone().await {
            let message = format!("{} was verified and written, and is gone", escape_path(&path));
            return Err(Failure::new(Exit::Disk, message));
        }
        let (elapsed, path) = (self.started.elapsed(), self.path());
        self.output.event(|| {
            json!({
                "event": "done", "name": self.name(), "path": path, "infohash": self.torrent.infohash().to_string(),
                "length": status.wanted, "downloaded": status.downloaded, "uploaded": status.uploaded,
                "ms": elapsed.as_millis() as u64,
            })
        })?;
        let (total, took) = (size(status.wanted), elapsed.as_secs_f64());
        self.output.plain(format!("done {path}: {total} verified, {took:.1} s"))
    }

    /// A wanted file that is not there. One whose bytes stood in the part file may be on its way.
    async fn gone(&self) -> Option<PathBuf> {
        let files = self.torrent.files().await.into_iter();
        let wanted = files.filter(|file| file.priority > 0 && file.length > 0);
        let paths: Vec<_> = wanted.map(|file| self.folder.join(&file.path)).collect();
        let gone = move || {
            paths.into_iter().find(|path| {
                let end = Instant::now() + ON_ITS_WAY;
                while !path.try_exists().unwrap_or(true) {
                    if Instant::now() >= end {
                        return true;
                    }
                    std::thread::sleep(TICK);
                }
                false
            })
        };
        tokio::task::spawn_blocking(gone).await.ok().flatten()
    }

    /// Shows the events that were before the end: there may be more than wait at once.
    async fn drain(&mut self) -> Result<(), Failure> {
        // One end for all of them: seeding makes new ones as long as it lasts.
        let until = Instant::now() + ON_ITS_WAY;
        let mut end = pin!(tokio::time::sleep_until(until.into()));
        while !self.complete
            && let Some(event) = before(end.as_mut(), self.events.next()).await
        {
            self.show_with_waiting(event, None)?;
        }
        while Instant::now() < until
            && let Some(event) = self.events.try_next()
        {
            self.show_with_waiting(event, None)?;
        }
        Ok(())
    }

    /// Shows an event and those that wait behind it, and says whether one tells of space that is reserved.
    /// Pieces may come by the thousand, and a write for each would cost more than the piece.
    fn show_with_waiting(&mut self, first: Event, until: Option<Until>) -> Result<bool, Failure> {
        let (mut next, mut shown, mut reserving) = (Some(first), 0, false);
        let mut given_up = Ok(());
        while let Some(event) = next.take() {
            self.show(&event);
            reserving |= matches!(event, Event::Preallocating { .. });
            given_up = until.map_or(Ok(()), |until| self.nobody_left(until, &event));
            shown += 1;
            // Who waits for metadata has a word to say before what follows from it.
            let more = given_up.is_ok() && !matches!(event, Event::Metadata(_));
            if more && shown < AT_ONCE {
                next = self.events.try_next();
            }
        }
        self.write_lines()?;
        given_up.map(|()| reserving)
    }

    fn write_lines(&mut self) -> Result<(), Failure> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let written = write_raw(&[self.lines.as_bytes()]);
        self.lines.clear();
        written
    }

    fn show(&mut self, event: &Event) {
        if let Event::Metadata(info) = event {
            self.info = Some(Arc::clone(info));
        }
        self.complete |= matches!(event, Event::Complete);
        self.reserved = reserved(self.reserved, event);
        if self.output.json
            && let Some(value) = self.told(event)
        {
            // Writing to a string does not fail.
            let _ = writeln!(self.lines, "{value}");
        }
        match event {
            Event::Metadata(info) => {
                self.say(format!("{}: {} in {} pieces", self.name(), size(info.total()), info.pieces()));
            }
            Event::BadPiece(piece, banned) => {
                self.say(format!(
                    "{}: piece {} was wrong, {} peers banned",
                    self.name(),
                    piece.0,
                    banned.len()
                ));
            }
            Event::Verified => self.say(format!("{}: all is verified and written, syncing", self.name())),
            Event::Warning(text) => self.say(format!("{}: {}", self.name(), escape(text))),
            _ => {}
        }
    }

    fn tick(&mut self, status: &Status) -> Result<(), Failure> {
        let name = self.name();
        let what = match (&self.info, self.reserved) {
            (None, _) => Before::Metadata,
            (Some(_), None) if status.to_check > 0 => Before::Check(status.checked, status.to_check),
            (Some(_), None) => Before::Files,
            (Some(_), Some((done, total))) => Before::Space(done, total),
        };
        self.progress.update((&name, what), status);
        if self.reported.is_none_or(|reported| reported.elapsed() >= PROGRESS_EVERY) {
            self.reported = Some(Instant::now());
            self.output.event(|| {
                json!({
                    "event": "progress", "downloaded": status.downloaded, "uploaded": status.uploaded,
                    "left": status.left, "wanted": status.wanted, "rate_down": status.rate_down,
                    "rate_up": status.rate_up, "peers": status.peers, "seeds": status.seeds,
                    "eta": status.eta.map(|eta| eta.as_secs()), "infohash": self.torrent.infohash().to_string(),
                })
            })?;
        }
        Ok(())
    }

    fn say(&self, line: String) {
        self.progress.say(self.output, line);
    }

    /// The torrent's name, escaped; its infohash before that is known.
    fn name(&self) -> String {
        match &self.info {
            Some(info) => escape_bytes(info.name()),
            None => self.torrent.infohash().to_string(),
        }
    }

    fn path(&self) -> String {
        use std::os::unix::ffi::OsStrExt as _;
        let name = self.info.as_ref().map(|info| std::ffi::OsStr::from_bytes(info.name()));
        escape_path(&name.map_or_else(|| self.folder.clone(), |name| self.folder.join(name)))
    }

    fn nothing(&self, status: &Status, timeout: Duration) -> Failure {
        let why = match (status.known, status.peers) {
            _ if status.to_check > 0 => "the disk does not answer",
            (0, _) => "no peer was found",
            (_, 0) => "no peer could be reached",
            _ => "the peers sent nothing new",
        };
        let message = format!("{}: gave up after {} without progress: {why}", self.name(), span(timeout));
        Failure::new(Exit::Nothing, message).hint("running it again goes on where it stopped")
    }
}

/// What `next` gives before `end` comes, which has the word also where something is always there.
async fn before<T>(end: Pin<&mut impl Future>, next: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        biased;
        _ = end => None,
        next = next => next,
    }
}

/// What is being reserved after an event, with what was before.
fn reserved(before: Option<(u64, u64)>, event: &Event) -> Option<(u64, u64)> {
    match event {
        Event::Preallocating { done, total } => (done < total).then_some((*done, *total)),
        // It may say that this cannot be done, and nothing else does; if it can, more is told soon.
        Event::Warning(_) => None,
        _ => before,
    }
}

/// Whether something of use came between two looks: from peers, or from what is on the disk already.
fn came_closer(before: &Status, now: &Status) -> bool {
    let useful = |status: &Status| status.downloaded.saturating_sub(status.wasted);
    let looked = now.checked > before.checked || now.to_check != before.to_check;
    looked || now.left < before.left || now.wanted != before.wanted || useful(now) > useful(before)
}

#[cfg(test)]
mod tests {
    use std::future::{poll_fn, ready};
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn events_without_end_are_read_until_the_end() {
        // It comes at the fourth look.
        let mut looks = 0;
        let mut end = pin!(poll_fn(|_| {
            looks += 1;
            if looks > 3 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut read = 0;
        while read < 100 && before(end.as_mut(), ready(Some(()))).await.is_some() {
            read += 1;
        }
        assert_eq!(read, 3);
    }

    #[test]
    fn space_that_cannot_be_reserved_is_not_shown_as_being_reserved() {
        let part = |done| Event::Preallocating { done, total: 2 };
        assert_eq!(reserved(None, &part(1)), Some((1, 2)));
        assert_eq!(reserved(Some((1, 2)), &Event::Verified), Some((1, 2)));
        assert_eq!(reserved(Some((1, 2)), &part(2)), None);
        assert_eq!(reserved(Some((1, 2)), &Event::Warning("not possible".into())), None);
    }

    #[test]
    fn only_useful_bytes_count_as_progress() {
        let before = Status { downloaded: 100, wasted: 50, left: 10, wanted: 10, ..Status::default() };
        assert!(!came_closer(&before, &Status { downloaded: 200, wasted: 150, ..before }));
        assert!(came_closer(&before, &Status { downloaded: 200, ..before }));
        assert!(came_closer(&before, &Status { left: 9, ..before }));
    }

    #[test]
    fn pieces_that_are_hashed_before_anything_is_fetched_are_progress() {
        let begun = Status { to_check: 7, checked: 3, ..Status::default() };
        assert!(came_closer(&Status::default(), &begun) && !came_closer(&begun, &begun));
        assert!(came_closer(&begun, &Status { checked: 4, ..begun }));
        assert!(came_closer(&begun, &Status::default()), "it has ended");
    }
}
