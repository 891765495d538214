//! Which rooms of `core` import which: the folders and files right under `core/src`, drawn from the paths in the code.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// Names, values and errors that every room shares; together they are one room.
pub(crate) const GROUND: &[&str] = &[
    "codes", "counters", "errors", "identity", "ids", "info", "names", "network", "rate", "rng", "storage",
    "time", "trace",
];

/// Rooms, and what each of them imports, with a place where it does.
#[derive(Debug, Default)]
pub(crate) struct Rooms(BTreeMap<String, BTreeMap<String, String>>);

impl Rooms {
    /// Adds the imports of the file at `path`, such as `core/src/quic/mod.rs`.
    pub(crate) fn add(&mut self, path: &str, source: &Source) {
        let module = path.trim_start_matches("core/src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let module: Vec<_> = module.split('/').collect();
        if module == ["lib"] {
            return;
        }
        let from = room(module[0]);
        for (number, line) in source.lines() {
            let found = after(line, "crate::").into_iter().chain(above(line, module.len()));
            for to in found.map(room).filter(|to| *to != from) {
                let uses = self.0.entry(from.into()).or_default();
                uses.entry(to.into()).or_insert_with(|| format!("{path}:{number}"));
            }
        }
    }

    /// A circle of rooms that import each other, if there is one: each with the place where it imports the next.
    pub(crate) fn circle(&self) -> Option<Vec<String>> {
        let mut done = BTreeSet::new();
        self.0.keys().find_map(|start| self.circle_from(start, &mut Vec::new(), &mut done))
    }

    fn circle_from<'a>(
        &'a self,
        at: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(first) = way.iter().position(|room| *room == at) {
            let next = way[first + 1..].iter().chain([&at]);
            let import = |(from, to): (&&str, &&str)| format!("{from} -> {to} at {}", self.0[*from][*to]);
            return Some(way[first..].iter().zip(next).map(import).collect());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let uses = self.0.get(at).into_iter().flat_map(BTreeMap::keys);
        let found = uses.into_iter().find_map(|to| self.circle_from(to, way, done));
        way.pop();
        found
    }
}

fn room(name: &str) -> &str {
    if GROUND.contains(&name) { "the ground" } else { name }
}

/// The names that follow `prefix` in a line.
fn after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let starts = |at: usize| !line[..at].ends_with(is_name);
    let name = |at: usize| {
        let rest = &line[at + prefix.len()..];
        &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())]
    };
    line.match_indices(prefix).filter(|(at, _)| starts(*at)).map(|(at, _)| name(at)).collect()
}

/// The rooms that paths of `super` lead to from a module `depth` levels deep.
fn above(line: &str, depth: usize) -> Vec<&str> {
    let way = "super::".repeat(depth);
    after(line, &way).into_iter().filter(|name| *name != "super").collect()
}
