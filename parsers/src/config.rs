//! Configuration of station 4: everything a user can say about how lines become templates and sessions.

use faultline_core::ParamKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{drain::DrainConfig, error::ParserError};

/// How lines become templates. The defaults suit every system; a preset adds a line format and session keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ParserConfig {
    /// Format of raw lines in the notation of Loghub, such as `<Date> <Time> <Pid> <Level> <Component>: <Content>`.
    /// `(...)?` may be absent, a backslash takes the next character as it is. `<Level>` becomes the severity, `<Component>`
    /// the scope name, other fields attributes; `<Label>` (ground truth) is skipped. Default: none, the whole
    /// body is the message. Set by who replays raw files.
    pub line_format: Option<String>,
    /// Fields of `line_format` that hold the time, joined by one space before they are read. Default: none, the time a
    /// record came with is kept.
    pub time_fields: Vec<String>,
    /// How to read `time_fields`: `%Y %y %m %d %H %M %S %b %a %f %.f %L %s %z`. Default: none.
    pub time_format: Option<String>,
    /// Offset from UTC of times without a zone, in minutes. Default: 0. Set by who replays files of another zone.
    pub utc_offset_minutes: i32,
    /// One name for all lines, so that they share their templates. Default: none, each `service.name` has
    /// its own. Presets set it to the name of the system.
    pub stream: Option<String>,
    /// What a line's session is: the first rule that applies to it. Default: its trace, else its service instance, else
    /// its service.
    pub session: Vec<SessionRule>,
    /// Masks beyond the built-in ones (addresses, numbers, hexadecimal, UUIDs, paths, hosts, block ids, times). Default:
    /// none. Added by who knows identifiers that the built-in ones do not; each costs speed.
    pub masks: Vec<MaskConfig>,
    /// Templates known beforehand, in every stream. Each is a line with placeholders where it varies, such as
    /// `Receiving block <BLK> src: <IP> dest: <*>`: typed ones (`<IP> <NUM> <HEX> <UUID> <PATH> <HOST> <BLK> <TIME>` and the
    /// names of `masks`) for what the mask of that name finds, `<*>` for any one token. Values in it are masked as in lines,
    /// so that an example line does as well. They match before anything learned, with ids that are the same in every run, and
    /// go on to learn from similar lines. At most 1,000 with `pins`. Default: none. Set by who knows the messages
    /// of a service and wants their templates right from the first line.
    pub seeds: Vec<String>,
    /// Templates that stay as they are, written as `seeds`: they match before anything learned, and never widen, merge or make
    /// room for others. Default: none. Set by who builds alerts or queries on a template, or wants to keep apart what
    /// the parser would merge.
    pub pins: Vec<String>,
    /// Share of tokens that must be equal for a line to join a template, 0 to 1. Default: 0.6. Values of any kind count as
    /// equal. Lower merges more.
    pub similarity: f64,
    /// Different words seen in one place before the place counts as variable rather than as a difference in
    /// meaning. Default: 5. Lower merges `started` and `paused` sooner.
    pub min_words: usize,
    /// How many first tokens must be equal, 0 to 8. Default: 2.
    pub prefix_tokens: usize,
    /// Different tokens in one of those places; further ones share a branch. Default: 100.
    pub max_children: usize,
    /// Templates of one stream; then the one least recently used makes room. Default: 10,000.
    pub max_templates: usize,
    /// New templates of one stream within `new_template_lines` of its lines, at once or spread out; what would found more goes
    /// to one catch-all template for each number of tokens (`<*> <*> <*>`) until lines without new templates have made up for
    /// it. Default: 1,000. Raised by who has a service with thousands of different messages, lowered where
    /// unmasked identifiers make templates without end and no mask can be given.
    pub max_new_templates: usize,
    /// See `max_new_templates`. Default: 100,000.
    pub new_template_lines: usize,
    /// Tree nodes of one stream; then lines of one length share a leaf. Default: 20,000.
    pub max_nodes: usize,
    /// Tokens of one line, 2 to 1,024; the rest is one variable. Default: 256.
    pub max_tokens: usize,
    /// Bytes of a line that are looked at, 64 to 1,048,576; the record keeps all of it. Default: 16,384.
    pub max_line_bytes: usize,
    /// Streams with templates of their own; further ones share one. Default: 1,024.
    pub max_streams: usize,
}

