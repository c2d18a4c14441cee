//! What hostile clients and bad upstreams do to the DNS server: it answers others in time, and does not grow.
//!
//! ```text
//!  c1 ─ bridge `weft` of a, 169.254.53.1 ─ DNS ─ eth0 192.0.2.1 ══ 192.0.2.2 … eth0 ─ b: upstreams
//! ```

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use weft_netns_tests::{Host, Lab, Weft, in_lab, is_long, now, pause, within};

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 53, 1), 53);
/// For what is there at once on an idle machine.
const SOON: Duration = Duration::from_secs(10);
/// Resolvers ask again after five seconds.
const ANSWER_LIMIT: Duration = Duration::from_millis(4900);
/// An answer of our own, on a busy machine.
const OWN_LIMIT: Duration = Duration::from_millis(1000);
/// A resolver gives up later.
const OWN_TRIES: u16 = 4;
/// What a daemon may keep of a hundred thousand datagrams: allocators round up.
const GROWTH_MAX_KIB: u64 = 4096;
/// Of what is changed in questions.
const SEED: u64 = 20_261_125;
/// Between two questions that are sure to be good.
const WAVE: usize = 200;

fn host(lab: &Lab, flags: &[&str]) -> (Weft, Host, Host) {
    let hosts = lab.two_hosts();
    let weft = lab.weft(&hosts[0]);
    weft.ok(&[&["launch", "--password", "secret"], flags].concat());
    let container = lab.host("c1");
    weft.ok(&["attach", "10.2.1.1/24", &container.as_container()]);
    let [_, other] = hosts;
    (weft, other, container)
}

fn dig(from: &Host, words: &[&str]) -> String {
    let output = from.output(&[&["dig", "+tries=1", "+time=6", "@169.254.53.1"], words].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A plain question with EDNS.
fn question(name: &str, id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01");
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a short label"));
        bytes.extend(label.as_bytes());
    }
    bytes.extend(b"\0\x00\x01\x00\x01");
    bytes.extend(b"\0\x00\x29\x04\xd0\0\0\0\0\0\0");
    bytes
}

/// Malformed in every way that has broken a server somewhere.
fn crooked() -> Vec<Vec<u8>> {
    let good = question("c1.weave.local", 7);
    let head = |rest: &[u8]| [&good[..12], rest].concat();
    let tail = b"\x00\x01\x00\x01";
    let mut all: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    let mut counts = good.clone();
    counts[4..12].fill(0xff);
    all.push(counts);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    all.push(answer);
    for operation in [1, 2, 4, 5, 6, 15] {
        let mut other = good.clone();
        other[2] = operation << 3;
        all.push(other);
    }
    // Names that point at themselves, past the end, at each other; labels of no kind; no end; too long.
    all.push(head(&[b"\xc0\x0c", &tail[..]].concat()));
    all.push(head(&[b"\xff\xff", &tail[..]].concat()));
    all.push(head(&[b"\xc0\x0e\xc0\x0c", &tail[..]].concat()));
    all.push(head(&[b"\x40abc\0", &tail[..]].concat()));
    all.push(head(&[b"\x80abc\0", &tail[..]].concat()));
    all.push(head(&[63; 63]));
    all.push(head(&[&[1; 600], &b"\0"[..], &tail[..]].concat()));
    // Two questions; classes and types that nobody has; OPT twice, with a lie about its length; a lot behind it.
    let mut two = good.clone();
    two[5] = 2;
    all.push(two);
    all.push(head(b"\x02c1\x05weave\x05local\0\xff\xff\xff\xff"));
    let mut options = good.clone();
    options[11] = 2;
    options.extend(b"\0\x00\x29\xff\xff\0\0\0\0\xff\xff");
    all.push(options);
    all.push([&good[..], &[0xaa; 1400]].concat());
    all.push(vec![0; 1400]);
    all.push(vec![0xff; 4000]);
    all
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    /// A good question with a few bytes changed, and perhaps its end cut off.
    fn mutate(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            bytes[at] = u8::try_from(self.below(256)).expect("a byte");
        }
        if self.below(4) == 0 {
            bytes.truncate(self.below(bytes.len() + 1));
        }
        bytes
    }
}

/// Sends these, and now and then a good question that must be answered: nothing piles up unread.
fn replay(from: &Host, datagrams: &[Vec<u8>]) {
    from.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("any port will do");
        socket.connect(SERVER).expect("the server has a route");
        let tries = Some(Duration::from_millis(200));
        socket.set_read_timeout(tries).expect("a timeout above 0");
        for (wave, datagrams) in datagrams.chunks(WAVE).enumerate() {
            for datagram in datagrams {
                // Refused by our own kernel at the worst.
                let _ = socket.send(datagram);
            }
            let id = 0x8000 | u16::try_from(wave % 0x8000).expect("15 bits");
            let good = question("c1.weave.local", id);
            within("an answer after garbage", SOON, || {
                let _ = socket.send(&good);
                let mut buffer = [0; 4096];
                while let Ok(len) = socket.recv(&mut buffer) {
                    if len > 12 && buffer[..2] == id.to_be_bytes() {
                        return buffer[3] & 0x0f == 0;
                    }
                }
                false
            });
        }
    });
}

