//! Whether `docs/promises.md` can be believed: each weakness of the original has its row, each row names a test, and the tests are
//! there.
//!
//! Only names are looked at. That a test shows what its row says is for people to read; this keeps them from reading in
//! vain after a test was renamed or taken away.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The page.
const PAGE: &str = "docs/promises.md";
/// Weaknesses of the original: W-01 to this one.
const WEAKNESSES: u32 = 50;
/// What holds here, by section of the project's description, and how many of it. A rule that is new has its row and is counted here.
const RULES: [(u32, u32); 12] =
    [(0, 8), (1, 8), (2, 16), (3, 6), (4, 4), (5, 6), (6, 4), (7, 14), (8, 3), (9, 9), (10, 4), (11, 2)];
/// What once stood in place of a test: nothing shows it yet, or not all of it. No row may say it any more, beside a test neither.
const OPEN: &str = "open";
/// In place of a test, for [`MAY_WAIT`] alone.
const WAITS: &str = "waits";
/// Needs a guest cluster, which the lab does not have.
const MAY_WAIT: &str = "W-43";
/// Functions in a list behind one of these words are tests, too.
const LISTS: [&str; 2] = ["scenarios![", "scenes!("];

/// How a promise stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Shown,
    Waits,
}

/// A row of the page.
#[derive(Debug)]
struct Row<'p> {
    id: &'p str,
    standing: Standing,
    /// As `crate::module::function`.
    tests: Vec<&'p str>,
}

/// Fails when the page lacks a row, has one twice or one that is open, names a test that is not there, or counts wrong.
pub(crate) fn check(root: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("read {PAGE}"))?;
    let complaints = complaints(&page, weaknesses().chain(rules()), |test| is_there(root, test));
    if !complaints.is_empty() {
        bail!("{PAGE} promises what it does not show:\n  {}", complaints.join("\n  "));
    }
    println!("every test that {PAGE} names is there");
    Ok(())
}

/// What is wrong with the page. It needs a row for each of `needed`; `is_there` says what is wrong with the name of a test.
fn complaints(
    page: &str,
    needed: impl Iterator<Item = String>,
    is_there: impl Fn(&str) -> Result<(), String>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut rows = Vec::new();
    for line in page.lines().map(str::trim).filter(|line| is_row(line)) {
        match read(line) {
            Ok(row) => rows.push(row),
            Err(why) => complaints.push(why),
        }
    }
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *times.entry(row.id).or_default() += 1;
        for test in &row.tests {
            complaints.extend(is_there(test).err().map(|why| format!("{}: {why}", row.id)));
        }
    }
    complaints
        .extend(times.iter().filter(|(_, times)| **times > 1).map(|(id, _)| format!("{id} has more than one row")));
    let missing = needed.filter(|id| !times.contains_key(id.as_str()));
    complaints.extend(missing.map(|id| format!("{id} has no row")));
    let counts = counts(&rows);
    if !page.lines().any(|line| line == counts) {
        complaints.push(format!("the line with the counts should read: {counts}"));
    }
    complaints
}

/// The line at the top of the page.
fn counts(rows: &[Row<'_>]) -> String {
    let of = |standing| rows.iter().filter(|row| row.standing == standing).count();
    let (shown, waits) = (of(Standing::Shown), of(Standing::Waits));
    format!("**{shown} rows are shown by tests, {waits} waits for guest clusters.**")
}

fn weaknesses() -> impl Iterator<Item = String> {
    (1..=WEAKNESSES).map(|number| format!("W-{number:02}"))
}

fn rules() -> impl Iterator<Item = String> {
    RULES.into_iter().flat_map(|(section, count)| (1..=count).map(move |number| format!("M-{section}-{number}")))
}

/// Whether a line is a row of a table, and not its head.
fn is_row(line: &str) -> bool {
    line.starts_with('|') && !line.starts_with("| id |") && !line.starts_with("|---")
}

fn read(line: &str) -> Result<Row<'_>, String> {
    let inside = line.strip_prefix('|').and_then(|rest| rest.strip_suffix('|')).unwrap_or_default();
    let cells: Vec<&str> = inside.split('|').map(str::trim).collect();
    let [id, what, tests] = cells[..] else { return Err(format!("a row has three cells, unlike this one: {line}")) };
    if !is_id(id) {
        return Err(format!(
            "`{id}` is no id such as {MAY_WAIT} or M-0-4, or is not counted in crates/xtask/src/promises.rs"
        ));
    }
    if what.is_empty() {
        return Err(format!("{id} does not say what happens"));
    }
    let (standing, tests) = tests_in(tests).map_err(|why| format!("{id}: {why}"))?;
    if standing == Standing::Waits && id != MAY_WAIT {
        return Err(format!("{id}: only {MAY_WAIT} may say `{WAITS}`"));
    }
    Ok(Row { id, standing, tests })
}

fn is_id(id: &str) -> bool {
    weaknesses().chain(rules()).any(|known| known == id)
}

