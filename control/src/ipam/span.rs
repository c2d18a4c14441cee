//! Runs of IPv4 addresses as numbers: what ranges, subnets and free space are made of.
//!
//! A span is never empty; both its ends belong to it.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// From the first to the last address, both included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    first: u32,
    last: u32,
}

impl Span {
    /// The span between two addresses; `None` if they are the wrong way round.
    #[must_use]
    pub fn new(first: u32, last: u32) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// A single address.
    #[must_use]
    pub fn single(address: Ipv4Addr) -> Self {
        let number = u32::from(address);
        Self {
            first: number,
            last: number,
        }
    }

    /// All addresses of a network.
    #[must_use]
    pub fn of(network: Ipv4Net) -> Self {
        Self {
            first: u32::from(network.network()),
            last: u32::from(network.broadcast()),
        }
    }

    /// The network whose addresses these are; `None` if there is none.
    pub(crate) fn network(self) -> Option<Ipv4Net> {
        let host_bits = u8::try_from(self.count().ilog2()).ok()?;
        let network = Ipv4Net::new(self.first.into(), 32_u8.checked_sub(host_bits)?).ok()?;
        (Self::of(network) == self).then_some(network)
    }

    /// The addresses of a subnet that hosts may have: all but the first and the last of four or more.
    #[must_use]
    pub fn hosts(subnet: Ipv4Net) -> Self {
        let all = Self::of(subnet);
        if all.count() < 4 {
            return all;
        }
        Self {
            first: all.first + 1,
            last: all.last - 1,
        }
    }

    /// The first address as a number.
    #[must_use]
    pub fn first(self) -> u32 {
        self.first
    }

    /// The last address as a number.
    #[must_use]
    pub fn last(self) -> u32 {
        self.last
    }

    /// How many addresses there are.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(self.last) - u64::from(self.first) + 1
    }

    /// Whether the address lies inside.
    #[must_use]
    pub fn contains(self, address: u32) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// What two spans share.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// The upper half of an even span; a single address is its own upper half.
    pub(crate) fn upper_half(self) -> Self {
        let half = u32::try_from(self.count() / 2).unwrap_or(1 << 31);
        Self {
            first: self.first + half,
            last: self.last,
        }
    }

    /// The span cut into two halves; `None` for a single address.
    pub(crate) fn halves(self) -> Option<(Self, Self)> {
        let upper = self.upper_half();
        let lower = Self::new(self.first, upper.first.checked_sub(1)?)?;
        (self.count() > 1).then_some((lower, upper))
    }

    /// The largest block of a power of two addresses, aligned to its size; the highest of several.
    pub(crate) fn largest_block(self) -> Self {
        let mut best: Option<Self> = None;
        let mut at = u64::from(self.first);
        let end = u64::from(self.last) + 1;
        while at < end {
            let aligned = if at == 0 {
                1 << 32
            } else {
                at & at.wrapping_neg()
            };
            let mut size: u64 = aligned;
            while at + size > end {
                size /= 2;
            }
            let (Ok(first), Ok(last)) = (u32::try_from(at), u32::try_from(at + size - 1)) else {
                break;
            };
            let block = Self { first, last };
            if best.is_none_or(|best| block.count() >= best.count()) {
                best = Some(block);
            }
            at += size;
        }
        best.unwrap_or(self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (Ipv4Addr::from(self.first), Ipv4Addr::from(self.last));
        let block = self.largest_block() == *self;
        match u8::try_from(self.count().trailing_zeros()) {
            Ok(0) if block => write!(f, "{first}"),
            Ok(bits) if block => write!(f, "{first}/{}", 32 - bits),
            Ok(_) | Err(_) => write!(f, "{first}-{last}"),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u32, last: u32) -> Span {
        Span::new(first, last).unwrap()
    }

    #[test]
    fn the_largest_block_is_aligned_and_the_highest_of_its_size() {
        assert_eq!(span(1, 15).largest_block(), span(8, 15));
        assert_eq!(span(0, 46).largest_block(), span(0, 31));
        assert_eq!(span(5, 5).largest_block(), span(5, 5));
        assert_eq!(span(4, 11).largest_block(), span(8, 11));
        assert_eq!(span(0, u32::MAX).largest_block(), span(0, u32::MAX));
    }

    #[test]
    fn hosts_leave_out_both_ends_of_a_subnet_that_has_them() {
        assert_eq!(
            Span::hosts("10.2.1.0/24".parse().unwrap()).to_string(),
            "10.2.1.1-10.2.1.254"
        );
        assert_eq!(
            Span::hosts("10.2.1.4/32".parse().unwrap()).to_string(),
            "10.2.1.4"
        );
    }

    #[test]
    fn a_whole_network_is_shown_as_one() {
        for text in ["10.2.1.0/24", "10.2.1.4/31", "0.0.0.0/0"] {
            assert_eq!(Span::of(text.parse().unwrap()).to_string(), text);
        }
        assert_eq!(span(2, 5).to_string(), "0.0.0.2-0.0.0.5");
    }

    #[test]
    fn halves_make_the_whole() {
        assert_eq!(span(0, 7).halves(), Some((span(0, 3), span(4, 7))));
        assert_eq!(span(3, 3).halves(), None);
        assert_eq!(span(3, 3).upper_half(), span(3, 3));
    }
}
