//! A mailbox of one place: what the node's task tells a serving shard of the interfaces of the machine.
//!
//! Changes that nobody has read yet become one, so that none is lost and nothing grows, however busy the
//! reader is.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::interfaces::Difference;

/// Both ends of a new mailbox.
pub(super) fn mailbox() -> (Sender, Mailbox) {
    let (bell, rings) = mpsc::channel(1);
    let pending = Arc::default();
    (Sender { pending: Arc::clone(&pending), bell }, Mailbox { pending, rings })
}

/// The end of who tells. The mailbox is closed when this is dropped.
#[derive(Debug)]
pub(super) struct Sender {
    pending: Arc<Mutex<Option<Difference>>>,
    bell: mpsc::Sender<()>,
}

/// The end of who is told.
#[derive(Debug)]
pub(super) struct Mailbox {
    pending: Arc<Mutex<Option<Difference>>>,
    rings: mpsc::Receiver<()>,
}

/// Nobody will tell anything any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Sender {
    /// Tells of a change, together with those that were not read yet.
    pub(super) fn tell(&self, difference: &Difference) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *pending {
            Some(earlier) => earlier.append(difference),
            None => *pending = Some(difference.clone()),
        }
        // A bell that has rung and was not heard yet says the same.
        let _ = self.bell.try_send(());
    }
}

impl Mailbox {
    /// What has been told, without waiting.
    ///
    /// # Errors
    /// [`Closed`], once everything was read.
    pub(super) fn try_next(&mut self) -> Result<Option<Difference>, Closed> {
        match self.rings.try_recv() {
            Ok(()) => Ok(self.take()),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(Closed),
        }
    }

    /// Waits for what is told. Cancel safe.
    ///
    /// # Errors
    /// [`Closed`], once everything was read.
    pub(super) async fn next(&mut self) -> Result<Difference, Closed> {
        loop {
            self.rings.recv().await.ok_or(Closed)?;
            // Two changes may have been read at the first of two rings.
            if let Some(difference) = self.take() {
                return Ok(difference);
            }
        }
    }

    fn take(&self) -> Option<Difference> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::interfaces::Snapshot;

    fn snapshot(ips: &[&str]) -> Snapshot {
        ips.iter().map(|ip| ("eth0".to_owned(), ip.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn changes_that_nobody_has_read_become_one_and_none_is_lost() {
        let (sender, mut mailbox) = mailbox();
        assert_eq!(mailbox.try_next(), Ok(None));
        let [a, b, c] = [&["192.0.2.1"][..], &[], &["192.0.2.1", "192.0.2.2"]].map(snapshot);
        sender.tell(&b.since(&a));
        assert_eq!(mailbox.try_next(), Ok(Some(b.since(&a))));
        // The reader is busy: the address that came back and stayed is told, and what is there in the end.
        sender.tell(&a.since(&b));
        sender.tell(&c.since(&a));
        let told = mailbox.next().await.unwrap();
        assert_eq!(told, c.since(&b));
        // One that has come and gone is not there to be bound.
        sender.tell(&a.since(&b));
        sender.tell(&b.since(&a));
        let told = mailbox.next().await.unwrap();
        assert_eq!((told.appeared, told.present), (b.since(&a).appeared, b.present()));
        assert_eq!(told.vanished, a.present());
        assert_eq!(mailbox.try_next(), Ok(None));
        for _ in 0..1000 {
            sender.tell(&a.since(&b));
        }
        assert_eq!(mailbox.next().await, Ok(a.since(&b)));
        assert_eq!(mailbox.try_next(), Ok(None));
    }

    #[tokio::test]
    async fn what_was_told_before_the_end_is_read() {
        let (sender, mut mailbox) = mailbox();
        let (a, b) = (snapshot(&["192.0.2.1"]), snapshot(&[]));
        sender.tell(&a.since(&b));
        drop(sender);
        assert_eq!(mailbox.next().await, Ok(a.since(&b)));
        assert_eq!(mailbox.next().await, Err(Closed));
        assert_eq!(mailbox.try_next(), Err(Closed));
    }
}
