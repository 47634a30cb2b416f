//! S29: links as people paste them, valid and not, and what becomes of each.

use proptest::prelude::*;

use super::*;

/// A link, and the link that its magnet prints. `{..}` stands for the digits in [`expand`].
const VALID: &[(&str, &str)] = &[
    ("{B}", "{B}"),
    ("magnet:?xt=urn:btih:{H^}", "{B}"),
    ("magnet:?xt=urn:btih:{S}", "{B}"),
    ("magnet:?xt=urn:btih:{S_}", "{B}"),
    ("MAGNET:?xt=urn:btih:{H}", "{B}"),
    ("Magnet:?XT=URN:BTIH:{H}", "{B}"),
    ("magnet:?xt=urn%3Abtih%3A{H}", "{B}"),
    ("  {B}\n", "{B}"),
    ("magnet:?xt.1=urn:btih:{H}", "{B}"),
    ("magnet:?xt.0=urn:btih:{H}&xt.1=urn:btih:{H}", "{B}"),
    ("magnet:?xt=urn:btih:{H}&xt=urn:btih:{S}", "{B}"),
    ("magnet:?dn=x&xt=urn:btih:{H}", "{B}&dn=x"),
    ("magnet:?xt=urn:sha1:YNCKHTQCWBTRNJIV4WNAE52SJUQCZO5C&xt=urn:btih:{H}", "{B}"),
    ("magnet:?xt=urn:ed2k:31D6CFE0D16AE931B73C59D7E0C089C0&xt=urn:btih:{H}&xl=10826029", "{B}"),
    ("magnet:?xt=urn:btmh:1220{V}", "{C}"),
    ("magnet:?xt=urn:btmh:1220{V^}", "{C}"),
    ("magnet:?xt=URN:BTMH:1220{V}", "{C}"),
    ("{B}&xt=urn:btmh:1220{V}", "{B}&xt=urn:btmh:1220{V}"),
    ("{C}&xt=urn:btih:{H}", "{B}&xt=urn:btmh:1220{V}"),
    ("{C}&xt=urn:btmh:1220{V^}", "{C}"),
    ("magnet:?xs=urn:btpk:{V}", "magnet:?xs=urn:btpk:{V}"),
    ("magnet:?xs=urn:btpk:{V^}&s=6E", "magnet:?xs=urn:btpk:{V}&s=6e"),
    ("{B}&xs=urn:btpk:{V}&s=", "{B}&xs=urn:btpk:{V}"),
    ("magnet:?s=6e6e&xs=urn:btpk:{V}", "magnet:?xs=urn:btpk:{V}&s=6e6e"),
    ("{B}&s=not-hex", "{B}"),
    ("{B}&", "{B}"),
    ("{B}&&&", "{B}"),
    ("{B}&dn", "{B}"),
    ("{B}&dn=", "{B}"),
    ("{B}&tr=", "{B}"),
    ("{B}&x.pe=", "{B}"),
    ("{B}&=&=x", "{B}"),
    ("{B}&xl=12345", "{B}"),
    ("{B}&kt=martin+luther+king+mp3", "{B}"),
    ("{B}&mt=http://example.org/x.xml", "{B}"),
    ("{B}&unknown=%00", "{B}"),
    ("{B}&xs=http://localhost/x.torrent", "{B}"),
    ("{B}&as=http://127.0.0.1/x", "{B}"),
    ("{B}&ws=http://169.254.169.254/latest/", "{B}"),
    ("{B}&xs=%ff", "{B}"),
    ("{B}&tr.x=http://a/", "{B}"),
    ("{B}&dn=a+b", "{B}&dn=a%20b"),
    ("{B}&dn=a%20b", "{B}&dn=a%20b"),
    ("{B}&dn=a%2Bb", "{B}&dn=a%2Bb"),
    ("{B}&dn=100%", "{B}&dn=100%25"),
    ("{B}&dn=%zz", "{B}&dn=%25zz"),
    ("{B}&dn=%e2%82%ac", "{B}&dn=%E2%82%AC"),
    ("{B}&dn=€", "{B}&dn=%E2%82%AC"),
    ("{B}&dn=%ff", "{B}&dn=%EF%BF%BD"),
    ("{B}&dn=a=b", "{B}&dn=a%3Db"),
    ("{B}&dn=a%26b", "{B}&dn=a%26b"),
    ("{B}&dn=..%2F..%2Fetc", "{B}&dn=..%2F..%2Fetc"),
    ("{B}&dn=%1b[2J", "{B}&dn=%1B%5B2J"),
    ("{B}&dn=first&dn=second", "{B}&dn=first"),
    ("{B}&dn=x#y", "{B}&dn=x%23y"),
    ("{B}&amp;dn=x", "{B}&dn=x"),
    ("{B}&DN=x", "{B}&dn=x"),
    (
        "{B}&tr=udp://tracker.example.org:1337/announce",
        "{B}&tr=udp%3A%2F%2Ftracker.example.org%3A1337%2Fannounce",
    ),
    ("{B}&tr=udp%3a%2f%2ftracker.example.org%3a1337", "{B}&tr=udp%3A%2F%2Ftracker.example.org%3A1337"),
    ("{B}&tr=http%3A%2F%2Fa%2F%3Fpasskey%3D1%26x%3D2", "{B}&tr=http%3A%2F%2Fa%2F%3Fpasskey%3D1%26x%3D2"),
    ("{B}&tr=http://a/&tr=http://b/", "{B}&tr=http%3A%2F%2Fa%2F&tr=http%3A%2F%2Fb%2F"),
    ("{B}&tr.1=http://a/&tr.2=http://b/", "{B}&tr=http%3A%2F%2Fa%2F&tr=http%3A%2F%2Fb%2F"),
    ("{B}&tr=http://a/&tr=http://a/", "{B}&tr=http%3A%2F%2Fa%2F"),
    ("{B}&amp;tr=wss://a/", "{B}&tr=wss%3A%2F%2Fa%2F"),
    ("{B}&tr=http://127.0.0.1:9091/", "{B}&tr=http%3A%2F%2F127.0.0.1%3A9091%2F"),
    ("{B}&tr=http://a/b+c", "{B}&tr=http%3A%2F%2Fa%2Fb%2Bc"),
    ("{B}&tr=tracker.example.org", "{B}"),
    ("{B}&tr=http://", "{B}"),
    ("{B}&tr=://a", "{B}"),
    ("{B}&tr=http://a%0d%0aHost:b/", "{B}"),
    ("{B}&tr=http://a%20b/", "{B}"),
    ("{B}&tr=%ff%fe", "{B}"),
    ("{B}&tr=http://a%00/", "{B}"),
    ("{B}&tr=java script://a", "{B}"),
    ("{B}&x.pe=1.2.3.4:5", "{B}&x.pe=1.2.3.4:5"),
    ("{B}&x.pe=1.2.3.4%3A5", "{B}&x.pe=1.2.3.4:5"),
    ("{B}&x.pe=[2001:db8::1]:6881", "{B}&x.pe=[2001:db8::1]:6881"),
    ("{B}&x.pe=%5B2001:DB8:0::1%5D:6881", "{B}&x.pe=[2001:db8::1]:6881"),
    ("{B}&x.pe=peer.example.org:65535", "{B}&x.pe=peer.example.org:65535"),
    ("{B}&x.pe=localhost:1&X.PE=a_b-c:2", "{B}&x.pe=localhost:1&x.pe=a_b-c:2"),
    ("{B}&x.pe=1.2.3.4:5&x.pe=1.2.3.4:5", "{B}&x.pe=1.2.3.4:5"),
    ("{B}&so=0", "{B}&so=0"),
    ("{B}&so=0,2,4,6-8", "{B}&so=0,2,4,6-8"),
    ("{B}&so=4-6,2,0", "{B}&so=0,2,4-6"),
    ("{B}&so=1,2,3", "{B}&so=1-3"),
    ("{B}&so=1-3,2-5,5", "{B}&so=1-5"),
    ("{B}&so=0%2C2", "{B}&so=0,2"),
    ("{B}&so=1&so=3", "{B}&so=1,3"),
    ("{B}&so=16777215", "{B}&so=16777215"),
    ("{B}&so=007", "{B}&so=7"),
    ("{B}&so=5-5", "{B}&so=5"),
];

