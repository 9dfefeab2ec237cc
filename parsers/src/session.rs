//! Which session a line belongs to (station 4): the first rule of `parser.session` that applies.
//!
//! Cost: a rule by attribute looks into the record's JSON only where the name occurs in it at all.

use std::borrow::Cow;

use faultline_core::ParamKind;

use crate::{config::SessionRule, mask::ParamSpan};

/// What the rules look at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line<'a> {
    pub(crate) trace_id: &'a str,
    pub(crate) span_id: &'a str,
    /// JSON object.
    pub(crate) attributes: &'a str,
    /// JSON object.
    pub(crate) resource: &'a str,
    pub(crate) service: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) body: &'a str,
    pub(crate) params: &'a [ParamSpan],
}

/// The session key of a line, and whether it only names what wrote the line.
pub(crate) fn session_of<'a>(rules: &[SessionRule], line: &Line<'a>) -> (Cow<'a, str>, bool) {
    let found = rules.iter().find_map(|rule| Some((apply(rule, line)?, names_writer(rule))));
    found.unwrap_or((Cow::Borrowed(line.stream), true))
}

/// Whether keys of this rule go on for as long as their writer does.
fn names_writer(rule: &SessionRule) -> bool {
    match rule {
        SessionRule::TraceId
        | SessionRule::SpanId
        | SessionRule::Attribute(_)
        | SessionRule::ResourceAttribute(_)
        | SessionRule::Param(_) => false,
        SessionRule::Writer(_)
        | SessionRule::ServiceInstance
        | SessionRule::InstanceAndThread(_)
        | SessionRule::Service
        | SessionRule::Stream => true,
    }
}

fn apply<'a>(rule: &SessionRule, line: &Line<'a>) -> Option<Cow<'a, str>> {
    let given = |text: &'a str| (!text.is_empty()).then_some(Cow::Borrowed(text));
    match rule {
        SessionRule::TraceId => given(line.trace_id),
        SessionRule::SpanId => given(line.span_id),
        SessionRule::Attribute(name) | SessionRule::Writer(name) => json_field(line.attributes, name),
        SessionRule::ResourceAttribute(name) => json_field(line.resource, name),
        SessionRule::Param(kind) => first_param(*kind, line).and_then(given),
        SessionRule::ServiceInstance => {
            let instance = json_field(line.resource, INSTANCE)?;
            Some(Cow::Owned(format!("{}/{instance}", line.service)))
        }
        SessionRule::InstanceAndThread(name) => {
            let thread = json_field(line.attributes, name)?;
            let instance = json_field(line.resource, INSTANCE).unwrap_or(Cow::Borrowed(""));
            Some(Cow::Owned(format!("{}/{instance}/{thread}", line.service)))
        }
        SessionRule::Service => given(line.service),
        SessionRule::Stream => given(line.stream),
    }
}

const INSTANCE: &str = "service.instance.id";

fn first_param<'a>(kind: ParamKind, line: &Line<'a>) -> Option<&'a str> {
    let span = line.params.iter().find(|param| param.kind == kind)?;
    let text = line.body.get(span.start as usize..span.end as usize)?;
    // Of a list, the first.
    if kind == ParamKind::Custom { Some(text) } else { text.split(',').next() }
}

/// A field of a JSON object as text; `None` when it is missing, null or empty.
fn json_field(object: &str, name: &str) -> Option<Cow<'static, str>> {
    memchr::memmem::find(object.as_bytes(), name.as_bytes())?;
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(object).ok()?;
    match object.get(name)? {
        serde_json::Value::String(text) if !text.is_empty() => Some(Cow::Owned(text.clone())),
        serde_json::Value::Null | serde_json::Value::String(_) => None,
        other => Some(Cow::Owned(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_applies_wins() {
        let rules = [SessionRule::TraceId, SessionRule::ServiceInstance, SessionRule::Service];
        let resource = r#"{"service.name":"cart","service.instance.id":"cart-7"}"#;
        let mut line = Line { trace_id: "ab", resource, service: "cart", stream: "s", ..Line::default() };
        assert_eq!(session_of(&rules, &line), ("ab".into(), false));
        line.trace_id = "";
        assert_eq!(session_of(&rules, &line), ("cart/cart-7".into(), true));
        line.resource = "{}";
        assert_eq!(session_of(&rules, &line), ("cart".into(), true));
        line.service = "";
        assert_eq!(session_of(&rules, &line), ("s".into(), true));
        (line.trace_id, line.span_id) = ("ab", "c");
        let by_span = [SessionRule::SpanId, SessionRule::TraceId];
        assert_eq!(session_of(&by_span, &line), ("c".into(), false));
        line.span_id = "";
        assert_eq!(session_of(&by_span, &line), ("ab".into(), false));
    }

    #[test]
    fn a_parameter_of_a_kind_is_a_key() {
        let body = "deleting blk_1,blk_2 at /10.0.0.1:5";
        let params = [
            ParamSpan { kind: ParamKind::Block, start: 9, end: 20 },
            ParamSpan { kind: ParamKind::Ip, start: 24, end: 35 },
        ];
        let line = Line { body, params: &params, stream: "hdfs", ..Line::default() };
        assert_eq!(session_of(&[SessionRule::Param(ParamKind::Block)], &line), ("blk_1".into(), false));
        assert_eq!(session_of(&[SessionRule::Param(ParamKind::Uuid)], &line), ("hdfs".into(), true));
    }

    #[test]
    fn attributes_of_any_type_are_keys() {
        let attributes = r#"{"job":"j-1","thread.id":17,"none":null}"#;
        let line = Line { attributes, service: "s", stream: "x", ..Line::default() };
        let of = |rule| session_of(&[rule], &line).0.into_owned();
        assert_eq!(of(SessionRule::Attribute("job".into())), "j-1");
        assert_eq!(session_of(&[SessionRule::Writer("job".into())], &line), ("j-1".into(), true));
        assert_eq!(of(SessionRule::InstanceAndThread("thread.id".into())), "s//17");
        assert_eq!(of(SessionRule::Attribute("none".into())), "x");
        assert_eq!(
            session_of(&[SessionRule::Attribute("job".into())], &Line { attributes: "{job", stream: "x", ..line }).0,
            "x"
        );
    }
}
