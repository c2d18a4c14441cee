//! What a peer says of its links to everybody: the body of its TOPOLOGY records, and when it says something new.
//!
//! ```text
//!  field 1   flags: 1 does not relay for others
//!  field 2   links, 24 bytes each, ordered by PeerId:
//!            0-15   PeerId of the other end
//!            16     flags: 1 control up, 2 data up
//!            17-20  round trip of the data path in microseconds
//!            21-22  largest datagram that crosses it, in bytes
//!            23     loss in percent
//! ```
//!
//! A link that comes or goes is said at once, but one that comes back again and again is held back for a moment.
//! Round trips are said when they are off by a quarter, and loss, seldom: jitter must not flood the gossip. Bounds:
//! `config::LINKS_PER_PART_MAX` links in one part, `config::TOPOLOGY_PARTS_MAX` parts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::{
    LINK_FIGURES_EVERY, LINK_FLAP_MEMORY, LINK_GROWTH_AFTER, LINK_LOSS_EVERY, LINK_LOSS_WITHIN,
    LINK_UP_HOLD, LINKS_PER_PART_MAX, TOPOLOGY_PARTS_MAX,
};
use crate::fields::{FieldError, FieldWriter, Fields};
use crate::peer::PeerId;

mod field {
    pub(super) const FLAGS: u8 = 1;
    pub(super) const LINKS: u8 = 2;
}

const NO_RELAY: u8 = 1;
const CONTROL_UP: u8 = 1;
const DATA_UP: u8 = 2;
const LINK_LEN: usize = 24;
/// A round trip is news when it is off by more than this, and by a quarter.
const RTT_NEWS_MIN: Duration = Duration::from_millis(1);
/// Loss is news when it is off by more than this many percent.
const LOSS_NEWS_PERCENT: u8 = 10;

/// What is known of a link's data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataReport {
    pub(crate) rtt: Duration,
    pub(crate) datagram_max: u16,
    pub(crate) loss_percent: u8,
}

/// One end's word on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkReport {
    pub(crate) control: bool,
    pub(crate) data: Option<DataReport>,
}

impl LinkReport {
    /// Whether something does not cross any more that did.
    fn is_worsened_by(self, news: Self) -> bool {
        let crosses = |report: Self| report.data.map_or(0, |data| data.datagram_max);
        (self.control && !news.control) || crosses(news) < crosses(self)
    }
}

/// One part of what a peer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopologyPart {
    pub(crate) no_relay: bool,
    /// Ordered by PeerId, each once.
    pub(crate) links: Vec<(PeerId, LinkReport)>,
}

impl TopologyPart {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flags = if self.no_relay { NO_RELAY } else { 0 };
        let mut links = Vec::with_capacity(self.links.len() * LINK_LEN);
        for (peer, report) in &self.links {
            links.extend_from_slice(&peer.0);
            let data = if report.data.is_some() { DATA_UP } else { 0 };
            let control = if report.control { CONTROL_UP } else { 0 };
            links.push(control | data);
            let data = report.data.unwrap_or(DataReport {
                rtt: Duration::ZERO,
                datagram_max: 0,
                loss_percent: 0,
            });
            let rtt_us = u32::try_from(data.rtt.as_micros()).unwrap_or(u32::MAX);
            links.extend_from_slice(&rtt_us.to_be_bytes());
            links.extend_from_slice(&data.datagram_max.to_be_bytes());
            links.push(data.loss_percent);
        }
        FieldWriter::default()
            .put(field::FLAGS, &[flags])
            .put(field::LINKS, &links)
            .finish()
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, FieldError> {
        let fields = Fields::parse(body)?;
        let flags = fields.find(field::FLAGS).and_then(<[u8]>::first);
        let mut links = Vec::new();
        for entry in fields
            .find(field::LINKS)
            .unwrap_or_default()
            .as_chunks::<LINK_LEN>()
            .0
        {
            links.push(parse_link(entry).ok_or(FieldError)?);
        }
        if links.len() > LINKS_PER_PART_MAX {
            return Err(FieldError);
        }
        links.sort_unstable_by_key(|(peer, _)| *peer);
        links.dedup_by_key(|(peer, _)| *peer);
        Ok(Self {
            no_relay: flags.is_some_and(|flags| flags & NO_RELAY != 0),
            links,
        })
    }
}

