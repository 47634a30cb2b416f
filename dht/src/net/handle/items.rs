//! Items of BEP 44 through the handle.

use krpc::Id;

use super::reading::newest;
use super::{Dht, PutReport};
use crate::Command;
use crate::item::{Item, MutableItem, PublicKey, SecretKey};
use crate::net::Error;

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
        let mut writing = self.writing();
        writing.put_immutable(value).await?;
        Ok(writing.into_report())
    }

    /// Stores a signed item with the closest nodes (BEP 44); with `cas` only where that is the
    /// sequence number so far. Anybody may do so for any item, for instance to keep it alive. What nodes have that
    /// refuse it for a version of theirs, or that may have another value of its number, is read
    /// ([`PutReport::newer`]), and where `cas` is the number before the item's, those that missed a
    /// version get this one.
    ///
    /// # Errors
    /// [`Error::Item`] when it is no item, [`Error::Stopped`].
    pub async fn put_mutable(&self, item: MutableItem, cas: Option<i64>) -> Result<PutReport, Error> {
        let mut writing = self.writing();
        writing.put_mutable(item, cas).await?;
        Ok(writing.into_report())
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
        let mut writing = self.writing();
        let seq = writing.update(secret, salt, value).await?;
        Ok((seq, writing.into_report()))
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
        let mut writing = self.writing();
        let seq = writing.update_over(secret, salt, value, expected).await?;
        Ok((seq, writing.into_report()))
    }

    async fn newest(&self, command: Command) -> Result<Option<Item>, Error> {
        Ok(newest(self.start(command).await?).await?.0)
    }
}