#[test]
fn garbage_is_counted_and_leaves_nothing_behind() {
    in_lab(|lab| {
        let (weft, _other, c1) = host(lab, &[]);
        let mut random = Random(SEED);
        let good = question("c1.weave.local", 7);
        let count = if is_long() { 1_000_000 } else { 50_000 };
        let mut mutants =
            |count: usize| -> Vec<Vec<u8>> { (0..count).map(|_| random.mutate(&good)).collect() };

        for datagram in crooked() {
            replay(&c1, &[datagram]);
        }
        // Refusals are at the client's rate, too, so this takes seconds, with as many questions for upstreams as there may
        // be: what allocators keep of the first of those is no growth.
        replay(&c1, &mutants(count));
        let before = weft.resident_kib();
        replay(&c1, &mutants(count));
        let grown = weft.resident_kib().saturating_sub(before);

        assert!(grown <= GROWTH_MAX_KIB, "grown by {grown} KiB");
        assert!(weft.count(&["dns_malformed"]) > 100);
        assert!(dig(&c1, &["c1.weave.local"]).contains("10.2.1.1"));
        assert!(dig(&c1, &["+tcp", "c1.weave.local"]).contains("10.2.1.1"));
    });
}

/// How long the answer to a question about `c1` took. Thousands of datagrams at once overflow any socket, and the
/// question may be one of those lost: it is asked again, as resolvers do, under another number.
fn own_answer_time() -> Duration {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("any port will do");
    socket.connect(SERVER).expect("the server has a route");
    socket
        .set_read_timeout(Some(OWN_LIMIT))
        .expect("a timeout above 0");
    let mut buffer = [0; 4096];
    for id in 1..=OWN_TRIES {
        let begin = now();
        // Refused by our own kernel at the worst.
        let _ = socket.send(&question("c1.weave.local", id));
        while let Ok(len) = socket.recv(&mut buffer) {
            let answer = &buffer[..len];
            if answer.starts_with(&id.to_be_bytes()) {
                assert!(answer.windows(4).any(|four| four == [10, 2, 1, 1]));
                return begin.elapsed();
            }
        }
    }
    panic!("no answer to {OWN_TRIES} questions");
}

#[test]
fn questions_for_a_dead_upstream_are_bounded_and_hold_up_nobody() {
    in_lab(|lab| {
        let flags = ["--dns-upstream", "192.0.2.77", "--dns-client-rate", "0"];
        let (weft, _other, c1) = host(lab, &flags);
        let flood = || {
            c1.inside(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("any port");
                for n in 0..5000_u16 {
                    let foreign = question(&format!("r{n}.example.org"), n);
                    let _ = socket.send_to(&foreign, SERVER);
                }
            });
        };
        let own = || c1.inside(own_answer_time);

        flood();
        let took = own();
        assert!(took < OWN_LIMIT, "{took:?}");
        within("questions that are too many", SOON, || {
            weft.count(&["dns_drop_over_forwards"]) > 0
        });
        // What waited is given up in time, and leaves nothing.
        within("the end of all waits", SOON, || {
            weft.count(&["dns_forward_failed"]) >= 1024
        });
        let before = weft.resident_kib();
        for _ in 0..3 {
            flood();
            let took = own();
            assert!(took < OWN_LIMIT, "{took:?}");
        }
        let grown = weft.resident_kib().saturating_sub(before);
        assert!(grown <= GROWTH_MAX_KIB, "grown by {grown} KiB");
    });
}

/// A connection to the server from one of the caller's addresses.
fn connected_from(address: Ipv4Addr) -> TcpStream {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    let [source, server] = [(address, 0), SERVER]
        .map(|(address, port)| SockaddrIn::from(SocketAddrV4::new(address, port)));
    bind(socket.as_raw_fd(), &source).expect("the address is there");
    connect(socket.as_raw_fd(), &server).expect("the server listens");
    TcpStream::from(socket)
}

/// A container with ten addresses keeps as many connections as it can get, and opens another for each that is lost.
#[test]
fn one_container_with_many_addresses_does_not_shut_out_others() {
    in_lab(|lab| {
        let (weft, _other, c1) = host(lab, &[]);
        let c2 = lab.host("c2");
        weft.ok(&["attach", "10.2.1.2/24", &c2.as_container()]);
        let addresses = (101..=110).map(|last| Ipv4Addr::new(10, 2, 1, last));
        let addresses = addresses.collect::<Vec<_>>();
        for address in &addresses {
            c2.add_address("ethwe", &format!("{address}/24"));
        }
        let connect = || -> Vec<TcpStream> {
            let sources = addresses.iter().cycle().take(160);
            c2.inside(|| sources.map(|source| connected_from(*source)).collect())
        };

        let held = connect();
        within("all connections are taken", SOON, || {
            weft.count(&["dns_connections"]) >= 128
        });
        for _ in 0..10 {
            let said = dig(&c1, &["+tcp", "c1.weave.local"]);
            assert!(said.contains("10.2.1.1"), "{said}");
        }
        // Nothing is left of those that made room.
        let is_over = |mut stream: &TcpStream| {
            let tick = Some(Duration::from_millis(1));
            stream.set_read_timeout(tick).expect("a timeout above 0");
            matches!(stream.read(&mut [0]), Ok(0))
        };
        within("connections are ended for others", SOON, || {
            held.iter().filter(|held| is_over(held)).count() >= 160 - 128
        });
        assert!(weft.count(&["dns_connections_evicted"]) > 0);
    });
}