/// A link, and what is wrong with it.
const INVALID: &[(&str, MagnetError)] = &[
    ("", MagnetError::NotMagnet),
    ("   ", MagnetError::NotMagnet),
    ("magnet", MagnetError::NotMagnet),
    ("magnet:", MagnetError::NotMagnet),
    ("magnet:xt=urn:btih:{H}", MagnetError::NotMagnet),
    ("magnet://?xt=urn:btih:{H}", MagnetError::NotMagnet),
    ("agnet:?xt=urn:btih:{H}", MagnetError::NotMagnet),
    ("http://example.org/?xt=urn:btih:{H}", MagnetError::NotMagnet),
    ("{H}", MagnetError::NotMagnet),
    ("xt=urn:btih:{H}", MagnetError::NotMagnet),
    ("mägnet:?xt=urn:btih:{H}", MagnetError::NotMagnet),
    ("magnét:?", MagnetError::NotMagnet),
    ("magnet;?xt=urn:btih:{H}", MagnetError::NotMagnet),
    ("javascript:magnet:?xt=urn:btih:{H}", MagnetError::NotMagnet),
    ("magnet:?", MagnetError::NoInfohash),
    ("magnet:?dn=x", MagnetError::NoInfohash),
    ("magnet:?xt", MagnetError::NoInfohash),
    ("magnet:?&&&", MagnetError::NoInfohash),
    ("magnet:?xt%3Durn:btih:{H}", MagnetError::NoInfohash),
    ("magnet:?tr=http://a/&x.pe=1.2.3.4:5", MagnetError::NoInfohash),
    ("magnet:?xt.a=urn:btih:{H}", MagnetError::NoInfohash),
    ("magnet:?x=urn:btih:{H}", MagnetError::NoInfohash),
    ("magnet:?xs=http://localhost/x.torrent", MagnetError::NoInfohash),
    ("magnet:?s=6e", MagnetError::NoInfohash),
    ("magnet:?xt=urn:sha1:YNCKHTQCWBTRNJIV4WNAE52SJUQCZO5C", MagnetError::OtherNetwork),
    ("magnet:?xt=", MagnetError::OtherNetwork),
    ("magnet:?xt={H}", MagnetError::OtherNetwork),
    ("magnet:?xt=urn:btih", MagnetError::OtherNetwork),
    ("magnet:?xt=btih:{H}", MagnetError::OtherNetwork),
    ("magnet:?xt=urn:ed2k:31D6CFE0D16AE931B73C59D7E0C089C0", MagnetError::OtherNetwork),
    ("magnet:?xt=urn::{H}", MagnetError::OtherNetwork),
    ("magnet:?xt= urn:btih:{H}", MagnetError::OtherNetwork),
    ("magnet:?xt=urn:btih:", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:{H}0", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:12fe1c06bba254a9dc9f519b335aa7c1367a88a", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:g12fe1c06bba254a9dc9f519b335aa7c1367a88a", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:EX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:1EX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:{S}=", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:{V}", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:{H} &dn=x", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:%ff", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:{H}&xt=urn:btih:00", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:+12fe1c06bba254a9dc9f519b335aa7c1367a88a", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:c12fe1c06bba254a9dc9f519b335aa7c1367a8%00a", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:éééééééééééééééééééé", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:{H}?dn=x", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btih:{H}#x", MagnetError::BadInfohash),
    ("magnet:?xt=urn:btmh:", MagnetError::BadInfohashV2),
    ("magnet:?xt=urn:btmh:{V}", MagnetError::BadInfohashV2),
    ("magnet:?xt=urn:btmh:1220", MagnetError::BadInfohashV2),
    ("magnet:?xt=urn:btmh:1220{V}0", MagnetError::BadInfohashV2),
    ("magnet:?xt=urn:btmh:1220{H}", MagnetError::BadInfohashV2),
    ("magnet:?xt=urn:btmh:1114{H}", MagnetError::BadInfohashV2),
    ("magnet:?xt=urn:btmh:1221{V}", MagnetError::BadInfohashV2),
    ("{B}&xt=urn:btmh:1220zz", MagnetError::BadInfohashV2),
    ("{B}&xt=urn:btih:{G}", MagnetError::Contradiction),
    ("{C}&xt=urn:btmh:1220{W}", MagnetError::Contradiction),
    ("magnet:?xs=urn:btpk:{V}&xs=urn:btpk:{W}", MagnetError::Contradiction),
    ("{B}&x.pe=1.2.3.4", MagnetError::BadPeer),
    ("{B}&x.pe=1.2.3.4:", MagnetError::BadPeer),
    ("{B}&x.pe=1.2.3.4:0", MagnetError::BadPeer),
    ("{B}&x.pe=1.2.3.4:65536", MagnetError::BadPeer),
    ("{B}&x.pe=1.2.3.4:-1", MagnetError::BadPeer),
    ("{B}&x.pe=1.2.3.4:+1", MagnetError::BadPeer),
    ("{B}&x.pe=:80", MagnetError::BadPeer),
    ("{B}&x.pe=[::1]", MagnetError::BadPeer),
    ("{B}&x.pe=[::1]:", MagnetError::BadPeer),
    ("{B}&x.pe=[::1:80", MagnetError::BadPeer),
    ("{B}&x.pe=::1:80", MagnetError::BadPeer),
    ("{B}&x.pe=[1.2.3.4]:80", MagnetError::BadPeer),
    ("{B}&x.pe=[peer]:80", MagnetError::BadPeer),
    ("{B}&x.pe=a b:80", MagnetError::BadPeer),
    ("{B}&x.pe=a/b:80", MagnetError::BadPeer),
    ("{B}&x.pe=a@b:80", MagnetError::BadPeer),
    ("{B}&x.pe=a..b:80", MagnetError::BadPeer),
    ("{B}&x.pe=.:80", MagnetError::BadPeer),
    ("{B}&x.pe=%ff:80", MagnetError::BadPeer),
    ("{B}&x.pe=1.2.3.4:80:90", MagnetError::BadPeer),
    ("{B}&x.pe=http://1.2.3.4:80", MagnetError::BadPeer),
    ("{B}&so=", MagnetError::BadSelection),
    ("{B}&so=a", MagnetError::BadSelection),
    ("{B}&so=-1", MagnetError::BadSelection),
    ("{B}&so=1-", MagnetError::BadSelection),
    ("{B}&so=-", MagnetError::BadSelection),
    ("{B}&so=1,", MagnetError::BadSelection),
    ("{B}&so=1,,2", MagnetError::BadSelection),
    ("{B}&so=,1", MagnetError::BadSelection),
    ("{B}&so=2-1", MagnetError::BadSelection),
    ("{B}&so=1-2-3", MagnetError::BadSelection),
    ("{B}&so=+1", MagnetError::BadSelection),
    ("{B}&so=1.5", MagnetError::BadSelection),
    ("{B}&so=0x1", MagnetError::BadSelection),
    ("{B}&so=16777216", MagnetError::BadSelection),
    ("{B}&so=4294967296", MagnetError::BadSelection),
    ("{B}&so=99999999999999999999", MagnetError::BadSelection),
    ("{B}&so=1 ,2", MagnetError::BadSelection),
    ("{B}&so=%ff", MagnetError::BadSelection),
    ("magnet:?xs=urn:btpk:", MagnetError::BadMutableKey),
    ("magnet:?xs=urn:btpk:{H}", MagnetError::BadMutableKey),
    ("magnet:?xs=urn:btpk:{V}&s=xyz", MagnetError::BadMutableKey),
    ("magnet:?xs=urn:btpk:{V}&s=6", MagnetError::BadMutableKey),
    (
        "magnet:?xs=urn:btpk:{V}&s=ababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababab",
        MagnetError::BadMutableKey,
    ),
    ("{B}&xs=urn:btpk:zz", MagnetError::BadMutableKey),
];

fn expand(link: &str) -> String {
    let hex = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";
    let base32 = "YEX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK";
    let v2 = "caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e";
    link.replace("{B}", "magnet:?xt=urn:btih:{H}")
        .replace("{C}", "magnet:?xt=urn:btmh:1220{V}")
        .replace("{H}", hex)
        .replace("{H^}", &hex.to_uppercase())
        .replace("{G}", "00112233445566778899aabbccddeeff00112233")
        .replace("{S}", base32)
        .replace("{S_}", &base32.to_lowercase())
        .replace("{V}", v2)
        .replace("{V^}", &v2.to_uppercase())
        .replace("{W}", &v2.replace('c', "d"))
}

#[test]
fn valid_links_are_understood() {
    for (link, expected) in VALID {
        let magnet = Magnet::parse(&expand(link)).map_err(|error| format!("{link}: {error}")).unwrap();
        assert_eq!(magnet.to_string(), expand(expected), "{link}");
        assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet), "{link}");
    }
}

