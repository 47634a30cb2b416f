//! Malformed and unusual torrents (S33): each is accepted or refused as it should be,
//! within a second, and what is accepted has the hash of its raw bytes.

use std::path::Component;
use std::time::{Duration, Instant};

use btfetch::metainfo::{Info, Metainfo, MetainfoError};
use krpc::Id;
use sha1::{Digest, Sha1};

/// What the limit of a second becomes in a debug build, on a machine that runs other tests as well.
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 1 });

fn string(bytes: &[u8]) -> Vec<u8> {
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// A dictionary of keys and encoded values, in the order given.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"d".to_vec();
    for (key, value) in entries {
        out.extend(string(key.as_bytes()));
        out.extend_from_slice(value);
    }
    out.push(b'e');
    out
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [&b"l"[..], &items.concat(), b"e"].concat()
}

fn int(number: i128) -> Vec<u8> {
    format!("i{number}e").into_bytes()
}

fn hashes(count: usize) -> Vec<u8> {
    string(&vec![b'h'; count * 20])
}

fn single() -> Vec<(&'static str, Vec<u8>)> {
    vec![("length", int(1500)), ("name", string(b"x")), ("piece length", int(1024)), ("pieces", hashes(2))]
}

fn file(len: i128, path: &[&[u8]]) -> Vec<u8> {
    let path: Vec<_> = path.iter().map(|part| string(part)).collect();
    dict(&[("length", int(len)), ("path", list(&path))])
}

fn multi(files: &[Vec<u8>], pieces: usize) -> Vec<u8> {
    dict(&[
        ("files", list(files)),
        ("name", string(b"n")),
        ("piece length", int(1024)),
        ("pieces", hashes(pieces)),
    ])
}

fn with(mut entries: Vec<(&'static str, Vec<u8>)>, key: &'static str, value: Vec<u8>) -> Vec<u8> {
    match entries.iter_mut().find(|(name, _)| *name == key) {
        Some(entry) => entry.1 = value,
        None => entries.push((key, value)),
    }
    dict(&entries)
}

fn tree(path: &[&[u8]], len: i128, root: &[u8]) -> Vec<u8> {
    let mut inner = dict(&[("", dict(&[("length", int(len)), ("pieces root", string(root))]))]);
    for part in path.iter().rev() {
        inner = [&b"d"[..], &string(part), &inner, b"e"].concat();
    }
    inner
}

fn v2(tree: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
    vec![("file tree", tree), ("meta version", int(2)), ("name", string(b"x")), ("piece length", int(16384))]
}

/// Parses an info dictionary alone and inside a torrent, and checks what holds of every outcome.
fn parse(info: &[u8]) -> Result<Info, MetainfoError> {
    let started = Instant::now();
    let alone = Info::parse(info);
    let torrent = [&b"d8:announce8:udp://a/4:info"[..], info, b"12:piece layersdee"].concat();
    let whole = Metainfo::parse(&torrent);
    assert!(started.elapsed() < 2 * LIMIT, "{} bytes took {:?}", info.len(), started.elapsed());
    if let Ok(parsed) = &alone {
        if parsed.hash().v1.is_some() {
            assert_eq!(parsed.hash().swarm(), Id::new(Sha1::digest(info).into()));
        }
        let safe = |file: btfetch::metainfo::File<'_>| {
            file.path().components().all(|part| matches!(part, Component::Normal(_)))
        };
        assert!(parsed.files().all(safe));
        let _ = whole.map(|whole| assert_eq!(&whole.info, parsed));
    } else {
        assert!(whole.is_err());
        assert!(!alone.as_ref().unwrap_err().to_string().chars().any(char::is_control));
    }
    alone
}

