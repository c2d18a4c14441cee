//! A peer that brings the records of a thousand others over one real link: what it costs a daemon to know them.
//!
//! ```text
//!  weft launch ◄── TCP ── Crowd: a real link, a real gossip machine; the others are records that it holds
//! ```
//!
//! Each of the others says what a host of such a mesh says: PEER, ENDPOINTS, TOPOLOGY with twenty links, ATTACHMENTS.
//! Sans-IO; the example `crowd` drives it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use weft_engine::session::CipherSuite;

use crate::config::{BootId, CipherCost, NodeConfig, PORT_DEFAULT, RekeyConfig};
use crate::endpoints::Endpoints;
use crate::gossip::{Gossip, GossipOutput};
use crate::link::handshake::Hello;
use crate::link::message::Message;
use crate::link::{Link, LinkAction, LinkContext};
use crate::node::attachments_body;
use crate::node::exchange::LinkId;
use crate::peer::{Identity, PeerId};
use crate::random::Randomness;
use crate::record::{Record, RecordKind, Version};
use crate::secret::{NetworkId, Secrets};
use crate::topology::{DataReport, LinkReport, TopologyPart};

/// Links that each of the others makes; as many more are made to it.
const LINKS_MADE: usize = 10;
/// Containers on each of the others.
const CONTAINERS: u8 = 4;
const LINK: LinkId = LinkId(1);

/// The peer, and those it speaks for.
pub struct Crowd {
    link: Link,
    gossip: Gossip,
    config: NodeConfig,
    identity: Identity,
    random: Randomness,
    hello: Vec<u8>,
    /// Those that it has links with itself.
    near: Vec<PeerId>,
    is_up: bool,
    is_over: bool,
}

fn config(nickname: &str, boot_id: u64) -> NodeConfig {
    NodeConfig {
        network_id: NetworkId::of("weft"),
        network: "weft".to_owned(),
        secrets: Secrets::open(),
        name: None,
        nickname: nickname.parse().expect("the nickname is one"),
        port: PORT_DEFAULT,
        workers: 2,
        ciphers: vec![CipherCost {
            suite: CipherSuite::ChaCha20Poly1305,
            ns_per_kib: 700,
        }],
        mtu: 1376,
        discovery: true,
        relay: true,
        boot_id: BootId(boot_id.to_be_bytes()),
        incarnation: 1,
        targets: Vec::new(),
        rekey: RekeyConfig::default(),
    }
}

fn report(rtt_ms: u64) -> LinkReport {
    LinkReport {
        control: true,
        data: Some(DataReport {
            rtt: Duration::from_millis(rtt_ms),
            datagram_max: 1472,
            loss_percent: 0,
        }),
    }
}

/// Who has links with whom, as pairs of numbers; 0 is the one who speaks.
fn draw_links(peers: usize, random: &mut Randomness) -> BTreeSet<(usize, usize)> {
    let mut links = BTreeSet::new();
    for one in 0..=peers {
        for _ in 0..LINKS_MADE {
            let other = random.u32() as usize % (peers + 1);
            if other != one {
                links.insert((one.min(other), one.max(other)));
            }
        }
    }
    links
}

impl Crowd {
    /// Speaks for that many peers; its first bytes wait to be sent to whoever is dialled.
    #[must_use]
    pub fn new(peers: usize, seed: u64, now: Instant) -> Self {
        let mut random = Randomness::seeded(seed);
        let identities: Vec<_> = (0..=peers)
            .map(|_| Identity::generate(&mut random))
            .collect();
        let links = draw_links(peers, &mut random);
        let near_to = |number: usize| {
            let pairs = links
                .iter()
                .filter(move |(a, b)| *a == number || *b == number);
            pairs.map(move |(a, b)| if *a == number { *b } else { *a })
        };
        let identity = identities[0].clone();
        let config = config("crowd", seed);
        let body = Hello::encode_record(&config, &identity);
        let mut gossip = Gossip::new(
            identity.clone(),
            config.network_id,
            config.incarnation,
            body,
            random.fork(),
            now,
        );
        for number in 1..=peers {
            let links = near_to(number).map(|other| identities[other].peer_id());
            for record in records_of(number, &identities[number], links.collect()) {
                gossip.hold(record);
            }
        }
        let mut crowd = Self {
            link: Link::dialled(config.secrets.offered(0).clone(), false, now),
            gossip,
            hello: Hello::encode_ours(&config, &identity),
            near: near_to(0)
                .map(|other| identities[other].peer_id())
                .collect(),
            config,
            identity,
            random,
            is_up: false,
            is_over: false,
        };
        crowd.say_links(None, now);
        crowd
    }