#[test]
fn invalid_links_are_refused_for_their_reason() {
    for (link, error) in INVALID {
        assert_eq!(Magnet::parse(&expand(link)), Err(*error), "{link}");
    }
}

#[test]
fn both_forms_of_an_infohash_are_the_same_id() {
    let magnet = Magnet::parse(&expand("{B}")).unwrap();
    assert_eq!(magnet, Magnet::new(expand("{H}").parse().unwrap()));
    assert_eq!(Magnet::parse(&expand("magnet:?xt=urn:btih:{S}")).unwrap(), magnet);
}

#[test]
fn a_full_link_gives_every_field() {
    let magnet = Magnet::parse(&expand(
        "{B}&xt=urn:btmh:1220{V}&dn=a+file&tr=http://a/&x.pe=[::1]:80&x.pe=host:81&so=0,2-4",
    ))
    .unwrap();
    assert_eq!(magnet.infohash_v1.unwrap().to_string(), expand("{H}"));
    assert_eq!(HEXLOWER.encode(&magnet.infohash_v2.unwrap()), expand("{V}"));
    assert_eq!(magnet.name.as_deref(), Some("a file"));
    assert_eq!(magnet.trackers, ["http://a/"]);
    let peers = [("::1", 80), ("host", 81)].map(|(host, port)| HostPort { host: host.into(), port });
    assert_eq!(magnet.peers, peers);
    let selection = magnet.select_only.unwrap();
    assert_eq!(selection.ranges(), [0..=0, 2..=4]);
    let selected: Vec<u32> = (0..7).filter(|&index| selection.contains(index)).collect();
    assert_eq!(selected, [0, 2, 3, 4]);
}