/// The last cell of a row: names between backticks, and at most one word of ours beside them.
fn tests_in(cell: &str) -> Result<(Standing, Vec<&str>), String> {
    let parts: Vec<&str> = cell.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return Err("a backtick of the last cell has no other end".to_owned());
    }
    let tests: Vec<&str> = parts.iter().skip(1).step_by(2).copied().collect();
    let words: Vec<&str> =
        parts.iter().step_by(2).flat_map(|part| part.split([',', ' '])).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        [] if tests.is_empty() => Err("it names no test".to_owned()),
        [] => Ok((Standing::Shown, tests)),
        [WAITS] => Ok((Standing::Waits, tests)),
        [OPEN] => Err(format!("no row may be `{OPEN}`: a test has to show all that it says")),
        other => Err(format!("the last cell holds names of tests, not `{}`", other.join(" "))),
    }
}

/// Whether a test is there: the modules of its name are the path of its file, below `src` or `tests` of its crate.
fn is_there(root: &Path, test: &str) -> Result<(), String> {
    let path: Vec<&str> = test.split("::").collect();
    let [package, modules @ .., function] = path.as_slice() else {
        return Err(format!("`{test}` is no `crate::module::function`"));
    };
    let places: Vec<PathBuf> = folders(root, package).iter().flat_map(|folder| files(folder, modules)).collect();
    let sources: Vec<String> = places.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    if sources.is_empty() {
        return Err(format!("`{test}`: no file is called like its modules"));
    }
    let found = sources.iter().any(|source| is_test(source, function));
    if found { Ok(()) } else { Err(format!("`{test}`: no test of that name is in its file")) }
}

/// Where a crate's files with tests are.
fn folders(root: &Path, package: &str) -> Vec<PathBuf> {
    let home = match package {
        "scenarios" => return vec![root.join("tests/e2e/tests/scenarios")],
        "lab" => root.join("tests/lab"),
        other => root.join("crates").join(other.replace('_', "-")),
    };
    vec![home.join("src"), home.join("tests")]
}

/// The files in which a module may be.
fn files(folder: &Path, modules: &[&str]) -> Vec<PathBuf> {
    let module = modules.iter().fold(folder.to_owned(), |path, name| path.join(name));
    let mut files = vec![module.join("mod.rs"), module.join("main.rs"), module.join("lib.rs")];
    if !modules.is_empty() {
        files.push(module.with_extension("rs"));
    }
    files
}

/// Whether a function of that name is run as a test.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| declares(line, name)) else { return false };
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
    let attributes: Vec<&&str> = above.collect();
    let has = |attribute: &str| attributes.iter().any(|line| line.starts_with(attribute));
    (has("#[test]") || has("#[tokio::test") || is_listed(source, name)) && !has("#[ignore")
}

fn declares(line: &str, name: &str) -> bool {
    let declaration = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
    declaration.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
}

