//! Makes answers comparable: ids, times and measures made equal, and the rewriting that is documented taken back.

use serde_json::{Map, Value, json};

/// The wait program in a command that is shown.
const WAIT: &str = "/w/w";
/// The server that the proxy adds.
const SERVER: &str = "169.254.53.1";
/// The domain that it has containers look in.
const DOMAIN: &str = "weave.local";
/// Members that say when, how much, or which process.
const MEASURES: [&str; 23] = [
    "Created",
    "CreatedAt",
    "CpuUsage",
    "FinishedAt",
    "LayersSize",
    "MemFree",
    "NEventsListener",
    "NFd",
    "NGoroutines",
    "Pid",
    "Size",
    "SizeRootFs",
    "StartedAt",
    "SystemTime",
    "VirtualSize",
    "time",
    "timeNano",
    "read",
    "preread",
    "mtime",
    "StateIndex",
    "LastTagTime",
    "SpaceReclaimed",
];

/// A text without ids, times, and addresses that Docker chose.
pub(crate) fn scrubbed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || ".:-+".contains(letter);
    for letter in text.chars().chain(['\0']) {
        if is_part(letter) {
            word.push(letter);
            continue;
        }
        out.push_str(&scrubbed_word(&word));
        word.clear();
        if letter != '\0' {
            out.push(letter);
        }
    }
    out.replace(&format!("{WAIT} "), "")
}

fn scrubbed_word(word: &str) -> String {
    let is_time = word.len() >= 19
        && word.starts_with("20")
        && word.as_bytes()[10] == b'T'
        && word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"TZ.:-+".contains(&byte));
    if is_time {
        return "TIME".to_owned();
    }
    if word.starts_with("172.") || word.starts_with("02:42:") {
        return "ADDRESS".to_owned();
    }
    let mut out = String::with_capacity(word.len());
    for part in word.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
        let bare = part.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let is_id = bare.len() >= 12 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        out.push_str(if is_id { "ID" } else { bare });
        out.push_str(&part[bare.len()..]);
    }
    out
}

/// The kind of a value in place of the value.
fn kind(value: &Value) -> Value {
    Value::from(match value {
        Value::Null => "a null",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    })
}

/// Makes a JSON value comparable.
pub(crate) fn normalise(value: &mut Value) {
    match value {
        Value::String(text) => *text = scrubbed(text),
        Value::Array(list) => {
            list.iter_mut().for_each(normalise);
            // Docker makes the folder on which the wait program's is mounted.
            list.retain(|item| *item != json!({ "Kind": 1, "Path": "/w" }));
            // Docker lists what it keeps in maps.
            if list.iter().all(Value::is_object) {
                list.sort_by_key(Value::to_string);
            }
        }
        Value::Object(members) => {
            take_back(members);
            // Left out where it is 0.
            members.remove("SizeRw");
            let old = std::mem::take(members);
            for (key, mut value) in old {
                let is_ago = key == "Status" && value.as_str().is_some_and(says_when);
                if MEASURES.contains(&key.as_str()) || is_ago {
                    value = kind(&value);
                } else {
                    normalise(&mut value);
                }
                members.insert(scrubbed(&key), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `Up 3 seconds`, `Exited (0) Less than a second ago`.
fn says_when(text: &str) -> bool {
    text.starts_with("Up ") || text.ends_with(" ago")
}

/// Only which members there are, and of which kind: for what is measured.
pub(crate) fn shape(value: &mut Value) {
    match value {
        Value::Object(members) => {
            // Depends on what the kernel has counted so far.
            members.remove("blkio_stats");
            members.values_mut().for_each(shape);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            *value = kind(value)
        }
    }
}

/// Takes the documented rewriting of `containers/create` and `exec` back.
fn take_back(members: &mut Map<String, Value>) {
    without_first(members, "Entrypoint");
    // What runs is the program and its arguments, however they are parted.
    for (program, arguments) in [("Path", "Args"), ("entrypoint", "arguments")] {
        let (Some(Value::String(first)), Some(Value::Array(rest))) = (
            members.get(program).cloned(),
            members.get(arguments).cloned(),
        ) else {
            continue;
        };
        if first == WAIT {
            members.insert(
                program.to_owned(),
                rest.first().cloned().unwrap_or_default(),
            );
            members.insert(arguments.to_owned(), rest.get(1..).unwrap_or(&[]).into());
        }
    }
    without(members, "Binds", |bind| {
        bind.as_str().is_some_and(|bind| bind.ends_with(":/w:ro"))
    });
    without(members, "Mounts", |mount| mount["Destination"] == "/w");
    without(members, "Dns", |server| server == SERVER);
    without(members, "DnsSearch", |domain| {
        domain == DOMAIN || domain == "."
    });
    // A host name that the user did not give: the container's name in place of its id.
    if members
        .get("Domainname")
        .is_some_and(|domain| domain == DOMAIN)
    {
        members.insert("Domainname".to_owned(), "".into());
        members.insert("Hostname".to_owned(), "ID".into());
    }
}

fn without_first(members: &mut Map<String, Value>, key: &str) {
    without(members, key, |word| word == WAIT);
}

/// Takes what `is_ours` out of a list; an empty one and none are the same.
fn without(members: &mut Map<String, Value>, key: &str, is_ours: impl Fn(&Value) -> bool) {
    let Some(value) = members.get_mut(key) else {
        return;
    };
    if let Value::Array(list) = value {
        list.retain(|item| !is_ours(item));
        if list.is_empty() {
            *value = Value::Null;
        }
    }
}
