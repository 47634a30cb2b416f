//! Announces over HTTP: the URL to get and the body that comes back (BEP 3, 7, 23, 24, 31). The
//! transfer itself, redirects and the size of the body are the shell's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use krpc::DecodeError;
use krpc::bencode::{Kind, Limits, Reader};
use krpc::compact::{self, Address, V4, V6};

use super::url::{self, Scheme};
use super::{
    Announce, AnnounceEvent, AnnounceReply, DEFAULT_INTERVAL, MAX_INTERVAL, MAX_PEERS, MAX_TRACKER_ID, Retry,
    TrackerError, UNKNOWN_LEFT, clamp_interval, printable,
};
use crate::wire::extension::ip;

/// The URL that announces: `base` with our parameters behind what it has already (passkeys).
///
/// # Errors
/// [`TrackerError::UnsupportedScheme`] unless `base` is an `http` or `https` URL.
pub fn announce_url(base: &str, announce: &Announce) -> Result<String, TrackerError> {
    if url::scheme(base)? != Scheme::Http {
        return Err(TrackerError::UnsupportedScheme);
    }
    let base = base.split('#').next().unwrap_or(base);
    let mut url = String::with_capacity(base.len() + 300);
    url.push_str(base);
    url.push(if base.contains('?') { '&' } else { '?' });
    let Announce { port, uploaded, downloaded, key, num_want, .. } = announce;
    let left = announce.left.unwrap_or(UNKNOWN_LEFT);
    url.push_str("info_hash=");
    percent_encode(announce.infohash.as_bytes(), &mut url);
    url.push_str("&peer_id=");
    percent_encode(&announce.peer_id, &mut url);
    // BEP 23: compact=1. The key lets a tracker know us after our address has changed (BEP 7).
    url.push_str(&format!(
        "&port={port}&uploaded={uploaded}&downloaded={downloaded}&left={left}&compact=1&numwant={num_want}&key={key:08x}"
    ));
    url.push_str(match announce.event {
        None => "",
        Some(AnnounceEvent::Started) => "&event=started",
        Some(AnnounceEvent::Completed) => "&event=completed",
        Some(AnnounceEvent::Stopped) => "&event=stopped",
        Some(AnnounceEvent::Paused) => "&event=paused",
    });
    if let Some(id) = &announce.tracker_id {
        url.push_str("&trackerid=");
        percent_encode(id, &mut url);
    }
    Ok(url)
}

/// Reads the body of an answer.
///
/// # Errors
/// [`TrackerError::Refused`] if it gives a failure reason, [`TrackerError::Malformed`] if it is no
/// bencoded dictionary within [`Limits::TRACKER`] or its peers are no whole records.
pub fn parse_reply(body: &[u8]) -> Result<AnnounceReply, TrackerError> {
    let fields = Fields::read(body).map_err(|_| TrackerError::Malformed)?;
    if let Some(reason) = fields.failure {
        return Err(TrackerError::Refused { reason: printable(reason), retry: fields.retry });
    }
    let whole = fields.peers.len().is_multiple_of(V4::LEN) && fields.peers6.len().is_multiple_of(V6::LEN);
    if !whole {
        return Err(TrackerError::Malformed);
    }
    let v4 = compact::peers::<V4>(fields.peers).map(Address::to_socket);
    let v6 = compact::peers::<V6>(fields.peers6).map(Address::to_socket);
    // Both families get their share of the places.
    let v6_share = MAX_PEERS.saturating_sub(fields.listed.len() + v4.len()).max(MAX_PEERS / 2);
    let peers = v6.take(v6_share).chain(fields.listed).chain(v4).filter(|peer| peer.port() != 0);
    Ok(AnnounceReply {
        interval: fields.interval.map_or(DEFAULT_INTERVAL, clamp_interval),
        min_interval: fields.min_interval.map(clamp_interval),
        peers: peers.take(MAX_PEERS).collect(),
        seeds: fields.complete.and_then(|count| u32::try_from(count).ok()),
        leechers: fields.incomplete.and_then(|count| u32::try_from(count).ok()),
        external_ip: fields.external_ip,
        warning: fields.warning.map(printable),
        tracker_id: fields.tracker_id.map(<[u8]>::to_vec),
    })
}

/// What an answer holds, before it is judged.
#[derive(Default)]
struct Fields<'a> {
    failure: Option<&'a [u8]>,
    retry: Option<Retry>,
    warning: Option<&'a [u8]>,
    interval: Option<i64>,
    min_interval: Option<i64>,
    complete: Option<i64>,
    incomplete: Option<i64>,
    tracker_id: Option<&'a [u8]>,
    external_ip: Option<IpAddr>,
    peers: &'a [u8],
    peers6: &'a [u8],
    /// Peers of the form before BEP 23: a list of dictionaries; at most [`MAX_PEERS`].
    listed: Vec<SocketAddr>,
}

