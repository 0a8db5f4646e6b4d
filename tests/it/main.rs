//! End-to-end tests: schedulers, workers and clients as processes of their own, over real QUIC.
//!
//! This very program is everything there is: the tests, the clients in them, what workers start,
//! and, told so by a variable, schedulers, nannies and second client programs ([`role`]). That is
//! why its `main` begins with [`rdask::init`] and the harness is a library.
//!
//! First those run together that spend their time waiting, then the others one after the other,
//! unless `--test-threads` says otherwise: some of them measure.

#![expect(clippy::unwrap_used, reason = "a test that can not go on ends")]

mod api;
mod blame;
mod data;
mod documents;
mod failures;
mod fairness;
mod gather;
mod intruders;
mod leave;
mod links;
mod nesting;
mod offers;
mod options;
mod overrun;
mod parts;
mod path;
mod program;
mod programs;
mod reasons;
mod release;
mod scheduler_file;
mod sockets;
mod values;
mod wiretap;

use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Conclusion, Trial};
// As if they were modules of this program.
use rdask_testbed::{cluster, proc, role};

/// No test takes so long on a busy machine: one that does hangs, and ends the program.
const TEST_TIME_MAX: Duration = Duration::from_secs(180);

/// Names tests after their functions.
macro_rules! trials {
    ($($area:ident :: $test:ident),+ $(,)?) => {
        vec![$(Trial::test(concat!(stringify!($area), "::", stringify!($test)), || {
            timed(concat!(stringify!($area), "::", stringify!($test)), $area::$test);
            Ok(())
        })),+]
    };
}

fn main() {
    rdask::init();
    role::play(program::play);
    let arguments = Arguments::from_args();
    let together = run(&arguments, patient_trials().len(), patient_trials());
    let in_turn = run(&arguments, 1, trials());
    if together.has_failed() {
        together.exit();
    }
    in_turn.exit();
}

fn run(arguments: &Arguments, threads: usize, trials: Vec<Trial>) -> Conclusion {
    let mut arguments = arguments.clone();
    arguments.test_threads.get_or_insert(threads);
    libtest_mimic::run(&arguments, trials)
}

/// They wait for seconds: for who is silent to be given up, or for a file that doesn't come.
fn patient_trials() -> Vec<Trial> {
    trials![
        links::a_client_whose_path_is_cut_for_seconds_misses_nothing,
        links::a_worker_whose_path_is_cut_for_a_moment_keeps_its_work,
        links::a_scheduler_that_stands_still_gives_nobody_up,
        links::a_node_that_stands_still_is_given_up_after_a_while_and_comes_back,
        offers::a_node_that_was_given_up_comes_back_with_what_it_holds,
        offers::a_run_that_ends_while_its_node_is_given_up_counts,
        documents::every_line_to_type_is_one_that_works,
        documents::the_cluster_of_the_readme_comes_up_and_computes,
        gather::a_gather_goes_on_when_the_node_of_the_holder_falls_silent,
        reasons::every_task_that_waits_says_why,
        intruders::the_file_of_another_run_is_told_to_be_so,
        scheduler_file::the_file_of_a_dead_scheduler_is_told_to_be_stale,
        scheduler_file::a_file_that_is_not_there_raises_the_right_questions,
        scheduler_file::garbage_is_told_from_half_a_file,
    ]
}

