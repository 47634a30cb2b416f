//! Items of BEP 44: small values that the DHT keeps. An *immutable* one lives under the hash of its
//! value; a *mutable* one under that of a public key and a salt, signed, with a sequence number.
//!
//! Hashes and signatures are over the bencoded value byte by byte as it came. A value has to be in
//! canonical form ("unsorted `v` 203", DECISIONS.md 9), so that whoever re-encodes it finds the same.

use std::fmt;

use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, SigningKey, Verifier as _, VerifyingKey};
use krpc::bencode::{Limits, Reader};
use krpc::{Id, Response, Signed};
use sha1::{Digest as _, Sha1};
use sha2::Sha512;

/// Longest bencoded value, in bytes (BEP 44).
pub const MAX_VALUE: usize = 1000;

/// Longest salt, in bytes (BEP 44).
pub const MAX_SALT: usize = 64;

/// A public key.
pub type PublicKey = [u8; 32];

/// A value as it is stored, with its signature if it is a mutable one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Stored under [`immutable_target`] of the value.
    Immutable {
        /// The bencoded value.
        value: Vec<u8>,
    },
    /// Stored under [`mutable_target`] of key and salt.
    Mutable(MutableItem),
}

/// A signed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutableItem {
    /// Who signed it.
    pub key: PublicKey,
    /// Which of the key's items it is; empty for the only one.
    pub salt: Vec<u8>,
    /// Grows with every version; never negative.
    pub seq: i64,
    /// The bencoded value.
    pub value: Vec<u8>,
    /// Over [`signed_bytes`].
    pub signature: [u8; 64],
}

/// Why something is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidItem {
    /// The value is longer than [`MAX_VALUE`].
    ValueTooBig,
    /// The salt is longer than [`MAX_SALT`].
    SaltTooBig,
    /// The value is not one bencoded value in canonical form.
    NotCanonical,
    /// The sequence number is negative.
    NegativeSequence,
    /// The version before has the last number there is, so that no other can follow it; the writer's
    /// doing, or that of somebody who has the key.
    LastSequence,
    /// The signature is not one of this key's for this salt, number and value.
    BadSignature,
}

impl Item {
    /// Where the item is stored.
    pub fn target(&self) -> Id {
        match self {
            Self::Immutable { value } => immutable_target(value),
            Self::Mutable(item) => mutable_target(&item.key, &item.salt),
        }
    }

    /// The bencoded value.
    pub fn value(&self) -> &[u8] {
        match self {
            Self::Immutable { value } => value,
            Self::Mutable(item) => &item.value,
        }
    }

    /// The sequence number of a mutable item.
    pub fn seq(&self) -> Option<i64> {
        match self {
            Self::Immutable { .. } => None,
            Self::Mutable(item) => Some(item.seq),
        }
    }

    /// Checks everything about it: value, bounds and, of a mutable item, the signature.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), InvalidItem> {
        check_value(self.value())?;
        match self {
            Self::Immutable { .. } => Ok(()),
            Self::Mutable(item) => check_signed(&item.as_signed(None), &item.value),
        }
    }

    /// The item in a reply to `get`, if there is one and it is what was asked for: its value hashes to
    /// `target`, or its key and `salt` do and the signature is right. `Err` when there is one and it
    /// is not: whoever sent it lies.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_response(
        target: &Id,
        salt: &[u8],
        response: &Response<'_>,
    ) -> Result<Option<Self>, InvalidItem> {
        let Some(value) = response.value else { return Ok(None) };
        check_value(value)?;
        if immutable_target(value) == *target {
            return Ok(Some(Self::Immutable { value: value.into() }));
        }
        let (Some(key), Some(signature), Some(seq)) = (response.key, response.signature, response.seq) else {
            return Err(InvalidItem::BadSignature);
        };
        let (Ok(key), Ok(signature)) = (key.try_into(), signature.try_into()) else {
            return Err(InvalidItem::BadSignature);
        };
        let item = MutableItem { key, salt: salt.into(), seq, value: value.into(), signature };
        if mutable_target(&key, salt) != *target {
            return Err(InvalidItem::BadSignature);
        }
        check_signed(&item.as_signed(None), value)?;
        Ok(Some(Self::Mutable(item)))
    }
}

