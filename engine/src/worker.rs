//! One thread: wait, receive, run the stations, send. The only loop of the engine, and its only clock.
//!
//! ```text
//!   ┌─► orders ─► udp_rx ─► open ─► deliver ─► tap_rx ─► bridge ─► stage ─► seal ─► udp_tx ─► probes ─┐
//!   │                                                                                                │
//!   └──────────────────────────── something was done? again : wait ◄─────────────────────────────────┘
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "the worker reads the clock for everybody"
)]

use std::time::Instant;

use crossbeam::channel::Receiver;

use crate::config::{RECEIVE_BATCH_MAX, TAP_BATCH_MAX};
use crate::datapath::{Datapath, Order};
use crate::io::{Io, Received, SendError};
use crate::verdict::{DropReason, Station};

/// A train longer than this came by receive offload; a few of them fill the cache.
const LONG_TRAIN: usize = 16 << 10;
/// Long trains taken at once.
const LONG_TRAINS_MAX: usize = 4;

/// A worker: its datapath, its I/O and its orders.
#[derive(Debug)]
pub struct Worker<I> {
    datapath: Datapath,
    io: I,
    orders: Receiver<Order>,
    received: Vec<Received>,
    receive_max: usize,
}

impl<I: Io> Worker<I> {
    /// A worker that has not started.
    pub fn new(datapath: Datapath, io: I, orders: Receiver<Order>) -> Self {
        Self {
            datapath,
            io,
            orders,
            received: Vec::with_capacity(RECEIVE_BATCH_MAX),
            receive_max: RECEIVE_BATCH_MAX,
        }
    }

    /// Runs until ordered to stop.
    ///
    /// # Errors
    ///
    /// When the kernel no longer lets the worker wait.
    pub fn run(&mut self) -> std::io::Result<()> {
        loop {
            let now = Instant::now();
            while let Ok(order) = self.orders.try_recv() {
                if matches!(order, Order::Stop) {
                    self.datapath.flush();
                    self.send(now);
                    return Ok(());
                }
                self.datapath.apply(order, now);
            }
            let received = self.receive(now);
            let transmitted = self.transmit(now) | self.datapath.bench_turn(now);
            self.datapath.deliver(&mut self.io);
            self.datapath.flush();
            self.datapath.tick(now);
            self.send(now);
            if !received && !transmitted {
                let timeout = self
                    .datapath
                    .deadline()
                    .map(|due| due.saturating_duration_since(now));
                self.datapath.count(Station::Wait, 1);
                self.io.wait(timeout)?;
            }
        }
    }

    /// `udp_rx`, `open`, `deliver`; true if anything came.
    fn receive(&mut self, now: Instant) -> bool {
        self.datapath.take_handoffs(now);
        let mut any = false;
        loop {
            let count_max = self.receive_max.min(self.datapath.receive_max());
            let more = self
                .io
                .udp_recv(count_max, self.datapath.pool(), &mut self.received);
            any |= !self.received.is_empty();
            let long = self
                .received
                .first()
                .is_some_and(|train| train.len > LONG_TRAIN);
            self.receive_max = if long {
                LONG_TRAINS_MAX
            } else {
                RECEIVE_BATCH_MAX
            };
            // Runs stay open while neighbours may still come without waiting.
            let mut delivered = false;
            for train in self.received.drain(..) {
                self.datapath.receive(train, now);
                if self.datapath.should_deliver() {
                    self.datapath.deliver(&mut self.io);
                    delivered = true;
                }
            }
            self.datapath.pass_on_early();
            self.send(now);
            if !more || delivered {
                break;
            }
        }
        self.datapath.deliver(&mut self.io);
        any
    }

    /// `tap_rx` to `udp_tx`; true if anything came.
    fn transmit(&mut self, now: Instant) -> bool {
        let mut any = false;
        for _ in 0..TAP_BATCH_MAX {
            if self.datapath.is_own_turn_over() {
                break;
            }
            let Some(frame) = self.io.tap_recv() else {
                break;
            };
            any = true;
            self.datapath.transmit(frame, now);
            self.send(now);
        }
        any
    }

    fn send(&mut self, now: Instant) {
        while let Some(train) = self.datapath.pop_train() {
            self.datapath.count(Station::UdpTx, 1);
            self.datapath.count(Station::UdpTxBytes, train.len as u64);
            if let Err(error) = self.io.udp_send(&train) {
                let reason = match error {
                    SendError::Busy => DropReason::SendBusy,
                    SendError::TooBig => DropReason::TooBig,
                    SendError::Unreachable | SendError::Refused => DropReason::SendFailed,
                };
                self.datapath.count_drop(reason);
                self.datapath
                    .send_failed(train.to, train.segment, error, now);
            }
            self.datapath.recycle(train.packet);
        }
    }
}
