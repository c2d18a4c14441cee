//! A start on a disk that takes no writes: what it would have written is owed, and goes there with the first write that
//! works.
//!
//! The incarnation must rise above all that any start has counted, or peers take this one for a clone. What the disk
//! cannot count the clock does, as for a store that was lost.

use redb::ReadableTable as _;

use super::open::{self, seconds_since_1970};
use super::{META, Store, Trouble, lock, write_targets};
use crate::error::ControlError;

/// Said while something is owed.
pub(super) const NOTE: &str = "this host was started without a store that it can write to: until it can, it gives no \
    addresses and does not vote; what runs goes on";

/// What the start would have written.
#[derive(Debug, Clone)]
pub(super) struct Debt {
    incarnation: u64,
    targets: Vec<String>,
}

impl Debt {
    pub(super) fn write(&self, transaction: &redb::WriteTransaction) -> Result<(), redb::Error> {
        let mut meta = transaction.open_table(META)?;
        let kept = meta.get("incarnation")?.map_or(0, |value| value.value());
        meta.insert("incarnation", kept.max(self.incarnation))?;
        write_targets(transaction, &self.targets)
    }
}

impl Store {
    /// Goes on with what the file holds, in memory; the first write tries the disk again.
    pub(super) fn open_copy(&self, error: &ControlError) -> Result<(), ControlError> {
        let copy = open::copy(&self.path)?;
        *self
            .database
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(copy.database);
        *lock(&self.suspect) = true;
        let mut notes = lock(&self.notes);
        notes.was_read = !copy.kept.names.is_empty();
        notes.kept = copy.kept;
        notes.trouble = Some(Trouble::of(error));
        Ok(())
    }

    /// Counts this start, and keeps its targets, without the disk.
    pub(crate) fn owe_start(&self, targets: &[String]) -> u64 {
        let mut notes = lock(&self.notes);
        let counted = notes.kept.incarnation.saturating_add(1);
        let incarnation = counted.max(seconds_since_1970());
        notes.debt = Some(Debt {
            incarnation,
            targets: targets.to_vec(),
        });
        incarnation
    }

    /// What was owed has been written.
    pub(super) fn is_paid(&self) {
        let mut notes = lock(&self.notes);
        if let Some(debt) = notes.debt.take() {
            notes.kept.incarnation = notes.kept.incarnation.max(debt.incarnation);
            notes.kept.targets = debt.targets;
        }
    }
}
