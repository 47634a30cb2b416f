//! Magnet URIs (BEP 9, "magnet URI format"; BEP 52 for `urn:btmh`, BEP 53 for `so`, BEP 46 for
//! `urn:btpk`), in and out. Nothing here resolves, contacts or fetches anything: whether a tracker
//! or peer may be contacted is policy, and the URLs of `xs`, `as` and `ws` are not even kept.

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::Id;

/// What a magnet link says. At least one of `infohash_v1`, `infohash_v2` and `mutable` is present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Magnet {
    /// SHA-1 infohash (`xt=urn:btih`).
    pub infohash_v1: Option<Id>,
    /// SHA-256 infohash (`xt=urn:btmh`, BEP 52).
    pub infohash_v2: Option<[u8; 32]>,
    /// Display name (`dn`); a stranger's text, to be escaped before it is shown.
    pub name: Option<String>,
    /// Tracker URLs (`tr`) of any scheme, each once, the first [`Magnet::MAX_TRACKERS`].
    pub trackers: Vec<String>,
    /// Peers to ask directly (`x.pe`), each once, the first [`Magnet::MAX_PEERS`].
    pub peers: Vec<HostPort>,
    /// The files to download (`so`, BEP 53); `None` means all.
    pub select_only: Option<Selection>,
    /// The key of a mutable torrent (`xs=urn:btpk`, BEP 46): the infohash of its newest version is to be
    /// found under it in the DHT.
    pub mutable: Option<MutableKey>,
}

/// A host name or IP address with a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A host name, an IPv4 address or an IPv6 address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// File indices from 0 (BEP 53): at most [`Selection::MAX_RANGES`] ranges, sorted, not touching one
/// another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(Vec<RangeInclusive<u32>>);

/// Where the infohash of a mutable torrent is published (BEP 46).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutableKey {
    /// The ed25519 public key.
    pub public_key: [u8; 32],
    /// The salt (`s`), at most 64 bytes.
    pub salt: Vec<u8>,
}

/// What is wrong with a magnet link, in words for who pasted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MagnetError {
    /// Longer than [`Magnet::MAX_LEN`].
    TooLong,
    /// Does not begin with `magnet:?`.
    NotMagnet,
    /// Has no `xt` (and no `xs=urn:btpk`).
    NoInfohash,
    /// Has `xt`, but for other networks only.
    OtherNetwork,
    /// A `btih` that is neither 40 hexadecimal nor 32 base32 digits.
    BadInfohash,
    /// A `btmh` that is not `1220` and 64 hexadecimal digits.
    BadInfohashV2,
    /// Two different infohashes of one kind.
    Contradiction,
    /// An `x.pe` that is not `host:port`.
    BadPeer,
    /// An `so` that is not a list of numbers and ranges, or goes beyond [`Selection::MAX_INDEX`].
    BadSelection,
    /// More than [`Selection::MAX_RANGES`] ranges in `so`.
    TooManyRanges,
    /// An `xs=urn:btpk` that is not 64 hexadecimal digits, or a salt that is not at most 128.
    BadMutableKey,
}

impl Magnet {
    /// Bytes of a magnet link.
    pub const MAX_LEN: usize = 64 << 10;
    /// Trackers that are kept.
    pub const MAX_TRACKERS: usize = 100;
    /// Peers that are kept.
    pub const MAX_PEERS: usize = 100;

    /// A magnet that holds nothing but an infohash.
    pub fn new(infohash: Id) -> Self {
        Self { infohash_v1: Some(infohash), ..Self::default() }
    }

    /// Reads a magnet link. Tolerated: white space around it, upper case in scheme, names and
    /// digits, numbered parameters (`tr.1`), `&amp;` between them, unknown and empty ones, and
    /// trackers that are no URLs (left out).
    pub fn parse(text: &str) -> Result<Self, MagnetError> {
        if text.len() > Self::MAX_LEN {
            return Err(MagnetError::TooLong);
        }
        let text = text.trim();
        let query = match text.get(..SCHEME.len()) {
            Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => &text[SCHEME.len()..],
            _ => return Err(MagnetError::NotMagnet),
        };
        let mut magnet = Self::default();
        let mut salt = "";
        let mut foreign = false;
        for (key, value) in parameters(query) {
            match key {
                "xt" => foreign |= !magnet.add_topic(value)?,
                "dn" => magnet.set_name(value),
                "tr" => magnet.add_tracker(value),
                "x.pe" => magnet.add_peer(value)?,
                "so" => magnet.select(value)?,
                "xs" => magnet.set_mutable(value)?,
                "s" => salt = value,
                _ => {}
            }
        }
        if let Some(key) = &mut magnet.mutable {
            key.salt = parse_salt(salt)?;
        }
        match (magnet.infohash_v1, magnet.infohash_v2, &magnet.mutable) {
            (None, None, None) if foreign => Err(MagnetError::OtherNetwork),
            (None, None, None) => Err(MagnetError::NoInfohash),
            _ => Ok(magnet),
        }
    }

