//! Starts the containers that Docker was to start while weft was away, and could not.
//!
//! ```text
//!  weft ends ─► Docker starts: no plugin for a network of weft's ─► container: not started, Error names the plugin
//!  weft is back ─► that container is started, if its restart policy wants it up
//! ```
//!
//! Docker itself does not try again before it is started the next time.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use bollard::query_parameters::ListContainersOptions;

use crate::driver::docker::Docker;
use crate::plugin::DRIVERS;

/// Containers that were not started, for Docker's list.
const NOT_STARTED: [&str; 2] = ["created", "exited"];

/// Starts all that are left out; each that Docker refuses is told, and stays for the user.
pub(super) async fn start(docker: &Docker) {
    let Ok(client) = docker.connect().await else {
        return;
    };
    let status = NOT_STARTED.map(str::to_owned).to_vec();
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("status".to_owned(), status)])),
        ..ListContainersOptions::default()
    };
    let listed = match client.list_containers(Some(options)).await {
        Ok(listed) => listed,
        Err(error) => {
            tracing::warn!(%error, "cannot see which containers Docker could not start without weft");
            return;
        }
    };
    for id in listed.into_iter().filter_map(|found| found.id) {
        let found = client.inspect_container(&id, None).await;
        if !found.is_ok_and(|found| is_left_out(&found)) {
            continue;
        }
        match client.start_container(&id, None).await {
            Ok(()) => tracing::info!(container = id, "started: Docker could not without weft"),
            Err(error) => {
                tracing::warn!(container = id, %error, "Docker could not start it without weft, and cannot now");
            }
        }
    }
}

/// Whether a container is to be up, and was not started for want of one of our drivers. One that ran and ended has no
/// such error.
fn is_left_out(found: &ContainerInspectResponse) -> bool {
    let policy = found
        .host_config
        .as_ref()
        .and_then(|config| config.restart_policy.as_ref())
        .and_then(|policy| policy.name);
    let is_wanted = matches!(
        policy,
        Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED)
    );
    let state = found.state.as_ref();
    let error = state.and_then(|state| state.error.as_deref());
    is_wanted && error.is_some_and(names_our_driver)
}

/// Docker says `plugin "weftmesh" not found`, or which socket nobody answers at.
fn names_our_driver(error: &str) -> bool {
    error.contains("plugin")
        && DRIVERS.iter().any(|(driver, _)| {
            error.contains(&format!("\"{driver}\"")) || error.contains(&format!("{driver}.sock"))
        })
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, HostConfig, RestartPolicy};

    use super::*;

    fn described(policy: RestartPolicyNameEnum, error: &str) -> ContainerInspectResponse {
        ContainerInspectResponse {
            state: Some(ContainerState {
                error: Some(error.to_owned()),
                ..ContainerState::default()
            }),
            host_config: Some(HostConfig {
                restart_policy: Some(RestartPolicy {
                    name: Some(policy),
                    ..RestartPolicy::default()
                }),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn only_what_docker_was_to_start_and_could_not_for_want_of_weft_is_left_out() {
        use RestartPolicyNameEnum::{ALWAYS, NO, ON_FAILURE, UNLESS_STOPPED};
        // As Docker 20.10 says it.
        let killed = "legacy plugin: Post \"http://%2Frun%2Fdocker%2Fplugins%2Fweftmesh.sock/Plugin.Activate\": dial \
                      unix /run/docker/plugins/weftmesh.sock: connect: connection refused";
        let stopped = "plugin \"weftmesh\" not found";
        for (policy, error, expected) in [
            (ALWAYS, killed, true),
            (UNLESS_STOPPED, stopped, true),
            (ALWAYS, "plugin \"weft\" not found", true),
            (NO, stopped, false),
            (ON_FAILURE, stopped, false),
            (ALWAYS, "", false),
            (ALWAYS, "plugin \"other\" not found", false),
            (
                ALWAYS,
                "exec: \"weftmesh\": executable file not found in $PATH",
                false,
            ),
        ] {
            let found = described(policy, error);
            assert_eq!(is_left_out(&found), expected, "{policy:?} {error}");
        }
        assert!(!is_left_out(&ContainerInspectResponse::default()));
    }
}
