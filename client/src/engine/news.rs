//! Events on their way to the user, who may read more slowly than they come: a torrent of many files has
//! one for each that is there when it is opened, and nobody may ever read them.
//!
//! Waking the reader costs more than to tell what happened. So whoever has read of a piece, of which there
//! may be 20,000 a second, is not woken for another one within [`REST`]; for anything else at once.

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::piece::PieceIndex;
use crate::swarm::Event;

/// Bytes of events that wait for whoever is slow: 65,536 single pieces, some 8,000 connections.
const MOST_BYTES: usize = 1 << 20;

/// Events that come by the thousand are told together that come within this.
const REST: Duration = Duration::from_millis(5);

/// Tells the user what happens.
#[derive(Debug)]
pub(super) struct News(Arc<Queue>);

/// Where the user hears of it.
#[derive(Debug)]
pub(super) struct Reader {
    queue: Arc<Queue>,
    /// When it may be woken for an event that comes by the thousand, if it has just read one.
    rests_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Entry>,
    /// What they weigh.
    bytes: usize,
    /// Events that were dropped since the reader heard of it.
    lost: u64,
    waits: Waits,
    /// There will be no more of them, or nobody reads them.
    ended: bool,
}

/// What the reader is woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Waits {
    /// Nothing: it is reading, or has been woken.
    #[default]
    No,
    ForAny,
    /// But those that come by the thousand.
    ForOthers,
}

/// One event, or some of one kind that follow each other.
#[derive(Debug)]
enum Entry {
    /// Those of `count` indexes from `first` on.
    Run {
        kind: Kind,
        first: u32,
        count: u32,
    },
    Other(Box<Event>),
}

const _: () = assert!(size_of::<Entry>() == 16);

/// Events that come by the thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Piece,
    File,
    Right,
    Wrong,
}

impl News {
    /// Nothing has happened yet; and who hears of it.
    pub(super) fn new() -> (Self, Reader) {
        let queue = Arc::<Queue>::default();
        (Self(Arc::clone(&queue)), Reader { queue, rests_until: None })
    }

    /// Tells of an event behind all that wait. With too many of them the oldest are lost, which the
    /// reader hears of.
    pub(super) fn tell(&mut self, event: Event) {
        let mut state = self.0.lock();
        if state.ended {
            return;
        }
        let entry = Entry::new(event);
        let is_waited_for = match state.waits {
            Waits::No => false,
            Waits::ForAny => true,
            Waits::ForOthers => matches!(entry, Entry::Other(_)),
        };
        state.push(entry);
        if is_waited_for {
            state.waits = Waits::No;
            self.0.changed.notify_one();
        }
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

impl Reader {
    /// The next event, or how many were lost before it; `None` after the last one. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            let now = Instant::now();
            // Without tokio's clock it is woken for each of them.
            let rest = self.rests_until.filter(|&until| now < until && Handle::try_current().is_ok());
            {
                let mut state = self.queue.lock();
                if let Some(event) = state.pop() {
                    self.rests_until = Kind::of(&event).map(|_| now + REST);
                    return Some(event);
                }
                if state.ended {
                    return None;
                }
                state.waits = if rest.is_some() { Waits::ForOthers } else { Waits::ForAny };
            }
            match rest {
                Some(until) => tokio::select! {
                    () = self.queue.changed.notified() => {}
                    () = sleep_until(until) => {}
                },
                None => self.queue.changed.notified().await,
            }
        }
    }

