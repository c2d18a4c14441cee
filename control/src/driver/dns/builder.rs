//! Makes snapshots of the names beside the thread that answers, one at a time; what changes meanwhile goes into the next.
//!
//! ```text
//!  Update::Source ─► sources ── copy ──► blocking thread ─► snapshot ─► in use ─► Update::Shown is answered
//! ```

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::Update;
use crate::dns::name::Domain;
use crate::dns::names::{Names, Sources};

/// The sources, and the snapshot that is being made.
pub(super) struct Builder {
    domain: Domain,
    sources: Sources,
    /// The sources are newer than the snapshot that is being made, or in use.
    is_dirty: bool,
    /// Told when the next snapshot is in use.
    waiting: Vec<oneshot::Sender<()>>,
    making: Option<Making>,
}

struct Making {
    task: JoinHandle<Names>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Builder {
    /// The snapshot of these sources is in use already.
    pub(super) fn new(domain: &Domain, sources: Sources) -> Self {
        Self {
            domain: domain.clone(),
            sources,
            is_dirty: false,
            waiting: Vec::new(),
            making: None,
        }
    }

    /// Takes an update; [`Self::start`] follows once all are taken.
    pub(super) fn take(&mut self, update: Update) {
        match update {
            Update::Source(origin, entries) => {
                self.sources.set(origin, entries);
                self.is_dirty = true;
            }
            Update::Shown(sender) if self.is_dirty => self.waiting.push(sender),
            Update::Shown(sender) => match &mut self.making {
                Some(making) => making.waiting.push(sender),
                None => tell(vec![sender]),
            },
        }
    }

    /// Begins a snapshot if there is something new and none is being made.
    pub(super) fn start(&mut self) {
        if self.making.is_some() || !std::mem::take(&mut self.is_dirty) {
            return;
        }
        let (sources, domain) = (self.sources.clone(), self.domain.clone());
        self.making = Some(Making {
            task: spawn_blocking(move || sources.build(&domain)),
            waiting: std::mem::take(&mut self.waiting),
        });
    }

    /// Waits for the snapshot that is being made, for ever if there is none. May be dropped and called again.
    pub(super) async fn made(&mut self) -> Result<Names, JoinError> {
        match &mut self.making {
            Some(making) => (&mut making.task).await,
            None => std::future::pending().await,
        }
    }

    /// The snapshot is in use: those who wait for it are told, and the next may begin.
    pub(super) fn shown(&mut self) {
        if let Some(making) = self.making.take() {
            tell(making.waiting);
        }
        self.start();
    }
}

/// Whoever does not wait any more need not know.
fn tell(waiting: Vec<oneshot::Sender<()>>) {
    for sender in waiting {
        let _ = sender.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::names::tests::entry;
    use crate::peer::PeerId;

    fn source(number: u8) -> Update {
        let name = format!("n{number}.weave.local");
        let entries = [entry(&name, "10.0.0.1", "c")];
        Update::Source(PeerId([number; 16]), entries.into())
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_what_came_before_is_in_use() {
        let mut builder = Builder::new(&Domain::parse("weave.local").unwrap(), Sources::default());
        let (first, mut first_shown) = oneshot::channel();
        builder.take(Update::Shown(first));
        assert!(first_shown.try_recv().is_ok(), "nothing to wait for");

        builder.take(source(1));
        let (second, mut second_shown) = oneshot::channel();
        builder.take(Update::Shown(second));
        builder.start();
        builder.take(source(2));
        let (third, mut third_shown) = oneshot::channel();
        builder.take(Update::Shown(third));
        builder.start();

        let names = builder.made().await.unwrap();
        assert_eq!(names.entries().len(), 1);
        builder.shown();
        assert!(second_shown.try_recv().is_ok());
        assert!(third_shown.try_recv().is_err());
        let names = builder.made().await.unwrap();
        assert_eq!(names.entries().len(), 2);
        builder.shown();
        assert!(third_shown.try_recv().is_ok());
    }
}
