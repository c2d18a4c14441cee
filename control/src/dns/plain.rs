//! Answers the usual question out of one message into another: a single one of class IN about a name of ours, with no
//! more than an empty OPT record beside it, whose answer fits. Everything else gets `None` and goes the long way.
//!
//! ```text
//!  question  header │ name │ type │ class                        [ │ 0 │ OPT │ size │ code, version 0, flags │ 0 ]
//!  answer    header │ the same │ name    │ type │ class │ TTL │ length │ address or name            Addresses, Pointer
//!                              │ pointer │ type │ class │ TTL │ length │ address                    … the others
//!                              │ zone    │ SOA  │ class │ TTL │ length │ ns, hostmaster, times      NoData, NoName
//!                              [ │ OPT, with DO as it was ]
//! ```
//!
//! INVARIANT: what is written here is, to the byte, what the long way (`driver::dns::handler`) makes of the same
//! question, but for the order of addresses; and but for a stream, where each name but the first is a pointer (the
//! library writes out those behind the 120th) and as many addresses as fit are answered, cut or not. Called by
//! `driver::dns::handler`. Bound: the length of the answer, [`LEN_DEFAULT`] to `config::DNS_UDP_LEN_MAX`, or all the
//! room that a stream has.

use std::net::IpAddr;

use crate::config::DNS_UDP_LEN_MAX;
use crate::dns::answer::{
    CLASS_IN, Question, TYPE_A, TYPE_AAAA, TYPE_PTR, TYPE_SOA, Verdict, answer,
};
use crate::dns::name::{AskedName, DnsName, Domain, KEY_LEN_MAX};
use crate::dns::names::Names;

/// Largest answer to who does not say otherwise (RFC 1035 §4.2.1).
pub const LEN_DEFAULT: u16 = 512;
/// Bytes of an OPT record without options.
pub const OPT_LEN: usize = 11;
/// In the flags of an OPT record: the client understands DNSSEC. It comes back as it was (RFC 3225 §3).
const DNSSEC_OK: u8 = 0x80;
/// An answer; nobody else has the last word on its names; recursion is to be had.
const RESPONSE: [u8; 2] = [0x84, 0x80];
const RECURSION_DESIRED: u8 = 0x01;
const TRUNCATED: u8 = 0x02;
/// Where a header has these, and the number of answers.
const FLAGS_AT: usize = 2;
const ANSWER_COUNT: std::ops::Range<usize> = 6..8;
const CHECKING_DISABLED: u8 = 0x10;
/// What in a header's third byte has to be zero: an answer, another operation.
const NO_QUERY: u8 = 0xf8;
const CODE_NO_NAME: u8 = 3;

/// An OPT record without options: the root as its name, type 41, what we take; then no more of the code, version 0,
/// the flags, no options (RFC 6891 §6.1.2).
#[must_use]
pub fn opt(is_dnssec_ok: bool) -> [u8; OPT_LEN] {
    let [high, low] = DNS_UDP_LEN_MAX.to_be_bytes();
    let flags = if is_dnssec_ok { DNSSEC_OK } else { 0 };
    [0, 0, 41, high, low, 0, 0, flags, 0, 0, 0]
}

/// Where an answer is put.
#[derive(Debug)]
pub enum Room<'a> {
    /// For a datagram: what the client takes of it.
    Datagram(&'a mut [u8]),
    /// For a stream: all of it.
    Stream(&'a mut [u8]),
}

/// How an answer ended, to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With what was asked for.
    Answered,
    /// With nothing of that type.
    NoData,
    /// With no such name.
    NoName,
}

/// What the answers of one server have in common.
#[derive(Debug, Clone)]
pub struct Plain {
    ttl: u32,
    domain: Domain,
    /// The domain is one of reverse names: names in answers to these could be shortened, and are not here.
    is_reverse: bool,
}

impl Plain {
    /// For a server of this domain whose answers hold so many seconds.
    #[must_use]
    pub fn new(domain: &Domain, ttl: u32) -> Self {
        Self {
            ttl,
            domain: domain.clone(),
            is_reverse: domain.name().key().ends_with(b"\x04arpa"),
        }
    }

