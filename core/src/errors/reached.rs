//! Limits of circuits that were reached.

use std::{fmt, time::Duration};

/// Which limit a circuit has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachedLimit {
    /// Bytes per direction.
    Data(u64),
    /// For how long.
    Duration(Duration),
}

impl fmt::Display for ReachedLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = |n: u64, units: &[(u64, &'static str)]| {
            let unit = units.iter().find(|(size, _)| n >= *size && n.is_multiple_of(*size));
            unit.map_or((n, ""), |(size, name)| (n / size, *name))
        };
        match self {
            Self::Data(bytes) => {
                let sizes = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes")];
                let (n, unit) = units(*bytes, &sizes);
                write!(f, "{n} {unit} per direction")
            }
            Self::Duration(duration) => {
                let (n, unit) = units(duration.as_secs(), &[(3600, "hour"), (60, "minute"), (1, "second")]);
                write!(f, "{n} {unit}{}", if n == 1 { "" } else { "s" })
            }
        }
    }
}