impl<'a> Fields<'a> {
    fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, Limits::TRACKER);
        let mut fields = Self::default();
        reader.expect_dict()?;
        while let Some(key) = reader.key()? {
            match key {
                b"failure reason" => fields.failure = reader.bytes_or_skip()?,
                b"retry in" => fields.retry = read_retry(&mut reader)?,
                b"warning message" => fields.warning = reader.bytes_or_skip()?,
                b"interval" => fields.interval = reader.int_or_skip()?,
                b"min interval" => fields.min_interval = reader.int_or_skip()?,
                b"complete" => fields.complete = reader.int_or_skip()?,
                b"incomplete" => fields.incomplete = reader.int_or_skip()?,
                b"tracker id" => {
                    fields.tracker_id = reader.bytes_or_skip()?.filter(|id| id.len() <= MAX_TRACKER_ID);
                }
                b"external ip" => fields.external_ip = reader.bytes_or_skip()?.and_then(ip),
                b"peers" if reader.peek() == Some(Kind::List) => fields.listed = read_listed(&mut reader)?,
                b"peers" => fields.peers = reader.bytes_or_skip()?.unwrap_or_default(),
                b"peers6" => fields.peers6 = reader.bytes_or_skip()?.unwrap_or_default(),
                _ => drop(reader.skip()?),
            }
        }
        reader.finish()?;
        Ok(fields)
    }
}

/// BEP 31: minutes, or `never`. Minutes as a string are understood, too.
fn read_retry(reader: &mut Reader<'_>) -> Result<Option<Retry>, DecodeError> {
    let minutes = match reader.peek() {
        Some(Kind::Bytes) => match reader.bytes()? {
            b"never" => return Ok(Some(Retry::Never)),
            digits => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok()),
        },
        _ => reader.int_or_skip()?.and_then(|minutes| u64::try_from(minutes).ok()),
    };
    let wait = |minutes: u64| Retry::In(Duration::from_secs(minutes.saturating_mul(60)).min(MAX_INTERVAL));
    Ok(minutes.map(wait))
}

