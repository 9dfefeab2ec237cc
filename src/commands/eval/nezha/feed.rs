//! Nezha's spans and logs through the stations that live records take: parser, windower, trace assembler, service station.
//!
//! Records of a part are put in order of time and handed over in batches of [`SLICE`]. Ids in the names of operations are taken
//! out, as instrumentation should have done it. A log is the statement that wrote it, `<class>#<line> <level>`, as in the study of this
//! data: the messages hold names of stations and trains. The parser takes numbers for values, so the line is spelt in
//! letters. A log that names no statement is left out.

use faultline_core::{
    LogBatch, LogBatchBuilder, LogRecord as RawLog, Parser, SpanBatch, SpanBatchBuilder, SpanRecord, Window,
};
use faultline_datasets::loaders::nezha::{LogRecord, Minute, Span, records};
use faultline_detectors::{
    Emit, ServiceConfig, ServiceStation, TraceAssembler, TraceConfig, WindowConfig, Windower, traces::Shape,
};
use faultline_parsers::{LogParser, ParserConfig, SessionRule};

/// Event time of a batch.
const SLICE: i64 = 5_000_000_000;

/// Records of some minutes, in order of time.
#[derive(Debug, Default)]
pub struct Part {
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
}

impl Part {
    pub fn read(minutes: &[Minute]) -> anyhow::Result<Self> {
        let mut part = Self::default();
        for minute in records(minutes) {
            let minute = minute?;
            part.spans.extend(minute.spans);
            part.logs.extend(minute.logs);
        }
        part.spans.sort_by(|one, other| {
            (one.start_unix_nano, &one.trace_id, &one.span_id).cmp(&(
                other.start_unix_nano,
                &other.trace_id,
                &other.span_id,
            ))
        });
        // Of equal times the order of the files is that of the lines.
        part.logs.sort_by_key(|log| log.time_unix_nano);
        Ok(part)
    }

    fn span_batches(&self) -> impl Iterator<Item = SpanBatch> {
        let slice = |span: &Span| span.start_unix_nano.div_euclid(SLICE);
        let mut first = 1;
        self.spans.chunk_by(move |one, next| slice(one) == slice(next)).map(move |spans| {
            let batch = span_batch(spans).numbered_from(first);
            first += spans.len() as u64;
            batch
        })
    }

    fn log_batches(&self) -> impl Iterator<Item = LogBatch> {
        let slice = |log: &LogRecord| log.time_unix_nano.div_euclid(SLICE);
        let mut first = 1;
        self.logs.chunk_by(move |one, next| slice(one) == slice(next)).map(move |logs| {
            let batch = log_batch(logs).numbered_from(first);
            first += logs.len() as u64;
            batch
        })
    }

    /// The stations of spans when all of them have come: what they show is all there is.
    pub fn stations(&self) -> anyhow::Result<(TraceAssembler, ServiceStation)> {
        let mut assembler = TraceAssembler::new(TraceConfig::default())?;
        let mut services = ServiceStation::new(ServiceConfig::default())?;
        self.span_batches().for_each(|batch| assembler.push(&batch));
        assembler.finish();
        file(&assembler, &mut services, &mut Shape::default());
        services.finish();
        Ok((assembler, services))
    }

