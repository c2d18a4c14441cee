//! Files of ours in folders where others have theirs: theirs are never lost.
//!
//! ```text
//!  nothing there ── write ──► ours                         ── remove ──► nothing
//!  somebody else's ── write ──► stays, or on request is set aside (NAME.before-weft) ── remove ──► put back
//! ```
//!
//! A file is ours if it is a plain one that begins with [`MARK`]; a link never is, whatever it leads to.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;

use super::resolv_conf::MARK;

/// Ends the name of a file that was set aside.
const ASIDE: &str = ".before-weft";
/// Ends the name of a file that is being written.
const NEW: &str = ".weft-new";
/// Readable for all, as such files are.
const MODE: u32 = 0o644;

/// What is at a path.
enum There {
    Nothing,
    Ours(String),
    Foreign,
}

fn there(path: &Path) -> There {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => There::Nothing,
        Ok(found) if found.is_file() => match fs::read_to_string(path) {
            Ok(text) if text.starts_with(MARK) => There::Ours(text),
            Ok(_) | Err(_) => There::Foreign,
        },
        Ok(_) | Err(_) => There::Foreign,
    }
}

/// The text of a file of ours.
pub(super) fn read(path: &Path) -> Option<String> {
    match there(path) {
        There::Ours(text) => Some(text),
        There::Nothing | There::Foreign => None,
    }
}

/// Writes a text that begins with [`MARK`]; false if somebody else's file is there and was not to be set aside.
pub(super) fn write(path: &Path, text: &str, sets_aside: bool) -> io::Result<bool> {
    match there(path) {
        There::Ours(_) => return write_over(path, text).map(|()| true),
        There::Foreign if !sets_aside => return Ok(false),
        There::Foreign => {
            let aside = aside(path);
            if aside.symlink_metadata().is_ok() {
                let why = format!("{} has been set aside already", aside.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            fs::rename(path, aside)?;
        }
        There::Nothing => {}
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Whole or not at all: half a file would not be known for ours.
    let new = ending(path, NEW);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .custom_flags(O_NOFOLLOW)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)?;
    Ok(true)
}

/// Written in place: `ip netns exec` has laid it over another file, and that would keep showing the old one. The mark
/// is there all the time.
fn write_over(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(O_NOFOLLOW)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len().try_into().unwrap_or(u64::MAX))
}

/// Removes a file of ours and puts back what was set aside for it; somebody else's stays.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let found = there(path);
    if matches!(found, There::Foreign) {
        return Ok(());
    }
    // A writer was cut off.
    let _ = fs::remove_file(ending(path, NEW));
    match fs::rename(aside(path), path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match found {
            There::Ours(_) => fs::remove_file(path),
            There::Nothing | There::Foreign => Ok(()),
        },
        outcome => outcome,
    }
}

fn aside(path: &Path) -> PathBuf {
    ending(path, ASIDE)
}

fn ending(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn text(rest: &str) -> String {
        format!("{MARK}{rest}")
    }

    #[test]
    fn a_file_of_ours_comes_changes_in_place_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c1/hosts");
        assert!(write(&path, &text("long"), false).unwrap());
        let number = path.metadata().unwrap().ino();
        assert!(write(&path, &text("x"), false).unwrap());
        assert_eq!(path.metadata().unwrap().ino(), number);
        assert_eq!(read(&path), Some(text("x")));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("c1")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_of_somebody_else_stays_or_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "theirs").unwrap();
        assert!(!write(&path, &text(""), false).unwrap());
        assert_eq!(read(&path), None);
        remove(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");

        for _ in 0..2 {
            assert!(write(&path, &text(""), true).unwrap());
        }
        assert_eq!(read(&path), Some(text("")));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_that_was_set_aside_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "first").unwrap();
        write(&path, &text(""), true).unwrap();
        fs::write(&path, "second").unwrap();
        assert!(write(&path, &text(""), true).is_err());
        remove(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::read_to_string(aside(&path)).unwrap(), "first");

        // Cut off between setting aside and writing.
        fs::remove_file(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn a_link_is_somebody_elses_and_is_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (path, end) = (dir.path().join("resolv.conf"), dir.path().join("end"));
        for content in [None, Some("theirs".to_owned()), Some(text("another's"))] {
            if let Some(content) = &content {
                fs::write(&end, content).unwrap();
            }
            let _ = fs::remove_file(&path);
            symlink(&end, &path).unwrap();
            assert!(!write(&path, &text("new"), false).unwrap());
            assert!(write(&path, &text("new"), true).unwrap());
            assert_eq!(read(&path), Some(text("new")));
            assert_eq!(fs::read_to_string(&end).ok(), content);
            remove(&path).unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), end);
        }
    }
}
