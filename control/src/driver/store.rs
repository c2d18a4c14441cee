//! What survives a restart: the identity key, the incarnation, the targets.
//!
//! ```text
//!  <data-dir>/identity.key   64 bytes, mode 0600: Ed25519 secret, X25519 secret
//!  <data-dir>/store.redb     meta:    "schema" → 1, "incarnation" → n
//!                            targets: position → target as typed
//!                            names:   position → body of a NAMES record
//!                            ipam:    keys and values of ipam/durable.rs
//! ```
//!
//! Everything here blocks; the driver calls it at start and from a blocking task. A key file is written beside its
//! place, flushed, and moved into it, so that a crash leaves the old one or the new one. After a write that failed, on
//! a full disk say, the database refuses all others: the next one opens it anew.

mod addresses;

use std::error::Error as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use zeroize::Zeroizing;

use crate::error::ControlError;
use crate::peer::{IDENTITY_LEN, Identity};
use crate::random::Randomness;

/// The newest layout of the store that we know.
const SCHEMA: u64 = 1;
const IDENTITY_FILE: &str = "identity.key";
const STORE_FILE: &str = "store.redb";
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TARGETS: TableDefinition<'_, u64, &str> = TableDefinition::new("targets");
/// What this host says in DNS.
const NAMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("names");

/// The open store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Closed for a moment while it is opened again.
    database: RwLock<Option<Database>>,
    /// Why the last write failed; never held while anything blocks.
    trouble: Mutex<Option<String>>,
}

