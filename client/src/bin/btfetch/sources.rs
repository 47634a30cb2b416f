//! What a download can be named by: a magnet, a `.torrent` file, its URL, or an infohash.

use std::path::{Path, PathBuf};

use btfetch::metainfo::Metainfo;
use krpc::Id;
use krpc::magnet::Magnet;

use crate::failure::Failure;
use crate::text::{escape, escape_path};
use crate::verbs::did_you_mean;

/// A source as the user named it, checked as far as it can be without the network.
#[derive(Debug)]
pub(crate) enum Named {
    /// A magnet link, or an infohash alone.
    Magnet(Box<Magnet>),
    /// A `.torrent` file on disk.
    File(PathBuf),
    /// A `.torrent` file on the web.
    Url(String),
}

impl Named {
    /// Tells the kinds apart.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if scheme(text, "magnet:") {
            let magnet = Magnet::parse(text)
                .map_err(|error| Failure::usage(format!("invalid magnet link: {error}")))?;
            return Ok(Self::Magnet(Box::new(magnet)));
        }
        if scheme(text, "http:") || scheme(text, "https:") {
            return match url::Url::parse(text) {
                Ok(url) if url.has_host() => Ok(Self::Url(text.to_owned())),
                _ => Err(Failure::usage(format!("`{}` is not a valid URL", escape(text)))),
            };
        }
        if let Ok(infohash) = text.parse::<Id>() {
            return Ok(Self::Magnet(Box::new(Magnet::new(infohash))));
        }
        let path = Path::new(text);
        if path.is_file() {
            return Ok(Self::File(path.to_owned()));
        }
        Err(not_a_source(text, path))
    }
}

/// Reads and checks a `.torrent` file.
pub(crate) fn read_torrent(path: &Path) -> Result<Metainfo, Failure> {
    let bytes = read_limited(path)?;
    parse_torrent(&bytes, &path.display().to_string())
}

/// Checks the bytes of a `.torrent` file that came from `origin`.
pub(crate) fn parse_torrent(bytes: &[u8], origin: &str) -> Result<Metainfo, Failure> {
    Metainfo::parse(bytes)
        .map_err(|error| Failure::usage(format!("{}: not a valid .torrent: {error}", escape(origin))))
}

/// Longest `.torrent` that is read; the decoder has the same limit.
pub(crate) const MAX_TORRENT: usize = krpc::bencode::Limits::METAINFO.len;

fn read_limited(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_TORRENT as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::usage(format!("reading {}: {error}", escape_path(path))))?;
    if bytes.len() > MAX_TORRENT {
        return Err(Failure::usage(format!("{}: longer than 64 MiB", escape_path(path))));
    }
    Ok(bytes)
}

fn scheme(text: &str, scheme: &str) -> bool {
    text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

fn not_a_source(text: &str, path: &Path) -> Failure {
    let shown = escape(text);
    if path.is_dir() {
        return Failure::usage(format!("`{shown}` is a folder")).hint("a .torrent of it: btfetch create");
    }
    let looks_like_hash =
        matches!(text.len(), 32 | 38..=42 | 64) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if looks_like_hash {
        let message = format!("`{shown}` is not an infohash: expected 40 hexadecimal or 32 base32 digits");
        return Failure::usage(message);
    }
    if text.contains(['/', '.']) {
        return Failure::usage(format!("`{shown}`: no such file")).hint("see btfetch --help");
    }
    let failure =
        Failure::usage(format!("`{shown}` is neither a verb nor a magnet, .torrent, URL or infohash"));
    match did_you_mean(text) {
        Some(verb) => failure.hint(format!("did you mean `{verb}`?")),
        None => failure.hint("see btfetch --help"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn every_kind_of_source_is_recognised() {
        let hex = "6162636465666768696a30313233343536373839";
        let magnet = format!("MAGNET:?xt=urn:btih:{hex}");
        assert!(matches!(Named::parse(hex), Ok(Named::Magnet(_))));
        assert!(matches!(Named::parse(&magnet), Ok(Named::Magnet(_))));
        assert!(matches!(Named::parse("HTTPS://example.org/a.torrent"), Ok(Named::Url(_))));
        assert!(matches!(Named::parse(file!().rsplit_once("client/").unwrap().1), Ok(Named::File(_))));
    }

    #[test]
    fn what_is_no_source_is_a_usage_error_with_a_suggestion() {
        let failure = Named::parse("inof").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("did you mean `info`"), "{failure}");
        for wrong in [
            "http://",
            "https://[::1",
            "magnet:?xt=urn:btih:xyz",
            "./missing.torrent",
            "616263646566",
            "",
            "\x1b[2J",
        ] {
            let failure = Named::parse(wrong).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wrong}");
            assert!(!failure.to_string().contains('\x1b'));
        }
        let digits = Named::parse("6162636465666768696a3031323334353637383").unwrap_err();
        assert!(digits.to_string().contains("not an infohash"), "{digits}");
    }
}
