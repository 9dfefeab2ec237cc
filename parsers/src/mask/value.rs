//! What one value looks like: numbers, addresses, times, paths, hosts.

use super::Hole;

/// The hole that a whole atom is, if it is one value.
pub(super) fn whole_value(atom: &[u8]) -> Option<Hole> {
    let unsigned = match atom {
        [b'-' | b'+', rest @ ..] if rest.first().is_some_and(u8::is_ascii_digit) => rest,
        _ => atom,
    };
    let first = *unsigned.first()?;
    if first == b'/' {
        return if is_ip(&unsigned[1..]) {
            Some(Hole::IP)
        } else {
            (unsigned.len() > 1 && unsigned[1..].iter().any(|b| b.is_ascii_alphanumeric())).then_some(Hole::PATH)
        };
    }
    if first.is_ascii_digit() {
        if is_number(unsigned) {
            return Some(Hole::NUMBER);
        }
        if is_ip(unsigned) {
            return Some(Hole::IP);
        }
        if is_time(unsigned) {
            return Some(Hole::TIME);
        }
        if unsigned.len() > 2 && unsigned[0] == b'0' && unsigned[1] | 0x20 == b'x' {
            return unsigned[2..].iter().all(u8::is_ascii_hexdigit).then_some(Hole::HEX);
        }
    } else if let Some(rest) = unsigned.strip_prefix(b"blk_") {
        let rest = rest.strip_prefix(b"-").unwrap_or(rest);
        if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit) {
            return Some(Hole::BLOCK);
        }
    }
    let count = |wanted: u8| unsigned.iter().filter(|byte| **byte == wanted).count();
    let is_hex = |byte: &u8| byte.is_ascii_hexdigit();
    if unsigned.len() >= 6 && unsigned.iter().all(is_hex) && unsigned.iter().any(u8::is_ascii_digit) {
        return Some(Hole::HEX);
    }
    if is_uuid(unsigned) {
        return Some(Hole::UUID);
    }
    if unsigned.iter().all(|byte| is_hex(byte) || *byte == b':') && count(b':') >= 2 {
        return Some(Hole::IP); // IPv6, or a MAC address
    }
    // Two slashes are a URL, too.
    let is_drive = unsigned.len() > 2 && unsigned[1] == b':' && matches!(unsigned[2], b'\\' | b'/');
    if is_drive || count(b'/') >= 2 || count(b'\\') >= 2 {
        return Some(Hole::PATH);
    }
    if let Some(slash) = unsigned.iter().position(|b| *b == b'/') {
        // host/address, as Java prints it
        return is_ip(&unsigned[slash + 1..]).then_some(Hole::IP);
    }
    let (name, port) = split_port(unsigned);
    is_dotted_name(name, if port { 1 } else { 2 }).then_some(Hole::HOST)
}

/// `a.example.org`, `org.apache.hadoop.Foo`: labels of letters, digits, `-` and `_`, at least one letter among them.
fn is_dotted_name(name: &[u8], min_dots: usize) -> bool {
    let (mut n_dots, mut has_letter, mut label) = (0, false, 0);
    for byte in name {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => {
                n_dots += 1;
                label = 0;
                continue;
            }
            b'a'..=b'z' => has_letter = true,
            // Without a port, capitals make it the name of a class or an action: semantics, not a value.
            b'A'..=b'Z' | b'_' if min_dots == 2 => return false,
            b'A'..=b'Z' => has_letter = true,
            b'0'..=b'9' | b'-' | b'_' => {}
            _ => return false,
        }
        label += 1;
    }
    has_letter && n_dots >= min_dots && label > 0
}

/// `12`, `1.5`, `1.2.3` (a version), `12ms`, `50%`.
fn is_number(atom: &[u8]) -> bool {
    let mut at = 0;
    let mut n_groups = 0;
    loop {
        let from = at;
        while atom.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == from {
            return false;
        }
        n_groups += 1;
        if at < atom.len() && atom[at] == b'.' {
            at += 1;
        } else {
            break;
        }
    }
    let unit = &atom[at..];
    // Four groups are an address unless one is too long for it.
    (unit.is_empty() || is_unit(unit)) && (n_groups != 4 || !is_ip(atom))
}

/// What may follow a number, attached or as a token of its own.
pub(crate) fn is_unit(text: &[u8]) -> bool {
    matches!(
        text,
        b"ms"
            | b"us"
            | b"ns"
            | b"s"
            | b"sec"
            | b"secs"
            | b"m"
            | b"min"
            | b"h"
            | b"d"
            | b"B"
            | b"b"
            | b"K"
            | b"k"
            | b"M"
            | b"G"
            | b"T"
            | b"KB"
            | b"kB"
            | b"kb"
            | b"MB"
            | b"mb"
            | b"GB"
            | b"gb"
            | b"TB"
            | b"KiB"
            | b"MiB"
            | b"GiB"
            | b"TiB"
            | b"%"
            | b"x"
            | b"L"
            | b"f"
    )
}

/// IPv4 with or without port.
fn is_ip(atom: &[u8]) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    if !is_digit(atom.first()) || !is_digit(atom.last()) {
        return false;
    }
    let (address, _) = split_port(atom);
    let mut n_groups = 0;
    for group in address.split(|b| *b == b'.') {
        if group.is_empty() || group.len() > 3 || !group.iter().all(u8::is_ascii_digit) {
            return false;
        }
        n_groups += 1;
    }
    n_groups == 4
}

/// Cuts `:port` off.
fn split_port(atom: &[u8]) -> (&[u8], bool) {
    match memchr::memrchr(b':', atom) {
        Some(colon) if colon + 1 < atom.len() && atom[colon + 1..].iter().all(u8::is_ascii_digit) => {
            (&atom[..colon], true)
        }
        _ => (atom, false),
    }
}

/// `16:49:06`, `00:02`, `2015-10-18`, `2016/9/27:20:30:31.455`, `2015-10-18T18:01:47Z`.
fn is_time(atom: &[u8]) -> bool {
    if atom.last().is_some_and(|last| last.is_ascii_alphabetic() && !matches!(last, b'T' | b'Z')) {
        return false;
    }
    let (mut n_groups, mut longest, mut run) = (0, 0, 0);
    let (mut colons, mut dashes, mut slashes) = (0, 0, 0);
    for (idx, byte) in atom.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                n_groups += usize::from(run == 0);
                run += 1;
                longest = longest.max(run);
                continue;
            }
            b':' => colons += 1,
            b'-' => dashes += 1,
            b'/' => slashes += 1,
            b'.' | b'+' => {}
            b'T' if run > 0 => {}
            b'Z' if idx + 1 == atom.len() => {}
            _ => return false,
        }
        if run == 0 {
            return false;
        }
        run = 0;
    }
    let clock = (1..=4).contains(&colons) && n_groups >= 2;
    let date = (dashes == 2 || slashes == 2) && n_groups >= 3;
    longest <= 9 && (clock || date) && atom.iter().take_while(|b| b.is_ascii_digit()).count() <= 4
}

fn is_uuid(atom: &[u8]) -> bool {
    atom.len() == 36
        && atom.iter().enumerate().all(|(idx, b)| match idx {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}
