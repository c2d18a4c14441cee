//! The store under a running network, on the built binary: its disk is full or read-only, its file is damaged.
//!
//! ```text
//!  c ── weft a ══ weft b ── d      a's store on a small disk of its own
//! ```

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weft_netns_tests::{Host, Outcome, Ping, Weft, in_lab, within};

/// To be connected and to agree, on a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// A disk that is mended is used within some seconds.
const MENDED_LIMIT: Duration = Duration::from_secs(20);
/// What an allocation may take that cannot be written.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
/// Allocations until the store needs more space than its file has.
const FILLING_MAX: usize = 200;

fn launch(weft: &Weft, peers: &[&str]) {
    weft.ok(&[&["launch", "--password", "secret"], peers].concat());
}

fn attach(weft: &Weft, container: &Host) -> Outcome {
    weft.run(&["attach", &container.as_container()])
}

fn attached(weft: &Weft, container: &Host) -> String {
    let named = container.as_container();
    weft.ok(&["attach", &named]).trim().to_owned()
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let status = Command::new("mount").args(arguments).arg(at).status();
    status.expect("mount can be started").success()
}

/// Takes all the space that is left.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("a new file");
    for size in [65_536, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

/// Changes what is stored until that fails.
fn first_refusal(weft: &Weft, container: &Host) -> Outcome {
    for _ in 0..FILLING_MAX {
        let outcome = attach(weft, container);
        if outcome.code != 0 {
            return outcome;
        }
        let _ = weft.run(&["detach", &container.as_container()]);
    }
    panic!("the disk is full and everything is written");
}

fn assert_refused(outcome: &Outcome, why: &str) {
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains(why), "{outcome:?}");
    assert!(outcome.took <= REFUSAL_LIMIT, "{outcome:?}");
}

#[test]
fn a_disk_that_is_full_or_read_only_refuses_addresses_at_once_and_is_got_over() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        fs::create_dir_all(a.data_dir()).expect("the lab's folder is writable");
        assert!(mount(
            &["-t", "tmpfs", "-o", "size=4m", "none"],
            &a.data_dir()
        ));
        launch(&a, &[]);
        let (c, d, other) = (lab.host("c"), lab.host("d"), lab.host("e"));
        assert_eq!(attached(&a, &c), "10.32.0.1");
        // While the file still has room to grow into.
        let filler = a.data_dir().join("filler");
        fill(&filler);
        // One that asks for no space.
        launch(&b, &["--ipalloc-range", "", "192.0.2.1"]);
        b.ok(&["attach", "10.44.0.1/12", &d.as_container()]);
        let far = [10, 44, 0, 1].into();
        within("the containers to reach each other", CONNECT_LIMIT, || {
            c.reaches(far)
        });
        let pid = a.pid();
        let ping = Ping::start(&c, far, Duration::from_millis(20));

        let refused = first_refusal(&a, &other);
        assert_refused(&refused, "No space left on device");
        assert_refused(&attach(&a, &other), "No space left on device");

        // The file is closed between two attempts to use it.
        let data_dir = a.data_dir();
        within("a disk that nobody writes to", MENDED_LIMIT, || {
            mount(&["-o", "remount,ro"], &data_dir)
        });
        within("the other reason to be told", MENDED_LIMIT, || {
            let refused = attach(&a, &other);
            assert!(refused.took <= REFUSAL_LIMIT, "{refused:?}");
            refused.stderr.contains("Read-only file system")
        });
        let status = a.ok(&["status"]);
        assert!(status.contains("Read-only file system"), "{status}");

        let report = ping.finish();
        assert!(
            report.longest_silence < Duration::from_millis(500),
            "{report:?}"
        );

        assert_eq!(attached(&a, &c), "10.32.0.1", "it has it");
        let taken = a.run(&["detach", &c.as_container()]);
        assert_eq!(taken.code, 0, "{taken:?}");
        assert!(
            taken.stderr.contains("once the store takes writes"),
            "{taken:?}"
        );
        let named = a.run(&["dns-add", "192.0.2.80", "-h", "far"]);
        assert_refused(&named, "Read-only file system");

        assert!(mount(&["-o", "remount,rw"], &data_dir));
        fs::remove_file(&filler).expect("it is there");
        within("addresses to be given again", MENDED_LIMIT, || {
            attach(&a, &other).code == 0
        });
        assert_eq!(a.pid(), pid, "the daemon was never restarted");
        assert_eq!(attached(&a, &other), "10.32.0.1", "free since `detach`");
        assert_eq!(attached(&a, &c), "10.32.0.2");
        let status = a.ok(&["status"]);
        assert!(!status.contains("Read-only file system"), "{status}");
    });
}

