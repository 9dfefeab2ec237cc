//! Times written out, in nanoseconds since the epoch: `2013-10-28 23:12:29`, `2023-01-29T09:20:29.295Z`. Taken for UTC.
//!
//! No zones, no leap years by name, no locale: datasets write times in one of these two ways. Cost: one pass.

/// The time in `text`; none when it is not written so, or its year is not between 1900 and 2200.
pub(crate) fn unix_nanos(text: &str) -> Option<i64> {
    let text = text.trim();
    let (date, time) = text.strip_suffix('Z').unwrap_or(text).split_once([' ', 'T'])?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = three(date, '-')?;
    let [hour, minute, second] = three(clock, ':')?;
    let is_date = (1900..=2200).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let n_digits = u32::try_from(fraction.len()).ok().filter(|n| *n <= 9)?;
    let nanos = number(fraction)? * 10_i64.pow(9 - n_digits);
    // Days since the epoch of a date in the proleptic Gregorian calendar, years counted from March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + nanos)
}

/// Three numbers and nothing else.
fn three(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(number);
    let all = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(all)
}

/// A number of at most nine digits, without a sign.
fn number(text: &str) -> Option<i64> {
    let is_number = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_the_epoch() {
        assert_eq!(unix_nanos("1970-01-01 00:00:00"), Some(0));
        assert_eq!(unix_nanos("2013-10-28 23:12:29"), Some(1_383_001_949_000_000_000));
        assert_eq!(unix_nanos("2000-02-29T23:59:59Z"), Some(951_868_799_000_000_000));
        assert_eq!(unix_nanos("2023-01-29T08:42:22.38259894Z"), Some(1_674_981_742_382_598_940));
        assert_eq!(unix_nanos("2014-04-10 07:15:00.000000"), Some(1_397_114_100_000_000_000));
        assert_eq!(unix_nanos("1969-12-31 23:59:59.5"), Some(-500_000_000));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "2013-10-28", "2013-10-28 23:12", "2013-13-01 00:00:00", "2013-10-28 24:00:00"] {
            assert_eq!(unix_nanos(text), None, "{text}");
        }
        for text in
            ["2013-10-28 23:12:29.1234567890", "2013-10--1 00:00:00", "0001-01-01T00:00:00Z", "2013-10-28 1:2:3:4"]
        {
            assert_eq!(unix_nanos(text), None, "{text}");
        }
    }
}
