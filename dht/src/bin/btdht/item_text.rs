//! How keys, salts and values of BEP 44 look on the command line.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use btdht::item::{MAX_SALT, MAX_VALUE, PublicKey, SecretKey};
use krpc::bencode::{Data, Limits, Value};

use crate::failure::Failure;

/// Longest key file that is read: 64 bytes in hex and what an editor leaves around them.
const MAX_KEY_FILE: u64 = 256;

/// 64 hexadecimal digits.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    let bytes = hex(text).ok_or("expected 64 hexadecimal digits")?;
    bytes.try_into().map_err(|_| "expected 64 hexadecimal digits".into())
}

/// A salt: its UTF-8 bytes, or `hex:` and digits.
pub(crate) fn salt(text: &str) -> Result<Vec<u8>, String> {
    let salt = match text.strip_prefix("hex:") {
        Some(digits) => hex(digits).ok_or("`hex:` wants an even number of hexadecimal digits")?,
        None => text.as_bytes().to_vec(),
    };
    if salt.len() > MAX_SALT { Err(format!("a salt has at most {MAX_SALT} bytes")) } else { Ok(salt) }
}

/// The bencoded value that `text` or, after an `@`, the file of that name stands for: a byte string,
/// or with `raw` what it says.
pub(crate) fn value(text: &str, raw: bool) -> Result<Vec<u8>, Failure> {
    let bytes = match text.strip_prefix('@') {
        Some(name) => read(Path::new(name), MAX_VALUE as u64 + 1)
            .map_err(|error| Failure::usage(format!("reading {}: {error}", name.escape_debug())))?,
        None => text.as_bytes().to_vec(),
    };
    let value = if raw { bytes } else { [format!("{}:", bytes.len()).into_bytes(), bytes].concat() };
    btdht::item::check_value(&value).map_err(|error| {
        Failure::usage(error.to_string()).hint("--bencode takes the value as bencode, without it as text")
    })?;
    Ok(value)
}

/// A value for people: a printable string as it is, everything else as escaped bencode.
pub(crate) fn shown(value: &[u8]) -> String {
    let printable = |bytes: &[u8]| bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
    match Value::parse(value, Limits::KRPC).as_ref().map(Value::data) {
        Ok(Data::Bytes(text)) if printable(text) => text.iter().copied().map(char::from).collect(),
        _ => value.escape_ascii().to_string(),
    }
}

/// Reads a secret key: 64 or 128 hexadecimal digits (DECISIONS.md 12).
pub(crate) fn read_key(path: &Path) -> Result<SecretKey, Failure> {
    let shown = path.display();
    let bytes = read(path, MAX_KEY_FILE)
        .map_err(|error| Failure::usage(format!("reading the key file {shown}: {error}")))?;
    let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    hex(text).and_then(|bytes| SecretKey::from_bytes(&bytes)).ok_or_else(|| {
        Failure::usage(format!("the key file {shown} does not hold 64 or 128 hexadecimal digits"))
            .hint("`btdht put VALUE --new-key FILE` makes one")
    })
}

/// Makes a secret key and writes its seed to a new file that only its owner can read.
pub(crate) fn new_key(path: &Path) -> Result<SecretKey, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::other(format!("drawing random numbers: {error}")))?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{} exists and is not overwritten", path.display()))
                .hint("--key FILE signs with it")
        }
        _ => Failure::disk(format!("writing the key file {}: {error}", path.display())),
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    let digits: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    file.write_all(format!("{digits}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(SecretKey::from_seed(&seed))
}

/// Lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_strings_and_bencode_stays_what_it_is() {
        assert_eq!(value("hello", false).unwrap(), b"5:hello");
        assert_eq!(value("d1:ai1ee", true).unwrap(), b"d1:ai1ee");
        assert!(value("d1:bi1e1:ai1ee", true).is_err(), "unsorted");
        assert!(value(&"x".repeat(997), false).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\x00\x01").unwrap();
        assert_eq!(value(&format!("@{}", file.path().display()), false).unwrap(), b"2:\x00\x01");
    }

    #[test]
    fn values_are_shown_without_steering_the_terminal() {
        assert_eq!(shown(b"12:Hello World!"), "Hello World!");
        assert_eq!(shown(b"3:\x1b[2"), "3:\\x1b[2");
        assert_eq!(shown(b"d1:ai1ee"), "d1:ai1ee");
    }

    #[test]
    fn salts_and_keys_are_checked() {
        assert_eq!(salt("foobar").unwrap(), b"foobar");
        assert_eq!(salt("hex:00ff").unwrap(), [0, 255]);
        assert!(salt(&"x".repeat(65)).is_err() && salt("hex:0").is_err());
        assert!(public_key(&"ab".repeat(32)).is_ok() && public_key(&"ab".repeat(31)).is_err());
    }

    #[test]
    fn a_new_key_is_private_never_overwrites_and_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = new_key(&path).unwrap();
        assert_eq!(read_key(&path).unwrap().public(), made.public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(new_key(&path).is_err());
        assert_eq!(read_key(&path).unwrap().public(), made.public());
        std::fs::write(&path, "12").unwrap();
        assert!(read_key(&path).is_err());
    }
}
