//! Follows what Docker says about containers, and looks itself whenever that may have been incomplete.

use std::time::Duration;

use futures_util::StreamExt;

use super::starts::Starts;
use crate::driver::docker::{ContainerNews, Docker};

/// Between two looks at what runs: events are the rule, a look finds what was missed around a break.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Before Docker is asked again after it broke off or was not there.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Follows Docker for ever; `there` hears whether it answers.
pub(super) async fn follow(docker: &Docker, starts: &Starts, there: impl Fn(Result<(), String>)) {
    loop {
        if let Err(error) = follow_once(docker, starts, &there).await {
            there(Err(error));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn follow_once(
    docker: &Docker,
    starts: &Starts,
    there: &impl Fn(Result<(), String>),
) -> Result<(), String> {
    let news = docker.news().await.map_err(|error| error.to_string())?;
    let mut news = std::pin::pin!(news);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut is_first = true;
    loop {
        tokio::select! {
            next = news.next() => match next {
                Some(Ok(ContainerNews::Started(id))) => {
                    let starts = starts.clone();
                    tokio::spawn(async move { starts.noticed(&id).await });
                }
                Some(Ok(ContainerNews::Ended(id))) => starts.ended(&id),
                Some(Ok(ContainerNews::Other)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Ok(()),
            },
            _ = looks.tick() => {
                let running = docker.running().await.map_err(|error| error.to_string())?;
                there(Ok(()));
                let new = starts.compare(&running);
                // Docker starts containers again before it can be listened to: those that are known may have another
                // process now, which waits.
                let looked_at = if is_first { running.into_iter().collect() } else { new };
                is_first = false;
                for id in looked_at {
                    starts.noticed(&id).await;
                }
            }
        }
    }
}
