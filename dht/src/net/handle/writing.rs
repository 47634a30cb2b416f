//! [`Writing`]: a put of BEP 44 under way, and [`PutReport`], what became of one.

use std::net::SocketAddr;

use krpc::Id;

use super::reading::read;
use super::{Dht, Lookup};
use crate::item::{
    Item, MutableItem, SecretKey, check_bounds, check_value, immutable_target, mutable_target, next_seq,
};
use crate::net::Error;
use crate::{Command, Event, Outcome};

/// What became of a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutReport {
    /// Where the item is stored.
    pub target: Option<Id>,
    /// Nodes that took it.
    pub stored: Vec<SocketAddr>,
    /// Nodes that refused it, with the KRPC error code: 301 (they have another version than `cas` expected)
    /// and 302 (what they have is newer) are what a node says, without proof.
    pub refused: Vec<(SocketAddr, i64)>,
    /// A version that was met on the way and is newer than the one that was put, or has its number and another
    /// value, or is another one than [`Dht::update_over`] expected.
    pub newer: Option<MutableItem>,
    /// Whether some of those that took it may have another version of its number ([`Event::Stored`]).
    pub(super) is_doubtful: bool,
}

impl PutReport {
    /// Of a put that nobody has answered yet.
    pub(super) fn of(target: Id) -> Self {
        Self { target: Some(target), ..Self::default() }
    }

    /// Whether another version is stored than the writer thought: one was met ([`PutReport::newer`]), or no
    /// fewer nodes say so (error 301 or 302) than took this one. A few may have missed a version, or lie.
    pub fn is_conflict(&self) -> bool {
        let disagreeing = self.disagreeing();
        self.newer.is_some() || disagreeing > 0 && disagreeing >= self.stored.len()
    }

    /// Hears of what became of the put of `item`. What a node said last counts, but who took it has it, and may
    /// refuse it later for that.
    fn hear(&mut self, event: Event, item: &Item) {
        match event {
            Event::Stored { node, doubtful, .. } => {
                self.refused.retain(|(refusing, _)| *refusing != node);
                self.stored.retain(|storing| *storing != node);
                self.stored.push(node);
                self.is_doubtful |= doubtful;
            }
            Event::Refused { node, code, .. } if !self.stored.contains(&node) => {
                self.refused.retain(|(refusing, _)| *refusing != node);
                self.refused.push((node, code));
            }
            Event::Item { item: found, .. } if found.seq() > item.seq() => {
                if let Item::Mutable(newer) = *found {
                    self.newer = Some(newer);
                }
            }
            _ => {}
        }
    }

    /// Nodes that have another version, they say.
    fn disagreeing(&self) -> usize {
        self.refused.iter().filter(|&&(_, code)| code == 301 || code == 302).count()
    }
}

/// A put under way ([`Dht::writing`]). A future of its methods that is dropped leaves in
/// [`Writing::report`] what has happened so far: a put takes up to four lookups where nodes disagree, and who
/// waits no longer still learns where the item is stored.
///
/// ```
/// # use std::time::Duration;
/// # use btdht::net::{Dht, Options};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), btdht::net::Error> {
/// let first = Dht::bind(Options::loopback([]))?;
/// let second = Dht::bind(Options::loopback(first.local_addrs()))?;
/// let mut writing = second.writing();
/// let end = tokio::time::timeout(Duration::from_secs(20), writing.put_immutable(b"5:hello")).await;
/// let until = if end.is_ok() { "to the end" } else { "until we waited no longer" };
/// println!("stored by {} nodes {until}", writing.report().stored.len());
/// # assert_eq!(writing.report().stored.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Writing {
    dht: Dht,
    seq: Option<i64>,
    report: PutReport,
}

impl Dht {
    /// A put that tells what it has come to when it is given up.
    pub fn writing(&self) -> Writing {
        Writing { dht: self.clone(), seq: None, report: PutReport::default() }
    }
}

impl Writing {
    /// What has become of the last put.
    pub fn report(&self) -> &PutReport {
        &self.report
    }

    /// See [`Writing::report`].
    pub fn into_report(self) -> PutReport {
        self.report
    }

    /// The number of the version that is stored, once it is known; none of an immutable item.
    pub fn seq(&self) -> Option<i64> {
        self.seq
    }

    /// See [`Dht::put_immutable`].
    ///
    /// # Errors
    /// As there.
    pub async fn put_immutable(&mut self, value: &[u8]) -> Result<(), Error> {
        self.begin(immutable_target(value), None);
        check_value(value).map_err(Error::Item)?;
        self.put(&Item::Immutable { value: value.into() }, None).await
    }

