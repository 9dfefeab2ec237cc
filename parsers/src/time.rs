//! Time stamps of log lines (station 4): a small, fixed part of `strptime`, read by hand without allocation.
//!
//! Directives: `%Y` year, `%y` year of two digits (69-99 are 19xx), `%m` `%d` `%H` `%M` `%S` numbers of one or two digits (`%d`
//! also after a space), `%b` English month, `%a` English weekday (ignored), `%f` fraction of a second of any length, `%.f`
//! the same with its `.` or `,` and optional, `%L` milliseconds as a whole number, `%s` seconds since the epoch, `%z` `Z` or `+hh:mm` or nothing,
//! `%%`. Anything else stands for itself; a space for one or more.

/// A compiled time format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat {
    steps: Vec<Step>,
    has_year: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Literal(u8),
    Spaces,
    Year,
    ShortYear,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    MonthName,
    Weekday,
    Fraction,
    OptionalFraction,
    Millis,
    Epoch,
    Zone,
}

const NANOS: i64 = 1_000_000_000;

impl TimeFormat {
    /// Compiles `format`.
    ///
    /// # Errors
    /// Names the directive that is unknown.
    pub fn new(format: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = format.as_bytes();
        while let [first, more @ ..] = rest {
            rest = more;
            steps.push(match first {
                b'%' => {
                    let (step, after) = match rest {
                        [b'.', b'f', after @ ..] => (Step::OptionalFraction, after),
                        [directive, after @ ..] => (
                            match directive {
                                b'Y' => Step::Year,
                                b'y' => Step::ShortYear,
                                b'm' => Step::Month,
                                b'd' => Step::Day,
                                b'H' => Step::Hour,
                                b'M' => Step::Minute,
                                b'S' => Step::Second,
                                b'b' => Step::MonthName,
                                b'a' => Step::Weekday,
                                b'f' => Step::Fraction,
                                b'L' => Step::Millis,
                                b's' => Step::Epoch,
                                b'z' => Step::Zone,
                                b'%' => Step::Literal(b'%'),
                                other => return Err(format!("time directive `%{}` is unknown", char::from(*other))),
                            },
                            after,
                        ),
                        [] => return Err("time format ends in `%`".into()),
                    };
                    rest = after;
                    step
                }
                b' ' => Step::Spaces,
                literal => Step::Literal(*literal),
            });
        }
        let has_year = steps.iter().any(|step| matches!(step, Step::Year | Step::ShortYear | Step::Epoch));
        Ok(Self { steps, has_year })
    }

    /// Nanoseconds since the epoch for `text`. A format without year takes it from `observed_unix_nano`: the latest
    /// such date that is no more than a day after it.
    #[must_use]
    pub fn parse(&self, text: &[u8], observed_unix_nano: i64, utc_offset_minutes: i32) -> Option<i64> {
        let mut rest = text;
        let (mut year, mut month, mut day) = (None, 1, 1);
        let (mut hour, mut minute, mut second, mut nanos) = (0, 0, 0, 0);
        let mut epoch = None;
        let mut offset_seconds = i64::from(utc_offset_minutes) * 60;
        for step in &self.steps {
            match step {
                Step::Literal(byte) => rest = rest.strip_prefix(&[*byte])?,
                Step::Spaces => {
                    let n = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
                    rest = (n > 0).then(|| &rest[n..])?;
                }
                Step::Year => year = Some(number(&mut rest, 4, 4)?),
                Step::ShortYear => {
                    let short = number(&mut rest, 2, 2)?;
                    year = Some(if short < 69 { 2000 + short } else { 1900 + short });
                }
                Step::Month => month = number(&mut rest, 1, 2)?,
                Step::Day => {
                    rest = rest.trim_ascii_start();
                    day = number(&mut rest, 1, 2)?;
                }
                Step::Hour => hour = number(&mut rest, 1, 2)?,
                Step::Minute => minute = number(&mut rest, 1, 2)?,
                Step::Second => second = number(&mut rest, 1, 2)?,
                Step::MonthName => {
                    let name = rest.get(..3)?;
                    month = 1 + MONTHS.iter().position(|other| name.eq_ignore_ascii_case(other))? as i64;
                    rest = &rest[3..];
                }
                Step::Weekday => {
                    let n = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
                    rest = (n >= 3).then(|| &rest[n..])?;
                }
                Step::Fraction => nanos = fraction(&mut rest)?,
                Step::OptionalFraction => {
                    if let [b'.' | b',', more @ ..] = rest {
                        rest = more;
                        nanos = fraction(&mut rest)?;
                    }
                }
                Step::Millis => nanos = number(&mut rest, 1, 3)? * 1_000_000,
                Step::Epoch => epoch = Some(number(&mut rest, 1, 12)?),
                Step::Zone => offset_seconds = zone(&mut rest, offset_seconds)?,
            }
        }
        if !rest.is_empty() {
            return None;
        }
        if let Some(epoch) = epoch {
            return epoch.checked_mul(NANOS)?.checked_add(nanos);
        }
        let in_range = (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && (0..=23).contains(&hour)
            && (0..=59).contains(&minute)
            && (0..=60).contains(&second);
        if !in_range {
            return None;
        }
        let at = |year: i64| {
            let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
            (seconds - offset_seconds).checked_mul(NANOS)?.checked_add(nanos)
        };
        if self.has_year {
            return at(year?);
        }
        let this_year = year_of(observed_unix_nano.div_euclid(NANOS));
        match at(this_year)? {
            time if time > observed_unix_nano.saturating_add(86_400 * NANOS) => at(this_year - 1),
            time => Some(time),
        }
    }
}

const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

fn number(rest: &mut &[u8], min: usize, max: usize) -> Option<i64> {
    let n = rest.iter().take(max).take_while(|b| b.is_ascii_digit()).count();
    if n < min {
        return None;
    }
    let value = rest[..n].iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    *rest = &rest[n..];
    Some(value)
}

fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let n = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, after) = rest.split_at(n);
    *rest = after;
    let nanos = digits.iter().take(9).fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    (n > 0).then(|| nanos * 10_i64.pow(9 - n.min(9) as u32))
}

