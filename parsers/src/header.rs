//! What stands before the message on a raw line (station 4): line formats in the notation of Loghub, such as
//! `<Date> <Time> <Pid> <Level> <Component>: <Content>`, read by a hand-made scanner.
//!
//! A field ends where the text after it first occurs; a space in the format stands for any white space; `(...)?` may be
//! absent; a backslash takes the next character as it is. The last field is `<Content>`: the message. A line that
//! does not fit, or whose time cannot be read, is all message. In either case header and body together are the line.
//!
//! `<Label>` marks the ground truth that some data sets carry on the line. It is skipped: it stays in the raw header
//! and is nowhere else, so no detector can see it.

use crate::time::TimeFormat;

/// Most fields in one format.
const MAX_FIELDS: usize = 24;

/// What a field is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ground truth: looked at by nothing.
    Label,
    /// Part of the time stamp.
    Time,
    /// Severity.
    Level,
    /// Scope name.
    Component,
    /// An attribute of this name.
    Attribute(String),
}

#[derive(Clone, Debug)]
enum Step {
    /// Text that must stand here; a space is any white space.
    Literal(Vec<u8>),
    /// A field up to where the next step begins.
    Field(usize),
    /// Steps that may be absent.
    Optional(Vec<Step>),
}

/// A compiled line format.
#[derive(Clone, Debug)]
pub(crate) struct LineFormat {
    steps: Vec<Step>,
    pub(crate) fields: Vec<(String, Role)>,
    time: Option<(TimeFormat, Vec<usize>)>,
    utc_offset_minutes: i32,
}

/// The fields of one line, as byte ranges.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Where the message begins.
    pub(crate) body: usize,
    /// Event time, where the format has one.
    pub(crate) time_unix_nano: Option<i64>,
    ranges: [(u32, u32); MAX_FIELDS],
}

impl Header {
    pub(crate) fn field<'a>(&self, line: &'a str, idx: usize) -> &'a str {
        let (start, end) = self.ranges[idx];
        line.get(start as usize..end as usize).unwrap_or("")
    }
}

impl LineFormat {
    /// Compiles a format and its time stamp: the names of the fields that hold it, joined by spaces, and how to read them.
    ///
    /// # Errors
    /// What is wrong with the notation, naming the field.
    pub(crate) fn new(
        format: &str,
        time_fields: &[String],
        time_format: Option<&str>,
        utc_offset_minutes: i32,
    ) -> Result<Self, String> {
        let mut names = Vec::new();
        let mut rest = format.as_bytes();
        let mut steps = steps(&mut rest, &mut names, false)?;
        match steps.pop() {
            Some(Step::Field(idx)) if names[idx] == "Content" => names.remove(idx),
            _ => return Err("the format must end in `<Content>`".into()),
        };
        if names.len() > MAX_FIELDS {
            return Err(format!("the format has more than {MAX_FIELDS} fields"));
        }
        let mut wanted = Vec::new();
        for name in time_fields {
            let idx = names.iter().position(|other| other == name);
            wanted.push(idx.ok_or_else(|| format!("time field `{name}` is not in the format"))?);
        }
        let time = match (time_format, wanted.is_empty()) {
            (Some(time_format), false) => Some((TimeFormat::new(time_format)?, wanted.clone())),
            (None, true) => None,
            _ => return Err("`time_fields` and `time_format` go together".into()),
        };
        let role = |idx: usize, name: &str| match name {
            "Label" => Role::Label,
            _ if wanted.contains(&idx) => Role::Time,
            "Level" => Role::Level,
            "Component" => Role::Component,
            _ => Role::Attribute(name.to_owned()),
        };
        let fields = names.iter().enumerate().map(|(idx, name)| (name.clone(), role(idx, name))).collect();
        Ok(Self { steps, fields, time, utc_offset_minutes })
    }

