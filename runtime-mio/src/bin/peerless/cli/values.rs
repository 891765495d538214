//! Numbers, sizes, times and rates as flags and the configuration file have them.

use std::{ops::RangeInclusive, time::Duration};

use peerless_core::rate::Rate;

pub(crate) fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a whole number is needed".into())
}

pub(crate) fn limit(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "a whole number is needed, 0 for no limit".into())
}

pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    const RIGHT: &str =
        "a rate is how many at once and after which time one more, like 30/2m; 0 for no limit";
    if text == "0" {
        return Ok(Rate::UNLIMITED);
    }
    let (burst, every) = text.split_once('/').ok_or(RIGHT)?;
    Ok(Rate { burst: burst.parse().map_err(|_| RIGHT)?, every: time(every).map_err(|_| RIGHT)? })
}

pub(crate) fn count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a whole number from 1 up is needed".into())
}

pub(crate) fn streams(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=256).contains(n))
        .ok_or_else(|| "a number from 1 to 256 is needed".into())
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    scaled(text, &units, 1).map_err(|wrong| match wrong {
        Wrong::Form => {
            "a size is a whole number of bytes, or one followed by KiB, MiB, GiB, TiB, KB, MB, GB or TB"
                .into()
        }
        Wrong::Amount => format!("that is too much: a size has {} bytes at most", u64::MAX),
    })
}

pub(crate) fn record_size(text: &str) -> Result<u64, String> {
    let max = peerless_proto::envelope::MAX_ENVELOPE_LEN as u64;
    let bytes = size(text)?;
    if (1..=max).contains(&bytes) { Ok(bytes) } else { Err(format!("a record has 1 to {max} bytes")) }
}

pub(crate) fn window(text: &str) -> Result<u32, String> {
    const RANGE: RangeInclusive<u64> = 16 << 10..=64 << 20;
    let bytes = size(text)?;
    let fits = u32::try_from(bytes).ok().filter(|_| RANGE.contains(&bytes));
    fits.ok_or_else(|| "a window has 16KiB to 64MiB".into())
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    // In milliseconds.
    let units = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 24 * 3_600_000),
        ("w", 7 * 24 * 3_600_000),
    ];
    scaled(text, &units, 1000).map(Duration::from_millis).map_err(|wrong| match wrong {
        Wrong::Form => "a time is a whole number followed by ms, s, m, h, d or w".into(),
        Wrong::Amount => format!("that is too long: a time has {} ms at most", u64::MAX),
    })
}

/// What is wrong with a number and its unit.
enum Wrong {
    Form,
    /// It cannot be counted.
    Amount,
}

/// A number and its unit, in capitals or not; without one it is a number of `bare`.
fn scaled(text: &str, units: &[(&str, u64)], bare: u64) -> Result<u64, Wrong> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim_start() {
        "" => bare,
        unit => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(Wrong::Form)?.1,
    };
    if number.is_empty() {
        return Err(Wrong::Form);
    }
    // Digits alone, so only their number can be wrong.
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).ok_or(Wrong::Amount)
}
