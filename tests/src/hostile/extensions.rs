//! Misbehaviour in extension messages (BEP 10, BEP 9) towards a client that has the info dictionary.

use std::io;

use super::honest::send_handshake;
use super::link::{EXTENSION_BIT, Link, OUR_UT_METADATA, extended};
use super::mode::modes;

modes! {
    /// Extension messages, for a client that has the info dictionary.
    Extensions {
        /// An extension handshake of 100,000 nested lists.
        DeepLists,
        /// An extension handshake of 25,000 nested dictionaries.
        DeepDictionaries,
        /// An extension handshake of 1 MiB.
        HugeHandshake,
        /// An extension handshake of 60,000 empty strings.
        ManyTokens,
        /// An extension handshake that is not bencoded.
        NoBencode,
        /// An extension handshake whose values have other types.
        WrongTypes,
        /// Ids of extension messages out of range, and twice the same.
        WrongIds,
        /// A client name of 60,000 control characters.
        LongName,
        /// 20,000 extension handshakes.
        HandshakeFlood,
        /// Extension messages of ids that the client never gave.
        UnknownIds,
        /// 20,000 requests for the info dictionary, answers unread for as long as possible.
        MetadataRequestFlood,
        /// Requests for pieces of the info dictionary that it lacks.
        MetadataRequestOutOfRange,
        /// Pieces of the info dictionary that nobody asked for.
        UnaskedMetadata,
        /// 20,000 refusals of requests for the info dictionary that nobody made.
        RejectFlood,
        /// Messages of `ut_metadata` that are not bencoded.
        MetadataGarbage,
        /// Peer exchange (BEP 11) that nobody agreed on, 1,000 addresses each.
        UnaskedPex,
    }
}

impl Extensions {
    pub(super) fn misbehave(self, mut link: Link) -> io::Result<()> {
        link.greet(EXTENSION_BIT)?;
        link.offer_all()?;
        match self {
            Self::DeepLists => say(link, &nested(b"l", b"e", 100_000)),
            Self::DeepDictionaries => say(link, &nested(b"d1:x", b"e", 25_000)),
            Self::HugeHandshake => {
                let padding = vec![b'x'; 1 << 20];
                say(link, &[b"d1:v1048576:", &padding[..], b"e"].concat())
            }
            Self::ManyTokens => say(link, &[b"d1:xl", &b"0:".repeat(60_000)[..], b"ee"].concat()),
            Self::NoBencode => say(link, b"GET / HTTP/1.1\r\n\r\n"),
            Self::WrongTypes => {
                say(link, b"d1:mli1ei2ee13:metadata_sizele1:pd1:ai1ee4:reqq3:abc1:vi7e6:yourip3:abce")
            }
            Self::WrongIds => say(
                link,
                b"d1:md11:ut_metadatai-1e6:ut_pexi256e9:upload_to99:abci4eee13:metadata_sizei-5e4:reqqi-1ee",
            ),
            Self::LongName => {
                let name = b"\x1b[2J\x07".repeat(12_000);
                say(link, &[b"d1:v60000:", &name[..], b"e"].concat())
            }
            Self::HandshakeFlood => {
                let size = link.torrent.info.len() as u32;
                link.flood(20_000, |n, out| {
                    let text = format!("d1:md11:ut_metadatai{}ee13:metadata_sizei{}ee", n % 256, size + n);
                    out.extend(extended(0, text.as_bytes()));
                })
            }
            Self::UnknownIds => link.flood(20_000, |n, out| {
                out.extend(extended((n % 200) as u8 + 56, b"d8:msg_typei0e5:piecei0ee"));
            }),
            Self::MetadataRequestFlood => {
                let id = agree(&mut link)?;
                link.pour(20_000, |_, out| out.extend(extended(id, b"d8:msg_typei0e5:piecei0ee")))?;
                link.hold()
            }
            Self::MetadataRequestOutOfRange => {
                let id = agree(&mut link)?;
                link.flood(100, |n, out| {
                    let piece = [1_000_000, -1, i64::from(u32::MAX), i64::MAX][n as usize % 4];
                    out.extend(extended(id, format!("d8:msg_typei0e5:piecei{piece}ee").as_bytes()));
                })
            }
            Self::UnaskedMetadata => {
                let id = agree(&mut link)?;
                link.flood(1_000, |n, out| {
                    let head = format!("d8:msg_typei1e5:piecei{n}e10:total_sizei67108864ee");
                    out.extend(extended(id, &[head.as_bytes(), &[0; 16_384]].concat()));
                })
            }
            Self::RejectFlood => {
                let id = agree(&mut link)?;
                link.flood(20_000, |n, out| {
                    out.extend(extended(id, format!("d8:msg_typei2e5:piecei{n}ee").as_bytes()));
                })
            }
            Self::MetadataGarbage => {
                let id = agree(&mut link)?;
                link.flood(1_000, |n, out| out.extend(extended(id, &n.to_be_bytes())))
            }
            Self::UnaskedPex => {
                let added = [127, 0, 0, 1, 0, 9].repeat(1_000);
                let pex = [b"d5:added6000:", &added[..], b"e"].concat();
                link.flood(200, |n, out| out.extend(extended(1 + (n % 3) as u8, &pex)))
            }
        }
    }
}

/// Sends an extension handshake and waits for what the client makes of it.
fn say(mut link: Link, handshake: &[u8]) -> io::Result<()> {
    link.send_extended(0, handshake)?;
    link.hold()
}

/// Exchanges extension handshakes; what the client calls `ut_metadata`, or what we call it.
fn agree(link: &mut Link) -> io::Result<u8> {
    send_handshake(link)?;
    let end = std::time::Instant::now() + std::time::Duration::from_secs(1);
    while link.ut_metadata == 0 && link.next_until(end)?.is_some() {}
    Ok(if link.ut_metadata == 0 { OUR_UT_METADATA } else { link.ut_metadata })
}

fn nested(open: &[u8], close: &[u8], depth: usize) -> Vec<u8> {
    [open.repeat(depth), close.repeat(depth)].concat()
}