    /// Splits `line`; `None` when it does not fit.
    pub(crate) fn split(&self, line: &str, observed_unix_nano: i64) -> Option<Header> {
        let bytes = line.as_bytes();
        let mut ranges = [(0, 0); MAX_FIELDS];
        let body = run(&self.steps, bytes, 0, None, &mut ranges)?;
        let time_unix_nano = match &self.time {
            None => None,
            Some((format, fields)) => {
                let mut text = [0_u8; 64];
                let mut n_bytes = 0;
                for (nth, &field) in fields.iter().enumerate() {
                    let (start, end) = ranges[field];
                    let part = &bytes[start as usize..end as usize];
                    let at = n_bytes + usize::from(nth > 0);
                    text.get_mut(n_bytes..at)?.fill(b' ');
                    text.get_mut(at..at + part.len())?.copy_from_slice(part);
                    n_bytes = at + part.len();
                }
                Some(format.parse(&text[..n_bytes], observed_unix_nano, self.utc_offset_minutes)?)
            }
        };
        line.is_char_boundary(body).then_some(Header { body, time_unix_nano, ranges })
    }
}

fn steps(rest: &mut &[u8], names: &mut Vec<String>, in_brackets: bool) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut literal = Vec::new();
    while let [first, more @ ..] = *rest {
        *rest = more;
        match first {
            b'\\' => {
                let [escaped, more @ ..] = *rest else { return Err("the format ends in a backslash".into()) };
                *rest = more;
                literal.push(*escaped);
            }
            b' ' | b'\t' => {
                if literal.last() != Some(&b' ') {
                    literal.push(b' ');
                }
            }
            b'<' => {
                let end = rest.iter().position(|b| *b == b'>').ok_or("a field is not closed by `>`")?;
                let name = std::str::from_utf8(&rest[..end]).map_err(|_| "a field name is not UTF-8")?;
                if name.is_empty() || names.iter().any(|other| other == name) {
                    return Err(format!("field `<{name}>` is empty or appears twice"));
                }
                *rest = &rest[end + 1..];
                if !literal.is_empty() {
                    steps.push(Step::Literal(std::mem::take(&mut literal)));
                } else if matches!(steps.last(), Some(Step::Field(_))) {
                    return Err(format!("nothing separates field `<{name}>` from the one before"));
                }
                names.push(name.to_owned());
                steps.push(Step::Field(names.len() - 1));
            }
            b'(' => {
                if !literal.is_empty() {
                    steps.push(Step::Literal(std::mem::take(&mut literal)));
                }
                let inner = self::steps(rest, names, true)?;
                let starts_with_text = matches!(inner.first(), Some(Step::Literal(_)));
                let ends_with_text = matches!(inner.last(), Some(Step::Literal(_)));
                if !starts_with_text || !ends_with_text {
                    return Err("what `(...)?` holds must begin and end with text".into());
                }
                *rest = rest.strip_prefix(b"?").ok_or("`(...)` without `?`: write `\\(` for a bracket")?;
                steps.push(Step::Optional(inner));
            }
            b')' if in_brackets => {
                if !literal.is_empty() {
                    steps.push(Step::Literal(literal));
                }
                return Ok(steps);
            }
            other => literal.push(*other),
        }
    }
    if in_brackets {
        return Err("`(` is not closed".into());
    }
    if !literal.is_empty() {
        steps.push(Step::Literal(literal));
    }
    Ok(steps)
}

/// Runs `steps` from `at`; returns where they end. `after` is what follows them.
fn run(
    steps: &[Step],
    line: &[u8],
    mut at: usize,
    after: Option<&Step>,
    ranges: &mut [(u32, u32); MAX_FIELDS],
) -> Option<usize> {
    for (idx, step) in steps.iter().enumerate() {
        match step {
            Step::Literal(text) => at = literal_at(text, line, at)?,
            Step::Field(field) => {
                let next = steps.get(idx + 1).or(after);
                let beyond = steps.get(idx + 2).or(after);
                let end = match next {
                    Some(Step::Literal(text)) => find_literal(text, line, at)?,
                    Some(Step::Optional(inner)) => {
                        let opening = match inner.first() {
                            Some(Step::Literal(text)) => find_literal(text, line, at),
                            _ => None,
                        };
                        let without = match beyond {
                            Some(Step::Literal(text)) => find_literal(text, line, at),
                            _ => None,
                        };
                        opening.into_iter().chain(without).min()?
                    }
                    _ => line.len(),
                };
                if end == at && next.is_some() {
                    return None; // only the message may be empty
                }
                if let Some(range) = ranges.get_mut(*field) {
                    *range = (at as u32, end as u32);
                }
                at = end;
            }
            Step::Optional(inner) => {
                let before = *ranges;
                match run(inner, line, at, steps.get(idx + 1), ranges) {
                    Some(end) => at = end,
                    None => *ranges = before,
                }
            }
        }
    }
    Some(at)
}

