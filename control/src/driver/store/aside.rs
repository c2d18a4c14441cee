//! What IPAM has written about other ranges: each in a table of its own, until a start has that range again.
//!
//! ```text
//!  ipam                 about the range of this start
//!  ipam 10.32.0.0/12    about that range, as the last start with it left it
//! ```
//!
//! A ring is a promise to all its members, and a mistyped `--ipalloc-range` must not break it: while another range is
//! used, this host is to them as one that is stopped.

use ipnet::Ipv4Net;
use redb::TableDefinition;

use super::addresses::{ADDRESSES, read_ipam};
use super::{Store, lock};
use crate::error::ControlError;
use crate::ipam::{StoreContent, range_of};

impl Store {
    /// What IPAM has written about this range. What it wrote about another one is put aside, and what was put aside
    /// about this one is taken up; on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::OpenStore`] if it cannot be read, [`ControlError::WriteStore`] if it would have to be put aside.
    pub fn ipam_of(&self, range: Ipv4Net) -> Result<StoreContent, ControlError> {
        let content = self.ipam()?;
        let Some(other) = range_of(&content).filter(|other| *other != range) else {
            return Ok(content);
        };
        self.write(|transaction| {
            put_aside(transaction, &name_of(other))?;
            take_up(transaction, &name_of(range))
        })?;
        lock(&self.notes).aside = Some(other);
        self.read(read_ipam)
    }
}

/// What users read after something was put aside.
pub(super) fn note(other: Ipv4Net) -> String {
    format!(
        "this host was launched with --ipalloc-range {other} before: what it owned and gave there is kept, and a launch \
         with that range goes on with it (`weft reset` forgets both)"
    )
}

fn name_of(range: Ipv4Net) -> String {
    format!("ipam {range}")
}

fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

fn put_aside(transaction: &redb::WriteTransaction, name: &str) -> Result<(), redb::Error> {
    transaction.delete_table(table(name))?;
    Ok(transaction.rename_table(ADDRESSES, table(name))?)
}

fn take_up(transaction: &redb::WriteTransaction, name: &str) -> Result<(), redb::Error> {
    // So that it is there to be renamed.
    transaction.open_table(table(name))?;
    Ok(transaction.rename_table(table(name), ADDRESSES)?)
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
    fn promises_without_a_ring_are_about_every_range() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .write_ipam(&[(b"v".to_vec(), Some(vec![0; 10]))])
            .unwrap();

        for range in ["10.32.0.0/12", "10.2.0.0/16"] {
            let content = store.ipam_of(range.parse().unwrap()).unwrap();
            assert_eq!(content.len(), 1);
        }
    }
}