fn parse_link(entry: &[u8; LINK_LEN]) -> Option<(PeerId, LinkReport)> {
    let (peer, rest) = entry.split_first_chunk()?;
    let (flags, rest) = rest.split_first()?;
    let (rtt_us, rest) = rest.split_first_chunk()?;
    let (datagram_max, rest) = rest.split_first_chunk()?;
    let data = (flags & DATA_UP != 0).then(|| DataReport {
        rtt: Duration::from_micros(u32::from_be_bytes(*rtt_us).into()),
        datagram_max: u16::from_be_bytes(*datagram_max),
        loss_percent: rest.first().copied().unwrap_or(0).min(100),
    });
    let control = flags & CONTROL_UP != 0;
    Some((PeerId(*peer), LinkReport { control, data }))
}

/// One link, as it was last said.
#[derive(Debug)]
struct Said {
    report: LinkReport,
    /// When the data path, or the link, went down last.
    down_at: Option<Instant>,
    control: Damper,
    data: Damper,
}

/// Holds one half of a link back that flaps, its control or its data.
#[derive(Debug, Default)]
struct Damper {
    /// It has been said to be down.
    fell: bool,
    /// When it was last said to be back, or went before that was said.
    back_at: Option<Instant>,
    /// Since when it is up, and not yet said to be.
    up_since: Option<Instant>,
}

/// Our own links: what we say of them.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    /// How far into each [`LINK_LOSS_EVERY`] losses are told.
    phase: Duration,
    said: BTreeMap<PeerId, Said>,
    /// When figures were news last: those of all links go together, or twenty links would be news all the time.
    figures_at: Option<Instant>,
    /// From when losses are news the next time.
    losses_at: Option<Instant>,
    /// Since when larger datagrams cross some link than is said.
    grown_since: Option<Instant>,
    /// When the first of the links that are held back is to be said.
    hold_ends: Option<Instant>,
    /// The last news were that something does not carry what it was said to carry.
    worse: bool,
}

/// Which figures may be news now, if they differ by enough.
#[derive(Debug, Clone, Copy)]
struct Due {
    figures: bool,
    losses: bool,
    growth: bool,
}

impl Reporter {
    /// For the host with that id, which decides when in a minute it tells losses.
    pub(crate) fn new(own: PeerId) -> Self {
        Self {
            phase: LINK_LOSS_EVERY * u32::from(own.0[0]) / 256,
            ..Self::default()
        }
    }

    /// Takes in how our links are; true if that is to be said. Links not named are gone.
    pub(crate) fn observe(&mut self, actual: &BTreeMap<PeerId, LinkReport>, now: Instant) -> bool {
        let (mut news, mut figures, mut grown) = (false, false, false);
        self.worse = false;
        let figures_at = *self.figures_at.get_or_insert(now);
        let due = Due {
            figures: now.duration_since(figures_at) >= LINK_FIGURES_EVERY,
            losses: self.losses_due(now),
            growth: self.growth_due().is_some_and(|due| due <= now),
        };
        for (peer, said) in &mut self.said {
            let gone = LinkReport {
                control: false,
                data: None,
            };
            let report = *actual.get(peer).unwrap_or(&gone);
            let before = said.report;
            news |= said.observe(report, now);
            figures |= said.observe_figures(report.data, due);
            let grows = said.grows(report.data);
            if grows && due.growth {
                said.report.data = report.data;
                news = true;
            }
            grown |= grows && !due.growth;
            self.worse |= before.is_worsened_by(said.report);
        }
        self.grown_since = grown.then(|| self.grown_since.unwrap_or(now));
        if figures && due.figures {
            self.figures_at = Some(now);
        }
        news |= figures;
        self.said.retain(|peer, said| {
            let remembered = said
                .down_at
                .is_some_and(|at| now.duration_since(at) < LINK_FLAP_MEMORY);
            actual.contains_key(peer) || remembered
        });
        let held = self.said.values();
        let held = held.flat_map(|said| [said.control.up_since, said.data.up_since]);
        self.hold_ends = held.flatten().min().map(|since| since + LINK_UP_HOLD);
        let links_max = LINKS_PER_PART_MAX * TOPOLOGY_PARTS_MAX;
        for (peer, report) in actual {
            if self.said.len() < links_max && !self.said.contains_key(peer) {
                self.said.insert(*peer, Said::new(*report));
                news = true;
            }
        }
        news
    }

