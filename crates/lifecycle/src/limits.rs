//! How fast the transfers of a node may be, by the time of day: `transfer-rate-limit`.
//!
//! Rules, one a line or parted by `;`: `[DAYS] [HH:MM-HH:MM] RATE`. The first one that fits counts; where none does, nothing
//! is limited. Times are UTC, so that a rule means the same on every node. A window that ends before it begins goes on over
//! midnight and belongs to the day on which it began.

use std::fmt;
use std::num::NonZeroU64;

use api::Timestamp;
use k8s_openapi::jiff::civil::{Time, Weekday};
use k8s_openapi::jiff::tz::TimeZone;

/// What the user has set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// As it was written.
    text: String,
    /// Monday is the first.
    days: [bool; 7],
    window: Option<(Time, Time)>,
    /// Bytes a second; `None` is unlimited.
    rate: Option<NonZeroU64>,
}

/// What counts at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Bytes of disks a second, all transfers of a node together.
    pub rate: NonZeroU64,
    /// The rule, as the user wrote it.
    pub rule: String,
}

/// The text cannot be followed; says which rule, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{rule}` is no rule such as `Mon-Fri 08:00-18:00 50MiB/s`: {cause}")]
pub struct NoLimits {
    rule: String,
    cause: String,
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Units of a rate, in bytes; those of bits are for who thinks in network links.
const UNITS: [(&str, u64); 9] = [
    ("kib/s", 1 << 10),
    ("mib/s", 1 << 20),
    ("gib/s", 1 << 30),
    ("kb/s", 1_000),
    ("mb/s", 1_000_000),
    ("gb/s", 1_000_000_000),
    ("mbit/s", 125_000),
    ("gbit/s", 125_000_000),
    ("b/s", 1),
];

impl Limits {
    /// Reads the setting; without one nothing is limited.
    ///
    /// # Errors
    /// Names the first rule that cannot be read. None of them counts then: half of what somebody meant may be worse than
    /// nothing.
    pub fn read(text: Option<&str>) -> Result<Self, NoLimits> {
        let rules = text.unwrap_or_default().split([';', '\n']).map(str::trim).filter(|rule| !rule.is_empty());
        Ok(Self { rules: rules.map(Rule::read).collect::<Result<_, _>>()? })
    }

    /// What counts at `now`; `None` is no limit.
    pub fn at(&self, now: Timestamp) -> Option<Limit> {
        let rule = self.rules.iter().find(|rule| rule.fits(now))?;
        Some(Limit { rate: rule.rate?, rule: rule.text.clone() })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transfer-rate-limit `{}` (times in UTC)", self.rule)
    }
}

impl Rule {
    fn read(text: &str) -> Result<Self, NoLimits> {
        let refused = |cause: String| NoLimits { rule: text.to_owned(), cause };
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let rate = rate(words.pop().unwrap_or_default()).map_err(refused)?;
        let window = match words.last() {
            Some(word) if word.contains(':') => {
                let window = window(word).map_err(refused)?;
                words.pop();
                window
            }
            _ => None,
        };
        let days = match words.pop() {
            Some(word) => days(word).map_err(refused)?,
            None => [true; 7],
        };
        match words.first() {
            Some(more) => Err(refused(format!("`{more}` stands before its days"))),
            None => Ok(Self { text: text.to_owned(), days, window, rate }),
        }
    }

    fn fits(&self, now: Timestamp) -> bool {
        let now = now.to_zoned(TimeZone::UTC);
        let on = |day: Weekday| self.days[usize::from(day.to_monday_zero_offset().unsigned_abs())];
        let (today, yesterday, time) = (now.weekday(), now.weekday().previous(), now.time());
        match self.window {
            None => on(today),
            Some((from, to)) if from < to => on(today) && from <= time && time < to,
            Some((from, to)) => (on(today) && from <= time) || (on(yesterday) && time < to),
        }
    }
}

fn rate(word: &str) -> Result<Option<NonZeroU64>, String> {
    let lower = word.to_ascii_lowercase();
    if lower == "unlimited" {
        return Ok(None);
    }
    let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(unit));
    let (unit, bytes) =
        unit.ok_or_else(|| format!("`{word}` is no rate such as `50MiB/s`, `400Mbit/s` or `unlimited`"))?;
    if !unit.contains("bit") && word.ends_with("b/s") {
        return Err(format!("`{word}` may mean bits or bytes: write `B/s` for bytes, `bit/s` for bits"));
    }
    let count: u64 = lower[..lower.len() - unit.len()].parse().map_err(|_| format!("`{word}` is no whole number"))?;
    let rate = count.checked_mul(*bytes).and_then(NonZeroU64::new);
    rate.map(Some).ok_or_else(|| format!("`{word}` is no rate: nothing would ever move, or more than there is"))
}