fn is_listed(source: &str, name: &str) -> bool {
    let within = |list: &str| source.split_once(list).and_then(|(_, rest)| rest.split([']', ')']).next());
    LISTS.iter().filter_map(|list| within(list)).any(|names| names.split([',', ' ', '\n']).any(|one| one == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page on which every weakness is shown by one test, and the line with its counts.
    fn page(changed: impl Fn(String) -> String, counts: &str) -> String {
        let rows = weaknesses().map(|id| changed(format!("| {id} | it does not happen | `house::door::it_opens` |\n")));
        let head = format!("{counts}\n\n| id | what | test |\n|---|---|---|\n");
        rows.fold(head, |page, row| page + &row)
    }

    fn all_shown(rows: usize) -> String {
        format!("**{rows} rows are shown by tests, 0 waits for guest clusters.**")
    }

    fn of(page: &str) -> Vec<String> {
        complaints(
            page,
            weaknesses(),
            |test| if test == "house::door::it_opens" { Ok(()) } else { Err(format!("no {test}")) },
        )
    }

    #[test]
    fn a_row_that_is_missing_or_empty_or_there_twice_is_noticed() {
        assert_eq!(of(&page(|row| row, &all_shown(50))), Vec::<String>::new());
        let gone = page(|row| if row.contains("W-17") { String::new() } else { row }, &all_shown(49));
        assert_eq!(of(&gone), ["W-17 has no row"]);
        let twice = page(|row| if row.contains("W-17") { row.clone() + &row } else { row }, &all_shown(51));
        assert_eq!(of(&twice), ["W-17 has more than one row"]);
        let rule = "| M-0-4 | kept | `house::door::it_opens` |\n";
        assert_eq!(of(&(page(|row| row, &all_shown(52)) + rule + rule)), ["M-0-4 has more than one row"]);
        let mute = page(|row| row.replace("it does not happen", ""), &all_shown(0));
        assert!(of(&mute).contains(&"W-50 does not say what happens".to_owned()), "{:?}", of(&mute));
        for odd in ["| W-51 | x | y |", "| w-17 | x | y |", "| M-0 | x | y |", "| M-0-x | x | y |"] {
            let complaints = of(&(page(|row| row, &all_shown(50)) + odd));
            assert!(complaints.len() == 1 && complaints[0].contains("is no id"), "{odd}: {complaints:?}");
        }
        for odd in ["| M-0-1 | x |", "| M-0-1 | x | y", "| M-0-1 | x | y | z |"] {
            let complaints = of(&(page(|row| row, &all_shown(50)) + odd));
            assert!(complaints.len() == 1 && complaints[0].contains("three cells"), "{odd}: {complaints:?}");
        }
    }

    #[test]
    fn a_rule_whose_row_was_taken_away_is_noticed_and_so_is_one_that_nobody_counts() {
        let row = |id: String| format!("| {id} | it holds | `house::door::it_opens` |\n");
        let with = |rules: &mut dyn Iterator<Item = String>| {
            let page = page(|row| row, &all_shown(134)) + &rules.map(row).collect::<String>();
            complaints(&page, weaknesses().chain(self::rules()), |_| Ok(()))
        };
        assert_eq!(with(&mut rules()), Vec::<String>::new());
        let without = with(&mut rules().filter(|id| id != "M-7-14"));
        assert!(without.contains(&"M-7-14 has no row".to_owned()), "{without:?}");
        let more = with(&mut rules().chain(["M-7-15".to_owned()]));
        assert!(more.len() == 1 && more[0].contains("`M-7-15` is no id"), "{more:?}");
    }

    #[test]
    fn a_row_without_a_test_that_is_there_has_to_say_so() {
        let cases = [
            ("`house::door::it_opens`, `house::roof::it_is_tight`", 50, "W-17: no house::roof::it_is_tight"),
            ("", 49, "names no test"),
            ("soon", 49, "W-17: the last cell holds names of tests, not `soon`"),
            ("`house::door::it_opens", 49, "no other end"),
        ];
        for (cell, shown, why) in cases {
            let complaints = of(&page(instead("W-17", cell), &all_shown(shown)));
            assert!(complaints.iter().any(|said| said.contains(why)), "{cell}: {complaints:?}");
        }
    }

    /// The row of that id has this instead of its test.
    fn instead(id: &str, cell: &str) -> impl Fn(String) -> String {
        let (begin, cell) = (format!("| {id} |"), cell.to_owned());
        move |row| if row.starts_with(&begin) { row.replace("`house::door::it_opens`", &cell) } else { row }
    }

    /// Nobody reads a page of promises for those that are not kept.
    #[test]
    fn a_row_that_nothing_shows_yet_is_refused_also_where_a_test_shows_some_of_it() {
        for cell in ["open", "open, `house::door::it_opens`", "`house::door::it_opens`, open"] {
            for id in ["W-17", MAY_WAIT] {
                let complaints = of(&page(instead(id, cell), &all_shown(49)));
                let why = format!("{id}: no row may be `open`: a test has to show all that it says");
                assert_eq!(complaints, [why, format!("{id} has no row")], "{cell}");
            }
        }
    }

    #[test]
    fn one_row_alone_may_wait_for_what_the_lab_does_not_have() {
        let counts = "**49 rows are shown by tests, 1 waits for guest clusters.**";
        assert_eq!(of(&page(instead(MAY_WAIT, WAITS), counts)), Vec::<String>::new());
        for id in weaknesses().chain(rules()).filter(|id| id != MAY_WAIT) {
            for cell in ["waits", "waits, `house::door::it_opens`"] {
                let row = format!("| {id} | it does not happen | {cell} |");
                assert_eq!(read(&row).err(), Some(format!("{id}: only W-43 may say `waits`")));
            }
        }
    }

    #[test]
    fn the_counts_are_of_the_rows() {
        let counts = "**49 rows are shown by tests, 1 waits for guest clusters.**";
        let complaints = of(&page(instead(MAY_WAIT, WAITS), &all_shown(50)));
        assert_eq!(complaints, [format!("the line with the counts should read: {counts}")]);
    }

    #[test]
    fn only_what_is_run_as_a_test_counts() {
        let source = "
            crate::scenarios![a_listed_one, another,];
            async fn a_listed_one(world: World) -> Result<()> {
            fn helper() {}
            #[test]
            fn a_plain_one() {}
            /// With a word about it.
            #[tokio::test(start_paused = true)]
            // and another
            async fn an_async_one() {}
            #[test]
            #[ignore = \"not today\"]
            fn an_ignored_one() {}
            #[test]
            fn a_plain_one_with_more() {}
        ";
        for (name, want) in [
            ("a_listed_one", true),
            ("a_plain_one", true),
            ("an_async_one", true),
            ("another", false),
            ("helper", false),
            ("an_ignored_one", false),
            ("a_plain", false),
        ] {
            assert_eq!(is_test(source, name), want, "{name}");
        }
        let here = crate::root();
        let this = "xtask::promises::only_what_is_run_as_a_test_counts";
        assert_eq!(is_there(&here, this), Ok(()));
        for gone in ["xtask::promises::nothing", "xtask::vows::nothing", "attic::x::y", "nothing"] {
            assert!(is_there(&here, gone).is_err(), "{gone}");
        }
    }
}
