//! The `hosts` of a container: its own addresses and names, and what `--add-host` gave. Text only.
//!
//! ```text
//!  # Written by weft attach.
//!  127.0.0.1 localhost …
//!  10.2.1.1 web.weave.local web      one line for each address that the container has
//!  # --add-host
//!  192.0.2.80 printer
//! ```

use std::net::IpAddr;
use std::str::FromStr;

use super::resolv_conf::MARK;
use crate::dns::name::{DnsName, NameError};

/// Entries of `--add-host` in one file: resolvers read it from the beginning for every lookup.
pub(super) const ADDED_MAX: usize = 256;
/// What every such file has.
const STANDARD: &str = "\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
";
/// Before what `--add-host` gave.
const ADDED_MARK: &str = "# --add-host";

/// Why a text is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddedHostError {
    /// Not two parts, or the second is no address.
    #[error("{0:?} is no entry of a hosts file: accepted is NAME:IP, such as printer:192.0.2.80")]
    Malformed(String),
    /// The first part is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// One entry of `--add-host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedHost {
    name: DnsName,
    address: IpAddr,
}

impl FromStr for AddedHost {
    type Err = AddedHostError;

    fn from_str(text: &str) -> Result<Self, AddedHostError> {
        let malformed = || AddedHostError::Malformed(text.chars().take(300).collect());
        let (name, address) = text.split_once(':').ok_or_else(malformed)?;
        Ok(Self {
            address: address.parse().map_err(|_| malformed())?,
            name: DnsName::parse(name)?,
        })
    }
}

/// What such a file says, beyond what is in every one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    own: Vec<(IpAddr, String)>,
    added: Vec<(IpAddr, String)>,
}

impl Hosts {
    /// Reads what [`Self::text`] wrote; lines that are none are left out.
    pub(super) fn parse(text: &str) -> Self {
        let standard: Vec<&str> = STANDARD.lines().collect();
        let mut hosts = Self::default();
        let mut is_added = false;
        for line in text.lines().filter(|line| !standard.contains(line)) {
            is_added |= line == ADDED_MARK;
            let Some((address, names)) = line.split_once(char::is_whitespace) else {
                continue;
            };
            if let Ok(address) = address.parse() {
                let entry = (address, names.trim().to_owned());
                if is_added {
                    hosts.added.push(entry);
                } else {
                    hosts.own.push(entry);
                }
            }
        }
        hosts
    }

    /// These addresses have these names, too.
    pub(super) fn name(&mut self, addresses: &[IpAddr], names: &[String]) {
        for address in addresses {
            let line = self.own.iter_mut().find(|(own, _)| own == address);
            match line {
                Some((_, has)) => {
                    for name in names {
                        if !has.split(' ').any(|word| word == name) {
                            has.push(' ');
                            has.push_str(name);
                        }
                    }
                }
                None if names.is_empty() => {}
                None => self.own.push((*address, names.join(" "))),
            }
        }
    }

    /// An address does not have these names any more.
    pub(super) fn unname(&mut self, address: IpAddr, names: &[&str]) {
        for (_, has) in self.own.iter_mut().filter(|(own, _)| *own == address) {
            let left = has.split(' ').filter(|word| !names.contains(word));
            *has = left.collect::<Vec<_>>().join(" ");
        }
        self.own.retain(|(_, has)| !has.is_empty());
    }

    /// Names that are followed by themselves without a domain are in this one now.
    pub(super) fn move_to(&mut self, domain: &str) {
        for (_, has) in &mut self.own {
            let mut words = has.split(' ').peekable();
            let mut moved = Vec::new();
            while let Some(word) = words.next() {
                let short = words.peek().filter(|short| {
                    let tail = word.strip_prefix(**short);
                    tail.is_some_and(|tail| tail.starts_with('.'))
                });
                moved.push(
                    short.map_or_else(|| word.to_owned(), |short| format!("{short}.{domain}")),
                );
            }
            *has = moved.join(" ");
        }
    }

    /// Only these of the container's own addresses are left.
    pub(super) fn keep(&mut self, present: &[IpAddr]) {
        self.own.retain(|(address, _)| present.contains(address));
    }

    /// Takes entries up; a name that had others has these now. The last ones stay if there are too many.
    pub(super) fn add(&mut self, added: &[AddedHost]) {
        let again = |names: &str| added.iter().any(|new| new.name.as_str() == names);
        self.added.retain(|(_, names)| !again(names));
        let new = added
            .iter()
            .map(|new| (new.address, new.name.as_str().to_owned()));
        self.added.extend(new);
        let surplus = self.added.len().saturating_sub(ADDED_MAX);
        self.added.drain(..surplus);
    }

