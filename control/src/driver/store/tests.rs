//! The store of a data directory: whole, damaged, refused by its disk.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use super::faulty::{Call, Disk, Fault};
use super::*;
use crate::ipam::lost_store;
use crate::random::Randomness;

#[test]
fn an_identity_is_made_once_and_kept_private() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");

    let first = load_identity(&data).unwrap();
    let again = load_identity(&data).unwrap();

    assert_eq!(first.peer_id(), again.peer_id());
    let mode = fs::metadata(data.join(IDENTITY_FILE))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::metadata(&data).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn an_identity_that_others_could_read_is_theirs_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let before = load_identity(dir.path()).unwrap();
    let path = dir.path().join(IDENTITY_FILE);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();

    let after = load_identity(dir.path()).unwrap();

    assert_eq!(after.peer_id(), before.peer_id());
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_damaged_identity_is_named_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(IDENTITY_FILE), b"short").unwrap();

    let error = load_identity(dir.path()).unwrap_err().to_string();

    assert!(
        error.contains("identity.key is damaged (5 bytes, a key has 64)"),
        "{error}"
    );
    assert_eq!(fs::read(dir.path().join(IDENTITY_FILE)).unwrap(), b"short");
}

#[test]
fn incarnations_rise_and_targets_stay() {
    let dir = tempfile::tempdir().unwrap();
    let targets = ["b".to_owned(), "a:1".to_owned(), "[::1]".to_owned()];
    {
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.next_incarnation().unwrap(), 1);
        assert_eq!(store.targets(), Vec::<String>::new());
        store.set_targets(&targets).unwrap();
        assert!(matches!(
            Store::open(dir.path()).unwrap_err(),
            ControlError::StoreInUse { .. }
        ));
    }
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.next_incarnation().unwrap(), 2);
    store.raise_incarnation(7).unwrap();
    store.raise_incarnation(5).unwrap();
    assert_eq!(store.next_incarnation().unwrap(), 8);
    assert_eq!(store.targets(), targets);
    store.set_targets(&targets[..1]).unwrap();
    assert_eq!(store.targets(), targets[..1]);
}

#[test]
fn a_write_that_failed_is_told_until_another_has_worked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.set_targets(&["a".to_owned()]).unwrap();
    assert_eq!(store.notes(), Vec::<String>::new());

    let full = || redb::Error::Io(io::Error::from_raw_os_error(libc::ENOSPC));
    let failed = store.write(|_| Err::<(), _>(full()));

    assert!(failed.is_err());
    assert_eq!(
        store.trouble().unwrap(),
        "No space left on device (os error 28)"
    );
    let told = store.notes().concat();
    assert!(told.contains("No space left on device"), "{told}");
    // The database is open anew by then, with what it had.
    store.raise_incarnation(4).unwrap();
    assert_eq!(store.trouble(), None);
    assert_eq!(store.targets(), ["a"]);
    assert_eq!(store.next_incarnation().unwrap(), 5);
}

#[test]
fn a_newer_store_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store
        .write(|transaction| {
            transaction.open_table(META)?.insert("schema", 7)?;
            Ok(())
        })
        .unwrap();
    drop(store);

    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("has schema 7, this weft knows up to 1; use a newer weft"),
        "{error}"
    );
}

#[test]
fn a_damaged_store_is_set_aside_and_the_new_one_says_so() {
    let dir = tempfile::tempdir().unwrap();
    load_identity(dir.path()).unwrap();
    let file = dir.path().join(STORE_FILE);
    for number in 1..=2 {
        fs::write(&file, [7; 5000]).unwrap();

        let store = Store::open(dir.path()).unwrap();

        assert_eq!(store.ipam().unwrap(), lost_store());
        let aside = dir.path().join(format!("{STORE_FILE}.damaged-{number}"));
        assert_eq!(fs::read(&aside).unwrap(), [7; 5000]);
        let told = store.notes().concat();
        assert!(told.contains(&*aside.to_string_lossy()), "{told}");
        assert!(told.contains("given by hand (dns-add) are lost"), "{told}");
        // Above every start that was counted.
        assert!(store.next_incarnation().unwrap() > 1_700_000_000);
    }
    assert_eq!(
        Store::open(dir.path()).unwrap().notes(),
        Vec::<String>::new()
    );
}

