//! A domain name that was checked: kept as it was spelt, compared without regard to case.
//!
//! ```text
//!  "Web.weave.local"   text, without the final dot
//!  3 w e b  5 w e a v e  5 l o c a l    key: lengths and lower-case letters, as on the wire without the root
//! ```
//!
//! The key makes "is below" a comparison of ends, and no dot inside a label can be taken for a border.
//! Bounds: RFC 1035 §2.3.4, 63 bytes a label and 255 a name.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// Longest key: a name on the wire is at most 255 bytes, and the root is one of them.
pub const KEY_LEN_MAX: usize = 254;
/// Longest label.
const LABEL_LEN_MAX: usize = 63;
/// What every host calls itself.
pub(crate) const LOCALHOST: &str = "localhost";

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not of letters, digits, hyphens and underscores between single dots, or too long.
    #[error(
        "{0:?} is no DNS name: accepted are labels of at most 63 letters, digits, '-' and '_' with dots between, 253 in all"
    )]
    Malformed(String),
    /// A whole name of somebody else's.
    #[error("{name} is not below {domain}")]
    OutsideDomain {
        /// As typed.
        name: String,
        /// What it should end in.
        domain: String,
    },
    /// Every resolver has its own answer to it (RFC 6761 §6.3).
    #[error("{0} cannot be given: localhost, and what is below it, always means whoever asks")]
    Localhost(String),
}

/// A checked name; equal to another spelling of it.
#[derive(Debug, Clone)]
pub struct DnsName {
    text: Box<str>,
    key: Box<[u8]>,
}

impl DnsName {
    /// Checks a name with or without its final dot.
    ///
    /// # Errors
    /// [`NameError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let malformed = || NameError::Malformed(text.chars().take(KEY_LEN_MAX).collect());
        let bare = text.strip_suffix('.').unwrap_or(text);
        let mut key = Vec::with_capacity(bare.len().min(KEY_LEN_MAX) + 1);
        if bare.len() >= KEY_LEN_MAX {
            return Err(malformed());
        }
        for label in bare.split('.') {
            let len = u8::try_from(label.len()).map_err(|_| malformed())?;
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if label.is_empty() || label.len() > LABEL_LEN_MAX || !label.bytes().all(is_plain) {
                return Err(malformed());
            }
            key.push(len);
            key.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        Ok(Self {
            text: bare.into(),
            key: key.into(),
        })
    }

    /// Without the final dot, as it was spelt.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it is compared by.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The keys of the names that it lies below and that still lie below `domain`, nearest first.
    pub(crate) fn parents_within<'a>(
        &'a self,
        domain: &'a Self,
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        let next = |key: &&'a [u8]| after_label(key);
        std::iter::successors(after_label(&self.key), next)
            .take_while(|key| key.len() > domain.key.len())
    }
}

impl PartialEq for DnsName {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for DnsName {}

impl Hash for DnsName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl PartialOrd for DnsName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DnsName {
    /// Alphabetical, without regard to case.
    fn cmp(&self, other: &Self) -> Ordering {
        let lower = |name: &'_ Self| name.text.to_ascii_lowercase();
        lower(self).cmp(&lower(other))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The domain whose names we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain(DnsName);

impl Domain {
    /// Checks a domain with or without its final dot.
    ///
    /// # Errors
    /// [`NameError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        DnsName::parse(text).map(Self)
    }

    /// The domain as a name.
    #[must_use]
    pub fn name(&self) -> &DnsName {
        &self.0
    }

    /// True for the domain itself and for all below it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let Some(cut) = key.len().checked_sub(self.0.key.len()) else {
            return false;
        };
        key.ends_with(&self.0.key) && is_border(key, cut)
    }

    /// Reads what a user typed for a name of the domain: one label, or a whole name below it.
    ///
    /// # Errors
    /// [`NameError`], also for the domain itself.
    pub fn qualify(&self, text: &str) -> Result<DnsName, NameError> {
        let name = DnsName::parse(text)?;
        if !name.as_str().contains('.') {
            return DnsName::parse(&format!("{name}.{}", self.0));
        }
        if !self.contains(name.key()) || name == self.0 {
            return Err(NameError::OutsideDomain {
                name: name.to_string(),
                domain: self.to_string(),
            });
        }
        Ok(name)
    }

