//! What a program may leave behind on hosts: devices, addresses, routes and rules, and files for their containers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::host::Host;
use crate::sandbox::NETNS_FILES;
use crate::wait;

/// The kernel takes two seconds to see that nobody else has an IPv6 address.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// What there is, each with the command that lists it.
const LISTS: [&[&str]; 7] = [
    &["ip", "-br", "link"],
    &["ip", "-br", "address"],
    &["ip", "-4", "rule"],
    &["ip", "-6", "rule"],
    &["ip", "-4", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["nft", "-s", "list", "ruleset"],
];

/// One line for each thing there is, on these hosts and among the files of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces(Vec<String>);

impl Traces {
    /// What there is now, once all addresses are the devices' own.
    ///
    /// # Panics
    ///
    /// If the tools are not installed, or an address stays tentative.
    #[must_use]
    pub fn of<'a>(hosts: impl IntoIterator<Item = &'a Host>) -> Self {
        let mut lines = Vec::new();
        for host in hosts {
            wait::within("the addresses to settle", SETTLE_LIMIT, || {
                let tried = host.run(&["ip", "-6", "-o", "address", "show", "tentative"]);
                tried.is_empty()
            });
            for list in LISTS {
                let what = format!("{}, {}", host.name(), list.join(" "));
                let listed = host.run(list);
                lines.extend(
                    listed
                        .lines()
                        .map(|line| format!("{what}: {}", without_state(list, line))),
                );
            }
        }
        add_files(Path::new(NETNS_FILES), &mut lines);
        Self(lines)
    }

    /// What has come since, with `+`, and what has gone, with `-`; nothing if all is as it was.
    #[must_use]
    pub fn changes_to(&self, after: &Self) -> Vec<String> {
        let mut come = after.0.clone();
        let mut changes = Vec::new();
        for line in &self.0 {
            match come.iter().position(|other| other == line) {
                Some(at) => drop(come.remove(at)),
                None => changes.push(format!("- {line}")),
            }
        }
        changes.extend(come.iter().map(|line| format!("+ {line}")));
        changes
    }
}

/// A tap whose daemon was begun anew is UP where it was UNKNOWN, and passes frames in either state.
fn without_state(list: &[&str], line: &str) -> String {
    let states = ["UP", "DOWN", "UNKNOWN", "LOWERLAYERDOWN"];
    let words = line.split_whitespace().enumerate();
    let is_state = |at: usize, word: &str| list[1] == "-br" && at == 1 && states.contains(&word);
    let kept = words.filter(|(at, word)| !is_state(*at, word));
    kept.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

fn add_files(folder: &Path, lines: &mut Vec<String>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            lines.push(path.display().to_string());
            add_files(&path, lines);
        } else {
            let text = fs::read_to_string(&path).unwrap_or_default();
            lines.push(format!("{}: {text}", path.display()));
        }
    }
}