    /// Whether the daemon has taken us for a peer.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether the link has come to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes in what the daemon sent.
    pub fn receive(&mut self, data: &[u8], now: Instant) {
        self.with_link(now, |link, context, actions| {
            link.receive(data, context, actions)
        });
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        self.with_link(now, |link, context, actions| link.tick(context, actions));
        self.gossip.tick(now);
        self.send_gossip();
    }

    /// What is to be sent.
    pub fn take_outbox(&mut self) -> Vec<u8> {
        self.link.take_outbox().concat()
    }

    fn with_link(
        &mut self,
        now: Instant,
        run: impl FnOnce(&mut Link, &mut LinkContext<'_>, &mut Vec<LinkAction>),
    ) {
        let mut actions = Vec::new();
        let mut context = LinkContext {
            identity: &self.identity,
            network: &self.config.network_id,
            secrets: &self.config.secrets,
            hello: &self.hello,
            random: &mut self.random,
            now,
        };
        run(&mut self.link, &mut context, &mut actions);
        for action in actions {
            match action {
                LinkAction::Up(hello) => {
                    self.is_up = true;
                    self.gossip.link_up(LINK, hello.peer_id, now);
                    self.say_links(Some(hello.peer_id), now);
                }
                LinkAction::Message(Message::Gossip(message)) => {
                    self.gossip.receive(LINK, &message, now);
                }
                // Sessions and the like: nobody is there to have one.
                LinkAction::Message(_) | LinkAction::Malformed => {}
                LinkAction::Down(_) => self.is_over = true,
            }
        }
        self.send_gossip();
    }

    fn send_gossip(&mut self) {
        while let Some(output) = self.gossip.poll_output() {
            if let GossipOutput::Send { message, .. } = output {
                self.link.send(&Message::Gossip(message));
            }
        }
    }

    /// Our links: those that the others report too, and control alone with the daemon.
    fn say_links(&mut self, daemon: Option<PeerId>, now: Instant) {
        let mut links: Vec<_> = self.near.iter().map(|peer| (*peer, report(20))).collect();
        let control = LinkReport {
            control: true,
            data: None,
        };
        links.extend(daemon.map(|daemon| (daemon, control)));
        links.sort_unstable_by_key(|(peer, _)| *peer);
        let part = TopologyPart {
            no_relay: false,
            links,
        };
        self.gossip
            .publish(RecordKind::Topology, 0, part.encode(), now);
    }
}

/// What one of the others says.
fn records_of(number: usize, identity: &Identity, links: Vec<PeerId>) -> Vec<Record> {
    let config = config(&format!("host{number}"), number as u64);
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    let [high, low] = number.to_be_bytes();
    // RFC 2544: nobody is there.
    let address = SocketAddr::new(Ipv4Addr::new(198, 18, high, low).into(), PORT_DEFAULT);
    let endpoints = Endpoints {
        addresses: vec![address],
        symmetric: false,
    };
    let mut links: Vec<_> = links
        .into_iter()
        .map(|peer| (peer, report(10 + u64::from(number % 40))))
        .collect();
    links.sort_unstable_by_key(|(peer, _)| *peer);
    let topology = TopologyPart {
        no_relay: false,
        links,
    };
    let attached: Vec<_> = (0..CONTAINERS)
        .map(|container| {
            let address = IpAddr::from([10, 32 + (high & 15), low, container + 1]);
            ([2, 0, 0, high, low, container], address)
        })
        .collect();
    let bodies = [
        (RecordKind::Peer, Hello::encode_record(&config, identity)),
        (RecordKind::Endpoints, endpoints.encode()),
        (RecordKind::Topology, topology.encode()),
        (RecordKind::Attachments, attachments_body(&attached)),
    ];
    let sign = |(sequence, (kind, body)): (u64, (RecordKind, Vec<u8>))| {
        let version = Version {
            incarnation: 1,
            sequence,
        };
        Record::sign(
            identity,
            &config.network_id,
            (kind.byte(), 0),
            version,
            &body,
        )
    };
    (1..).zip(bodies).map(sign).collect()
}
