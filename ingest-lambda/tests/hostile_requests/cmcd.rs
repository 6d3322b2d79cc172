//! CMCD reports that are made from known parts, and what their readers may stumble over.

use base64_simd::STANDARD as BASE64;
use generators::damage::hostile_text;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// A CMCD report and the JSON object that it is, made from the same parts.
pub(crate) fn cmcd_report() -> impl Strategy<Value = (String, Value)> {
    vec((cmcd_key(), cmcd_value()), 1..8).prop_map(|entries| {
        let text = entries.iter().map(|(key, (text, _))| format!("{key}{text}")).collect::<Vec<_>>().join(",");
        (text, entries.into_iter().map(|(key, (_, value))| (key, value)).collect())
    })
}

fn cmcd_key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z*][a-z0-9_.*-]{0,8}",
        select(vec!["sid", "id", "e", "v", "event", "rejected"]).prop_map(str::to_owned)
    ]
}

/// What follows a key, and its value.
fn cmcd_value() -> impl Strategy<Value = (String, Value)> {
    let flag = cmcd_parameters().prop_map(|(text, value)| (text, with_parameters(json!(true), value)));
    let item = cmcd_item().prop_map(|(text, value)| (format!("={text}"), value));
    let list = (vec(cmcd_item(), 0..5), cmcd_parameters()).prop_map(|(items, (parameters, values))| {
        let (texts, items): (Vec<String>, Vec<Value>) = items.into_iter().unzip();
        (format!("=({}){parameters}", texts.join(" ")), with_parameters(json!(items), values))
    });
    prop_oneof![1 => flag, 4 => item, 2 => list]
}

fn cmcd_item() -> impl Strategy<Value = (String, Value)> {
    (cmcd_bare_item(), cmcd_parameters())
        .prop_map(|((text, value), (parameters, values))| (text + &parameters, with_parameters(value, values)))
}

fn cmcd_parameters() -> impl Strategy<Value = (String, Value)> {
    let parameter = prop_oneof![
        cmcd_key().prop_map(|key| (format!(";{key}"), key, json!(true))),
        (cmcd_key(), cmcd_bare_item()).prop_map(|(key, (text, value))| (format!(";{key}={text}"), key, value)),
    ];
    let none = Just((String::new(), json!({})));
    let some = vec(parameter, 1..4).prop_map(|parameters| {
        let text = parameters.iter().map(|(text, ..)| text.as_str()).collect();
        (text, parameters.into_iter().map(|(_, key, value)| (key, value)).collect())
    });
    prop_oneof![4 => none, 1 => some]
}

fn with_parameters(value: Value, parameters: Value) -> Value {
    if parameters == json!({}) { value } else { json!({"value": value, "params": parameters}) }
}

fn cmcd_bare_item() -> impl Strategy<Value = (String, Value)> {
    let integer = -999_999_999_999_999_i64..=999_999_999_999_999;
    let decimal = (-999_999_999_999_i64..=999_999_999_999, 0..1000).prop_map(|(whole, thousandths)| {
        let text = format!("{whole}.{thousandths:03}");
        let value = text.parse::<f64>().unwrap();
        (text, json!(value))
    });
    let string = "[ -~]{0,12}"
        .prop_map(|text| (format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")), json!(text)));
    let display = any::<String>().prop_map(|text| {
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        (format!("%\"{escaped}\""), json!(text))
    });
    let bytes = vec(any::<u8>(), 0..12).prop_map(|bytes| BASE64.encode_to_string(bytes));
    prop_oneof![
        integer.prop_map(|number| (number.to_string(), json!(number))),
        decimal,
        string,
        "[a-zA-Z*][a-zA-Z0-9:/!#$%&'*+.^_`|~-]{0,8}".prop_map(|token| (token.clone(), json!(token))),
        any::<bool>().prop_map(|truth| (format!("?{}", u8::from(truth)), json!(truth))),
        (-62_135_596_800_i64..=253_402_300_799).prop_map(|seconds| (format!("@{seconds}"), json!(seconds))),
        bytes.prop_map(|base64| (format!(":{base64}:"), json!(base64))),
        display,
    ]
}

pub(crate) fn hostile_cmcd() -> impl Strategy<Value = Vec<u8>> {
    let token = select(vec![
        "=",
        ",",
        ";",
        "(",
        ")",
        "\"",
        ":",
        "?",
        "?2",
        "@",
        "%\"",
        "%\"%ff\"",
        "=99999999999999999999",
        "=1.0000",
        "=-",
        "=(((",
        "=(1 2",
        ";;",
        ",,",
        ",a",
        "a=1,a=(2),",
        ";a=1;a",
        "=:====:",
        "\u{fc}",
        "\t",
        "*",
    ]);
    let long =
        (select(vec!["a,", "(1 ", ";a", "1;a ", "\\\""]), 50usize..40_000).prop_map(|(text, times)| text.repeat(times));
    prop_oneof![8 => token.prop_map(|token| token.as_bytes().to_vec()), 1 => long.prop_map(String::into_bytes), 2 => hostile_text()]
}