fn accepts(what: &str, info: &[u8]) -> Info {
    parse(info).unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn refuses(what: &str, info: &[u8]) {
    assert!(parse(info).is_err(), "{what} was accepted");
}

#[test]
fn values_of_the_wrong_type_or_missing_are_refused() {
    let values =
        [int(1), string(b"text"), list(&[]), list(&[int(1)]), dict(&[]), dict(&[("a", int(1))]), vec![]];
    for (key, good) in single() {
        for value in &values {
            let same_type = value.first().map(u8::is_ascii_digit) == good.first().map(u8::is_ascii_digit)
                && (value.first() == Some(&b'i')) == (good.first() == Some(&b'i'));
            if !same_type {
                refuses(key, &with(single(), key, value.clone()));
            }
        }
        let without: Vec<_> = single().into_iter().filter(|(name, _)| *name != key).collect();
        refuses(key, &dict(&without));
    }
    for document in [int(1), string(b"d"), list(&[dict(&single())]), vec![], b"d".to_vec(), b"de".to_vec()] {
        refuses("no dictionary", &document);
    }
    // What we do not need may be anything.
    for key in ["private", "attr", "source", "name.utf-8", "profiles", "x"] {
        for value in values.iter().filter(|value| !value.is_empty()) {
            accepts(key, &with(single(), key, value.clone()));
        }
    }
}

#[test]
fn truncated_and_prolonged_documents_are_refused() {
    let info = dict(&single());
    for end in 0..info.len() {
        // Inside a torrent the keys behind it would be taken for its own.
        assert!(Info::parse(&info[..end]).is_err());
    }
    for tail in [&b"e"[..], b"0:", b"\n", b"i0e", b"de"] {
        assert!(Info::parse(&[&info[..], tail].concat()).is_err());
    }
    let torrent = [&b"d4:info"[..], &info, b"e"].concat();
    assert!(Metainfo::parse(&torrent).is_ok());
    for end in 0..torrent.len() {
        assert!(Metainfo::parse(&torrent[..end]).is_err());
    }
    assert!(Metainfo::parse(&[&torrent[..], b"\n"].concat()).is_err());
    assert!(matches!(Metainfo::parse(b"d8:announce1:xe"), Err(MetainfoError::Missing("info"))));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let huge =
        [i128::from(i64::MIN), -1_i128 << 40, -1, 1 << 49, i128::from(i64::MAX), 1 << 63, 1 << 64, 1 << 100];
    for number in huge {
        refuses("length", &with(single(), "length", int(number)));
        refuses("file length", &multi(&[file(number, &[b"a"])], 2));
        refuses("sum", &multi(&[file(1500, &[b"a"]), file(number, &[b"b"])], 2));
        refuses("piece length", &with(single(), "piece length", int(number)));
    }
    for len in [0, 1, 20, 1023, (256 << 20) + 1, 1 << 31, 1 << 32, 1 << 40] {
        refuses("piece length", &with(single(), "piece length", int(len)));
    }
    refuses("no bytes", &with(vec![("pieces", hashes(0))], "length", int(0)));
    refuses(
        "no bytes",
        &dict(&[
            ("length", int(0)),
            ("name", string(b"x")),
            ("piece length", int(1024)),
            ("pieces", hashes(0)),
        ]),
    );
    refuses("no files", &multi(&[], 0));
    // Sums that wrap around 64 bits to something small.
    let wrapping =
        vec![file(i128::from(i64::MAX), &[b"a"]), file(i128::from(i64::MAX), &[b"b"]), file(2, &[b"c"])];
    refuses("wrapping sum", &multi(&wrapping, 1));
    let many: Vec<_> = (0..300).map(|at| file(1 << 48, &[format!("{at}").as_bytes()])).collect();
    refuses("sum above 2^48", &multi(&many, 1));
    for text in ["i-0e", "i01500e", "i+1500e", "ie", "i1500", "i15 00e", "i1.5e", "i0x10e"] {
        refuses(text, &with(single(), "length", text.as_bytes().to_vec()));
    }
    accepts(
        "longest piece",
        &with(
            vec![("length", int(1500)), ("name", string(b"x")), ("pieces", hashes(1))],
            "piece length",
            int(256 << 20),
        ),
    );
}

#[test]
fn the_number_of_hashes_must_fit_exactly() {
    for count in [0, 1, 3, 100] {
        refuses("count", &with(single(), "pieces", hashes(count)));
    }
    for len in [1, 19, 21, 39, 41] {
        refuses("ragged", &with(single(), "pieces", string(&vec![b'h'; len])));
    }
    for (len, pieces) in [(1, 1), (1023, 1), (1024, 1), (1025, 2), (2048, 2), (2049, 3)] {
        for count in 0..5 {
            let info = dict(&[
                ("length", int(len)),
                ("name", string(b"x")),
                ("piece length", int(1024)),
                ("pieces", hashes(count)),
            ]);
            match count == pieces {
                true => assert_eq!(accepts("count", &info).pieces() as usize, pieces),
                false => refuses("count", &info),
            }
        }
    }
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused_wherever_they_stand() {
    let long = vec![b'x'; 256];
    let refused: [&[u8]; 17] = [
        b"", b".", b"..", b"/", b"\\", b"/etc", b"a/b", b"a\\b", b"../a", b"..\\a", b"a/..", b"C:\\a", b"\0",
        b"a\0b", b"a\0", b"./", &long,
    ];
    let longest = vec![b'x'; 255];
    let accepted: [&[u8]; 14] = [
        b"...",
        b"a",
        b" ",
        b" .",
        b". .",
        b"~",
        b"-rf",
        b"CON",
        b"a:b",
        b"\xff\xfe",
        b"\xc0\xae\xc0\xae",
        b"\x1b[31m",
        "\u{202e}txt".as_bytes(),
        &longest,
    ];
    for (names, fine) in [(&refused[..], false), (&accepted[..], true)] {
        for &name in names {
            let root = [b'r'; 32];
            let mut documents = vec![
                with(single(), "name", string(name)),
                multi(&[file(1500, &[name])], 2),
                multi(&[file(1500, &[b"a", name])], 2),
                multi(&[file(1500, &[name, b"a"])], 2),
                multi(&[file(1000, &[b"a"]), file(500, &[b"b", name, b"c"])], 2),
                multi(
                    &[dict(&[
                        ("length", int(1500)),
                        ("path", list(&[string(b"a")])),
                        ("path.utf-8", list(&[string(name)])),
                    ])],
                    2,
                ),
                with(v2(tree(&[b"a", name], 5, &root)), "name", string(name)),
            ];
            if !name.is_empty() {
                documents.push(with(single(), "name.utf-8", string(name)));
                documents.push(dict(&v2(tree(&[name], 5, &root))));
            }
            for document in documents {
                let what = name.escape_ascii().to_string();
                match fine {
                    true => drop(accepts(&what, &document)),
                    false => refuses(&what, &document),
                }
            }
        }
    }
}

#[test]
fn paths_are_lists_of_strings_within_their_limits() {
    for path in [list(&[]), int(1), string(b"a"), dict(&[]), list(&[int(1)]), list(&[list(&[string(b"a")])])]
    {
        refuses("path", &multi(&[dict(&[("length", int(1500)), ("path", path)])], 2));
    }
    refuses("no path", &multi(&[dict(&[("length", int(1500))])], 2));
    refuses("no length", &multi(&[dict(&[("path", list(&[string(b"a")]))])], 2));
    let deep = vec![&b"d"[..]; 65];
    refuses("deep", &multi(&[file(1500, &deep)], 2));
    accepts("deep", &multi(&[file(1500, &deep[..64])], 2));
    refuses("deep tree", &dict(&v2(tree(&deep, 5, &[b'r'; 32]))));
    accepts("deep tree", &dict(&v2(tree(&deep[..64], 5, &[b'r'; 32]))));
    let wide = [b'w'; 200];
    refuses("long", &multi(&[file(1500, &vec![&wide[..]; 21])], 2));
    accepts("long", &multi(&[file(1500, &vec![&wide[..]; 20])], 2));
    for file_list in
        [int(1), string(b"x"), dict(&[]), list(&[int(1)]), list(&[string(b"x")]), list(&[list(&[])])]
    {
        let info = dict(&[
            ("files", file_list),
            ("name", string(b"n")),
            ("piece length", int(1024)),
            ("pieces", hashes(2)),
        ]);
        refuses("files", &info);
    }
    refuses("both", &with(single(), "files", list(&[file(1500, &[b"a"])])));
}

#[test]
fn files_that_share_a_path_are_refused_unless_they_are_pads() {
    let pad = |len| {
        dict(&[
            ("attr", string(b"p")),
            ("length", int(len)),
            ("path", list(&[string(b".pad"), string(b"9")])),
        ])
    };
    refuses("twice", &multi(&[file(1000, &[b"a"]), file(500, &[b"a"])], 2));
    refuses("twice", &multi(&[file(1000, &[b"d", b"a"]), file(400, &[b"b"]), file(100, &[b"d", b"a"])], 2));
    refuses("file and folder", &multi(&[file(1000, &[b"a"]), file(500, &[b"a", b"b"])], 2));
    refuses("file and folder", &multi(&[file(1000, &[b"a", b"b", b"c"]), file(500, &[b"a", b"b"])], 2));
    accepts("kin", &multi(&[file(1000, &[b"a"]), file(400, &[b"A"]), file(100, &[b"a ", b"b"])], 2));
    let padded = accepts("pads", &multi(&[file(1000, &[b"a"]), pad(24), file(400, &[b"b"]), pad(76)], 2));
    assert_eq!(padded.files().filter(|file| file.is_stored()).count(), 2);
    refuses(
        "link with a length",
        &multi(&[dict(&[("attr", string(b"l")), ("length", int(1500)), ("path", list(&[string(b"a")]))])], 2),
    );
}

#[test]
fn keys_in_any_order_are_read_and_repeated_ones_refused() {
    let mut entries = single();
    for _ in 0..entries.len() {
        entries.rotate_left(1);
        accepts("order", &dict(&entries));
        let mut twice = entries.clone();
        twice.push(entries[0].clone());
        refuses("twice", &dict(&twice));
    }
    let mut entries = single();
    entries.push(("z", int(1)));
    entries.push(("z", int(1)));
    refuses("unknown key twice", &dict(&entries));
}

#[test]
fn later_versions_and_broken_hybrids_are_refused() {
    let root = [b'r'; 32];
    accepts("v2", &dict(&v2(tree(&[b"x"], 5, &root))));
    for version in [0, 1, 3, -1, i64::MAX] {
        let info = with(v2(tree(&[b"x"], 5, &root)), "meta version", int(i128::from(version)));
        assert_eq!(parse(&info), Err(MetainfoError::Version(version)));
    }
    for len in [1024, 8192, 16383, 16385, 48 << 10, 512 << 20] {
        refuses("v2 piece length", &with(v2(tree(&[b"x"], 5, &root)), "piece length", int(len)));
    }
    for broken in [int(1), list(&[]), dict(&[]), string(b"x")] {
        refuses("tree", &dict(&v2(broken)));
    }
    refuses("root", &dict(&v2(tree(&[b"x"], 5, b"short"))));
    refuses("length", &dict(&v2(tree(&[b"x"], -5, &root))));
    refuses("no tree", &with(single(), "meta version", int(2)));
    let hybrid = |name: &[u8], len, tree| {
        let mut entries = v2(tree);
        entries.extend([("length", int(len)), ("pieces", hashes(1))]);
        with(entries, "name", string(name))
    };
    assert!(accepts("hybrid", &hybrid(b"x", 5, tree(&[b"x"], 5, &root))).is_hybrid());
    refuses("other length", &hybrid(b"x", 6, tree(&[b"x"], 5, &root)));
    refuses("other name", &hybrid(b"y", 5, tree(&[b"x"], 5, &root)));
    refuses("other place", &hybrid(b"x", 5, tree(&[b"x", b"x"], 5, &root)));
    // v2 alone needs its layers: the file is longer than a piece and the dictionary is empty.
    let info = dict(&v2(tree(&[b"x"], 16385, &root)));
    let torrent = [&b"d4:info"[..], &info, b"12:piece layersdee"].concat();
    assert!(matches!(Metainfo::parse(&torrent), Err(MetainfoError::PieceLayers(_))));
    let torrent = [&b"d4:info"[..], &info, b"e"].concat();
    assert!(matches!(Metainfo::parse(&torrent), Err(MetainfoError::Missing("piece layers"))));
}

#[test]
fn strange_keys_around_info_are_passed_over() {
    let values = [
        int(1),
        int(-1),
        string(b""),
        string(b"\xff"),
        list(&[]),
        list(&[int(1)]),
        dict(&[]),
        list(&[list(&[])]),
    ];
    let keys = [
        "announce",
        "announce-list",
        "comment",
        "created by",
        "creation date",
        "encoding",
        "httpseeds",
        "nodes",
        "url-list",
        "azureus_properties",
        "\u{fffd}",
    ];
    for key in keys {
        for value in &values {
            let torrent = dict(&[(key, value.clone()), ("info", dict(&single()))]);
            let metainfo = Metainfo::parse(&torrent).unwrap_or_else(|error| panic!("{key}: {error}"));
            assert!(
                metainfo.trackers.is_empty() && metainfo.nodes.is_empty() && metainfo.web_seeds.is_empty()
            );
        }
    }
    let urls: Vec<_> = (0..5000).map(|at| string(format!("udp://{at}/").as_bytes())).collect();
    let torrent = dict(&[
        ("announce-list", list(&[list(&urls[..60]), list(&urls)])),
        ("info", dict(&single())),
        ("nodes", list(&vec![list(&[string(b"h"), int(1)]); 5000])),
        ("url-list", list(&urls)),
    ]);
    let metainfo = Metainfo::parse(&torrent).unwrap();
    assert_eq!((metainfo.trackers[0].len(), metainfo.trackers[1].len()), (60, 40));
    assert_eq!((metainfo.nodes.len(), metainfo.web_seeds.len()), (100, 100));
}

#[test]
fn huge_documents_end_within_a_second() {
    let files = |count: usize| {
        let files: Vec<_> = (0..count)
            .map(|at| file(1, &[format!("{:03}", at % 1000).as_bytes(), format!("{at}").as_bytes()]))
            .collect();
        multi(&files, count.div_ceil(1024))
    };
    assert_eq!(accepts("200,000 files", &files(200_000)).files().len(), 200_000);
    refuses("200,001 files", &files(200_001));
    // Long common prefixes, where comparing costs most.
    let prefix = [b'p'; 250];
    let long: Vec<_> = (0..15_000)
        .map(|at| {
            let mut path = vec![&prefix[..]; 8];
            let last = format!("{at}");
            path.push(last.as_bytes());
            file(1, &path)
        })
        .collect();
    accepts("long paths", &multi(&long, 15));
    let wide: Vec<_> = (0..200_000)
        .map(|at| [&string(format!("{at:06}").as_bytes())[..], b"d0:d6:lengthi0eee"].concat())
        .collect();
    let mut deep = [&b"d"[..], &wide.concat(), b"e"].concat();
    for _ in 0..15 {
        deep = [&b"d"[..], &string(&prefix), &deep, b"e"].concat();
    }
    refuses("800 MB of paths in a small tree", &dict(&v2(deep)));
    let big = vec![b'b'; 20 << 20];
    accepts("20 MB in an unknown key", &with(single(), "x", string(&big)));
    refuses("20 MB name", &with(single(), "name", string(&big)));
    refuses("20 MB component", &multi(&[file(1500, &[&big])], 2));
    refuses("20 MB of hashes", &with(single(), "pieces", string(&big)));
    let torrent = dict(&[("comment", string(&big)), ("info", dict(&single()))]);
    assert_eq!(Metainfo::parse(&torrent).unwrap().comment.unwrap().len(), 4096);
    let tokens = |count: usize| with(single(), "x", list(&vec![string(b""); count]));
    accepts("2,900,000 tokens", &tokens(2_900_000));
    refuses("3,000,001 tokens", &tokens(3_000_001));
    refuses("10 MB of lists", &vec![b'l'; 10 << 20]);
    refuses("10 MB of dictionaries", &b"d1:x".repeat(10 << 18));
    let nested = |depth: usize| [vec![b'l'; depth], vec![b'e'; depth]].concat();
    accepts("nested 98 deep", &with(single(), "x", nested(98)));
    refuses("nested 101 deep", &with(single(), "x", nested(101)));
    // Keys in falling order: each must be looked for among all before it.
    let falling: Vec<_> =
        (0..300_000).rev().map(|at| [&string(format!("{at:06}").as_bytes())[..], b"le"].concat()).collect();
    refuses("keys in falling order", &with(single(), "x", [&b"d"[..], &falling.concat(), b"e"].concat()));
    refuses("65 MiB", &with(single(), "x", string(&vec![0; 65 << 20])));
}

#[test]
fn two_million_pieces_are_the_most() {
    let info = |pieces: usize| {
        dict(&[
            ("length", int(1024 * pieces as i128)),
            ("name", string(b"x")),
            ("piece length", int(1024)),
            ("pieces", hashes(pieces)),
        ])
    };
    assert_eq!(accepts("2^21 pieces", &info(1 << 21)).pieces(), 1 << 21);
    assert!(matches!(parse(&info((1 << 21) + 1)), Err(MetainfoError::TooManyPieces(_))));
}