#[test]
fn length_and_counts_are_bounded() {
    let base = expand("{B}");
    let long = format!("{base}&dn={}", "x".repeat(Magnet::MAX_LEN));
    assert_eq!(Magnet::parse(&long), Err(MagnetError::TooLong));
    let fitting = format!("{base}&dn={}", "x".repeat(Magnet::MAX_LEN - base.len() - 4));
    assert!(Magnet::parse(&fitting).is_ok());

    let trackers: String = (0..150).map(|index| format!("&tr=http://t{index}/")).collect();
    let magnet = Magnet::parse(&format!("{base}{trackers}")).unwrap();
    assert_eq!(magnet.trackers.len(), Magnet::MAX_TRACKERS);
    assert_eq!(magnet.trackers.last().map(String::as_str), Some("http://t99/"));

    let peers: String = (1..150).map(|port| format!("&x.pe=a:{port}")).collect();
    assert_eq!(Magnet::parse(&format!("{base}{peers}")).unwrap().peers.len(), Magnet::MAX_PEERS);

    let ranges = |count: u32| {
        let ranges: Vec<String> = (0..count).map(|index| (2 * index).to_string()).collect();
        Magnet::parse(&format!("{base}&so={}", ranges.join(",")))
    };
    assert_eq!(ranges(1000).unwrap().select_only.unwrap().ranges().len(), 1000);
    assert_eq!(ranges(1001), Err(MagnetError::TooManyRanges));
}

