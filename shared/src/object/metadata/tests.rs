use super::*;
use crate::line::Kind;
use crate::object::{FirstRecord, RejectedName, SpillId};
use proptest::prelude::*;
use rstest::rstest;

#[rstest]
#[case(0, 1)]
#[case(40_000, 1)]
#[case(100_000, 1)]
#[case(100_001, 2)]
#[case(900_000, 9)]
#[case(6_000_000, 9)]
fn the_block_fits_the_data(#[case] bytes: usize, #[case] units: u8) {
    assert_eq!(BlockSize::fitting(bytes).units(), units);
}

#[rstest]
#[case(10_001, true)]
#[case(10_000, false)]
#[case(0, false)]
#[case(-20_000, false)]
fn of_two_attempts_the_order_is_certain_once_a_start_lies_between(#[case] apart: i64, #[case] certain: bool) {
    let attempt = |began, time| Attempt {
        began: UnixMillis(began),
        deadline: UnixMillis(began + time),
        request_id: began.to_string(),
    };
    let (one, other) = (attempt(100_000 + apart, 60_000), attempt(100_000, 60_000));
    assert_eq!(one.is_certainly_later_than(&other), certain);
    let later = one.later_of(&other);
    assert_eq!((later.began.0, later.deadline.0), (100_000 + apart.max(0), 160_000 + apart.max(0)));
    // With another timeout than the function has now, or after a stand-still: nothing is certain.
    assert!(!one.is_certainly_later_than(&attempt(100_000, 60_000 + apart)));
    assert!(!attempt(99_000, 90_000 + apart).is_certainly_later_than(&other));
}

#[rstest]
#[case::first_moment_of_the_hour(0, None, [0, 1, 0, 0])]
#[case::its_last(3_599_999, None, [0, 1, 0, 0])]
#[case::just_before(-1, None, [1, 0, 0, 0])]
#[case::an_hour_before(-3_600_000, None, [1, 0, 0, 0])]
#[case::more_than_an_hour_before(-3_600_001, None, [0, 0, 0, 1])]
#[case::just_after(3_600_000, None, [0, 0, 1, 0])]
#[case::an_hour_after(7_199_999, None, [0, 0, 1, 0])]
#[case::more_than_an_hour_after(7_200_000, None, [0, 0, 0, 1])]
#[case::rejected_by_ingest(0, Some(Reason::TooDeep), [0, 1, 0, 0])]
#[case::rejected_by_landing(0, Some(Reason::ForeignRecord), [0, 0, 0, 1])]
fn lines_are_counted_by_the_hour_of_their_receipt(
    #[case] millis: i64,
    #[case] reason: Option<Reason>,
    #[case] expected: [u64; 4],
) {
    let hour = UtcHour::parse("dt=2026-11-21/hour=00").unwrap();
    let kind = if reason.is_some() { Kind::Rejected } else { Kind::Event };
    let line = LineHead { kind, received_at: Some(UnixMillis(hour.start().0 + millis)), reason };
    let mut counted = ReceivedIn::default();
    counted.count(line, hour);
    let [previous, this, next, elsewhere] = expected;
    assert_eq!(counted, ReceivedIn { previous, this, next, elsewhere });
    counted.count(LineHead { received_at: None, ..line }, hour);
    assert_eq!(counted, ReceivedIn { elsewhere: elsewhere + 1, ..counted });
    counted.add_all(counted);
    assert_eq!(counted.total(), 4);
}

