//! The store of a data directory: whole, damaged, refused by its disk.

use super::*;

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
        assert_eq!(store.targets().unwrap(), Vec::<String>::new());
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
    assert_eq!(store.targets().unwrap(), targets);
    store.set_targets(&targets[..1]).unwrap();
    assert_eq!(store.targets().unwrap(), targets[..1]);
}

#[test]
fn a_write_that_failed_is_told_until_another_has_worked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.set_targets(&["a".to_owned()]).unwrap();
    assert_eq!(store.trouble(), None);

    let full = || redb::Error::Io(io::Error::from_raw_os_error(libc::ENOSPC));
    let failed = store.write(|_| Err::<(), _>(full()));

    assert!(failed.is_err());
    let told = store.trouble().unwrap();
    assert!(told.contains("No space left on device"), "{told}");
    // The database is open anew by then, with what it had.
    store.raise_incarnation(4).unwrap();
    assert_eq!(store.trouble(), None);
    assert_eq!(store.targets().unwrap(), ["a"]);
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
fn a_damaged_store_is_an_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(STORE_FILE), [7; 5000]).unwrap();

    let error = Store::open(dir.path()).unwrap_err();

    assert!(matches!(error, ControlError::OpenStore { .. }), "{error}");
    assert_eq!(fs::read(dir.path().join(STORE_FILE)).unwrap(), [7; 5000]);
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