    /// Takes an exact topic; `false` if it names another network.
    fn add_topic(&mut self, value: &str) -> Result<bool, MagnetError> {
        let urn = decode(value).ok_or(MagnetError::BadInfohash)?;
        if let Some(digits) = strip_prefix(&urn, "urn:btih:") {
            let id: Id = digits.parse().map_err(|_| MagnetError::BadInfohash)?;
            return set_once(&mut self.infohash_v1, id).map(|()| true);
        }
        if let Some(digits) = strip_prefix(&urn, "urn:btmh:") {
            // Multihash: 0x12 is SHA-256, 0x20 its length (BEP 52).
            let digits = strip_prefix(digits, "1220").ok_or(MagnetError::BadInfohashV2)?;
            let hash = hex32(digits).ok_or(MagnetError::BadInfohashV2)?;
            return set_once(&mut self.infohash_v2, hash).map(|()| true);
        }
        Ok(false)
    }

    /// The first name counts. `+` is a space here, as forms encode it.
    fn set_name(&mut self, value: &str) {
        if self.name.is_none() && !value.is_empty() {
            let spaced = value.replace('+', " ");
            self.name = Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned());
        }
    }

    fn add_tracker(&mut self, value: &str) {
        let Some(url) = decode(value) else { return };
        let is_url = url.split_once("://").is_some_and(|(scheme, rest)| {
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !rest.is_empty()
        });
        let is_clean = !url.contains(|c: char| c.is_whitespace() || c.is_control());
        if is_url && is_clean && self.trackers.len() < Self::MAX_TRACKERS && !self.trackers.contains(&url) {
            self.trackers.push(url);
        }
    }

    fn add_peer(&mut self, value: &str) -> Result<(), MagnetError> {
        if value.is_empty() {
            return Ok(());
        }
        let peer = decode(value).and_then(|text| text.parse().ok()).ok_or(MagnetError::BadPeer)?;
        if self.peers.len() < Self::MAX_PEERS && !self.peers.contains(&peer) {
            self.peers.push(peer);
        }
        Ok(())
    }

    /// Several `so` add up.
    fn select(&mut self, value: &str) -> Result<(), MagnetError> {
        let mut text = decode(value).ok_or(MagnetError::BadSelection)?;
        if let Some(earlier) = &self.select_only {
            write!(text, ",{earlier}").expect("writing to a string");
        }
        self.select_only = Some(text.parse()?);
        Ok(())
    }

    /// Other sources (`xs` with a URL) are neither kept nor ever fetched.
    fn set_mutable(&mut self, value: &str) -> Result<(), MagnetError> {
        let Some(urn) = decode(value) else { return Ok(()) };
        let Some(digits) = strip_prefix(&urn, "urn:btpk:") else { return Ok(()) };
        let public_key = hex32(digits).ok_or(MagnetError::BadMutableKey)?;
        set_once(&mut self.mutable, MutableKey { public_key, salt: Vec::new() })
    }
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        Self::parse(text)
    }
}

/// A link that [`Magnet::parse`] reads back as an equal magnet.
impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "magnet:?";
        let mut parameter = |f: &mut fmt::Formatter<'_>, key: &str, value: fmt::Arguments<'_>| {
            write!(f, "{separator}{key}={value}")?;
            separator = "&";
            Ok(())
        };
        if let Some(id) = &self.infohash_v1 {
            parameter(f, "xt", format_args!("urn:btih:{id}"))?;
        }
        if let Some(hash) = &self.infohash_v2 {
            parameter(f, "xt", format_args!("urn:btmh:1220{}", HEXLOWER.encode(hash)))?;
        }
        if let Some(key) = &self.mutable {
            parameter(f, "xs", format_args!("urn:btpk:{}", HEXLOWER.encode(&key.public_key)))?;
            if !key.salt.is_empty() {
                parameter(f, "s", format_args!("{}", HEXLOWER.encode(&key.salt)))?;
            }
        }
        if let Some(name) = &self.name {
            parameter(f, "dn", format_args!("{}", encode(name)))?;
        }
        for tracker in &self.trackers {
            parameter(f, "tr", format_args!("{}", encode(tracker)))?;
        }
        for peer in &self.peers {
            parameter(f, "x.pe", format_args!("{peer}"))?;
        }
        if let Some(selection) = &self.select_only {
            parameter(f, "so", format_args!("{selection}"))?;
        }
        Ok(())
    }
}

