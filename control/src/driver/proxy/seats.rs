//! Seats for the proxy's clients: when all are taken, who says nothing gives way to who comes.
//!
//! A connection that waits for its client's next request is idle. The one that has been so for longest is ended, as any
//! HTTP server may end it: a client takes another. Where nobody is idle, the newcomer is refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

/// How long a newcomer waits for the seat of one that was told to go: that is done at once.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    idle: Mutex<Idle>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Idle {
    next: u64,
    /// In the order in which they fell silent; bounded by the seats.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            idle: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// A seat for a newcomer; none if all are taken by clients that are served.
    pub(super) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(seat) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(seat);
        }
        let oldest = self.idle().waiting.pop_first();
        let told = oldest.is_some_and(|(_, oldest)| oldest.send(()).is_ok());
        let seat = async { Arc::clone(&self.free).acquire_owned().await.ok() };
        let seat = match told {
            true => timeout(HANDOVER_TIMEOUT, seat).await.ok().flatten(),
            false => None,
        };
        if seat.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        seat
    }

    /// Clients that were refused so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes that somebody is idle, for as long as what is returned lives.
    pub(super) fn fall_silent(&self) -> Silence<'_> {
        let (tell, told) = oneshot::channel();
        let mut idle = self.idle();
        let number = idle.next;
        idle.next += 1;
        idle.waiting.insert(number, tell);
        drop(idle);
        Silence {
            seats: self,
            number,
            told,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing in here panics half way.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who is idle.
#[derive(Debug)]
pub(super) struct Silence<'a> {
    seats: &'a Seats,
    number: u64,
    told: oneshot::Receiver<()>,
}

impl Silence<'_> {
    /// Waits until the seat is wanted.
    pub(super) async fn wanted(&mut self) {
        // Its other half goes when it has been used.
        let _ = (&mut self.told).await;
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.seats.idle().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_silent_for_longest_gives_way_and_who_is_served_does_not() {
        let seats = Arc::new(Seats::new(2));
        let (first, second) = (seats.enter().await.unwrap(), seats.enter().await.unwrap());
        assert!(seats.enter().await.is_none());
        assert_eq!(seats.refused(), 1);

        let mut silences = [seats.fall_silent(), seats.fall_silent()];
        let newcomer = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.enter().await }
        });
        silences[0].wanted().await;
        drop(first);
        let newcomer = newcomer.await.unwrap();
        assert!(newcomer.is_some());

        // Served again: its seat is its own.
        drop(silences);
        assert!(seats.enter().await.is_none());
        assert_eq!(seats.refused(), 2);
        drop(second);
        assert!(seats.enter().await.is_some());
    }
}
