//! Events on their way to the user, who may read more slowly than they come: a torrent of many files has
//! one for each that is there when it is opened.

use std::collections::VecDeque;

use tokio::sync::broadcast;

use crate::swarm::Event;

/// Events that wait where the user reads them; beyond them the oldest are lost.
const EVENTS: usize = 4096;
/// Events that wait before that, for whoever is slow.
const MOST_WAITING: usize = 1 << 16;

/// What the user is to hear.
#[derive(Debug)]
pub(super) struct News {
    user: broadcast::Sender<Event>,
    waiting: VecDeque<Event>,
}

impl News {
    /// Nothing has happened yet; and who hears of it.
    pub(super) fn new() -> (Self, broadcast::Receiver<Event>) {
        let (user, events) = broadcast::channel(EVENTS);
        (Self { user, waiting: VecDeque::new() }, events)
    }

    /// Tells of an event behind all that wait. With too many of them the oldest goes where others are
    /// lost for it, which the reader is told.
    pub(super) fn tell(&mut self, event: Event) {
        self.waiting.push_back(event);
        self.hand_on();
        if self.waiting.len() > MOST_WAITING {
            // Nobody may be listening.
            let _ = self.waiting.pop_front().map(|event| self.user.send(event));
        }
    }

    /// Hands on what there is room for.
    pub(super) fn hand_on(&mut self) {
        while self.user.len() < EVENTS
            && let Some(event) = self.waiting.pop_front()
        {
            // Nobody may be listening.
            let _ = self.user.send(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::torrent::Events;

    fn files(events: &mut Events) -> (Vec<usize>, Vec<String>) {
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

    #[test]
    fn thousands_of_events_at_once_reach_a_reader_that_comes_later() {
        let (mut news, events) = News::new();
        let mut events = Events(events);
        (0..12_000).for_each(|file| news.tell(Event::File(file)));
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (files, warnings) = files(&mut events);
            assert!(warnings.is_empty(), "{warnings:?}");
            seen.extend(files);
            news.hand_on();
        }
        assert_eq!(seen, (0..12_000).collect::<Vec<_>>());
    }

    #[test]
    fn who_never_reads_costs_a_bounded_memory_and_hears_how_much_is_lost() {
        let (mut news, events) = News::new();
        let mut events = Events(events);
        (0..200_000).for_each(|file| news.tell(Event::File(file)));
        assert_eq!(news.waiting.len(), MOST_WAITING);
        let (files, warnings) = files(&mut events);
        let lost = 200_000 - MOST_WAITING - EVENTS;
        assert_eq!((files.len(), files[0], warnings.len()), (EVENTS, lost, 1));
        assert!(warnings[0].starts_with(&format!("{lost} events were lost")), "{warnings:?}");
    }

    #[test]
    fn nothing_waits_for_nobody() {
        let (mut news, events) = News::new();
        drop(events);
        (0..10_000).for_each(|file| news.tell(Event::File(file)));
        assert!(news.waiting.is_empty());
    }
}