#[test]
fn block_sizes_go_round_and_always_change() {
    let mut size = BlockSize::new(1).unwrap();
    let mut seen = Vec::new();
    for _ in 0..9 {
        seen.push(size.units());
        assert_ne!(size.next(), size);
        size = size.next();
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(size.units(), 1);
    assert!(BlockSize::new(0).is_none() && BlockSize::new(10).is_none());
}

#[rstest]
#[case::nothing_deleted(None, Some([0, 0, 0, 0]))]
#[case::counted_by_hour(Some("previous=1,this=2,next=3,elsewhere=4"), Some([1, 2, 3, 4]))]
#[case::malformed(Some("this=2"), None)]
fn deleted_lines_are_counted_as_received_ones(#[case] entry: Option<&str>, #[case] expected: Option<[u64; 4]>) {
    let entries = entry.map(|text| ("deleted-in".to_owned(), text.to_owned())).into_iter().collect();
    let [previous, this, next, elsewhere] = expected.unwrap_or_default();
    let counts = ReceivedIn { previous, this, next, elsewhere };
    assert_eq!(ReceivedIn::deleted(&entries), expected.map(|_| counts).ok_or(MetadataError("deleted-in")));
}

fn spilled() -> ObjectMetadata {
    ObjectMetadata {
        event_format: EventFormat::Envelope,
        last_sequence_number: None,
        record_count: 0,
        event_count: 2,
        uncompressed_bytes: 9,
        uncompressed_sha256: "0".repeat(64),
        received_in: ReceivedIn { this: 2, ..ReceivedIn::default() },
        rejected_reasons: BTreeMap::new(),
        earliest_received_at: UnixMillis(1),
        latest_received_at: UnixMillis(2),
        block_size: BlockSize::LARGEST,
        attempt: Attempt { began: UnixMillis(1), deadline: UnixMillis(3), request_id: "r".into() },
    }
}

#[test]
fn metadata_of_what_never_was_on_the_stream_has_no_records() {
    let entries = spilled().to_entries();
    assert!(!entries.contains_key("last-sequence-number"));
    assert_eq!(entries["record-count"], "0");
    let first = FirstRecord { shard_id: "shardId-000000000000".into(), sequence_number: "1".into() };
    let (id, last, count) = (SpillId(1), MetadataError("last-sequence-number"), MetadataError("record-count"));
    for name in [ObjectName::Spilled(id), ObjectName::Redriven(RejectedName::Spilled(id))] {
        let parse = |metadata: ObjectMetadata| ObjectMetadata::from_entries(&name, &metadata.to_entries());
        assert_eq!(parse(spilled()), Ok(spilled()));
        assert_eq!(parse(ObjectMetadata { last_sequence_number: Some("1".into()), ..spilled() }), Err(last.clone()));
        assert_eq!(parse(ObjectMetadata { record_count: 1, ..spilled() }), Err(count.clone()));
    }
    for name in [ObjectName::Landed(first.clone()), ObjectName::Redriven(RejectedName::Landed(first))] {
        assert_eq!(ObjectMetadata::from_entries(&name, &entries), Err(last.clone()));
    }
}

proptest! {
    #[test]
    fn metadata_survives_its_entries(
        record_count: u64, event_count: u64, uncompressed_bytes: u64, sha in "[0-9a-f]{64}", last in "[0-9]{1,128}",
        is_redriven: bool,
        earliest in 0i64..4_000_000_000_000, latest in 0i64..4_000_000_000_000, units in 1u8..=9,
        began in 0i64..4_000_000_000_000, deadline in 0i64..4_000_000_000_000, request_id in "[0-9a-f-]{1,36}",
        (previous, this, next, elsewhere) in any::<(u64, u64, u64, u64)>(), raw: bool,
        rejected_reasons in prop::collection::btree_map(prop::sample::select(Reason::ALL.to_vec()), any::<u64>(), 0..16),
    ) {
        let metadata = ObjectMetadata {
            event_format: if raw { EventFormat::Raw } else { EventFormat::Envelope },
            last_sequence_number: Some(last),
            record_count,
            event_count,
            uncompressed_bytes,
            uncompressed_sha256: sha,
            received_in: ReceivedIn { previous, this, next, elsewhere },
            rejected_reasons,
            earliest_received_at: UnixMillis(earliest),
            latest_received_at: UnixMillis(latest),
            block_size: BlockSize::new(units).expect("in range"),
            attempt: Attempt { began: UnixMillis(began), deadline: UnixMillis(deadline), request_id },
        };
        let writing = Writing {
            uncompressed_sha256: Some(metadata.uncompressed_sha256.clone()),
            block_size: Some(metadata.block_size),
            attempt: Some(metadata.attempt.clone()),
        };
        let first = FirstRecord { shard_id: "shardId-000000000000".into(), sequence_number: "1".into() };
        let object = if is_redriven { ObjectName::Redriven(RejectedName::Landed(first)) } else { ObjectName::Landed(first) };
        let mut entries = metadata.to_entries();
        // S3 takes 2 KB of names and values.
        prop_assert!(entries.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() < 2_000);
        prop_assert_eq!(ObjectMetadata::from_entries(&object, &entries), Ok(metadata));
        for name in entries.keys().cloned().collect::<Vec<_>>() {
            let value = entries.remove(&name).expect("the key is there");
            let missing = Writing::from_entries(&entries);
            match name.as_str() {
                "uncompressed-sha256" => prop_assert!(missing.uncompressed_sha256.is_none()),
                "bzip2-block-size" => prop_assert!(missing.block_size.is_none()),
                name if name.starts_with("attempt-") => prop_assert!(missing.attempt.is_none()),
                _ => prop_assert_eq!(&missing, &writing),
            }
            let may_be_missing = ["rejected-reasons", "event-format"].contains(&name.as_str());
            prop_assert_eq!(ObjectMetadata::from_entries(&object, &entries).is_ok(), may_be_missing);
            entries.insert(name, value);
        }
    }
}
