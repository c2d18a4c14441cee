//! The records as markdown: one table for each mode, medians with minimum and maximum.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::cases::Case;
use crate::pair::Mode;
use crate::record::{Figures, Record};

/// One column: which case, which figure, how shown.
struct Column {
    title: &'static str,
    case: Case,
    figure: fn(&Figures) -> Option<f64>,
    decimals: usize,
}

const fn column(
    title: &'static str,
    case: Case,
    figure: fn(&Figures) -> Option<f64>,
    decimals: usize,
) -> Column {
    Column {
        title,
        case,
        figure,
        decimals,
    }
}

const COLUMNS: [Column; 16] = [
    column("TCP x1 Gbit/s", Case::Tcp1, |f| f.gbit_per_s, 2),
    column("TCP x4", Case::Tcp4, |f| f.gbit_per_s, 2),
    column("TCP x8", Case::Tcp8, |f| f.gbit_per_s, 2),
    column("x1 machine CPU-s/GB", Case::Tcp1, |f| f.machine_s_per_gb, 2),
    column("x1 daemons CPU-s/GB", Case::Tcp1, |f| f.daemons_s_per_gb, 2),
    column("x1 retransmits", Case::Tcp1, |f| f.retransmits, 0),
    column(
        "UDP 64 B flood, k/s delivered",
        Case::Udp64,
        |f| f.kilo_datagrams_per_s,
        0,
    ),
    column(
        "daemons us each",
        Case::Udp64,
        |f| f.daemons_us_per_datagram,
        1,
    ),
    column(
        "UDP 1300 B 40 k/s, % lost",
        Case::Udp1300Paced,
        |f| f.loss_percent,
        1,
    ),
    column(
        "daemons us each",
        Case::Udp1300Paced,
        |f| f.daemons_us_per_datagram,
        1,
    ),
    column(
        "UDP 1300 B flood, k/s delivered",
        Case::Udp1300,
        |f| f.kilo_datagrams_per_s,
        0,
    ),
    column(
        "daemons us each",
        Case::Udp1300,
        |f| f.daemons_us_per_datagram,
        1,
    ),
    column("ping p50 us", Case::Ping, |f| f.ping_p50_us, 0),
    column("ping p99 us", Case::Ping, |f| f.ping_p99_us, 0),
    column("x1 steal %", Case::Tcp1, |f| Some(f.steal_percent), 1),
    column(
        "x1 fragments",
        Case::Tcp1,
        |f| Some(f64::from(u32::try_from(f.fragments).unwrap_or(u32::MAX))),
        0,
    ),
];

/// All tables; modes in their own order, peers in that of the records.
pub(crate) fn markdown(records: &[Record]) -> String {
    let mut by_mode: BTreeMap<Mode, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_mode.entry(record.mode).or_default().push(record);
    }
    let mut text = String::new();
    for (mode, records) in by_mode {
        one_mode(&mut text, mode, &records);
    }
    text
}

fn one_mode(text: &mut String, mode: Mode, records: &[&Record]) {
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .filter(|column| records.iter().any(|record| record.case == column.case))
        .collect();
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    let mut peers: Vec<&str> = Vec::new();
    for record in records {
        if !peers.contains(&record.peer.as_str()) {
            peers.push(&record.peer);
        }
    }
    // Writing into a String cannot fail.
    let _ = writeln!(text, "\n### {}: {}\n", mode.name(), mode.describe());
    let _ = writeln!(text, "| peer | MTU | {} |", titles.join(" | "));
    let _ = writeln!(text, "|---|---|{}", "---|".repeat(columns.len()));
    for peer in peers {
        let own: Vec<&Record> = records
            .iter()
            .copied()
            .filter(|record| record.peer == peer)
            .collect();
        let mtu = own
            .iter()
            .map(|record| record.figures.mtu)
            .max()
            .unwrap_or(0);
        let cells: Vec<String> = columns.iter().map(|column| cell(column, &own)).collect();
        let _ = writeln!(text, "| {peer} | {mtu} | {} |", cells.join(" | "));
    }
}

fn cell(column: &Column, records: &[&Record]) -> String {
    let of_case = || records.iter().filter(|record| record.case == column.case);
    let mut values: Vec<f64> = of_case()
        .filter(|record| record.error.is_none())
        .filter_map(|record| (column.figure)(&record.figures))
        .collect();
    let failed = of_case().filter(|record| record.error.is_some()).count();
    values.sort_by(f64::total_cmp);
    let decimals = column.decimals;
    let shown = match values.as_slice() {
        [] => String::new(),
        [only] => format!("{only:.decimals$}"),
        [least, .., most] => {
            format!(
                "{:.decimals$} ({least:.decimals$} to {most:.decimals$})",
                median(&values)
            )
        }
    };
    match failed {
        0 => shown,
        count => format!("{shown} failed {count}x").trim_start().to_owned(),
    }
}

/// Of values in order, at least one.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert!((median(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0, 9.0]) - 2.0).abs() < 1e-9);
    }
}
