//! Who wants to hear of what concerns the whole node, and [`Events`], what they hear it from.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::Event;

/// Events that wait for one subscriber; one that has more misses the newest.
const WAITING: usize = 256;

/// What a subscriber wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// What happens to the node itself, and rarely: that it has bootstrapped, that its network or address
    /// has changed.
    Node,
    /// Peers that others announce to us ([`Event::Announced`]): thousands a second on a busy node.
    Announces,
}

/// The events of a node from the moment of [`Dht::subscribe`](super::Dht::subscribe): a stream that ends
/// with the node.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    missed: Arc<AtomicU64>,
}

/// The node's end of an [`Events`].
#[derive(Debug)]
pub(super) struct Subscriber {
    topic: Topic,
    events: mpsc::Sender<Event>,
    missed: Arc<AtomicU64>,
}

/// All subscribers of a node.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Vec<Subscriber>);

/// A subscription that a node has to be told of.
pub(super) fn subscription(topic: Topic) -> (Subscriber, Events) {
    let (events, receiver) = mpsc::channel(WAITING);
    let missed = Arc::new(AtomicU64::new(0));
    (Subscriber { topic, events, missed: Arc::clone(&missed) }, Events { receiver, missed })
}

impl Events {
    /// The next event; `None` when the node has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }

    /// Events that were lost because this reader was too slow: 256 wait for it, further ones are dropped.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver.poll_recv(cx)
    }
}

impl Subscribers {
    /// Adds one, and forgets those that have gone.
    pub(super) fn add(&mut self, subscriber: Subscriber) {
        self.0.retain(|subscriber| !subscriber.events.is_closed());
        self.0.push(subscriber);
    }

    /// Tells everybody who wants to hear of it, and forgets those that have gone.
    pub(super) fn tell(&mut self, event: &Event) {
        let topic = if matches!(event, Event::Announced { .. }) { Topic::Announces } else { Topic::Node };
        self.0.retain(|subscriber| {
            if subscriber.topic != topic {
                return true;
            }
            match subscriber.events.try_send(event.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    subscriber.missed.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }

    /// Whether anybody wants to hear of announces.
    pub(super) fn want_announces(&self) -> bool {
        self.0.iter().any(|subscriber| subscriber.topic == Topic::Announces)
    }
}

#[cfg(test)]
mod tests {
    use krpc::Id;

    use super::*;

    fn bootstrapped(nodes: usize) -> Event {
        Event::Bootstrapped { nodes }
    }

    #[test]
    fn everybody_hears_of_their_topic_until_they_go() {
        let mut subscribers = Subscribers::default();
        let (first, mut node) = subscription(Topic::Node);
        let (second, mut announces) = subscription(Topic::Announces);
        subscribers.add(first);
        subscribers.add(second);
        subscribers.tell(&bootstrapped(1));
        let peer = "81.1.1.1:1".parse().unwrap();
        subscribers.tell(&Event::Announced { infohash: Id::ZERO, peer, seed: true });
        assert!(matches!(node.receiver.try_recv(), Ok(Event::Bootstrapped { nodes: 1 })));
        assert!(matches!(announces.receiver.try_recv(), Ok(Event::Announced { seed: true, .. })));
        assert!(node.receiver.try_recv().is_err() && announces.receiver.try_recv().is_err());
        assert!(subscribers.want_announces());
        drop(announces);
        subscribers.tell(&Event::Announced { infohash: Id::ZERO, peer, seed: true });
        assert!(!subscribers.want_announces(), "nobody listens any more");
        drop(node);
        let (third, _kept) = subscription(Topic::Node);
        subscribers.add(third);
        assert_eq!(subscribers.0.len(), 1);
    }

    #[test]
    fn a_slow_reader_misses_the_newest_and_is_told_how_many() {
        let mut subscribers = Subscribers::default();
        let (subscriber, mut events) = subscription(Topic::Node);
        subscribers.add(subscriber);
        for nodes in 0..WAITING + 10 {
            subscribers.tell(&bootstrapped(nodes));
        }
        assert_eq!(events.missed(), 10);
        let mut last = None;
        while let Ok(Event::Bootstrapped { nodes }) = events.receiver.try_recv() {
            last = Some(nodes);
        }
        assert_eq!(last, Some(WAITING - 1));
    }
}