impl MutableItem {
    /// Signs `value`.
    ///
    /// # Errors
    /// When value, salt or number are none of an item.
    pub fn sign(secret: &SecretKey, salt: &[u8], seq: i64, value: &[u8]) -> Result<Self, InvalidItem> {
        check_value(value)?;
        check_bounds(salt, seq)?;
        let signature = secret.sign(&signed_bytes(salt, seq, value));
        Ok(Self { key: secret.public(), salt: salt.into(), seq, value: value.into(), signature })
    }

    /// As an argument of `put`.
    pub fn as_signed(&self, cas: Option<i64>) -> Signed<'_> {
        Signed { key: &self.key, signature: &self.signature, seq: self.seq, salt: &self.salt, cas }
    }
}

/// Where an immutable item with this bencoded value is stored.
pub fn immutable_target(value: &[u8]) -> Id {
    Id::new(Sha1::digest(value).into())
}

/// Where the item of this key and salt is stored.
pub fn mutable_target(key: &PublicKey, salt: &[u8]) -> Id {
    Id::new(Sha1::new().chain_update(key).chain_update(salt).finalize().into())
}

/// Checks that `value` is one bencoded value in canonical form, within [`MAX_VALUE`].
///
/// # Errors
/// [`InvalidItem::ValueTooBig`], [`InvalidItem::NotCanonical`].
pub fn check_value(value: &[u8]) -> Result<(), InvalidItem> {
    if value.len() > MAX_VALUE {
        return Err(InvalidItem::ValueTooBig);
    }
    let mut reader = Reader::strict(value, Limits::KRPC);
    let whole = reader.skip().and_then(|_| reader.finish());
    whole.map_err(|_| InvalidItem::NotCanonical)
}

/// Checks salt, number and signature of a put or of a reply, whose value [`check_value`] found good.
/// Verifying costs some 50 µs.
///
/// # Errors
/// All but those of [`check_value`].
pub fn check_signed(signed: &Signed<'_>, value: &[u8]) -> Result<(), InvalidItem> {
    check_bounds(signed.salt, signed.seq)?;
    let bytes = signed_bytes(signed.salt, signed.seq, value);
    let valid = VerifyingKey::from_bytes(signed.key)
        .is_ok_and(|key| key.verify(&bytes, &Signature::from_bytes(signed.signature)).is_ok());
    if valid { Ok(()) } else { Err(InvalidItem::BadSignature) }
}

/// Checks what costs nothing to check of a mutable item.
///
/// # Errors
/// [`InvalidItem::SaltTooBig`], [`InvalidItem::NegativeSequence`].
pub fn check_bounds(salt: &[u8], seq: i64) -> Result<(), InvalidItem> {
    if salt.len() > MAX_SALT {
        Err(InvalidItem::SaltTooBig)
    } else if seq < 0 {
        Err(InvalidItem::NegativeSequence)
    } else {
        Ok(())
    }
}

/// The sequence number of the version after `current`, or of the first one.
///
/// # Errors
/// [`InvalidItem::LastSequence`].
pub fn next_seq(current: Option<i64>) -> Result<i64, InvalidItem> {
    current.unwrap_or(0).checked_add(1).ok_or(InvalidItem::LastSequence)
}

