//! One line of the log: names that the server understands, values that are strings, an end that always comes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Longest line in bytes; the server tears one of 64 KiB to pieces.
const LONGEST: usize = 60_000;
/// How long a value may be when the line is too long, in bytes: the first of these that makes it fit.
const CUTS: [usize; 4] = [16_384, 4_096, 1_024, 256];
/// What a reader needs to know where a line belongs; kept when there are simply too many fields.
const DEAREST: [&str; 4] = ["namespace", "resource", "name", "error"];
/// Names that the server drops or takes for its own.
const RESERVED: [&str; 5] = ["time", "timestamp", "level", "cmd", "pluginName"];

/// What a line says.
pub(super) struct Line {
    /// `trace`, `debug`, `info`, `warn` or `error`; the server knows no other word.
    pub(super) level: &'static str,
    pub(super) message: String,
    /// `file:line` of the call.
    pub(super) place: String,
    pub(super) fields: BTreeMap<String, String>,
}

impl Line {
    /// The line with its end. It has no time: the server stamps it, and would drop ours.
    pub(super) fn encode(self) -> Vec<u8> {
        let at_most = |cut: usize| {
            let values = self.fields.values().chain([&self.message]);
            // writing only makes it longer, so what is too long already need not be written
            let fits = values.map(|v| v.len().min(cut)).sum::<usize>() <= LONGEST;
            fits.then(|| self.written(cut, |_| true)).filter(|line| line.len() <= LONGEST)
        };
        let line = [usize::MAX].into_iter().chain(CUTS).find_map(at_most);
        line.unwrap_or_else(|| self.written(CUTS[3], |name| DEAREST.contains(&name)))
    }

    fn written(&self, longest_value: usize, wanted: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut line = Map::new();
        let mut put = |name: &str, value: &str| line.insert(name.to_owned(), Value::String(cut(value, longest_value)));
        put("logSource", &self.place);
        for (name, value) in self.fields.iter().filter(|(name, _)| wanted(name) && !name.starts_with('@')) {
            match RESERVED.contains(&name.as_str()) {
                true => put(&format!("{name}_"), value),
                false => put(name, value),
            };
        }
        put("@level", self.level);
        put("@message", &self.message);
        put("@logSourceSetBy", "plugin");
        let mut bytes = serde_json::to_vec(&line).expect("a map of strings is JSON");
        bytes.push(b'\n');
        bytes
    }
}

/// `value`, at most about `longest` bytes of it, and how much is missing.
fn cut(value: &str, longest: usize) -> String {
    if value.len() <= longest {
        return value.to_owned();
    }
    let kept = &value[..value.floor_char_boundary(longest)];
    format!("{kept}… ({} bytes cut)", value.len() - kept.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, fields: &[(&str, &str)]) -> Line {
        let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Line { level: "warn", message: message.to_owned(), place: "src/x.rs:7".to_owned(), fields }
    }

    fn read(line: Line) -> Map<String, Value> {
        let bytes = line.encode();
        assert!(bytes.len() <= LONGEST, "{}", bytes.len());
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1, "one line");
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_line_has_what_the_server_looks_for_and_nothing_that_it_drops() {
        let read = read(line("one\ntwo", &[("level", "9"), ("time", "now"), ("@level", "panic"), ("name", "data")]));
        let want = serde_json::json!({"@level": "warn", "@message": "one\ntwo", "@logSourceSetBy": "plugin",
            "logSource": "src/x.rs:7", "level_": "9", "time_": "now", "name": "data"});
        assert_eq!(Value::Object(read), want);
    }

    #[test]
    fn however_long_a_line_is_it_arrives_as_one() {
        let long = "ü\u{1}".repeat(30_000);
        assert!(read(line(&long, &[("item", &long)]))["@message"].as_str().unwrap().ends_with("bytes cut)"));
        let many: Vec<String> = (0..2_000).map(|n| format!("field{n}")).collect();
        let mut fields: Vec<(&str, &str)> = many.iter().map(|n| (n.as_str(), long.as_str())).collect();
        fields.push(("error", "the disk is gone"));
        let read = read(line("short", &fields));
        assert_eq!((&read["error"], &read["@message"]), (&"the disk is gone".into(), &"short".into()));
    }
}
