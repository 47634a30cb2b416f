//! Items of BEP 44 through the handle.

use std::net::SocketAddr;

use krpc::Id;

use super::{Dht, Lookup};
use crate::item::{Item, MutableItem, PublicKey, SecretKey, mutable_target, next_seq};
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
    /// Whether another version is stored than the writer thought: one was met ([`PutReport::newer`]), or no
    /// fewer nodes say so (error 301 or 302) than took this one. A few may have missed a version, or lie.
    pub fn is_conflict(&self) -> bool {
        let disagreeing = self.disagreeing();
        self.newer.is_some() || disagreeing > 0 && disagreeing >= self.stored.len()
    }

    /// What this put and the same one without a condition, `again`, come to: what a node said last counts.
    fn followed_by(mut self, again: Self) -> Self {
        self.stored.retain(|node| !again.stored.contains(node));
        self.stored.extend(again.stored);
        self.refused.retain(|(node, _)| again.refused.iter().all(|(refusing, _)| refusing != node));
        self.refused.extend(again.refused);
        // Who took it has it, and may refuse for that.
        let stored = &self.stored;
        self.refused.retain(|(node, _)| !stored.contains(node));
        Self { newer: again.newer, ..self }
    }

    /// Nodes that have another version, they say.
    fn disagreeing(&self) -> usize {
        self.refused.iter().filter(|&&(_, code)| code == 301 || code == 302).count()
    }
}

impl Dht {
    /// The bencoded value of the immutable item under `target`, as soon as one node sends one that
    /// hashes to it (BEP 44); `None` when nobody has it.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn get_immutable(&self, target: Id) -> Result<Option<Vec<u8>>, Error> {
        let item = self.newest(Command::GetImmutable { target, trace: false }).await?;
        Ok(item.map(|item| item.value().to_vec()))
    }

    /// The newest version of the item of `key` and `salt` that the closest nodes have (BEP 44); with
    /// `seq` only versions newer than that. Every version is verified. For each version as it is met,
    /// [`Dht::start`] [`Command::GetMutable`] and read its events.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn get_mutable(
        &self,
        key: PublicKey,
        salt: &[u8],
        seq: Option<i64>,
    ) -> Result<Option<MutableItem>, Error> {
        let command = Command::GetMutable { key, salt: salt.into(), seq, trace: false };
        Ok(match self.newest(command).await? {
            Some(Item::Mutable(item)) => Some(item),
            _ => None,
        })
    }

    /// Stores a bencoded value of at most 1,000 bytes with the closest nodes (BEP 44). They forget it
    /// after two hours; see [`Dht::keep`] for more.
    ///
    /// # Errors
    /// [`Error::Item`] when the value is none, [`Error::Stopped`].
    ///
    /// ```
    /// # use btdht::net::{Dht, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), btdht::net::Error> {
    /// let first = Dht::bind(Options::loopback([]))?;
    /// let second = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// let report = second.put_immutable(b"12:Hello World!").await?;
    /// let target = report.target.expect("the value is bencode");
    /// assert_eq!(target.to_string(), "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    /// let third = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// assert_eq!(third.get_immutable(target).await?, Some(b"12:Hello World!".to_vec()));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_immutable(&self, value: &[u8]) -> Result<PutReport, Error> {
        crate::item::check_value(value).map_err(Error::Item)?;
        self.put(Item::Immutable { value: value.into() }, None).await
    }

    /// Stores a signed item with the closest nodes (BEP 44); with `cas` only where that is the
    /// sequence number so far. Anybody may do so for any item, for instance to keep it alive. Where `cas` is the
    /// number before the item's, nodes that refuse it for what they have are seen to as [`Dht::update`] does.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn put_mutable(&self, item: MutableItem, cas: Option<i64>) -> Result<PutReport, Error> {
        self.put_after(item, cas).await
    }

    /// Signs `value` as the next version of the item of `secret` and `salt` and stores it: reads the
    /// newest version, takes the number after it, and stores only over that one. Sequence number and
    /// report; when [`PutReport::is_conflict`], somebody else wrote at the same time, and the value
    /// has to be made anew from what is there.
    ///
    /// # Errors
    /// [`Error::Item`] when value or salt are too long or not bencode, or when the version that is stored
    /// has the last number there is; [`Error::Stopped`].
    ///
    /// ```
    /// # use btdht::item::SecretKey;
    /// # use btdht::net::{Dht, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), btdht::net::Error> {
    /// let first = Dht::bind(Options::loopback([]))?;
    /// let second = Dht::bind(Options::loopback(first.local_addrs()))?;
    /// let secret = SecretKey::from_seed(&[7; 32]);
    /// let (seq, _) = second.update(&secret, b"", b"5:first").await?;
    /// assert_eq!(seq, 1);
    /// second.update(&secret, b"", b"6:second").await?;
    /// let found = second.get_mutable(secret.public(), b"", None).await?.expect("just stored");
    /// assert_eq!((found.seq, &found.value[..]), (2, &b"6:second"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn update(
        &self,
        secret: &SecretKey,
        salt: &[u8],
        value: &[u8],
    ) -> Result<(i64, PutReport), Error> {
        // A value that cannot be stored is found out before anybody is asked.
        MutableItem::sign(secret, salt, 0, value).map_err(Error::Item)?;
        let current = self.get_mutable(secret.public(), salt, None).await?.map(|item| item.seq);
        let seq = next_seq(current).map_err(Error::Item)?;
        let item = MutableItem::sign(secret, salt, seq, value).map_err(Error::Item)?;
        debug_assert_eq!(Item::Mutable(item.clone()).target(), mutable_target(&secret.public(), salt));
        Ok((seq, self.put_after(item, current).await?))
    }

    /// [`Dht::update`] for a writer who has read version `expected`: signs `value` as the one after it, and
    /// stores nothing when another version is found. Where none is found, nodes may have forgotten
    /// it, and it is stored.
    ///
    /// # Errors
    /// As [`Dht::update`]; [`Error::Item`] also for a negative `expected`.
    pub async fn update_over(
        &self,
        secret: &SecretKey,
        salt: &[u8],
        value: &[u8],
        expected: i64,
    ) -> Result<(i64, PutReport), Error> {
        crate::item::check_bounds(salt, expected).map_err(Error::Item)?;
        let seq = next_seq(Some(expected)).map_err(Error::Item)?;
        let item = MutableItem::sign(secret, salt, seq, value).map_err(Error::Item)?;
        let found = self.get_mutable(secret.public(), salt, None).await?;
        if let Some(other) = found.filter(|found| found.seq != expected) {
            let target = Some(mutable_target(&secret.public(), salt));
            return Ok((seq, PutReport { target, newer: Some(other), ..PutReport::default() }));
        }
        Ok((seq, self.put_after(item, Some(expected)).await?))
    }

    /// Stores `item` over version `current`. Where nodes refuse it for what they have, or may have another value
    /// of its number, that is read: one that missed a version has an older one, one with several addresses has
    /// this one already, and a liar has none. If it seems that nobody else wrote, and `current` is the number
    /// before, those that refused get it without a condition.
    async fn put_after(&self, item: MutableItem, current: Option<i64>) -> Result<PutReport, Error> {
        let report = self.put(Item::Mutable(item.clone()), current).await?;
        if report.newer.is_some() || report.disagreeing() == 0 && !report.is_doubtful {
            return Ok(report);
        }
        let (key, salt) = (item.key, item.salt.clone());
        let read =
            read(self.start(Command::GetMutable { key, salt, seq: None, trace: false }).await?).await?;
        if let Some(other) = read.other_than(&item) {
            return Ok(PutReport { newer: Some(other), ..report });
        }
        // Silence, or a version that the caller knows nothing of, is no sign that nobody else wrote.
        let is_heard = matches!(read.outcome, Outcome::Converged | Outcome::OutOfBudget);
        let found = read.newest.as_ref().and_then(Item::seq);
        let is_known = found.is_none() || found == Some(item.seq) || found == current;
        let is_next = current.is_some_and(|current| current.checked_add(1) == Some(item.seq));
        if !is_heard || !is_known || !is_next || report.disagreeing() == 0 {
            return Ok(report);
        }
        Ok(report.followed_by(self.put(Item::Mutable(item), None).await?))
    }

    async fn put(&self, item: Item, cas: Option<i64>) -> Result<PutReport, Error> {
        let command = Command::Put { item: Box::new(item.clone()), cas, trace: false };
        put_report(self.start(command).await?, &item).await
    }

    async fn newest(&self, command: Command) -> Result<Option<Item>, Error> {
        Ok(newest(self.start(command).await?).await?.0)
    }
}

