//! Text for people: escaping of what strangers wrote, sizes, rates and times.

use std::fmt::Write as _;
use std::time::Duration;

/// A stranger's text without control, bidirectional or invisible characters, fit for a terminal.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_deceptive(c) || c == '\\' {
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// [`escape`] for bytes that may be no UTF-8; those that are not are written `\xff`.
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    let mut safe = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        safe.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(safe, "\\x{byte:02x}");
        }
    }
    safe
}

/// [`escape`] for a path.
pub(crate) fn escape_path(path: &std::path::Path) -> String {
    escape_bytes(path.as_os_str().as_encoded_bytes())
}

/// Characters that change how their neighbours look or that cannot be seen.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `1536` as `1.5 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `75 s` as `1:15`.
pub(crate) fn span(time: Duration) -> String {
    let secs = time.as_secs();
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, minutes, secs) => format!("{minutes}:{secs:02}"),
        (hours, minutes, secs) => format!("{hours}:{minutes:02}:{secs:02}"),
    }
}

/// Reads a rate in bytes per second: `5M`, `200k`, `1.5MiB/s`, `300000`. Letters count in 1024s.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix("/s").unwrap_or(&lower);
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &lower[digits.len()..] {
        "" | "b" => 1u64,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("expected a rate such as 5M, 200k or 300000 (bytes per second)".into()),
    };
    let number: f64 = digits.trim().parse().map_err(|_| "expected a rate such as 5M or 200k".to_owned())?;
    let rate = number * factor as f64;
    if rate.is_finite() && (0.0..=1e15).contains(&rate) {
        Ok(rate as u64)
    } else {
        Err("out of range".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_a_terminal_is_escaped() {
        let escaped = escape("a\x1b[2J\u{202e}\u{9b}\r\n\\ü日本\u{200b}");
        assert_eq!(escaped, "a\\u{1b}[2J\\u{202e}\\u{9b}\\r\\n\\\\ü日本\\u{200b}");
        assert!(!escaped.chars().any(char::is_control));
        assert_eq!(escape_bytes(b"a\xff\x1bb"), "a\\xff\\u{1b}b");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!((size(0), size(1023), size(1536)), ("0 B".into(), "1023 B".into(), "1.5 KiB".into()));
        assert_eq!((size(1 << 20), size(64 << 20)), ("1.0 MiB".into(), "64.0 MiB".into()));
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        assert_eq!(span(Duration::from_secs(75)), "1:15");
        assert_eq!(span(Duration::from_secs(3_661)), "1:01:01");
    }

    #[test]
    fn rates_are_read_with_their_units() {
        for (text, rate) in
            [("5M", 5 << 20), ("200k", 200 << 10), ("300000", 300_000), ("1.5MiB/s", 3 << 19), ("0", 0)]
        {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for wrong in ["", "M", "-1", "5X", "nan", "1e99"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