/// The bytes that are signed (BEP 44, "Signature Verification"); an empty salt is none.
pub fn signed_bytes(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + salt.len() + 48);
    if !salt.is_empty() {
        bytes.extend_from_slice(format!("4:salt{}:", salt.len()).as_bytes());
        bytes.extend_from_slice(salt);
    }
    bytes.extend_from_slice(format!("3:seqi{seq}e1:v").as_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// A private key: the 32-byte seed that most libraries keep, or the 64 bytes that it expands to, as
/// libtorrent and BEP 44's vectors have it.
#[derive(Clone)]
pub struct SecretKey {
    bytes: Vec<u8>,
    public: PublicKey,
}

impl SecretKey {
    /// A key from its seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let public = SigningKey::from_bytes(seed).verifying_key().to_bytes();
        Self { bytes: seed.into(), public }
    }

    /// A key from 32 bytes of seed or 64 of expanded secret; `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if let Ok(seed) = bytes.try_into() {
            return Some(Self::from_seed(seed));
        }
        let expanded: &[u8; 64] = bytes.try_into().ok()?;
        let public = VerifyingKey::from(&ExpandedSecretKey::from_bytes(expanded)).to_bytes();
        Some(Self { bytes: bytes.into(), public })
    }

    /// What it was made of: 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let expanded = match self.bytes.as_slice().try_into() {
            Ok(expanded) => ExpandedSecretKey::from_bytes(expanded),
            Err(_) => ExpandedSecretKey::from_bytes(&Sha512::digest(&self.bytes).into()),
        };
        raw_sign::<Sha512>(&expanded, message, &VerifyingKey::from(&expanded)).to_bytes()
    }
}

/// Shows the public key alone.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:02x?})", self.public)
    }
}

impl fmt::Display for InvalidItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ValueTooBig => "the bencoded value is longer than 1000 bytes",
            Self::SaltTooBig => "the salt is longer than 64 bytes",
            Self::NotCanonical => "the value is not one bencoded value in canonical form",
            Self::NegativeSequence => "the sequence number is negative",
            Self::LastSequence => "what is stored has the last sequence number: nothing can replace it",
            Self::BadSignature => "the signature does not fit",
        })
    }
}

