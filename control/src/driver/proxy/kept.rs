//! Addresses that running containers keep after a launch with another range: one of today's beside them would lead
//! packets two ways, and without them connections would break.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv4Net};

use crate::driver::address::{AddressArgument, read_arguments};

/// What a container is attached with in place of what it `wished` for, if it has an address `present` that was given to it
/// and lies outside of `range`: that, and what it wished for by number.
pub(super) fn instead(wished: &[String], present: &[IpNet], range: Ipv4Net) -> Option<Vec<IpNet>> {
    let arguments = read_arguments(wished).ok()?;
    let mut explicit = Vec::new();
    for argument in &arguments {
        if let AddressArgument::Explicit(address) = argument {
            explicit.push(*address);
        }
    }
    let is_by_number = explicit.len() == arguments.len();
    let kept: Vec<IpNet> = present
        .iter()
        .filter(|address| match address {
            IpNet::V4(ip) => !range.contains(&ip.addr()) && !explicit.contains(address),
            IpNet::V6(_) => false,
        })
        .copied()
        .collect();
    (!is_by_number && !kept.is_empty()).then(|| [explicit, kept].concat())
}

/// Who keeps what.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<BTreeMap<String, String>>);

impl Kept {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container, by its id and its name.
    pub(super) fn add(&self, id: &str, name: &str, addresses: &[IpNet]) {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let line = format!(
            "{} ({})",
            name.trim_start_matches('/'),
            addresses.join(", ")
        );
        self.lines().insert(id.to_owned(), line);
    }

    /// Only those containers go on.
    pub(super) fn retain(&self, goes_on: impl Fn(&str) -> bool) {
        self.lines().retain(|id, _| goes_on(id));
    }

    /// For the status, if there are any.
    pub(super) fn note(&self) -> Option<String> {
        let lines = self.lines();
        let all: Vec<&str> = lines.values().map(String::as_str).collect();
        (!all.is_empty()).then(|| {
            format!(
                "containers keep addresses outside of --ipalloc-range until they start again: {}",
                all.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn attached_with(wished: &[&str], present: &[&str]) -> Option<Vec<IpNet>> {
        let wished: Vec<String> = wished.iter().map(|&wish| wish.to_owned()).collect();
        let range = "10.64.0.0/16".parse().unwrap();
        instead(&wished, &nets(present), range)
    }

    #[test]
    fn what_was_given_of_another_range_is_kept_and_nothing_comes_beside_it() {
        let both = ["10.2.1.1/24", "10.32.0.5/12"];
        assert_eq!(
            attached_with(&["10.2.1.1/24", "net:default"], &both),
            Some(nets(&both))
        );
        assert_eq!(attached_with(&[], &both[1..]), Some(nets(&both[1..])));
        assert_eq!(attached_with(&[], &["10.64.0.1/16", "fd00::1/64"]), None);
        assert_eq!(attached_with(&["10.2.1.1/24"], &both), None);
        assert_eq!(attached_with(&[], &[]), None);
    }

    #[test]
    fn the_status_names_them_while_they_run() {
        let kept = Kept::default();
        assert_eq!(kept.note(), None);
        kept.add("c1", "/web", &nets(&["10.32.0.5/12"]));
        let note = kept.note().unwrap();
        assert!(note.ends_with(": web (10.32.0.5/12)"), "{note}");
        kept.retain(|id| id != "c1");
        assert_eq!(kept.note(), None);
    }
}
