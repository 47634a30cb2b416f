//! The scenarios S1 to S28 and the threats D1 to D13 of RELIABILITY.md, each with the tests that hold it to
//! its numbers. A test of this crate checks that every one of them exists.

/// A scenario or threat, and the names of its tests. Whole forms are ignored for their length:
/// `cargo test -- --ignored NAME` runs them.
pub const SCENARIOS: &[(&str, &[&str])] = &[
    (
        "S1",
        &[
            "every_datagram_has_the_outcome_that_bep_5_asks_for",
            "every_datagram_of_the_corpus_gets_what_bep_5_asks_for",
            "puts_with_a_good_token_get_the_errors_of_bep_44",
        ],
    ),
    (
        "S2",
        &["bombs_cost_neither_stack_nor_time", "deeply_nested_datagrams_are_dropped_cheaply_and_in_silence"],
    ),
    // Debug builds run the same tests.
    ("S3", &["recursion_bombs_are_refused_fast", "bombs_cost_neither_stack_nor_time"]),
    (
        "S4",
        &[
            "replies_are_at_most_twelve_times_their_query_and_four_times_on_average",
            "largest_items_are_told_whole_to_all_but_the_shortest_queries",
            "errors_are_at_most_twice_what_they_answer_or_silence",
        ],
    ),
    (
        "S5",
        &[
            "garbage_from_a_thousand_sources_gets_silence_and_honest_pings_their_answers",
            "garbage_from_a_thousand_sources_does_not_drown_honest_pings",
            "a_hundred_thousand_datagrams_of_garbage_a_second_do_not_drown_honest_pings",
        ],
    ),
    (
        "S6",
        &[
            "one_source_gets_25_replies_a_second_and_another_all_of_its_own",
            "one_greedy_source_gets_its_share_and_costs_others_nothing",
            "one_greedy_source_delays_others_by_no_more_than_20_ms",
        ],
    ),
    (
        "S7",
        &[
            "flood_from_forged_sources_leaves_the_table_unchanged",
            "flood_from_a_million_forged_sources_leaves_the_table_unchanged",
        ],
    ),
    (
        "S8",
        &[
            "changed_cut_and_lengthened_tokens_are_refused",
            "token_is_good_only_for_its_address_and_infohash_and_for_ten_minutes",
        ],
    ),
    ("S9", &["tokens_of_own_addresses_do_not_predict_another"]),
    ("S10", &["source_stores_eight_ports_and_a_reply_stays_within_its_bounds"]),
    (
        "S11",
        &[
            "one_source_keeps_500_infohashes_of_100_000_and_others_still_store",
            "infohashes_without_end_stay_within_the_budget",
        ],
    ),
    ("S12", &["ports_that_cannot_be_are_refused_and_nothing_is_stored"]),
    ("S13", &["read_only_senders_and_unsolicited_repliers_never_enter"]),
    ("S14", &["puts_get_the_errors_of_the_bep", "puts_with_a_good_token_get_the_errors_of_bep_44"]),
    (
        "S15",
        &[
            "nobody_enters_by_a_lie_and_nobody_leaves_by_one",
            "pokes_by_tens_of_thousands_of_hosts_cost_a_node_less_than_a_megabyte",
        ],
    ),
    (
        "S16",
        &[
            "s16_lies_of_seven_of_sixteen_networks_leave_the_id",
            "s16_nine_of_sixteen_change_the_id_once_and_again_only_ten_minutes_later",
            "s16_flapping_liars_move_us_once_in_ten_minutes_at_most",
        ],
    ),
    (
        "S17",
        &[
            "routers_are_tried_again_until_the_network_is_there",
            "dead_routers_are_tried_every_1_to_60_seconds_and_met_within_90_when_they_are_back",
            "the_program_waits_for_a_network_and_bootstraps_when_there_is_one",
            "a_repeated_complaint_is_one_line_a_minute_with_a_count",
            "bootstraps_in_vain_begin_one_second_apart_and_back_off_to_sixty",
        ],
    ),
    (
        "S18",
        &[
            "network_that_comes_and_goes_is_found_again_within_two_minutes",
            "network_that_goes_and_comes_20_times_costs_no_node",
            "node_at_another_address_is_known_again_within_two_minutes",
            "a_node_knows_fifty_nodes_again_after_its_interface_was_down_and_its_address_changed",
            "a_node_knows_fifty_nodes_again_each_time_its_interface_was_down_of_twenty",
            "a_neighbour_on_our_own_machine_does_not_hide_that_the_network_is_gone",
        ],
    ),
    (
        "S19",
        &["a_kill_while_saving_leaves_state_that_starts", "fifty_kills_while_saving_leave_state_that_starts"],
    ),
    ("S20", &["garbage_in_the_state_file_is_one_warning_and_an_empty_start"]),
    (
        "S21",
        &[
            "clock_jumps_never_lengthen_a_token_beyond_two_rotations",
            "clock_that_goes_back_expires_nothing",
            "suspended_node_keeps_its_table_and_none_of_its_tokens",
            "a_wall_clock_that_jumps_within_a_boot_changes_nothing",
            "a_program_that_was_stopped_for_a_while_has_its_table_answers_and_asks",
            "clock_that_goes_back_a_day_costs_a_node_neither_nodes_nor_tokens_nor_what_it_stores",
            "clock_that_goes_back_far_silences_nobody_and_a_little_forgives_nothing",
        ],
    ),
    (
        "S22",
        &[
            "memory_and_descriptors_stay_as_they_are_under_500_queries_a_second",
            "memory_and_descriptors_stay_as_they_are_for_a_day",
        ],
    ),
    ("S23", &["a_busy_port_is_exit_code_3_with_a_reason_in_one_line"]),
    ("S24", &["hostile_nodes_of_every_conduct_hide_no_peer_and_aim_us_at_nobody"]),
    ("S25", &["eclipse_from_one_network_leaves_honest_nodes_in_the_closest_set"]),
    (
        "S26",
        &[
            "when_all_nodes_are_silent_a_lookup_ends_within_twelve_seconds_without_success",
            "silent_nodes_are_exit_code_4_no_answer",
            "a_network_of_silent_nodes_ends_within_twelve_seconds",
        ],
    ),
    (
        "S27",
        &[
            "endless_referrals_end_within_the_budget",
            "values_count_only_from_the_address_tid_and_id_that_were_asked",
            "answer_from_another_port_is_no_answer",
        ],
    ),
    ("S28", &["loss_and_jitter_leave_lookups_successful_and_within_three_times_their_time"]),
    ("D1", &["nesting_and_tokens_have_the_limits_of_the_house", "bombs_cost_neither_stack_nor_time"]),
    (
        "D2",
        &[
            "transaction_ids_of_up_to_32_bytes_are_echoed",
            "replies_are_at_most_twelve_times_their_query_and_four_times_on_average",
            "all_sources_together_get_the_byte_budget",
        ],
    ),
    (
        "D3",
        &[
            "one_source_gets_its_burst_and_then_25_a_second_while_others_are_untouched",
            "flood_of_forged_sources_does_not_silence_an_honest_one",
            "limit_per_source_is_by_address_and_by_64",
        ],
    ),
    (
        "D4",
        &[
            "token_is_bound_to_address_and_infohash",
            "token_lives_for_one_to_two_rotations",
            "eleventh_bad_token_in_a_minute_gets_silence_and_a_good_one_still_works",
        ],
    ),
    (
        "D5",
        &[
            "one_source_keeps_500_infohashes_of_100_000_and_others_still_store",
            "one_source_keeps_eight_ports_and_the_stalest_goes",
            "full_infohash_replaces_a_stale_peer",
            "budget_holds_and_the_stalest_infohashes_go",
            "peers_come_back_until_they_expire",
        ],
    ),
    (
        "D6",
        &[
            "one_node_per_ip_and_two_per_network_in_a_bucket",
            "id_change_at_an_address_evicts",
            "nobody_enters_by_a_lie_and_nobody_leaves_by_one",
        ],
    ),
    (
        "D7",
        &[
            "closest_set_holds_one_node_of_a_network",
            "silent_ip_gets_three_queries_whatever_its_ports_and_ids",
            "lookup_keeps_to_the_numbers_of_the_house",
            "endless_referrals_end_within_the_budget",
        ],
    ),
    ("D8", &["answer_counts_only_with_its_tid_address_and_socket", "answer_from_another_port_is_no_answer"]),
    (
        "D9",
        &[
            "list_aimed_at_one_victim_yields_eight_ports",
            "each_peer_is_told_once_and_only_from_an_address_it_can_have",
            "lookup_keeps_to_the_numbers_of_the_house",
        ],
    ),
    (
        "D10",
        &[
            "lies_of_seven_of_sixteen_networks_change_nothing",
            "nine_of_sixteen_change_it_once_in_ten_minutes",
        ],
    ),
    (
        "D11",
        &[
            "signature_checks_have_one_budget_for_all_sources",
            "the_least_recently_used_goes_when_there_are_too_many",
            "house_limits_are_the_defaults",
        ],
    ),
    (
        "D12",
        &[
            "samples_are_a_choice_that_stays_and_nobody_is_asked_twice_within_his_interval",
            "house_limits_are_the_defaults",
        ],
    ),
    ("D13", &["remote_text_cannot_steer_a_terminal"]),
];