/// Where `text` ends if it stands at `at`.
fn literal_at(text: &[u8], line: &[u8], mut at: usize) -> Option<usize> {
    for want in text {
        if *want == b' ' {
            let n = line[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
            at = (n > 0).then_some(at + n)?;
        } else {
            at = (line.get(at) == Some(want)).then_some(at + 1)?;
        }
    }
    Some(at)
}

/// Where `text` first begins at or after `from`.
fn find_literal(text: &[u8], line: &[u8], from: usize) -> Option<usize> {
    let first = *text.first()?;
    (from..line.len()).find(|&at| {
        let may = if first == b' ' { line[at].is_ascii_whitespace() } else { line[at] == first };
        may && (text.len() == 1 || literal_at(text, line, at).is_some())
    })
}

/// OpenTelemetry severity number of a level's name.
pub(crate) fn severity_number(level: &str) -> Option<i32> {
    const LEVELS: [(&str, i32); 32] = [
        ("info", 9),
        ("warn", 13),
        ("error", 17),
        ("debug", 5),
        ("fatal", 21),
        ("trace", 1),
        ("warning", 13),
        ("notice", 10),
        ("severe", 17),
        ("failure", 18),
        ("critical", 21),
        ("crit", 21),
        ("err", 17),
        ("alert", 22),
        ("emerg", 24),
        ("emergency", 24),
        ("panic", 24),
        ("information", 9),
        ("informational", 9),
        ("verbose", 3),
        ("fine", 5),
        ("finer", 3),
        ("finest", 1),
        ("config", 8),
        ("i", 9),
        ("w", 13),
        ("e", 17),
        ("d", 5),
        ("v", 3),
        ("f", 21),
        ("t", 1),
        ("audit", 9),
    ];
    LEVELS.iter().find(|(name, _)| level.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'a>(format: &str, line: &'a str) -> Option<(Vec<(String, &'a str)>, &'a str)> {
        let format = LineFormat::new(format, &[], None, 0).expect("a good format");
        let header = format.split(line, 0)?;
        let fields = format.fields.iter().enumerate().map(|(idx, (name, _))| (name.clone(), header.field(line, idx)));
        Some((fields.collect(), &line[header.body..]))
    }

    #[test]
    fn fields_end_where_the_text_after_them_begins() {
        let (fields, body) =
            split("<Date> <Time> <Pid> <Level> <Component>: <Content>", "0811 2035 147 INFO dfs.Node$X: Got: blk_1")
                .expect("fits");
        let values: Vec<&str> = fields.iter().map(|field| field.1).collect();
        assert_eq!(values, ["0811", "2035", "147", "INFO", "dfs.Node$X"]);
        assert_eq!(body, "Got: blk_1");
    }

    #[test]
    fn an_optional_part_may_be_absent() {
        let format = r"<Host> <Component>(\[<Pid>\])?: <Content>";
        let (with, body) = split(format, "combo sshd(pam_unix)[19937]: check pass").expect("fits");
        assert_eq!((with[1].1, with[2].1, body), ("sshd(pam_unix)", "19937", "check pass"));
        let (without, body) = split(format, "combo kernel: up [x]: y").expect("fits");
        assert_eq!((without[1].1, without[2].1, body), ("kernel", "", "up [x]: y"));
    }

    #[test]
    fn a_line_that_does_not_fit_is_refused() {
        assert!(split("<Date> <Level> <Content>", "\tat java.lang.Thread.run(Thread.java)").is_none());
        assert!(split("<Date> <Level> <Content>", "").is_none());
    }

    #[test]
    fn a_bad_format_says_what_is_wrong() {
        for (format, reason) in [
            ("<Date> <Time>", "must end in `<Content>`"),
            ("<Date><Time> <Content>", "separates"),
            ("<Date> <Date> <Content>", "twice"),
            ("<Date", "not closed"),
            ("(<A>)? <Content>", "begin and end with text"),
        ] {
            let error = LineFormat::new(format, &[], None, 0).expect_err(format);
            assert!(error.contains(reason), "{format}: {error}");
        }
    }
}
