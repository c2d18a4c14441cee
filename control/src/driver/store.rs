//! What survives a restart: the identity key, the incarnation, the targets, names, and what IPAM knows.
//!
//! ```text
//!  <data-dir>/identity.key   64 bytes, mode 0600: Ed25519 secret, X25519 secret
//!  <data-dir>/store.redb     meta:    "schema" → 1, "incarnation" → n, "range" and "lost" of aside, those of range6
//!                            targets: position → target as typed
//!                            names:   position → body of a NAMES record
//!                            ipam:    keys and values of ipam/durable.rs; of other ranges in tables beside it (aside)
//! ```
//!
//! Everything here blocks; the driver calls it at start and from a blocking task. After a write that failed, on a full
//! disk say, the database is closed; the next write opens it anew. One that is damaged is set aside (`open`). A host
//! whose disk takes no writes starts all the same, from a copy in memory (`debt`).

mod addresses;
mod aside;
mod debt;
mod key;
mod open;
mod range6;

use std::error::Error as _;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use ipnet::Ipv4Net;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use self::debt::Debt;
use self::key::IDENTITY_FILE;
pub(super) use self::key::known_identity;
pub use self::key::load_identity;
pub(super) use self::open::is_damage;
use self::open::{LostFile, Opener};
use crate::error::ControlError;
use crate::ipam::StoreContent;

/// The newest layout of the store that we know.
const SCHEMA: u64 = 1;
const STORE_FILE: &str = "store.redb";
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TARGETS: TableDefinition<'_, u64, &str> = TableDefinition::new("targets");
/// What this host says in DNS.
const NAMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("names");

/// The open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    opener: Opener,
    /// Closed after a failure, until the next write.
    database: RwLock<Option<Database>>,
    /// The last write failed, or was cut off. Held while one goes on: they do not overlap.
    suspect: Mutex<bool>,
    /// Never held while anything blocks.
    notes: Mutex<Notes>,
}

/// What is said of the store, and what a new one begins with.
#[derive(Debug, Default)]
struct Notes {
    /// Why the last write failed.
    trouble: Option<Trouble>,
    /// What became of the last file that was of no use.
    lost: Option<LostFile>,
    /// Nobody knew the names in it.
    lost_names: bool,
    /// The file has been read once.
    was_read: bool,
    kept: Kept,
    /// What the start would have written.
    debt: Option<Debt>,
    /// The range of the start before, of which this one knows nothing.
    aside: Option<Ipv4Net>,
    range6: Option<range6::Change>,
}

#[derive(Debug, Clone)]
struct Trouble {
    line: String,
    /// The innermost cause.
    cause: String,
}

/// What is written over into a store that takes the place of a damaged one.
#[derive(Debug, Clone, Default)]
struct Kept {
    incarnation: u64,
    targets: Vec<String>,
    names: Vec<Vec<u8>>,
}