fn trials() -> Vec<Trial> {
    trials![
        data::many_tiny_tasks_are_mapped_and_gathered_in_seconds,
        data::a_random_graph_of_ten_thousand_tasks_has_the_right_values,
        data::a_tiny_task_costs_the_scheduler_its_values_and_sixteen_bytes,
        nesting::ten_thousand_parents_wait_for_children_on_two_threads,
        nesting::ten_thousand_parents_wait_for_children_on_processes_with_two_slots,
        nesting::ten_thousand_parents_wait_for_children_in_two_processes,
        nesting::nesting_may_be_deep,
        nesting::what_a_cancelled_task_has_submitted_is_cancelled,
        values::chains_of_large_values_in_one_process_are_not_encoded,
        values::a_huge_argument_arrives_while_others_are_served,
        values::lists_of_thirty_thousand_come_whole_and_longer_ones_are_refused,
        values::vectors_of_numbers_come_back_as_they_were,
        values::large_results_go_from_process_to_process_and_to_the_client,
        sockets::values_stay_on_their_host,
        sockets::what_may_not_be_read_in_memory_comes_by_socket,
        sockets::who_dies_while_its_memory_is_read_gives_no_value,
        sockets::without_sockets_values_go_over_the_network,
        sockets::a_killed_process_leaves_no_socket_and_its_values_are_made_again,
        fairness::a_second_client_of_a_program_gets_its_half,
        fairness::a_client_of_a_second_program_gets_its_half,
        fairness::a_client_that_was_idle_gets_its_half_and_no_more,
        programs::two_programs_at_a_time_run_their_own_code,
        programs::a_program_that_is_built_anew_at_the_same_place_runs_its_new_code,
        programs::a_program_that_is_deleted_while_it_runs_still_works,
        programs::a_program_that_the_scheduler_cannot_keep_is_told_to_be_so,
        programs::no_process_outlives_its_nanny,
        programs::a_name_brings_results_from_one_program_to_the_next,
        failures::a_panic_is_told_and_ends_nothing_else,
        failures::an_err_fails_its_task_and_what_depends_on_it_once,
        failures::panics_in_serialize_and_drop_are_told_and_end_nothing_else,
        failures::texts_of_any_length_come_cut,
        failures::the_tasks_of_a_killed_process_run_again,
        failures::results_that_only_a_killed_process_had_are_made_again,
        leave::what_a_leaving_worker_holds_is_copied_and_not_made_again,
        leave::retired_workers_go_and_leave_what_they_hold,
        leave::a_scattered_value_with_two_holders_survives_the_death_of_one,
        leave::a_process_that_gets_sigterm_goes_on,
        leave::a_nanny_whose_parent_dies_takes_that_as_a_notice,
        gather::a_gather_goes_on_when_the_holder_is_killed,
        blame::a_killer_among_a_thousand_ends_after_three_runs_and_the_others_are_right,
        blame::each_way_to_die_is_told,
        blame::a_memory_hog_is_told_to_be_one,
        blame::who_dies_once_succeeds,
        blame::async_tasks_are_on_the_board_too,
        blame::a_result_that_kills_when_it_is_encoded_is_not_made_for_ever,
        blame::processes_killed_from_outside_cost_time_only,
        overrun::the_slot_of_a_cancelled_task_is_free_within_its_grace_time,
        overrun::a_thread_that_does_not_stop_is_left_alone,
        overrun::neighbours_of_a_task_that_does_not_time_out_in_good_order_are_right,
        release::what_nobody_has_a_handle_of_does_not_start,
        release::inputs_stay_while_a_dependent_needs_them,
        release::a_part_of_a_map_keeps_only_itself,
        release::a_client_that_leaves_takes_its_tasks_along,
        api::results_come_in_the_order_of_what_they_were_made_from,
        api::as_completed_gives_every_result_once_and_early_ones_first,
        api::waiting_may_end_before_the_tasks_do,
        api::cancelling_ends_what_depends_on_a_task_and_nothing_else,
        api::scattered_values_feed_many_tasks,
        api::trees_fold_in_order,
        api::async_functions_may_use_the_timers_of_tokio,
        api::the_async_client_waits_without_blocking,
        api::names_keep_results_until_they_are_attached,
        options::higher_priorities_go_first,
        options::failed_tasks_run_again_as_often_as_they_may,
        options::a_run_may_time_out,
        options::wide_tasks_take_as_many_slots_as_they_say,
        options::resources_limit_what_runs_at_a_time,
        options::tasks_run_where_they_may,
        parts::a_task_has_several_outputs_short_and_long,
        parts::a_task_with_one_output_is_a_task_with_several,
        parts::a_wrong_number_of_outputs_fails_its_task_with_both_numbers,
        parts::a_shuffle_moves_each_piece_once_at_most,
        parts::outputs_that_only_a_killed_process_had_are_made_again,
        reasons::results_are_the_same_at_random_places,
        reasons::a_reduction_of_large_values_moves_little,
        intruders::a_stranger_without_the_file_is_turned_away,
        intruders::a_scheduler_tells_a_client_of_another_version_both_versions,
        intruders::clients_and_workers_of_another_version_than_the_scheduler_say_both_versions,
        intruders::a_program_of_another_version_than_the_nanny_says_both_versions,
        intruders::a_nanny_tells_the_client_of_a_program_of_another_version_both_versions,
        intruders::garbage_harms_neither_scheduler_nor_workers,
        wiretap::the_wire_shows_neither_values_nor_keys,
        wiretap::no_secret_is_in_an_argument_list_an_environment_or_a_log,
        scheduler_file::a_file_that_others_can_read_is_refused_with_the_command_to_run,
        scheduler_file::a_file_of_a_later_version_names_both_versions,
        scheduler_file::a_client_that_is_too_early_waits_for_the_file,
    ]
}

/// Runs a test, says how long it took, and ends the program if it hangs.
#[expect(clippy::print_stderr, reason = "for whoever watches the tests")]
fn timed(name: &'static str, test: fn()) {
    let started = Instant::now();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if ended.recv_timeout(TEST_TIME_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs: not over after {TEST_TIME_MAX:?}");
            std::process::exit(101);
        }
    });
    test();
    drop(end);
    eprintln!("{name}: {:.2} s", started.elapsed().as_secs_f64());
}
