//! What IPAM keeps in the store: keys and values as it wants them, each of its steps one transaction.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};

use super::Store;
use crate::error::ControlError;
use crate::ipam::{StoreChange, StoreContent};

pub(super) const ADDRESSES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("ipam");

impl Store {
    /// All that IPAM has written.
    ///
    /// # Errors
    /// [`ControlError::OpenStore`] if it cannot be read.
    pub fn ipam(&self) -> Result<StoreContent, ControlError> {
        self.read(read_ipam)
    }

    /// Writes steps of IPAM, one after the other, in one transaction; they are on disk before this returns.
    ///
    /// # Errors
    /// [`ControlError::WriteStore`]; then none of them is there.
    pub fn write_ipam(&self, changes: &[StoreChange]) -> Result<(), ControlError> {
        self.write(|transaction| write_ipam(transaction, changes))
    }
}

pub(super) fn read_ipam(database: &Database) -> Result<StoreContent, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(ADDRESSES) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(StoreContent::new()),
        Err(error) => return Err(error.into()),
    };
    let entries = table.iter()?;
    entries
        .map(|entry| {
            let (key, value) = entry?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        })
        .collect()
}

pub(super) fn write_ipam(
    transaction: &redb::WriteTransaction,
    changes: &[StoreChange],
) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(ADDRESSES)?;
    for (key, value) in changes {
        match value {
            Some(value) => table.insert(key.as_slice(), value.as_slice())?,
            None => table.remove(key.as_slice())?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::ipam::request::{IpamRequestId, Reply, Request};
    use crate::ipam::{Ipam, IpamConfig, IpamInit, IpamInput, IpamOutput};
    use crate::peer::PeerId;
    use crate::random::Randomness;

    #[expect(clippy::disallowed_methods, reason = "it measures this machine's disk")]
    fn now() -> Instant {
        Instant::now()
    }

    /// Asks, writes what is to be written, and returns the addresses and the time until the answer.
    fn ask(ipam: &mut Ipam, store: &Store, number: u64, what: Request) -> (Reply, Duration) {
        let (began, request) = (now(), IpamRequestId(number));
        let deadline = None;
        let mut inputs = vec![IpamInput::Request {
            request,
            what,
            deadline,
        }];
        while let Some(input) = inputs.pop() {
            ipam.handle(input, now());
            while let Some(output) = ipam.poll_output() {
                match output {
                    IpamOutput::Persist { token, changes } => {
                        store.write_ipam(&changes).unwrap();
                        let durable = true;
                        inputs.push(IpamInput::Persisted { token, durable });
                    }
                    IpamOutput::Answer { result, .. } => {
                        return (result.unwrap(), began.elapsed());
                    }
                    IpamOutput::Publish { .. }
                    | IpamOutput::Send { .. }
                    | IpamOutput::Reload
                    | IpamOutput::Flow { .. }
                    | IpamOutput::Blocked(_)
                    | IpamOutput::Notice(_) => {}
                }
            }
            if inputs.is_empty() {
                inputs.push(IpamInput::Tick);
            }
        }
        unreachable!("a tick follows whatever comes of the last one");
    }

    #[test]
    #[ignore = "measures the disk: .ci/long runs it"]
    #[expect(clippy::print_stdout, reason = "the record of a measurement")]
    fn an_address_is_given_and_on_disk_within_five_milliseconds() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let me = PeerId([7; 16]);
        let range = "10.32.0.0/12".parse().unwrap();
        let init = IpamInit::Consensus { electors: Some(1) };
        let config = IpamConfig::new(me, me.name(), range, init);
        let random = Randomness::seeded(1);
        let mut ipam = Ipam::new(config, StoreContent::new(), random, now()).unwrap();
        ask(&mut ipam, &store, 0, Request::Prime);
        let mut took: Vec<Duration> = (1..=1000)
            .map(|number| {
                let holder = format!("c{number}");
                let subnet = None;
                ask(
                    &mut ipam,
                    &store,
                    number,
                    Request::Allocate { holder, subnet },
                )
                .1
            })
            .collect();
        took.sort_unstable();
        println!(
            "allocation with its write: median {:?}, 99 % {:?}",
            took[500], took[990]
        );
        let ms = |took: Duration| took.as_secs_f64() * 1000.0;
        let figures = serde_json::json!({
            "allocations": took.len(),
            "median_ms": ms(took[500]),
            "p99_ms": ms(took[990]),
            "limit_ms": 5,
        });
        crate::measured::keep("ipam-disk", &figures);
        assert!(took[990] <= Duration::from_millis(5));
    }

    #[test]
    fn steps_are_there_after_the_store_was_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = Store::open(dir.path()).unwrap();
            assert!(store.ipam().unwrap().is_empty());
            let put = |key: &[u8], value: &[u8]| (key.to_vec(), Some(value.to_vec()));
            store
                .write_ipam(&[put(b"z1", b"x"), put(b"z2", b"y")])
                .unwrap();
            store
                .write_ipam(&[put(b"z1", b"z"), (b"z2".to_vec(), None)])
                .unwrap();
        }
        let content = Store::open(dir.path()).unwrap().ipam().unwrap();
        assert_eq!(
            content,
            StoreContent::from([(b"z1".to_vec(), b"z".to_vec())])
        );
    }
}
