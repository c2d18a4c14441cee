//! Holds the style that clippy cannot: headers, sizes, arrows, names, where `unsafe` may stand.
//!
//! Every check is a function from a path and a text to complaints, tried on a bad example of its own below,
//! so that none of them can pass by seeing nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file's lines without its tests.
const LINES_MAX: usize = 500;
/// The crates, and which crates of ours each may import.
const ARROWS: [(&str, &[&str]); 5] = [
    ("engine", &[]),
    ("control", &["weft-engine"]),
    ("cli", &["weft-control", "weft-engine"]),
    ("benches", &["weft-control", "weft-engine"]),
    ("netns-tests", &[]),
];
/// The files that may hold `unsafe`; one that is not there yet is fine.
const UNSAFE_FILES: [&str; 7] = [
    // A program of its own without any crate: handlers of signals.
    "cli/wait/program.rs",
    "engine/src/packet/pool.rs",
    "engine/src/queue/spsc.rs",
    "engine/src/io/uring.rs",
    "engine/src/io/tuntap.rs",
    "engine/src/io/udp.rs",
    "engine/src/io/slice.rs",
];
/// Names that say nothing about a file's job.
const BANNED_NAMES: [&str; 7] = [
    "mod", "util", "utils", "common", "helper", "helpers", "misc",
];
/// As above, anywhere in the name.
const BANNED_PART: &str = "manager";
/// Macros that stand where code should.
const PLACEHOLDERS: [&str; 2] = ["todo", "unimplemented"];
/// The stations, as README, counters and status name them.
const STATIONS: [&str; 8] = [
    "tap_rx", "bridge", "stage", "seal", "udp_tx", "udp_rx", "open", "deliver",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

/// Returns every Rust file of the workspace with its path from the root.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ARROWS.iter().map(|(name, _)| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder can be read") {
            let path = entry.expect("a source folder can be read").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(&root)
                    .expect("it lies below the root")
                    .display()
                    .to_string();
                found.push((name, fs::read_to_string(&path).expect("a source is text")));
            }
        }
    }
    found.sort();
    assert!(
        found.len() > 20,
        "found only {} sources: is the root right?",
        found.len()
    );
    found
}

/// Applies a check to every source and fails with all complaints at once.
fn hold(check: impl Fn(&str, &str) -> Vec<String>) {
    let complaints: Vec<String> = sources()
        .iter()
        .flat_map(|(path, text)| check(path, text))
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Returns the text up to its tests at the bottom of the file.
fn without_tests(text: &str) -> &str {
    let at_line_start = |at: usize| at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n');
    text.match_indices("#[cfg(test)]\nmod ")
        .map(|(at, _)| at)
        .find(|at| at_line_start(*at) && !text[*at..].starts_with("#[cfg(test)]\nmod tests;"))
        .map_or(text, |at| &text[..at])
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/benches/")
}

/// Returns the line without a comment at its end and without what stands in quotes.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => {
                characters.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(character),
        }
    }
    code
}

/// Returns the numbers of the lines whose code has the word.
fn lines_with_word(text: &str, word: &str) -> Vec<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let has = |line: &str| {
        code_of(line)
            .split(|c| !is_part(c))
            .any(|part| part == word)
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| has(line))
        .map(|(i, _)| i + 1)
        .collect()
}

fn check_header(path: &str, text: &str) -> Vec<String> {
    let sentence = text
        .lines()
        .next()
        .unwrap_or_default()
        .strip_prefix("//! ")
        .unwrap_or_default();
    if sentence.len() >= 10 {
        vec![]
    } else {
        vec![format!(
            "{path}: the first line is no `//! ` header that says its job"
        )]
    }
}

fn check_length(path: &str, text: &str) -> Vec<String> {
    if is_test_file(path) {
        return vec![];
    }
    let count = without_tests(text).lines().count();
    if count <= LINES_MAX {
        return vec![];
    }
    vec![format!(
        "{path}: {count} lines without tests, at most {LINES_MAX}: it has a second job"
    )]
}

