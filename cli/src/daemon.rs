//! Puts a daemon together: engine, bridge, control.

mod docker;
mod engine;
pub(crate) mod overlap;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, oneshot};
use weft_control::api::ApiError;
use weft_control::config::{REQUESTS_MAX, RekeyConfig};
use weft_control::driver::allocator::Allocator;
use weft_control::driver::api::ApiServer;
use weft_control::driver::attach::{self, AttachOptions, Host};
use weft_control::driver::attach_service::HostAttacher;
use weft_control::driver::bridge::{self, BridgeConfig, Keeper, TAP, bridge_mac};
use weft_control::driver::dns::DnsServer;
use weft_control::driver::firewall::port::PortGuard;
use weft_control::driver::firewall::{self, FirewallError};
use weft_control::driver::netlink::GsoLimits;
use weft_control::driver::netns::NetNs;
use weft_control::driver::plugin;
use weft_control::driver::proxy::ProxyServer;
use weft_control::driver::request::{Attacher, Reply, Request};
use weft_control::driver::run::{Driver, Ended};
use weft_control::driver::start::DriverConfig;
use weft_control::driver::underlay;
use weft_control::peer::PeerName;
use weft_control::secret::Credential;
use weft_engine::config::gso_size_max;
use weft_engine::engine::Engine;

use crate::args::CONTROL_SOCKET;
use crate::daemon::docker::DockerSide;
use crate::leftovers;
use crate::settings::Settings;
use crate::stand_in;

/// What a running daemon can be told from outside its API.
#[derive(Debug)]
pub(crate) enum Order {
    /// Say good-bye and end.
    Leave,
    /// These secrets are valid from now on, the first is to be offered.
    Secrets(Vec<Credential>),
}

/// Runs a daemon until it is told to leave; calls `ready` with the peer's name, and what its user is to know, once it
/// serves.
///
/// # Errors
///
/// What prevented the start, or what it could not go on after.
pub(crate) async fn run(
    settings: &Settings,
    orders: mpsc::Receiver<Order>,
    ready: impl FnOnce(&str, Vec<String>),
) -> anyhow::Result<()> {
    let host = NetNs::current().context("open the host's network namespace")?;
    open_as_many_files_as_may_be();
    bridge::check_name(&settings.bridge)?;
    let is_new =
        !bridge::is_there(&host, TAP).await? && !bridge::is_there(&host, &settings.bridge).await?;
    let mut is_ready = false;
    let served = serve(settings, &host, orders, |name, notes| {
        is_ready = true;
        ready(name, notes);
    });
    let ended = served.await;
    let is_left = ended.is_err() && is_new && !is_ready;
    // Unless another daemon was faster, and works on them.
    if is_left && bridge::check_tap_free(&host, TAP).await.is_ok() {
        // The user hears why there was no start; what else goes wrong is of no account beside that.
        let _ = leftovers::remove_devices(&settings.bridge).await;
    }
    ended
}