/// Takes up the identity of this data directory, or makes one at the first start.
///
/// # Errors
/// [`ControlError`] if the directory or the key cannot be read, written, or is damaged.
pub fn load_identity(data_dir: &Path) -> Result<Identity, ControlError> {
    let path = data_dir.join(IDENTITY_FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            keep_private(&path);
            let len = bytes.len();
            let key: &[u8; IDENTITY_LEN] =
                bytes
                    .as_slice()
                    .try_into()
                    .map_err(|_| ControlError::DamagedIdentity {
                        path,
                        len,
                        wanted: IDENTITY_LEN,
                    })?;
            Ok(Identity::from_bytes(key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_data_dir(data_dir)?;
            let identity = Identity::generate(&mut Randomness::system());
            write_secret(data_dir, &path, identity.to_bytes().as_slice())
                .map_err(|source| ControlError::WriteIdentity { path, source })?;
            Ok(identity)
        }
        Err(source) => Err(ControlError::ReadIdentity { path, source }),
    }
}

/// Takes the key away from users who could read it; a restored backup or a careless `chmod` may have let them.
fn keep_private(path: &Path) {
    let Ok(mode) = fs::metadata(path).map(|found| found.permissions().mode() & 0o777) else {
        return;
    };
    if mode & 0o077 == 0 {
        return;
    }
    let mended = fs::set_permissions(path, Permissions::from_mode(0o600));
    tracing::warn!(
        path = %path.display(),
        mode = format!("{mode:o}"),
        mended = mended.is_ok(),
        "other users could read the identity key: if one may have, `weft reset` makes a new identity"
    );
}

/// Deletes the identity and the store; for `reset`, after the store is closed.
///
/// # Errors
/// [`ControlError::RemoveState`] if a file is there and stays.
pub fn remove(data_dir: &Path) -> Result<(), ControlError> {
    for name in [IDENTITY_FILE, STORE_FILE] {
        let path = data_dir.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(ControlError::RemoveState { path, source });
            }
            Ok(()) | Err(_) => {}
        }
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

fn write_secret(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()
}

impl Store {
    /// Opens the store of a data directory, making it at the first start.
    ///
    /// # Errors
    /// [`ControlError`] if it is in use, damaged, or of a newer weft.
    pub fn open(data_dir: &Path) -> Result<Self, ControlError> {
        create_data_dir(data_dir)?;
        let path = data_dir.join(STORE_FILE);
        let is_new = !path.exists();
        let database = match Database::create(&path) {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(ControlError::StoreInUse { path });
            }
            Err(error) => {
                if is_new {
                    // Half a file, on a full disk say, would keep every later start from working.
                    let _ = fs::remove_file(&path);
                }
                return Err(ControlError::OpenStore {
                    path,
                    source: Box::new(error.into()),
                });
            }
        };
        let store = Self {
            path,
            database: RwLock::new(Some(database)),
            trouble: Mutex::default(),
        };
        store.check_schema()?;
        Ok(store)
    }

    /// Why the last write failed, in words; none once another has worked. Does not block.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    fn check_schema(&self) -> Result<(), ControlError> {
        let found = self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("schema")?.map(|value| value.value());
            if found.is_none() {
                meta.insert("schema", SCHEMA)?;
            }
            transaction.open_table(TARGETS)?;
            transaction.open_table(NAMES)?;
            Ok(found.unwrap_or(SCHEMA))
        })?;
        if found > SCHEMA {
            return Err(ControlError::NewerStore {
                path: self.path.clone(),
                found,
                known: SCHEMA,
            });
        }
        if found == 0 {
            return Err(ControlError::DamagedStore {
                path: self.path.clone(),
                what: "its schema number is 0",
            });
        }
        Ok(())
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, ControlError> {
        let run = |database: &Database| -> Result<T, redb::Error> {
            let transaction = database.begin_write()?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        let has_failed = lock(&self.trouble).is_some();
        let opened = if has_failed {
            self.open_again()
        } else {
            Ok(())
        };
        let outcome = opened.and_then(|()| {
            self.using(run).map_err(|source| ControlError::WriteStore {
                path: self.path.clone(),
                source: Box::new(source),
            })
        });
        *lock(&self.trouble) = outcome.as_ref().err().map(in_words);
        outcome
    }

    fn using<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(database.as_ref().ok_or(redb::Error::PreviousIo)?)
    }

    /// Makes a store that has failed usable again: redb refuses everything after an error of its file.
    ///
    /// # Errors
    /// [`ControlError`] while it still fails.
    pub fn recover(&self) -> Result<(), ControlError> {
        // The second one opens it again.
        self.write(|_| Ok(())).or_else(|_| self.write(|_| Ok(())))
    }

    fn open_again(&self) -> Result<(), ControlError> {
        let mut place = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The old one lets go of the file first.
        drop(place.take());
        let opened = Database::create(&self.path).map_err(|error| ControlError::OpenStore {
            path: self.path.clone(),
            source: Box::new(error.into()),
        })?;
        *place = Some(opened);
        Ok(())
    }

    /// Counts this start; the number is on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`].
    pub fn next_incarnation(&self) -> Result<u64, ControlError> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let next = meta
                .get("incarnation")?
                .map_or(0, |value| value.value())
                .saturating_add(1);
            meta.insert("incarnation", next)?;
            Ok(next)
        })
    }

    /// The next start counts on from this number, if it is larger than the one kept.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`].
    pub fn raise_incarnation(&self, incarnation: u64) -> Result<(), ControlError> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let kept = meta.get("incarnation")?.map_or(0, |value| value.value());
            meta.insert("incarnation", kept.max(incarnation))?;
            Ok(())
        })
    }

    /// The targets of the last run, in their order.
    ///
    /// # Errors
    /// [`ControlError::OpenStore`] if they cannot be read.
    pub fn targets(&self) -> Result<Vec<String>, ControlError> {
        let run = || -> Result<Vec<String>, redb::Error> {
            self.using(|database| {
                let table = database.begin_read()?.open_table(TARGETS)?;
                let targets = table.iter()?;
                targets
                    .map(|entry| Ok(entry?.1.value().to_owned()))
                    .collect()
            })
        };
        run().map_err(|source| ControlError::OpenStore {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }

    /// The names of the last run, as bodies of NAMES records.
    ///
    /// # Errors
    /// [`ControlError::OpenStore`] if they cannot be read.
    pub fn names(&self) -> Result<Vec<Vec<u8>>, ControlError> {
        let run = || -> Result<Vec<Vec<u8>>, redb::Error> {
            self.using(|database| {
                let table = database.begin_read()?.open_table(NAMES)?;
                let bodies = table.iter()?;
                bodies.map(|entry| Ok(entry?.1.value().to_vec())).collect()
            })
        };
        run().map_err(|source| ControlError::OpenStore {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }

    /// Replaces the names; they are on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`].
    pub fn set_names<'a>(
        &self,
        bodies: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), ControlError> {
        self.write(|transaction| {
            transaction.delete_table(NAMES)?;
            let mut table = transaction.open_table(NAMES)?;
            for (position, body) in (0_u64..).zip(bodies) {
                table.insert(position, body)?;
            }
            Ok(())
        })
    }

    /// Replaces the targets; they are on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`].
    pub fn set_targets(&self, targets: &[String]) -> Result<(), ControlError> {
        self.write(|transaction| {
            transaction.delete_table(TARGETS)?;
            let mut table = transaction.open_table(TARGETS)?;
            for (position, target) in (0_u64..).zip(targets) {
                table.insert(position, target.as_str())?;
            }
            Ok(())
        })
    }
}

/// A panic of the database leaves nothing half done in here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_words(error: &ControlError) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!(
        "{error}{}; what has changed since then is lost with the next start, unless a later write works",
        cause.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests;
