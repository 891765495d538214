//! What is measured, what is wanted of it, the samples, and the table in the end.

use std::collections::BTreeMap;

use peerless_benches::summary::Summary;
use serde_json::json;

/// A row: what is measured, and what is wanted of it.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    pub(crate) key: String,
    pub(crate) label: String,
    pub(crate) digits: usize,
    pub(crate) wanted: &'static [Wanted],
}

/// What the first column is to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// So many times what that column has, or less.
    AtMost(f64, &'static str),
    /// So many times what that column has, or more.
    AtLeast(f64, &'static str),
    /// This or less.
    Below(f64),
    /// This or more.
    Above(f64),
}

/// The samples.
#[derive(Debug)]
pub(crate) struct Board {
    measures: Vec<Measure>,
    columns: Vec<&'static str>,
    samples: BTreeMap<(String, &'static str), BTreeMap<u64, f64>>,
}

impl Board {
    pub(crate) fn new(measures: Vec<Measure>, columns: Vec<&'static str>) -> Self {
        Self { measures, columns, samples: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, key: &str, column: &'static str, round: u64, value: f64, json: bool) {
        if json {
            println!("{}", json!({ "sample": key, "of": column, "round": round, "value": value }));
        }
        self.samples.entry((key.to_owned(), column)).or_default().insert(round, value);
    }

    fn summary(&self, measure: &Measure, column: &'static str) -> Option<Summary> {
        Summary::of(self.samples.get(&(measure.key.clone(), column))?.values().copied())
    }

    /// Ours divided by theirs, of the samples of one round.
    fn ratio(&self, measure: &Measure, to: &'static str) -> Option<Summary> {
        let ours = self.samples.get(&(measure.key.clone(), self.columns[0]))?;
        let theirs = self.samples.get(&(measure.key.clone(), to))?;
        Summary::of(ours.iter().filter_map(|(round, value)| Some(value / theirs.get(round)?)))
    }

    pub(crate) fn print_markdown(&self) {
        println!("| | {} | wanted | reached |", self.columns.join(" | "));
        println!("| --- |{}", " --- |".repeat(self.columns.len() + 2));
        for measure in &self.measures {
            let digits = measure.digits;
            let cells = self.columns.iter().map(|column| cell(self.summary(measure, column), digits));
            let wanted = measure.wanted.iter().map(|wanted| wanted.text(digits));
            let reached = measure.wanted.iter().map(|wanted| self.reached(measure, *wanted));
            let [cells, wanted, reached] =
                [cells.collect::<Vec<_>>().join(" | "), join(wanted), join(reached)];
            println!("| {} | {cells} | {wanted} | {reached} |", measure.label);
        }
        println!();
    }

    fn reached(&self, measure: &Measure, wanted: Wanted) -> String {
        let Some((value, found)) = self.found(measure, wanted) else { return "not measured".into() };
        let verdict = if wanted.is_reached(value) { "yes" } else { "**no**" };
        format!("{found}: {verdict}")
    }

    fn found(&self, measure: &Measure, wanted: Wanted) -> Option<(f64, String)> {
        Some(match wanted {
            Wanted::AtMost(_, to) | Wanted::AtLeast(_, to) => {
                let Summary { median, min, max, .. } = self.ratio(measure, to)?;
                (median, format!("{median:.2}x ({min:.2} to {max:.2})"))
            }
            Wanted::Below(_) | Wanted::Above(_) => {
                let Summary { median, .. } = self.summary(measure, self.columns[0])?;
                (median, format!("{median:.*}", measure.digits))
            }
        })
    }

    pub(crate) fn print_json(&self) {
        for measure in &self.measures {
            for column in &self.columns {
                if let Some(summary) = self.summary(measure, column) {
                    println!("{}", json!({ "summary": measure.key, "of": column, "values": summary.json() }));
                }
            }
            for wanted in measure.wanted {
                let Some((value, _)) = self.found(measure, *wanted) else { continue };
                let text = wanted.text(measure.digits);
                let reached = wanted.is_reached(value);
                println!(
                    "{}",
                    json!({ "target": measure.key, "wanted": text, "value": value, "reached": reached })
                );
            }
        }
    }
}

impl Wanted {
    fn text(self, digits: usize) -> String {
        match self {
            Self::AtMost(factor, of) => format!("<= {factor}x {of}"),
            Self::AtLeast(factor, of) => format!(">= {factor}x {of}"),
            Self::Below(value) => format!("<= {value:.digits$}"),
            Self::Above(value) => format!(">= {value:.digits$}"),
        }
    }

    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(most, _) | Self::Below(most) => value <= most,
            Self::AtLeast(least, _) | Self::Above(least) => value >= least,
        }
    }
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("; ")
}

fn cell(summary: Option<Summary>, digits: usize) -> String {
    match summary {
        None => "-".into(),
        // What never ended.
        Some(Summary { median, .. }) if median.is_infinite() => "fails".into(),
        Some(Summary { median, count: 1, .. }) => format!("{median:.digits$}"),
        Some(Summary { median, min, max, .. }) => {
            format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
        }
    }
}

/// A sample for people to watch.
pub(crate) fn line(values: &[(String, f64)]) -> String {
    join(values.iter().map(|(key, value)| format!("{key} {value:.2}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_compared_round_by_round() {
        const WANTED: &[Wanted] = &[Wanted::AtMost(0.5, "them"), Wanted::Below(3.0)];
        let measure = Measure { key: "k".into(), label: "l".into(), digits: 1, wanted: WANTED };
        let mut board = Board::new(vec![measure.clone()], vec!["us", "them"]);
        for (round, us, them) in [(1, 1.0, 4.0), (2, 2.0, 5.0), (3, 9.0, 9.0)] {
            board.add("k", "us", round, us, false);
            board.add("k", "them", round, them, false);
        }
        assert_eq!(board.reached(&measure, WANTED[0]), "0.40x (0.25 to 1.00): yes");
        assert_eq!(board.reached(&measure, WANTED[1]), "2.0: yes");
        assert_eq!(board.reached(&measure, Wanted::AtLeast(0.5, "them")), "0.40x (0.25 to 1.00): **no**");
        assert_eq!(board.reached(&measure, Wanted::AtLeast(0.5, "nobody")), "not measured");
    }
}
