//! Which of this host's NAMES records each entry is in.
//!
//! An entry stays in the record that it came into: nothing moves between two records, so other hosts, who get each at
//! its own time, never miss an entry that is still said. A record that is short, and one that has the same name, come
//! first, so a burst of changes alters few of them.

use crate::config::{DNS_RECORD_LEN_AIM, DNS_RECORDS_MAX, RECORD_BODY_MAX};

/// How far over [`DNS_RECORD_LEN_AIM`] a record may grow to have all addresses of a name: another address then takes
/// the place of the one before in one version.
const SAME_NAME_LEN_MAX: usize = 2 * DNS_RECORD_LEN_AIM;

/// The bytes in each record.
#[derive(Debug, Clone)]
pub(super) struct Parts([usize; DNS_RECORDS_MAX]);

impl Default for Parts {
    fn default() -> Self {
        Self([0; DNS_RECORDS_MAX])
    }
}

impl Parts {
    /// A record for an entry that takes `len` bytes, the other addresses of whose name are in `same_name`. `None` if
    /// all are full: below `config::DNS_BYTES_PER_ORIGIN_MAX` none is.
    pub(super) fn take(&mut self, len: usize, same_name: Option<u16>) -> Option<u16> {
        let with_name = same_name.filter(|part| self.used(*part) + len <= SAME_NAME_LEN_MAX);
        let short = || self.find(|used| used + len <= DNS_RECORD_LEN_AIM);
        let part = with_name.or_else(short).or_else(|| self.emptiest(len))?;
        *self.0.get_mut(usize::from(part))? += len;
        Some(part)
    }

    /// An entry of `len` bytes is gone from a record.
    pub(super) fn give_back(&mut self, part: u16, len: usize) {
        if let Some(used) = self.0.get_mut(usize::from(part)) {
            *used = used.saturating_sub(len);
        }
    }

    /// The bytes of all.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().sum()
    }

    fn used(&self, part: u16) -> usize {
        self.0.get(usize::from(part)).copied().unwrap_or(usize::MAX)
    }

    fn find(&self, fits: impl Fn(usize) -> bool) -> Option<u16> {
        let mut parts = (0..).zip(self.0);
        parts.find(|(_, used)| fits(*used)).map(|(part, _)| part)
    }

    fn emptiest(&self, len: usize) -> Option<u16> {
        let least = (0..).zip(self.0).min_by_key(|(_, used)| *used)?;
        (least.1 + len <= RECORD_BODY_MAX).then_some(least.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DNS_BYTES_PER_ORIGIN_MAX;

    #[test]
    fn short_records_fill_before_others_begin_and_all_have_room() {
        let mut parts = Parts::default();
        let mut taken = Vec::new();
        while parts.bytes() + 100 <= DNS_BYTES_PER_ORIGIN_MAX {
            taken.push(parts.take(100, None).unwrap());
        }
        let each = DNS_RECORD_LEN_AIM / 100;
        assert!(taken[..each].iter().all(|part| *part == 0));
        assert_eq!(taken[each], 1);
        let longest = *parts.0.iter().max().unwrap();
        assert!(longest < DNS_BYTES_PER_ORIGIN_MAX / DNS_RECORDS_MAX + 100);

        parts.give_back(7, parts.used(7));
        assert_eq!(parts.take(100, Some(3)), Some(7), "3 is long");
        assert_eq!(parts.take(100, Some(7)), Some(7));
    }

    #[test]
    fn a_name_stays_together_while_it_is_not_long() {
        let mut parts = Parts::default();
        let home = parts.take(DNS_RECORD_LEN_AIM, None);
        assert_eq!(parts.take(DNS_RECORD_LEN_AIM, home), home);
        assert_ne!(parts.take(100, home), home);
    }
}
