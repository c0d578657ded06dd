//! Whether all clocks agree: those of the API server, of vCenter, of the object stores and of this machine.

use super::{Finding, Matter};

/// More than this is told. A store says its time in whole seconds, and an answer takes a moment.
const TOLD: i64 = 5_000;
/// More than this breaks something: stores refuse a signature that is 15 minutes off, some after five.
const BREAKS: i64 = 300_000;

/// Somebody's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// Whose it is.
    pub whose: String,
    /// How far it is ahead of this machine's, in milliseconds.
    pub ahead: i64,
}

/// One finding about all clocks; this machine's is one of them.
pub fn judge(clocks: &[Clock]) -> Finding {
    if clocks.is_empty() {
        let why = "Signatures, leases and the age of what is left over go by clocks.";
        return Finding::warning(Matter::Clocks, "no clock but this machine's could be read", why, "");
    }
    let earliest = clocks.iter().map(|clock| clock.ahead).min().unwrap_or_default().min(0);
    let latest = clocks.iter().map(|clock| clock.ahead).max().unwrap_or_default().max(0);
    let apart = latest - earliest;
    let told: Vec<String> = clocks.iter().map(|clock| format!("{} {}", clock.whose, offset(clock.ahead))).collect();
    let seen = format!("clocks against this machine's: {}", told.join(", "));
    let fix = "Let the machines that are off follow one time server (NTP).";
    if apart > BREAKS {
        let why = "Stores refuse requests whose signature is minutes off, and a login of vCenter may be refused too.";
        return Finding::problem(Matter::Clocks, seen, why, fix);
    }
    if apart > TOLD {
        let why = "Times in logs, events and backups cannot be compared, and it grows until stores refuse signatures.";
        return Finding::warning(Matter::Clocks, seen, why, fix);
    }
    Finding::ok(Matter::Clocks, seen)
}

/// In seconds, with the sign.
fn offset(milliseconds: i64) -> String {
    let tenths = (milliseconds + 50 * milliseconds.signum()) / 100;
    format!("{}{}.{} s", if milliseconds < 0 { "-" } else { "+" }, tenths.abs() / 10, tenths.abs() % 10)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn clocks_that_are_apart_are_told_before_a_store_refuses_its_signatures() {
        let clock = |whose: &str, ahead: i64| Clock { whose: whose.to_owned(), ahead };
        let cases = [
            ("all agree", vec![clock("a", 400), clock("b", -900)], Verdict::Ok),
            ("one is off", vec![clock("a", 0), clock("b", 7_000)], Verdict::Warning),
            ("two are off to either side", vec![clock("a", -3_000), clock("b", 3_000)], Verdict::Warning),
            ("this machine itself is off", vec![clock("a", 60_000), clock("b", 60_000)], Verdict::Warning),
            ("far apart", vec![clock("a", -600_000)], Verdict::Problem),
            ("nobody says", vec![], Verdict::Warning),
        ];
        for (situation, clocks, verdict) in cases {
            assert_eq!(judge(&clocks).verdict, verdict, "{situation}");
        }
        let seen = judge(&[clock("vCenter", -61_230)]).seen;
        assert!(seen.ends_with("vCenter -61.2 s"), "{seen}");
    }
}
