use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: i64 = 1_795_253_528_006;

fn stream(shards: usize) -> Stream {
    Stream::new(NOW, shards, Limits::default())
}

fn entry(key: &str, data: impl Into<Bytes>) -> Entry {
    Entry { partition_key: key.into(), explicit_hash_key: None, data: data.into() }
}

fn at(hash_key: u128) -> Entry {
    Entry { explicit_hash_key: Some(hash_key), ..entry("k", "") }
}

fn read(stream: &Stream, shard: &str, position: Position) -> Vec<Record> {
    let iterator = stream.iterator(NOW, shard, position).unwrap();
    stream.get_records(NOW, &iterator, 10_000).unwrap().records
}

fn open_ids(stream: &Stream) -> Vec<String> {
    stream.open_within(&(0..=u128::MAX))
}

#[test]
fn a_record_goes_to_the_shard_of_its_explicit_hash_key_or_the_md5_of_its_key() {
    let mut stream = stream(4);
    // MD5("a") = 0cc1…, MD5("b") = 92eb…
    for (key, shard) in [("a", "shardId-000000000000"), ("b", "shardId-000000000002")] {
        assert_eq!(stream.put(NOW, entry(key, "x")).unwrap().shard_id, shard);
    }
    let quarter = u128::MAX / 4;
    for (hash_key, shard) in [(0, 0), (quarter - 1, 0), (quarter, 1), (2 * quarter, 2), (u128::MAX, 3)] {
        assert_eq!(stream.put(NOW, at(hash_key)).unwrap().shard_id, format!("shardId-{shard:012}"), "{hash_key}");
    }
}

#[test]
fn equal_ranges_are_the_whole_space_without_gaps() {
    for count in 1..50 {
        let ranges = equal_ranges(count);
        assert_eq!((ranges.len(), *ranges[0].start(), *ranges[count - 1].end()), (count, 0, u128::MAX));
        assert!(ranges.windows(2).all(|pair| pair[0].end() + 1 == *pair[1].start()));
    }
}

#[test]
fn a_record_of_the_limit_is_taken_and_one_of_a_byte_more_is_not() {
    let mut stream = stream(1);
    let of = |bytes: usize| entry("k", vec![0; bytes - 1]);
    stream.put(NOW, of(MIB)).unwrap();
    assert_eq!(stream.put(NOW, of(MIB + 1)).unwrap_err().code(), "ValidationException");
    let call = stream.put_records(NOW, vec![of(1), of(MIB + 1)]);
    assert_eq!((call.unwrap_err().code(), stream.records().count()), ("ValidationException", 1));
}

#[test]
fn a_call_of_the_limits_is_taken_whole_and_one_past_them_not_at_all() {
    let mut stream = stream(1);
    let put = |stream: &mut Stream, count: usize, bytes: usize| {
        let outcomes = stream.put_records(NOW, vec![entry("k", vec![0; bytes - 1]); count]);
        outcomes.map(|outcomes| outcomes.iter().filter(|outcome| outcome.is_ok()).count())
    };
    assert_eq!(put(&mut stream, 500, 1), Ok(500));
    assert_eq!(put(&mut stream, 5, MIB), Ok(5));
    for (count, bytes) in [(0, 1), (501, 1), (6, MIB)] {
        assert!(put(&mut stream, count, bytes).is_err(), "{count} of {bytes}");
    }
    assert_eq!(stream.records().count(), 505);
}

#[test]
fn a_partition_key_has_1_to_256_characters() {
    for (key, fits) in [(String::new(), false), ("é".repeat(256), true), ("é".repeat(257), false)] {
        assert_eq!(stream(1).put(NOW, entry(&key, "")).is_ok(), fits, "{key}");
    }
}

#[test]
fn a_shard_takes_its_rate_in_each_second_and_throttles_each_record_past_it() {
    let rate = ShardRate { bytes_per_second: 10, records_per_second: 3 };
    let mut stream = Stream::new(NOW, 2, Limits { shard_rate: Some(rate), ..Limits::default() });
    let outcomes = |stream: &mut Stream, now, sizes: &[usize]| {
        let entries = sizes.iter().map(|size| Entry { data: vec![0; size - 1].into(), ..at(0) }).collect();
        let outcomes = stream.put_records(now, entries).unwrap();
        outcomes.iter().map(|outcome| outcome.as_ref().map_or_else(KinesisError::code, |_| "")).collect::<Vec<_>>()
    };
    const THROTTLED: &str = "ProvisionedThroughputExceededException";
    assert_eq!(outcomes(&mut stream, 1_000, &[6, 5, 4, 1]), ["", THROTTLED, "", THROTTLED]);
    assert!(stream.put(1_000, at(u128::MAX)).is_ok(), "another shard has its own rate");
    assert_eq!(outcomes(&mut stream, 1_999, &[1]), [THROTTLED]);
    assert_eq!(outcomes(&mut stream, 2_000, &[1, 1, 1, 1]), ["", "", "", THROTTLED]);
}

