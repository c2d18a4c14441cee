//! What of Docker's calls reaches the machine that gives addresses.

use std::sync::Mutex as StdMutex;

use super::*;
use crate::driver::allocator::Allocator;
use crate::driver::attach::{AttachOptions, Host};
use crate::driver::dns::parked::Parked;
use crate::driver::netlink::GsoLimits;
use crate::driver::netns::NetNs;
use crate::ipam::request::{Reply, Request as AddressRequest};

/// A machine for which the holder `docker:10.44.0.0` has that address, and that notes what is released.
struct Machine {
    shared: Arc<Shared>,
    released: Arc<StdMutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

impl Machine {
    /// To be called inside a runtime.
    fn start() -> Self {
        let (requests, mut asked) = mpsc::channel(8);
        let released = Arc::new(StdMutex::new(Vec::new()));
        let notes = Arc::clone(&released);
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                let Request::Addresses(what, reply) = request else {
                    continue;
                };
                if let AddressRequest::Release { holder, address } = &what {
                    notes.lock().unwrap().push(format!("{holder} {address}"));
                }
                let answer = if let AddressRequest::Lookup { holder, .. } = &what {
                    let address = holder.strip_prefix("docker:").unwrap().parse();
                    Reply::Addresses(address.map(IpAddr::into).into_iter().collect())
                } else {
                    Reply::Done
                };
                let _ = reply.send(Ok(answer));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let options = AttachOptions {
            mtu: 1376,
            multicast_route: true,
            hairpin: true,
            gso: GsoLimits::default(),
            dns: None,
        };
        let attacher = HostAttacher::new(
            Host::new(NetNs::current().unwrap(), "weft", [2; 6]),
            Docker::new(Some("unix:///nowhere/docker.sock")).unwrap(),
            options,
            Err(Parked::below(dir.path())),
            Allocator::new(Some(requests.clone())),
            None,
        );
        let shared = Arc::new(Shared {
            networks: Arc::new(Networks::load(dir.path())),
            attacher,
            requests,
            places: Places::default(),
            given: Mutex::default(),
            config: PluginConfig {
                dir: dir.path().to_owned(),
                data_dir: dir.path().to_owned(),
                default_subnet: None,
                range: None,
            },
        });
        Self {
            shared,
            released,
            _dir: dir,
        }
    }

    async fn release(&self, pool: &str, address: &str) -> Vec<String> {
        let call = Call::ReleaseAddress {
            pool: pool.parse().unwrap(),
            address: address.parse().unwrap(),
        };
        assert_eq!(self.shared.carry_out(call).await, Ok(json!({})));
        self.released.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_network_that_goes_takes_no_containers_address_for_its_gateway() {
    let machine = Machine::start();
    let address: IpAddr = "10.44.0.0".parse().unwrap();
    let holder = format!("docker:{address}");
    machine.shared.given().insert(address, holder);

    let small = "weft_10.44.0.0/16_10.44.0.0/16";
    assert_eq!(machine.release(small, "10.44.0.0").await, [""; 0]);
    let large = "weft_10.32.0.0/12_10.32.0.0/12";
    assert_eq!(
        machine.release(large, "10.44.0.0").await,
        ["docker:10.44.0.0 10.44.0.0"]
    );
    assert!(machine.shared.given().is_empty());
}

#[tokio::test]
async fn what_stands_for_a_network_is_given_to_nobody() {
    let machine = Machine::start();
    let pool: Pool = "weft_10.45.7.0/29_10.45.7.0/29".parse().unwrap();
    for (address, why) in [("10.45.7.0", "network itself"), ("10.45.7.7", "broadcast")] {
        let asked = machine.shared.request_address(pool, address.parse().ok());
        let refused = asked.await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn who_has_an_address_no_more_makes_room() {
    let machine = Machine::start();
    let fill = |holder: &dyn Fn(IpAddr) -> String| {
        let addresses = (0..).map(|number: u32| IpAddr::from(Ipv4Addr::from(0x0a20_0000 + number)));
        for address in addresses.take(GIVEN_MAX) {
            machine.shared.given().insert(address, holder(address));
        }
    };
    fill(&|address| format!("docker:{address}"));
    let full = machine.shared.make_room().await.unwrap_err();
    assert!(full.to_string().contains("gets no more"), "{full}");
    assert_eq!(machine.shared.given().len(), GIVEN_MAX);

    fill(&|_| "docker:10.32.0.9".to_owned());
    assert_eq!(machine.shared.make_room().await, Ok(()));
    let left: Vec<IpAddr> = machine.shared.given().keys().copied().collect();
    assert_eq!(left, ["10.32.0.9".parse::<IpAddr>().unwrap()]);
}
