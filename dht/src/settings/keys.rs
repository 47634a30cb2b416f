//! Every key of `[node]` and `[limits]`, once: its name, how it is set and how it is shown. A new
//! field of [`Config`](crate::Config) needs a line here; a test counts them.

use toml::Value;

use super::merged::Settings;
use super::value::Field;

/// A key of a settings file.
pub(super) struct Key {
    /// `section.name`.
    pub(super) name: &'static str,
    /// Sets it, or says what its value has to look like.
    pub(super) set: fn(&mut Settings, &Value) -> Result<(), &'static str>,
    /// Its value as TOML; empty when it has none.
    pub(super) show: fn(&Settings) -> String,
}

impl Key {
    /// The name without its section; in capitals and behind a prefix, that of its environment
    /// variable.
    pub(super) fn short(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, short)| short)
    }
}

/// The key called `section.name`.
pub(super) fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn assign<T: Field>(field: &mut T, value: &Value) -> Result<(), &'static str> {
    *field = T::read(value).ok_or(T::FORM)?;
    Ok(())
}

macro_rules! keys {
    ($($section:literal: $($name:ident in $($path:ident).+;)+)+) => {
        /// All keys, in the order in which they are printed.
        pub(super) const KEYS: &[Key] = &[$($(Key {
            name: concat!($section, ".", stringify!($name)),
            set: |settings, value| assign(&mut settings.$($path.)+$name, value),
            show: |settings| settings.$($path.)+$name.show(),
        }),+),+];
    };
}