    /// The file.
    pub(super) fn text(&self) -> String {
        let lines = |entries: &[(IpAddr, String)]| -> String {
            let line = |(address, names): &(IpAddr, String)| format!("{address} {names}\n");
            entries.iter().map(line).collect()
        };
        let mut text = format!("{MARK}{STANDARD}{}", lines(&self.own));
        if !self.added.is_empty() {
            text.push_str(&format!("{ADDED_MARK}\n{}", lines(&self.added)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn an_entry_is_a_name_and_an_address_of_either_family() {
        for (text, name, address) in [
            ("printer:192.0.2.80", "printer", "192.0.2.80"),
            (
                "a.b.example.org:2001:db8::80",
                "a.b.example.org",
                "2001:db8::80",
            ),
        ] {
            let entry: AddedHost = text.parse().unwrap();
            assert_eq!((entry.name.as_str(), entry.address), (name, ip(address)));
        }
        for text in [
            "",
            "printer",
            "printer:",
            "printer:192.0.2",
            ":192.0.2.80",
            "a b:192.0.2.80",
            "a\n:::1",
        ] {
            let refused = text.parse::<AddedHost>().unwrap_err().to_string();
            assert!(refused.contains("accepted"), "{refused}");
            assert!(!refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn every_address_has_its_own_names_and_entries_stay() {
        let mut hosts = Hosts::default();
        hosts.name(
            &[ip("10.2.1.1"), ip("fd00::1")],
            &words("web.weave.local web"),
        );
        hosts.add(&[
            "printer:192.0.2.80".parse().unwrap(),
            "printer:192.0.2.81".parse().unwrap(),
        ]);
        let mut hosts = Hosts::parse(&hosts.text());
        hosts.name(&[ip("10.2.2.1")], &words("db.weave.local db"));
        hosts.add(&["scanner:192.0.2.90".parse().unwrap()]);
        let text = hosts.text();
        assert!(text.starts_with(MARK) && text.contains("\n127.0.0.1 localhost\n"));
        assert!(text.ends_with(
            "\n10.2.1.1 web.weave.local web\nfd00::1 web.weave.local web\n10.2.2.1 db.weave.local db\n\
             # --add-host\n192.0.2.80 printer\n192.0.2.81 printer\n192.0.2.90 scanner\n"
        ), "{text}");
        assert_eq!(Hosts::parse(&text), hosts);

        // Once more is no more, and another name is one more; what is gone has no name.
        hosts.name(&[ip("10.2.1.1")], &words("web.weave.local web"));
        hosts.name(&[ip("10.2.1.1")], &words("shop.weave.local shop"));
        hosts.name(&[ip("fd00::1"), ip("10.2.3.1")], &[]);
        hosts.add(&["printer:192.0.2.82".parse().unwrap()]);
        hosts.keep(&[ip("10.2.1.1"), ip("fd00::1")]);
        assert!(hosts.text().ends_with(
            "ff02::2 ip6-allrouters\n10.2.1.1 web.weave.local web shop.weave.local shop\nfd00::1 web.weave.local web\n# --add-host\n192.0.2.90 scanner\n192.0.2.82 printer\n"
        ), "{}", hosts.text());
    }

    #[test]
    fn a_name_that_is_taken_goes_and_its_line_with_the_last() {
        let mut hosts = Hosts::default();
        let two = [ip("10.2.1.1"), ip("10.2.1.2")];
        hosts.name(&two, &words("web.weave.local web shop.weave.local shop"));
        hosts.unname(ip("10.2.1.1"), &["web.weave.local", "web"]);
        hosts.unname(ip("10.2.1.1"), &["we", "never"]);
        assert_eq!(hosts.own[0].1, "shop.weave.local shop");
        hosts.unname(ip("10.2.1.1"), &["shop.weave.local", "shop"]);
        assert_eq!(hosts.own.len(), 1);
        assert_eq!(hosts.own[0].0, two[1]);
    }

    #[test]
    fn names_move_to_another_domain() {
        let mut hosts = Hosts::default();
        hosts.name(
            &[ip("10.2.1.1")],
            &words("web.weave.local web a.b.weave.local a.b"),
        );
        hosts.add(&["printer.weave.local:192.0.2.80".parse().unwrap()]);
        hosts.move_to("example.internal");
        let end = "\n10.2.1.1 web.example.internal web a.b.example.internal a.b\n# --add-host\n192.0.2.80 printer.weave.local\n";
        assert!(hosts.text().ends_with(end), "{}", hosts.text());
    }

    #[test]
    fn there_is_a_limit_to_entries() {
        let mut hosts = Hosts::default();
        for n in 0..300 {
            hosts.add(&[format!("n{n}:192.0.2.1").parse().unwrap()]);
        }
        assert_eq!(hosts.added.len(), ADDED_MAX);
        assert_eq!(hosts.added.last().unwrap().1, "n299");
    }
}
