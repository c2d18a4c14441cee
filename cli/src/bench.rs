//! `weft bench`: has the daemon measure towards a peer and shows what came out.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use weft_control::api::{ApiError, BenchProgress, BenchRequest, BenchResult};

use crate::client::Client;
use crate::output::{self, Format};

/// Steps of the bar; a thousandth is finer than any terminal.
const BAR_STEPS: u64 = 1000;

/// Runs the measurement and prints the result.
///
/// # Errors
///
/// The daemon's line (no such peer, no session), or that it stopped half-way.
pub(crate) fn run(client: &Client, request: &BenchRequest, format: Format) -> anyhow::Result<()> {
    let bar = progress_bar()?;
    let mut result = None;
    let outcome = client.stream("/bench", request, |line| {
        let step = read_step(line)?;
        bar.set_message(step.phase.clone());
        bar.set_position(position(&step));
        if let Some(done) = step.done {
            result = Some(done);
        }
        Ok(())
    });
    bar.finish_and_clear();
    outcome?;
    let Some(result) = result else {
        bail!("the measurement ended before it was done: see the daemon's log");
    };
    match format {
        Format::Json => output::json(&result),
        Format::Text => output::data(&table(&request.peer, &result)),
    }
}

fn progress_bar() -> anyhow::Result<ProgressBar> {
    // Talk, so stderr; and nothing at all when nobody watches.
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{msg:>10} [{bar:40}] {percent:>3}%")
        .context("draw the progress bar")?;
    Ok(ProgressBar::with_draw_target(Some(BAR_STEPS), target).with_style(style))
}

fn read_step(line: &str) -> anyhow::Result<BenchProgress> {
    if let Ok(step) = serde_json::from_str(line) {
        return Ok(step);
    }
    match serde_json::from_str::<ApiError>(line) {
        Ok(said) => bail!("{}", said.error),
        Err(_) => bail!(
            "the daemon's answer is not understood: it may be another version than this command"
        ),
    }
}

fn position(step: &BenchProgress) -> u64 {
    let share = if step.phase_s > 0.0 {
        (step.elapsed_s / step.phase_s).clamp(0.0, 1.0)
    } else {
        0.0
    };
    // The share taken as seconds has a thousand milliseconds: as many as the bar has steps.
    let steps = Duration::try_from_secs_f64(share)
        .unwrap_or_default()
        .as_millis();
    u64::try_from(steps).unwrap_or(BAR_STEPS)
}

fn table(peer: &str, result: &BenchResult) -> String {
    let [p50, p90, p99, p999, max] = result.latency_us;
    format!(
        "bench {peer}\n\
         throughput  {:.2} Gbit/s  loss {}\n\
         packets     {} frames/s of 64 bytes  loss {}\n\
         latency     p50 {} p90 {} p99 {} p99.9 {} max {}  ({} round trips)\n",
        result.throughput_gbps,
        percent(result.throughput_loss),
        thousands(result.packets_per_s),
        percent(result.packets_loss),
        micros(p50),
        micros(p90),
        micros(p99),
        micros(p999),
        micros(max),
        result.latency_count,
    )
}

fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

fn micros(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.0}us")
    } else {
        format!("{:.1}ms", us / 1000.0)
    }
}

/// Returns a count with its thousands apart: `1 234 567`.
fn thousands(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_each_figure_with_its_unit() {
        let result = BenchResult {
            throughput_gbps: 9.876,
            throughput_loss: 0.0123,
            packets_per_s: 1_234_567.8,
            packets_loss: 0.0,
            latency_us: [41.0, 55.5, 120.0, 900.4, 2_345.0],
            latency_count: 51_234,
        };

        assert_eq!(
            table("host2", &result),
            "bench host2\n\
             throughput  9.88 Gbit/s  loss 1.23%\n\
             packets     1 234 568 frames/s of 64 bytes  loss 0.00%\n\
             latency     p50 41us p90 56us p99 120us p99.9 900us max 2.3ms  (51234 round trips)\n"
        );
    }

    #[test]
    fn the_bar_follows_the_phase_and_stays_in_bounds() {
        let at = |elapsed_s, phase_s| {
            position(&BenchProgress {
                phase: String::new(),
                elapsed_s,
                phase_s,
                done: None,
            })
        };

        assert_eq!(at(0.0, 3.0), 0);
        assert_eq!(at(1.5, 3.0), 500);
        assert_eq!(at(4.0, 3.0), 1000);
        assert_eq!(at(1.0, 0.0), 0);
    }

    #[test]
    fn an_error_in_the_stream_is_the_daemons_own_line() {
        let error = read_step(r#"{"error":"peer host2 has gone"}"#).unwrap_err();

        assert_eq!(error.to_string(), "peer host2 has gone");
    }
}
