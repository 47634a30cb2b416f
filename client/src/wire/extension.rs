//! The extension handshake (BEP 10): which extension messages a peer takes, and a few facts about it.

use std::net::IpAddr;

use krpc::DecodeError;
use krpc::bencode::{Kind, Limits, Reader, Writer};

/// Id of the extension handshake itself.
pub const HANDSHAKE: u8 = 0;
/// The id under which we take `ut_metadata` messages (BEP 9).
pub const UT_METADATA: u8 = 2;
/// What we call ourselves, `v`.
pub const CLIENT: &str = concat!("btfetch ", env!("CARGO_PKG_VERSION"));
/// Largest info dictionary that we believe in (P7).
pub const MAX_METADATA: u32 = 64 << 20;
/// Bytes of `v` that are kept.
const MAX_CLIENT: usize = 64;

/// What we tell.
#[derive(Clone, Copy, Debug)]
pub struct OurHandshake {
    /// Requests that we queue (`reqq`).
    pub request_queue: u16,
    /// Size of the info dictionary, if we have it (BEP 9).
    pub metadata_size: Option<u32>,
    /// Our listening port (`p`).
    pub listen_port: Option<u16>,
    /// We want nothing, as far as we know (BEP 21).
    pub upload_only: bool,
    /// The peer's address as we see it (`yourip`).
    pub your_ip: IpAddr,
}

impl OurHandshake {
    /// Appends the dictionary.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.dict();
        writer.key(b"m").dict().key(b"ut_metadata").int(i64::from(UT_METADATA)).end();
        if let Some(size) = self.metadata_size {
            writer.key(b"metadata_size").int(i64::from(size));
        }
        if let Some(port) = self.listen_port {
            writer.key(b"p").int(i64::from(port));
        }
        writer.key(b"reqq").int(i64::from(self.request_queue));
        writer.key(b"upload_only").int(i64::from(self.upload_only));
        writer.key(b"v").bytes(CLIENT.as_bytes()).key(b"yourip");
        match self.your_ip.to_canonical() {
            IpAddr::V4(ip) => writer.bytes(&ip.octets()),
            IpAddr::V6(ip) => writer.bytes(&ip.octets()),
        };
        writer.end();
    }
}

/// What a peer tells. Every field is optional, and one that makes no sense counts as absent: a number
/// out of range, a value of another type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TheirHandshake {
    /// The peer's id for `ut_metadata` (BEP 9); `Some(0)` takes it back.
    pub ut_metadata: Option<u8>,
    /// Size of the info dictionary, 1 byte to [`MAX_METADATA`].
    pub metadata_size: Option<u32>,
    /// Requests that the peer queues, at least 1.
    pub request_queue: Option<u16>,
    /// The peer's listening port.
    pub listen_port: Option<u16>,
    /// Our address as the peer sees it.
    pub your_ip: Option<IpAddr>,
    /// Client name and version, escaped, from at most 64 bytes.
    pub client: Option<String>,
    /// The peer only uploads (BEP 21).
    pub upload_only: Option<bool>,
}

impl TheirHandshake {
    /// Reads the dictionary. Bytes behind it are ignored: some clients send such.
    ///
    /// # Errors
    /// When it is not a well-formed dictionary within [`Limits::EXTENSION`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, Limits::EXTENSION);
        let mut told = Self::default();
        reader.expect_dict()?;
        while let Some(key) = reader.key()? {
            match key {
                b"m" if reader.peek() == Some(Kind::Dict) => told.decode_messages(&mut reader)?,
                b"metadata_size" => {
                    let size = reader.int_or_skip()?.and_then(|size| u32::try_from(size).ok());
                    told.metadata_size = size.filter(|size| (1..=MAX_METADATA).contains(size));
                }
                b"reqq" => {
                    let queue = reader.int_or_skip()?.filter(|&queue| queue > 0);
                    told.request_queue = queue.map(|queue| u16::try_from(queue).unwrap_or(u16::MAX));
                }
                b"p" => {
                    let port = reader.int_or_skip()?.and_then(|port| u16::try_from(port).ok());
                    told.listen_port = port.filter(|&port| port != 0);
                }
                b"yourip" => told.your_ip = reader.bytes_or_skip()?.and_then(ip),
                b"v" => {
                    let client = reader.bytes_or_skip()?;
                    told.client =
                        client.map(|name| name.get(..MAX_CLIENT).unwrap_or(name).escape_ascii().to_string());
                }
                b"upload_only" => told.upload_only = reader.int_or_skip()?.map(|flag| flag != 0),
                _ => drop(reader.skip()?),
            }
        }
        Ok(told)
    }

    fn decode_messages(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.expect_dict()?;
        while let Some(name) = reader.key()? {
            let id = reader.int_or_skip()?.and_then(|id| u8::try_from(id).ok());
            if name == b"ut_metadata" {
                self.ut_metadata = id;
            }
        }
        Ok(())
    }
}