    /// Writes the answer to a message: its length and its ending. `luck` decides the order of addresses.
    #[must_use]
    pub fn answer(
        &self,
        message: &[u8],
        names: &Names,
        luck: u64,
        room: Room<'_>,
    ) -> Option<(usize, Ending)> {
        let asked = Asked::read(message)?;
        let (out, len_max) = match room {
            Room::Datagram(out) => (out, Some(asked.len_max())),
            Room::Stream(out) => (out, None),
        };
        let verdict = answer(names, &asked.question, luck);
        let (code, ending, answers, authorities) = match &verdict {
            Verdict::Addresses(addresses) => (0, Ending::Answered, addresses.len(), 0),
            Verdict::Pointer(_) => (0, Ending::Answered, 1, 0),
            Verdict::NoData => (0, Ending::NoData, 0, 1),
            Verdict::NoName => (CODE_NO_NAME, Ending::NoName, 0, 1),
            Verdict::Zone | Verdict::Forward | Verdict::Refused => return None,
        };
        let mut reply = Writer {
            is_stream: len_max.is_none(),
            len: 0,
            room: out.get_mut(..len_max.unwrap_or(usize::from(u16::MAX)) - asked.opt_len())?,
        };
        let ([first, second], [op, bits]) = (RESPONSE, asked.flags);
        reply.put(&asked.number)?;
        reply.put(&[
            first | (op & RECURSION_DESIRED),
            second | (bits & CHECKING_DISABLED) | code,
        ])?;
        reply.put_u16(1)?;
        // So many do not fit: then another number takes its place.
        reply.put_u16(u16::try_from(answers).unwrap_or(u16::MAX))?;
        reply.put_u16(authorities)?;
        reply.put_u16(u16::from(asked.opt.is_some()))?;
        reply.put(asked.section)?;
        match &verdict {
            Verdict::Addresses(addresses) => {
                let count = self.put_addresses(&mut reply, &asked, addresses);
                if count < addresses.len() {
                    reply.cut(count)?;
                }
            }
            Verdict::Pointer(name) => self.put_pointer(&mut reply, &asked, name)?,
            Verdict::NoData | Verdict::NoName => self.put_soa(&mut reply)?,
            Verdict::Zone | Verdict::Forward | Verdict::Refused => return None,
        }
        let mut len = reply.len;
        if let Some((_, is_dnssec_ok)) = asked.opt {
            let end = len + OPT_LEN;
            out.get_mut(len..end)?.copy_from_slice(&opt(is_dnssec_ok));
            len = end;
        }
        Some((len, ending))
    }

    /// Says how many there is room for.
    fn put_addresses(
        &self,
        reply: &mut Writer<'_>,
        asked: &Asked<'_>,
        addresses: &[IpAddr],
    ) -> usize {
        let first = reply.len;
        for (count, address) in addresses.iter().enumerate() {
            let end = reply.len;
            if self
                .put_address(reply, (first, asked.name), address)
                .is_none()
            {
                reply.len = end;
                return count;
            }
        }
        addresses.len()
    }

    fn put_address(
        &self,
        reply: &mut Writer<'_>,
        (first, name): (usize, &[u8]),
        address: &IpAddr,
    ) -> Option<()> {
        if reply.len == first {
            reply.put(name)?;
        } else {
            reply.refer(first, name.len() - 1)?;
        }
        match address {
            IpAddr::V4(ip) => self.put_data(reply, TYPE_A, &ip.octets()),
            IpAddr::V6(ip) => self.put_data(reply, TYPE_AAAA, &ip.octets()),
        }
    }

    fn put_data(&self, reply: &mut Writer<'_>, kind: u16, data: &[u8]) -> Option<()> {
        self.put_kind(reply, kind, data.len())?;
        reply.put(data)
    }

    /// What stands between the name of a record and its data.
    fn put_kind(&self, reply: &mut Writer<'_>, kind: u16, data_len: usize) -> Option<()> {
        reply.put_u16(kind)?;
        reply.put_u16(CLASS_IN)?;
        reply.put(&self.ttl.to_be_bytes())?;
        reply.put_u16(u16::try_from(data_len).ok()?)
    }

    fn put_pointer(&self, reply: &mut Writer<'_>, asked: &Asked<'_>, name: &DnsName) -> Option<()> {
        if self.is_reverse {
            return None;
        }
        reply.put(asked.name)?;
        self.put_kind(reply, TYPE_PTR, name.key().len() + 1)?;
        reply.put_name(name)
    }

