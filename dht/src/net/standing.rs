//! [`StandingOrder`]: an order that a node carries out again and again until its handle is dropped. The
//! times are [`Schedule`]'s; here are the task that waits for them and the handle.
//!
//! The task holds the node weakly: an order that is forgotten keeps no node alive, and ends with it.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use tokio::task::AbortHandle;

use super::subscribers::Events;
use crate::Time;
use crate::standing::{Cause, Schedule};

/// Longest sleep: timers of the runtime stand still while the machine sleeps, ours do not.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// A standing order: it goes on until this is dropped or the node stops.
///
/// It is a stream of its reports. One that is not read in time gives way to the next: a reader sees
/// the newest, and need not read at all.
#[derive(Debug)]
pub struct StandingOrder<R> {
    slot: Arc<Slot<R>>,
    task: AbortHandle,
}

/// One round of a standing order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round<T> {
    /// Counts from 1; gaps are rounds that nobody read.
    pub number: u64,
    /// Why it began.
    pub cause: Cause,
    /// What came of it.
    pub result: T,
    /// How long until the next one; `None` when the order has ended.
    pub next: Option<Duration>,
}

/// What is done in each round.
pub(super) trait Order: Send + 'static {
    /// What a round gives.
    type Result: Send;

    /// Carries out a round; `None` when the node has stopped.
    fn round(&mut self) -> impl Future<Output = Option<Step<Self::Result>>> + Send;
}

/// What a round came to.
pub(super) struct Step<T> {
    pub(super) result: T,
    pub(super) end: End,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Well.
    Success,
    /// It has to be tried again soon.
    Failure,
    /// There is nothing more to do.
    Final,
}

impl<R: Send + 'static> StandingOrder<R> {
    /// Starts `order` as a task of the current runtime, which hears of changes of the network from
    /// `events` and reports what `report` makes of its rounds.
    pub(super) fn start<O: Order>(
        order: O,
        schedule: Schedule,
        clock: impl Fn() -> Time + Send + Sync + 'static,
        events: Events,
        report: impl Fn(Round<O::Result>) -> Option<R> + Send + 'static,
    ) -> Self {
        let slot = Arc::new(Slot(Mutex::new(Content { unread: None, reader: None, closed: false })));
        let publisher = Publisher(Arc::clone(&slot));
        let publish = move |round| {
            if let Some(report) = report(round) {
                publisher.0.put(report);
            }
        };
        let task = tokio::spawn(run(order, schedule, clock, events, publish));
        Self { slot, task: task.abort_handle() }
    }
}

impl<R> StandingOrder<R> {
    /// The next report; `None` when the order has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<R> {
        std::future::poll_fn(|cx| self.slot.poll(cx)).await
    }

    /// [`StandingOrder::next`] for somebody who does not wait: pending when there is no report that was not
    /// read.
    pub(super) fn unread(&mut self) -> Poll<Option<R>> {
        self.slot.poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl<R> Stream for StandingOrder<R> {
    type Item = R;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        self.slot.poll(cx)
    }
}

