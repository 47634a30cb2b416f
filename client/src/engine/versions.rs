//! [`Versions`]: a mutable torrent (BEP 46). Its magnet link names a key and a salt; which torrent that
//! is just now stands in the DHT, signed, with a number that grows.

use btdht::item::MutableItem;
use btdht::mutable_torrent::infohash_in;
use btdht::net::{Dht, StandingOrder};
use krpc::Id;
use krpc::magnet::Magnet;

/// The versions of a mutable torrent, each newer than the one before, as the DHT node finds them: the
/// newest at first, later ones within an hour or so. As long as it is there the newest is put again every
/// hour, as BEP 46 asks of whoever consumes it. Dropping it ends both.
#[derive(Debug)]
pub struct Versions {
    magnet: Magnet,
    items: StandingOrder<MutableItem>,
}

/// One version. Its signature was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The number that grows.
    pub seq: i64,
    /// The torrent.
    pub infohash: Id,
    /// The link that it was named by, with this infohash in it: a [`Source`](super::Source) to add.
    pub magnet: Magnet,
    /// As it was signed.
    item: MutableItem,
}

/// A mutable torrent cannot be followed, or something else is published in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// The magnet link names no key (`xs=urn:btpk`).
    #[error("the magnet link names no key (xs=urn:btpk)")]
    NoKey,
    /// The session has no DHT node.
    #[error("what a key stands for is found through the DHT, which is not used")]
    NoDht,
    /// The DHT node has stopped.
    #[error("the DHT node has stopped")]
    Stopped,
    /// The value of this number holds no infohash; whoever has the key published something else.
    #[error("what is published under the key (number {seq}) is no torrent")]
    NoTorrent {
        /// Its number.
        seq: i64,
    },
}

impl Versions {
    /// Starts to look for what `magnet` stands for, beyond the number `seq` if there is one.
    pub(super) async fn of(
        magnet: &Magnet,
        seq: Option<i64>,
        dht: Option<&Dht>,
    ) -> Result<Self, VersionError> {
        let key = magnet.mutable.as_ref().ok_or(VersionError::NoKey)?;
        let dht = dht.ok_or(VersionError::NoDht)?;
        let items = dht.follow_and_keep(key.public_key, &key.salt, seq).await;
        let items = items.map_err(|_| VersionError::Stopped)?;
        Ok(Self { magnet: magnet.clone(), items })
    }

    /// The next version, or what is there in its place. Cancel safe.
    ///
    /// # Errors
    /// [`VersionError::NoTorrent`], after which a later version may still come;
    /// [`VersionError::Stopped`].
    pub async fn next(&mut self) -> Result<Version, VersionError> {
        let item = self.items.next().await.ok_or(VersionError::Stopped)?;
        Version::of(&self.magnet, item)
    }
}

impl Version {
    /// What an item is whose signature was checked, found under the key that `magnet` names.
    pub(super) fn of(magnet: &Magnet, item: MutableItem) -> Result<Self, VersionError> {
        let infohash = infohash_in(&item.value).ok_or(VersionError::NoTorrent { seq: item.seq })?;
        // An infohash that the link names beside the key is that of an older version.
        let magnet = Magnet { infohash_v1: Some(infohash), infohash_v2: None, ..magnet.clone() };
        Ok(Self { seq: item.seq, infohash, magnet, item })
    }

    /// As it was signed.
    pub(super) fn item(&self) -> &MutableItem {
        &self.item
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use btdht::item::SecretKey;
    use btdht::mutable_torrent::value_of;
    use btdht::net::Options;
    use futures_util::FutureExt as _;

    use super::*;

    fn item(seq: i64, value: &[u8]) -> MutableItem {
        MutableItem::sign(&SecretKey::from_seed(&[1; 32]), b"", seq, value).unwrap()
    }

    #[test]
    fn a_version_keeps_what_the_link_says_but_for_an_older_infohash() {
        let key = "ab".repeat(32);
        let link =
            format!("magnet:?xt=urn:btih:{}&xs=urn:btpk:{key}&dn=name&x.pe=192.0.2.1:5", "11".repeat(20));
        let magnet = Magnet::parse(&link).unwrap();
        let newer = Id::new([2; 20]);
        let version = Version::of(&magnet, item(7, &value_of(&newer))).unwrap();
        assert_eq!((version.seq, version.infohash), (7, newer));
        assert_eq!(version.magnet.infohash_v1, Some(newer));
        assert_eq!((version.magnet.name, version.magnet.peers), (magnet.name, magnet.peers));
    }

    #[test]
    fn what_is_no_torrent_is_told_with_its_number() {
        let magnet = Magnet::default();
        let refused = Version::of(&magnet, item(3, b"12:Hello World!"));
        assert_eq!(refused, Err(VersionError::NoTorrent { seq: 3 }));
    }

    #[tokio::test]
    async fn a_link_without_a_key_and_a_session_without_a_node_are_refused() {
        let plain = Magnet::new(Id::new([1; 20]));
        assert_eq!(Versions::of(&plain, None, None).await.unwrap_err(), VersionError::NoKey);
        let key = Magnet::parse(&format!("magnet:?xs=urn:btpk:{}", "ab".repeat(32))).unwrap();
        assert_eq!(Versions::of(&key, None, None).await.unwrap_err(), VersionError::NoDht);
    }

    #[tokio::test]
    async fn after_a_version_that_is_known_no_older_one_is_told_and_not_that_one_again() {
        let node = |router: Option<&Dht>| {
            let routers: Vec<_> = router.into_iter().flat_map(Dht::local_addrs).collect();
            let mut options = Options::loopback(routers);
            options.config.follow_every = Duration::from_millis(1);
            options.config.renew_retry_min = Duration::from_millis(1);
            Dht::bind(options).unwrap()
        };
        let store = node(None);
        let publisher = node(Some(&store));
        let secret = SecretKey::from_seed(&[1; 32]);
        let key = data_encoding::HEXLOWER.encode(&secret.public());
        let magnet = Magnet::parse(&format!("magnet:?xs=urn:btpk:{key}")).unwrap();
        let publish = async |seq| {
            let item = item(seq, &value_of(&Id::new([seq as u8; 20])));
            assert!(!publisher.put_mutable(item, None).await.unwrap().stored.is_empty());
        };
        for (seq, known) in [(4, 5), (5, 5)] {
            publish(seq).await;
            let follower = node(Some(&store));
            let mut versions = Versions::of(&magnet, Some(known), Some(&follower)).await.unwrap();
            let eight = async {
                while follower.stats().await.unwrap().counters.lookups_done < 8 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), eight).await.expect("long before the guard");
            assert_eq!(versions.next().now_or_never(), None, "{seq}");
        }
        let follower = node(Some(&store));
        let mut versions = Versions::of(&magnet, Some(5), Some(&follower)).await.unwrap();
        publish(6).await;
        let next = tokio::time::timeout(Duration::from_secs(60), versions.next()).await;
        assert_eq!(next.expect("long before the guard").unwrap().seq, 6);
    }
}