    /// The same if there is one already.
    pub(super) fn try_next(&mut self) -> Option<Event> {
        self.queue.lock().pop()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        *self.queue.lock() = State { ended: true, ..State::default() };
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, entry: Entry) {
        if let (Some(Entry::Run { kind, first, count }), Entry::Run { kind: more, first: next, .. }) =
            (self.waiting.back_mut(), &entry)
            && kind == more
            && first.checked_add(*count) == Some(*next)
        {
            *count += 1;
            return;
        }
        self.bytes += entry.weight();
        self.waiting.push_back(entry);
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.bytes -= oldest.weight();
            self.lost += oldest.events();
        }
    }

    fn pop(&mut self) -> Option<Event> {
        if self.lost > 0 {
            let lost = mem::take(&mut self.lost);
            return Some(Event::Warning(format!("{lost} events were lost: whoever reads them is too slow")));
        }
        if let Some(Entry::Run { kind, first, count: count @ 2.. }) = self.waiting.front_mut() {
            let event = kind.event(*first);
            *first += 1;
            *count -= 1;
            return Some(event);
        }
        let entry = self.waiting.pop_front()?;
        self.bytes -= entry.weight();
        Some(match entry {
            Entry::Run { kind, first, .. } => kind.event(first),
            Entry::Other(event) => *event,
        })
    }
}

impl Entry {
    fn new(event: Event) -> Self {
        match Kind::of(&event) {
            Some((kind, first)) => Self::Run { kind, first, count: 1 },
            None => Self::Other(Box::new(event)),
        }
    }

    fn events(&self) -> u64 {
        match self {
            Self::Run { count, .. } => u64::from(*count),
            Self::Other(_) => 1,
        }
    }

    /// Bytes in memory, about.
    fn weight(&self) -> usize {
        let boxed = match self {
            Self::Run { .. } => 0,
            Self::Other(event) => size_of::<Event>() + heap(event),
        };
        size_of::<Self>() + boxed
    }
}

/// Bytes that an event holds elsewhere and does not share.
fn heap(event: &Event) -> usize {
    match event {
        Event::BadPiece(_, liars) => size_of::<SocketAddr>() * liars.len(),
        Event::Warning(text) | Event::DialFailed(_, text) => text.len(),
        Event::DiskFailed(error) => error.path.as_os_str().len() + error.detail.len(),
        _ => 0,
    }
}

impl Kind {
    /// The kind and index of an event of those that come by the thousand.
    fn of(event: &Event) -> Option<(Self, u32)> {
        Some(match *event {
            Event::Piece(piece) => (Self::Piece, piece.0),
            Event::Checked(piece, true) => (Self::Right, piece.0),
            Event::Checked(piece, false) => (Self::Wrong, piece.0),
            Event::File(file) => (Self::File, u32::try_from(file).ok()?),
            _ => return None,
        })
    }

