//! CBOR for JSON: some SDKs speak it to Kinesis and CloudWatch. Data are bytes in it, and times have a tag.

use base64_simd::STANDARD as BASE64;
use ciborium::Value as Cbor;
use serde_json::{Number, Value, json};

/// RFC 8949: a time since 1970.
const TIME: u64 = 1;

/// What a service counts times in. In JSON all are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeUnit {
    Seconds,
    Milliseconds,
}

impl TimeUnit {
    const fn per_second(self) -> f64 {
        match self {
            Self::Seconds => 1.0,
            Self::Milliseconds => 1_000.0,
        }
    }
}

/// A request as JSON, or why it is none.
pub(crate) fn read(body: &[u8], unit: TimeUnit) -> Result<Value, String> {
    let value: Cbor = ciborium::from_reader(body).map_err(|problem| problem.to_string())?;
    to_json(value, unit)
}

fn to_json(value: Cbor, unit: TimeUnit) -> Result<Value, String> {
    match value {
        Cbor::Null => Ok(Value::Null),
        Cbor::Bool(value) => Ok(Value::from(value)),
        // No request has a number that JSON can't express.
        Cbor::Float(value) => Ok(Number::from_f64(value).map_or_else(|| json!(value.to_string()), Value::Number)),
        Cbor::Text(text) => Ok(Value::from(text)),
        Cbor::Bytes(bytes) => Ok(Value::from(BASE64.encode_to_string(bytes))),
        Cbor::Integer(number) => Ok(Value::from(i64::try_from(number).map_err(|problem| problem.to_string())?)),
        Cbor::Tag(TIME, time) => {
            Ok(Value::from(to_json(*time, unit)?.as_f64().unwrap_or_default() / unit.per_second()))
        }
        Cbor::Array(values) => values.into_iter().map(|value| to_json(value, unit)).collect(),
        Cbor::Map(members) => {
            let member = |(name, value): (Cbor, Cbor)| match name {
                Cbor::Text(name) => Ok((name, to_json(value, unit)?)),
                other => Err(format!("{other:?} is no name of a member")),
            };
            members.into_iter().map(member).collect::<Result<_, _>>().map(Value::Object)
        }
        other => Err(format!("{other:?} is in no request")),
    }
}

pub(crate) fn write(answer: &Value, unit: TimeUnit) -> Vec<u8> {
    let mut body = Vec::new();
    if ciborium::into_writer(&to_cbor("", answer, unit), &mut body).is_err() {
        unreachable!("a Vec takes whatever is written");
    }
    body
}

fn to_cbor(name: &str, value: &Value, unit: TimeUnit) -> Cbor {
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(value) => Cbor::Bool(*value),
        Value::String(text) if name == "Data" => Cbor::Bytes(BASE64.decode_to_vec(text).unwrap_or_default()),
        Value::String(text) => Cbor::Text(text.clone()),
        Value::Number(seconds) if name.trim_end_matches('s').ends_with("Timestamp") => {
            Cbor::Tag(TIME, Box::new(time(seconds.as_f64().unwrap_or_default(), unit)))
        }
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| Cbor::Float(number.as_f64().unwrap_or_default()), |number| Cbor::Integer(number.into())),
        Value::Array(values) => Cbor::Array(values.iter().map(|value| to_cbor(name, value, unit)).collect()),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| (Cbor::Text(name.clone()), to_cbor(name, value, unit));
            Cbor::Map(members.iter().map(member).collect())
        }
    }
}

fn time(seconds: f64, unit: TimeUnit) -> Cbor {
    match unit {
        TimeUnit::Seconds => Cbor::Float(seconds),
        #[allow(clippy::cast_possible_truncation)]
        TimeUnit::Milliseconds => Cbor::Integer(((seconds * 1_000.0).round() as i64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(TimeUnit::Milliseconds, Cbor::Integer(1_795_253_528_006_i64.into()))]
    #[case(TimeUnit::Seconds, Cbor::Float(1_795_253_528.006))]
    fn data_and_times_round_trip_as_bytes_and_tagged_times(#[case] unit: TimeUnit, #[case] time: Cbor) {
        let answer = json!({"Records": [{
            "Data": "QQ==", "ApproximateArrivalTimestamp": 1_795_253_528.006, "PartitionKey": "a", "N": 7, "B": true,
        }], "Next": null, "Values": [2.0, 3]});
        let body = write(&answer, unit);
        let sent: Cbor = ciborium::from_reader(&body[..]).unwrap();
        let member =
            |name: &str| sent.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some(name)).unwrap().1.clone();
        let records = member("Records");
        let record = records.as_array().unwrap()[0].as_map().unwrap();
        assert!(record.contains(&(Cbor::Text("Data".into()), Cbor::Bytes(b"A".to_vec()))));
        let time = Cbor::Tag(TIME, Box::new(time));
        assert!(record.contains(&(Cbor::Text("ApproximateArrivalTimestamp".into()), time)));
        assert_eq!(member("Values"), Cbor::Array(vec![Cbor::Float(2.0), Cbor::Integer(3.into())]));
        assert_eq!(read(&body, unit), Ok(answer));
    }

    #[test]
    fn lists_of_times_have_a_tag_each() {
        let sent: Cbor = ciborium::from_reader(&write(&json!({"Timestamps": [60]}), TimeUnit::Seconds)[..]).unwrap();
        let time = Cbor::Tag(TIME, Box::new(Cbor::Float(60.0)));
        assert_eq!(sent, Cbor::Map(vec![(Cbor::Text("Timestamps".into()), Cbor::Array(vec![time]))]));
    }

    #[test]
    fn malformed_cbor_is_refused() {
        for body in
            [&b"\x61"[..], &[0xa1, 0x01, 0x02], &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b"\xff\xff"]
        {
            assert!(read(body, TimeUnit::Seconds).is_err(), "{body:?}");
        }
    }
}
