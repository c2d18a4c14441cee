//! TAP queues: open, and ask for every offload that the kernel has.
#![expect(
    unsafe_code,
    reason = "four ioctls that no library wraps together with multiple queues"
)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use tun::AbstractDevice;

use crate::error::EngineError;

/// Bytes of the virtio header before each frame.
pub const VNET_LEN: usize = 10;

/// `TUN_F_*` of the kernel's `if_tun.h`.
const OFFLOAD_CHECKSUM: u32 = 0x01;
const OFFLOAD_TSO: u32 = 0x02 | 0x04 | 0x08;
const OFFLOAD_USO: u32 = 0x20 | 0x40;

mod ioctl {
    nix::ioctl_write_int!(tun_set_iff, b'T', 202);
    nix::ioctl_write_int!(tun_set_persist, b'T', 203);
    nix::ioctl_write_int!(tun_set_offload, b'T', 208);
    nix::ioctl_write_ptr!(tun_set_vnet_header_size, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr!(tun_set_vnet_little_endian, b'T', 220, libc::c_int);
}

/// What the kernel hands over in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapOffloads {
    /// Unfinished transport checksums.
    pub checksum: bool,
    /// TCP super-frames.
    pub tcp: bool,
    /// UDP super-frames (Linux 6.2); writing them needs it too.
    pub udp: bool,
}

/// The kernel's table of devices, of this thread's network namespace.
const DEVICES: &str = "/proc/thread-self/net/dev";
/// Which number of a device's line counts what was dropped on its way out, to us.
const TX_DROPPED: usize = 11;

/// Frames that the kernel dropped since the device exists because its queues were full; zero if nobody can tell.
pub fn queue_drops(name: &str) -> u64 {
    let table = std::fs::read_to_string(DEVICES).unwrap_or_default();
    tx_dropped(&table, name).unwrap_or(0)
}

fn tx_dropped(table: &str, name: &str) -> Option<u64> {
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    let (_, counts) = lines
        .into_iter()
        .find(|(device, _)| device.trim() == name)?;
    counts.split_whitespace().nth(TX_DROPPED)?.parse().ok()
}

/// The queues of one TAP device, one a worker.
#[derive(Debug)]
pub struct Tap {
    /// The queues; non-blocking.
    pub queues: Vec<OwnedFd>,
    /// What the kernel agreed to.
    pub offloads: TapOffloads,
}

/// Opens `count` queues of the persistent device `name`, making it if it is not there.
///
/// The device outlives us: containers keep their bridge while the daemon is away.
pub fn open(name: &str, count: u16, mtu: u16) -> Result<Tap, EngineError> {
    let mut request = interface_request(name)?;
    let mut queues = Vec::new();
    for queue in 0..count {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|source| EngineError::OpenTun { source })?;
        attach(&file, queue, &mut request, name)?;
        queues.push(OwnedFd::from(file));
    }
    let offloads = settle(&queues, name)?;
    set_up(name, mtu, queues.first())?;
    Ok(Tap { queues, offloads })
}

/// Makes the device anew that somebody deleted, with the same queues: whoever reads and writes them goes on.
///
/// A queue of a deleted device belongs to none and may be given another; that it has one already is an error.
pub fn attach_again(name: &str, queues: &[OwnedFd]) -> Result<(), EngineError> {
    let mut request = interface_request(name)?;
    for (number, queue) in (0..).zip(queues) {
        attach(queue, number, &mut request, name)?;
    }
    settle(queues, name).map(drop)
}

/// Makes an open file a queue of the device, which is made with its first one.
fn attach(
    file: &impl AsRawFd,
    queue: u16,
    request: &mut libc::ifreq,
    name: &str,
) -> Result<(), EngineError> {
    // SAFETY: the kernel reads and writes one `ifreq`, which is exclusively borrowed for the call.
    unsafe { ioctl::tun_set_iff(file.as_raw_fd(), std::ptr::from_mut(request) as u64) }.map_err(
        |errno| EngineError::AttachTap {
            name: name.into(),
            queue,
            source: errno.into(),
        },
    )?;
    set_header(file, name)
}