#[test]
fn a_store_that_is_gone_is_a_lost_one_and_a_first_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        Store::open(dir.path()).unwrap().ipam().unwrap(),
        StoreContent::new()
    );
    load_identity(dir.path()).unwrap();
    fs::remove_file(dir.path().join(STORE_FILE)).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.ipam().unwrap(), lost_store());
    let told = store.notes().concat();
    assert!(
        told.starts_with("the store was gone: there was no "),
        "{told}"
    );
    assert!(!told.contains("damaged"), "no such file: {told}");
}

/// Wherever a byte is turned the store opens: with what it held, or set aside.
#[test]
fn a_turned_byte_is_found_or_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let content: StoreContent = (0_u8..40)
        .map(|n| (vec![b'a', n], vec![4, 10, 32, 0, n, 12]))
        .map(|(key, value)| ([key, vec![b'x']].concat(), value))
        .collect();
    let store = Store::open(dir.path()).unwrap();
    let all: Vec<_> = content.clone().into_iter().collect();
    let changes: Vec<_> = all.into_iter().map(|(k, v)| (k, Some(v))).collect();
    store.write_ipam(&changes).unwrap();
    drop(store);
    load_identity(dir.path()).unwrap();
    let file = dir.path().join(STORE_FILE);
    let whole = fs::read(&file).unwrap();
    let mut random = Randomness::seeded(5);
    let (mut found, mut harmless) = (0, 0);
    // Half of them in the first 64 KiB, where what is used lies.
    for turn in 0..60 {
        let span = if turn % 2 == 0 { whole.len() } else { 65_536 };
        let at = usize::try_from(random.u64() % span as u64).unwrap();
        let mut turned = whole.clone();
        turned[at] ^= 1 << (random.u64() % 8);
        fs::write(&file, &turned).unwrap();

        let held = Store::open(dir.path()).unwrap().ipam().unwrap();

        if held == content {
            harmless += 1;
        } else {
            assert_eq!(held, lost_store(), "byte {at}");
            found += 1;
        }
    }
    assert!(found > 0 && harmless > 0, "{found} found, {harmless} not");
}

/// The disk fails anywhere, for a while: a write that was answered for is there, one that failed is there or not, and
/// the store works again once the disk does.
#[test]
fn a_disk_that_fails_anywhere_costs_no_write_that_was_done() {
    let mut random = Randomness::seeded(3);
    let mut failures = 0;
    for (round, errno) in
        (0..120_u64).zip([libc::EIO, libc::ENOSPC, libc::EROFS].into_iter().cycle())
    {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let store = Store::open_with(dir.path(), disk.opener()).unwrap();
        let calls = [Call::Read, Call::Write, Call::Sync, Call::Space];
        disk.fail(Some(Fault {
            call: calls[usize::try_from(random.u64() % 4).unwrap()],
            after: random.u64() % 40,
            times: 1 + random.u64() % 5,
            errno,
        }));
        let mut known = StoreContent::new();
        for step in 0..12_u8 {
            let value = vec![b'x'; usize::try_from(random.u64() % 9000).unwrap()];
            let key = vec![b'z', step % 5];
            let mut next = known.clone();
            next.insert(key.clone(), value.clone());
            if store.write_ipam(&[(key, Some(value))]).is_ok() {
                known = next;
                continue;
            }
            failures += 1;
            assert!(store.trouble().is_some());
            // Each attempt uses up some of the failures.
            let recovered = (0..20).any(|_| store.recover().is_ok());
            assert!(recovered, "round {round}: {:?}", store.trouble());
            disk.fail(None);
            let found = store.ipam().unwrap();
            assert!(found == known || found == next, "round {round}");
            known = found;
        }
        assert_eq!(store.ipam().unwrap(), known, "round {round}");
        assert_eq!(store.notes(), Vec::<String>::new(), "round {round}");
        drop(store);
        assert_eq!(
            Store::open(dir.path()).unwrap().ipam().unwrap(),
            known,
            "round {round}"
        );
    }
    assert!(failures > 60, "{failures}");
}

