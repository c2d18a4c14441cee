//! Hosts whose store takes no writes: what they still do, and what becomes of it.

use super::*;

fn release(holder: &str, address: &str) -> Request {
    Request::Release {
        holder: holder.to_owned(),
        address: address.parse().unwrap(),
    }
}

fn allocate(holder: &str) -> Request {
    let (holder, subnet) = (holder.to_owned(), None);
    Request::Allocate { holder, subnet }
}

impl Net {
    /// Stops a host and starts it again; its disk takes no writes.
    fn start_without_store(&mut self, at: usize) {
        self.kill(at);
        self.machines[at].disk_is_full = true;
        self.start(at);
        let ipam = self.machines[at].ipam.as_mut().unwrap();
        ipam.begin_without_store();
        self.drain(at);
    }

    fn mend(&mut self, at: usize) {
        self.machines[at].disk_is_full = false;
        let disk = self.machines[at].disk.clone();
        self.feed(at, IpamInput::Reloaded(disk));
    }
}

#[test]
fn a_host_that_starts_without_its_store_gives_back_and_takes_back_what_it_knows() {
    let mut net = Net::started(2, "10.32.0.0/12");
    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12");
    assert_eq!(net.allocate(0, "b", ""), "10.32.0.2/12");
    net.start_without_store(0);

    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12", "it has it");
    assert!(net.claim(0, "b", "10.32.0.2/12").is_ok());
    assert_eq!(net.answer(0, allocate("c")), Err(Failure::Store));
    assert_eq!(net.claim(0, "c", "10.32.0.9/12"), Err(Failure::Store));
    let freed = Ok(Reply::Freed { written: false });
    assert_eq!(net.answer(0, release("b", "10.32.0.2")), freed);
    assert_eq!(net.answer(0, allocate("b")), Err(Failure::Store));
    net.run_for(Duration::from_secs(12));
    let open = |told: &Told| told.at == 0 && told.flow == Flow::Open;
    assert!(net.flows.iter().any(open), "frames go on");

    net.mend(0);
    assert_eq!(net.allocate(0, "c", ""), "10.32.0.2/12", "it was freed");
    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12");
}

#[test]
fn an_address_freed_by_the_write_that_fails_is_free_all_the_same() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.allocate(0, "b", "");
    net.machines[0].disk_is_full = true;

    let freed = Ok(Reply::Freed { written: false });
    assert_eq!(net.answer(0, release("a", "10.32.0.1")), freed);
    net.mend(0);

    assert_eq!(net.allocate(0, "c", ""), "10.32.0.1/12");
}

/// What was refused because it could not be written is in memory until the store works: nobody gets it.
#[test]
fn an_address_whose_write_failed_is_not_given_on_the_second_try() {
    let mut net = Net::started(1, "10.32.0.0/12");
    net.allocate(0, "a", "");
    net.machines[0].disk_is_full = true;
    assert_eq!(net.answer(0, allocate("b")), Err(Failure::Store));
    assert_eq!(net.answer(0, allocate("b")), Err(Failure::Store));
    assert_eq!(net.allocate(0, "a", ""), "10.32.0.1/12");
    let state = "no new addresses - the store takes no writes";
    assert_eq!(net.status(0).state, state);
    net.mend(0);
    assert_eq!(net.status(0).state, "ready");
}
