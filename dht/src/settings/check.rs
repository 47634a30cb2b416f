//! What no node could work with, and what it works with otherwise than it was asked for.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{SettingsError, bad_value};
use super::merged::Settings;
use crate::Config;

/// Bounds of every span of time.
const MIN_SPAN: Duration = Duration::from_millis(1);
const MAX_SPAN: Duration = Duration::from_secs(366 * 24 * 3600);

/// Longest datagram of the settings, in bytes: below the least that is understood nothing is left to answer
/// with; eight nodes of IPv6, a token and what belongs around them fit the least that is used; and no DHT
/// sends more than the most (BEP 32).
const UNDERSTOOD: RangeInclusive<usize> = 200..=1024;
const LEAST_DATAGRAM: usize = 512;

impl Settings {
    /// Refuses what no node could work with.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let config = &self.config;
        let refuse = |key, form| Err(bad_value(&self.origin(key), key, form));
        if !(1..=64).contains(&config.k) {
            return refuse("limits.k", "from 1 to 64");
        }
        for (key, number) in [
            ("limits.lookup_start_width", config.lookup_start_width),
            ("limits.lookup_queries_per_answer", config.lookup_queries_per_answer),
            ("limits.announce_nodes", config.announce_nodes),
            ("limits.address_votes", config.address_votes),
            ("limits.address_agreement", config.address_agreement),
        ] {
            if !(1..=1000).contains(&number) {
                return refuse(key, "from 1 to 1000");
            }
        }
        let entries = config.source_table_entries;
        if !entries.is_power_of_two() || entries > 1 << 24 {
            return refuse("limits.source_table_entries", "a power of two up to 16777216");
        }
        let sources = config.newcomer_sources;
        if !sources.is_power_of_two() || sources > 256 {
            return refuse("limits.newcomer_sources", "a power of two up to 256");
        }
        let contacts = config.reach_contacts;
        if !contacts.is_power_of_two() || contacts > 1 << 24 {
            return refuse("limits.reach_contacts", "a power of two up to 16777216");
        }
        if config.reach_probe >= config.reach_probe_every {
            return refuse("limits.reach_probe", "shorter than `limits.reach_probe_every`");
        }
        // A lookup asks nobody whose answer may come too late to announce to him.
        if config.query_timeout >= config.lookup_max_time {
            return match config.query_timeout == Config::default().query_timeout {
                true => refuse("limits.lookup_max_time", "longer than `limits.query_timeout`"),
                false => refuse("limits.query_timeout", "shorter than `limits.lookup_max_time`"),
            };
        }
        if !UNDERSTOOD.contains(&config.max_datagram) {
            return refuse("limits.max_datagram", "from 512, for eight nodes and a token, to 1024 (BEP 32)");
        }
        for (key, percent) in [
            ("limits.crawl_survey_share", config.crawl_survey_share),
            ("limits.crawl_scrape_share", config.crawl_scrape_share),
        ] {
            if percent > 100 {
                return refuse(key, "from 0 to 100");
            }
        }
        self.check_spans()?;
        if !self.listen.ipv4 && !self.listen.ipv6 {
            return refuse("node.ipv4", "true while node.ipv6 is false");
        }
        Ok(())
    }

    /// Takes what earlier versions took, though no node works well with it, as the nearest that one works
    /// with, so that nobody's node stops with an update; and says so.
    pub(super) fn bend(&mut self) {
        let Config { max_datagram, max_samples, .. } = &mut self.config;
        let bent = [
            (
                "limits.max_datagram",
                max_datagram,
                LEAST_DATAGRAM..=usize::MAX,
                "eight nodes and a token have to fit",
            ),
            (
                "limits.max_samples",
                max_samples,
                0..=Config::MOST_SAMPLES,
                "more never fit a datagram beside eight nodes",
            ),
        ]
        .map(|(key, number, bounds, why)| {
            let asked = std::mem::replace(number, (*number).clamp(*bounds.start(), *bounds.end()));
            (key, asked, *number, why)
        });
        for (key, asked, taken, why) in bent.into_iter().filter(|(_, asked, taken, _)| asked != taken) {
            let origin = self.origin(key);
            self.warnings.push(format!("{origin}: `{key}` is {asked} and taken as {taken}: {why}"));
        }
    }

    fn check_spans(&self) -> Result<(), SettingsError> {
        let config = &self.config;
        for (key, span) in [
            ("limits.questionable_after", config.questionable_after),
            ("limits.refresh_after", config.refresh_after),
            ("limits.bootstrap_retry_min", config.bootstrap_retry_min),
            ("limits.bootstrap_retry_max", config.bootstrap_retry_max),
            ("limits.query_timeout", config.query_timeout),
            ("limits.soft_timeout_min", config.soft_timeout_min),
            ("limits.soft_timeout_max", config.soft_timeout_max),
            ("limits.soft_timeout_start", config.soft_timeout_start),
            ("limits.lookup_max_time", config.lookup_max_time),
            ("limits.lookup_max_silence", config.lookup_max_silence),
            ("limits.token_rotation", config.token_rotation),
            ("limits.peer_expiry", config.peer_expiry),
            ("limits.address_change_pause", config.address_change_pause),
            ("limits.reach_window", config.reach_window),
            ("limits.reach_probe", config.reach_probe),
            ("limits.reach_probe_every", config.reach_probe_every),
            ("limits.crawl_rest_min", config.crawl_rest_min),
            ("limits.crawl_silent_rest", config.crawl_silent_rest),
            ("limits.crawl_refused_rest", config.crawl_refused_rest),
        ] {
            // A pause of nothing would be taken for ever, and one without end would overflow.
            if !(MIN_SPAN..=MAX_SPAN).contains(&span) {
                return Err(bad_value(&self.origin(key), key, "from 1 ms to a year"));
            }
        }
        Ok(())
    }
}