/// Peers as dictionaries (BEP 3). Names instead of addresses are left out: nobody resolves what
/// strangers write.
fn read_listed(reader: &mut Reader<'_>) -> Result<Vec<SocketAddr>, DecodeError> {
    let mut peers = Vec::new();
    reader.expect_list()?;
    while reader.item()? {
        if reader.peek() != Some(Kind::Dict) {
            reader.skip()?;
            continue;
        }
        let (mut address, mut port) = (None, None);
        reader.expect_dict()?;
        while let Some(key) = reader.key()? {
            match key {
                b"ip" => address = reader.bytes_or_skip()?.and_then(|text| std::str::from_utf8(text).ok()),
                b"port" => port = reader.int_or_skip()?.and_then(|port| u16::try_from(port).ok()),
                _ => drop(reader.skip()?),
            }
        }
        let address: Option<IpAddr> = address.and_then(|text| text.parse().ok());
        if let (Some(ip), Some(port), true) = (address, port, peers.len() < MAX_PEERS) {
            peers.push(SocketAddr::new(ip, port));
        }
    }
    Ok(peers)
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
fn percent_encode(bytes: &[u8], out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krpc::Id;

    fn announce() -> Announce {
        Announce {
            infohash: Id::new(
                *b"\x12\x34\x56\x78\x9a\xbc\xde\xf1\x23\x45\x67\x89\xab\xcd\xef\x12\x34\x56\x78\x9a",
            ),
            peer_id: *b"-bd0100-a~b c/d&e=f%",
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: Some(3),
            event: Some(AnnounceEvent::Started),
            num_want: 50,
            key: 0xbeef,
            tracker_id: None,
        }
    }

    #[test]
    fn an_announce_is_written_as_bep_3_says() {
        assert_eq!(
            announce_url("http://t.example:80/announce", &announce()).unwrap(),
            "http://t.example:80/announce?info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A\
             &peer_id=-bd0100-a~b%20c%2Fd%26e%3Df%25&port=6881&uploaded=1&downloaded=2&left=3&compact=1\
             &numwant=50&key=0000beef&event=started"
        );
    }

    #[test]
    fn what_the_url_has_already_is_kept() {
        let mut announce = announce();
        announce.event = None;
        announce.left = None;
        announce.tracker_id = Some(b"a b".to_vec());
        let url = announce_url("https://t.example/a?passkey=1#top", &announce).unwrap();
        assert!(url.starts_with("https://t.example/a?passkey=1&info_hash=%12"), "{url}");
        assert!(url.contains("&left=16384&"), "{url}");
        assert!(url.ends_with("&key=0000beef&trackerid=a%20b"), "{url}");
        assert_eq!(announce_url("udp://t.example:80", &announce), Err(TrackerError::UnsupportedScheme));
    }

    #[test]
    fn a_compact_reply_is_read() {
        let body = b"d8:completei5e11:external ip4:\x01\x02\x03\x0410:incompletei7e8:intervali900e12:min intervali120e\
            5:peers12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x00\x006:peers618:\
            \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe110:tracker id3:xyz15:warning message2:\x1bbe";
        let reply = parse_reply(body).unwrap();
        assert_eq!(reply.peers, ["[2001:db8::1]:6881".parse().unwrap(), "1.2.3.4:6881".parse().unwrap()]);
        assert_eq!((reply.seeds, reply.leechers), (Some(5), Some(7)));
        assert_eq!(reply.interval, Duration::from_secs(900));
        assert_eq!(reply.min_interval, Some(Duration::from_secs(120)));
        assert_eq!(reply.external_ip, "1.2.3.4".parse().ok());
        assert_eq!(reply.warning.as_deref(), Some("\\x1bb"));
        assert_eq!(reply.tracker_id.as_deref(), Some(&b"xyz"[..]));
    }

    #[test]
    fn a_list_of_dictionaries_is_read() {
        let body = b"d5:peersld2:ip7:1.2.3.47:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti6881eed2:ip11:2001:db8::14:porti1ee\
            d2:ip9:localhost4:porti1eed2:ip7:1.2.3.44:porti65536eed2:ip7:1.2.3.44:porti0eei5eee";
        let reply = parse_reply(body).unwrap();
        assert_eq!(reply.peers, ["1.2.3.4:6881".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()]);
        assert_eq!(reply.interval, DEFAULT_INTERVAL);
    }

    #[test]
    fn failures_say_when_to_come_back() {
        for (body, retry) in [
            (&b"d14:failure reason3:no!e"[..], None),
            (b"d14:failure reason3:no!8:retry in5:nevere", Some(Retry::Never)),
            (b"d14:failure reason3:no!8:retry ini5ee", Some(Retry::In(Duration::from_secs(300)))),
            (b"d14:failure reason3:no!8:retry in1:5e", Some(Retry::In(Duration::from_secs(300)))),
            (b"d14:failure reason3:no!8:retry ini-5ee", None),
            (b"d14:failure reason3:no!8:retry ini9223372036854775807ee", Some(Retry::In(MAX_INTERVAL))),
        ] {
            let error = parse_reply(body).unwrap_err();
            assert_eq!(error, TrackerError::Refused { reason: "no!".into(), retry });
            assert_eq!(error.retry(), retry);
        }
    }

    #[test]
    fn hostile_intervals_are_clamped() {
        for (said, kept) in [("-1", 60), ("0", 60), ("9223372036854775807", 86_400)] {
            let body = format!("d8:intervali{said}e12:min intervali{said}ee");
            let reply = parse_reply(body.as_bytes()).unwrap();
            assert_eq!(reply.interval, Duration::from_secs(kept));
            assert_eq!(reply.min_interval, Some(Duration::from_secs(kept)));
        }
    }

    #[test]
    fn broken_replies_are_refused() {
        let deep = [b"d1:a".repeat(20), b"de".to_vec(), b"e".repeat(20)].concat();
        for body in [
            &b""[..],
            b"<html>",
            b"le",
            b"d5:peers5:abcdee",
            b"d6:peers67:abcdefge",
            b"d5:peers0:eX",
            b"d5:peers99999:abe",
            &deep,
            &[b'l'; 100_000],
            &vec![b'd'; (1 << 20) + 1],
        ] {
            assert_eq!(parse_reply(body), Err(TrackerError::Malformed));
        }
    }

    #[test]
    fn at_most_200_peers_are_kept() {
        let many = |count: usize, len: usize| vec![1; count * len];
        let mut body = b"d5:peers30000:".to_vec();
        body.extend(many(5000, 6));
        body.extend(b"6:peers618000:");
        body.extend(many(1000, 18));
        body.push(b'e');
        let reply = parse_reply(&body).unwrap();
        assert_eq!(reply.peers.len(), MAX_PEERS);
        assert_eq!(reply.peers.iter().filter(|peer| peer.is_ipv6()).count(), MAX_PEERS / 2);
        let listed =
            [b"d5:peersl".to_vec(), b"d2:ip7:1.2.3.44:porti1ee".repeat(3000), b"ee".to_vec()].concat();
        assert_eq!(parse_reply(&listed).unwrap().peers.len(), MAX_PEERS);
    }
}