    /// Shows traces, and what services did, as they are complete; with the latter the time up to which they are.
    pub fn walk_spans(
        &self,
        mut traces: impl FnMut(&[Window<'_>]),
        mut steps: impl FnMut(&[Window<'_>], i64),
    ) -> anyhow::Result<()> {
        let mut assembler = TraceAssembler::new(TraceConfig::default())?;
        let mut services = ServiceStation::new(ServiceConfig::default())?;
        let mut shape = Shape::default();
        for batch in self.span_batches() {
            assembler.push(&batch);
            file(&assembler, &mut services, &mut shape);
            traces(&assembler.ready());
            assembler.settle();
            services.advance_to(assembler.watermark_unix_nano());
            steps(&services.ready(), services.watermark_unix_nano());
            services.settle();
        }
        assembler.finish();
        file(&assembler, &mut services, &mut shape);
        traces(&assembler.ready());
        services.finish();
        steps(&services.ready(), i64::MAX);
        Ok(())
    }

    /// The windower when all logs have come.
    pub fn sessions(&self, parser: &mut LogParser) -> anyhow::Result<Windower> {
        let mut windower = windower()?;
        for batch in self.log_batches() {
            push(parser, &mut windower, batch);
        }
        windower.finish();
        Ok(windower)
    }

    /// Shows what each span wrote, once it is complete.
    pub fn walk_logs(&self, parser: &mut LogParser, mut sessions: impl FnMut(&[Window<'_>])) -> anyhow::Result<()> {
        let mut windower = windower()?;
        for batch in self.log_batches() {
            push(parser, &mut windower, batch);
            sessions(&windower.ready());
            windower.settle();
        }
        windower.finish();
        sessions(&windower.ready());
        Ok(())
    }
}

/// A parser for the logs, whose sessions are spans.
pub fn parser() -> anyhow::Result<LogParser> {
    let session = vec![SessionRule::SpanId, SessionRule::TraceId];
    Ok(LogParser::new(ParserConfig { session, ..ParserConfig::default() })?)
}

/// Hands on the traces that are complete.
fn file(assembler: &TraceAssembler, services: &mut ServiceStation, shape: &mut Shape) {
    for trace in assembler.ready().iter().filter_map(Window::as_trace) {
        shape.measure(trace);
        services.push(trace, shape);
    }
}

fn windower() -> anyhow::Result<Windower> {
    Ok(Windower::new(WindowConfig { emit: Emit::OnClose, ..WindowConfig::default() })?)
}

fn push(parser: &mut LogParser, windower: &mut Windower, batch: LogBatch) {
    let batch = parser.parse(batch);
    windower.know(&batch, &parser.drain_changes());
    windower.push(&batch);
}

fn span_batch(spans: &[Span]) -> SpanBatch {
    let mut builder = SpanBatchBuilder::default();
    for span in spans {
        builder.push(&SpanRecord {
            trace_id: &span.trace_id,
            span_id: &span.span_id,
            parent_span_id: span.parent_id.as_deref().unwrap_or(""),
            name: &without_ids(&span.operation),
            service_name: span.service(),
            start_time_unix_nano: span.start_unix_nano,
            end_time_unix_nano: span.end_unix_nano,
            ..SpanRecord::default()
        });
    }
    builder.finish()
}

fn log_batch(logs: &[LogRecord]) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    for log in logs {
        let Some(statement) = statement(&log.body) else { continue };
        builder.push(&RawLog {
            time_unix_nano: log.time_unix_nano,
            service_name: log.service(),
            body: &statement,
            trace_id: &log.trace_id,
            span_id: &log.span_id,
            ..RawLog::default()
        });
    }
    builder.finish()
}

/// `t.s.TravelServiceImpl#efh INFO` of `16:43:25.207 INFO  t.s.TravelServiceImpl#457 TraceID: ...`.
fn statement(body: &str) -> Option<String> {
    let mut words = body.split_whitespace();
    let (time, level, place) = (words.next()?, words.next()?, words.next()?);
    let (class, line) = place.rsplit_once('#')?;
    let is_time = time.len() > 8 && time.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte));
    if !is_time || class.is_empty() || line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let letters: String = line.bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
    Some(format!("{class}#{letters} {level}"))
}

/// An operation whose UUIDs have become `{id}`.
fn without_ids(operation: &str) -> String {
    const LEN: usize = 36;
    let is_id = |text: &[u8]| {
        let is_part = |(at, byte): (usize, &u8)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        };
        text.len() == LEN && text.iter().enumerate().all(is_part)
    };
    let (mut text, mut rest) = (String::with_capacity(operation.len()), operation);
    while let Some(next) = rest.chars().next() {
        if rest.as_bytes().get(..LEN).is_some_and(is_id) {
            text.push_str("{id}");
            rest = &rest[LEN..];
        } else {
            text.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_the_statement_that_wrote_it() {
        let body = "16:43:25.207 INFO  t.s.TravelServiceImpl#457 TraceID: 8f2f SpanID: 9693 [getTickets][Calculate]";
        assert_eq!(statement(body).as_deref(), Some("t.s.TravelServiceImpl#efh INFO"));
        assert_eq!(statement("java.lang.Exception: no time\n"), None);
        assert_eq!(statement("16:43:25.207 ERROR something else happened"), None);
    }

    #[test]
    fn statements_are_templates_of_their_own() {
        let mut parser = parser().expect("a parser");
        let log = |line: u32| LogRecord {
            time_unix_nano: 1_000 + i64::from(line),
            pod: "ts-basic-service-5dc8d4f9fd-46997".to_owned(),
            trace_id: "t".to_owned(),
            span_id: format!("{}", line % 2),
            body: format!("16:43:25.207 INFO  b.s.BasicServiceImpl#{line} TraceID: t SpanID: s [a][b]"),
        };
        let part = Part { spans: Vec::new(), logs: (100..130).map(log).collect() };
        let mut windower = part.sessions(&mut parser).expect("it runs");
        let ready = windower.ready();
        let sessions: Vec<_> = ready.iter().filter_map(Window::as_log).collect();
        assert_eq!(sessions.iter().map(|log| log.records.len()).collect::<Vec<_>>(), [15, 15], "by span");
        let mut templates: Vec<u64> =
            sessions.iter().flat_map(|log| log.records.iter().map(|record| record.template.0)).collect();
        templates.sort_unstable();
        templates.dedup();
        assert_eq!(templates.len(), 30, "however many there are of one class");
        let service = sessions[0].culprit(0).expect("a record").service;
        assert_eq!(service, "ts-basic-service");
    }

    #[test]
    fn ids_go_and_the_rest_of_a_name_stays() {
        let id = "1d1a11c1-11cb-1cf1-b1bb-b11111d1da1f";
        assert_eq!(without_ids(&format!("GET /é/{id}/x/{id}")), "GET /é/{id}/x/{id}");
        assert_eq!(without_ids("/api/v1/orders"), "/api/v1/orders");
    }

    #[test]
    fn spans_become_traces_and_what_services_did() {
        let span = |trace: i64, id: &str, parent: Option<&str>, from: i64, until: i64| Span {
            trace_id: format!("{trace:032x}"),
            span_id: format!("{trace:08x}{id:0>8}"),
            parent_id: parent.map(|parent| format!("{trace:08x}{parent:0>8}")),
            pod: if parent.is_some() { "b" } else { "a" }.to_owned(),
            operation: "op".to_owned(),
            start_unix_nano: trace * SLICE + from,
            end_unix_nano: trace * SLICE + until,
        };
        let spans = (1..=30).flat_map(|trace| [span(trace, "1", None, 0, 100), span(trace, "2", Some("1"), 10, 60)]);
        let part = Part { spans: spans.collect(), logs: Vec::new() };
        let (assembler, services) = part.stations().expect("they run");
        assert_eq!((assembler.ready().len(), assembler.stats().n_orphans), (30, 0));
        let n_windows = services.ready().len();
        let (mut n_traces, mut n_steps) = (0, 0);
        part.walk_spans(|traces| n_traces += traces.len(), |steps, _| n_steps += steps.len()).expect("they run");
        assert_eq!((n_traces, n_steps), (30, n_windows), "the same however it comes");
        assert!(n_windows >= 6, "two services in three minutes");
    }
}
