//! Durations as Go writes them: `4h0m0s`, `1.5h`, `300ms`.

use k8s_openapi::jiff::SignedDuration;

/// Nanoseconds of each of Go's units. `m` is tried after `ms`, `s` after all that end in it.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration as Go writes it; `None` when it is none.
///
/// ```
/// use api::velero::go_duration;
///
/// assert_eq!(go_duration("4h0m0s").map(|d| d.as_hours()), Some(4));
/// assert_eq!(go_duration("four hours"), None);
/// ```
pub fn go_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | '.'))?;
        let (number, tail) = rest.split_at(end);
        let (unit, size) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        nanos = nanos.checked_add(scaled(number, *size)?)?;
        rest = &tail[unit.len()..];
    }
    let nanos = if negative { -nanos } else { nanos };
    let (seconds, part) = (i64::try_from(nanos / 1_000_000_000).ok()?, i32::try_from(nanos % 1_000_000_000).ok()?);
    Some(SignedDuration::new(seconds, part))
}

/// `number` times `size`, where the number may have a fraction.
fn scaled(number: &str, size: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits: String = fraction.chars().take(15).collect();
    let part = match digits.as_str() {
        "" => 0,
        digits => digits.parse::<i128>().ok()?.checked_mul(size)? / 10_i128.pow(u32::try_from(digits.len()).ok()?),
    };
    whole.checked_mul(size)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_as_long_as_velero_says() {
        let cases = [
            ("4h0m0s", Some(14_400_000)),
            ("10m0s", Some(600_000)),
            ("10m", Some(600_000)),
            ("1.5h", Some(5_400_000)),
            (".5s", Some(500)),
            ("300ms", Some(300)),
            ("1m30s500ms", Some(90_500)),
            ("2000µs", Some(2)),
            ("-1m", Some(-60_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("720h0m0s", Some(2_592_000_000)),
            ("", None),
            ("-", None),
            ("10", None),
            ("h", None),
            (".h", None),
            ("1d", None),
            ("1.2.3s", None),
            ("99999999999999999999999999999999999999999h", None),
            ("9999999999999999999h", None),
        ];
        for (text, want) in cases {
            assert_eq!(go_duration(text).map(|d| d.as_millis()), want, "{text}");
        }
    }
}
