//! Aggregated records as the Kinesis Producer Library writes them, and another reader of them. Both are written from the
//! description of protobuf's wire format, so that nothing rests on one crate.
//! <https://protobuf.dev/programming-guides/encoding/>

use md5::{Digest, Md5};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// A field of the message.
#[derive(Debug, Clone)]
pub(crate) enum Field {
    /// With what stands in it before and after its data.
    UserRecord { before: Vec<u8>, data: Option<Vec<u8>>, after: Vec<u8> },
    /// One that landing has no use for, as it stands on the wire.
    Other(Vec<u8>),
}

impl Field {
    /// The data of a user record. One without any has empty data.
    pub(crate) fn user_data(&self) -> Option<Vec<u8>> {
        match self {
            Self::UserRecord { data, .. } => Some(data.clone().unwrap_or_default()),
            Self::Other(_) => None,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::UserRecord { before, data, after } => {
                let data = data.as_ref().map(|data| delimited(3, data)).unwrap_or_default();
                delimited(3, &[&before[..], &data, after].concat())
            }
            Self::Other(bytes) => bytes.clone(),
        }
    }
}

impl Arbitrary for Field {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![
            3 => (other(), prop_oneof![9 => any::<Vec<u8>>().prop_map(Some), 1 => Just(None)], other())
                .prop_map(|(before, data, after)| Self::UserRecord { before, data, after }),
            1 => other().prop_map(Self::Other),
        ]
        .boxed()
    }
}

/// Partition keys, hash keys, tags, fields of every wire type that no version has yet.
fn other() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(Vec::new()),
        2 => (1u32..3, any::<u64>()).prop_map(|(number, value)| [key(number, 0), varint(value)].concat()),
        1 => any::<[u8; 8]>().prop_map(|bytes| [key(7, 1), bytes.to_vec()].concat()),
        1 => any::<[u8; 4]>().prop_map(|bytes| [key(8, 5), bytes.to_vec()].concat()),
        1 => (4u32..20, any::<Vec<u8>>()).prop_map(|(number, bytes)| delimited(number, &bytes)),
        1 => (1usize..50).prop_map(|levels| [key(9, 3).repeat(levels), key(9, 4).repeat(levels)].concat()),
    ]
}

/// What decoders of protobuf have stumbled over.
pub(crate) fn hostile_field() -> impl Strategy<Value = Vec<u8>> {
    let tokens = select(vec![
        // Lengths past the end, and past all memory.
        vec![0x1a, 0x7f],
        [vec![0x1a], varint(u64::MAX)].concat(),
        [vec![0x1a], varint(1 << 31)].concat(),
        // Varints that never end or don't fit.
        vec![0xff; 11],
        vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        // Field number 0, wire types that are none, data of another type, groups that don't end or never began.
        vec![0x00],
        vec![0x1e],
        vec![0x1f],
        vec![0x18, 0x01],
        vec![0x1b],
        vec![0x1c],
        vec![0x4b; 200],
        // An empty user record, data twice in one, none of it.
        vec![0x1a, 0x00],
        vec![0x1a, 0x06, 0x1a, 0x01, b'x', 0x1a, 0x01, b'y'],
    ]);
    prop_oneof![4 => tokens, 1 => vec(any::<u8>(), 1..10), 1 => any::<Field>().prop_map(|field| field.bytes())]
}

pub(crate) fn message(fields: &[Field]) -> Vec<u8> {
    fields.iter().flat_map(Field::bytes).collect()
}

/// The record that holds a message: with the library's mark and a valid checksum.
pub(crate) fn sealed(message: &[u8]) -> Vec<u8> {
    [&[0xF3, 0x89, 0x9A, 0xC2], message, &Md5::digest(message)].concat()
}

fn key(number: u32, wire_type: u32) -> Vec<u8> {
    varint(u64::from(number << 3 | wire_type))
}

fn delimited(number: u32, bytes: &[u8]) -> Vec<u8> {
    [&key(number, 2), &varint(bytes.len() as u64), bytes].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

/// The data of a message's user records; `None` for what is no message. More lenient than a decoder has to be.
pub(crate) fn user_records(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    let records = delimited_fields(message, 3)?;
    records.into_iter().map(|record| Some(delimited_fields(record, 3)?.pop().unwrap_or_default().to_vec())).collect()
}

fn delimited_fields(mut message: &[u8], wanted: u64) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    let mut groups = 0usize;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match key & 7 {
            0 => drop(take_varint(&mut message)?),
            1 => drop(message.split_off(..8)?),
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                let bytes = message.split_off(..length)?;
                if groups == 0 && key >> 3 == wanted {
                    found.push(bytes);
                }
            }
            3 => groups += 1,
            4 => groups = groups.checked_sub(1)?,
            5 => drop(message.split_off(..4)?),
            _ => return None,
        }
    }
    Some(found)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