keys! {
    "node":
        port in listen;
        bind in listen;
        ipv4 in listen;
        ipv6 in listen;
        shards in listen;
        state in folders;
        allow_local in config;
        read_only in config;
    "limits":
        k in config;
        wide_buckets in config;
        candidates_per_bucket in config;
        nodes_per_subnet_per_bucket in config;
        questionable_after in config;
        bad_after_failures in config;
        drop_after_failures in config;
        refresh_after in config;
        questionable_pings_per_second in config;
        newcomer_ping_burst in config;
        newcomer_pings_per_second in config;
        young_table in config;
        young_newcomer_pings_per_second in config;
        newcomer_ping_pause in config;
        newcomer_sources in config;
        bootstrap_retry_min in config;
        bootstrap_retry_max in config;
        lost_after_silences in config;
        lost_ping_interval in config;
        recovery_pings_per_second in config;
        missing_nodes in config;
        missing_retry in config;
        asleep_after in config;
        query_timeout in config;
        soft_timeout_min in config;
        soft_timeout_max in config;
        soft_timeout_start in config;
        lookup_start_width in config;
        lookup_queries_per_answer in config;
        lookup_min_queries in config;
        lookup_max_in_flight in config;
        lookup_max_queries in config;
        lookup_max_time in config;
        lookup_max_silence in config;
        lookup_candidates in config;
        lookup_nodes_per_reply in config;
        lookup_queries_per_silent_ip in config;
        lookup_nodes_per_subnet in config;
        lookup_max_peers in config;
        lookups_remembered in config;
        lookups_remembered_for in config;
        sampled_nodes in config;
        lookup_max_filters in config;
        lookup_values_per_reply in config;
        lookup_ports_per_ip in config;
        announce_nodes in config;
        max_lookups in config;
        max_in_flight in config;
        announce_every in config;
        keep_every in config;
        follow_every in config;
        renew_retry_min in config;
        renew_retry_max in config;
        reach_window in config;
        reach_probe in config;
        reach_probe_every in config;
        reach_min_network in config;
        reach_contacts in config;
        max_datagram in config;
        max_item_datagram in config;
        max_amplification in config;
        max_error_amplification in config;
        max_incoming in config;
        max_tid in config;
        max_values in config;
        replies_per_second_per_ip in config;
        reply_burst_per_ip in config;
        reply_bytes_per_second in config;
        scrapes_per_second in config;
        source_table_entries in config;
        failed_tokens_per_minute in config;
        token_rotation in config;
        store_memory in config;
        peers_per_infohash in config;
        ports_per_ip in config;
        infohashes_per_ip in config;
        peer_expiry in config;
        max_samples in config;
        sample_interval in config;
        max_items in config;
        items_per_ip in config;
        item_expiry in config;
        signature_checks_per_second in config;
        address_votes in config;
        address_agreement in config;
        address_change_pause in config;
        crawl_rate in config;
        crawl_burst in config;
        crawl_max_in_flight in config;
        crawl_frontier in config;
        crawl_asked in config;
        crawl_nodes_per_subnet in config;
        crawl_nodes_per_reply in config;
        crawl_rest_min in config;
        crawl_silent_rest in config;
        crawl_refused_rest in config;
        crawl_survey_share in config;
        crawl_scrape_share in config;
        crawl_scrape_nodes in config;
        crawl_scrape_queue in config;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Config;

    #[test]
    fn every_limit_of_the_core_has_a_key() {
        let debug = format!("{:#?}", Config::default());
        let fields: BTreeSet<_> = debug
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(": "))
            .map(|(field, _)| field.trim_end())
            .filter(|field| !field.starts_with(' '))
            .collect();
        let keys: BTreeSet<_> = KEYS.iter().map(Key::short).collect();
        let missing: Vec<_> = fields.difference(&keys).collect();
        assert!(fields.len() > 40 && missing.is_empty(), "no key for {missing:?}");
    }

    /// Numbers of which 0 lifts nothing, or is lifted by what reads them. The settings refuse it of others.
    const ZERO_IS_NO_CAP: &[(&str, &str)] = &[
        ("questionable_pings_per_second", "taken as 1"),
        ("newcomer_ping_burst", "taken as 1"),
        ("newcomer_pings_per_second", "taken as 1"),
        ("young_newcomer_pings_per_second", "taken as 1"),
        ("recovery_pings_per_second", "taken as 1"),
        ("reply_burst_per_ip", "taken as 1"),
        ("crawl_burst", "taken as 1"),
        ("young_table", "a threshold: no table is young"),
        ("lookup_min_queries", "a threshold: none is too few"),
        ("reach_min_network", "a threshold: no network is too small"),
        ("missing_nodes", "remembers nobody"),
        ("lookups_remembered", "remembers none"),
        ("crawl_survey_share", "percent"),
        ("crawl_scrape_share", "percent"),
        ("replies_per_second_per_ip", "a rate that is lifted without its bookkeeping"),
        ("reply_bytes_per_second", "a rate that is lifted without its bookkeeping"),
        ("scrapes_per_second", "a rate that is lifted without its bookkeeping"),
        ("signature_checks_per_second", "a rate that is lifted without its bookkeeping"),
        ("failed_tokens_per_minute", "a rate that is lifted without its bookkeeping"),
        ("crawl_rate", "a rate that is lifted without its bookkeeping"),
        ("infohashes_per_ip", "a cap that is lifted without its bookkeeping"),
    ];

    #[test]
    fn zero_lifts_every_cap_or_is_refused_or_means_what_the_field_says() {
        let mut others = Vec::new();
        for key in KEYS {
            let mut settings = Settings::default();
            settings.listen.ipv4 = true;
            let number = |settings: &Settings| (key.show)(settings).parse::<u64>();
            if number(&settings).is_err() {
                continue;
            }
            (key.set)(&mut settings, &Value::Integer(0)).unwrap();
            assert_eq!(number(&settings), Ok(0), "{}", key.name);
            if settings.check().is_err() {
                continue;
            }
            settings.config = settings.config.lifted();
            match number(&settings) {
                Ok(0) => others.push(key.short()),
                Ok(lifted) => assert!(lifted > number(&Settings::default()).unwrap(), "{}", key.name),
                Err(error) => panic!("{}: {error}", key.name),
            }
        }
        let (others, known): (BTreeSet<_>, BTreeSet<_>) =
            (others.into_iter().collect(), ZERO_IS_NO_CAP.iter().map(|(key, _)| *key).collect());
        assert_eq!(others, known, "0 is to lift a cap");
    }

    #[test]
    fn short_names_are_unique_because_the_environment_uses_them() {
        let shorts: BTreeSet<_> = KEYS.iter().map(Key::short).collect();
        assert_eq!(shorts.len(), KEYS.len());
    }
}