/// Leaving the network never waits for a disk.
#[test]
fn an_exposed_host_hides_though_its_disk_is_read_only() {
    in_lab(|lab| {
        let [a, _] = lab.two_hosts().map(|host| lab.weft(&host));
        let data_dir = a.data_dir();
        fs::create_dir_all(&data_dir).expect("the lab's folder is writable");
        assert!(mount(&["-t", "tmpfs", "-o", "size=4m", "none"], &data_dir));
        launch(&a, &[]);
        a.ok(&["expose"]);
        let has = |address: &str| {
            a.host()
                .run(&["ip", "-o", "addr", "show", "weft"])
                .contains(address)
        };
        assert!(has("10.32.0.1/12"));
        // The file is closed between two attempts to use it.
        let (c, filler) = (lab.host("c"), data_dir.join("filler"));
        fill(&filler);
        assert_refused(&first_refusal(&a, &c), "No space left on device");
        within("a disk that nobody writes to", MENDED_LIMIT, || {
            mount(&["-o", "remount,ro"], &data_dir)
        });

        let hidden = a.run(&["hide"]);
        assert_eq!(hidden.code, 0, "{hidden:?}");
        assert!(hidden.took <= REFUSAL_LIMIT, "{hidden:?}");
        assert!(
            hidden.stderr.contains("once the store takes writes"),
            "{hidden:?}"
        );
        assert!(!has("10.32.0.1/12"));

        assert!(mount(&["-o", "remount,rw"], &data_dir));
        fs::remove_file(&filler).expect("it is there");
        within("the address to be free", MENDED_LIMIT, || {
            attach(&a, &c).code == 0
        });
        assert_eq!(attached(&a, &c), "10.32.0.1");
    });
}

/// Its disk may be read-only by the time a host starts again: what runs goes on, and nothing is given.
#[test]
fn a_host_that_cannot_write_starts_and_forwards() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        let data_dir = a.data_dir();
        fs::create_dir_all(&data_dir).expect("the lab's folder is writable");
        assert!(mount(
            &["-t", "tmpfs", "-o", "size=4m,ro", "none"],
            &data_dir
        ));
        let first = a.run(&["launch"]);
        let shown = data_dir.to_string_lossy().into_owned();
        for told in [&*shown, "--data-dir", "Read-only file system"] {
            assert_refused(&first, told);
        }
        assert!(mount(&["-o", "remount,rw"], &data_dir));
        launch(&a, &[]);
        let (c, d, other) = (lab.host("c"), lab.host("d"), lab.host("e"));
        assert_eq!(attached(&a, &c), "10.32.0.1");
        a.ok(&["dns-add", "192.0.2.80", "-h", "far"]);
        a.ok(&["stop"]);
        assert!(mount(&["-o", "remount,ro"], &data_dir));
        // The disk alone: a flag of the mount would stay with the daemon's own copy of it.
        assert!(mount(&["-o", "remount,bind,rw"], &data_dir));
        launch(&b, &["--ipalloc-range", ""]);
        b.ok(&["attach", "10.44.0.1/12", &d.as_container()]);

        launch(&a, &["192.0.2.2"]);

        let status = a.ok(&["status"]);
        for told in [
            "Read-only file system",
            "gives no addresses and does not vote",
        ] {
            assert!(status.contains(told), "{status}");
        }
        assert_refused(&attach(&a, &other), "Read-only file system");
        assert_eq!(attached(&a, &c), "10.32.0.1", "it has it");
        assert_eq!(a.ok(&["dns-lookup", "far"]).trim(), "192.0.2.80");
        within("the containers to reach each other", CONNECT_LIMIT, || {
            c.reaches([10, 44, 0, 1].into())
        });

        assert!(mount(&["-o", "remount,rw"], &data_dir));
        within("addresses to be given again", MENDED_LIMIT, || {
            attach(&a, &other).code == 0
        });
        let status = a.ok(&["status"]);
        assert!(!status.contains("Read-only file system"), "{status}");
        a.ok(&["stop"]);
        launch(&a, &[]);
        let targets = a.ok(&["status", "targets"]);
        assert!(targets.contains("192.0.2.2"), "{targets}");
    });
}

