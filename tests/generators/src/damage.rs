//! What faults and malice do to bytes. Damaged valid input gets deeper into a decoder than random bytes would.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Damage stops growing bytes here: far more than the limits that tests set, and still fast.
const MAX_GROWN_BYTES: usize = 200_000;

/// One piece of damage. Places are relative, so that it fits bytes of any length.
#[derive(Debug, Clone)]
enum Damage {
    FlipBit {
        at: Index,
        bit: u8,
    },
    CutOff {
        at: Index,
    },
    Remove {
        ends: [Index; 2],
    },
    Repeat {
        ends: [Index; 2],
        times: usize,
    },
    Splice {
        ends: [Index; 2],
        at: Index,
    },
    Insert {
        at: Index,
        token: Vec<u8>,
    },
    Append {
        token: Vec<u8>,
    },
    /// The whole once more.
    Double,
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        let place = |index: Index| index.index(bytes.len() + 1);
        let range = |ends: [Index; 2]| {
            let [a, b] = ends.map(place);
            a.min(b)..a.max(b)
        };
        match self {
            Self::FlipBit { at, bit } if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Self::FlipBit { .. } => {}
            Self::CutOff { at } => bytes.truncate(place(at)),
            Self::Remove { ends } => drop(bytes.drain(range(ends))),
            Self::Repeat { ends, times } => {
                let range = range(ends);
                let times = times.min(MAX_GROWN_BYTES / range.len().max(1));
                let copies = bytes[range.clone()].repeat(times);
                bytes.splice(range.end..range.end, copies);
            }
            Self::Splice { ends, at } => {
                let (piece, at) = (bytes[range(ends)].to_vec(), place(at));
                bytes.splice(at..at, piece);
            }
            Self::Insert { at, token } => {
                let at = place(at);
                bytes.splice(at..at, token);
            }
            Self::Append { token } => bytes.extend(token),
            Self::Double => bytes.extend_from_within(..),
        }
    }
}

fn damage(token: impl Strategy<Value = Vec<u8>> + 'static) -> impl Strategy<Value = Damage> {
    let token = token.boxed();
    let ends = || [any::<Index>(), any::<Index>()];
    prop_oneof![
        3 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Damage::FlipBit { at, bit }),
        1 => any::<Index>().prop_map(|at| Damage::CutOff { at }),
        1 => ends().prop_map(|ends| Damage::Remove { ends }),
        1 => (ends(), prop_oneof![1usize..4, 4usize..200]).prop_map(|(ends, times)| Damage::Repeat { ends, times }),
        1 => (ends(), any::<Index>()).prop_map(|(ends, at)| Damage::Splice { ends, at }),
        4 => (any::<Index>(), token.clone()).prop_map(|(at, token)| Damage::Insert { at, token }),
        1 => token.prop_map(|token| Damage::Append { token }),
        1 => Just(Damage::Double),
    ]
}

/// Bytes with a few pieces of damage, and sometimes with none. `token` is what is inserted into them.
pub fn damaged(
    bytes: impl Strategy<Value = Vec<u8>>,
    token: impl Strategy<Value = Vec<u8>> + 'static,
) -> impl Strategy<Value = Vec<u8>> {
    (bytes, vec(damage(token), 0..4)).prop_map(|(mut bytes, damages)| {
        for damage in damages {
            damage.apply(&mut bytes);
        }
        bytes
    })
}

/// What text and JSON decoders have stumbled over.
pub fn hostile_text() -> impl Strategy<Value = Vec<u8>> {
    let token = select(vec![
        // Line ends, white space and marks that some take for such.
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\u{2028}",
        "\u{85}",
        "\u{c}",
        "\t",
        " ",
        "\u{feff}",
        "\0",
        // JSON's own.
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "{}",
        "[]",
        "null",
        "{}\n{}",
        "}{",
        "],[",
        "//",
        "'",
        // Numbers that are none or that hold in no machine word.
        "1e999999",
        "-0.0",
        "-",
        "01",
        ".5",
        "NaN",
        "Infinity",
        "99999999999999999999999999999999999999999",
        // Strings: halves of surrogate pairs, a NUL, an escape that is none.
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"\\u0000\"",
        "\\u00",
        "\"\\x\"",
        "é",
        "🎬",
        // Our own formats' members.
        "\"events\":[{}],",
        "\"events\":[],",
        "\"id\":\"\",",
        "\"sid\":\"\\u0000\",",
        "\"v\":1,",
        "\"v\":2,",
        "\"event\":{},",
        "\"rejected\":{\"reason\":\"",
        "\"received_at\":\"9999-12-31T23:59:59.999Z\",",
    ]);
    let bytes = select(vec![&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xef\xbb\xbf"]);
    let nested = (select(vec!["[", "{\"a\":", "[{\"a\":["]), 90usize..400).prop_map(|(open, times)| open.repeat(times));
    let balanced = (90usize..140).prop_map(|levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
    let long = (select(vec!["x", "7", " ", "\\\"", "\n", "{}\n"]), 200usize..20_000)
        .prop_map(|(text, times)| text.repeat(times));
    prop_oneof![
        16 => token.prop_map(|token| token.as_bytes().to_vec()),
        3 => bytes.prop_map(<[u8]>::to_vec),
        1 => nested.prop_map(String::into_bytes),
        1 => balanced.prop_map(String::into_bytes),
        1 => long.prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..20),
    ]
}