/// An address of 4 or 16 bytes.
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_handshake_is_canonical_and_read_back() {
        let ours = OurHandshake {
            request_queue: 512,
            metadata_size: Some(31_235),
            listen_port: Some(6881),
            upload_only: true,
            your_ip: "::ffff:1.2.3.4".parse().unwrap(),
        };
        let mut out = Vec::new();
        ours.encode(&mut out);
        assert!(out.starts_with(
            b"d1:md11:ut_metadatai2ee13:metadata_sizei31235e1:pi6881e4:reqqi512e11:upload_onlyi1e1:v13:btfetch "
        ));
        let told = TheirHandshake::decode(&out).unwrap();
        assert_eq!(told.ut_metadata, Some(UT_METADATA));
        assert_eq!(told.metadata_size, Some(31_235));
        assert_eq!((told.request_queue, told.listen_port), (Some(512), Some(6881)));
        assert_eq!(told.your_ip, "1.2.3.4".parse().ok());
        assert_eq!((told.client.as_deref(), told.upload_only), (Some(CLIENT), Some(true)));
    }

    #[test]
    fn the_example_of_bep_10_is_read() {
        let bytes = b"d1:md11:LT_metadatai1e7:\xc2\xb5T_PEXi2ee1:pi6881e1:v13:\xc2\xb5Torrent 1.2e";
        let told = TheirHandshake::decode(bytes).unwrap();
        assert_eq!(told.listen_port, Some(6881));
        assert_eq!(told.client.as_deref(), Some("\\xc2\\xb5Torrent 1.2"));
        assert_eq!(told.ut_metadata, None);
    }

    #[test]
    fn impossible_metadata_sizes_count_as_absent() {
        for size in [
            "i0e",
            "i-1e",
            "i67108865e",
            "i1073741824e",
            "i2147483647e",
            "i9223372036854775807e",
            "3:abc",
            "le",
        ] {
            let bytes = format!("d1:md11:ut_metadatai3ee13:metadata_size{size}e");
            let told = TheirHandshake::decode(bytes.as_bytes()).unwrap();
            assert_eq!((told.metadata_size, told.ut_metadata), (None, Some(3)), "{size}");
        }
        let told = TheirHandshake::decode(b"d13:metadata_sizei67108864ee").unwrap();
        assert_eq!(told.metadata_size, Some(MAX_METADATA));
    }

    #[test]
    fn fields_of_other_types_count_as_absent() {
        let told = TheirHandshake::decode(b"d1:mle1:pi65536e4:reqqi-5e11:upload_only1:x1:vi7e6:yourip3:abce");
        assert_eq!(told, Ok(TheirHandshake::default()));
        let told = TheirHandshake::decode(b"d1:md11:ut_metadatai256ee4:reqqi99999ee").unwrap();
        assert_eq!((told.ut_metadata, told.request_queue), (None, Some(u16::MAX)));
    }

    #[test]
    fn deep_and_long_and_foreign_forms_are_refused() {
        let deep = [b"d1:a".repeat(9), b"i1e".to_vec(), b"e".repeat(9)].concat();
        let many = [b"d1:al".to_vec(), b"0:".repeat(3000), b"ee".to_vec()].concat();
        for bytes in
            [&b""[..], b"le", b"i1e", b"d", b"d1:ae", b"d1:v99999999999:ae", &deep, &many, &[b'l'; 100_000]]
        {
            assert!(TheirHandshake::decode(bytes).is_err());
        }
    }

    #[test]
    fn a_clients_name_is_escaped_and_cut() {
        let mut bytes = b"d1:v200:".to_vec();
        bytes.extend_from_slice(&[0x1b; 200]);
        bytes.push(b'e');
        assert_eq!(TheirHandshake::decode(&bytes).unwrap().client.unwrap(), "\\x1b".repeat(64));
    }
}
