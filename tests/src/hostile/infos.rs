//! Info dictionaries with the right hash that no client may act upon (S32).

use super::torrent::Torrent;

/// An info dictionary and what is wrong with it.
#[derive(Debug)]
pub struct HostileInfo {
    /// What is wrong.
    pub what: &'static str,
    /// A torrent of it, without data.
    pub torrent: Torrent,
}

/// Info dictionaries that a client refuses. `outside` is an absolute path that must stay absent.
pub fn hostile_infos(outside: &str) -> Vec<HostileInfo> {
    let mut infos = Vec::new();
    let mut add = |what, info: Vec<u8>| infos.push(HostileInfo { what, torrent: Torrent::of_info(info) });

    add("name ..", single(b"..", "i4e", "i16384e", 1));
    add("name .", single(b".", "i4e", "i16384e", 1));
    add("empty name", single(b"", "i4e", "i16384e", 1));
    add("absolute name", single(outside.as_bytes(), "i4e", "i16384e", 1));
    add("name with separators", single(b"a/../../evil", "i4e", "i16384e", 1));
    add("name with NUL", single(b"evil\0.txt", "i4e", "i16384e", 1));
    add("name of 256 bytes", single(&[b'n'; 256], "i4e", "i16384e", 1));

    add("traversal", multi(&[(&[b"..", b"..", b"evil"], "i4e")]));
    add("traversal in the middle", multi(&[(&[b"a", b"..", b"..", b"..", b"evil"], "i4e")]));
    add("dot", multi(&[(&[b".", b"evil"], "i4e")]));
    add("separator in a component", multi(&[(&[b"../../evil"], "i4e")]));
    add("absolute component", multi(&[(&[outside.as_bytes()], "i4e")]));
    add("backslash", multi(&[(&[b"..\\evil"], "i4e")]));
    add("NUL", multi(&[(&[b"evil\0"], "i4e")]));
    add("empty component", multi(&[(&[b"a", b"", b"b"], "i4e")]));
    add("empty path", multi(&[(&[], "i4e")]));
    add("component of 256 bytes", multi(&[(&[&[b'c'; 256]], "i4e")]));
    add("65 levels", multi(&[(&[b"d".as_slice(); 65], "i4e")]));
    add("the same file twice", multi(&[(&[b"a"], "i4e"), (&[b"a"], "i4e")]));
    add("file and folder clash", multi(&[(&[b"a"], "i4e"), (&[b"a", b"b"], "i4e")]));
    let most = "i9223372036854775807e";
    add("overflowing sum", multi(&[(&[b"a"], most), (&[b"b"], most), (&[b"c"], "i6e")]));
    add("negative file length", multi(&[(&[b"a"], "i-4e"), (&[b"b"], "i8e")]));

    add("negative length", single(b"evil", "i-1e", "i16384e", 1));
    add("huge length", single(b"evil", most, "i16384e", 1));
    add("piece length 0", single(b"evil", "i4e", "i0e", 1));
    add("negative piece length", single(b"evil", "i4e", "i-16384e", 1));
    add("piece length 2^32", single(b"evil", "i4e", "i4294967296e", 1));
    add("piece length 2^63 - 1", single(b"evil", "i4e", most, 1));
    add("too many pieces", single(b"evil", "i4e", "i16384e", 2));
    add("too few pieces", single(b"evil", "i99999e", "i16384e", 1));
    add("no pieces", b"d6:lengthi4e4:name4:evil12:piece lengthi16384ee".to_vec());
    add(
        "pieces of 19 bytes",
        b"d6:lengthi4e4:name4:evil12:piece lengthi16384e6:pieces19:pppppppppppppppppppe".to_vec(),
    );

    add("an integer", b"i1e".to_vec());
    add("a list", b"le".to_vec());
    add("an empty dictionary", b"de".to_vec());
    add("no bencode", b"GET / HTTP/1.1\r\n\r\n".to_vec());
    add("deep lists", [b"l".repeat(100_000), b"e".repeat(100_000)].concat());
    infos
}

/// A single file (BEP 3); numbers as bencode.
fn single(name: &[u8], length: &str, piece_length: &str, pieces: usize) -> Vec<u8> {
    let head = format!("d6:length{length}4:name{}:", name.len());
    [head.as_bytes(), name, &rest(piece_length, pieces)].concat()
}

/// Several files in the folder `folder`; lengths as bencode.
fn multi(files: &[(&[&[u8]], &str)]) -> Vec<u8> {
    let mut info = b"d5:filesl".to_vec();
    for (path, length) in files {
        info.extend(format!("d6:length{length}4:pathl").as_bytes());
        for component in *path {
            info.extend(format!("{}:", component.len()).as_bytes());
            info.extend(*component);
        }
        info.extend(b"ee");
    }
    info.extend(b"e4:name6:folder");
    info.extend(rest("i16384e", 1));
    info
}

fn rest(piece_length: &str, pieces: usize) -> Vec<u8> {
    let head = format!("12:piece length{piece_length}6:pieces{}:", pieces * 20);
    [head.as_bytes(), &vec![b'p'; pieces * 20], b"e"].concat()
}
