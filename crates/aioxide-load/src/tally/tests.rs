use super::*;

#[test]
fn percentiles_are_values_of_the_sample() {
    let values: Vec<u64> = (1..=100).collect();
    assert_eq!(percentile(&values, 50), 50);
    assert_eq!(percentile(&values, 99), 99);
    assert_eq!(percentile(&values[..1], 99), 1);
    assert_eq!(percentile(&[], 50), 0);
}

#[test]
fn a_counted_phase_begins_that_many() {
    let mut tally = Tally::new(Extent::Count(32), 16);
    let now = Instant::now();
    assert!(tally.begin(now) && tally.begin(now) && !tally.begin(now));
    assert!(tally.is_busy());
    tally.end(Duration::from_nanos(5));
    tally.end(Duration::from_nanos(7));
    assert!(!tally.is_busy());
    assert!(tally.into_json().starts_with(r#"{"messages": 32, "#));
}

#[test]
fn a_timed_phase_ends_with_its_time() {
    let mut tally = Tally::new(Extent::Time(Duration::from_secs(1)), 1);
    assert!(tally.begin(tally.start));
    assert!(!tally.begin(tally.start + Duration::from_secs(1)));
}
