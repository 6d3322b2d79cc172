//! JSON text that clients may send: any number form, any escape, lone surrogates, duplicate keys, white space and line
//! breaks between tokens, nesting up to the limit. Text, not trees, because the text is what must survive.

use proptest::collection::vec;
use proptest::prelude::*;
use shared::limits::MAX_EVENT_DEPTH;

fn white_space() -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// A JSON string literal.
pub fn json_string() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        8 => "[ -~&&[^\"\\\\]]",
        // What would need an escape gets it further down.
        2 => any::<char>().prop_map(|c| if c < ' ' || c == '"' || c == '\\' { '.' } else { c }.to_string()),
        1 => prop::sample::select(vec!["\\n", "\\r", "\\t", "\\\"", "\\\\", "\\/", "\\b", "\\f", "\u{2028}", "é", "日本", "🎬"])
            .prop_map(str::to_owned),
        1 => any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
        1 => (0xd800u16..0xe000).prop_map(|lone_surrogate| format!("\\u{lone_surrogate:04X}")),
    ];
    vec(character, 0..12).prop_map(|characters| format!("\"{}\"", characters.concat()))
}

/// A JSON number literal, of any size and precision.
pub fn json_number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,5})?",
        Just(String::from("-0.0")),
    ]
}

/// Any JSON value.
pub fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
        json_number(),
        json_string(),
    ];
    leaf.prop_recursive(8, 64, 6, |inner| prop_oneof![array_of(inner.clone()), object_of(inner)])
}

/// A JSON object, now and then one that is nested as deep as an event may be.
pub fn json_object() -> impl Strategy<Value = String> {
    prop_oneof![9 => object_of(json_value()), 1 => deep_object()]
}

/// An object around a flat value, at the limit or a few levels above it.
fn deep_object() -> impl Strategy<Value = String> {
    (MAX_EVENT_DEPTH - 3..=MAX_EVENT_DEPTH, vec(any::<bool>(), MAX_EVENT_DEPTH), json_string()).prop_map(
        |(depth, kinds, leaf)| {
            let around = |value: String, is_array: &bool| {
                if *is_array { format!("[{value}]") } else { format!("{{\"deeper\":{value}}}") }
            };
            let inner = kinds.iter().take(depth - 1).fold(leaf, around);
            around(inner, &false)
        },
    )
}

fn array_of(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (vec(inner, 0..6), white_space())
        .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},{space}"))))
}

fn object_of(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let key = prop_oneof![
        2 => json_string(),
        1 => prop::sample::select(vec!["\"id\"", "\"session_id\"", "\"sid\"", "\"v\"", "\"event\"", "\"rejected\""])
            .prop_map(str::to_owned),
    ];
    (vec((key, inner), 0..6), white_space()).prop_map(|(members, space)| {
        let members: Vec<String> =
            members.into_iter().map(|(key, value)| format!("{key}{space}:{space}{value}")).collect();
        format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
    })
}
