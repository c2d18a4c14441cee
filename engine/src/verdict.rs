//! Why a packet was dropped, and the counters of every station.
//!
//! A packet is never an error: it gets a verdict or a counted reason. One worker writes its
//! counters, anybody reads them.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counted {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of the stations.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in status, report and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

counted! {
    /// Why a frame or datagram went no further.
    DropReason {
        /// `tap_rx`: shorter than an Ethernet header, or its virtio header lies about it.
        BadFrame => "bad_frame",
        /// `bridge`: link-local group address (STP, LLDP, 802.1X), which no bridge forwards.
        LinkLocal => "link_local",
        /// `bridge`: the destination lives on the side that the frame came from.
        SamePort => "same_port",
        /// `bridge`: our own flood come back, or another host's frame on our side: a LAN joins two hosts.
        Loop => "loop",
        /// `bridge`: floods to and from this peer rest, since one came round by a LAN.
        FloodRest => "flood_rest",
        /// `bridge`: this MAC has had as many frames flooded or questions answered as it may.
        FloodMac => "flood_mac",
        /// `bridge`: the whole host has.
        FloodTap => "flood_tap",
        /// `bridge`: from an IPv4 address that belongs to another host.
        AddressDisputed => "address_disputed",
        /// `stage`, `open`: we and the peer have not agreed yet who owns which addresses.
        FlowShut => "flow_shut",
        /// `bridge`: no peer to send to.
        NoRoute => "no_route",
        /// `stage`: too many frames wait for this peer's session.
        QueueFull => "queue_full",
        /// `stage`: the peer has a session but no path.
        PathDown => "path_down",
        /// `seal`: no free packet buffer.
        PoolEmpty => "pool_empty",
        /// `seal`: the key is used up and no new one came.
        KeyExhausted => "key_exhausted",
        /// `seal`: larger than two datagrams of the path.
        TooBig => "too_big",
        /// `udp_tx`: the socket's buffer is full.
        SendBusy => "send_busy",
        /// `udp_tx`: the kernel refused the datagram.
        SendFailed => "send_failed",
        /// `udp_rx`: not a datagram of ours.
        BadHeader => "bad_header",
        /// `udp_rx`: nobody has that receiver index.
        UnknownSession => "unknown_session",
        /// `udp_rx`: the ring to the lane's owner is full.
        HandoffFull => "handoff_full",
        /// `open`: seen already, or too old to tell.
        Replayed => "replayed",
        /// `open`: does not authenticate.
        Forged => "forged",
        /// `open`: authentic, but its inside makes no sense.
        BadPayload => "bad_payload",
        /// `open`: answers a probe that nobody waits for any more.
        ProbeLate => "probe_late",
        /// `open`: one half of a cut frame whose other half never came.
        PieceLost => "piece_lost",
        /// `open`: behind a relay, and not sealed by the source that its label names.
        WrongSource => "wrong_source",
        /// `open`: a flood that did not come from our parent in its source's tree.
        NotParent => "not_parent",
        /// `open`: a flood under a key that we do not have (yet, or any more).
        NoGroupKey => "no_group_key",
        /// `relay`: we pass on nothing for others (`--no-relay`).
        NoRelay => "no_relay",
        /// `relay`: nobody we know has the destination's or the source's label.
        UnknownLabel => "unknown_label",
        /// `relay`: it has been passed on as often as it may be.
        HopLimit => "hop_limit",
        /// `relay`: the way on is the way it came, or it is our own.
        SplitHorizon => "split_horizon",
        /// `relay`: larger than the next path carries.
        RelayTooBig => "relay_too_big",
        /// `relay`: its sender has used up its share, and others wait.
        RelayFull => "relay_full",
        /// `deliver`: the frame contradicts its hint.
        BadHint => "bad_hint",
        /// `deliver`: the TAP refused the frame.
        TapRefused => "tap_refused",
        /// Control was too slow to take an event.
        EventLost => "event_lost",
    }
}

counted! {
    /// What passed a station.
    Station {
        /// Frames (super-frames count once) read from the TAP.
        TapRx => "tap_rx_frames",
        /// Their bytes.
        TapRxBytes => "tap_rx_bytes",
        /// Frames copied to every peer.
        Bridge => "bridge_floods",
        /// Questions about addresses answered at home.
        BridgeAnswers => "bridge_answers",
        /// Frames put aside until a session is made.
        Stage => "stage_frames",
        /// Datagrams sealed.
        Seal => "seal_datagrams",
        /// Frames that were cut in two for a small path.
        SealPieces => "seal_pieces",
        /// Trains sent.
        UdpTx => "udp_tx_trains",
        /// Their bytes.
        UdpTxBytes => "udp_tx_bytes",
        /// Trains received.
        UdpRx => "udp_rx_trains",
        /// Their bytes.
        UdpRxBytes => "udp_rx_bytes",
        /// Datagrams passed to the lane's owner.
        UdpRxHandoff => "udp_rx_handoffs",
        /// Datagrams opened.
        Open => "open_datagrams",
        /// Datagrams passed on for others.
        Relay => "relay_datagrams",
        /// Their bytes.
        RelayBytes => "relay_bytes",
        /// Copies of floods sent along a tree: our own, and of others.
        GroupCopies => "group_copies",
        /// Frames (super-frames count once) written to the TAP.
        Deliver => "deliver_frames",
        /// Their bytes.
        DeliverBytes => "deliver_bytes",
        /// Times the worker slept.
        Wait => "waits",
    }
}

/// Counters of one worker; on a cache line of its own in the engine's table.
#[derive(Debug)]
pub struct Counters {
    drops: [AtomicU64; DropReason::ALL.len()],
    stations: [AtomicU64; Station::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
            stations: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    /// Counts several drops.
    pub fn drop_many(&self, reason: DropReason, count: u64) {
        add(&self.drops[reason as usize], count);
    }

    /// Counts what passed a station.
    pub fn pass(&self, station: Station, count: u64) {
        add(&self.stations[station as usize], count);
    }

    /// Drops so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].load(Ordering::Relaxed)
    }

    /// What passed so far.
    pub fn passed(&self, station: Station) -> u64 {
        self.stations[station as usize].load(Ordering::Relaxed)
    }
}

/// One writer per counter: a plain load and store is enough, and half the price of a locked add.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(count),
        Ordering::Relaxed,
    );
}
