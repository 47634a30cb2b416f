//! URLs of trackers: their schemes, and where a URL that a stranger wrote may lead.

use std::net::{IpAddr, SocketAddr};

use super::TrackerError;

/// The protocols that we speak with trackers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP or HTTPS (BEP 3).
    Http,
    /// UDP (BEP 15).
    Udp,
}

/// Longest URL that is used.
pub const MAX_URL: usize = 2048;

/// The scheme of a tracker's URL.
///
/// # Errors
/// [`TrackerError::UnsupportedScheme`] for every other scheme, for URLs longer than [`MAX_URL`] and
/// for such with white space or control bytes, which could end up in a header.
pub fn scheme(url: &str) -> Result<Scheme, TrackerError> {
    let (name, rest) = url.split_once("://").ok_or(TrackerError::UnsupportedScheme)?;
    let clean = url.len() <= MAX_URL && !url.bytes().any(|byte| byte <= b' ' || byte == 0x7f);
    if !clean || rest.is_empty() {
        return Err(TrackerError::UnsupportedScheme);
    }
    match name.to_ascii_lowercase().as_str() {
        "http" | "https" => Ok(Scheme::Http),
        "udp" => Ok(Scheme::Udp),
        _ => Err(TrackerError::UnsupportedScheme),
    }
}

/// Whether an announce or request may go to this address; asked about the very address that is
/// contacted, after DNS. `free` says that local ones are fine: the user named the URL, or allows them
/// to everybody. A torrent or magnet must not make us send requests into the user's own network.
pub fn may_contact(ip: IpAddr, free: bool) -> bool {
    // The port is not what is asked here, but 0 would be refused.
    btdht::addr::acceptable(SocketAddr::new(ip, 1), free)
}

/// The parts of a `udp` URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpUrl<'a> {
    /// Name or address; IPv6 addresses without their brackets.
    pub host: &'a str,
    /// UDP port.
    pub port: u16,
    /// Path and query, sent as BEP 41 says; may be empty.
    pub path: &'a str,
}

impl<'a> UdpUrl<'a> {
    /// Reads `udp://host:port[/path][?query]`.
    ///
    /// # Errors
    /// [`TrackerError::UnsupportedScheme`] when it is something else or lacks a port (BEP 15 knows no
    /// default one).
    pub fn parse(url: &'a str) -> Result<Self, TrackerError> {
        if scheme(url)? != Scheme::Udp {
            return Err(TrackerError::UnsupportedScheme);
        }
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let rest = rest.split('#').next().unwrap_or("");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = authority.rsplit_once(':').ok_or(TrackerError::UnsupportedScheme)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        match port.parse() {
            Ok(port) if port != 0 && !host.is_empty() && (bracketed.is_some() || !host.contains(':')) => {
                Ok(Self { host, port, path })
            }
            _ => Err(TrackerError::UnsupportedScheme),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_schemes_are_spoken() {
        for (url, expected) in [
            ("http://tracker.example/announce", Some(Scheme::Http)),
            ("HTTPS://tracker.example:443/announce?x=1", Some(Scheme::Http)),
            ("udp://tracker.example:80", Some(Scheme::Udp)),
            ("wss://tracker.example", None),
            ("file:///etc/passwd", None),
            ("gopher://127.0.0.1:6379/_x", None),
            ("http://", None),
            ("tracker.example", None),
            ("http://a/\r\nHost: b", None),
            ("http://a b", None),
            ("", None),
        ] {
            assert_eq!(scheme(url).ok(), expected, "{url}");
        }
        assert!(scheme(&format!("http://{}", "a".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn strangers_urls_lead_to_public_addresses_only() {
        for (ip, stranger, local) in [
            ("8.8.8.8", true, true),
            ("127.0.0.1", false, true),
            ("169.254.169.254", false, true),
            ("192.168.1.1", false, true),
            ("::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("fe80::1", false, true),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(may_contact(ip, false), stranger, "{ip}");
            assert_eq!(may_contact(ip, true), local, "{ip} free");
        }
    }

    #[test]
    fn udp_urls_are_taken_apart() {
        let parse = |url| UdpUrl::parse(url).ok().map(|url| (url.host, url.port, url.path));
        assert_eq!(parse("udp://a.example:6969/announce?k=1#x"), Some(("a.example", 6969, "/announce?k=1")));
        assert_eq!(parse("udp://a.example:80"), Some(("a.example", 80, "")));
        assert_eq!(parse("udp://[2001:db8::1]:80?x"), Some(("2001:db8::1", 80, "?x")));
        for bad in [
            "udp://a.example",
            "udp://a:0",
            "udp://:80",
            "udp://a:65536",
            "udp://2001:db8::1:80",
            "http://a:80",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