    fn put_soa(&self, reply: &mut Writer<'_>) -> Option<()> {
        let zone = self.domain.name();
        let at = reply.len;
        let zone_len = zone.key().len();
        // A domain so long that nothing goes below it stands for these itself.
        let below = |label: &'static [u8]| -> &'static [u8] {
            let fits = label.len() + zone_len <= KEY_LEN_MAX;
            if fits { label } else { &[] }
        };
        let (server, mailbox) = (below(b"\x02ns"), below(b"\x0ahostmaster"));
        let times_len = 5 * size_of::<u32>();
        reply.put_name(zone)?;
        let data_len = server.len() + 2 + mailbox.len() + 2 + times_len;
        self.put_kind(reply, TYPE_SOA, data_len)?;
        for label in [server, mailbox] {
            reply.put(label)?;
            reply.refer(at, zone_len)?;
        }
        // How long it holds; the library has a sign there, which no number of seconds needs.
        let hold = self.ttl.min(i32::MAX.unsigned_abs());
        for number in [1, hold, hold, hold, self.ttl] {
            reply.put(&number.to_be_bytes())?;
        }
        Some(())
    }
}

/// A question as it came.
struct Asked<'a> {
    number: [u8; 2],
    flags: [u8; 2],
    name: &'a [u8],
    /// The name, the type and the class.
    section: &'a [u8],
    question: Question,
    /// What the client takes, and whether it understands DNSSEC, if it says so.
    opt: Option<(u16, bool)>,
}

impl<'a> Asked<'a> {
    fn read(datagram: &'a [u8]) -> Option<Self> {
        let (header, body) = datagram.split_first_chunk()?;
        let [high, low, op, bits, 0, 1, 0, 0, 0, 0, 0, more @ (0 | 1)] = header else {
            return None;
        };
        if op & NO_QUERY != 0 {
            return None;
        }
        let (asked, name) = AskedName::read(body)?;
        let (section, rest) = body.split_at_checked(name.len() + 4)?;
        let [.., kind_high, kind_low, class_high, class_low] = section else {
            return None;
        };
        let opt = match (more, rest) {
            (0, []) => None,
            (1, [0, 0, 41, high, low, _code, 0, flags, _, 0, 0]) => {
                let size = u16::from_be_bytes([*high, *low]);
                Some((size, flags & DNSSEC_OK != 0))
            }
            _ => return None,
        };
        Some(Self {
            number: [*high, *low],
            flags: [*op, *bits],
            name,
            section,
            question: Question {
                name: asked,
                kind: u16::from_be_bytes([*kind_high, *kind_low]),
                class: u16::from_be_bytes([*class_high, *class_low]),
            },
            opt,
        })
    }

    /// What the client takes.
    fn len_max(&self) -> usize {
        match self.opt {
            Some((size, _)) => size.clamp(LEN_DEFAULT, DNS_UDP_LEN_MAX).into(),
            None => LEN_DEFAULT.into(),
        }
    }

    /// What is to be left for the OPT record.
    fn opt_len(&self) -> usize {
        self.opt.map_or(0, |_| OPT_LEN)
    }
}

/// Writes on until the room is full.
struct Writer<'a> {
    room: &'a mut [u8],
    len: usize,
    is_stream: bool,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.room.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    /// Says that no more than so many records fitted; a datagram is cut by the library.
    fn cut(&mut self, count: usize) -> Option<()> {
        if !self.is_stream {
            return None;
        }
        let count = u16::try_from(count).ok()?.to_be_bytes();
        *self.room.get_mut(FLAGS_AT)? |= TRUNCATED;
        self.room.get_mut(ANSWER_COUNT)?.copy_from_slice(&count);
        Some(())
    }

    fn put_u16(&mut self, number: u16) -> Option<()> {
        self.put(&number.to_be_bytes())
    }

    /// A name as it is spelt.
    fn put_name(&mut self, name: &DnsName) -> Option<()> {
        for label in name.as_str().split('.') {
            self.put(&[u8::try_from(label.len()).ok()?])?;
            self.put(label.as_bytes())?;
        }
        self.put(&[0])
    }

    /// A pointer to a name that was written before. The library writes the name out until it sees that, and cuts the
    /// answer if there is no room.
    fn refer(&mut self, at: usize, name_len: usize) -> Option<()> {
        if !self.is_stream {
            self.room.get(self.len..self.len + name_len)?;
        }
        self.put_u16(0xc000 | u16::try_from(at).ok()?)
    }
}
