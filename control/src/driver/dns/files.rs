//! Files of ours in folders where others have theirs: theirs are never lost.
//!
//! ```text
//!  nothing there ── write ──► ours                         ── remove ──► nothing
//!  somebody else's ── write ──► stays, or on request is set aside (NAME.before-weft) ── remove ──► put back
//!
//!  ours ── park ──► elsewhere, and theirs put back ── unpark ──► ours, and theirs set aside again
//! ```
//!
//! A file is ours if it is a plain one that begins with [`MARK`]; a link never is, whatever it leads to.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;

use super::resolv_conf::MARK;

/// Those of a container.
pub(super) const FILES: [&str; 2] = ["resolv.conf", "hosts"];
/// Ends the name of a file that was set aside.
const ASIDE: &str = ".before-weft";
/// Ends the name of a file that is being written.
const NEW: &str = ".weft-new";
/// Ends the name of what says of a parked file that somebody else's was set aside for it.
const TAKES: &str = ".takes";
/// Readable for all, as such files are, whatever our umask is.
const MODE: u32 = 0o644;
/// So that they are found.
const FOLDER_MODE: u32 = 0o755;

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
        make_folder(folder)?;
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
    file.set_permissions(Permissions::from_mode(MODE))?;
    fs::rename(new, path)?;
    Ok(true)
}

/// Makes a folder and those above it that are not there; one that is there stays as it is.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => {
            made?;
            fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
        }
    }
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

/// Removes a file of ours and puts back what was set aside for it; somebody else's stays. True if there was something.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    let found = there(path);
    if matches!(found, There::Foreign) {
        return Ok(false);
    }
    // A writer was cut off.
    let was_cut_off = fs::remove_file(ending(path, NEW)).is_ok();
    let (aside, is_ours) = (aside(path), matches!(found, There::Ours(_)));
    let set_aside = aside.symlink_metadata().ok();
    // Whatever is no folder takes the place at once.
    if is_ours && set_aside.as_ref().is_none_or(|aside| aside.is_dir()) {
        fs::remove_file(path)?;
    }
    if set_aside.is_some() {
        fs::rename(aside, path)?;
    }
    Ok(is_ours || was_cut_off || set_aside.is_some())
}

/// Moves a file of ours out of the way, and puts back what was set aside for it; what was parked there before is
/// forgotten. True if there was one.
pub(super) fn park(path: &Path, place: &Path) -> io::Result<bool> {
    let Some(text) = read(path) else {
        return Ok(false);
    };
    forget_parked(place)?;
    if aside(path).symlink_metadata().is_ok() {
        write(&ending(place, TAKES), MARK, false)?;
    }
    write(place, &text, false)?;
    remove(path)
}

/// Puts a parked file where it was; false if somebody else's is there for which it was not to be set aside.
pub(super) fn unpark(path: &Path, place: &Path) -> io::Result<bool> {
    let Some(text) = read(place) else {
        return Ok(true);
    };
    let takes = read(&ending(place, TAKES)).is_some();
    // One of ours is newer.
    let is_ours = read(path).is_some() || write(path, &text, takes)?;
    forget_parked(place)?;
    Ok(is_ours)
}

/// Removes a parked file. True if there was something.
pub(super) fn forget_parked(place: &Path) -> io::Result<bool> {
    let took = remove(&ending(place, TAKES))?;
    Ok(remove(place)? || took)
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

    use nix::sched::{CloneFlags, unshare};
    use nix::sys::stat::{Mode, umask};

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
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("c1")).unwrap().count(), 0);
    }

    #[test]
    fn everybody_reads_them_whatever_the_umask_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netns/c1/hosts");
        let writing = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                // This thread's alone from here on.
                unshare(CloneFlags::CLONE_FS).unwrap();
                umask(Mode::from_bits_truncate(0o077));
                write(&path, &text(""), false)
            });
            writer.join().unwrap()
        });
        assert!(writing.unwrap());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o644);
        for folder in ["netns", "netns/c1"] {
            assert_eq!(mode(&dir.path().join(folder)), 0o755, "{folder}");
        }
    }

    #[test]
    fn a_folder_that_was_set_aside_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("theirs"), "x").unwrap();
        assert!(write(&path, &text(""), true).unwrap());
        assert!(remove(&path).unwrap());
        assert_eq!(fs::read_to_string(path.join("theirs")).unwrap(), "x");
        assert!(!aside(&path).exists());
        assert!(!remove(&path).unwrap());
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
    fn a_parked_file_comes_back_to_where_it_was_and_takes_what_it_took() {
        let dir = tempfile::tempdir().unwrap();
        let (path, place) = (dir.path().join("hosts"), dir.path().join("parked/hosts"));
        let parked = || fs::read_dir(place.parent().unwrap()).unwrap().count();
        for takes in [true, false] {
            if takes {
                fs::write(&path, "theirs").unwrap();
            }
            write(&path, &text("x"), takes).unwrap();
            assert!(park(&path, &place).unwrap());
            let found = fs::read_to_string(&path).ok();
            assert_eq!(found.as_deref(), takes.then_some("theirs"));
            assert!(!park(&path, &place).unwrap(), "it is parked");

            // Somebody else's that came meanwhile.
            fs::write(&path, "theirs").unwrap();
            assert_eq!(unpark(&path, &place).unwrap(), takes);
            assert_eq!(read(&path), takes.then(|| text("x")));
            assert_eq!(parked(), 0);
            remove(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
            fs::remove_file(&path).unwrap();
        }

        write(&path, &text("old"), false).unwrap();
        park(&path, &place).unwrap();
        write(&path, &text("new"), false).unwrap();
        assert!(unpark(&path, &place).unwrap());
        assert_eq!(read(&path), Some(text("new")));
        assert_eq!(parked(), 0);
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