impl std::error::Error for InvalidItem {}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// BEP 44, "Test Vectors", as printed there.
    const VALUE: &[u8] = b"12:Hello World!";
    const PUBLIC: &str = "77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548";
    const PRIVATE: &str = "e06d3183d14159228433ed599221b80bd0a5ce8352e4bdf0262f76786ef1c74d\
                           b7e7a9fea2c0eb269d61e3b38e450a22e754941ac78479d6c54e1faf6037881d";
    const VECTORS: [(&[u8], &str, &str, &str); 2] = [
        (
            b"",
            "3:seqi1e1:v12:Hello World!",
            "4a533d47ec9c7d95b1ad75f576cffc641853b750",
            "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
             1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
        ),
        (
            b"foobar",
            "4:salt6:foobar3:seqi1e1:v12:Hello World!",
            "411eba73b6f087ca51a3795d9c8c938d365e32c1",
            "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d\
             df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08",
        ),
    ];

    fn secret() -> SecretKey {
        SecretKey::from_bytes(&HEXLOWER.decode(PRIVATE.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn vectors_1_and_2_of_the_bep_are_signed_and_verified() {
        assert_eq!(HEXLOWER.encode(&secret().public()), PUBLIC);
        for (salt, buffer, target, signature) in VECTORS {
            assert_eq!(signed_bytes(salt, 1, VALUE), buffer.as_bytes());
            let item = MutableItem::sign(&secret(), salt, 1, VALUE).unwrap();
            assert_eq!(HEXLOWER.encode(&item.signature), signature);
            assert_eq!(mutable_target(&item.key, salt), Id::from_hex(target).unwrap());
            assert_eq!(check_signed(&item.as_signed(None), VALUE), Ok(()));
        }
    }

    #[test]
    fn vector_3_of_the_bep_lives_under_the_hash_of_its_value() {
        let target = Id::from_hex("e5f96f6f38320f0f33959cb4d3d656452117aadb").unwrap();
        assert_eq!(immutable_target(VALUE), target);
        assert_eq!(Item::Immutable { value: VALUE.into() }.target(), target);
    }

    #[test]
    fn a_seed_and_what_it_expands_to_are_the_same_key() {
        let seed = [7; 32];
        let expanded: [u8; 64] = Sha512::digest(seed).into();
        let (a, b) = (SecretKey::from_seed(&seed), SecretKey::from_bytes(&expanded).unwrap());
        assert_eq!(a.public(), b.public());
        let sign = |secret| MutableItem::sign(secret, b"s", 3, b"i1e").unwrap();
        assert_eq!(sign(&a), sign(&b));
        assert!(SecretKey::from_bytes(&[1; 33]).is_none());
        assert!(!format!("{a:?}").contains("07, 07, 07"), "the secret is not shown");
    }

    #[test]
    fn every_changed_part_breaks_the_signature() {
        let item = MutableItem::sign(&secret(), b"salt", 5, b"3:abc").unwrap();
        let check = |change: &dyn Fn(&mut MutableItem)| {
            let mut item = item.clone();
            change(&mut item);
            check_signed(&item.as_signed(None), &item.value)
        };
        assert_eq!(check(&|_| {}), Ok(()));
        assert_eq!(check(&|item| item.seq = 6), Err(InvalidItem::BadSignature));
        assert_eq!(check(&|item| item.salt[0] ^= 1), Err(InvalidItem::BadSignature));
        assert_eq!(check(&|item| item.salt.clear()), Err(InvalidItem::BadSignature));
        assert_eq!(check(&|item| item.value[2] ^= 1), Err(InvalidItem::BadSignature));
        assert_eq!(check(&|item| item.key[0] ^= 1), Err(InvalidItem::BadSignature));
        for bit in 0..512 {
            let flip = |item: &mut MutableItem| item.signature[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&flip), Err(InvalidItem::BadSignature), "bit {bit}");
        }
        assert_eq!(check(&|item| item.seq = -5), Err(InvalidItem::NegativeSequence));
        assert_eq!(check(&|item| item.salt = vec![0; 65]), Err(InvalidItem::SaltTooBig));
    }

    #[test]
    fn values_are_canonical_and_at_most_1000_bytes() {
        let long = |len: usize| [format!("{len}:").as_bytes(), &vec![b'x'; len]].concat();
        for good in [&b"i1e"[..], b"0:", b"le", b"de", b"d1:ai1e1:bi2ee", &long(996)] {
            assert_eq!(check_value(good), Ok(()), "{}", good.escape_ascii());
        }
        assert_eq!(long(996).len(), MAX_VALUE);
        assert_eq!(check_value(&long(997)), Err(InvalidItem::ValueTooBig));
        for bad in
            [&b""[..], b"i01e", b"i-0e", b"d1:bi1e1:ai2ee", b"d1:ai1e1:ai2ee", b"i1ei2e", b"3:ab", b"l", b"e"]
        {
            assert_eq!(check_value(bad), Err(InvalidItem::NotCanonical), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn replies_are_believed_if_they_hash_to_the_target() {
        let item = MutableItem::sign(&secret(), b"salt", 5, b"3:abc").unwrap();
        let target = mutable_target(&item.key, b"salt");
        let whole = Response {
            value: Some(&item.value),
            key: Some(&item.key),
            signature: Some(&item.signature),
            seq: Some(5),
            ..Response::new(Id::ZERO)
        };
        let read = |response| Item::from_response(&target, b"salt", &response);
        assert_eq!(read(whole), Ok(Some(Item::Mutable(item.clone()))));
        assert_eq!(read(Response { value: None, ..whole }), Ok(None));
        assert_eq!(read(Response { seq: Some(6), ..whole }), Err(InvalidItem::BadSignature));
        assert_eq!(read(Response { key: Some(&[1; 32]), ..whole }), Err(InvalidItem::BadSignature));
        assert_eq!(read(Response { signature: None, ..whole }), Err(InvalidItem::BadSignature));
        assert!(Item::from_response(&target, b"", &whole).is_err(), "another salt is another item");
        let plain = Response { value: Some(VALUE), ..Response::new(Id::ZERO) };
        let found = Item::from_response(&immutable_target(VALUE), b"", &plain);
        assert_eq!(found, Ok(Some(Item::Immutable { value: VALUE.into() })));
        assert!(Item::from_response(&target, b"", &plain).is_err());
    }
}
