//! CBOR for JSON: the AWS SDK for Java speaks it to Kinesis. Data are bytes in it, and times milliseconds.

use axum::body::Bytes;
use base64_simd::STANDARD as BASE64;
use ciborium::Value as Cbor;
use serde_json::{Map, Value};

/// A time, in seconds in JSON, in milliseconds under this tag in CBOR.
const TIME: u64 = 1;

/// A request as JSON.
///
/// # Errors
///
/// When it is none; says why.
pub(crate) fn from_cbor(body: &Bytes) -> Result<Value, String> {
    let value: Cbor = ciborium::from_reader(body.as_ref()).map_err(|problem| problem.to_string())?;
    json(value)
}

fn json(value: Cbor) -> Result<Value, String> {
    match value {
        Cbor::Null => Ok(Value::Null),
        Cbor::Bool(value) => Ok(Value::from(value)),
        Cbor::Float(value) => Ok(Value::from(value)),
        Cbor::Text(text) => Ok(Value::from(text)),
        Cbor::Bytes(bytes) => Ok(Value::from(BASE64.encode_to_string(bytes))),
        Cbor::Integer(number) => Ok(Value::from(i64::try_from(number).map_err(|problem| problem.to_string())?)),
        Cbor::Tag(TIME, millis) => Ok(Value::from(json(*millis)?.as_f64().unwrap_or_default() / 1_000.0)),
        Cbor::Array(values) => values.into_iter().map(json).collect(),
        Cbor::Map(members) => {
            let member = |(name, value): (Cbor, Cbor)| match name {
                Cbor::Text(name) => Ok((name, json(value)?)),
                other => Err(format!("{other:?} is no name of a member")),
            };
            Ok(Value::Object(members.into_iter().map(member).collect::<Result<Map<_, _>, String>>()?))
        }
        other => Err(format!("{other:?} is in no request")),
    }
}

/// An answer as CBOR.
pub(crate) fn to_cbor(answer: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    if ciborium::into_writer(&cbor("", answer), &mut body).is_err() {
        unreachable!("a Vec takes whatever is written");
    }
    body
}

fn cbor(name: &str, value: &Value) -> Cbor {
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(value) => Cbor::Bool(*value),
        Value::String(text) if name == "Data" => Cbor::Bytes(BASE64.decode_to_vec(text).unwrap_or_default()),
        Value::String(text) => Cbor::Text(text.clone()),
        #[allow(clippy::cast_possible_truncation)]
        Value::Number(seconds) if name.ends_with("Timestamp") => {
            let millis = (seconds.as_f64().unwrap_or_default() * 1_000.0).round() as i64;
            Cbor::Tag(TIME, Box::new(Cbor::Integer(millis.into())))
        }
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| Cbor::Float(number.as_f64().unwrap_or_default()), |number| Cbor::Integer(number.into())),
        Value::Array(values) => Cbor::Array(values.iter().map(|value| cbor(name, value)).collect()),
        Value::Object(members) => {
            Cbor::Map(members.iter().map(|(name, value)| (Cbor::Text(name.clone()), cbor(name, value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_are_bytes_and_times_are_milliseconds() {
        let answer = json!({"Records": [{
            "Data": "QQ==", "ApproximateArrivalTimestamp": 1_795_253_528.006, "PartitionKey": "a", "N": 7, "B": true,
        }], "Next": null});
        let body = to_cbor(&answer);
        let sent: Cbor = ciborium::from_reader(&body[..]).unwrap();
        let record = sent.as_map().unwrap().iter().find(|(name, _)| name.as_text() == Some("Records")).unwrap();
        let members = record.1.as_array().unwrap()[0].as_map().unwrap();
        assert!(members.contains(&(Cbor::Text("Data".into()), Cbor::Bytes(b"A".to_vec()))));
        let time = Cbor::Tag(TIME, Box::new(Cbor::Integer(1_795_253_528_006_i64.into())));
        assert!(members.contains(&(Cbor::Text("ApproximateArrivalTimestamp".into()), time)));
        assert_eq!(from_cbor(&body.into()), Ok(answer));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for body in [&b"\x61"[..], &[0xa1, 0x01, 0x02], &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
            assert!(from_cbor(&Bytes::copy_from_slice(body)).is_err(), "{body:?}");
        }
    }
}