/// What a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SessionRule {
    /// The trace id.
    TraceId,
    /// The span id: what one operation writes, apart from what runs beside it in the same trace.
    SpanId,
    /// A log attribute of this name; a field of the line format is one.
    Attribute(String),
    /// A resource attribute of this name.
    ResourceAttribute(String),
    /// A log attribute of this name that says who wrote the record, such as a host. Records of one writer are judged
    /// together, but where they begin and end means nothing.
    Writer(String),
    /// The first parameter of this kind: `ip`, `number`, `hex`, `uuid`, `path`, `host`, `block`, `time` or `custom`.
    Param(#[schemars(with = "String")] ParamKind),
    /// `service.instance.id` with the service's name.
    ServiceInstance,
    /// `service.instance.id` with a log attribute that names the thread, such as `thread.id`.
    InstanceAndThread(String),
    /// The service's name.
    Service,
    /// One session for the whole stream.
    Stream,
}

/// A mask that the user adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskConfig {
    /// Name in templates, written `<NAME>`: letters, digits and `_`.
    pub name: String,
    /// Regular expression of the variable part, in the syntax of the `regex` crate.
    pub regex: String,
}

impl Default for ParserConfig {
    fn default() -> Self {
        let drain = DrainConfig::default();
        Self {
            line_format: None,
            time_fields: Vec::new(),
            time_format: None,
            utc_offset_minutes: 0,
            stream: None,
            session: vec![SessionRule::TraceId, SessionRule::ServiceInstance, SessionRule::Service],
            masks: Vec::new(),
            seeds: Vec::new(),
            pins: Vec::new(),
            similarity: drain.similarity,
            min_words: drain.min_words,
            prefix_tokens: drain.prefix_tokens,
            max_children: drain.max_children,
            max_templates: drain.max_templates,
            max_new_templates: drain.max_new_templates,
            new_template_lines: drain.new_template_lines,
            max_nodes: drain.max_nodes,
            max_tokens: 256,
            max_line_bytes: 16 * 1024,
            max_streams: 1024,
        }
    }
}

impl ParserConfig {
    /// Checks every range.
    pub(crate) fn drain(&self) -> Result<DrainConfig, ParserError> {
        let within = |key: &'static str, value: usize, min: usize, max: usize| {
            let reason = || format!("{value} is not within {min} to {max}");
            if (min..=max).contains(&value) { Ok(value) } else { Err(ParserError::Config { key, reason: reason() }) }
        };
        if !(0.0..=1.0).contains(&self.similarity) {
            let reason = format!("{} is not within 0 to 1", self.similarity);
            return Err(ParserError::Config { key: "similarity", reason });
        }
        within("max_tokens", self.max_tokens, 2, 1024)?;
        within("max_line_bytes", self.max_line_bytes, 64, 1 << 20)?;
        within("max_streams", self.max_streams, 1, 1 << 20)?;
        within("masks", self.masks.len(), 0, 256)?;
        within("seeds", self.seeds.len() + self.pins.len(), 0, 1000)?;
        Ok(DrainConfig {
            similarity: self.similarity,
            min_words: within("min_words", self.min_words, 2, 1000)?,
            prefix_tokens: within("prefix_tokens", self.prefix_tokens, 0, 8)?,
            max_children: within("max_children", self.max_children, 1, 1 << 20)?,
            max_templates: within("max_templates", self.max_templates, 1, 1 << 24)?,
            max_nodes: within("max_nodes", self.max_nodes, 1, 1 << 24)?,
            max_new_templates: within("max_new_templates", self.max_new_templates, 1, 1 << 24)?,
            new_template_lines: within("new_template_lines", self.new_template_lines, 1, 1 << 32)?,
        })
    }
}
