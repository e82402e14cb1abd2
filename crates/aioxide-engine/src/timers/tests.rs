//! Tests of the timers; the model is a `BTreeMap` of `(deadline, order of creation)`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Everything due at `now`, in firing order.
fn fire<J>(heap: &mut TimerHeap<J>, now: u64) -> Vec<J> {
    std::iter::from_fn(|| heap.pop_due(now)).collect()
}

#[test]
fn id_is_small_and_has_a_niche() {
    assert_eq!(size_of::<TimerId>(), 8);
    assert_eq!(size_of::<Option<TimerId>>(), 8);
    assert_eq!(size_of::<Entry>(), 24);
}

#[test]
fn timers_fire_at_their_deadline_and_never_before() {
    let mut heap = TimerHeap::new();
    heap.add(20, "late");
    heap.add(10, "early");
    assert_eq!(fire(&mut heap, 9), [""; 0]);
    assert_eq!(fire(&mut heap, 10), ["early"]);
    assert_eq!(heap.next_deadline(), Some(20));
    assert_eq!(fire(&mut heap, 19), [""; 0]);
    assert_eq!(fire(&mut heap, u64::MAX), ["late"]);
    assert_eq!(heap.next_deadline(), None);
}

#[test]
fn equal_deadlines_fire_in_creation_order() {
    let mut heap = TimerHeap::new();
    for job in 0..300 {
        heap.add(7, job);
    }
    assert_eq!(fire(&mut heap, 7), (0..300).collect::<Vec<_>>());
}

#[test]
fn cancel_works_once() {
    let mut heap = TimerHeap::new();
    let id = heap.add(1, "a");
    assert_eq!(heap.cancel(id), Some("a"));
    assert_eq!(heap.cancel(id), None);
    assert_eq!(fire(&mut heap, 5), [""; 0]);
}

#[test]
fn cancel_after_firing_finds_nothing_although_the_slot_is_used_again() {
    let mut heap = TimerHeap::new();
    let old = heap.add(1, "old");
    assert_eq!(fire(&mut heap, 1), ["old"]);
    let new = heap.add(2, "new");
    assert_eq!(old.slot, new.slot);
    assert_eq!(heap.cancel(old), None);
    assert_eq!(fire(&mut heap, 2), ["new"]);
}

#[test]
fn cancel_of_the_last_leaf_leaves_no_entry() {
    let mut heap = TimerHeap::new();
    heap.add(1, 0);
    for job in 1..if cfg!(miri) { 100 } else { 100_000 } {
        let id = heap.add(2, job);
        assert_eq!(heap.cancel(id), Some(job));
        assert_eq!(heap.entries.len(), 1);
    }
    assert_eq!(heap.slots.len(), 2);
}

#[test]
fn cancelled_timers_do_not_pile_up() {
    let mut heap = TimerHeap::new();
    heap.add(0, 0);
    for round in 0..300_u64 {
        // The later timer keeps the earlier from being the last leaf.
        let early = heap.add(1_000_000 - round, 1);
        let late = heap.add(2_000_000 + round, 2);
        heap.cancel(early);
        if round % 2 == 0 {
            heap.cancel(late);
        }
        assert!(heap.dead < REBUILD_MINIMUM || heap.dead <= heap.entries.len() / 2);
    }
    assert_eq!(fire(&mut heap, u64::MAX).len(), 151);
}

#[test]
fn cancelled_entries_vanish_when_none_is_pending() {
    let mut heap = TimerHeap::new();
    let ids: Vec<_> = (0..10).map(|job| heap.add(job, job)).collect();
    for id in ids {
        heap.cancel(id);
    }
    assert!(heap.entries.is_empty());
    assert_eq!(heap.dead, 0);
}

#[test]
fn slot_with_used_up_generations_is_retired() {
    let mut heap = TimerHeap::new();
    heap.add(1, "a");
    heap.slots[0].generation = NonZeroU32::MAX;
    heap.entries[0].id.generation = NonZeroU32::MAX;
    let last = heap.entries[0].id;
    assert_eq!(heap.cancel(last), Some("a"));
    let next = heap.add(1, "b");
    assert_eq!(next.slot, 1);
    assert_eq!(heap.cancel(last), None);
    assert_eq!(fire(&mut heap, 1), ["b"]);
}

#[test]
fn take_into_leaves_nothing_and_old_ids_dead() {
    let mut heap = TimerHeap::new();
    let first = heap.add(5, 1);
    let second = heap.add(6, 2);
    heap.add(7, 3);
    heap.cancel(first);
    let mut taken = Vec::new();
    heap.take_into(&mut taken);
    taken.sort_unstable();
    assert_eq!(taken, [2, 3]);
    assert_eq!(heap.cancel(second), None);
    assert_eq!(heap.next_deadline(), None);
    heap.for_each(|_| unreachable!("all jobs were taken"));
}

/// What happens to the heap and to the model.
#[derive(Clone, Debug)]
enum Step {
    /// Add a timer that is due so long after now.
    Add(u64),
    /// Cancel one of the timers made so far, pending or not.
    Cancel(prop::sample::Index),
    /// Let time pass and fire what is due.
    Advance(u64),
}

/// Few distinct deadlines, so that many are equal.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u64).prop_map(Step::Add),
        1 => (1_000_000..1_000_100_u64).prop_map(Step::Add),
        1 => Just(Step::Add(u64::MAX)),
        4 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => (0..8_u64).prop_map(Step::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: if cfg!(miri) { 4 } else { 256 },
        ..ProptestConfig::default()
    })]

    #[test]
    fn heap_behaves_like_an_ordered_map(steps in prop::collection::vec(step(), 0..if cfg!(miri) { 100 } else { 1200 })) {
        let mut heap = TimerHeap::new();
        let mut model = BTreeMap::new();
        let mut made = Vec::new();
        let mut now = 0_u64;
        for step in steps {
            match step {
                Step::Add(delay) => {
                    let deadline = now.saturating_add(delay);
                    let job = made.len();
                    made.push((deadline, heap.add(deadline, job)));
                    model.insert((deadline, job), job);
                }
                Step::Cancel(index) if !made.is_empty() => {
                    let job = index.index(made.len());
                    let (deadline, id) = made[job];
                    prop_assert_eq!(heap.cancel(id), model.remove(&(deadline, job)));
                }
                Step::Cancel(_) => {}
                Step::Advance(delay) => {
                    now += delay;
                    let later = model.split_off(&(now + 1, 0));
                    let due: Vec<_> = std::mem::replace(&mut model, later).into_values().collect();
                    prop_assert_eq!(fire(&mut heap, now), due);
                }
            }
            prop_assert_eq!(heap.next_deadline(), model.first_key_value().map(|(key, _)| key.0));
            prop_assert_eq!(heap.entries.len() - heap.dead, model.len());
        }
        let live = heap.slots.iter().filter(|slot| slot.job.is_some()).count();
        prop_assert_eq!(live, model.len());
        prop_assert_eq!(fire(&mut heap, u64::MAX), model.into_values().collect::<Vec<_>>());
    }
}