#[test]
fn reading_begins_where_the_iterator_says() {
    let mut stream = stream(1);
    let placed: Vec<_> = (0..5).map(|n| stream.put(NOW + n * 10, entry("k", vec![])).unwrap()).collect();
    let shard = &placed[0].shard_id;
    let number = placed[2].sequence_number;
    for (position, count) in [
        (Position::TrimHorizon, 5),
        (Position::Latest, 0),
        (Position::AtSequenceNumber(number), 3),
        (Position::AfterSequenceNumber(number), 2),
        (Position::AtTimestamp(NOW), 5),
        (Position::AtTimestamp(NOW + 11), 3),
        (Position::AtTimestamp(NOW + 41), 0),
    ] {
        assert_eq!(read(&stream, shard, position).len(), count, "{position:?}");
    }
    assert_eq!(stream.iterator(NOW, "shardId-9", Position::Latest).unwrap_err().code(), "ResourceNotFoundException");
}

#[test]
fn reading_stops_at_the_limits_of_a_call_and_says_how_far_behind_it_is() {
    let mut stream = Stream::new(NOW, 1, Limits { record_bytes: 10 * MIB, ..Limits::default() });
    for (n, bytes) in [4 * MIB, 4 * MIB, 4 * MIB, 1].into_iter().enumerate() {
        stream.put(NOW + n as i64, entry("k", vec![0; bytes])).unwrap();
    }
    let shard = stream.shards()[0].id.clone();
    let iterator = stream.iterator(NOW, &shard, Position::TrimHorizon).unwrap();
    let batch = stream.get_records(NOW + 100, &iterator, 10_000).unwrap();
    assert_eq!((batch.records.len(), batch.millis_behind_latest), (2, 99));
    let batch = stream.get_records(NOW + 100, &batch.next.unwrap(), 1).unwrap();
    assert_eq!((batch.records.len(), batch.millis_behind_latest), (1, 98));
    let batch = stream.get_records(NOW + 100, &batch.next.unwrap(), 1).unwrap();
    assert_eq!((batch.records.len(), batch.millis_behind_latest), (1, 0));
    for limit in [0, 10_001] {
        assert_eq!(stream.get_records(NOW, &iterator, limit).unwrap_err().code(), "ValidationException");
    }
}

#[test]
fn an_iterator_is_good_for_five_minutes() {
    let stream = stream(1);
    let iterator = stream.iterator(NOW, &stream.shards()[0].id, Position::TrimHorizon).unwrap();
    assert!(stream.get_records(NOW + ITERATOR_LIFE_MS, &iterator, 1).is_ok());
    assert_eq!(stream.get_records(NOW + ITERATOR_LIFE_MS + 1, &iterator, 1), Err(KinesisError::ExpiredIterator));
}

#[test]
fn a_closed_shard_is_read_to_its_end_and_names_its_children() {
    let mut stream = stream(1);
    stream.put(NOW, at(0)).unwrap();
    let parent = stream.shards()[0].id.clone();
    let iterator = stream.iterator(NOW, &parent, Position::TrimHorizon).unwrap();
    let before = stream.get_records(NOW, &iterator, 10).unwrap();
    assert!(before.next.is_some() && before.child_shards.is_empty());
    stream.split(NOW, &parent, 1 << 127).unwrap();
    let batch = stream.get_records(NOW, &iterator, 10).unwrap();
    assert_eq!((batch.records.len(), batch.next), (1, None));
    assert_eq!(batch.child_shards, ["shardId-000000000001", "shardId-000000000002"]);
    stream.merge(NOW, &batch.child_shards[1], &batch.child_shards[0]).unwrap();
    assert_eq!(stream.shard("shardId-000000000003").unwrap().hash_keys, 0..=u128::MAX);
    let ended = stream.shard(&parent).unwrap().ending_sequence_number.unwrap();
    let started = stream.shard(&batch.child_shards[0]).unwrap().starting_sequence_number;
    assert!(stream.records().all(|record| record.sequence_number < ended) && ended <= started);
}

#[test]
fn only_open_shards_split_inside_their_range_or_merge_with_a_neighbour() {
    let mut stream = stream(3);
    let ids = open_ids(&stream);
    assert!(stream.merge(NOW, &ids[0], &ids[2]).is_err());
    assert!(stream.merge(NOW, &ids[0], &ids[0]).is_err());
    let second = *stream.shard(&ids[1]).unwrap().hash_keys.start();
    assert!(stream.split(NOW, &ids[1], second).is_err());
    assert!(stream.split(NOW, &ids[0], second).is_err());
    stream.split(NOW, &ids[1], second + 1).unwrap();
    assert_eq!(stream.split(NOW, &ids[1], second + 2).unwrap_err().code(), "InvalidArgumentException");
    assert_eq!(stream.split(NOW, "shardId-9", 1).unwrap_err().code(), "ResourceNotFoundException");
}