    /// The same for a name that is to be given to somebody.
    ///
    /// # Errors
    /// [`NameError`], also for a name that would be asked for as `localhost` or something below it.
    pub fn name_to_give(&self, text: &str) -> Result<DnsName, NameError> {
        let typed = DnsName::parse(text)?;
        let last = self.shorten(&typed).rsplit('.').next();
        if last.is_some_and(|label| label.eq_ignore_ascii_case(LOCALHOST)) {
            return Err(NameError::Localhost(typed.to_string()));
        }
        self.qualify(text)
    }

    /// The same for what Docker calls a container, in which a dot is a letter like others: below the domain unless it
    /// says that itself.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn name_of_container(&self, text: &str) -> Result<DnsName, NameError> {
        match self.name_to_give(text) {
            Err(NameError::OutsideDomain { .. }) => {
                self.name_to_give(&format!("{text}.{}", self.0))
            }
            name => name,
        }
    }

    /// The name as it is shown, without the domain.
    #[must_use]
    pub fn shorten<'a>(&self, name: &'a DnsName) -> &'a str {
        let text = name.as_str();
        if !self.contains(name.key()) || name == &self.0 {
            return text;
        }
        text.get(..text.len() - self.0.as_str().len() - 1)
            .unwrap_or(text)
    }
}

impl fmt::Display for Domain {
    /// With the final dot, as Weave shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.", self.0)
    }
}

/// The name in a question, lower-case; any bytes may be in its labels.
#[derive(Debug, Clone, Copy)]
pub struct AskedName {
    key: [u8; KEY_LEN_MAX],
    len: usize,
    labels: usize,
}

impl AskedName {
    /// Puts labels together; `None` if they are no name of the wire.
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut asked = Self {
            key: [0; KEY_LEN_MAX],
            len: 0,
            labels: 0,
        };
        for label in labels {
            asked.push(label)?;
        }
        Some(asked)
    }

    /// Reads a name that begins a piece of a message: the name and its bytes there, the root among them. `None` if it
    /// is none, or is written with a pointer (RFC 1035 §4.1.4).
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut asked = Self::from_labels([])?;
        let mut rest = bytes;
        loop {
            let (len, after) = rest.split_first()?;
            if *len == 0 {
                let (name, _) = bytes.split_at_checked(asked.len + 1)?;
                return Some((asked, name));
            }
            let (label, after) = after.split_at_checked(usize::from(*len))?;
            asked.push(label)?;
            rest = after;
        }
    }

    fn push(&mut self, label: &[u8]) -> Option<()> {
        let len = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > LABEL_LEN_MAX {
            return None;
        }
        let (head, room) = self.key.get_mut(self.len..)?.split_first_mut()?;
        *head = len;
        let room = room.get_mut(..label.len())?;
        room.copy_from_slice(label);
        room.make_ascii_lowercase();
        self.len += label.len() + 1;
        self.labels += 1;
        Some(())
    }

    /// The same name inside a domain; `None` if that gets too long.
    #[must_use]
    pub fn within(&self, domain: &Domain) -> Option<Self> {
        let mut whole = *self;
        let tail = domain.name().key();
        whole
            .key
            .get_mut(self.len..self.len + tail.len())?
            .copy_from_slice(tail);
        whole.len += tail.len();
        whole.labels += labels(tail).count();
        Some(whole)
    }

    /// What it is compared by.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.get(..self.len).unwrap_or_default()
    }

    /// Number of labels; none for the root.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.labels
    }

    /// What this name stands for among the reverse names.
    #[must_use]
    pub fn reverse(&self) -> Reverse {
        let key = self.key();
        if let Some(front) = key.strip_suffix(b"\x07in-addr\x04arpa") {
            return four(front).map_or(Reverse::Part, Reverse::Address);
        }
        if let Some(front) = key.strip_suffix(b"\x03ip6\x04arpa") {
            return sixteen(front).map_or(Reverse::Part, Reverse::Address);
        }
        Reverse::No
    }
}

