//! Sizes, durations, ports and resources as people write them.

use std::ops::RangeInclusive;
use std::time::Duration;

/// An amount of memory, as `--memory-limit` takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Memory {
    /// What the node allows.
    Auto,
    /// A part of what the node allows, above 0 and at most 1.
    Fraction(f64),
    /// So many bytes; 0 is no limit.
    Bytes(u64),
}

/// How many workers, as `--nworkers` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// So many.
    Count(u32),
    /// One for each core, but for so many cores.
    CoresBut(u32),
}

impl Workers {
    const MAX: u32 = 4096;

    /// How many these are where there are so many cores.
    pub(crate) fn count(self, cores: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::CoresBut(others) => cores.saturating_sub(others).clamp(1, Self::MAX),
        }
    }
}

/// `4`; `-1` for one per core, `-2` for one less, as in Dask. `auto` is one with all cores: threads
/// of one process share values, and nothing in it runs one thread at a time, as Python does.
pub(crate) fn workers(text: &str) -> Result<Workers, String> {
    let wrong =
        || format!("{text:?} is no number of workers: write 1 to {}, -1 or auto", Workers::MAX);
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Workers::Count(1));
    }
    let number: i32 = text.parse().map_err(|_| wrong())?;
    match (number > 0, number.unsigned_abs()) {
        (true, count) if count <= Workers::MAX => Ok(Workers::Count(count)),
        (false, less @ 1..) => Ok(Workers::CoresBut(less - 1)),
        _ => Err(wrong()),
    }
}

/// Less is a part above 1, a percentage or a forgotten unit.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1_000),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("tb", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("kib", 1 << 10),
    ("mi", 1 << 20),
    ("mib", 1 << 20),
    ("gi", 1 << 30),
    ("gib", 1 << 30),
    ("ti", 1 << 40),
    ("tib", 1 << 40),
];

const DURATION_UNITS: &[(&str, f64)] = &[
    ("", 1.0),
    ("ms", 1e-3),
    ("s", 1.0),
    ("sec", 1.0),
    ("second", 1.0),
    ("seconds", 1.0),
    ("m", 60.0),
    ("min", 60.0),
    ("minute", 60.0),
    ("minutes", 60.0),
    ("h", 3600.0),
    ("hr", 3600.0),
    ("hour", 3600.0),
    ("hours", 3600.0),
    ("d", 86400.0),
    ("day", 86400.0),
    ("days", 86400.0),
];

/// `0`, `auto`, `0.5` of what there is, `4GiB` (of two), `5GB` and `5000M` (of ten), as in Dask.
pub(crate) fn memory(text: &str) -> Result<Memory, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Memory::Auto);
    }
    if let Some(part) = text.parse::<f64>().ok().filter(|part| *part > 0.0 && *part <= 1.0) {
        return Ok(Memory::Fraction(part));
    }
    match size(text)? {
        bytes @ 1..MEMORY_BYTES_MIN => Err(format!(
            "{bytes} bytes are too little for any program: write a unit such as 4GiB, or a part of \
             at most 1 such as 0.5"
        )),
        bytes => Ok(Memory::Bytes(bytes)),
    }
}

/// A number of bytes: `1000`, `5GB` (of ten), `4GiB` (of two), `1e9`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no size: write bytes, or a number and a unit such as 4GiB or 5GB");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit = unit.to_ascii_lowercase();
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let bytes = number * *factor as f64;
    if bytes.is_finite() && (0.0..9e18).contains(&bytes) {
        Ok(bytes.round() as u64)
    } else {
        Err(wrong())
    }
}

/// A time: `90`, `90s`, `1h 30m`, `5 minutes`, `1-02:00:00`, `01:30:00`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!("{text:?} is no time: write seconds, or such as 90s, 5 minutes, 1h 30m, 01:30:00")
    };
    let seconds = if text.contains(':') { clock(text) } else { units(text) };
    let seconds = seconds.ok_or_else(wrong)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// As Slurm writes times: `[days-]hours:minutes:seconds`, `minutes:seconds`.
fn clock(text: &str) -> Option<f64> {
    let (days, rest) = match text.trim().split_once('-') {
        Some((days, rest)) => (days.parse::<u32>().ok()?, rest),
        None => (0, text.trim()),
    };
    let parts: Option<Vec<u32>> = rest.split(':').map(|part| part.parse().ok()).collect();
    let seconds = match parts?[..] {
        [minutes, seconds] => f64::from(minutes) * 60.0 + f64::from(seconds),
        [hours, minutes, seconds] => {
            f64::from(hours) * 3600.0 + f64::from(minutes) * 60.0 + f64::from(seconds)
        }
        _ => return None,
    };
    Some(f64::from(days) * 86400.0 + seconds)
}

fn units(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = after[..end].to_ascii_lowercase();
        let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        // Only a number alone goes without a unit.
        if unit.is_empty() && rest.len() != text.trim().len() {
            return None;
        }
        seconds += number * factor;
        rest = after[end..].trim_start();
        if unit.is_empty() && !rest.is_empty() {
            return None;
        }
    }
    Some(seconds)
}

/// One port or an inclusive range: `8786`, `30000:30100`.
pub(crate) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{text:?} is no port or range of ports: write 30000 or 30000:30100");
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let (first, last) = (first.trim().parse::<u16>(), last.trim().parse::<u16>());
    match (first, last) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err(wrong()),
    }
}