#[test]
fn a_damaged_store_is_set_aside_and_nothing_is_given_before_peers_have_said() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        let [c, d] = [lab.host("c"), lab.host("d")];
        launch(&a, &[]);
        assert_eq!(attached(&a, &c), "10.32.0.1");
        launch(&b, &["192.0.2.1"]);
        assert_eq!(attached(&b, &d), "10.44.0.0");
        a.ok(&["stop"]);
        a.host().run(&["ip", "link", "set", "eth0", "down"]);
        let store = a.data_dir().join("store.redb");
        let mut content = fs::read(&store).expect("the store");
        content[..4096].fill(0xa5);
        fs::write(&store, content).expect("it is writable");

        launch(&a, &["192.0.2.2"]);
        let aside = a.data_dir().join("store.redb.damaged-1");
        assert!(aside.exists(), "{}", a.log());
        let named = aside.to_string_lossy().into_owned();
        let status = a.ok(&["status"]);
        assert!(status.contains(&named), "{status}");
        assert!(a.log().contains(&named), "{}", a.log());
        let other = lab.host("e");
        let refused = attach(&a, &other);
        assert_eq!(refused.code, 1, "{refused:?}");
        let told = "the store was lost: nothing is given before peers have said";
        assert!(refused.stderr.contains(told), "{refused:?}");
        assert_eq!(attached(&a, &c), "10.32.0.1", "what runs keeps its address");

        a.host().run(&["ip", "link", "set", "eth0", "up"]);
        within("the peer to tell what it knows", CONNECT_LIMIT, || {
            attach(&a, &other).stdout.trim() == "10.32.0.2"
        });
        within("the containers to reach each other", CONNECT_LIMIT, || {
            d.reaches([10, 32, 0, 1].into()) && d.reaches([10, 32, 0, 2].into())
        });
        assert_eq!(attached(&b, &lab.host("f")), "10.44.0.1");
        a.ok(&["reset"]);
        let left: Vec<_> = fs::read_dir(a.data_dir()).expect("the folder").collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_check_tells_what_does_not_fit_and_what_to_do() {
    in_lab(|lab| {
        let host = lab.host("a");
        let weft = lab.weft(&host);
        launch(&weft, &[]);
        let c = lab.host("c");
        assert_eq!(attached(&weft, &c), "10.32.0.1");
        assert_eq!(weft.ok(&["ipam", "check"]), "");

        weft.ok(&["stop"]);
        assert_eq!(weft.ok(&["ipam", "check"]), "", "the store says the same");
        c.run(&["ip", "addr", "add", "10.32.0.9/12", "dev", "ethwe"]);
        c.run(&["ip", "addr", "del", "10.32.0.1/12", "dev", "ethwe"]);
        let found = weft.run(&["ipam", "check"]);
        assert_eq!(found.code, 1, "{found:?}");
        assert_eq!(found.stdout.lines().count(), 2, "{found:?}");
        assert!(
            found
                .stdout
                .contains("10.32.0.9 is on c and noted for nobody: "),
            "{found:?}"
        );
        let missing = "10.32.0.1 is noted for c, which does not have it: ";
        assert!(found.stdout.contains(missing), "{found:?}");

        launch(&weft, &[]);
        within("what is there to be noted", CONNECT_LIMIT, || {
            let found = weft.run(&["ipam", "check"]);
            found.stdout.lines().all(|line| line.starts_with(missing))
        });
        assert_eq!(weft.run(&["ipam", "check"]).code, 1);
        c.run(&["ip", "addr", "add", "10.32.0.1/12", "dev", "ethwe"]);
        within("all to fit", CONNECT_LIMIT, || {
            weft.run(&["ipam", "check"]).code == 0
        });
    });
}

#[test]
fn a_launch_with_another_range_forgets_nothing_of_the_one_before() {
    in_lab(|lab| {
        let [a, b] = lab.two_hosts().map(|host| lab.weft(&host));
        let [c, d, e, f] = ["c", "d", "e", "f"].map(|name| lab.host(name));
        let secret = ["launch", "--password", "secret"];
        launch(&a, &[]);
        assert_eq!(attached(&a, &c), "10.32.0.1");
        launch(&b, &["192.0.2.1"]);
        assert_eq!(attached(&b, &d), "10.44.0.0");
        a.ok(&["stop"]);

        let other = a.run(&[&secret[..], &["--ipalloc-range", "10.2.0.0/16"]].concat());
        assert_eq!(other.code, 0, "{other:?}");
        let told = "launched with --ipalloc-range 10.32.0.0/12 before";
        assert!(other.stderr.contains(told), "{other:?}");
        assert!(a.ok(&["status"]).contains(told));
        assert_eq!(attached(&a, &e), "10.2.0.1");
        a.ok(&["stop"]);
        // Mistyped, and nobody asked for an address there: it has no ring to know it by.
        a.ok(&[&secret[..], &["--ipalloc-range", "10.3.0.0/16"]].concat());
        a.ok(&["stop"]);

        let back = a.run(&secret);
        assert!(
            back.stderr.contains("--ipalloc-range 10.3.0.0/16 before"),
            "{back:?}"
        );
        assert_eq!(attached(&a, &f), "10.32.0.2");
        within("the containers to reach each other", CONNECT_LIMIT, || {
            d.reaches([10, 32, 0, 1].into()) && d.reaches([10, 32, 0, 2].into())
        });
        a.ok(&["stop"]);
        let again = a.run(&secret);
        assert_eq!(again.code, 0, "{again:?}");
        assert!(!again.stderr.contains("--ipalloc-range"), "{again:?}");
    });
}
