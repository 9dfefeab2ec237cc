//! What services write: log lines from their templates, and the words and attributes of failures.

use std::fmt::Write;

use crate::{
    config::{ConfigError, Line},
    random::{Dice, ns_to_ms},
    telemetry::{Attribute, Value},
};

/// The facts of one user request, known to every service it visits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Facts {
    user: u32,
    order: u32,
    sku: u32,
    amount_cents: u32,
    ip: [u8; 3],
    query: usize,
}

const QUERIES: [&str; 8] = ["boots", "lamp", "kettle", "tent", "bicycle", "headphones", "jacket", "desk"];

impl Facts {
    pub fn draw(words: &mut Dice) -> Self {
        let ip = [words.below(256) as u8, words.below(256) as u8, 1 + words.below(254) as u8];
        Self {
            user: 10_000 + words.below(90_000),
            order: 1_000_000 + words.below(9_000_000),
            sku: 1_000 + words.below(9_000),
            amount_cents: 500 + words.below(45_000),
            ip,
            query: words.below(QUERIES.len() as u32) as usize,
        }
    }
}

/// A line cut at its placeholders.
pub(crate) struct Words {
    pub severity_number: u8,
    pieces: Vec<Piece>,
}

enum Piece {
    Literal(String),
    Field(&'static str),
}

impl Words {
    pub fn parse(key: &str, line: &Line) -> Result<Self, ConfigError> {
        let invalid = |reason: String| ConfigError::Invalid { key: key.into(), reason };
        if !(1..=24).contains(&line.severity_number) {
            return Err(invalid(format!("severity_number {} is not within 1 to 24", line.severity_number)));
        }
        let mut pieces = Vec::new();
        let mut rest = line.text.as_str();
        while let Some((literal, tail)) = rest.split_once('{') {
            let (name, tail) =
                tail.split_once('}').ok_or_else(|| invalid(format!("`{}` lacks a closing brace", line.text)))?;
            let field =
                Line::PLACEHOLDERS.into_iter().find(|known| *known == name).ok_or_else(|| ConfigError::Unknown {
                    key: key.into(),
                    what: "placeholder",
                    name: name.into(),
                    known: Line::PLACEHOLDERS.join(", "),
                })?;
            pieces.push(Piece::Literal(literal.into()));
            pieces.push(Piece::Field(field));
            rest = tail;
        }
        pieces.push(Piece::Literal(rest.into()));
        Ok(Self { severity_number: line.severity_number, pieces })
    }

    pub fn speak(&self, facts: &Facts, elapsed_ns: u64, words: &mut Dice) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            // Writing to a String cannot fail.
            let _ = match piece {
                Piece::Literal(literal) => text.write_str(literal),
                Piece::Field("user") => write!(text, "u-{}", facts.user),
                Piece::Field("order") => write!(text, "ord-{}", facts.order),
                Piece::Field("sku") => write!(text, "SKU-{}", facts.sku),
                Piece::Field("amount") => write!(text, "{}.{:02}", facts.amount_cents / 100, facts.amount_cents % 100),
                Piece::Field("ip") => write!(text, "10.{}.{}.{}", facts.ip[0], facts.ip[1], facts.ip[2]),
                Piece::Field("query") => text.write_str(QUERIES[facts.query]),
                Piece::Field("ms") => write!(text, "{:.1}", ns_to_ms(elapsed_ns)),
                Piece::Field("mib") => write!(text, "{}", 128 + words.below(384)),
                Piece::Field(_) => write!(text, "{}", 1 + words.below(49)),
            };
        }
        text
    }
}

/// How a visit or a call ends when it does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The callee did not answer in time.
    Timeout,
    /// Nobody listens.
    Refused,
    /// The callee's queue is full.
    Overloaded,
    /// The visit threw an exception.
    Exception,
    /// Something the visit depends on failed.
    Upstream,
}

impl Failure {
    /// Whether trying again may help: the callee has not begun to decide.
    pub fn worth_a_retry(self) -> bool {
        matches!(self, Self::Timeout | Self::Refused | Self::Overloaded)
    }

    /// `error.type` by the semantic conventions: the status code where the callee answered one.
    pub fn error_type(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "connection_refused",
            Self::Overloaded => "503",
            Self::Exception => "500",
            Self::Upstream => "502",
        }
    }

    /// Status code with which the visit is answered.
    pub fn http_status(self) -> i64 {
        match self {
            Self::Timeout => 504,
            Self::Refused | Self::Upstream => 502,
            Self::Overloaded => 503,
            Self::Exception => 500,
        }
    }

    /// What the caller says happened, `elapsed_ns` after it called.
    pub fn told_by_caller(self, elapsed_ns: u64) -> String {
        match self {
            Self::Timeout => format!("deadline exceeded after {:.0} ms", ns_to_ms(elapsed_ns)),
            Self::Refused => "connection refused".into(),
            Self::Overloaded => "status 503 Service Unavailable".into(),
            Self::Exception => "status 500 Internal Server Error".into(),
            Self::Upstream => "status 502 Bad Gateway".into(),
        }
    }
}

/// Type, message and stack trace of the exception that the `Exception` fault throws in `operation` of `service`.
pub(crate) fn exception(service: &str, operation: &str, words: &mut Dice) -> [Attribute; 3] {
    let mut letters = service.chars().filter(char::is_ascii_alphanumeric);
    let class: String = letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect();
    let message = format!("state of {service} is inconsistent: version {} expected", 100 + words.below(900));
    let stack = format!(
        "java.lang.IllegalStateException: {message}\n\tat shop.{service}.{class}Handler.handle({class}Handler.java:{})\n\t\
         at shop.web.Router.dispatch(Router.java:118)\n\tat java.lang.Thread.run(Thread.java:840)\n\t# {operation}",
        40 + words.below(4),
    );
    [
        ("exception.type", Value::Text("java.lang.IllegalStateException".into())),
        ("exception.message", Value::Text(message.into())),
        ("exception.stacktrace", Value::Text(stack.into())),
    ]
}

/// Attributes of a span of `operation`, by the semantic conventions for HTTP and databases.
pub(crate) fn operation_attributes(operation: &str) -> Vec<Attribute> {
    match operation.split_once(' ') {
        Some((method @ ("GET" | "POST" | "PUT" | "DELETE"), route)) if route.starts_with('/') => vec![
            ("http.request.method", Value::Text(method.to_owned().into())),
            ("http.route", Value::Text(route.to_owned().into())),
        ],
        Some((verb, _)) => vec![("db.operation.name", Value::Text(verb.to_owned().into()))],
        None => Vec::new(),
    }
}
