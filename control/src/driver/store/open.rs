//! Opening the database: whole, or set aside and begun anew.
//!
//! ```text
//!  open ─► every page's checksum, every value ─┬─ whole ─► goes on
//!                                              └─ damaged ─► store.redb.new: "lost" noted, on disk
//!                                                            store.redb ─► store.redb.damaged-1
//!                                                            store.redb.new ─► store.redb
//! ```
//!
//! The old file has both names for a moment, so that a crash leaves either it or the new one in its place. An error of
//! the disk is no damage: it may be over soon.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase as _, StorageBackend as _};

use super::addresses::{read_ipam, write_ipam};
use super::aside::LOST;
use super::{
    Kept, META, NAMES, SCHEMA, TARGETS, read_names, read_targets, write_names, write_targets,
};
use crate::error::ControlError;
use crate::ipam::{StoreChange, StoreContent, check_content, lost_store};

/// Damaged files that are kept; the last number is used again and again. Each is a few MiB, and a disk that damages
/// more is to be replaced.
const SET_ASIDE_MAX: usize = 8;

/// Makes a database of a path; tests give one whose disk fails.
pub(super) struct Opener(Box<OpenFn>);

type OpenFn = dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync;

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

impl Default for Opener {
    fn default() -> Self {
        Self::new(|path| {
            Database::builder()
                .set_check_integrity_on_open(true)
                .create(path)
        })
    }
}

/// An open database that was read through.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) kept: Kept,
    /// What became of the one that it takes the place of.
    pub(super) lost: Option<LostFile>,
}

/// A store that was of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LostFile {
    /// Damaged, and here now.
    SetAside(PathBuf),
    /// There was none.
    Gone,
}