/// What is said once for all queues.
fn settle(queues: &[OwnedFd], name: &str) -> Result<TapOffloads, EngineError> {
    let Some(first) = queues.first() else {
        return Ok(TapOffloads::default());
    };
    let offloads = set_offloads(first);
    // SAFETY: takes a plain number.
    unsafe { ioctl::tun_set_persist(first.as_raw_fd(), 1) }
        .map_err(|errno| option_error(name, "TUNSETPERSIST", errno.into()))?;
    Ok(offloads)
}

fn interface_request(name: &str) -> Result<libc::ifreq, EngineError> {
    // SAFETY: `ifreq` is a C struct of numbers and a union of such, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(EngineError::InterfaceName { name: name.into() });
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or(i16::MAX);
    Ok(request)
}

fn set_header(file: &impl AsRawFd, name: &str) -> Result<(), EngineError> {
    let size = libc::c_int::try_from(VNET_LEN).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads one int, borrowed for the call.
    unsafe { ioctl::tun_set_vnet_header_size(file.as_raw_fd(), &raw const size) }
        .map_err(|errno| option_error(name, "TUNSETVNETHDRSZ", errno.into()))?;
    let yes = 1;
    // SAFETY: as above.
    unsafe { ioctl::tun_set_vnet_little_endian(file.as_raw_fd(), &raw const yes) }
        .map_err(|errno| option_error(name, "TUNSETVNETLE", errno.into()))?;
    Ok(())
}

/// Asks for everything, then for less and less. The mask belongs to the device and outlives its user.
fn set_offloads(file: &impl AsRawFd) -> TapOffloads {
    let steps = [
        (
            OFFLOAD_CHECKSUM | OFFLOAD_TSO | OFFLOAD_USO,
            TapOffloads {
                checksum: true,
                tcp: true,
                udp: true,
            },
        ),
        (
            OFFLOAD_CHECKSUM | OFFLOAD_TSO,
            TapOffloads {
                checksum: true,
                tcp: true,
                udp: false,
            },
        ),
        (
            OFFLOAD_CHECKSUM,
            TapOffloads {
                checksum: true,
                tcp: false,
                udp: false,
            },
        ),
        (0, TapOffloads::default()),
    ];
    for (mask, offloads) in steps {
        // SAFETY: takes a plain number.
        if unsafe { ioctl::tun_set_offload(file.as_raw_fd(), mask.into()) }.is_ok() {
            return offloads;
        }
    }
    TapOffloads::default()
}

/// Sets the MTU and brings the device up, through the `tun` crate on a duplicate of the first queue.
fn set_up(name: &str, mtu: u16, queue: Option<&OwnedFd>) -> Result<(), EngineError> {
    let Some(queue) = queue else { return Ok(()) };
    let fd = queue
        .try_clone()
        .map_err(|source| option_error(name, "a second descriptor", source))?;
    let mut config = tun::Configuration::default();
    config
        .raw_fd(fd.into_raw_fd())
        .close_fd_on_drop(true)
        .tun_name(name)
        .layer(tun::Layer::L2);
    let mut device =
        tun::create(&config).map_err(|error| option_error(name, "the interface", error.into()))?;
    device
        .set_mtu(mtu)
        .map_err(|error| option_error(name, "the MTU", error.into()))?;
    device
        .enabled(true)
        .map_err(|error| option_error(name, "the interface up", error.into()))
}

fn option_error(name: &str, option: &'static str, source: io::Error) -> EngineError {
    EngineError::SetTapOption {
        name: name.into(),
        option,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_frames_stand_in_the_twelfth_column_of_the_devices_line() {
        let table = "Inter-|   Receive                |  Transmit\n face |bytes    packets\n    lo:       1       2    3 \
                     4    5     6          7         8        9      10   11   12    13     14       15          16\nweft-tap0: \
                     21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36\n";

        assert_eq!(tx_dropped(table, "weft-tap0"), Some(32));
        assert_eq!(tx_dropped(table, "weft"), None);
        assert_eq!(tx_dropped("weft: 1 2", "weft"), None);
    }
}
