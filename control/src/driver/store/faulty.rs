//! A disk that fails when it is told to, under the real database.
//!
//! ```text
//!  redb ─► read, write, set_len, sync ─► n more work, then m fail ─► the file
//! ```

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};

use super::open::Opener;

/// What may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
    Sync,
    /// Growing and writing, as on a full disk.
    Space,
}

/// When calls fail, and with what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) call: Call,
    /// So many calls still work.
    pub(super) after: u64,
    /// So many fail then.
    pub(super) times: u64,
    pub(super) errno: i32,
}

/// The disk's handle for tests.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    fault: Arc<Mutex<Option<Fault>>>,
    failed: Arc<AtomicU64>,
}

impl Disk {
    pub(super) fn fail(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap() = fault;
    }

    /// Calls that failed so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Opens databases on this disk.
    pub(super) fn opener(&self) -> Opener {
        let disk = self.clone();
        Opener::new(move |path| disk.open(path))
    }

    fn open(&self, path: &Path) -> Result<Database, DatabaseError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Database::builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(Faulty {
                file: FileBackend::new(file)?,
                disk: self.clone(),
            })
    }

    fn meet(&self, call: Call) -> io::Result<()> {
        let mut fault = self.fault.lock().unwrap();
        let Some(planned) = fault.as_mut().filter(|planned| planned.call == call) else {
            return Ok(());
        };
        if planned.after > 0 {
            planned.after -= 1;
            return Ok(());
        }
        if planned.times == 0 {
            return Ok(());
        }
        planned.times -= 1;
        self.failed.fetch_add(1, Ordering::Relaxed);
        Err(io::Error::from_raw_os_error(planned.errno))
    }
}

#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    disk: Disk,
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.meet(Call::Read)?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.meet(Call::Space)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.meet(Call::Sync)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.meet(Call::Write)?;
        self.disk.meet(Call::Space)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
