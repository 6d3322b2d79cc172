//! Numbers as people read them.

/// What a number is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    Count,
    /// A second.
    Rate,
    /// Microseconds.
    Time,
    Seconds,
    Bytes,
    /// 1 is all.
    Share,
    /// CPU cores.
    Cores,
}

impl Quantity {
    /// With its unit: `1,234`, `12.3 ms`, `4.56 MB`.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Count => thousands(value),
            Self::Rate => format!("{}/s", if value < 100.0 { significant(value) } else { thousands(value) }),
            Self::Time => time(value),
            Self::Seconds => format!("{} s", significant(value)),
            Self::Bytes => scaled(value, &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB")], "B"),
            Self::Share => format!("{} %", significant(value * 100.0)),
            Self::Cores => format!("{} cores", significant(value)),
        }
    }
}

fn time(micros: f64) -> String {
    scaled(micros, &[(1e6, "s"), (1e3, "ms")], "µs")
}

fn scaled(value: f64, scales: &[(f64, &str)], unit: &str) -> String {
    let scale = scales.iter().find(|(scale, _)| value >= *scale);
    let (scale, unit) = scale.copied().unwrap_or((1.0, unit));
    format!("{} {unit}", significant(value / scale))
}

/// Three significant digits at least; what stands before the point is kept whole.
pub(crate) fn significant(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.0 => 0,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A whole number with commas between its thousands.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 && digits != "0" { "-" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Quantity::Count, 0.0, "0")]
    #[case(Quantity::Count, 999.0, "999")]
    #[case(Quantity::Count, 1_000.0, "1,000")]
    #[case(Quantity::Count, 1_234_567.0, "1,234,567")]
    #[case(Quantity::Count, -1_234.0, "-1,234")]
    #[case(Quantity::Rate, 49.96, "50/s")]
    #[case(Quantity::Rate, 10_000.4, "10,000/s")]
    #[case(Quantity::Time, 0.0, "0 µs")]
    #[case(Quantity::Time, 999.0, "999 µs")]
    #[case(Quantity::Time, 1_000.0, "1 ms")]
    #[case(Quantity::Time, 12_345.0, "12.3 ms")]
    #[case(Quantity::Time, 1_500_000.0, "1.5 s")]
    #[case(Quantity::Bytes, 999.0, "999 B")]
    #[case(Quantity::Bytes, 4_560_000.0, "4.56 MB")]
    #[case(Quantity::Share, 0.001, "0.1 %")]
    #[case(Quantity::Share, 1.0, "100 %")]
    #[case(Quantity::Cores, 0.25, "0.25 cores")]
    #[case(Quantity::Seconds, 60.0, "60 s")]
    fn numbers_are_shown_with_their_unit(#[case] quantity: Quantity, #[case] value: f64, #[case] expected: &str) {
        assert_eq!(quantity.show(value), expected);
    }
}