    fn event(self, index: u32) -> Event {
        match self {
            Self::Piece => Event::Piece(PieceIndex(index)),
            Self::File => Event::File(index as usize),
            Self::Right => Event::Checked(PieceIndex(index), true),
            Self::Wrong => Event::Checked(PieceIndex(index), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::engine::torrent::Events;

    fn news() -> (News, Events) {
        let (news, reader) = News::new();
        (news, Events(reader))
    }

    fn read(events: &mut Events) -> (Vec<usize>, Vec<String>) {
        let (mut files, mut warnings) = (Vec::new(), Vec::new());
        while let Some(event) = events.try_next() {
            match event {
                Event::File(file) => files.push(file),
                Event::Warning(words) => warnings.push(words),
                other => panic!("{other:?}"),
            }
        }
        (files, warnings)
    }

    fn weight(news: &News) -> (usize, usize) {
        let state = news.0.lock();
        (state.bytes, state.waiting.iter().map(Entry::weight).sum())
    }

    #[test]
    fn thousands_of_events_at_once_reach_a_reader_that_comes_later() {
        // Those that follow each other, as many as a torrent may have files, and others.
        for (files, step) in [(200_000, 1), (60_000, 7)] {
            let (mut news, mut events) = news();
            let told: Vec<_> = (0..files).map(|file| file * step).collect();
            told.iter().for_each(|&file| news.tell(Event::File(file)));
            assert!(weight(&news).0 <= if step == 1 { 16 } else { MOST_BYTES });
            assert_eq!(read(&mut events), (told, vec![]));
            assert_eq!(weight(&news), (0, 0));
        }
    }

    #[test]
    fn who_never_reads_costs_a_bounded_memory_and_hears_once_how_much_is_lost() {
        let (mut news, mut events) = news();
        (0..200_000).for_each(|file| news.tell(Event::File(2 * file)));
        let (bytes, counted) = weight(&news);
        assert!(bytes == counted && bytes <= MOST_BYTES);
        let (files, warnings) = read(&mut events);
        let lost = 200_000 - MOST_BYTES / size_of::<Entry>();
        assert_eq!((files.len() + lost, files[0]), (200_000, 2 * lost));
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with(&format!("{lost} events were lost")), "{warnings:?}");
        news.tell(Event::File(5));
        assert_eq!(read(&mut events), (vec![5], vec![]), "nothing more is lost");
    }

    #[test]
    fn long_events_weigh_more() {
        let (mut news, mut events) = news();
        let text = "x".repeat(1 << 16);
        (0..100).for_each(|_| news.tell(Event::Warning(text.clone())));
        let (bytes, counted) = weight(&news);
        assert!(bytes == counted && bytes <= MOST_BYTES);
        let (_, warnings) = read(&mut events);
        assert!(warnings[0].starts_with("85 events were lost"), "{} {}", warnings[0], warnings.len());
        assert_eq!(warnings.len(), 1 + 15);
    }

    #[test]
    fn what_waits_at_the_end_is_read_and_then_comes_the_end() {
        let (mut news, mut events) = news();
        let waker = Waker::noop();
        let poll =
            |events: &mut Events| Box::pin(events.next()).as_mut().poll(&mut Context::from_waker(waker));
        assert!(poll(&mut events).is_pending());
        [3, 4, 9].into_iter().for_each(|file| news.tell(Event::File(file)));
        drop(news);
        for file in [3, 4, 9] {
            assert!(matches!(poll(&mut events), Poll::Ready(Some(Event::File(told))) if told == file));
        }
        assert!(matches!(poll(&mut events), Poll::Ready(None)));
    }

    #[test]
    fn nothing_waits_for_nobody() {
        let (mut news, events) = news();
        news.tell(Event::File(1));
        drop(events);
        (0..10_000).for_each(|file| news.tell(Event::File(2 * file)));
        assert_eq!(weight(&news), (0, 0));
    }

    /// What a reader gets of a wake-up.
    async fn woken(events: &mut Events) -> Vec<Event> {
        let mut read = vec![events.next().await.unwrap()];
        read.extend(std::iter::from_fn(|| events.try_next()));
        read
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_read_of_a_piece_is_not_woken_for_each_of_the_next() {
        let (mut news, mut events) = news();
        let begun = Instant::now();
        let teller = tokio::spawn(async move {
            for n in 0..100 {
                news.tell(Event::Piece(PieceIndex(3 * n)));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            news
        });
        let (mut wakes, mut pieces) = (0, 0);
        while pieces < 100 {
            wakes += 1;
            pieces += woken(&mut events).await.len();
        }
        assert!((15..=25).contains(&wakes), "{wakes}");
        let mut news = teller.await.unwrap();
        assert!(begun.elapsed() <= Duration::from_millis(100) + REST);
        // After a rest, the next one is read at once.
        tokio::time::sleep(REST).await;
        let told = Instant::now();
        news.tell(Event::Piece(PieceIndex(1)));
        assert_eq!((woken(&mut events).await.len(), told.elapsed()), (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_seldom_is_told_at_once() {
        let (mut news, mut events) = news();
        news.tell(Event::Piece(PieceIndex(1)));
        assert_eq!(woken(&mut events).await.len(), 1);
        let told = Instant::now();
        let reader = tokio::spawn(async move { woken(&mut events).await });
        tokio::task::yield_now().await;
        news.tell(Event::Piece(PieceIndex(3)));
        news.tell(Event::Verified);
        let read = reader.await.unwrap();
        assert!(matches!(read[..], [Event::Piece(PieceIndex(3)), Event::Verified]), "{read:?}");
        assert_eq!(told.elapsed(), Duration::ZERO);
    }
}