    /// See [`Dht::put_mutable`].
    ///
    /// # Errors
    /// As there.
    pub async fn put_mutable(&mut self, item: MutableItem, cas: Option<i64>) -> Result<(), Error> {
        self.begin(mutable_target(&item.key, &item.salt), Some(item.seq));
        Item::Mutable(item.clone()).check().map_err(Error::Item)?;
        self.put_after(item, cas).await
    }

    /// See [`Dht::update`].
    ///
    /// # Errors
    /// As there.
    pub async fn update(&mut self, secret: &SecretKey, salt: &[u8], value: &[u8]) -> Result<i64, Error> {
        self.begin(mutable_target(&secret.public(), salt), None);
        // A value that cannot be stored is found out before anybody is asked.
        MutableItem::sign(secret, salt, 0, value).map_err(Error::Item)?;
        let current = self.dht.get_mutable(secret.public(), salt, None).await?.map(|item| item.seq);
        let seq = next_seq(current).map_err(Error::Item)?;
        self.seq = Some(seq);
        self.put_after(MutableItem::sign(secret, salt, seq, value).map_err(Error::Item)?, current).await?;
        Ok(seq)
    }

    /// See [`Dht::update_over`].
    ///
    /// # Errors
    /// As there.
    pub async fn update_over(
        &mut self,
        secret: &SecretKey,
        salt: &[u8],
        value: &[u8],
        expected: i64,
    ) -> Result<i64, Error> {
        self.begin(mutable_target(&secret.public(), salt), None);
        check_bounds(salt, expected).map_err(Error::Item)?;
        let seq = next_seq(Some(expected)).map_err(Error::Item)?;
        self.seq = Some(seq);
        let item = MutableItem::sign(secret, salt, seq, value).map_err(Error::Item)?;
        let found = self.dht.get_mutable(secret.public(), salt, None).await?;
        self.report.newer = found.filter(|found| found.seq != expected);
        if self.report.newer.is_none() {
            self.put_after(item, Some(expected)).await?;
        }
        Ok(seq)
    }

    fn begin(&mut self, target: Id, seq: Option<i64>) {
        self.seq = seq;
        self.report = PutReport::of(target);
    }

    /// Stores `item` over version `current`. Where nodes refuse it for what they have, or may have another value
    /// of its number, that is read: one that missed a version has an older one, one with several addresses has
    /// this one already, and a liar has none. If it seems that nobody else wrote, and `current` is the number
    /// before, those that refused get it without a condition.
    async fn put_after(&mut self, item: MutableItem, current: Option<i64>) -> Result<(), Error> {
        let (key, salt, seq) = (item.key, item.salt.clone(), item.seq);
        let item = Item::Mutable(item);
        self.put(&item, current).await?;
        let report = &self.report;
        if report.newer.is_some() || report.disagreeing() == 0 && !report.is_doubtful {
            return Ok(());
        }
        let command = Command::GetMutable { key, salt, seq: None, trace: false };
        let read = read(self.dht.start(command).await?).await?;
        self.report.newer = read.other_than(&item);
        if self.report.newer.is_some() {
            return Ok(());
        }
        // Silence, or a version that the caller knows nothing of, is no sign that nobody else wrote.
        let is_heard = matches!(read.outcome, Outcome::Converged | Outcome::OutOfBudget);
        let found = read.newest.as_ref().and_then(Item::seq);
        let is_known = found.is_none() || found == Some(seq) || found == current;
        let is_next = current.is_some_and(|current| current.checked_add(1) == Some(seq));
        if !is_heard || !is_known || !is_next || self.report.disagreeing() == 0 {
            return Ok(());
        }
        self.put(&item, None).await
    }

    async fn put(&mut self, item: &Item, cas: Option<i64>) -> Result<(), Error> {
        let command = Command::Put { item: Box::new(item.clone()), cas, trace: false };
        put(self.dht.start(command).await?, item, &mut self.report).await
    }
}

/// Adds to `report` what becomes of the put of `item`.
pub(super) async fn put(mut lookup: Lookup, item: &Item, report: &mut PutReport) -> Result<(), Error> {
    while let Some(event) = lookup.next().await {
        if matches!(event, Event::Done { .. }) {
            return Ok(());
        }
        report.hear(event, item);
    }
    Err(Error::Stopped)
}

#[cfg(test)]
mod tests;