impl Opener {
    pub(super) fn new(
        open: impl Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(open))
    }

    /// Makes the first store of a host: whole, or not at all.
    pub(super) fn make(&self, path: &Path) -> Result<(), ControlError> {
        let fresh = self.begin_beside(path, |_| Ok(()))?;
        let moved = fs::rename(&fresh, path).and_then(|()| sync_folder_of(path));
        moved.map_err(|source| ControlError::SetAside {
            path: path.to_owned(),
            source,
        })
    }

    /// Opens a whole database; one that is damaged or gone makes place for a new one, which begins with what is kept.
    pub(super) fn open_or_begin_anew(
        &self,
        path: &Path,
        kept: &Kept,
    ) -> Result<Opened, ControlError> {
        let damage = match self.open_whole(path) {
            Err(error) if is_damage(&error) => error,
            outcome => return outcome,
        };
        tracing::error!(
            error = &damage as &dyn std::error::Error,
            "the store cannot be used"
        );
        let lost = self.begin_anew(path, kept)?;
        let opened = self.open_whole(path)?;
        Ok(Opened {
            lost: Some(lost),
            ..opened
        })
    }

    fn open(&self, path: &Path) -> Result<Database, ControlError> {
        (self.0)(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => ControlError::StoreInUse {
                path: path.to_owned(),
            },
            error @ (DatabaseError::LockProtocolMismatch
            | DatabaseError::RepairAborted
            | DatabaseError::UpgradeRequired(_)
            | DatabaseError::TransactionInProgress
            | DatabaseError::Storage(_)
            | _) => ControlError::OpenStore {
                path: path.to_owned(),
                source: Box::new(error.into()),
            },
        })
    }

    /// Opens a database and reads everything in it.
    fn open_whole(&self, path: &Path) -> Result<Opened, ControlError> {
        if !path.exists() {
            let (path, what) = (path.to_owned(), "it is gone");
            return Err(ControlError::DamagedStore { path, what });
        }
        // It panics on damage that its checksums do not cover.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let database = self.open(path)?;
            let kept = read_through(path, &database)?;
            let lost = None;
            Ok(Opened {
                database,
                kept,
                lost,
            })
        }));
        read.unwrap_or_else(|_| {
            let (path, what) = (path.to_owned(), "it cannot be read");
            Err(ControlError::DamagedStore { path, what })
        })
    }

    /// Makes a database beside the store's place; it is on disk and closed when this returns.
    fn begin_beside(
        &self,
        path: &Path,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<PathBuf, ControlError> {
        let fresh = fresh_name(path);
        remove_if_there(&fresh).map_err(|source| ControlError::SetAside {
            path: path.to_owned(),
            source,
        })?;
        let begun = self.begin(&fresh, fill).map(drop);
        // Half a file, on a full disk say, is of no use to anybody.
        begun.inspect_err(|_| drop(fs::remove_file(&fresh)))?;
        Ok(fresh)
    }

    fn begin(
        &self,
        path: &Path,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<Database, ControlError> {
        let database = self.open(path)?;
        let write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(META)?.insert("schema", SCHEMA)?;
            transaction.open_table(TARGETS)?;
            transaction.open_table(NAMES)?;
            fill(&transaction)?;
            Ok(transaction.commit()?)
        };
        write().map_err(|source| ControlError::WriteStore {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Ok(database)
    }

    /// Puts a new store in the place of a damaged one; returns what became of that.
    fn begin_anew(&self, path: &Path, kept: &Kept) -> Result<LostFile, ControlError> {
        // Above all that the lost one can have counted: a start each second since 1970.
        let incarnation = kept.incarnation.max(seconds_since_1970());
        let fresh = self.begin_beside(path, |transaction| {
            let mut meta = transaction.open_table(META)?;
            meta.insert("incarnation", incarnation)?;
            meta.insert(LOST, 1)?;
            drop(meta);
            write_targets(transaction, &kept.targets)?;
            write_names(transaction, &kept.names)?;
            write_ipam(transaction, &lost_changes())
        })?;
        let aside = free_name(path);
        let was_there = path.exists();
        let moved = || -> io::Result<()> {
            if was_there {
                remove_if_there(&aside)?;
                // Not every file system can give a file two names.
                fs::hard_link(path, &aside).or_else(|_| fs::rename(path, &aside))?;
            }
            fs::rename(&fresh, path)?;
            sync_folder_of(path)
        };
        moved().map_err(|source| ControlError::SetAside {
            path: path.to_owned(),
            source,
        })?;
        Ok(if was_there {
            LostFile::SetAside(aside)
        } else {
            LostFile::Gone
        })
    }
}

/// Reads what IPAM has written from a copy in memory.
pub(super) fn peek(path: &Path) -> Result<StoreContent, ControlError> {
    let opened = in_memory().open_whole(path)?;
    read_ipam(&opened.database).map_err(|source| ControlError::OpenStore {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// What a store holds, in memory, while its disk takes no writes. One that is damaged or gone is a lost one there, too.
pub(super) fn copy(path: &Path) -> Result<Opened, ControlError> {
    match in_memory().open_whole(path) {
        Err(error) if is_damage(&error) => {}
        outcome => return outcome,
    }
    let opener = Opener::new(|_| Database::builder().create_with_backend(InMemoryBackend::new()));
    let database = opener.begin(path, |transaction| write_ipam(transaction, &lost_changes()))?;
    Ok(Opened {
        database,
        kept: Kept::default(),
        lost: None,
    })
}

/// Opens databases as copies in memory, which are mended there if they were not closed.
fn in_memory() -> Opener {
    Opener::new(|path| {
        let bytes = fs::read(path)?;
        let memory = InMemoryBackend::new();
        memory.set_len(bytes.len() as u64)?;
        memory.write(0, &bytes)?;
        Database::builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(memory)
    })
}

pub(super) fn lost_changes() -> Vec<StoreChange> {
    let lost = lost_store().into_iter();
    lost.map(|(key, value)| (key, Some(value))).collect()
}

fn read_through(path: &Path, database: &Database) -> Result<Kept, ControlError> {
    let damaged = |what| ControlError::DamagedStore {
        path: path.to_owned(),
        what,
    };
    let read = || -> Result<_, redb::Error> {
        let meta = database.begin_read()?.open_table(META)?;
        let schema = meta.get("schema")?.map_or(0, |value| value.value());
        if schema > SCHEMA {
            return Ok((schema, Kept::default(), Default::default()));
        }
        let kept = Kept {
            incarnation: meta.get("incarnation")?.map_or(0, |value| value.value()),
            targets: read_targets(database)?,
            names: read_names(database)?,
        };
        Ok((schema, kept, read_ipam(database)?))
    };
    let (schema, kept, ipam) = read().map_err(|source| ControlError::OpenStore {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    if schema > SCHEMA {
        return Err(ControlError::NewerStore {
            path: path.to_owned(),
            found: schema,
            known: SCHEMA,
        });
    }
    if schema == 0 {
        return Err(damaged("it has no schema number"));
    }
    check_content(&ipam)
        .map_err(|_| damaged("what it holds of addresses is not what was written"))?;
    Ok(kept)
}

/// Whether the file is to blame, and not its disk at this moment.
pub(in crate::driver) fn is_damage(error: &ControlError) -> bool {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other errors leave the file as it is"
    )]
    match error {
        ControlError::DamagedStore { .. } => true,
        ControlError::OpenStore { source, .. } => match &**source {
            redb::Error::Io(source) => matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ),
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TypeDefinitionChanged { .. } => true,
            _ => false,
        },
        _ => false,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "no input of the node: a number above all that were counted"
)]
pub(super) fn seconds_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Where a new store is made before it is moved into its place.
fn fresh_name(path: &Path) -> PathBuf {
    path.with_extension("redb.new")
}

fn aside_name(path: &Path, number: usize) -> PathBuf {
    path.with_extension(format!("redb.damaged-{number}"))
}

fn free_name(path: &Path) -> PathBuf {
    let mut names = (1..SET_ASIDE_MAX).map(|number| aside_name(path, number));
    let free = names.find(|name| !name.exists());
    free.unwrap_or_else(|| aside_name(path, SET_ASIDE_MAX))
}

/// Everything beside the store that came of one that was damaged.
pub(super) fn leftovers(path: &Path) -> Vec<PathBuf> {
    let aside = (1..=SET_ASIDE_MAX).map(|number| aside_name(path, number));
    let all = aside.chain([fresh_name(path)]);
    all.filter(|path| path.exists()).collect()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
