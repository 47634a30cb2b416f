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
    /// A version that was met on the way and is newer than the one that was put, or another one than
    /// [`Dht::update_over`] expected.
    pub newer: Option<MutableItem>,
}

impl PutReport {
    /// Whether another version is stored than the writer thought: one was met ([`PutReport::newer`]), or no
    /// fewer nodes say so (error 301 or 302) than took this one. A few may have missed a version, or lie.
    pub fn is_conflict(&self) -> bool {
        let disagreeing = self.disagreeing();
        self.newer.is_some() || disagreeing > 0 && disagreeing >= self.stored.len()
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
    /// sequence number so far. Anybody may do so for any item, for instance to keep it alive.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn put_mutable(&self, item: MutableItem, cas: Option<i64>) -> Result<PutReport, Error> {
        self.put(Item::Mutable(item), cas).await
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
        Ok((seq, self.put_next(item, current).await?))
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
        Ok((seq, self.put_next(item, Some(expected)).await?))
    }

    /// Stores `item`, which follows on version `current`. Where nodes refuse it for what they have, that is read:
    /// one that missed a version has an older one, one with several addresses has this one already, and a liar
    /// has none. If nobody else wrote, those get it without a condition.
    async fn put_next(&self, item: MutableItem, current: Option<i64>) -> Result<PutReport, Error> {
        let mut report = self.put_mutable(item.clone(), current).await?;
        if report.newer.is_some() || report.disagreeing() == 0 {
            return Ok(report);
        }
        match self.get_mutable(item.key, &item.salt, None).await? {
            Some(found) if found.seq > item.seq || found.seq == item.seq && found.value != item.value => {
                report.newer = Some(found);
            }
            _ => {
                let again = self.put_mutable(item, None).await?;
                report.stored.retain(|node| !again.stored.contains(node));
                report.stored.extend(again.stored);
                (report.refused, report.newer) = (again.refused, again.newer);
            }
        }
        Ok(report)
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
            Event::Stored { node, .. } => report.stored.push(node),
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

/// The last item that a lookup tells, which is the newest, and how the lookup ended.
pub(super) async fn newest(mut lookup: Lookup) -> Result<(Option<Item>, Outcome), Error> {
    let mut newest = None;
    while let Some(event) = lookup.next().await {
        match event {
            Event::Item { item, .. } => newest = Some(*item),
            Event::Done { outcome, .. } => return Ok((newest, outcome)),
            _ => {}
        }
    }
    Err(Error::Stopped)
}

#[cfg(test)]
mod tests;