fn zone(rest: &mut &[u8], default: i64) -> Option<i64> {
    let sign = match rest {
        [b'Z' | b'z', after @ ..] => {
            *rest = after;
            return Some(0);
        }
        [b'+', after @ ..] => {
            *rest = after;
            1
        }
        [b'-', after @ ..] => {
            *rest = after;
            -1
        }
        _ => return Some(default),
    };
    let hours = number(rest, 2, 2)?;
    *rest = rest.strip_prefix(b":").unwrap_or(rest);
    let minutes = if rest.is_empty() { 0 } else { number(rest, 2, 2)? };
    Some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970-01-01 in the Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn year_of(unix_seconds: i64) -> i64 {
    let days = unix_seconds.div_euclid(86_400);
    let guess = 1970 + days.div_euclid(366);
    (guess..).find(|year| days_from_civil(year + 1, 1, 1) > days).unwrap_or(guess)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(format: &str, text: &str, observed: i64) -> Option<i64> {
        TimeFormat::new(format).expect("a known format").parse(text.as_bytes(), observed, 0)
    }

    #[test]
    fn each_format_in_use_is_read() {
        let second = 1_117_838_570 * NANOS;
        assert_eq!(parse("%Y-%m-%d-%H.%M.%S.%f", "2005-06-03-22.42.50.363779", 0), Some(second + 363_779_000));
        assert_eq!(parse("%s", "1117838570", 0), Some(second));
        assert_eq!(parse("%y%m%d %H%M%S", "081109 203530", 0), Some(1_226_262_930 * NANOS));
        assert_eq!(parse("%Y-%m-%d %H:%M:%S%.f", "2015-10-18 18:01:47,978", 0), Some(1_445_191_307_978_000_000));
        assert_eq!(parse("%Y-%m-%d %H:%M:%S%.f", "2015-10-18 18:01:47", 0), Some(1_445_191_307 * NANOS));
        assert_eq!(parse("%a %b %d %H:%M:%S %Y", "Sun Dec 04 04:47:44 2005", 0), Some(1_133_671_664 * NANOS));
        assert_eq!(parse("%Y%m%d-%H:%M:%S:%L", "20171224-0:7:20:44", 0), Some(1_514_074_040_044_000_000));
        let zoned = parse("%Y-%m-%dT%H:%M:%S%.f%z", "2024-02-29T23:30:00.5+01:30", 0);
        assert_eq!(zoned, Some(1_709_244_000_500_000_000));
    }

    #[test]
    fn a_missing_year_is_the_latest_that_is_not_in_the_future() {
        let observed = parse("%Y-%m-%d", "2006-01-02", 0).expect("a date");
        let december = parse("%b %d %H:%M:%S", "Dec 31 23:59:59", observed).expect("a time");
        assert_eq!(december, parse("%Y-%m-%d %H:%M:%S", "2005-12-31 23:59:59", 0).expect("a time"));
        let january = parse("%b %d %H:%M:%S", "Jan  2 01:00:00", observed).expect("a time");
        assert_eq!(january, observed + 3600 * NANOS);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "2015-13-01", "2015-10-18 ", "x", "2015-10"] {
            assert_eq!(parse("%Y-%m-%d", text, 0), None, "{text}");
        }
        assert!(TimeFormat::new("%Q").expect_err("unknown").contains("%Q"));
    }
}