/// What an upstream does with a question.
#[derive(Debug, Clone, Copy)]
enum Habit {
    /// Answers after a while.
    Slow(Duration),
    /// Answers under another number.
    Lies,
    /// Answers what it was not asked.
    Strays,
    Garbage,
}

/// Ends with its test.
struct Upstream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    fn start(on: &Host, address: &str, habit: Habit) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let address: Ipv4Addr = address.parse().expect("an address");
        let thread = on.spawn(move || {
            let socket = UdpSocket::bind((address, 53)).expect("the port is free");
            let tick = Some(Duration::from_millis(100));
            socket.set_read_timeout(tick).expect("a timeout above 0");
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    answer(&socket, &buffer[..len], from, habit);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, question: &[u8], to: SocketAddr, habit: Habit) {
    let name_len = question[12..].iter().position(|byte| *byte == 0);
    let end = 12 + name_len.expect("a name ends") + 5;
    let mut reply = question[..end].to_vec();
    reply[2] |= 0x80;
    reply[3] = 0x80;
    reply[7] = 1;
    reply[11] = 0;
    reply.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x63");
    match habit {
        Habit::Slow(delay) => pause(delay),
        Habit::Lies => reply[0] = !reply[0],
        // The first letter of the name.
        Habit::Strays => reply[13] ^= 1,
        Habit::Garbage => reply = vec![0xff; 40],
    }
    let _ = socket.send_to(&reply, to);
}

/// dnsmasq on the host itself that asks us what we ask it.
fn mirror(on: &Host) -> std::process::Child {
    let mut command = on.command("dnsmasq");
    command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts"]);
    command.args(["--bind-interfaces", "--conf-file=/dev/null", "--user=root"]);
    command.args(["--pid-file=", "--listen-address=127.0.0.5"]);
    command.arg("--server=169.254.53.1");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.expect("dnsmasq is installed")
}

#[test]
fn whatever_an_upstream_does_there_is_an_answer_in_time() {
    in_lab(|lab| {
        let file = lab.folder().join("resolv.conf");
        let path = file.to_string_lossy().into_owned();
        std::fs::write(&file, "").expect("the lab's folder is writable");
        let (weft, other, c1) = host(lab, &["--resolv-conf", &path]);
        let habits = [
            ("192.0.2.3", Habit::Slow(Duration::from_secs(1))),
            ("192.0.2.4", Habit::Slow(Duration::from_secs(6))),
            ("192.0.2.5", Habit::Lies),
            ("192.0.2.6", Habit::Garbage),
            ("192.0.2.7", Habit::Strays),
        ];
        let running: Vec<Upstream> = habits
            .iter()
            .map(|(address, habit)| {
                other.add_address("eth0", &format!("{address}/24"));
                Upstream::start(&other, address, *habit)
            })
            .collect();
        let mut mirror = mirror(weft.host());

        for (upstream, answer) in [
            ("192.0.2.3", "192.0.2.99"),
            ("192.0.2.4", "SERVFAIL"),
            ("192.0.2.5", "SERVFAIL"),
            ("192.0.2.6", "SERVFAIL"),
            ("192.0.2.7", "SERVFAIL"),
            ("192.0.2.77", "SERVFAIL"),
            ("127.0.0.5", "SERVFAIL"),
        ] {
            std::fs::write(&file, format!("nameserver {upstream}\n")).expect("it was writable");
            within("the new upstream", SOON, || {
                weft.ok(&["status"])
                    .contains(&format!("Upstream: {upstream}:53\n"))
            });
            let name = format!("www.{}.example.org", upstream.replace('.', "-"));
            thread::scope(|scope| {
                let asking = scope.spawn(|| {
                    let begin = now();
                    (dig(&c1, &[&name]), begin.elapsed())
                });
                // Others do not wait for it.
                while !asking.is_finished() {
                    let begin = now();
                    assert!(dig(&c1, &["c1.weave.local"]).contains("10.2.1.1"));
                    assert!(begin.elapsed() < OWN_LIMIT, "{:?}", begin.elapsed());
                }
                let (said, took) = asking.join().expect("dig ran");
                assert!(said.contains(answer), "{upstream}: {said}");
                assert!(took < ANSWER_LIMIT, "{upstream}: {took:?}");
            });
        }
        drop(running);
        let _ = mirror.kill();
        let _ = mirror.wait();
    });
}
