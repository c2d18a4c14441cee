//! Holds back what leaves the machine until everything that it rests on is on disk.
//!
//! ```text
//!  one input ─► state changed ─► write n ─► out at once
//!            └► outputs ───────► wait for n (and so for all writes before it) ─► out
//! ```
//!
//! Writes may overlap; the store carries them out in order. If one fails, what waits for it is dropped, answers
//! become failures, and the machine begins again from what the store then holds.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::ipam::IpamOutput;
use crate::ipam::durable::{Mirror, StoreContent, holder_in};
use crate::ipam::faults::Faults;
use crate::ipam::holdings::Holdings;
use crate::ipam::paxos::Acceptor;
use crate::ipam::relearn::Lost;
use crate::ipam::request::{Failure, Reply};
use crate::ipam::ring::Ring;

/// The outputs of the machine.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    mirror: Mirror,
    ring_changed: bool,
    acceptor_changed: bool,
    issued: u64,
    durable: u64,
    /// Owners whose addresses are being written, by write.
    unwritten: VecDeque<(u64, String)>,
    /// Addresses that are being freed, by write.
    frees: VecDeque<(u64, String, IpAddr)>,
    staged: Vec<IpamOutput>,
    waiting: VecDeque<(u64, IpamOutput)>,
    ready: VecDeque<IpamOutput>,
}

impl Gate {
    /// Begins with what the store holds.
    pub(crate) fn begin(&mut self, content: StoreContent) {
        self.mirror = Mirror::new(content);
        self.unwritten.clear();
    }

    pub(crate) fn poll(&mut self) -> Option<IpamOutput> {
        self.ready.pop_front()
    }

    /// Puts an output behind this input's writes.
    pub(crate) fn stage(&mut self, output: IpamOutput) {
        self.staged.push(output);
    }

    /// Puts an output out whatever is being written; for what only makes things safer.
    pub(crate) fn at_once(&mut self, output: IpamOutput) {
        self.ready.push_back(output);
    }

    pub(crate) fn ring_changed(&mut self) {
        self.ring_changed = true;
    }

    pub(crate) fn is_ring_changed(&self) -> bool {
        self.ring_changed
    }

    pub(crate) fn acceptor_changed(&mut self) {
        self.acceptor_changed = true;
    }

    /// Hands over this input's writes and lines its outputs up behind them.
    pub(crate) fn write(
        &mut self,
        ring: Option<&Ring>,
        acceptor: &Acceptor,
        holdings: &mut Holdings,
        lost: Lost,
        called: Option<StoreContent>,
        faults: Faults,
    ) {
        let ring = ring.filter(|_| std::mem::take(&mut self.ring_changed));
        let votes = std::mem::take(&mut self.acceptor_changed) && !faults.forget_promise;
        let acceptor = Some(acceptor).filter(|_| votes);
        let mut changes = self.mirror.changes(ring, acceptor, holdings);
        self.mirror.note_lost(lost, &mut changes);
        if let Some(called) = called {
            self.mirror.note_called(called, &mut changes);
        }
        if !changes.is_empty() {
            self.issued += 1;
            let token = self.issued;
            let holders = changes.iter().filter_map(|(key, _)| holder_in(key));
            self.unwritten
                .extend(holders.map(|holder| (token, holder.to_owned())));
            self.ready.push_back(IpamOutput::Persist { token, changes });
        }
        for output in self.staged.drain(..) {
            if faults.answer_before_write {
                self.ready.push_back(output);
            } else {
                self.waiting.push_back((self.issued, output));
            }
        }
        self.release();
    }

    /// Nothing is being written.
    pub(crate) fn is_all_durable(&self) -> bool {
        self.durable == self.issued
    }

    /// Notes that a write and all before it are on disk.
    pub(crate) fn durable(&mut self, token: u64) {
        self.durable = self.durable.max(token);
        while self
            .unwritten
            .front()
            .is_some_and(|(token, _)| *token <= self.durable)
        {
            self.unwritten.pop_front();
        }
        while self
            .frees
            .front()
            .is_some_and(|(token, ..)| *token <= self.durable)
        {
            self.frees.pop_front();
        }
        self.release();
    }

    /// This input's write frees an address.
    pub(crate) fn frees(&mut self, holder: &str, address: IpAddr) {
        self.frees
            .push_back((self.issued + 1, holder.to_owned(), address));
    }

    /// Hands out what was freed and was not heard to be on disk.
    pub(crate) fn unwritten_frees(&mut self) -> Vec<(String, IpAddr)> {
        let frees = std::mem::take(&mut self.frees).into_iter();
        frees
            .map(|(_, holder, address)| (holder, address))
            .collect()
    }

    /// What this owner has is on disk, as far as was heard.
    pub(crate) fn is_written(&self, holder: &str) -> bool {
        !self.unwritten.iter().any(|(_, other)| other == holder)
    }

    /// Drops what waits for writes that failed; whoever waits for an answer is told. What was freed is.
    pub(crate) fn failed(&mut self) {
        for (_, output) in std::mem::take(&mut self.waiting) {
            if let IpamOutput::Answer { request, result } = output {
                let result = match result {
                    Ok(Reply::Freed { .. }) => Ok(Reply::Freed { written: false }),
                    Ok(_) | Err(_) => Err(Failure::Store),
                };
                self.ready.push_back(IpamOutput::Answer { request, result });
            }
        }
        self.durable = self.issued;
        self.ready.push_back(IpamOutput::Reload);
    }

    fn release(&mut self) {
        while self
            .waiting
            .front()
            .is_some_and(|(token, _)| *token <= self.durable)
        {
            self.ready
                .extend(self.waiting.pop_front().map(|(_, output)| output));
        }
    }
}