/// A shell's usual 1024 are fewer than what one busy container can make us ask of upstreams at once.
fn open_as_many_files_as_may_be() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(
    settings: &Settings,
    host: &NetNs,
    mut orders: mpsc::Receiver<Order>,
    ready: impl FnOnce(&str, Vec<String>),
) -> anyhow::Result<()> {
    let underlay_mtu = underlay::largest_mtu(host, &settings.bridge)
        .await
        .context("look at the interfaces")?;
    // First of all: a second daemon must fail here, before it touches what the first one uses. The device before the
    // port, which would be but the first of several things that the two share.
    bridge::check_tap_free(host, TAP).await?;
    check_port(settings)?;
    let api = ApiServer::bind(&settings.run_dir.join(CONTROL_SOCKET))?;
    // Its turn comes with the end of this function, or of the process.
    let _stand_in = stand_in::start(settings);
    let engine = Arc::new(Engine::start(&engine::config(settings, underlay_mtu))?);
    if let Some(dns) = &settings.dns {
        engine.keep_on_host(dns.address);
    }
    let gso = GsoLimits {
        max_size: Some(gso_size_max(settings.mtu)),
        max_segs: None,
    };
    let addresses = settings.addresses()?;
    if let Some(addresses) = &addresses {
        overlap::check(addresses.range, settings.range_is_given(), &settings.bridge)?;
    }
    let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
    // Clients may come from now on; their containers wait.
    let docker = settings.docker.docker()?;
    let proxy = settings.proxy(&docker)?;
    let proxy = proxy.map(|config| ProxyServer::start(config, requests.clone()));
    let proxy = proxy.transpose()?;
    let told = proxy.as_ref().map(ProxyServer::handle);
    let docker = DockerSide::new(docker, requests.clone(), told.clone());
    let attacher = attacher(settings, host, gso, &docker)?;
    let driver = Driver::new(driver_config(settings)?, Arc::clone(&engine), attacher).await?;
    let devices = BridgeConfig {
        name: settings.bridge.clone(),
        tap: Some(TAP.to_owned()),
        mac: bridge_mac(driver.name().0),
        mtu: settings.mtu.into(),
        gso,
        dns: settings.dns.as_ref().map(|dns| dns.address),
    };
    bridge::ensure(host, &devices).await?;
    attach::follow_mtu(host, &devices).await?;
    let guest = settings.guest()?;
    attach::follow_dns(host, &settings.bridge, &guest, settings.dns.is_some()).await?;
    // Once the bridge has its address: the server binds it, and only then is the daemon ready.
    let (driver, server) = with_dns(driver, settings)?;
    let driver = driver.with_proxy(told).with_docker_sight(docker.sight());
    let tap_maker = Arc::clone(&engine);
    let keeper = Keeper::start(host.clone(), devices.clone(), move || {
        tap_maker.make_tap_again()
    });
    let (stop_api, api_stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(api.serve(requests.clone(), async {
        let _ = api_stopped.await;
    }));
    let (name, mut notes) = (driver.name().to_string(), driver.notes());
    let guard = guard_port(settings, &mut notes).await;
    let running = drive(driver, receiver, &requests, &mut orders);
    let (ended, plugin) = docker
        .beside(settings, running, || ready(&name, notes))
        .await;
    if let Some(plugin) = plugin {
        plugin.stop().await;
    }
    drop(proxy);
    drop(server);
    stop_watching(keeper, guard).await;
    if matches!(ended, Ok(Ended::Reset)) {
        clear_host(host, &devices, settings).await?;
    }
    drop(stop_api);
    let _ = serving.await;
    ended.map(drop)
}

/// Shuts our port for containers, or notes why it stays open to them.
async fn guard_port(settings: &Settings, notes: &mut Vec<String>) -> Option<PortGuard> {
    let bridges = [Some(settings.bridge.as_str()), settings.docker_bridge()];
    let bridges: Vec<&str> = bridges.into_iter().flatten().collect();
    let why = match PortGuard::start(settings.port, &bridges).await {
        Ok(guard) => return Some(guard),
        Err(FirewallError::Start(_)) => "install nftables".to_owned(),
        Err(error) => format!("{:#}", anyhow::Error::from(error)),
    };
    let port = settings.port;
    notes.push(format!(
        "note: containers can reach port {port} of this host: {why}"
    ));
    None
}

async fn stop_watching(keeper: Keeper, guard: Option<PortGuard>) {
    keeper.stop().await;
    if let Some(guard) = guard {
        guard.stop().await;
    }
}

/// Removes from the host what outlives a daemon: bridge, TAP, rules, and what is known of Docker's networks.
async fn clear_host(
    host: &NetNs,
    devices: &BridgeConfig,
    settings: &Settings,
) -> anyhow::Result<()> {
    bridge::remove(host, devices).await?;
    firewall::remove().await.context("remove the rules")?;
    settings.parked().clear();
    // Without iptables there is none.
    let _ = firewall::docker::remove(&settings.bridge).await;
    plugin::forget_networks(&settings.data_dir).context("remove what is kept of networks")
}

/// Starts the DNS server and gives it the names, unless it is off.
fn with_dns(
    driver: Driver<Engine>,
    settings: &Settings,
) -> anyhow::Result<(Driver<Engine>, Option<DnsServer>)> {
    let Some(dns) = &settings.dns else {
        return Ok((driver, None));
    };
    let (driver, server) = driver.with_dns(dns.config(&settings.bridge)?)?;
    Ok((driver, Some(server)))
}

/// Runs the driver, and passes on what signals ask for.
async fn drive(
    driver: Driver<Engine>,
    receiver: mpsc::Receiver<Request>,
    requests: &mpsc::Sender<Request>,
    orders: &mut mpsc::Receiver<Order>,
) -> anyhow::Result<Ended> {
    let running = driver.run(receiver);
    tokio::pin!(running);
    loop {
        let request = tokio::select! {
            ended = &mut running => return Ok(ended?),
            order = orders.recv() => match order {
                Some(Order::Secrets(credentials)) => Request::Reload(credentials, log_refusal()),
                Some(Order::Leave) | None => Request::Stop(oneshot::channel().0),
            },
        };
        if requests.try_send(request).is_err() {
            tracing::warn!("the daemon is too busy for a signal: send it again");
        }
    }
}

/// Returns the place for an answer that nobody waits for, and that is logged if it is a refusal.
fn log_refusal() -> Reply<Result<(), ApiError>> {
    let (reply, answer) = oneshot::channel::<Result<(), ApiError>>();
    tokio::spawn(async move {
        if let Ok(Err(refusal)) = answer.await {
            tracing::warn!("keep the secrets in use: {}", refusal.error);
        }
    });
    reply
}

/// Looks whether our port is free. Data sockets share their port on purpose, so a daemon with another run
/// directory would not fail there, but take datagrams and the TAP's frames away from the first.
fn check_port(settings: &Settings) -> anyhow::Result<()> {
    let host = settings.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let free = TcpListener::bind((host, settings.port)).map(drop);
    free.with_context(|| {
        format!(
            "listen on TCP port {} (see `ss -ltnp`, or take another with --port)",
            settings.port
        )
    })
}

fn driver_config(settings: &Settings) -> anyhow::Result<DriverConfig> {
    Ok(DriverConfig {
        data_dir: settings.data_dir.clone(),
        network: settings.network.clone(),
        credentials: settings.credentials()?,
        name: settings.peer_name()?,
        nickname: settings.checked_nickname()?,
        host: settings.host,
        port: settings.port,
        targets: settings.peers.clone(),
        resume: settings.resume,
        bridge: settings.bridge.clone(),
        mtu: settings.mtu,
        discovery: settings.discovery,
        relay: settings.relay,
        cipher: engine::pinned(settings.cipher),
        rekey: settings
            .rekey_interval_ms
            .map_or_else(RekeyConfig::default, engine::accelerated),
        addresses: settings.addresses()?,
    })
}

/// What makes the attacher once the peer's name is known.
fn attacher(
    settings: &Settings,
    host: &NetNs,
    gso: GsoLimits,
    docker: &DockerSide,
) -> anyhow::Result<impl FnOnce(PeerName) -> Arc<dyn Attacher> + use<>> {
    let docker = docker.clone();
    let options = AttachOptions {
        mtu: settings.mtu.into(),
        multicast_route: true,
        hairpin: true,
        gso,
        dns: None,
    };
    let guest = match &settings.dns {
        Some(_) => Ok(settings.guest()?),
        None => Err(settings.parked()),
    };
    let (host, bridge) = (host.clone(), settings.bridge.clone());
    let docker_bridge = settings.docker_bridge().map(str::to_owned);
    let addresses = settings.addresses()?;
    Ok(move |name: PeerName| {
        let mut host = Host::new(host, &bridge, name.0);
        if let Some(docker_bridge) = docker_bridge {
            host = host.beside_docker(&docker_bridge);
        }
        let default_subnet = addresses.map(|addresses| addresses.default_subnet);
        let allocator = Allocator::new(default_subnet.map(|_| docker.requests.clone()));
        let api = docker.docker.clone();
        let attacher = HostAttacher::new(host, api, options, guest, allocator, default_subnet);
        docker.serves(&attacher);
        // Ends with the loop that it asks.
        tokio::spawn(attacher.clone().watch());
        Arc::new(attacher) as Arc<dyn Attacher>
    })
}
