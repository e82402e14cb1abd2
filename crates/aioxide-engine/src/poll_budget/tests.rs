//! Tests of the budget.

use super::*;

/// A budget right after a look at time 0.
fn fresh() -> PollBudget {
    let mut budget = PollBudget::new();
    budget.waited(Some(0));
    budget
}

/// How many turns of so many jobs, each taking so long, run until it is time to look.
fn turns_until_spent(budget: &mut PollBudget, jobs: usize) -> u32 {
    let mut turns = 0;
    while !budget.is_spent(None) {
        budget.spend(jobs);
        turns += 1;
    }
    turns
}

#[test]
fn new_budget_calls_for_a_look() {
    let mut budget = PollBudget::new();
    assert!(budget.is_overdue() && budget.is_spent(None));
}

#[test]
fn small_turns_are_bounded_by_their_number() {
    assert_eq!(turns_until_spent(&mut fresh(), 1), MAX_TURNS);
}

#[test]
fn large_turns_are_bounded_by_their_jobs() {
    assert_eq!(turns_until_spent(&mut fresh(), 100), 3);
    assert_eq!(turns_until_spent(&mut fresh(), 1_000), 1);
}

#[test]
fn known_time_bounds_too() {
    let mut budget = fresh();
    budget.spend(1);
    assert!(!budget.is_spent(Some(TARGET_NS - 1)));
    assert!(budget.is_spent(Some(TARGET_NS)));
}

#[test]
fn time_counts_from_when_it_is_first_known() {
    let mut budget = fresh();
    budget.waited(None);
    assert!(!budget.is_spent(Some(1_000_000)));
    assert!(budget.is_spent(Some(1_000_000 + TARGET_NS)));
}

#[test]
fn slow_jobs_soon_have_a_look_each() {
    let mut budget = fresh();
    assert_eq!(turns_until_spent(&mut budget, 1), MAX_TURNS);
    // Each job took a millisecond.
    budget.looked(Some(u64::from(MAX_TURNS) * 1_000_000));
    assert_eq!(turns_until_spent(&mut budget, 1), 1);
    // Now each takes 10 microseconds, then 10 nanoseconds.
    budget.looked(Some(u64::from(MAX_TURNS) * 1_000_000 + 10_000));
    assert_eq!(turns_until_spent(&mut budget, 1), 5);
    budget.looked(Some(u64::from(MAX_TURNS) * 1_000_000 + 10_050));
    assert_eq!(turns_until_spent(&mut budget, 1), MAX_TURNS);
}

#[test]
fn sleep_does_not_make_jobs_look_slow() {
    let mut budget = fresh();
    budget.spend(1);
    budget.waited(Some(1_000_000_000));
    assert_eq!(turns_until_spent(&mut budget, 1), MAX_TURNS);
}

#[test]
fn time_that_stands_still_or_goes_back_is_harmless() {
    let mut budget = fresh();
    budget.waited(Some(1_000));
    budget.spend(usize::MAX);
    budget.spend(usize::MAX);
    assert!(budget.is_spent(Some(0)));
    budget.looked(Some(0));
    assert_eq!(budget.allowance, MAX_JOBS);
}

#[test]
fn exhausted_budget_calls_for_a_look() {
    let mut budget = fresh();
    budget.exhaust();
    assert!(budget.is_spent(None));
    assert!(!budget.is_overdue());
}