/// A name as one of `in-addr.arpa` and `ip6.arpa`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reverse {
    /// Neither.
    No,
    /// Below one of them, but no whole address.
    Part,
    /// Of this address.
    Address(IpAddr),
}

fn four(key: &[u8]) -> Option<IpAddr> {
    let mut octets = [0; 4];
    let mut labels = labels(key);
    for octet in octets.iter_mut().rev() {
        let text = std::str::from_utf8(labels.next()?).ok()?;
        let is_plain = text.bytes().all(|digit| digit.is_ascii_digit());
        *octet = text
            .parse()
            .ok()
            .filter(|_| is_plain && (text == "0" || !text.starts_with('0')))?;
    }
    labels.next().is_none().then(|| IpAddr::from(octets))
}

fn sixteen(key: &[u8]) -> Option<IpAddr> {
    let mut address: u128 = 0;
    let mut count = 0;
    for label in labels(key) {
        let [digit] = label else { return None };
        let digit = char::from(*digit).to_digit(16)?;
        if count == 32 {
            return None;
        }
        address |= u128::from(digit) << (4 * count);
        count += 1;
    }
    (count == 32).then(|| IpAddr::from(address.to_be_bytes()))
}

fn labels(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = key;
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first()?;
        let (label, after) = after.split_at_checked(usize::from(*len))?;
        rest = after;
        Some(label)
    })
}

fn after_label(key: &[u8]) -> Option<&[u8]> {
    let (len, after) = key.split_first()?;
    after
        .get(usize::from(*len)..)
        .filter(|rest| !rest.is_empty())
}

