//! What a [`Store`](semel_core::Store) must do: one function a rule, each on an empty store.
//!
//! `store_conformance!` makes a test of each of them, so that failures have names:
//!
//! ```ignore
//! mod memory {
//!     use semel_tests::conformance::store as suite;
//!     semel_tests::store_conformance!(async || MemoryFixture::new());
//! }
//! ```

pub mod build;
pub mod concurrency;
pub mod dead;
pub mod fences;
pub mod keys;
pub mod lanes;
pub mod model;
pub mod outbox;
pub mod parked;
pub mod records;
pub mod refused;
pub mod retention;
pub mod state;

use std::sync::Arc;

use semel_core::Admin;

/// An empty store to try, and what keeps it alive.
pub trait Fixture {
    /// The store. Handles of one fixture are like hosts: they share what is stored.
    fn store(&self) -> Arc<dyn Admin>;
}

/// Makes a `#[tokio::test]` of each rule. `$open` is an async closure that gives a
/// [`Fixture`]; the module `suite` must be in scope.
#[macro_export]
macro_rules! store_conformance {
    ($open:expr) => {
        $crate::store_conformance! { $open =>
            records: fresh_is_applied, second_is_a_duplicate, other_payload_is_a_mismatch,
                other_payload_of_a_dead_record_is_a_mismatch,
                other_payload_of_a_parked_record_is_a_mismatch,
                same_run_again_is_applied_with_the_same_version,
                whole_batch_again_is_applied_with_the_same_versions,
                same_run_again_after_parking, same_record_twice_in_a_batch, versions_are_unique,
                reply_is_kept, check_answers_in_order, plugins_do_not_share_records,
                nothing_of_a_refused_run_is_written, empty_requests_are_answered;
            parked: parking_needs_what_the_check_found, parking_again_changes_the_version,
                exhausted_needs_what_the_check_found, done_overtakes_a_parked_row,
                rejected_overtakes_a_parked_row, due_rows_come_longest_due_first,
                due_is_limited, parked_counts_and_tells_the_first_due, a_row_is_read_as_written;
            lanes: later_message_is_behind, own_row_does_not_block, other_lanes_are_free,
                parking_behind_is_not_tested, a_row_behind_is_not_due,
                the_next_in_lane_becomes_due, an_earlier_row_takes_the_lead,
                large_offsets_are_told_apart,
                a_parked_run_holds_its_lane_in_the_batch,
                waiting_never_overtakes_in_the_batch,
                a_refused_run_holds_its_lane_in_the_batch,
                duplicates_and_dead_letters_let_the_lane_go_on, a_dead_letter_frees_its_lane,
                a_held_lane_still_tells_duplicates;
            state: put_and_read, a_stale_read_conflicts, a_stale_read_conflicts_also_when_failing,
                reading_nothing_stands_while_there_is_nothing, reads_through_the_batch,
                reads_that_missed_a_run_of_the_batch_conflict,
                reads_that_saw_a_refused_run_conflict, reads_see_deletes_and_adds_of_the_batch,
                blind_adds_commute_and_change_the_version, a_value_written_anew_has_a_new_version,
                not_a_counter_is_refused, counters_do_not_overflow, extreme_counters,
                odd_counters, adds_in_a_batch_see_each_other, counters_in_a_batch_do_not_overflow,
                state_is_listed_in_order, large_values;
            outbox: rows_come_in_order, rows_of_a_lane, a_delayed_message_has_no_lane,
                confirming_twice_changes_nothing, clear_unless_an_older_row_waits,
                rows_are_read_as_written, rows_know_their_plugin, scans_are_limited,
                the_length_is_exact;
            refused: a_refused_row_becomes_a_letter, a_row_that_is_gone_makes_no_letter,
                a_refused_row_frees_its_lane, a_replayed_row_takes_its_old_place,
                a_replayed_row_is_as_it_was, a_dropped_letter_stays_unpublished,
                row_and_letter_change_places_at_once;
            fences: a_fenced_run_is_refused, a_fence_holds_for_every_verdict,
                the_run_that_did_it_is_known, only_the_run_that_did_it_is_done,
                a_fence_concerns_one_run_of_a_batch, fence_and_commit_decide_one_way,
                expiry_lifts_no_fence;
            dead: burying_twice_changes_nothing, a_letter_is_read_as_written, letters_are_listed,
                replay_parks_again, replay_needs_a_record, a_replayed_message_can_be_handled,
                a_replay_survives_the_commit_that_buried, a_dropped_letter_leaves_its_record,
                stats_count;
            keys: odd_keys_stay_apart, parts_of_keys_do_not_run_together, long_keys,
                odd_state_names_stay_apart;
            retention: an_expired_record_is_gone, a_young_record_stays,
                a_run_that_was_checked_before_the_horizon_conflicts,
                parked_and_dead_do_not_expire, plugins_expire_on_their_own,
                a_shorter_retention_takes_hold;
            concurrency: adds_from_many_tasks_add_up, one_of_two_hosts_wins,
                counters_by_read_and_put_add_up;
            model: agrees_with_the_reference,
        }
    };
    ($open:expr => $($module:ident: $($rule:ident),+ $(,)?);+ $(;)?) => {
        $(mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let open = $open;
                    let fixture = open().await;
                    super::suite::$module::$rule(
                        $crate::store_conformance!(@store fixture)
                    ).await;
                }
            )+
        })+
    };
    (@store $fixture:ident) => { $fixture.store() };
}
