//! What IPAM has written about other ranges: each in a table of its own, until a start has that range again.
//!
//! ```text
//!  ipam                 about the range of this start, which `meta` names: also before there is a ring of it
//!  ipam 10.32.0.0/12    about that range, as the last start with it left it
//! ```
//!
//! A ring is a promise to all its members, and a mistyped `--ipalloc-range` must not break it: while another range is
//! used, this host is to them as one that is stopped. Once a store was lost, so was what it held about any range.

use ipnet::Ipv4Net;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableHandle as _,
};

use super::addresses::{ADDRESSES, read_ipam, write_ipam};
use super::open::lost_changes;
use super::{META, Store, lock};
use crate::error::ControlError;
use crate::ipam::{StoreContent, range_of};

/// In `meta`: network << 8 | prefix length.
const RANGE: &str = "range";
/// In `meta`: 1 if the store took the place of a lost one.
pub(super) const LOST: &str = "lost";

impl Store {
    /// What IPAM has written about this range. What it wrote about another one is put aside, and what was put aside
    /// about this one is taken up; on disk before this returns, unless nothing had to be moved.
    ///
    /// # Errors
    /// [`ControlError::OpenStore`] if it cannot be read, [`ControlError::WriteStore`] if it would have to be put aside.
    pub fn ipam_of(&self, range: Ipv4Net) -> Result<StoreContent, ControlError> {
        let (content, noted) =
            self.read(|database| Ok((read_ipam(database)?, noted_range(database)?)))?;
        let before = noted.or_else(|| range_of(&content));
        if before == Some(range) {
            return Ok(content);
        }
        let written = self.write(|transaction| {
            if let Some(other) = before {
                put_aside(transaction, &name_of(other))?;
                take_up(transaction, &name_of(range))?;
            }
            transaction
                .open_table(META)?
                .insert(RANGE, number_of(range))?;
            Ok(())
        });
        match (written, before) {
            (Err(error), None) if error.is_of_disk() => Ok(content),
            (Err(error), _) => Err(error),
            (Ok(()), _) => {
                lock(&self.notes).aside = before.filter(|_| !content.is_empty());
                self.ipam()
            }
        }
    }
}

/// What users read after something was put aside.
pub(super) fn note(other: Ipv4Net) -> String {
    format!(
        "this host was launched with --ipalloc-range {other} before: what it owned and gave there is kept, and a launch \
         with that range goes on with it (`weft reset` forgets both)"
    )
}

fn noted_range(database: &Database) -> Result<Option<Ipv4Net>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let number = meta.get(RANGE)?.map(|value| value.value());
    Ok(number.and_then(range_in))
}

fn number_of(range: Ipv4Net) -> u64 {
    u64::from(u32::from(range.network())) << 8 | u64::from(range.prefix_len())
}

fn range_in(number: u64) -> Option<Ipv4Net> {
    let network = u32::try_from(number >> 8).ok()?;
    let prefix_len = u8::try_from(number & 0xff).ok()?;
    Ipv4Net::new(network.into(), prefix_len).ok()
}

fn name_of(range: Ipv4Net) -> String {
    format!("ipam {range}")
}

fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

fn put_aside(transaction: &redb::WriteTransaction, name: &str) -> Result<(), redb::Error> {
    transaction.delete_table(table(name))?;
    // So that it is there to be renamed.
    transaction.open_table(ADDRESSES)?;
    Ok(transaction.rename_table(ADDRESSES, table(name))?)
}

fn take_up(transaction: &redb::WriteTransaction, name: &str) -> Result<(), redb::Error> {
    let mut tables = transaction.list_tables()?;
    if tables.any(|known| known.name() == name) {
        return Ok(transaction.rename_table(table(name), ADDRESSES)?);
    }
    let was_lost = transaction.open_table(META)?.get(LOST)?.is_some();
    if was_lost {
        write_ipam(transaction, &lost_changes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::StoreChange;

    fn about(range: &str) -> Vec<StoreChange> {
        let range: Ipv4Net = range.parse().unwrap();
        let ends = [range.network(), range.broadcast()].map(|end| u32::from(end).to_be_bytes());
        let head = [[7; 16].as_slice(), &ends.concat()].concat();
        vec![
            (b"g".to_vec(), Some(head)),
            (b"c".to_vec(), Some(range.to_string().into())),
        ]
    }

    #[test]
    fn each_range_is_gone_on_with_where_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let [wide, other] = ["10.32.0.0/12", "10.2.0.0/16"];
        let of = |store: &Store, range: &str| store.ipam_of(range.parse().unwrap()).unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(of(&store, wide), StoreContent::new());
        store.write_ipam(&about(wide)).unwrap();
        let first = of(&store, wide);
        assert_eq!(first.len(), 2);
        assert_eq!(store.notes(), Vec::<String>::new());

        assert_eq!(of(&store, other), StoreContent::new());

        assert!(
            store
                .notes()
                .concat()
                .contains("--ipalloc-range 10.32.0.0/12")
        );
        store.write_ipam(&about(other)).unwrap();
        let second = store.ipam().unwrap();
        for _ in 0..2 {
            assert_eq!(of(&store, wide), first);
            assert!(
                store
                    .notes()
                    .concat()
                    .contains("--ipalloc-range 10.2.0.0/16")
            );
            assert_eq!(of(&store, other), second);
        }
    }

    #[test]
    fn what_was_promised_before_there_was_a_ring_stays_with_its_range() {
        let dir = tempfile::tempdir().unwrap();
        let [wide, other] = ["10.32.0.0/12", "10.2.0.0/16"];
        let of = |store: &Store, range: &str| store.ipam_of(range.parse().unwrap()).unwrap();
        let store = Store::open(dir.path()).unwrap();
        of(&store, wide);
        store.write_ipam(&about(wide)).unwrap();
        let ring = store.ipam().unwrap();
        // Nobody asks for an address there, so it never gets a ring.
        assert_eq!(of(&store, other), StoreContent::new());
        assert_eq!(of(&store, wide), ring);
        assert_eq!(store.notes().concat(), "", "nothing is kept of the other");

        of(&store, other);
        let promise = (b"v".to_vec(), Some(vec![0; 10]));
        store.write_ipam(&[promise]).unwrap();
        assert_eq!(of(&store, wide), ring);
        assert_eq!(of(&store, other).len(), 1);
    }

    #[test]
    fn a_lost_store_has_lost_what_it_held_about_any_range() {
        let dir = tempfile::tempdir().unwrap();
        crate::driver::store::load_identity(dir.path()).unwrap();
        let store = Store::open(dir.path()).unwrap();
        for range in ["10.2.0.0/16", "10.32.0.0/12", "10.2.0.0/16"] {
            let content = store.ipam_of(range.parse().unwrap()).unwrap();
            assert_eq!(content, crate::ipam::lost_store(), "{range}");
        }
        store.write_ipam(&[(b"l".to_vec(), None)]).unwrap();
        let found = |range: &str| store.ipam_of(range.parse().unwrap()).unwrap();
        assert_eq!(found("10.32.0.0/12"), crate::ipam::lost_store());
        assert_eq!(found("10.2.0.0/16"), StoreContent::new(), "learned again");
    }
}
