//! The daemon's side towards Docker: its network plugin, and the life of its containers.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;
use weft_control::api::PluginStatus;
use weft_control::driver::attach_service::HostAttacher;
use weft_control::driver::docker::Docker;
use weft_control::driver::docker_sight::DockerSight;
use weft_control::driver::life::Life;
use weft_control::driver::plugin::{DEFAULT_NETWORK, Plugin, PluginConfig};
use weft_control::driver::proxy::ProxyHandle;
use weft_control::driver::request::Request;
use weft_control::driver::run::Ended;
use weft_control::plugin::DRIVERS;

use crate::settings::Settings;

/// What is needed to serve Docker, before and after the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct DockerSide {
    pub(super) docker: Docker,
    pub(super) requests: mpsc::Sender<Request>,
    proxy: Option<ProxyHandle>,
    sight: DockerSight,
    /// Made once the peer's name is known.
    attacher: Arc<OnceLock<HostAttacher>>,
}

impl DockerSide {
    pub(super) fn new(
        docker: Docker,
        requests: mpsc::Sender<Request>,
        proxy: Option<ProxyHandle>,
    ) -> Self {
        Self {
            docker,
            requests,
            proxy,
            sight: DockerSight::default(),
            attacher: Arc::default(),
        }
    }

    /// What is seen of Docker while the daemon runs.
    pub(super) fn sight(&self) -> DockerSight {
        self.sight.clone()
    }

    /// Docker's containers are attached by this.
    pub(super) fn serves(&self, attacher: &HostAttacher) {
        // There is one.
        let _ = self.attacher.set(attacher.clone());
    }

    /// Serves Docker while the daemon runs, and calls `ready` once Docker can be served; returns the plugin, which
    /// still answers.
    pub(super) async fn beside(
        &self,
        settings: &Settings,
        running: impl Future<Output = anyhow::Result<Ended>>,
        ready: impl FnOnce(),
    ) -> (anyhow::Result<Ended>, Option<Plugin>) {
        let mut running = std::pin::pin!(running);
        let mut starting = std::pin::pin!(self.start(settings));
        let plugin = tokio::select! {
            plugin = &mut starting => plugin,
            // Told to leave before it was ready.
            ended = &mut running => return (ended, starting.await),
        };
        let network = settings.addresses().ok().flatten();
        let network = network.filter(|_| plugin.is_some());
        let network = network.map(|addresses| addresses.default_subnet);
        let life = Life::new(
            self.docker.clone(),
            self.requests.clone(),
            network,
            &settings.bridge,
            self.proxy.clone(),
        );
        let life = life.with_sight(self.sight());
        let life = (!settings.docker.is_off()).then(|| tokio::spawn(life.follow()));
        ready();
        let ended = running.await;
        if let Some(life) = life {
            life.abort();
            // It may be about to put its rule in.
            let _ = life.await;
        }
        (ended, plugin)
    }

    /// Without the plugin the daemon works all the same; the log says why.
    async fn start(&self, settings: &Settings) -> Option<Plugin> {
        let addresses = settings.addresses().ok().flatten();
        let config = PluginConfig {
            dir: settings.plugin_dir.clone()?,
            data_dir: settings.data_dir.clone(),
            default_subnet: addresses.as_ref().map(|given| given.default_subnet),
            range: addresses.as_ref().map(|given| given.range),
        };
        let attacher = self.attacher.get()?.clone();
        let status = PluginStatus {
            // The one for everybody first; the other is for swarms.
            drivers: DRIVERS
                .map(|(driver, _)| driver.to_owned())
                .into_iter()
                .rev()
                .collect(),
            network: config.default_subnet.map(|_| DEFAULT_NETWORK.to_owned()),
            docker: self.docker.host().to_owned(),
            ..PluginStatus::default()
        };
        match Plugin::start(config, attacher, self.requests.clone(), self.docker.clone()).await {
            Ok(plugin) => {
                self.sight.plugin_serves(status);
                Some(plugin)
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "no network plugin for Docker");
                None
            }
        }
    }
}
