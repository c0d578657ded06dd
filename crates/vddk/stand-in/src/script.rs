//! What goes wrong: `<store>/vddk.json`, looked at on each call.
//!
//! ```json
//! {"rules": [{"disk": "…", "snapshot": "…", "diskMib": 48, "function": "Read", "atOffset": 1048576,
//!             "skip": 0, "count": 1, "action": "fail", "code": 14011, "delayMs": 0}]}
//! ```
//! `disk`, `snapshot`, `diskMib` (disks of that size, open ones: a rule for a disk that has no name yet) and `atOffset`
//! (bytes; a request that covers it) narrow a rule down. `skip` calls that match are
//! spared, then it strikes `count` times, 0 being always. Actions: `fail` with `code`, `hang`, `abort`, `slow` by
//! `delayMs`, `hold` until the rule is gone, `dial` TCP `port` of this machine, which fails with `code` where the process
//! may not. The first rule that strikes counts. `Travel` is the way of an asynchronous read
//! to its host: several may be on it, while the host serves one at a time.
//!
//! Calls are counted over all processes, in `<store>/.vddk-counts`, under the rule's exact text: a rule that was used
//! up stays so until a call sees a script without it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// How often a held call looks whether its rule is still there.
const LOOK: Duration = Duration::from_millis(10);

/// Which call is being made.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// `Open`, `Read`, `Travel`, `Write`, `Flush`, `Close`, `InitEx` or `ConnectEx`.
    pub function: &'a str,
    /// The disk, where there is one.
    pub disk: Option<&'a str>,
    /// Its snapshot.
    pub snapshot: Option<&'a str>,
    /// Size of the disk in bytes, once it is open.
    pub size: Option<u64>,
    /// First byte and number of bytes.
    pub range: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    disk: Option<String>,
    snapshot: Option<String>,
    disk_mib: Option<u64>,
    function: String,
    at_offset: Option<u64>,
    #[serde(default)]
    skip: u64,
    #[serde(default)]
    count: u64,
    action: Action,
    #[serde(default)]
    code: u64,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    port: u16,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Fail,
    Hang,
    Abort,
    Slow,
    Hold,
    Dial,
}

impl Rule {
    fn matches(&self, call: &Call<'_>) -> bool {
        let narrows = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || Some(wanted) == is)
        };
        let covers = |at: u64| call.range.is_some_and(|(offset, length)| offset <= at && at - offset < length);
        self.function == call.function
            && narrows(&self.disk, call.disk)
            && narrows(&self.snapshot, call.snapshot)
            && self.disk_mib.is_none_or(|mib| call.size == Some(mib << 20))
            && self.at_offset.is_none_or(covers)
    }

    /// The code where it was not allowed; whether somebody listens there does not matter.
    fn unless_allowed(&self, tried: std::io::Result<()>) -> Option<u64> {
        let refused = tried.is_err_and(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied);
        refused.then_some(self.code)
    }

    /// `rules` reads the script again.
    fn play(&self, text: &str, rules: impl Fn() -> Vec<(String, Self)>) -> Option<u64> {
        match self.action {
            Action::Fail => Some(self.code),
            Action::Abort => {
                eprintln!("stand-in VDDK: aborting in {} as the script says", self.function);
                std::process::abort()
            }
            Action::Hang => loop {
                std::thread::park(); // for ever: that is what is asked for
            },
            Action::Slow => {
                std::thread::sleep(Duration::from_millis(self.delay_ms));
                None
            }
            Action::Hold => {
                while rules().iter().any(|(known, _)| known == text) {
                    std::thread::sleep(LOOK);
                }
                None
            }
            Action::Dial => self.unless_allowed(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map(drop)),
        }
    }
}

/// The script of one store, read again when the file changes.
#[derive(Debug)]
pub struct Script {
    file: PathBuf,
    counts: PathBuf,
    known: Mutex<Known>,
}

/// Rules with their exact text, and the file that they were read from.
#[derive(Debug, Default)]
struct Known {
    stamp: Option<(SystemTime, u64)>,
    rules: Vec<(String, Rule)>,
}

impl Script {
    /// The script of this store, which need not be there.
    pub fn of(store: &Path) -> Self {
        Self { file: store.join("vddk.json"), counts: store.join(".vddk-counts"), known: Mutex::default() }
    }

