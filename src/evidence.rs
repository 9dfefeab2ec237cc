//! The spans and metric points behind an alert, a line of text each: what `replay` and `demo` print where logs have lines.

use std::{fmt::Write, time::Duration};

use faultline_core::RecordId;
use faultline_store::{Point, PointValue, Records, Span, rfc3339};

/// Each span and each point with its record id: `service | time what it says`.
pub fn texts(records: &Records) -> impl Iterator<Item = (RecordId, String)> + '_ {
    let spans = records.spans.iter().map(|span| (span.record_id, span_text(span)));
    spans.chain(records.points.iter().map(|point| (point.record_id, point_text(point))))
}

fn span_text(span: &Span) -> String {
    let duration = Duration::from_nanos(span.duration_nanos.unsigned_abs());
    let start = rfc3339(span.start_unix_nano);
    let mut text = format!("{} | {start} {} ({}) {duration:?}", span.service, span.name, span.kind_name());
    if span.status_name() != "unset" {
        push(&mut text, format_args!(", {}", span.status_name()));
    }
    if let Some(message) = &span.status_message {
        push(&mut text, format_args!(": {message}"));
    }
    push(&mut text, format_args!(", span {} of trace {}", span.span_id, span.trace_id));
    text
}

fn point_text(point: &Point) -> String {
    let mut text = format!("{} | {} {}", point.service, rfc3339(point.time_unix_nano), point.name);
    text.push_str(point.attributes.as_deref().unwrap_or_default());
    match (point.value, point.count) {
        (Some(PointValue::Int(value)), _) => push(&mut text, format_args!(" = {value}")),
        (Some(PointValue::Double(value)), _) => push(&mut text, format_args!(" = {value}")),
        (None, Some(count)) => {
            push(&mut text, format_args!(": {count} observations"));
            if let Some(sum) = point.sum {
                push(&mut text, format_args!(", sum {sum}"));
            }
        }
        (None, None) => text.push_str(": nothing recorded"),
    }
    if (point.value.is_some() || point.sum.is_some())
        && let Some(unit) = &point.unit
    {
        push(&mut text, format_args!(" {unit}"));
    }
    text
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span() -> Span {
        Span {
            record_id: 1,
            trace_id: "ab".into(),
            span_id: "cd".into(),
            parent_span_id: None,
            service: "cart".into(),
            name: "GET /cart".into(),
            kind: 2,
            start_unix_nano: 5,
            duration_nanos: 12_500_000,
            status_code: 0,
            status_message: None,
        }
    }

    fn point() -> Point {
        Point {
            record_id: 2,
            time_unix_nano: 5,
            service: "cart".into(),
            name: "latency".into(),
            unit: Some("ms".into()),
            kind: "gauge".into(),
            temporality: None,
            attributes: None,
            value: None,
            count: None,
            sum: None,
        }
    }

    #[test]
    fn a_span_tells_its_status_only_where_it_has_one() {
        let start = "cart | 1970-01-01T00:00:00.000000005Z GET /cart (server) 12.5ms";
        assert_eq!(span_text(&span()), format!("{start}, span cd of trace ab"));
        let failed = Span { status_code: 2, status_message: Some("out of memory".into()), ..span() };
        assert_eq!(span_text(&failed), format!("{start}, error: out of memory, span cd of trace ab"));
    }

    #[test]
    fn a_point_tells_what_its_kind_has() {
        let start = "cart | 1970-01-01T00:00:00.000000005Z latency";
        let attributes = Some(r#"{"route":"/cart"}"#.to_owned());
        for (told, expected) in [
            (Point { value: Some(PointValue::Int(7)), attributes, ..point() }, r#"{"route":"/cart"} = 7 ms"#),
            (Point { value: Some(PointValue::Double(0.25)), unit: None, ..point() }, " = 0.25"),
            (Point { count: Some(7), sum: Some(81.5), ..point() }, ": 7 observations, sum 81.5 ms"),
            (Point { count: Some(7), ..point() }, ": 7 observations"),
            (point(), ": nothing recorded"),
        ] {
            assert_eq!(point_text(&told), format!("{start}{expected}"));
        }
    }

    #[test]
    fn spans_come_before_points_and_lines_are_not_among_them() {
        let records = Records { lines: Vec::new(), spans: vec![span()], points: vec![point()] };
        assert_eq!(texts(&records).map(|(record, _)| record).collect::<Vec<_>>(), [1, 2]);
    }
}