impl<R> Drop for StandingOrder<R> {
    /// A lookup that is on its way is cancelled.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task: waits, carries out a round, publishes it.
async fn run<O: Order>(
    mut order: O,
    mut schedule: Schedule,
    clock: impl Fn() -> Time + Sync,
    mut events: Events,
    publish: impl Fn(Round<O::Result>),
) {
    for number in 1.. {
        if wait(&mut schedule, &clock, &mut events).await.is_none() {
            return;
        }
        let cause = schedule.begin(clock());
        let step = {
            let mut round = pin!(order.round());
            loop {
                tokio::select! {
                    step = &mut round => break step,
                    event = events.next() => match event {
                        Some(event) if event.is_move() => schedule.moved(clock()),
                        Some(_) => {}
                        None => return,
                    }
                }
            }
        };
        let Some(Step { result, end }) = step else { return };
        let next = schedule.end(clock(), end != End::Failure);
        let next = (end != End::Final).then_some(next);
        publish(Round { number, cause, result, next });
        if end == End::Final {
            return;
        }
    }
}

/// Waits until a round is due; `None` when the node has stopped.
async fn wait(
    schedule: &mut Schedule,
    clock: &(impl Fn() -> Time + Sync),
    events: &mut Events,
) -> Option<()> {
    loop {
        let pause = schedule.timeout().since(clock());
        if pause.is_zero() {
            return Some(());
        }
        tokio::select! {
            () = tokio::time::sleep(pause.min(LONGEST_SLEEP)) => {}
            event = events.next() => {
                if event?.is_move() {
                    schedule.moved(clock());
                }
            }
        }
    }
}

/// Holds the newest report until it is read.
#[derive(Debug)]
struct Slot<R>(Mutex<Content<R>>);

#[derive(Debug)]
struct Content<R> {
    unread: Option<R>,
    reader: Option<Waker>,
    closed: bool,
}

/// Closes the slot when the task ends, however it does.
struct Publisher<R>(Arc<Slot<R>>);

impl<R> Slot<R> {
    fn put(&self, report: R) {
        let reader = {
            let mut content = self.lock();
            content.unread = Some(report);
            content.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let reader = {
            let mut content = self.lock();
            content.closed = true;
            content.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let mut content = self.lock();
        if content.unread.is_some() || content.closed {
            return Poll::Ready(content.unread.take());
        }
        content.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Content<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Drop for Publisher<R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::Instant;

    use super::*;
    use crate::net::Topic;
    use crate::net::subscribers::{Subscribers, subscription};
    use crate::standing::Pace;
    use crate::{Config, Event, Rng};

    /// Ends its rounds as it was told, each after two seconds, and then for ever well.
    struct Script(VecDeque<End>);

    impl Order for Script {
        type Result = End;

        async fn round(&mut self) -> Option<Step<End>> {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let end = self.0.pop_front().unwrap_or(End::Success);
            Some(Step { result: end, end })
        }
    }

    /// An order on the paused clock of the runtime, and the node's end of its events.
    fn start(ends: &[End]) -> (StandingOrder<Round<End>>, Subscribers) {
        let (subscriber, events) = subscription(Topic::Node);
        let mut subscribers = Subscribers::default();
        subscribers.add(subscriber);
        let started = Instant::now();
        let clock = move || Time::ZERO + started.elapsed();
        let schedule = Schedule::new(clock(), Pace::of_announces(&Config::default()), Rng::from_seed(1));
        (
            StandingOrder::start(Script(ends.iter().copied().collect()), schedule, clock, events, Some),
            subscribers,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn rounds_are_reported_with_the_time_until_the_next() {
        let (mut standing, _node) = start(&[End::Success, End::Failure]);
        let started = Instant::now();
        let first = standing.next().await.unwrap();
        assert_eq!((first.number, first.cause, first.result), (1, Cause::New, End::Success));
        assert_eq!(started.elapsed().as_secs(), 2);
        let pause = first.next.unwrap();
        let second = standing.next().await.unwrap();
        assert_eq!((second.number, second.cause), (2, Cause::Due));
        let waited = started.elapsed() - Duration::from_secs(4);
        assert!(waited.abs_diff(pause) < Duration::from_millis(10), "{waited:?} {pause:?}");
        let third = standing.next().await.unwrap();
        assert_eq!((third.number, third.cause), (3, Cause::Retry));
        assert!(second.next.unwrap() <= Duration::from_secs(11));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_sees_the_newest_round() {
        let (mut standing, _node) = start(&[]);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let newest = standing.next().await.unwrap();
        assert!((4..=5).contains(&newest.number), "{newest:?}");
        let after = standing.next().await.unwrap();
        assert_eq!(after.number, newest.number + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_network_brings_the_next_round_forward() {
        let (mut standing, mut node) = start(&[]);
        standing.next().await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let changed = Instant::now();
        node.tell(&Event::NetworkChanged { home: 0 });
        let round = standing.next().await.unwrap();
        assert_eq!((round.cause, changed.elapsed().as_secs()), (Cause::Moved, 2));
        node.tell(&Event::Bootstrapped { nodes: 1 });
        let round = standing.next().await.unwrap();
        assert_eq!(round.cause, Cause::Due, "other events hurry nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_ends_with_its_last_round_with_the_node_and_with_its_handle() {
        let (mut standing, node) = start(&[End::Success, End::Final]);
        assert!(standing.next().await.unwrap().next.is_some());
        assert!(standing.unread().is_pending());
        let last = standing.next().await.unwrap();
        assert_eq!((last.result, last.next), (End::Final, None));
        assert!(standing.next().await.is_none());
        assert!(matches!(standing.unread(), Poll::Ready(None)));
        drop(node);

        let (mut standing, node) = start(&[]);
        standing.next().await.unwrap();
        drop(node);
        assert!(standing.next().await.is_none());

        let (standing, mut node) = start(&[]);
        let task = standing.task.clone();
        drop(standing);
        tokio::task::yield_now().await;
        assert!(task.is_finished());
        node.tell(&Event::Bootstrapped { nodes: 1 });
    }
}