/// What a worker has besides slots: `GPU=2 MEM=10e9`, also with commas; in ten-thousandths.
pub(crate) fn resources(text: &str) -> Result<Vec<(String, u64)>, String> {
    let mut all = Vec::new();
    for item in text.split([',', ' ']).filter(|item| !item.is_empty()) {
        let wrong = || format!("{item:?} is no resource: write NAME=NUMBER, such as GPU=2");
        let (name, number) = item.split_once('=').ok_or_else(wrong)?;
        let number: f64 = number.parse().map_err(|_| wrong())?;
        if name.is_empty() || !number.is_finite() || !(0.0..1e14).contains(&number) {
            return Err(wrong());
        }
        all.push((name.to_owned(), (number * 1e4).round() as u64));
    }
    all.sort();
    match all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(format!("resource {} is given twice", pair[0].0)),
        None => Ok(all),
    }
}

/// An environment variable: `NAME=VALUE`.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} sets no variable: write NAME=VALUE")),
    }
}

/// A size for people: both of two and of ten.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, factor)| bytes >= *factor) {
        Some((name, factor)) => {
            let text = format!("{:.1}", bytes as f64 / *factor as f64);
            format!("{} {name}", text.trim_end_matches(".0"))
        }
        None => format!("{bytes} B"),
    }
}

fn split(text: &str) -> Option<(f64, &str)> {
    let (number, unit) = leading_number(text.trim())?;
    Some((number, unit.trim()))
}

/// The longest number at the beginning, exponent included.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let is_numeric = |c: char| c.is_ascii_digit() || c == '.';
    let numbers = (1..=text.len())
        .rev()
        .filter(|end| text.is_char_boundary(*end))
        .map(|end| text.split_at(end))
        .filter(|(number, _)| number.starts_with(is_numeric) && number.ends_with(is_numeric));
    let mut parsed = numbers.filter_map(|(number, rest)| Some((number.parse().ok()?, rest)));
    parsed.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_dask_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("5GB", 5_000_000_000),
            ("5 gb", 5_000_000_000),
            ("5000M", 5_000_000_000),
            ("4GiB", 4 << 30),
            ("4Gi", 4 << 30),
            ("1.5KiB", 1536),
            ("1e9", 1_000_000_000),
            ("1e3 MB", 1_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "-1", "4 XB", "GB", "1e99", "nan", "inf", "4GiB4"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_may_be_a_part() {
        assert_eq!(memory("auto"), Ok(Memory::Auto));
        assert_eq!(memory("0"), Ok(Memory::Bytes(0)));
        assert_eq!(memory("0.5"), Ok(Memory::Fraction(0.5)));
        assert_eq!(memory("1"), Ok(Memory::Fraction(1.0)));
        assert_eq!(memory("2MB"), Ok(Memory::Bytes(2_000_000)));
        assert!(memory("1.5").is_err_and(|error| error.contains("at most 1")));
        assert!(memory("50").is_err());
        assert_eq!(memory("4GiB"), Ok(Memory::Bytes(4 << 30)));
        assert!(memory("half").is_err());
    }

    #[test]
    fn workers_are_counted_as_dask_counts_them() {
        assert_eq!(workers("4").unwrap().count(8), 4);
        assert_eq!(workers("auto").unwrap().count(8), 1);
        assert_eq!(workers("-1").unwrap().count(8), 8);
        assert_eq!(workers("-3").unwrap().count(8), 6);
        assert_eq!(workers("-9").unwrap().count(8), 1);
        assert_eq!(workers("-1").unwrap().count(100_000), 4096);
        for text in ["0", "5000", "many", "1.5", ""] {
            assert!(workers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_in_every_usual_form() {
        for (text, seconds) in [
            ("90", 90.0),
            ("90s", 90.0),
            ("1h 30m", 5400.0),
            ("1h30m", 5400.0),
            ("5 minutes", 300.0),
            ("1.5h", 5400.0),
            ("250ms", 0.25),
            ("2 days", 172_800.0),
            ("01:30:00", 5400.0),
            ("05:00", 300.0),
            ("1-02:00:00", 93_600.0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "s", "-5", "5 fortnights", "5 5", "1h 30", "1:2:3:4", "x:00", "1e99"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_and_resources() {
        assert_eq!(ports("8786"), Ok(8786..=8786));
        assert_eq!(ports("30000:30100"), Ok(30000..=30100));
        for text in ["", "x", "3:2", "70000", "1:2:3"] {
            assert!(ports(text).is_err(), "{text}");
        }
        let expected = vec![("GPU".to_owned(), 20_000), ("MEM".to_owned(), 100_000_000_000_000)];
        assert_eq!(resources("MEM=10e9 GPU=2"), Ok(expected));
        assert_eq!(resources(""), Ok(Vec::new()));
        for text in ["GPU", "=2", "GPU=x", "GPU=-1", "GPU=1 GPU=2"] {
            assert!(resources(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_for_people() {
        let shown = [0, 1023, 1536, 4 << 30].map(show_size);
        assert_eq!(shown, ["0 B", "1023 B", "1.5 KiB", "4 GiB"]);
    }
}