#[test]
fn records_and_closed_shards_are_gone_when_their_retention_is_over() {
    let limits = Limits { retention_ms: 100, ..Limits::default() };
    let mut stream = Stream::new(NOW, 1, limits);
    let old = stream.put(NOW, at(0)).unwrap();
    stream.put(NOW + 50, at(0)).unwrap();
    let iterator = stream.iterator(NOW, &old.shard_id, Position::TrimHorizon).unwrap();
    stream.split(NOW + 50, &old.shard_id, 1).unwrap();
    stream.trim(NOW + 100);
    assert_eq!(stream.records().count(), 2);
    stream.trim(NOW + 101);
    let batch = stream.get_records(NOW + 101, &iterator, 10).unwrap();
    assert_eq!(batch.records.iter().map(|record| record.arrived_at).collect::<Vec<_>>(), [NOW + 50]);
    stream.trim(NOW + 151);
    assert_eq!(stream.shard(&old.shard_id).unwrap_err().code(), "ResourceNotFoundException");
    assert_eq!(stream.shards().len(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Put { key: u8 },
    Split { shard: usize, part: u8 },
    Merge { shard: usize },
    Count(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..8u8).prop_map(|key| Step::Put { key }),
        2 => (any::<usize>(), 1..=255u8).prop_map(|(shard, part)| Step::Split { shard, part }),
        2 => any::<usize>().prop_map(|shard| Step::Merge { shard }),
        1 => (1..6usize).prop_map(Step::Count),
    ]
}

fn take(stream: &mut Stream, step: &Step, number: usize) {
    let open = open_ids(stream);
    match *step {
        Step::Put { key } => drop(stream.put(NOW, entry(&key.to_string(), number.to_string())).unwrap()),
        Step::Split { shard, part } => {
            let id = &open[shard % open.len()];
            let (first, last) = stream.shard(id).unwrap().hash_keys.clone().into_inner();
            let at = first + (last - first) / 256 * u128::from(part);
            assert_eq!(stream.split(NOW, id, at).is_ok(), at > first);
        }
        Step::Merge { shard } if open.len() > 1 => {
            let lower = shard % (open.len() - 1);
            stream.merge(NOW, &open[lower], &open[lower + 1]).unwrap();
        }
        Step::Merge { .. } => {}
        Step::Count(count) => {
            stream.update_shard_count(NOW, count).unwrap();
            assert_eq!(open_ids(stream).len(), count);
        }
    }
}

/// All records by key as a reader finds them that reads parents to their end before their children, `limit` at a time.
fn read_parents_first(stream: &Stream, limit: usize) -> BTreeMap<String, Vec<usize>> {
    let mut by_key: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    // Children are made after their parents.
    for shard in stream.shards() {
        let mut next = Some(stream.iterator(NOW, &shard.id, Position::TrimHorizon).unwrap());
        while let Some(iterator) = next {
            let batch = stream.get_records(NOW, &iterator, limit).unwrap();
            let is_over = batch.records.is_empty();
            for record in batch.records {
                let number = std::str::from_utf8(&record.data).unwrap().parse().unwrap();
                by_key.entry(record.partition_key).or_default().push(number);
            }
            next = batch.next.filter(|_| !is_over);
        }
    }
    by_key
}

proptest! {
    #[test]
    fn whatever_is_split_and_merged_each_record_is_read_once_and_in_the_order_of_its_key(
        shards in 1..4usize, steps in prop::collection::vec(step(), 0..60), limit in 1..7usize,
    ) {
        let mut stream = stream(shards);
        let mut put: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, step) in steps.iter().enumerate() {
            take(&mut stream, step, number);
            if let Step::Put { key } = step {
                put.entry(key.to_string()).or_default().push(number);
            }
        }
        prop_assert_eq!(read_parents_first(&stream, limit), put);
        let mut open: Vec<_> = stream.open_shards().map(|shard| shard.hash_keys.clone()).collect();
        open.sort_by_key(|range| *range.start());
        prop_assert!(*open[0].start() == 0 && *open[open.len() - 1].end() == u128::MAX);
        prop_assert!(open.windows(2).all(|pair| pair[0].end() + 1 == *pair[1].start()));
        for shard in stream.shards() {
            prop_assert!(shard.records().is_sorted_by(|one, next| one.sequence_number < next.sequence_number));
            prop_assert!(shard.is_open() || !stream.children(&shard.id).is_empty());
        }
    }
}
