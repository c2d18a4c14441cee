//! The record as a plot: how the figures grow with the number of hosts, both axes logarithmic.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;

/// Reads a figure out of a run.
type Figure = fn(&Value) -> Option<f64>;

/// The lines: name with unit, colour, figure.
const LINES: [(&str, &str, Figure); 6] = [
    ("cold start, s", "#1b6ca8", |run| {
        run["cold_start_s"].as_f64()
    }),
    ("change known, p99, s", "#c0392b", |run| {
        run["change_ms"]["p99"].as_f64().map(|ms| ms / 1000.0)
    }),
    ("… with 20 % loss, s", "#e08e79", |run| {
        run["change_lossy_ms"]["p99"].as_f64().map(|ms| ms / 1000.0)
    }),
    ("halves joined, s", "#27835a", |run| run["heal_s"].as_f64()),
    ("idle control, kbit/s", "#7d3c98", |run| {
        run["idle_kbit"]["mean"].as_f64()
    }),
    ("links of a host", "#8a6d1d", |run| {
        run["links"]["mean"].as_f64()
    }),
];

/// The whole picture.
pub(crate) fn svg(runs: &[Value]) -> String {
    let points = |figure: Figure| -> Vec<(f64, f64)> {
        runs.iter()
            .filter_map(|run| Some((run["hosts"].as_f64()?, figure(run)?)))
            .filter(|(hosts, value)| *hosts > 0.0 && *value > 0.0)
            .collect()
    };
    let all: Vec<_> = LINES
        .iter()
        .flat_map(|(_, _, figure)| points(*figure))
        .collect();
    let x = Axis::over(all.iter().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Axis::over(all.iter().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut line = |element: String| {
        writeln!(text, "{element}").expect("a string takes all");
    };
    let axes = axes(runs, &x, &y);
    line(axes);
    for (number, (name, colour, figure)) in LINES.iter().enumerate() {
        let places: Vec<_> = points(*figure)
            .into_iter()
            .map(|(hosts, value)| (x.place(hosts), y.place(value)))
            .collect();
        let path: Vec<_> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        line(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        ));
        for (x, y) in &places {
            line(format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
            ));
        }
        let at = TOP + 20.0 + 22.0 * number as f64;
        line(format!(
            "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{3}\" y=\"{4}\">{name}</text>",
            WIDTH - RIGHT + 20.0,
            WIDTH - RIGHT + 45.0,
            at - 4.0,
            WIDTH - RIGHT + 52.0,
            at
        ));
    }
    text.push_str("</svg>\n");
    text
}

/// The lines behind the curves, and the numbers beside them.
fn axes(runs: &[Value], x: &Axis, y: &Axis) -> String {
    let mut text = String::new();
    let mut line = |element: String| {
        writeln!(text, "{element}").expect("a string takes all");
    };
    for power in y.powers() {
        let at = y.place(power);
        line(format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{power}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0
        ));
    }
    for run in runs {
        let hosts = run["hosts"].as_f64().unwrap_or(1.0);
        line(format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{hosts}</text>",
            x.place(hosts),
            HEIGHT - BOTTOM + 20.0
        ));
    }
    line(format!(
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">hosts</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0
    ));
    text
}

/// A logarithmic axis over whole powers of ten.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let high = values.fold(0.0, f64::max).log10().ceil();
        let fits = low.is_finite() && high.is_finite();
        let (low, high) = if fits {
            (low, high.max(low + 1.0))
        } else {
            (0.0, 1.0)
        };
        Self {
            low,
            high,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    fn powers(&self) -> Vec<f64> {
        let mut powers = Vec::new();
        let mut exponent = self.low;
        while exponent <= self.high {
            powers.push(10_f64.powf(exponent));
            exponent += 1.0;
        }
        powers
    }
}
