use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

#[test]
fn the_preset_makes_sense_and_nonsense_is_refused() {
    assert_eq!(SnapshotPolicy::production().every_events, Some(200));
    assert!(SnapshotPolicy::production().validate().is_ok());
    let nonsense = [
        SnapshotPolicy::every_events(0),
        SnapshotPolicy::every(Duration::ZERO),
        SnapshotPolicy::new(),
        SnapshotPolicy::every_events(1).with_kept(0),
        SnapshotPolicy::every_events(1).with_kept(101),
    ];
    assert!(nonsense.iter().all(|policy| policy.validate().is_err()));
}

#[test]
fn one_is_due_by_events_or_age_but_never_too_soon() {
    let version = StreamVersion::new;
    let fresh = Since { version: version(0), at: Some(at(0)), taken_at: None };
    let every_10 = SnapshotPolicy::every_events(10);
    assert!(!every_10.is_due(&fresh, version(9), at(1)));
    assert!(every_10.is_due(&fresh, version(10), at(1)));

    let minutely = SnapshotPolicy::every(60 * SECOND);
    assert!(!minutely.is_due(&fresh, version(9), at(59)));
    assert!(minutely.is_due(&fresh, version(1), at(60)));
    assert!(!minutely.is_due(&fresh, version(0), at(60)), "nothing is new");

    let spaced = every_10.with_spacing_min(5 * SECOND);
    let taken = Since { version: version(10), at: Some(at(10)), taken_at: Some(at(10)) };
    assert!(!spaced.is_due(&taken, version(20), at(14)));
    assert!(spaced.is_due(&taken, version(20), at(15)));
}

#[test]
fn a_snapshot_of_a_clock_that_was_ahead_does_not_keep_the_next_one_off() {
    let version = StreamVersion::new;
    let ahead = Some(at(1_000_000));
    let taken = Since { version: version(10), at: ahead, taken_at: ahead };
    let spaced = SnapshotPolicy::every_events(10).with_spacing_min(5 * SECOND);
    assert!(spaced.is_due(&taken, version(20), at(10)));
    assert!(SnapshotPolicy::every(60 * SECOND).is_due(&taken, version(11), at(10)));
    let slightly = Since { taken_at: Some(at(12)), ..taken };
    assert!(!spaced.is_due(&slightly, version(20), at(10)), "clocks of machines differ");
}
