//! Numbers as they stand in a finding.

use std::time::Duration;

/// A number and its noun.
pub(super) fn some(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A share in words.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "none".into(), |share| format!("{:.1} %", share * 100.0))
}

/// A span of time in its largest whole unit: `3 days`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs() as usize;
    match seconds {
        0..60 => some(seconds, "second", "seconds"),
        60..3600 => some(seconds / 60, "minute", "minutes"),
        3600..86_400 => some(seconds / 3600, "hour", "hours"),
        _ => some(seconds / 86_400, "day", "days"),
    }
}
