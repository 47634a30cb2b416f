//! [`Lookup`] and [`Peers`]: what a lookup tells, as streams.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::net::shard::Request;
use crate::{Event, LookupStats, Outcome};

/// A running lookup: a stream of its events, which ends after [`Event::Done`].
///
/// The channel holds everything that the limits of a lookup let it say, so that a slow reader
/// misses nothing; where limits were lifted it misses what is too much, but never the last event.
/// Dropping it cancels the lookup.
#[derive(Debug)]
pub struct Lookup {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) ticket: u64,
    /// Weak, so that a forgotten lookup does not keep the node alive.
    pub(super) requests: mpsc::WeakSender<Request>,
    pub(super) ended: bool,
}

/// The peers that a lookup finds, each once, as they arrive: a stream that ends with the lookup.
/// Dropping it cancels the lookup.
#[derive(Debug)]
pub struct Peers(Lookup);

impl Lookup {
    /// The next event; `None` after the last one, or when the node has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The peers alone.
    pub fn peers(self) -> Peers {
        Peers(self)
    }

    /// Waits for the end, whatever happens until then; how it ended, or `None` when the node has
    /// stopped.
    pub async fn finish(mut self) -> Option<(Outcome, LookupStats)> {
        loop {
            if let Event::Done { outcome, stats, .. } = self.next().await? {
                return Some((outcome, stats));
            }
        }
    }

    /// Asks the lookup to end; the events that it still has, up to [`Event::Done`], follow. If too
    /// much is asked of the task already it goes on, until dropping it makes the task notice.
    pub fn cancel(&self) {
        if self.ended {
            return;
        }
        if let Some(requests) = self.requests.upgrade() {
            let _ = requests.try_send(Request::Cancel(self.ticket));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = self.events.poll_recv(cx);
        if let Poll::Ready(event) = &event {
            self.ended |= event.as_ref().is_none_or(Event::is_last);
        }
        event
    }
}

impl Stream for Lookup {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(cx)
    }
}

impl Peers {
    /// The next peer; `None` when the lookup has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<SocketAddr> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<SocketAddr>> {
        loop {
            match self.0.poll(cx) {
                Poll::Ready(Some(Event::Peer { addr, .. })) => return Poll::Ready(Some(addr)),
                Poll::Ready(Some(_)) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for Peers {
    type Item = SocketAddr;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SocketAddr>> {
        self.poll(cx)
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.cancel();
    }
}