/// What became of the put of `item`.
pub(super) async fn put_report(mut lookup: Lookup, item: &Item) -> Result<PutReport, Error> {
    let mut report = PutReport { target: Some(item.target()), ..PutReport::default() };
    while let Some(event) = lookup.next().await {
        match event {
            Event::Stored { node, doubtful, .. } => {
                report.stored.push(node);
                report.is_doubtful |= doubtful;
            }
            Event::Refused { node, code, .. } => report.refused.push((node, code)),
            Event::Item { item: found, .. } if found.seq() > item.seq() => {
                if let Item::Mutable(newer) = *found {
                    report.newer = Some(newer);
                }
            }
            Event::Done { .. } => return Ok(report),
            _ => {}
        }
    }
    Err(Error::Stopped)
}

/// What a lookup for an item told.
pub(super) struct Read {
    /// The newest version; of several with its number, the first one.
    pub(super) newest: Option<Item>,
    /// Another value of that number.
    tie: Option<Item>,
    pub(super) outcome: Outcome,
}

impl Read {
    /// The version that another writer has stored beside or after `item`, if one was met.
    pub(super) fn other_than(&self, item: &MutableItem) -> Option<MutableItem> {
        let is_other =
            |found: &&MutableItem| found.seq > item.seq || found.seq == item.seq && found.value != item.value;
        let mutable = |found: &Item| match found {
            Item::Mutable(found) => Some(found).filter(is_other).cloned(),
            Item::Immutable { .. } => None,
        };
        self.newest.iter().chain(&self.tie).find_map(mutable)
    }
}

/// Reads a lookup for an item to its end.
pub(super) async fn read(mut lookup: Lookup) -> Result<Read, Error> {
    let (mut newest, mut tie): (Option<Item>, _) = (None, None);
    while let Some(event) = lookup.next().await {
        match event {
            Event::Item { item, .. } if newest.as_ref().is_some_and(|newest| newest.seq() == item.seq()) => {
                tie = Some(*item);
            }
            Event::Item { item, .. } => (newest, tie) = (Some(*item), None),
            Event::Done { outcome, .. } => return Ok(Read { newest, tie, outcome }),
            _ => {}
        }
    }
    Err(Error::Stopped)
}

/// The newest item that a lookup tells, and how the lookup ended.
pub(super) async fn newest(lookup: Lookup) -> Result<(Option<Item>, Outcome), Error> {
    let Read { newest, outcome, .. } = read(lookup).await?;
    Ok((newest, outcome))
}

#[cfg(test)]
mod tests;
