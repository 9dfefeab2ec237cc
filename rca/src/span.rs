//! Spans as root-cause analysis reads them: ids as numbers, the callee that the caller names, and nothing else.

use faultline_core::{SpanBatch, batch::dict_value, hash::StableHash};
use serde::Deserialize;

/// One span of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanRow<'a> {
    pub trace: u128,
    pub span: u64,
    /// `None` for a root span.
    pub parent: Option<u64>,
    pub service: &'a str,
    pub name: &'a str,
    pub side: Side,
    pub is_error: bool,
    pub start_unix_nano: i64,
    pub end_unix_nano: i64,
    /// Attributes of a calling span, as JSON.
    attributes: Option<&'a str>,
}

/// Which side of a call a span tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Client or producer: somebody else does the work.
    Calling,
    /// Server, consumer, internal or unspecified: the service itself works.
    Working,
}

impl SpanRow<'_> {
    pub fn duration_nanos(&self) -> i64 {
        self.end_unix_nano - self.start_unix_nano
    }

    /// Whom a calling span calls, in its own words: `peer.service`, else `server.address`, else its older name.
    pub fn peer(&self) -> Option<String> {
        let peer: Peer<'_> = serde_json::from_str(self.attributes?).ok()?;
        [peer.service, peer.server_address, peer.net_peer_name]
            .into_iter()
            .flatten()
            .find(|name| !name.is_empty())
            .map(std::borrow::Cow::into_owned)
    }
}

#[derive(Deserialize)]
struct Peer<'a> {
    #[serde(borrow, default, rename = "peer.service")]
    service: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default, rename = "server.address")]
    server_address: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default, rename = "net.peer.name")]
    net_peer_name: Option<std::borrow::Cow<'a, str>>,
}

/// The spans of a batch that name their service.
pub(crate) fn rows(batch: &SpanBatch) -> impl Iterator<Item = SpanRow<'_>> {
    let (traces, spans, parents) = (batch.trace_id(), batch.span_id(), batch.parent_span_id());
    let (services, names, kinds) = (batch.service_name(), batch.name(), batch.kind());
    let (starts, ends) = (batch.start_time_unix_nano(), batch.end_time_unix_nano());
    let (statuses, attributes) = (batch.status_code(), batch.attributes());
    let given = |text: &&str| text.bytes().any(|byte| byte != b'0');
    (0..batch.len()).zip(parents.iter().zip(attributes.iter())).filter_map(move |(row, (parent, attributes))| {
        let side = if matches!(kinds.value(row), 3 | 4) { Side::Calling } else { Side::Working };
        let start_unix_nano = starts.value(row);
        Some(SpanRow {
            trace: trace_number(traces.value(row)),
            span: span_number(spans.value(row)),
            parent: parent.filter(given).map(span_number),
            service: dict_value(services, row).filter(|name| !name.is_empty())?,
            name: dict_value(names, row).unwrap_or_default(),
            side,
            is_error: statuses.value(row) == 2,
            start_unix_nano,
            end_unix_nano: ends.value(row).max(start_unix_nano),
            attributes: attributes.filter(|_| side == Side::Calling),
        })
    })
}

/// A trace id as a number; one that is not hexadecimal is hashed.
pub(crate) fn trace_number(text: &str) -> u128 {
    let hash = |text| u128::from(StableHash::new().text(text).finish()) | 1 << 127;
    if text.len() <= 32 { u128::from_str_radix(text, 16).unwrap_or_else(|_| hash(text)) } else { hash(text) }
}

fn span_number(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| StableHash::new().text(text).finish())
}
