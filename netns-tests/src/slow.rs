//! A hub on which every frame takes its time. The kernel's netem would do the same, but not every kernel has it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockProtocol, recv, send};

use crate::host::Host;
use crate::raw::packet_socket;
use crate::wait::now;

/// No frame is longer where segmentation is off.
const FRAME_LEN_MAX: usize = 2048;
/// Frames under way; more are lost, as on any wire.
const FRAMES_MAX: usize = 10_000;
/// Between two looks at whether the hub should end.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// A running hub; dropped, it ends.
#[derive(Debug)]
pub struct SlowHub {
    stop: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
}

/// A frame under way.
struct Flight {
    due: Instant,
    /// The port by which it came.
    from: usize,
    frame: Vec<u8>,
}

impl SlowHub {
    /// Makes a switch slow: its ports leave the bridge, and what comes in by one leaves by the others after `delay`.
    /// Whoever is plugged in must send frames that fit its MTU, with their checksums.
    ///
    /// # Panics
    ///
    /// If there is no such port.
    #[must_use]
    pub fn replace(switch: &Host, ports: &[&str], delay: Duration) -> Self {
        let open = |port: &&str| {
            switch.run(&["ip", "link", "set", "dev", port, "nomaster"]);
            packet_socket(switch, port, Some(SockProtocol::EthAll))
        };
        let sockets: Vec<OwnedFd> = ports.iter().map(open).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let carrier = thread::spawn(move || carry(&sockets, delay, &flag));
        Self {
            stop,
            carrier: Some(carrier),
        }
    }
}

impl Drop for SlowHub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            // It has nothing to say.
            let _ = carrier.join();
        }
    }
}

fn carry(sockets: &[OwnedFd], delay: Duration, stop: &AtomicBool) {
    let mut under_way: VecDeque<Flight> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let next = under_way.front().map(|flight| flight.due);
        let wait = next.map_or(STOP_INTERVAL, |due| due.saturating_duration_since(now()));
        let mut polled: Vec<_> = sockets
            .iter()
            .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
            .collect();
        let wait = PollTimeout::try_from(wait.min(STOP_INTERVAL)).unwrap_or(PollTimeout::ZERO);
        // An interrupted wait is a short one.
        let _ = poll(&mut polled, wait);
        for (from, socket) in sockets.iter().enumerate() {
            take(socket, from, delay, &mut under_way);
        }
        while under_way.front().is_some_and(|flight| flight.due <= now())
            && let Some(flight) = under_way.pop_front()
        {
            let others = sockets.iter().enumerate();
            for (_, socket) in others.filter(|(port, _)| *port != flight.from) {
                // A full queue loses frames.
                let _ = send(socket.as_raw_fd(), &flight.frame, MsgFlags::MSG_DONTWAIT);
            }
        }
    }
}

fn take(socket: &OwnedFd, from: usize, delay: Duration, under_way: &mut VecDeque<Flight>) {
    let mut buffer = [0; FRAME_LEN_MAX];
    while let Ok(len) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        if under_way.len() < FRAMES_MAX {
            let (due, frame) = (now() + delay, buffer[..len].to_vec());
            under_way.push_back(Flight { due, from, frame });
        }
    }
}
