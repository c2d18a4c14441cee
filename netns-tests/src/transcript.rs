//! Sections of a document that show what a user enters and what is said, made by the tests that enter it.
//!
//! ````text
//! ## Title
//!
//! What it is about.
//!
//! ```console
//! host1$ weft launch
//! ```
//! ````
//!
//! A section whose commands are not those that were entered fails its test. With `WEFT_TRANSCRIPTS=1` it is written
//! anew instead. What is another one every time stands as `ID`, `MAC` or `…`.

use std::env;
use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;

use crate::terminal::Terminal;

const FENCE: &str = "```";

/// One section while it is entered.
#[derive(Debug)]
pub struct Transcript {
    document: PathBuf,
    title: String,
    text: String,
    is_in_block: bool,
}

impl Transcript {
    /// Begins a section of `transcripts/DOCUMENT.md`.
    #[must_use]
    pub fn begin(document: &str, title: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("transcripts");
        Self {
            document: folder.join(format!("{document}.md")),
            title: title.to_owned(),
            text: String::new(),
            is_in_block: false,
        }
    }

    /// Says something between commands.
    pub fn note(&mut self, words: &str) {
        self.end_block();
        self.text.push_str(&format!("\n{words}\n"));
    }

    /// Enters a command that must succeed; returns what it said.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn enter(&mut self, terminal: &mut Terminal, line: &str) -> String {
        let (code, said) = self.try_to(terminal, line);
        assert_eq!(
            code,
            0,
            "{}: {} {line}: {said}",
            self.title,
            terminal.prompt()
        );
        said
    }

    /// Enters a command that must fail; returns what it said.
    ///
    /// # Panics
    ///
    /// If it succeeds.
    pub fn refused(&mut self, terminal: &mut Terminal, line: &str) -> String {
        let (code, said) = self.try_to(terminal, line);
        assert_ne!(
            code,
            0,
            "{}: {} {line}: {said}",
            self.title,
            terminal.prompt()
        );
        said
    }

    /// Enters `docker run -ti` or the like; what the terminal is told after that, the container is told.
    pub fn go_into(&mut self, terminal: &mut Terminal, name: &str, line: &str) {
        self.show(&format!("{} {line}", terminal.prompt()));
        terminal.go_into(name, line);
    }

    /// Leaves the container.
    pub fn leave(&mut self, terminal: &mut Terminal) {
        self.show(&format!("{} exit", terminal.prompt()));
        terminal.leave();
    }

    fn try_to(&mut self, terminal: &mut Terminal, line: &str) -> (i32, String) {
        self.show(&format!("{} {line}", terminal.prompt()));
        let (code, said) = terminal.enter(line);
        for said in said.lines() {
            self.show(normalised(said).trim_end());
        }
        (code, said)
    }

    fn show(&mut self, line: &str) {
        if !self.is_in_block {
            self.text.push_str(&format!("\n{FENCE}console\n"));
            self.is_in_block = true;
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn end_block(&mut self) {
        if self.is_in_block {
            self.text.push_str(&format!("{FENCE}\n"));
            self.is_in_block = false;
        }
    }

    /// Compares the section with the document's, or writes it there.
    ///
    /// # Panics
    ///
    /// If other commands stand there.
    pub fn end(mut self) {
        self.end_block();
        if env::var("WEFT_TRANSCRIPTS").is_ok_and(|value| value == "1") {
            self.write();
            return;
        }
        let document = fs::read_to_string(&self.document).unwrap_or_default();
        let written = section(&document, &self.title).unwrap_or_default();
        assert_eq!(
            commands(written),
            commands(&self.text),
            "\"{}\" in {} is not what was entered: run with WEFT_TRANSCRIPTS=1",
            self.title,
            self.document.display()
        );
    }

    fn write(&self) {
        // Other tests write theirs at the same time.
        let opened = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.document);
        let mut file = opened.expect("the document exists");
        file.lock().expect("a file can be locked");
        let mut document = String::new();
        file.read_to_string(&mut document).expect("it is text");
        let document = with_section(&document, &self.title, &self.text);
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(document.as_bytes()))
            .expect("the document can be written");
    }
}

fn heading(title: &str) -> String {
    format!("\n## {title}\n")
}

/// What stands below a title, to the next one.
fn section<'a>(document: &'a str, title: &str) -> Option<&'a str> {
    let (_, after) = document.split_once(&heading(title))?;
    Some(after.find("\n## ").map_or(after, |end| &after[..end]))
}

/// The document with a section in the place of the one of that title, or at its end.
fn with_section(document: &str, title: &str, text: &str) -> String {
    match section(document, title) {
        Some(old) => {
            let (before, _) = document
                .split_once(&heading(title))
                .expect("the section was found");
            let after = &document[before.len() + heading(title).len() + old.len()..];
            // The newline before the next title is its heading's.
            format!("{before}{}{text}{after}", heading(title))
        }
        None => format!("{}\n{}{text}", document.trim_end(), heading(title)),
    }
}

/// The lines with a prompt in the blocks of a section.
fn commands(section: &str) -> Vec<&str> {
    let blocks = section.split(FENCE).skip(1).step_by(2);
    let lines = blocks.flat_map(str::lines);
    let is_command = |line: &&str| {
        let prompt = line.split(' ').next().unwrap_or_default();
        let name = prompt
            .strip_suffix('$')
            .or_else(|| prompt.strip_suffix('#'));
        name.is_some_and(|name| !name.is_empty() && name.chars().all(char::is_alphanumeric))
    };
    lines.filter(is_command).collect()
}

/// Without what is another one every time.
fn normalised(line: &str) -> String {
    line.split(' ')
        .map(|word| match word {
            _ if is_id(word) => "ID",
            _ if is_mac(word) => "MAC",
            _ if word.starts_with("time=") => "time=…",
            _ if is_time(word) => "…",
            _ => word,
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// A container's, long or short.
fn is_id(word: &str) -> bool {
    [12, 64].contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_mac(word: &str) -> bool {
    word.len() == 17
        && word
            .split(':')
            .all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

/// `0.11/0.11/0.11`, as ping has it.
fn is_time(word: &str) -> bool {
    word.contains('/')
        && word
            .split('/')
            .all(|part| part.contains('.') && part.parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_found_and_replaced_where_it_stands() {
        let document = "# D\n\n## A\n\n```console\nh$ a\nsaid\n```\n\n## B\n\nb\n";
        assert_eq!(commands(section(document, "A").unwrap()), ["h$ a"]);

        let changed = with_section(document, "A", "\n```console\nh$ other\n```\n");
        assert_eq!(
            changed,
            "# D\n\n## A\n\n```console\nh$ other\n```\n\n## B\n\nb\n"
        );
        let longer = with_section(&changed, "C", "\nc\n");
        assert!(longer.ends_with("\n\n## C\n\nc\n"), "{longer}");
        assert_eq!(section(&longer, "D"), None);
    }

    #[test]
    fn what_differs_every_time_is_not_written() {
        assert_eq!(
            normalised("0123456789ab 02:aa:bb:cc:dd:ee 10.32.0.1/12"),
            "ID MAC 10.32.0.1/12"
        );
        assert_eq!(
            normalised("seq=0 time=0.1 ms = 0.1/0.1/0.1 ms"),
            "seq=0 time=… ms = … ms"
        );
    }

    #[test]
    fn a_command_has_a_prompt_and_stands_in_a_block() {
        let text = "h$ not this\n```console\nhost1$ weft ps\nweave:expose MAC\na2# ls\n$ no\n```\n";
        assert_eq!(commands(text), ["host1$ weft ps", "a2# ls"]);
    }
}