#[test]
fn errors_are_sentences_without_the_links_text() {
    for (_, error) in INVALID {
        let text = error.to_string();
        assert!(text.len() > 20 && text.is_ascii() && !text.contains('\n'), "{text}");
    }
}

fn magnets() -> impl Strategy<Value = Magnet> {
    use proptest::{collection::vec, option};
    let peer = prop_oneof![
        ("[a-z]{1,9}(\\.[a-z0-9]{1,5}){0,2}", 1..=u16::MAX),
        (any::<[u16; 8]>().prop_map(|words| Ipv6Addr::from(words).to_string()), 1..=u16::MAX),
    ];
    let peers = vec(peer.prop_map(|(host, port)| HostPort { host, port }), 0..4);
    let salt = vec(any::<u8>(), 0..=64);
    let mutable = (any::<[u8; 32]>(), salt).prop_map(|(public_key, salt)| MutableKey { public_key, salt });
    let selection = vec((0..100_u32, 0..9_u32), 1..6).prop_map(|ranges| {
        let text: Vec<String> = ranges.iter().map(|(at, len)| format!("{at}-{}", at + len)).collect();
        text.join(",").parse().unwrap()
    });
    (
        any::<[u8; 20]>(),
        option::of(any::<[u8; 32]>()),
        option::of(".{1,20}"),
        vec("(http|udp)://[a-z]{1,9}/[!-~]{0,9}", 0..4),
        peers,
        option::of(selection),
        option::of(mutable),
    )
        .prop_map(|(id, infohash_v2, name, mut trackers, mut peers, select_only, mutable)| {
            let mut seen = std::collections::HashSet::new();
            trackers.retain(|tracker| seen.insert(tracker.clone()));
            peers.sort_by_key(HostPort::to_string);
            peers.dedup();
            let infohash_v1 = Some(Id::new(id));
            Magnet { infohash_v1, infohash_v2, name, trackers, peers, select_only, mutable }
        })
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(magnet in magnets()) {
        prop_assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
    }

    #[test]
    fn no_text_panics(rest in "(xt=urn:btih:|&|so=|x.pe=|tr=|dn=|s=|xs=urn:btpk:|%|[0-9a-f]{1,40}|.){0,20}") {
        if let Ok(magnet) = Magnet::parse(&format!("magnet:?{rest}")) {
            prop_assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
        }
    }
}