/// The file is damaged while the daemon runs, and its database has to be opened again.
#[test]
fn a_store_damaged_while_it_is_used_begins_with_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let store = Store::open_with(dir.path(), disk.opener()).unwrap();
    load_identity(dir.path()).unwrap();
    store.next_incarnation().unwrap();
    store.set_targets(&["a".to_owned()]).unwrap();
    store.set_names([b"name".as_slice()]).unwrap();
    let (call, after, times, errno) = (Call::Sync, 0, 1, libc::EIO);
    disk.fail(Some(Fault {
        call,
        after,
        times,
        errno,
    }));
    store.set_targets(&["b".to_owned()]).unwrap_err();
    assert_eq!(disk.failed(), 1);
    fs::write(dir.path().join(STORE_FILE), [7; 5000]).unwrap();

    store.recover().unwrap();

    assert_eq!(store.ipam().unwrap(), lost_store());
    assert_eq!(store.targets(), ["a"]);
    assert_eq!(store.names(), [b"name"]);
    let told = store.notes().concat();
    assert!(
        told.contains(".damaged-1") && !told.contains("by hand"),
        "{told}"
    );
}

/// The disk takes no writes when the host starts: it goes on with what it has, and writes what it owes later.
#[test]
fn a_start_on_a_disk_that_takes_no_writes_is_owed() {
    for errno in [libc::EROFS, libc::ENOSPC] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        load_identity(dir.path()).unwrap();
        store.set_targets(&["a".to_owned()]).unwrap();
        store.set_names([b"name".as_slice()]).unwrap();
        let held = (b"ax".to_vec(), vec![4, 10, 32, 0, 1, 12]);
        let change = (held.0.clone(), Some(held.1.clone()));
        store.write_ipam(&[change]).unwrap();
        drop(store);
        let disk = Disk::default();
        disk.fail(Some(Fault {
            call: Call::Write,
            after: 0,
            times: u64::MAX,
            errno,
        }));

        let store = Store::open_with(dir.path(), disk.opener()).unwrap();
        assert_eq!(store.ipam().unwrap(), StoreContent::from([held]));
        assert_eq!(
            (store.targets(), store.names()),
            (vec!["a".to_owned()], vec![b"name".to_vec()])
        );
        assert!(store.next_incarnation().unwrap_err().is_of_disk());
        let counted = store.owe_start(&["b".to_owned()]);
        // Above every start that can have been counted.
        assert!(counted > 1_700_000_000, "{counted}");
        assert!(store.recover().is_err());
        let told = store.notes().concat();
        assert!(
            told.contains("gives no addresses and does not vote"),
            "{told}"
        );

        disk.fail(None);
        store.recover().unwrap();
        assert_eq!(store.notes(), Vec::<String>::new());
        assert_eq!(store.next_incarnation().unwrap(), counted + 1);
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.targets(), ["b"]);
        assert_eq!(store.next_incarnation().unwrap(), counted + 2);
    }
}

#[test]
fn reset_removes_both_and_may_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let before = load_identity(dir.path()).unwrap().peer_id();
    drop(Store::open(dir.path()).unwrap());

    remove(dir.path()).unwrap();
    remove(dir.path()).unwrap();

    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_ne!(load_identity(dir.path()).unwrap().peer_id(), before);
}
