//! Keeps what a long test of this crate measured: one JSON file for each.
//!
//! The namespace tests keep theirs alike; neither crate may import the other.
//!
//! `.ci/long` sets `WEFT_RECORDS` to `benches/records`, and `WEFT_COMMIT` to what was measured.

use std::env;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// The machine's processors, as the kernel names them.
fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    let names: Vec<String> = names.collect();
    format!(
        "{} × {}",
        names.len(),
        names.first().map_or("?", |name| name)
    )
}

/// Writes figures to `$WEFT_RECORDS/NAME.json`; without the variable nothing is kept.
pub(crate) fn keep(name: &str, figures: &Value) {
    let Some(folder) = env::var_os("WEFT_RECORDS") else {
        return;
    };
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let mut all = Map::from_iter([
        (
            "commit".to_owned(),
            json!(env::var("WEFT_COMMIT").unwrap_or_default()),
        ),
        ("machine".to_owned(), json!(machine())),
        ("tests_built".to_owned(), json!(build)),
    ]);
    all.extend(figures.as_object().expect("figures have names").clone());
    let text = serde_json::to_string_pretty(&all).expect("JSON can be written");
    let path = Path::new(&folder).join(format!("{name}.json"));
    fs::write(&path, text + "\n").expect("the folder is there");
}