/// True if a label begins at `cut`.
fn is_border(key: &[u8], cut: usize) -> bool {
    let mut at = 0;
    while at < cut {
        let Some(len) = key.get(at) else { return false };
        at += usize::from(*len) + 1;
    }
    at == cut
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(text: &str) -> AskedName {
        AskedName::from_labels(
            text.split('.')
                .filter(|label| !label.is_empty())
                .map(str::as_bytes),
        )
        .unwrap()
    }

    #[test]
    fn names_are_checked_and_keep_their_spelling() {
        let name = DnsName::parse("Web_1.Weave.local.").unwrap();
        assert_eq!(name.as_str(), "Web_1.Weave.local");
        assert_eq!(name.key(), b"\x05web_1\x05weave\x05local");
        assert_eq!(name, DnsName::parse("wEB_1.weave.LOCAL").unwrap());
        let long = "a".repeat(63);
        assert!(DnsName::parse(&format!("{long}.{long}.{long}.{}", "b".repeat(61))).is_ok());
        for text in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "ü.de",
            "a.*",
            &"a".repeat(64),
            &format!("{long}.{long}.{long}.{}", "b".repeat(62)),
        ] {
            assert!(DnsName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_container_is_called_something_below_the_domain_dots_or_not() {
        let domain = Domain::parse("weave.local.").unwrap();
        for (name, whole) in [
            ("x_1", "x_1.weave.local"),
            ("c.d", "c.d.weave.local"),
            ("c.weave.local", "c.weave.local"),
            ("weave.local", "weave.local.weave.local"),
        ] {
            let called = domain.name_of_container(name).unwrap();
            assert_eq!(called.as_str(), whole);
        }
        for name in ["a..b", "localhost", "a.localhost", &"a".repeat(64)] {
            let error = domain.name_of_container(name);
            assert!(error.is_err(), "{name}: {error:?}");
        }
    }

    #[test]
    fn a_domain_contains_what_ends_in_whole_labels_of_it() {
        let domain = Domain::parse("weave.local.").unwrap();
        for (name, inside) in [
            ("weave.local", true),
            ("a.weave.local", true),
            ("A.B.WEAVE.LOCAL", true),
            ("aweave.local", false),
            ("local", false),
            ("weave.local.a", false),
        ] {
            assert_eq!(domain.contains(asked(name).key()), inside, "{name}");
        }
        // Ends in the bytes of the domain's key, in the middle of a label.
        let inner = AskedName::from_labels([b"x\x05weave\x05local".as_slice()]).unwrap();
        assert!(!domain.contains(inner.key()));
    }

    #[test]
    fn typed_names_get_the_domain_and_foreign_ones_are_refused() {
        let domain = Domain::parse("foo.bar").unwrap();
        assert_eq!(domain.qualify("Web").unwrap().as_str(), "Web.foo.bar");
        assert_eq!(
            domain.qualify("a.b.foo.bar.").unwrap().as_str(),
            "a.b.foo.bar"
        );
        for text in ["a.weave.local", "foo.bar", "xfoo.bar"] {
            assert!(
                matches!(domain.qualify(text), Err(NameError::OutsideDomain { .. })),
                "{text}"
            );
        }
        let name = domain.qualify("a.b.foo.bar").unwrap();
        assert_eq!(domain.shorten(&name), "a.b");
        let parents = name.parents_within(domain.name()).collect::<Vec<_>>();
        assert_eq!(parents, [b"\x01b\x03foo\x03bar".as_slice()]);
    }

    #[test]
    fn nobody_is_given_what_means_whoever_asks() {
        let domain = Domain::parse("weave.local").unwrap();
        for text in [
            "localhost",
            "LocalHost.",
            "x.localhost",
            "localhost.weave.local",
            "x.localhost.weave.local",
        ] {
            let given = domain.name_to_give(text);
            assert!(matches!(given, Err(NameError::Localhost(_))), "{text}");
        }
        for text in ["notlocalhost", "localhost.x.weave.local"] {
            assert_eq!(domain.name_to_give(text), domain.qualify(text));
            assert!(domain.name_to_give(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn reverse_names_are_read_for_both_families() {
        let address = |text: &str| Reverse::Address(text.parse().unwrap());
        for (name, wanted) in [
            ("1.0.32.10.in-addr.arpa", address("10.32.0.1")),
            ("1.0.32.10.IN-ADDR.ARPA", address("10.32.0.1")),
            ("0.32.10.in-addr.arpa", Reverse::Part),
            ("01.0.32.10.in-addr.arpa", Reverse::Part),
            ("+1.0.32.10.in-addr.arpa", Reverse::Part),
            ("256.0.32.10.in-addr.arpa", Reverse::Part),
            ("1.1.0.32.10.in-addr.arpa", Reverse::Part),
            ("in-addr.arpa", Reverse::Part),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
                address("fd00::1"),
            ),
            ("0.d.f.ip6.arpa", Reverse::Part),
            ("weave.local", Reverse::No),
            ("", Reverse::No),
        ] {
            assert_eq!(asked(name).reverse(), wanted, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_that_reads_back_or_refused(text: String) {
            if let Ok(name) = DnsName::parse(&text) {
                prop_assert!(name.key().len() <= KEY_LEN_MAX);
                prop_assert!(DnsName::parse(name.as_str()).unwrap().key() == name.key());
                prop_assert!(asked(name.as_str()).key() == name.key());
            }
        }

        #[test]
        fn any_labels_are_a_name_or_refused(labels: Vec<Vec<u8>>) {
            let domain = Domain::parse("weave.local").unwrap();
            if let Some(asked) = AskedName::from_labels(labels.iter().map(Vec::as_slice)) {
                prop_assert_eq!(asked.labels(), labels.len());
                prop_assert_eq!(labels.iter().map(|label| label.len() + 1).sum::<usize>(), asked.key().len());
                if let Some(whole) = asked.within(&domain) {
                    prop_assert!(domain.contains(whole.key()));
                }
                let _ = asked.reverse();
            }
        }

        #[test]
        fn a_name_is_read_from_the_wire_as_from_its_labels(labels: Vec<Vec<u8>>, after: Vec<u8>) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
                wire.extend(label);
            }
            wire.push(0);
            let len = wire.len();
            wire.extend(after);
            let read = AskedName::read(&wire);
            if let Some(asked) = AskedName::from_labels(labels.iter().map(Vec::as_slice)) {
                let (read, name) = read.unwrap();
                prop_assert_eq!((read.key(), read.labels()), (asked.key(), labels.len()));
                prop_assert_eq!(name, &wire[..len]);
                prop_assert!(AskedName::read(&wire[..len - 1]).is_none());
            }
        }
    }
}