    /// Whether losses are news now: once in [`LINK_LOSS_EVERY`], at this host's own time. What makes the lines of all
    /// hosts bad at once is not told by all at once, also when nobody had anything to tell for long.
    fn losses_due(&mut self, now: Instant) -> bool {
        let mut at = *self
            .losses_at
            .get_or_insert(now + LINK_LOSS_EVERY + self.phase);
        let due = at <= now && now - at < LINK_LOSS_WITHIN;
        while at <= now {
            at += LINK_LOSS_EVERY;
        }
        self.losses_at = Some(at);
        due
    }

    /// Whether the last news were bad: whoever does not know of it sends what is lost.
    pub(crate) fn is_worse(&self) -> bool {
        self.worse
    }

    /// When [`Reporter::observe`] may find something new though nothing happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = [self.hold_ends, self.growth_due()];
        due.into_iter().flatten().min()
    }

    /// When sizes that grew are to be said.
    fn growth_due(&self) -> Option<Instant> {
        Some(self.grown_since? + LINK_GROWTH_AFTER)
    }

    /// What is said now, part by part; never none.
    pub(crate) fn parts(&self, no_relay: bool) -> Vec<TopologyPart> {
        let up = |said: &Said| said.report.control || said.report.data.is_some();
        let links: Vec<_> = self
            .said
            .iter()
            .filter(|(_, said)| up(said))
            .map(|(peer, said)| (*peer, said.report))
            .collect();
        let mut parts: Vec<_> = links
            .chunks(LINKS_PER_PART_MAX)
            .map(|links| TopologyPart {
                no_relay,
                links: links.to_vec(),
            })
            .collect();
        if parts.is_empty() {
            parts.push(TopologyPart {
                no_relay,
                links: Vec::new(),
            });
        }
        parts
    }
}

impl Said {
    fn new(report: LinkReport) -> Self {
        Self {
            report,
            down_at: None,
            control: Damper::default(),
            data: Damper::default(),
        }
    }

    fn observe(&mut self, actual: LinkReport, now: Instant) -> bool {
        let (said_control, said_data) = (self.report.control, self.report.data);
        let control = self.control.next(said_control, actual.control, now);
        let data = self
            .data
            .next(said_data.is_some(), actual.data.is_some(), now);
        self.report = LinkReport {
            control,
            data: said_data.or(actual.data).filter(|_| data),
        };
        if (said_control && !control) || (said_data.is_some() && !data) {
            self.down_at = Some(now);
        }
        (control, data) != (said_control, said_data.is_some())
    }

    /// Whether larger datagrams cross than is said.
    fn grows(&self, actual: Option<DataReport>) -> bool {
        let both = self.report.data.zip(actual);
        both.is_some_and(|(said, actual)| actual.datagram_max > said.datagram_max)
    }

    fn observe_figures(&mut self, actual: Option<DataReport>, due: Due) -> bool {
        let (Some(said), Some(actual)) = (self.report.data, actual) else {
            return false;
        };
        // A size that does not cross any more loses frames; that cannot wait.
        let shrunk = actual.datagram_max < said.datagram_max;
        let off = due.figures && is_news(said, actual);
        let lossy = due.losses && loss_is_news(said, actual);
        if !shrunk && !off && !lossy {
            return false;
        }
        self.report.data = Some(actual);
        true
    }
}

impl Damper {
    /// What is to be said, from what is said and what is. Down at once; up at once after an outage, but if it was
    /// back lately only after a while, so that what flaps is mostly down.
    fn next(&mut self, said: bool, is_up: bool, now: Instant) -> bool {
        if said {
            self.fell |= !is_up;
            return is_up;
        }
        if !is_up {
            // Gone again before it was said to be back: the flapping goes on.
            self.back_at = self.up_since.take().map_or(self.back_at, |_| Some(now));
            return false;
        }
        let since = *self.up_since.get_or_insert(now);
        let flaps = self
            .back_at
            .is_some_and(|at| now.duration_since(at) < LINK_FLAP_MEMORY);
        if flaps && now.duration_since(since) < LINK_UP_HOLD {
            return false;
        }
        // The first time it only comes; it is not back.
        (self.back_at, self.up_since) = (self.fell.then_some(now), None);
        true
    }
}

