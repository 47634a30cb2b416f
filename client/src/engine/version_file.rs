//! [`VersionFile`]: the newest version of a mutable torrent (BEP 46) that was met, kept in the download
//! folder between two runs, so that a later one does not begin with an older version and write that over
//! what is there.
//!
//! It holds the item as its publisher signed it (BEP 44). So the signature is the checksum, and whoever
//! puts a file there, a torrent that has one of this name perhaps, can at most show an older version that
//! was published, as every node of the DHT can.

use std::fs;
use std::path::{Path, PathBuf};

use btdht::item::{Item, MAX_VALUE, MutableItem, mutable_target};
use krpc::bencode::{self, Limits, Writer};
use krpc::magnet::Magnet;
use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::versions::{Version, VersionError};
use crate::storage::{DiskError, read_file, replace_file};

/// Of the document; another one is not read.
const VERSION: i64 = 1;
/// Four numbers and strings, of which only the value can be long.
const LIMITS: Limits = Limits { depth: 2, tokens: 16, len: MAX_VALUE + 256 };

/// The hidden file `.<target>.btfetch.version` of one key and salt in one folder; the target is what the
/// DHT knows them by.
#[derive(Clone, Debug)]
pub struct VersionFile {
    path: PathBuf,
    magnet: Magnet,
}

impl VersionFile {
    /// The file of the key that `magnet` names in `dir`; touches nothing.
    ///
    /// # Errors
    /// [`VersionError::NoKey`].
    pub fn new(dir: &Path, magnet: &Magnet) -> Result<Self, VersionError> {
        let key = magnet.mutable.as_ref().ok_or(VersionError::NoKey)?;
        let target = mutable_target(&key.public_key, &key.salt);
        Ok(Self { path: dir.join(format!(".{target}.btfetch.version")), magnet: magnet.clone() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; `None` if there is none. Blocks.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn load(&self) -> Result<Option<Version>, String> {
        match read_file(&self.path) {
            Ok(Some(bytes)) => self.parse(&bytes).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reads the bytes of such a file.
    ///
    /// # Errors
    /// Why they are not believed.
    pub fn parse(&self, bytes: &[u8]) -> Result<Version, String> {
        let document: Document = bencode::from_bytes(bytes, LIMITS).map_err(|error| error.to_string())?;
        if document.version != VERSION {
            return Err(format!("version {} is not known", document.version));
        }
        let key = self.magnet.mutable.as_ref().ok_or_else(|| VersionError::NoKey.to_string())?;
        let signature = document.signature[..].try_into().map_err(|_| "the signature is none")?;
        let item = MutableItem {
            key: key.public_key,
            salt: key.salt.clone(),
            seq: document.seq,
            value: document.value.into_vec(),
            signature,
        };
        Item::Mutable(item.clone()).check().map_err(|error| error.to_string())?;
        Version::of(&self.magnet, item).map_err(|error| error.to_string())
    }

    /// Replaces it: whatever happens meanwhile, either the old or the new one is found. Makes the folder.
    /// Blocks. Nobody asks here whether `version` is newer than what it holds.
    ///
    /// # Errors
    /// What the disk refused.
    pub fn save(&self, version: &Version) -> Result<(), DiskError> {
        let made = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        let saved = made.and_then(|()| replace_file(&self.path, &encode(version.item())));
        saved.map_err(|error| DiskError::new("saving", &self.path, &error))
    }
}

/// The file as it is read.
#[derive(Deserialize)]
struct Document {
    seq: i64,
    signature: ByteBuf,
    value: ByteBuf,
    version: i64,
}

fn encode(item: &MutableItem) -> Vec<u8> {
    let mut out = Vec::with_capacity(LIMITS.len);
    let mut writer = Writer::new(&mut out);
    writer.dict().key(b"seq").int(item.seq).key(b"signature").bytes(&item.signature);
    writer.key(b"value").bytes(&item.value).key(b"version").int(VERSION).end();
    out
}

#[cfg(test)]
mod tests {
    use btdht::item::SecretKey;
    use btdht::mutable_torrent::value_of;
    use data_encoding::HEXLOWER;
    use krpc::Id;

    use super::*;

    fn magnet(secret: &SecretKey, salt: &str) -> Magnet {
        let key = HEXLOWER.encode(&secret.public());
        Magnet::parse(&format!("magnet:?xs=urn:btpk:{key}&s={salt}&dn=name")).unwrap()
    }

    fn version(secret: &SecretKey, seq: i64) -> Version {
        let item = MutableItem::sign(secret, b"n", seq, &value_of(&Id::new([9; 20]))).unwrap();
        Version::of(&magnet(secret, "6e"), item).unwrap()
    }

    #[test]
    fn what_is_saved_is_loaded_for_the_same_key_and_salt_alone() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("not/there/yet");
        let secret = SecretKey::from_seed(&[1; 32]);
        let file = VersionFile::new(&dir, &magnet(&secret, "6e")).unwrap();
        assert_eq!(file.load(), Ok(None));
        for seq in [3, i64::MAX] {
            file.save(&version(&secret, seq)).unwrap();
            assert_eq!(file.load(), Ok(Some(version(&secret, seq))));
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        for other in [magnet(&secret, "6f"), magnet(&SecretKey::from_seed(&[2; 32]), "6e")] {
            let other = VersionFile::new(&dir, &other).unwrap();
            assert_eq!(other.load(), Ok(None));
            fs::copy(file.path(), other.path()).unwrap();
            assert!(other.load().is_err());
        }
        assert_eq!(VersionFile::new(&dir, &Magnet::default()).unwrap_err(), VersionError::NoKey);
    }

    #[test]
    fn what_the_publisher_did_not_sign_is_not_believed() {
        let secret = SecretKey::from_seed(&[1; 32]);
        let file = VersionFile::new(Path::new("."), &magnet(&secret, "6e")).unwrap();
        let bytes = encode(version(&secret, 3).item());
        assert_eq!(file.parse(&bytes), Ok(version(&secret, 3)));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(file.parse(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(file.parse(&bytes[..len]).is_err(), "{len}");
        }
        let unsigned = MutableItem { seq: i64::MAX, ..version(&secret, 3).item().clone() };
        assert!(file.parse(&encode(&unsigned)).is_err());
        // Signed, but no torrent.
        let other = MutableItem::sign(&secret, b"n", 4, b"5:hello").unwrap();
        assert!(file.parse(&encode(&other)).unwrap_err().contains("(number 4) is no torrent"));
    }

    #[test]
    fn the_longest_value_fits_and_strange_files_are_errors() {
        let home = tempfile::tempdir().unwrap();
        let secret = SecretKey::from_seed(&[1; 32]);
        let file = VersionFile::new(home.path(), &magnet(&secret, "6e")).unwrap();
        let infohash = "i".repeat(20);
        let value = format!("d2:ih20:{infohash}1:x{}:{}e", MAX_VALUE - 36, "x".repeat(MAX_VALUE - 36));
        assert_eq!(value.len(), MAX_VALUE);
        let item = MutableItem::sign(&secret, b"n", i64::MAX, value.as_bytes()).unwrap();
        let longest = Version::of(&magnet(&secret, "6e"), item).unwrap();
        file.save(&longest).unwrap();
        assert_eq!(file.load(), Ok(Some(longest.clone())));
        fs::write(file.path(), [b'l'; 100_000]).unwrap();
        assert!(file.load().is_err());
        fs::remove_file(file.path()).unwrap();
        fs::create_dir(file.path()).unwrap();
        assert!(file.load().unwrap_err().contains("no regular file"));
        assert!(file.save(&longest).is_err());
    }
}