fn check_name(path: &str, _text: &str) -> Vec<String> {
    let stem = Path::new(path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if BANNED_NAMES.contains(&stem) || stem.contains(BANNED_PART) {
        return vec![format!("{path}: the name says nothing about its job")];
    }
    vec![]
}

fn check_unsafe(path: &str, text: &str) -> Vec<String> {
    if UNSAFE_FILES.contains(&path) {
        return vec![];
    }
    let lines = lines_with_word(text, "unsafe");
    lines
        .iter()
        .map(|line| format!("{path}:{line}: `unsafe` outside the files that may hold it"))
        .collect()
}

fn check_unsafe_has_reason(path: &str, text: &str) -> Vec<String> {
    let marked = text.contains("#![expect(unsafe_code, reason = ")
        || text.contains("#![expect(\n    unsafe_code");
    if UNSAFE_FILES.contains(&path) && !marked && !lines_with_word(text, "unsafe").is_empty() {
        return vec![format!(
            "{path}: may hold `unsafe` and does not say why at its top"
        )];
    }
    vec![]
}

fn check_placeholders(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let code = code_of(line);
        for word in PLACEHOLDERS
            .iter()
            .filter(|word| code.contains(&format!("{word}!")))
        {
            complaints.push(format!(
                "{path}:{}: `{word}!` stands where code should",
                i + 1
            ));
        }
    }
    complaints
}

/// Returns the crates of ours that a Cargo.toml imports.
fn arrows_of(manifest: &str) -> BTreeSet<String> {
    let table: toml::Table = toml::from_str(manifest).expect("cargo reads it, too");
    let mut tables = vec![&table];
    // Dependencies for one target stand a level deeper.
    tables.extend(
        table
            .get("target")
            .and_then(toml::Value::as_table)
            .into_iter()
            .flat_map(|targets| targets.values().filter_map(toml::Value::as_table)),
    );
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    tables
        .iter()
        .flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()))
        .flat_map(|dependencies| dependencies.keys())
        .filter(|name| name.starts_with("weft-"))
        .cloned()
        .collect()
}

fn check_arrows(name: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    arrows_of(manifest)
        .iter()
        .filter(|arrow| !allowed.contains(&arrow.as_str()))
        .map(|arrow| {
            format!("{name}/Cargo.toml: imports {arrow}, which lies against the direction")
        })
        .collect()
}

/// Returns the names that the counters have for the reasons of `DropReason { Variant => "name", … }`.
fn drop_reasons(verdict: &str) -> Vec<String> {
    let Some((_, after)) = verdict.split_once("DropReason {") else {
        return vec![];
    };
    let body = after.split('}').next().unwrap_or_default();
    body.lines()
        .filter_map(|line| line.split_once("=> \"")?.1.split('"').next())
        .map(str::to_owned)
        .collect()
}

fn check_readme(readme: &str, reasons: &[String]) -> Vec<String> {
    let stations = STATIONS.iter().map(|station| (*station).to_owned());
    stations
        .chain(reasons.iter().cloned())
        .filter(|word| !readme.contains(&format!("`{word}`")))
        .map(|word| format!("README.md does not explain `{word}`"))
        .collect()
}

#[test]
fn every_file_says_its_job_in_its_first_line() {
    hold(check_header);
}

#[test]
fn no_file_is_longer_than_one_job() {
    hold(check_length);
}

#[test]
fn names_of_files_say_something() {
    hold(check_name);
}

#[test]
fn unsafe_stands_in_the_listed_files_only() {
    hold(check_unsafe);
    hold(check_unsafe_has_reason);
}

#[test]
fn nothing_stands_where_code_should() {
    hold(check_placeholders);
}

#[test]
fn crates_import_in_one_direction() {
    let root = root();
    let mut complaints = Vec::new();
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root.join(name).join("Cargo.toml")).unwrap();
        complaints.extend(check_arrows(name, &manifest, allowed));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    let workspace: toml::Table =
        toml::from_str(&fs::read_to_string(root.join("Cargo.toml")).unwrap()).unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap().len();
    assert_eq!(
        members,
        ARROWS.len(),
        "a crate came or went: its arrows belong into this test"
    );
}