/// `None` is the whole day.
fn window(word: &str) -> Result<Option<(Time, Time)>, String> {
    let invalid = || format!("`{word}` is no window such as `08:00-18:00`");
    let (from, to) = word.split_once('-').ok_or_else(invalid)?;
    let time = |text: &str| -> Option<Time> {
        let (hour, minute) = text.split_once(':')?;
        match (hour.parse().ok()?, minute.parse().ok()?) {
            (24, 0) => Some(Time::midnight()),
            (hour, minute) => Time::new(hour, minute, 0, 0).ok(),
        }
    };
    let (from, to) = (time(from).ok_or_else(invalid)?, time(to).ok_or_else(invalid)?);
    match from == to {
        true if word.ends_with("24:00") => Ok(None),
        true => Err(format!("`{word}` is empty")),
        false => Ok(Some((from, to))),
    }
}

fn days(word: &str) -> Result<[bool; 7], String> {
    let invalid = |day: &str| format!("`{day}` is no day such as `Mon`, `Mon-Fri` or `Sat,Sun`");
    let number = |day: &str| {
        let known = DAYS.iter().position(|(name, _)| day.eq_ignore_ascii_case(name));
        known.ok_or_else(|| invalid(day))
    };
    let mut days = [false; 7];
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        loop {
            days[day] = true;
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn rate_at(text: &str, now: &str) -> Option<u64> {
        Limits::read(Some(text)).unwrap().at(now.parse().unwrap()).map(|limit| limit.rate.get())
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        // the 5th of January 2026 is a Monday
        let office = "Mon-Fri 08:00-18:00 20MiB/s; Sat,Sun unlimited; 100MiB/s";
        let cases = [
            ("2026-01-05T07:59:59Z", Some(100)),
            ("2026-01-05T08:00:00Z", Some(20)),
            ("2026-01-09T17:59:59Z", Some(20)),
            ("2026-01-09T18:00:00Z", Some(100)),
            ("2026-01-10T12:00:00Z", None),
            ("2026-01-11T23:59:59Z", None),
        ];
        for (now, expected) in cases {
            assert_eq!(rate_at(office, now), expected.map(|rate| rate * MIB), "{now}");
        }
        assert_eq!(rate_at("08:00-18:00 1MiB/s", "2026-01-05T19:00:00Z"), None, "no rule fits");
        assert_eq!(rate_at("", "2026-01-05T19:00:00Z"), None);
        assert_eq!(Limits::read(None), Ok(Limits::default()));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_began() {
        let night = "fri 22:00-06:00 1GiB/s\n10MB/s";
        for (now, expected) in [
            ("2026-01-09T21:59:59Z", 10_000_000),
            ("2026-01-09T22:00:00Z", 1 << 30),
            ("2026-01-10T05:59:59Z", 1 << 30),
            ("2026-01-10T06:00:00Z", 10_000_000),
            ("2026-01-10T22:00:00Z", 10_000_000),
        ] {
            assert_eq!(rate_at(night, now), Some(expected), "{now}");
        }
        assert_eq!(rate_at("Sat-Mon 18:00-24:00 5KiB/s", "2026-01-04T23:59:59Z"), Some(5 << 10));
        assert_eq!(rate_at("Sat-Mon 18:00-24:00 5KiB/s", "2026-01-06T20:00:00Z"), None);
        assert_eq!(rate_at("sat 00:00-24:00 unlimited; 5KiB/s", "2026-01-03T12:00:00Z"), None);
        assert_eq!(rate_at("sat 00:00-24:00 unlimited; 5KiB/s", "2026-01-04T00:00:00Z"), Some(5 << 10));
    }

    #[test]
    fn links_are_measured_in_bits_and_disks_in_bytes() {
        for (text, bytes) in
            [("400Mbit/s", 50_000_000), ("1Gbit/s", 125_000_000), ("7B/s", 7), ("3GB/s", 3_000_000_000)]
        {
            assert_eq!(rate_at(text, "2026-01-05T00:00:00Z"), Some(bytes), "{text}");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_named_and_none_counts() {
        for (text, word) in [
            ("50", "no rate"),
            ("50MiB", "no rate"),
            ("1.5MiB/s", "whole number"),
            ("-1MiB/s", "whole number"),
            ("0MiB/s", "nothing would ever move"),
            ("99999999999GiB/s", "more than there is"),
            ("8:00 1MiB/s", "no window"),
            ("08:00-25:00 1MiB/s", "no window"),
            ("08:61-09:00 1MiB/s", "no window"),
            ("08:00-08:00 1MiB/s", "empty"),
            ("400Mb/s", "bits or bytes"),
            ("Mo 1MiB/s", "no day"),
            ("Mon-Fri-Sun 1MiB/s", "no day"),
            ("from Mon 1MiB/s", "before its days"),
            ("100MiB/s; nonsense", "nonsense"),
        ] {
            let said = Limits::read(Some(text)).unwrap_err().to_string();
            assert!(said.contains(word), "{text}: {said}");
        }
    }

    #[test]
    fn a_limit_is_told_as_it_was_written() {
        let limit =
            Limits::read(Some("Mon-Fri 08:00-18:00 20MiB/s")).unwrap().at("2026-01-05T09:00:00Z".parse().unwrap());
        assert_eq!(limit.unwrap().to_string(), "transfer-rate-limit `Mon-Fri 08:00-18:00 20MiB/s` (times in UTC)");
    }
}
