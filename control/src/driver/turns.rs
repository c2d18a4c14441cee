//! Whose turn it is: one change at a time for each owner of addresses, and what a look at the host may have missed.
//!
//! ```text
//!  attach c1 ─► turn of c1 ─► waits for an address …   ◄─ detach c1: ends that wait, then has its turn
//!  a look ────► begun ──────► ended: who had a turn meanwhile is not judged by it
//! ```
//!
//! Owners do not wait for each other. Bound: an owner is known while somebody uses or awaits its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use super::client::Client;
use super::container::Container;
use crate::ipam::request::Failure;

/// All owners with something going on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turns {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    owners: BTreeMap<String, Place>,
    /// Owners that had a turn since a look began; `None` while nobody looks.
    changing: Option<BTreeSet<String>>,
}

#[derive(Debug)]
struct Place {
    lock: Arc<AsyncMutex<()>>,
    /// How often somebody wanted the owner off the network.
    withdrawals: watch::Sender<u64>,
    /// Turns that are had or awaited.
    users: usize,
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the owner's turn.
    pub(crate) async fn take(&self, owner: &str) -> Turn {
        self.enter(owner, false).wait().await
    }

    /// The same, and whoever has the turn or stands before us waits for addresses no more.
    pub(crate) async fn take_off(&self, owner: &str) -> Turn {
        self.enter(owner, true).wait().await
    }

    fn enter(&self, owner: &str, withdraws: bool) -> Entry {
        let mut state = self.state();
        if let Some(changing) = &mut state.changing {
            changing.insert(owner.to_owned());
        }
        let place = state
            .owners
            .entry(owner.to_owned())
            .or_insert_with(|| Place {
                lock: Arc::default(),
                withdrawals: watch::Sender::new(0),
                users: 0,
            });
        place.users += 1;
        if withdraws {
            place.withdrawals.send_modify(|count| *count += 1);
        }
        let withdrawals = place.withdrawals.subscribe();
        let entered_at = *withdrawals.borrow();
        Entry {
            turns: self.clone(),
            owner: owner.to_owned(),
            lock: Arc::clone(&place.lock),
            withdrawals,
            entered_at,
        }
    }

    /// Begins a look at the host. One at a time: a second one ends the first.
    pub(crate) fn look(&self) -> Look {
        let mut state = self.state();
        state.changing = Some(state.owners.keys().cloned().collect());
        Look {
            turns: self.clone(),
        }
    }
}

/// A place in the queue for a turn.
#[derive(Debug)]
struct Entry {
    turns: Turns,
    owner: String,
    lock: Arc<AsyncMutex<()>>,
    withdrawals: watch::Receiver<u64>,
    entered_at: u64,
}

impl Entry {
    async fn wait(self) -> Turn {
        let guard = Arc::clone(&self.lock).lock_owned().await;
        Turn {
            _guard: guard,
            entry: self,
            client: None,
            container: None,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        if let Some(place) = state.owners.get_mut(&self.owner) {
            place.users -= 1;
            if place.users == 0 {
                state.owners.remove(&self.owner);
            }
        }
    }
}

/// The owner's turn; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _guard: OwnedMutexGuard<()>,
    entry: Entry,
    client: Option<Client>,
    container: Option<Container>,
}

/// How often a container is looked at for which an address is awaited.
const ALIVE_PAUSE: Duration = Duration::from_millis(500);

impl Turn {
    /// Whose.
    pub(crate) fn owner(&self) -> &str {
        &self.entry.owner
    }

    /// The same turn, in which waits end with this client and this container.
    pub(crate) fn with(self, client: Client, container: Option<Container>) -> Self {
        Self {
            client: Some(client),
            container,
            ..self
        }
    }

    /// Why nobody needs an address any more, if that is so.
    pub(crate) fn is_over(&self) -> Option<Failure> {
        let owner = || self.owner().to_owned();
        let is_dead = |container: &Container| !container.is_there();
        if self.client.as_ref().is_some_and(Client::is_gone) {
            Some(Failure::Abandoned(owner()))
        } else if self.container.as_ref().is_some_and(is_dead) {
            Some(Failure::Died(owner()))
        } else {
            None
        }
    }

    /// Waits until an address is awaited in vain: the owner is to leave, its container or the client is gone.
    pub(crate) async fn over(&self) {
        let gone = async {
            match &self.client {
                Some(client) => client.gone().await,
                None => std::future::pending().await,
            }
        };
        let died = async {
            while self.container.as_ref().is_none_or(Container::is_there) {
                tokio::time::sleep(ALIVE_PAUSE).await;
            }
        };
        tokio::select! {
            () = self.withdrawn() => {}
            () = gone => {}
            () = died => {}
        }
    }

    /// Waits until somebody who came later wants the owner off the network.
    async fn withdrawn(&self) {
        let mut withdrawals = self.entry.withdrawals.clone();
        let entered_at = self.entry.entered_at;
        // The sender lives as long as our place.
        let _ = withdrawals.wait_for(|count| *count > entered_at).await;
    }
}

/// A look at the host that is going on.
#[derive(Debug)]
pub(crate) struct Look {
    turns: Turns,
}

impl Look {
    /// Ends the look: `tell` gets the owners that changed meanwhile, before anybody's next turn begins.
    pub(crate) fn end(self, tell: impl FnOnce(BTreeSet<String>)) {
        let mut state = self.turns.state();
        tell(state.changing.take().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn changed(look: Look) -> Vec<String> {
        let mut seen = Vec::new();
        look.end(|changing| seen.extend(changing));
        seen
    }

    #[tokio::test]
    async fn one_owner_has_one_turn_and_others_do_not_wait() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let second = turns.take("a");
        tokio::pin!(second);

        assert!(second.as_mut().now_or_never().is_none());
        drop(turns.take("b").await);
        drop(first);
        drop(second.await);
        assert!(turns.state().owners.is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn who_wants_an_owner_off_ends_the_waits_before_it_and_not_those_after_it() {
        let turns = Turns::default();
        let attaching = turns.take("a").await;
        assert!(attaching.withdrawn().now_or_never().is_none());
        let detaching = turns.take_off("a");
        tokio::pin!(detaching);
        assert!(detaching.as_mut().now_or_never().is_none());

        attaching.withdrawn().await;
        attaching.withdrawn().await;
        let later = turns.take("a");
        tokio::pin!(later);
        assert!(later.as_mut().now_or_never().is_none());
        drop(attaching);
        drop(detaching.await);
        assert!(later.await.withdrawn().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_look_knows_who_changed_meanwhile() {
        let turns = Turns::default();
        let before = turns.take("before").await;
        drop(turns.take("long gone").await);
        let look = turns.look();
        drop(before);
        drop(turns.take("meanwhile").await);

        assert_eq!(changed(look), ["before", "meanwhile"]);
        assert!(changed(turns.look()).is_empty());
    }
}