/// `host:port`, `ipv4:port` or `[ipv6]:port` (BEP 9).
impl FromStr for HostPort {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        let (host, port) = text.rsplit_once(':').ok_or(MagnetError::BadPeer)?;
        let port_is_plain = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|&port: &u16| port != 0 && port_is_plain);
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inside = rest.strip_suffix(']').ok_or(MagnetError::BadPeer)?;
                let ip: Ipv6Addr = inside.parse().map_err(|_| MagnetError::BadPeer)?;
                ip.to_string()
            }
            None if is_host(host) => host.to_owned(),
            None => return Err(MagnetError::BadPeer),
        };
        Ok(Self { host, port: port.ok_or(MagnetError::BadPeer)? })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Selection {
    /// The greatest index that is accepted; no torrent within our limits has so many files.
    pub const MAX_INDEX: u32 = (1 << 24) - 1;
    /// Ranges in one magnet.
    pub const MAX_RANGES: usize = 1000;

    /// Whether file `index` is selected.
    pub fn contains(&self, index: u32) -> bool {
        let after = self.0.partition_point(|range| *range.start() <= index);
        self.0.get(..after).and_then(<[_]>::last).is_some_and(|range| range.contains(&index))
    }

    /// The ranges, in ascending order.
    pub fn ranges(&self) -> &[RangeInclusive<u32>] {
        &self.0
    }
}

/// `0,2,4-6`, as in BEP 53; in any order, overlapping or not.
impl FromStr for Selection {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            if ranges.len() == Self::MAX_RANGES {
                return Err(MagnetError::TooManyRanges);
            }
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (parse_index(first)?, parse_index(last)?);
            if first > last {
                return Err(MagnetError::BadSelection);
            }
            ranges.push(first..=last);
        }
        ranges.sort_unstable_by_key(|range| (*range.start(), *range.end()));
        ranges.dedup_by(|next, kept| {
            let touches = *next.start() <= kept.end() + 1; // at most 2^24
            if touches {
                *kept = *kept.start()..=*kept.end().max(next.end());
            }
            touches
        });
        Ok(Self(ranges))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            match range.start() == range.end() {
                true => write!(f, "{}", range.start())?,
                false => write!(f, "{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for MagnetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the magnet link is longer than 64 KiB",
            Self::NotMagnet => "not a magnet link: it does not begin with \"magnet:?\"",
            Self::NoInfohash => "the magnet link has no infohash (xt=urn:btih:...)",
            Self::OtherNetwork => "the magnet link is for another network: no xt=urn:btih or xt=urn:btmh",
            Self::BadInfohash => "the infohash (xt=urn:btih) is neither 40 hexadecimal nor 32 base32 digits",
            Self::BadInfohashV2 => "the v2 infohash (xt=urn:btmh) is not 1220 and 64 hexadecimal digits",
            Self::Contradiction => "the magnet link has two different infohashes (or keys) of the same kind",
            Self::BadPeer => "a peer address (x.pe) is not host:port",
            Self::BadSelection => "the file selection (so) is not a list of numbers and ranges like 0,2,4-6",
            Self::TooManyRanges => "the file selection (so) has more than 1000 ranges",
            Self::BadMutableKey => {
                "the key (xs=urn:btpk) is not 64 hexadecimal digits or the salt (s) not at most 128"
            }
        })
    }
}

impl std::error::Error for MagnetError {}

/// The parameters with lower-case keys; values still encoded. Known keys only.
fn parameters(query: &str) -> impl Iterator<Item = (&'static str, &str)> {
    query.split('&').filter_map(|parameter| {
        // Links copied out of HTML separate with `&amp;`.
        let parameter = parameter.strip_prefix("amp;").unwrap_or(parameter);
        let (key, value) = parameter.split_once('=')?;
        let plain = match key.rsplit_once('.') {
            Some((plain, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => plain,
            _ => key,
        };
        let known = KEYS.into_iter().find(|known| plain.eq_ignore_ascii_case(known))?;
        Some((known, value))
    })
}

/// Percent-decodes; `None` unless the outcome is UTF-8.
fn decode(value: &str) -> Option<String> {
    percent_decode_str(value).decode_utf8().ok().map(Into::into)
}

fn encode(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, ESCAPED)
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Saying the same thing twice is no contradiction.
fn set_once<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<(), MagnetError> {
    match slot {
        Some(earlier) if *earlier != value => Err(MagnetError::Contradiction),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn hex32(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(digits.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}

fn parse_salt(value: &str) -> Result<Vec<u8>, MagnetError> {
    let salt = HEXLOWER_PERMISSIVE.decode(value.as_bytes()).map_err(|_| MagnetError::BadMutableKey)?;
    if salt.len() > 64 {
        return Err(MagnetError::BadMutableKey);
    }
    Ok(salt)
}

fn parse_index(digits: &str) -> Result<u32, MagnetError> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MagnetError::BadSelection);
    }
    let index = digits.parse().map_err(|_| MagnetError::BadSelection)?;
    if index > Selection::MAX_INDEX { Err(MagnetError::BadSelection) } else { Ok(index) }
}

/// Host names as the DNS knows them, underscores included; an IPv4 address looks like one too.
fn is_host(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.split('.').all(|label| (1..=63).contains(&label.len()))
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

const SCHEME: &str = "magnet:?";
const KEYS: [&str; 7] = ["xt", "dn", "tr", "x.pe", "so", "xs", "s"];
/// All but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests;
