//! Puts the wait program where containers can mount it: two folders, with and without the mark for no multicast route.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The program in its folder.
const PROGRAM: &str = "w";
/// Beside it: the wait ends with an address, since there will be no route.
const NO_ROUTE_MARK: &str = "no-multicast-route";

/// The program, and where it is to be; it is written once Docker is there.
#[derive(Debug)]
pub(super) struct WaitProgram {
    parent: PathBuf,
    program: &'static [u8],
    is_there: Mutex<bool>,
}

impl WaitProgram {
    pub(super) fn new(data_dir: &Path, program: &'static [u8]) -> Self {
        Self {
            parent: data_dir.join("wait"),
            program,
            is_there: Mutex::new(false),
        }
    }

    /// Sees to it that it is there.
    pub(super) fn ensure(&self) -> io::Result<()> {
        let mut is_there = self.is_there.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_there {
            install(&self.parent, self.program)?;
            *is_there = true;
        }
        Ok(())
    }
}

/// Writes both folders below `parent`, or leaves them if they are right; containers that start meanwhile find the old
/// program or the new one.
fn install(parent: &Path, program: &[u8]) -> io::Result<()> {
    for (folder, has_mark) in [("route", false), ("no-route", true)] {
        let folder = parent.join(folder);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&folder)?;
        // Whatever the umask is: any user of any container runs it.
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        write(&folder.join(PROGRAM), program, 0o755)?;
        if has_mark {
            write(&folder.join(NO_ROUTE_MARK), b"", 0o644)?;
        }
    }
    Ok(())
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let is_right = fs::read(path).is_ok_and(|found| found == content)
        && fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o777 == mode);
    if is_right {
        return Ok(());
    }
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    // After a power cut a container must not start with half a program.
    file.sync_all()?;
    drop(file);
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_there_for_everybody_and_replaced_by_another() {
        let dir = tempfile::tempdir().unwrap();
        for content in [&b"one"[..], b"two", b"two"] {
            install(dir.path(), content).unwrap();
            for folder in ["route", "no-route"] {
                let path = dir.path().join(folder).join("w");
                assert_eq!(fs::read(&path).unwrap(), content);
                assert_eq!(
                    fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                    0o755
                );
            }
        }
        assert!(dir.path().join("no-route/no-multicast-route").exists());
        assert!(!dir.path().join("route/no-multicast-route").exists());
        assert_eq!(fs::read_dir(dir.path().join("route")).unwrap().count(), 1);
    }
}
