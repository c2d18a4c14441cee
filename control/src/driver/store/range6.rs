//! The IPv6 prefix of the last start that gave addresses: what containers have of another one stays theirs, and that is
//! said.
//!
//! ```text
//!  meta: "range6"       upper 64 bits of the prefix
//!        "range6 rest"  next 16 bits << 8 | length: `ipam::six` leaves 48 bits or more to hosts
//! ```

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use redb::{Database, ReadableDatabase as _};

use super::{META, Store, lock};
use crate::error::ControlError;

const UPPER: &str = "range6";
const REST: &str = "range6 rest";

/// A start with another prefix than the last one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    before: Ipv6Net,
    now: Option<Ipv6Net>,
}

impl Change {
    /// What users read of it.
    pub(super) fn note(self) -> String {
        let Self { before, now } = self;
        let now = match now {
            Some(now) => format!("those given from now on are of {now}"),
            None => "from now on none are given".to_owned(),
        };
        format!(
            "this host was launched with --ipalloc-range6 {before} before: containers keep the addresses that they have \
             of it until they are detached, and {now}"
        )
    }
}

impl Store {
    /// This start gives addresses of this prefix, or none of IPv6; on disk before this returns, unless it is as before.
    ///
    /// # Errors
    /// [`ControlError::OpenStore`] if the last one cannot be read, [`ControlError::WriteStore`].
    pub(crate) fn set_range6(&self, now: Option<Ipv6Net>) -> Result<(), ControlError> {
        let before = self.read(noted)?;
        if before == now {
            return Ok(());
        }
        lock(&self.notes).range6 = before.map(|before| Change { before, now });
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            match now {
                Some(now) => {
                    let [upper, rest] = numbers_of(now);
                    meta.insert(UPPER, upper)?;
                    meta.insert(REST, rest)?;
                }
                None => {
                    meta.remove(UPPER)?;
                    meta.remove(REST)?;
                }
            }
            Ok(())
        })
    }
}

fn noted(database: &Database) -> Result<Option<Ipv6Net>, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let number =
        |key| -> Result<Option<u64>, redb::Error> { Ok(meta.get(key)?.map(|value| value.value())) };
    let numbers = number(UPPER)?.zip(number(REST)?);
    Ok(numbers.and_then(|(upper, rest)| range_in(upper, rest)))
}

fn numbers_of(range: Ipv6Net) -> [u64; 2] {
    let network = u128::from(range.network());
    let part = |shift: u32, mask: u128| u64::try_from(network >> shift & mask).unwrap_or_default();
    let length = u64::from(range.prefix_len());
    [
        part(64, u128::from(u64::MAX)),
        part(48, 0xffff) << 8 | length,
    ]
}

fn range_in(upper: u64, rest: u64) -> Option<Ipv6Net> {
    let network = u128::from(upper) << 64 | u128::from(rest >> 8 & 0xffff) << 48;
    let length = u8::try_from(rest & 0xff).ok()?;
    Ipv6Net::new(Ipv6Addr::from(network), length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_prefix_than_last_time_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let said = |range: &str| {
            let store = Store::open(dir.path()).unwrap();
            let range = (!range.is_empty()).then(|| range.parse().unwrap());
            store.set_range6(range).unwrap();
            store.notes().concat()
        };
        let [one, other] = ["fd57:6566:7400::/64", "fd57:6566:7400:0:1::/80"];
        assert_eq!(said(""), "");
        assert_eq!(said(one), "");
        assert_eq!(said(one), "");
        let told = said(other);
        assert!(told.contains(&format!("--ipalloc-range6 {one} before")));
        assert!(told.ends_with(&format!("are of {other}")), "{told}");
        assert_eq!(said(other), "");
        let told = said("");
        assert!(told.contains(&format!("--ipalloc-range6 {other} before")));
        assert!(told.ends_with("none are given"), "{told}");
        assert_eq!(said(""), "");
    }
}