    /// Plays what the script has for this call. The code is that of a failure.
    pub fn play(&self, call: Call<'_>) -> Option<u64> {
        let rules = self.rules();
        let (text, rule) = rules.iter().find(|(text, rule)| rule.matches(&call) && self.strikes(text, rule, &rules))?;
        crate::log::warn(&format!("{} plays {text}", call.function));
        rule.play(text, || self.rules())
    }

    fn rules(&self) -> Vec<(String, Rule)> {
        let stamp = std::fs::metadata(&self.file).ok().and_then(|data| Some((data.modified().ok()?, data.len())));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.stamp != stamp || stamp.is_none() {
            *known = Known { stamp, rules: read_rules(&self.file) };
        }
        known.rules.clone()
    }

    fn strikes(&self, text: &str, rule: &Rule, rules: &[(String, Rule)]) -> bool {
        if rule.skip == 0 && rule.count == 0 {
            return true;
        }
        let seen = self.count(text, rules);
        seen > rule.skip && (rule.count == 0 || seen <= rule.skip + rule.count)
    }

    /// Counts this call; how many it makes.
    fn count(&self, text: &str, rules: &[(String, Rule)]) -> u64 {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.counts)
            .expect("the store is writable");
        file.lock().expect("local files can be locked");
        let mut stored = String::new();
        file.read_to_string(&mut stored).expect("the counts are readable");
        let mut counts: BTreeMap<String, u64> = serde_json::from_str(&stored).unwrap_or_default();
        counts.retain(|text, _| rules.iter().any(|(known, _)| known == text));
        let count = counts.entry(text.to_owned()).or_default();
        *count += 1;
        let count = *count;
        store_counts(&mut file, &counts);
        count
    }
}

fn store_counts(file: &mut File, counts: &BTreeMap<String, u64>) {
    let text = serde_json::to_vec(counts).expect("counts are plain data");
    file.set_len(0).expect("the counts are writable");
    file.rewind().expect("the counts are a plain file");
    file.write_all(&text).expect("the counts are writable");
}

fn read_rules(file: &Path) -> Vec<(String, Rule)> {
    #[derive(Deserialize)]
    struct Rules {
        rules: Vec<serde_json::Value>,
    }
    let Ok(text) = std::fs::read_to_string(file) else { return Vec::new() };
    let parsed = serde_json::from_str::<Rules>(&text).and_then(|script| {
        script.rules.into_iter().map(|rule| Ok((rule.to_string(), serde_json::from_value(rule)?))).collect()
    });
    // a script that is not followed would make a fault test pass for nothing
    parsed.unwrap_or_else(|error| crate::log::violation(&format!("{} is no script: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops at the first surprise

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("vddk-stand-in-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn read_at(offset: u64) -> Call<'static> {
        Call { function: "Read", disk: Some("d"), snapshot: None, size: Some(3 << 20), range: Some((offset, 1024)) }
    }

    #[test]
    fn a_fault_can_wait_for_a_disk_by_its_size() {
        let store = scratch("script-size");
        let script = Script::of(&store);
        let rule = r#"{"rules":[{"diskMib":3,"function":"Read","action":"fail","code":7}]}"#;
        std::fs::write(store.join("vddk.json"), rule).unwrap();
        assert_eq!(script.play(read_at(0)), Some(7));
        assert_eq!(script.play(Call { size: Some(4 << 20), ..read_at(0) }), None, "another size");
        assert_eq!(script.play(Call { size: None, ..read_at(0) }), None, "not open yet");
        std::fs::remove_dir_all(store).unwrap();
    }

    #[test]
    fn a_fault_strikes_where_and_as_often_as_written() {
        let store = scratch("script");
        let script = Script::of(&store);
        assert_eq!(script.play(read_at(0)), None, "no script");
        let rule =
            r#"{"rules":[{"disk":"d","function":"Read","atOffset":2047,"skip":1,"count":2,"action":"fail","code":7}]}"#;
        std::fs::write(store.join("vddk.json"), rule).unwrap();
        assert_eq!(script.play(read_at(0)), None, "not covered");
        assert_eq!(script.play(read_at(2048)), None, "not covered");
        let played: Vec<_> = (0..2).map(|_| script.play(read_at(1024))).collect();
        assert_eq!(played, [None, Some(7)], "one is skipped");
        let other_process = Script::of(&store);
        let played: Vec<_> = (0..2).map(|_| other_process.play(read_at(1024))).collect();
        assert_eq!(played, [Some(7), None], "counted together");
        std::fs::remove_dir_all(store).unwrap();
    }
}