/// Deletes the identity, the store and what was set aside; for `reset`, after the store is closed.
///
/// # Errors
/// [`ControlError::RemoveState`] if a file is there and stays.
pub fn remove(data_dir: &Path) -> Result<(), ControlError> {
    let mut paths = vec![data_dir.join(IDENTITY_FILE), data_dir.join(STORE_FILE)];
    paths.extend(open::leftovers(&data_dir.join(STORE_FILE)));
    for path in paths {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ControlError::RemoveState { path, source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether no daemon has run with this data directory since its last reset.
pub(super) fn is_blank(data_dir: &Path) -> bool {
    let files = [IDENTITY_FILE, STORE_FILE];
    files.iter().all(|file| !data_dir.join(file).exists())
}

impl Store {
    /// Opens the store of a data directory, making it at the first start. One that is damaged, or gone while the
    /// identity is there, is set aside: the new one notes that it was lost.
    ///
    /// # Errors
    /// [`ControlError`] if it is in use, of a newer weft, or refused by its disk.
    pub fn open(data_dir: &Path) -> Result<Self, ControlError> {
        Self::open_with(data_dir, Opener::default())
    }

    /// What IPAM has written, read from a copy of the file: nothing is changed, nor set aside.
    ///
    /// # Errors
    /// [`ControlError`] if it is not there, or not whole.
    pub(super) fn peek(data_dir: &Path) -> Result<StoreContent, ControlError> {
        open::peek(&data_dir.join(STORE_FILE))
    }

    fn open_with(data_dir: &Path, opener: Opener) -> Result<Self, ControlError> {
        create_data_dir(data_dir)?;
        let path = data_dir.join(STORE_FILE);
        let store = Self {
            path,
            opener,
            database: RwLock::new(None),
            suspect: Mutex::new(false),
            notes: Mutex::default(),
        };
        if !store.path.exists() && !data_dir.join(IDENTITY_FILE).exists() {
            store.opener.make(&store.path)?;
        }
        match store.open_again() {
            Err(error) if error.is_of_disk() => store.open_copy(&error)?,
            outcome => outcome?,
        }
        Ok(store)
    }

    /// What is wrong with the store, in words; does not block.
    pub fn notes(&self) -> Vec<String> {
        let notes = lock(&self.notes);
        let lost = notes.lost.as_ref().map(|file| {
            let what = match file {
                LostFile::SetAside(path) => format!("damaged and set aside as {}", path.display()),
                LostFile::Gone => format!("gone: there was no {}", self.path.display()),
            };
            let names = if notes.lost_names {
                "; names that were given by hand (dns-add) are lost: give them again"
            } else {
                ""
            };
            format!("the store was {what}; this host learns from its peers what it owned{names}")
        });
        let trouble = notes.trouble.as_ref().map(|trouble| trouble.line.clone());
        let debt = notes.debt.as_ref().map(|_| debt::NOTE.to_owned());
        let aside = notes.aside.map(aside::note);
        let told = lost.into_iter().chain(trouble).chain(debt);
        let range6 = notes.range6.map(range6::Change::note);
        told.chain(aside).chain(range6).collect()
    }

    /// Why the last write failed, in a word; none once another has worked. Does not block.
    pub fn trouble(&self) -> Option<String> {
        let notes = lock(&self.notes);
        notes.trouble.as_ref().map(|trouble| trouble.cause.clone())
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, ControlError> {
        let debt = lock(&self.notes).debt.clone();
        let run = |database: &Database| -> Result<T, redb::Error> {
            let transaction = database.begin_write()?;
            if let Some(debt) = &debt {
                debt.write(&transaction)?;
            }
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        let mut suspect = lock(&self.suspect);
        let opened = if *suspect { self.open_again() } else { Ok(()) };
        // A panic of the database leaves it so.
        *suspect = true;
        let outcome = opened.and_then(|()| {
            self.using(run).map_err(|source| ControlError::WriteStore {
                path: self.path.clone(),
                source: Box::new(source),
            })
        });
        match &outcome {
            Ok(_) => {
                *suspect = false;
                self.is_paid();
            }
            // It refuses everything from now on, and whoever mends the disk may want it unused.
            Err(_) => self.close(),
        }
        lock(&self.notes).trouble = outcome.as_ref().err().map(Trouble::of);
        outcome
    }

    fn using<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(database.as_ref().ok_or(redb::Error::PreviousIo)?)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, ControlError> {
        self.using(work).map_err(|source| ControlError::OpenStore {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }

    /// Makes a store that has failed usable again.
    ///
    /// # Errors
    /// [`ControlError`] while it still fails.
    pub fn recover(&self) -> Result<(), ControlError> {
        self.write(|_| Ok(()))
    }

    fn close(&self) {
        let mut place = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        drop(place.take());
    }

    fn open_again(&self) -> Result<(), ControlError> {
        // The old one lets go of the file first.
        self.close();
        let kept = lock(&self.notes).kept.clone();
        let opened = self.opener.open_or_begin_anew(&self.path, &kept)?;
        let mut place = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Some(opened.database);
        drop(place);
        let mut notes = lock(&self.notes);
        notes.kept = opened.kept;
        if let Some(lost) = opened.lost {
            tracing::error!(store = %self.path.display(), ?lost, "the store was damaged or gone");
            notes.lost = Some(lost);
            notes.lost_names |= !notes.was_read;
        }
        notes.was_read = true;
        Ok(())
    }

    /// Counts this start; the number is on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`].
    pub fn next_incarnation(&self) -> Result<u64, ControlError> {
        let next = self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let next = meta
                .get("incarnation")?
                .map_or(0, |value| value.value())
                .saturating_add(1);
            meta.insert("incarnation", next)?;
            Ok(next)
        })?;
        lock(&self.notes).kept.incarnation = next;
        Ok(next)
    }

    /// The next start counts on from this number, if it is larger than the one kept.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`].
    pub fn raise_incarnation(&self, incarnation: u64) -> Result<(), ControlError> {
        let raised = self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let kept = meta.get("incarnation")?.map_or(0, |value| value.value());
            let raised = kept.max(incarnation);
            meta.insert("incarnation", raised)?;
            Ok(raised)
        })?;
        lock(&self.notes).kept.incarnation = raised;
        Ok(())
    }

    /// The targets of the last run, in their order; does not block.
    pub fn targets(&self) -> Vec<String> {
        lock(&self.notes).kept.targets.clone()
    }

    /// The names of the last run, as bodies of NAMES records; does not block.
    pub fn names(&self) -> Vec<Vec<u8>> {
        lock(&self.notes).kept.names.clone()
    }

    /// Replaces the names; they are on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`].
    pub fn set_names<'a>(
        &self,
        bodies: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), ControlError> {
        let names: Vec<Vec<u8>> = bodies.into_iter().map(<[u8]>::to_vec).collect();
        self.write(|transaction| write_names(transaction, &names))?;
        lock(&self.notes).kept.names = names;
        Ok(())
    }

    /// Replaces the targets; they are on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`].
    pub fn set_targets(&self, targets: &[String]) -> Result<(), ControlError> {
        self.write(|transaction| write_targets(transaction, targets))?;
        lock(&self.notes).kept.targets = targets.to_vec();
        Ok(())
    }
}

fn read_targets(database: &Database) -> Result<Vec<String>, redb::Error> {
    let table = database.begin_read()?.open_table(TARGETS)?;
    let targets = table.iter()?;
    targets
        .map(|entry| Ok(entry?.1.value().to_owned()))
        .collect()
}

fn read_names(database: &Database) -> Result<Vec<Vec<u8>>, redb::Error> {
    let table = database.begin_read()?.open_table(NAMES)?;
    let bodies = table.iter()?;
    bodies.map(|entry| Ok(entry?.1.value().to_vec())).collect()
}

fn write_targets(
    transaction: &redb::WriteTransaction,
    targets: &[String],
) -> Result<(), redb::Error> {
    transaction.delete_table(TARGETS)?;
    let mut table = transaction.open_table(TARGETS)?;
    for (position, target) in (0_u64..).zip(targets) {
        table.insert(position, target.as_str())?;
    }
    Ok(())
}

fn write_names(transaction: &redb::WriteTransaction, names: &[Vec<u8>]) -> Result<(), redb::Error> {
    transaction.delete_table(NAMES)?;
    let mut table = transaction.open_table(NAMES)?;
    for (position, body) in (0_u64..).zip(names) {
        table.insert(position, body.as_slice())?;
    }
    Ok(())
}

fn create_data_dir(path: &Path) -> Result<(), ControlError> {
    let created = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    created.map_err(|source| ControlError::CreateDataDir {
        path: path.to_owned(),
        source,
    })
}

/// A panic of the database leaves nothing half done in here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trouble {
    fn of(error: &ControlError) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}"));
        let line = format!(
            "{error}{}; what has changed since then is lost with the next start, unless a later write works",
            cause.unwrap_or_default()
        );
        let innermost = error.source().map_or_else(
            || error.to_string(),
            |cause| match cause
                .downcast_ref::<Box<redb::Error>>()
                .map(|error| &**error)
            {
                Some(redb::Error::Io(source)) => source.to_string(),
                _ => cause.to_string(),
            },
        );
        Self {
            line,
            cause: innermost,
        }
    }
}

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod tests;