/// Drop reasons appear in counters: whoever reads one finds its meaning in the README.
#[test]
fn the_readme_explains_stations_and_drop_reasons() {
    let root = root();
    let verdict = fs::read_to_string(root.join("engine/src/verdict.rs")).unwrap();
    let reasons = drop_reasons(&verdict);
    assert!(
        !reasons.is_empty(),
        "no variant found in verdict.rs: has `enum DropReason` moved?"
    );

    let complaints = check_readme(
        &fs::read_to_string(root.join("README.md")).unwrap(),
        &reasons,
    );

    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_check_sees_a_bad_example() {
    let long = "//! A long file.\n".repeat(LINES_MAX + 1);
    let unsafe_call = "//! A file.\nfn f() { unsafe { g() } }\n";
    let hidden = format!("//! A file.\nfn f() {{ {}!() }}\n", PLACEHOLDERS[0]);

    assert_eq!(check_header("a.rs", "use x;\n").len(), 1);
    assert_eq!(check_header("a.rs", "//! \n").len(), 1);
    assert_eq!(check_length("cli/src/a.rs", &long).len(), 1);
    assert_eq!(check_name("engine/src/packet_manager.rs", "").len(), 1);
    assert_eq!(check_name("engine/src/io/mod.rs", "").len(), 1);
    assert_eq!(check_unsafe("cli/src/a.rs", unsafe_call).len(), 1);
    assert_eq!(
        check_unsafe_has_reason(UNSAFE_FILES[0], unsafe_call).len(),
        1
    );
    assert_eq!(check_placeholders("a.rs", &hidden).len(), 1);
    assert_eq!(
        check_arrows(
            "engine",
            "[target.x.dependencies]\nweft-control = \"1\"\n",
            &[]
        )
        .len(),
        1
    );
    assert_eq!(
        check_arrows(
            "cli",
            "[dev-dependencies]\nweft-benches.workspace = true\n",
            ARROWS[2].1
        )
        .len(),
        1
    );
    let verdict = "DropReason {\n    /// Doc.\n    PoolEmpty => \"pool_empty\",\n    NoRoute => \"no_route\",\n}\nX => \"x\"";
    let reasons = drop_reasons(verdict);
    assert_eq!(reasons, ["pool_empty", "no_route"]);
    assert_eq!(
        check_readme("`pool_empty`", &reasons).len(),
        STATIONS.len() + 1
    );
}

#[test]
fn words_in_comments_and_texts_are_no_code() {
    let text = "let a = \"unsafe \\\" unsafe\"; // unsafe\n/// unsafe\nunsafe_code();\nunsafe {}\n";

    assert_eq!(lines_with_word(text, "unsafe"), [4]);
}

#[test]
fn tests_at_the_bottom_do_not_count_and_a_module_of_them_does_not_cut() {
    assert_eq!(
        without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"),
        "a\nb\n"
    );
    let elsewhere = "a\n#[cfg(test)]\nmod tests;\nb\n";
    assert_eq!(without_tests(elsewhere), elsewhere);
}

/// Two files of one name in one crate would be found by the wrong one's name.
#[test]
fn modules_are_files_beside_their_folder() {
    let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, _) in sources() {
        if let Some((folder, _)) = path.rsplit_once('/') {
            folders
                .entry(folder.to_owned())
                .or_default()
                .push(path.clone());
        }
    }
    let orphans: Vec<&String> = folders
        .keys()
        .filter(|folder| {
            !folder.ends_with("/src")
                && !folder.ends_with("/tests")
                && !folder.ends_with("/benches")
        })
        .filter(|folder| folder.contains("/src/") && !root().join(format!("{folder}.rs")).exists())
        .collect();
    assert!(
        orphans.is_empty(),
        "folders without a file of their name beside them: {orphans:?}"
    );
}