fn is_news(said: DataReport, actual: DataReport) -> bool {
    let off = said.rtt.abs_diff(actual.rtt);
    (off > RTT_NEWS_MIN && off * 4 > said.rtt) || said.datagram_max != actual.datagram_max
}

fn loss_is_news(said: DataReport, actual: DataReport) -> bool {
    said.loss_percent.abs_diff(actual.loss_percent) > LOSS_NEWS_PERCENT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::node::tests::first_instant;

    fn up(rtt_ms: u64) -> LinkReport {
        LinkReport {
            control: true,
            data: Some(DataReport {
                rtt: Duration::from_millis(rtt_ms),
                datagram_max: 1472,
                loss_percent: 0,
            }),
        }
    }

    const PEER: PeerId = PeerId([7; 16]);

    fn one(report: LinkReport) -> BTreeMap<PeerId, LinkReport> {
        BTreeMap::from([(PEER, report)])
    }

    #[test]
    fn the_bytes_are_these_for_ever() {
        let part = TopologyPart {
            no_relay: true,
            links: vec![(PEER, up(2))],
        };
        let bytes = part.encode();
        assert_eq!(&bytes[..7], b"\x01\x00\x01\x01\x02\x00\x18");
        assert_eq!(&bytes[7..23], &PEER.0);
        assert_eq!(&bytes[23..], b"\x03\x00\x00\x07\xd0\x05\xc0\x00");
        assert_eq!(TopologyPart::parse(&bytes), Ok(part));
    }

    #[test]
    fn jitter_is_no_news_and_a_change_that_lasts_is() {
        let (mut reporter, mut now) = (Reporter::default(), first_instant());
        assert!(reporter.observe(&one(up(20)), now));
        for rtt in [18, 21, 24, 16, 20] {
            now += LINK_FIGURES_EVERY;
            assert!(!reporter.observe(&one(up(rtt)), now), "{rtt} ms");
        }
        assert!(reporter.observe(&one(up(40)), now));
        now += LINK_FIGURES_EVERY / 2;
        assert!(
            !reporter.observe(&one(up(80)), now),
            "too soon after the last"
        );
        now += LINK_FIGURES_EVERY / 2;
        assert!(reporter.observe(&one(up(80)), now));
        assert_eq!(reporter.parts(false)[0].links, [(PEER, up(80))]);
    }

    /// On a bad line the share of a few dozen probes swings by more than any threshold, and with twenty links one of
    /// them always has: it must not be news every time.
    #[test]
    fn loss_is_said_seldom() {
        let (mut reporter, mut now) = (Reporter::default(), first_instant());
        let lossy = |percent| {
            let mut report = up(20);
            report.data.as_mut().unwrap().loss_percent = percent;
            one(report)
        };
        reporter.observe(&lossy(0), now);
        let mut news = 0;
        for step in 0..60 {
            now += LINK_FIGURES_EVERY;
            news += u32::from(reporter.observe(&lossy([20, 50, 35, 65][step % 4]), now));
        }
        assert!((5..=10).contains(&news), "{news} times in ten minutes");
    }

    /// What goes wrong under all hosts at once would else be told by all in the same second.
    #[test]
    fn hosts_say_losses_at_times_of_their_own() {
        let mut lossy = up(20);
        lossy.data.as_mut().unwrap().loss_percent = 50;
        let mut said = Vec::new();
        for first in [0, 60, 120, 180] {
            let (mut reporter, mut now) = (Reporter::new(PeerId([first; 16])), first_instant());
            let start = now;
            // Nothing happens for long, and then the lines of all are bad.
            reporter.observe(&one(up(20)), now);
            now += Duration::from_secs(1000);
            while !reporter.observe(&one(lossy), now) {
                now += Duration::from_secs(1);
                assert!(now - start < Duration::from_secs(1100), "it is never said");
            }
            said.push(now - start);
        }
        said.sort();
        let apart = said
            .windows(2)
            .all(|two| two[1] - two[0] >= Duration::from_secs(5));
        assert!(apart, "{said:?}");
    }

    #[test]
    fn a_size_that_shrinks_is_said_at_once() {
        let (mut reporter, now) = (Reporter::default(), first_instant());
        reporter.observe(&one(up(20)), now);
        let mut smaller = up(20);
        smaller.data.as_mut().unwrap().datagram_max = 1252;
        assert!(reporter.observe(&one(smaller), now));
        assert!(reporter.is_worse());
        assert_eq!(reporter.parts(false)[0].links, [(PEER, smaller)]);
    }

    /// A path begins with the size that every path has; what it can carry is found when its link was said already.
    #[test]
    fn a_size_that_grew_is_said_soon_though_nothing_more_happens() {
        let (mut reporter, now) = (Reporter::default(), first_instant());
        let mut small = up(20);
        small.data.as_mut().unwrap().datagram_max = 1200;
        reporter.observe(&one(small), now);
        assert_eq!(reporter.deadline(), None);
        assert!(!reporter.observe(&one(up(20)), now));
        let due = reporter.deadline().expect("the new size is to be said");
        assert_eq!(due, now + LINK_GROWTH_AFTER);
        assert!(!reporter.observe(&one(up(20)), now + LINK_GROWTH_AFTER / 2));
        assert_eq!(reporter.deadline(), Some(due), "not put off");
        assert!(reporter.observe(&one(up(20)), due));
        assert_eq!(reporter.parts(false)[0].links, [(PEER, up(20))]);
        assert_eq!(reporter.deadline(), None);
        assert!(!reporter.observe(&one(up(20)), due + LINK_GROWTH_AFTER));
    }

    /// Those behind a relay have no other word of it.
    #[test]
    fn a_link_is_back_at_once_after_an_outage() {
        let (mut reporter, mut now) = (Reporter::default(), first_instant());
        let control = LinkReport {
            control: true,
            data: None,
        };
        reporter.observe(&one(control), now);
        reporter.observe(&one(up(2)), now);
        // Data dies first, and comes back first.
        let states = [(true, false), (false, false), (false, true), (true, true)];
        for (control, data) in states {
            now += Duration::from_secs(3);
            let data = up(2).data.filter(|_| data);
            assert!(reporter.observe(&one(LinkReport { control, data }), now));
        }
        assert_eq!(reporter.parts(false)[0].links, [(PEER, up(2))]);
        assert_eq!(reporter.deadline(), None);
    }

    /// A link flaps at 1 Hz for a minute: it is said to be back once, and then when it has been up for the hold time.
    #[test]
    fn a_flapping_link_stays_down_until_it_holds() {
        let (mut reporter, mut now) = (Reporter::default(), first_instant());
        reporter.observe(&one(up(2)), now);
        let down = LinkReport {
            control: true,
            data: None,
        };
        let mut news = 0;
        for step in 0..120 {
            now += Duration::from_millis(500);
            let report = if step % 2 == 0 { down } else { up(2) };
            news += u32::from(reporter.observe(&one(report), now));
        }
        assert_eq!(news, 3, "down, back, down, and no more");
        let back_at = reporter.deadline().expect("it waits to be up");
        assert!(back_at - now <= LINK_UP_HOLD);
        assert!(reporter.observe(&one(up(2)), back_at));
        assert_eq!(reporter.parts(false)[0].links, [(PEER, up(2))]);
        assert_eq!(reporter.deadline(), None);
    }

    #[test]
    fn a_link_that_is_gone_is_no_longer_said() {
        let (mut reporter, now) = (Reporter::default(), first_instant());
        reporter.observe(&one(up(2)), now);
        assert!(!reporter.is_worse());
        assert!(reporter.observe(&BTreeMap::new(), now));
        assert!(reporter.is_worse());
        assert!(reporter.parts(false)[0].links.is_empty());
        assert!(!reporter.observe(&BTreeMap::new(), now + LINK_FLAP_MEMORY));
        assert!(reporter.said.is_empty());
    }

    #[test]
    fn a_hub_says_its_links_in_parts() {
        let mut actual = BTreeMap::new();
        for n in 0..2 * LINKS_PER_PART_MAX + 1 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            actual.insert(PeerId(id), up(1));
        }
        let mut reporter = Reporter::default();
        reporter.observe(&actual, first_instant());
        let parts = reporter.parts(false);
        assert_eq!(parts.len(), 3);
        for part in &parts {
            assert!(part.encode().len() <= 16 * 1024);
            assert_eq!(TopologyPart::parse(&part.encode()).as_ref(), Ok(part));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            if let Ok(part) = TopologyPart::parse(&bytes) {
                prop_assert_eq!(TopologyPart::parse(&part.encode()), Ok(part));
            }
        }
    }
}
