//! BEP 46: torrents that are updated through the DHT. A mutable item (BEP 44) holds the infohash of the
//! newest torrent; a magnet link names the key and the salt instead of an infohash.

use krpc::Id;
use krpc::bencode::{Limits, Value};

/// The value that publishes `infohash` under a key: a dictionary with the one key `ih`.
///
/// ```
/// let infohash = krpc::Id::new(*b"abcdefghij0123456789");
/// let value = btdht::mutable_torrent::value_of(&infohash);
/// assert_eq!(value, b"d2:ih20:abcdefghij0123456789e");
/// assert_eq!(btdht::mutable_torrent::infohash_in(&value), Some(infohash));
/// ```
pub fn value_of(infohash: &Id) -> Vec<u8> {
    [&b"d2:ih20:"[..], infohash.as_bytes(), b"e"].concat()
}

/// The infohash that a value publishes; `None` when it publishes none. Other keys are ignored: the BEP
/// leaves room for them.
pub fn infohash_in(value: &[u8]) -> Option<Id> {
    let value = Value::parse(value, Limits::KRPC).ok()?;
    Id::from_slice(value.get("ih")?.as_bytes()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_canonical_and_read_back() {
        let infohash = Id::new(*b"abcdefghij0123456789");
        let value = value_of(&infohash);
        assert_eq!(crate::item::check_value(&value), Ok(()));
        assert_eq!(infohash_in(&value), Some(infohash));
        assert_eq!(infohash_in(b"d2:ih20:abcdefghij01234567894:more5:thinge"), Some(infohash));
    }

    /// BEP 46, "Test Vectors", from the link to the target.
    #[test]
    fn links_of_the_bep_lead_to_its_targets() {
        let key = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e";
        for (salt, target) in [
            ("", "cc3f9d90b572172053626f9980ce261a850d050b"),
            ("&s=6e", "59ee7c2cb9b4f7eb1986ee2d18fd2fdb8a56554f"),
        ] {
            let link = format!("magnet:?xs=urn:btpk:{key}{salt}");
            let named = krpc::magnet::Magnet::parse(&link).unwrap().mutable.unwrap();
            let reached = crate::item::mutable_target(&named.public_key, &named.salt);
            assert_eq!(reached.to_string(), target, "{link}");
        }
    }

    #[test]
    fn what_publishes_no_torrent_has_no_infohash() {
        for value in [
            &b""[..],
            b"12:Hello World!",
            b"de",
            b"d2:ih19:abcdefghij012345678e",
            b"d2:ih32:abcdefghij0123456789abcdefghij01e",
            b"d2:ihi5ee",
            b"d2:IH20:abcdefghij0123456789e",
            b"l2:ih20:abcdefghij0123456789e",
            b"d2:ih20:abcd",
        ] {
            assert_eq!(infohash_in(value), None, "{}", value.escape_ascii());
        }
    }
}
