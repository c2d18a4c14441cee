//! One measurement, as the JSON file holds it.

use serde::{Deserialize, Serialize};

use crate::cases::Case;
use crate::pair::Mode;

/// What one case of one peer gave in one round; what a case does not measure is absent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) peer: String,
    pub(crate) mode: Mode,
    pub(crate) case: Case,
    pub(crate) round: u32,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// Why there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// The numbers of a measurement.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// MTU inside the tunnel, bytes.
    pub(crate) mtu: u32,
    /// Delivered payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gbit_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retransmits: Option<f64>,
    /// Delivered datagrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kilo_datagrams_per_s: Option<f64>,
    /// Of the datagrams sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loss_percent: Option<f64>,
    /// Processor time of both daemons for each datagram delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) daemons_us_per_datagram: Option<f64>,
    /// Processor time of the whole machine for each 10^9 bytes delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) machine_s_per_gb: Option<f64>,
    /// Processor time of both daemons for each 10^9 bytes delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) daemons_s_per_gb: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ping_p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ping_p99_us: Option<f64>,
    /// Processor time that the hypervisor took, of all that passed.
    pub(crate) steal_percent: f64,
    /// IP fragments that either host made: not 0 means that the tunnel's MTU is too big.
    pub(crate) fragments: u64,
}

impl Record {
    /// The numbers, or why there are none, on one line for progress.
    pub(crate) fn line(&self) -> String {
        self.error
            .as_ref()
            .map_or_else(|| self.figures.line(), |error| format!("failed: {error}"))
    }
}

impl Figures {
    fn line(&self) -> String {
        let all = [
            (self.gbit_per_s, "Gbit/s"),
            (self.kilo_datagrams_per_s, "k/s"),
            (self.loss_percent, "% lost"),
            (self.machine_s_per_gb, "CPU-s/GB"),
            (self.daemons_us_per_datagram, "us/datagram"),
            (self.ping_p50_us, "us p50"),
            (self.ping_p99_us, "us p99"),
            (Some(self.steal_percent), "% steal"),
        ];
        let present = all
            .iter()
            .filter_map(|(figure, unit)| Some(format!("{:.2} {unit}", (*figure)?)));
        present.collect::<Vec<_>>().join(", ")
    }
}
