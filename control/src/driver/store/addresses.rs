//! What IPAM keeps in the store: keys and values as it wants them, each of its steps one transaction.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};

use super::Store;
use crate::error::ControlError;
use crate::ipam::{StoreChange, StoreContent};

const ADDRESSES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("ipam");

impl Store {
    /// All that IPAM has written.
    ///
    /// # Errors
    /// [`ControlError::OpenStore`] if it cannot be read.
    pub fn ipam(&self) -> Result<StoreContent, ControlError> {
        let run = |database: &Database| -> Result<StoreContent, redb::Error> {
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(ADDRESSES) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(StoreContent::new()),
                Err(error) => return Err(error.into()),
            };
            let entries = table.iter()?;
            entries
                .map(|entry| {
                    let (key, value) = entry?;
                    Ok((key.value().to_vec(), value.value().to_vec()))
                })
                .collect()
        };
        self.using(run).map_err(|source| ControlError::OpenStore {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }

    /// Writes steps of IPAM, one after the other, in one transaction; they are on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`]; then none of them is there.
    pub fn write_ipam(&self, changes: &[StoreChange]) -> Result<(), ControlError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(ADDRESSES)?;
            for (key, value) in changes {
                match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                    None => table.remove(key.as_slice())?,
                };
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_there_after_the_store_was_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = Store::open(dir.path()).unwrap();
            assert!(store.ipam().unwrap().is_empty());
            let put = |key: &[u8], value: &[u8]| (key.to_vec(), Some(value.to_vec()));
            store
                .write_ipam(&[put(b"a1", b"x"), put(b"a2", b"y")])
                .unwrap();
            store
                .write_ipam(&[put(b"a1", b"z"), (b"a2".to_vec(), None)])
                .unwrap();
        }
        let content = Store::open(dir.path()).unwrap().ipam().unwrap();
        assert_eq!(
            content,
            StoreContent::from([(b"a1".to_vec(), b"z".to_vec())])
        );
    }
}
