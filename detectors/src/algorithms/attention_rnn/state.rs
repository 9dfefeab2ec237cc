//! What a model of the attention RNN is kept as: one JSON object with its weights in base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use faultline_core::{DetectorError, TemplateId};
use serde::{Deserialize, Serialize};

use super::{
    Attention, AttentionRnn, Config, Direction, Level, MAX_TEMPLATES, MAX_VOCABULARY, Model, Reader,
    contexts::Vocabulary,
    shape::Symbol,
    templates::Templates,
    tokens::Tokens,
    words::{MAX_WORDS, Words},
};
use crate::{algorithm::Algorithm, snapshot};

/// What a snapshot holds. One of before there were levels is of the template level.
#[derive(Serialize, Deserialize)]
struct State {
    version: u64,
    #[serde(default)]
    level: Level,
    attention: Attention,
    direction: Direction,
    window: usize,
    segment: usize,
    #[serde(default)]
    lines: usize,
    hidden: usize,
    attention_width: usize,
    knows_end: bool,
    templates: Vec<u64>,
    #[serde(default)]
    words: Vec<Box<str>>,
    #[serde(default)]
    knows_others: bool,
    #[serde(default)]
    wordings: Vec<(u64, Box<[Symbol]>)>,
    /// Little-endian f32 in base64.
    weights: String,
}

/// Writes a snapshot.
pub fn encode(model: &Model) -> Result<Vec<u8>, DetectorError> {
    let config = &model.config;
    let bytes: Vec<u8> = model.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let mut state = State {
        version: model.version,
        level: config.level,
        attention: config.attention,
        direction: config.direction,
        window: config.window,
        segment: config.segment,
        lines: config.lines,
        hidden: config.hidden,
        attention_width: config.attention_width,
        knows_end: false,
        templates: Vec::new(),
        words: Vec::new(),
        knows_others: false,
        wordings: Vec::new(),
        weights: STANDARD.encode(bytes),
    };
    match &model.reader {
        Reader::Templates(templates) => {
            state.knows_end = templates.vocabulary.knows_end;
            state.templates = templates.vocabulary.templates.iter().map(|template| template.0).collect();
        }
        Reader::Tokens(tokens) => {
            let Words { words, knows_others, wordings, .. } = &tokens.words;
            state.words.clone_from(words);
            state.knows_others = *knows_others;
            state.wordings = wordings.iter().map(|(template, line)| (template.0, line.clone())).collect();
        }
    }
    snapshot::encode(AttentionRnn::NAME, &state)
}

/// Reads what [`encode`] wrote.
pub fn decode(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
    let refuse = |reason: String| DetectorError::Snapshot { detector: AttentionRnn::NAME.to_owned(), reason };
    let state: State = snapshot::decode(AttentionRnn::NAME, snapshot)?;
    // The keys that say how large the network is. Only the token level reads lines.
    let lines = if state.level == Level::Token { state.lines } else { config.lines };
    let fitted = [
        ("level", format!("{:?}", state.level), format!("{:?}", config.level)),
        ("attention", format!("{:?}", state.attention), format!("{:?}", config.attention)),
        ("direction", format!("{:?}", state.direction), format!("{:?}", config.direction)),
        ("window", state.window.to_string(), config.window.to_string()),
        ("segment", state.segment.to_string(), config.segment.to_string()),
        ("lines", lines.to_string(), config.lines.to_string()),
        ("hidden", state.hidden.to_string(), config.hidden.to_string()),
        ("attention_width", state.attention_width.to_string(), config.attention_width.to_string()),
    ];
    for (key, found, wanted) in fitted {
        if found != wanted {
            return Err(refuse(format!("it was fitted with `{key}` {found}, the configuration says {wanted}")));
        }
    }
    if state.templates.len() > MAX_TEMPLATES || state.words.len() > MAX_VOCABULARY {
        return Err(refuse(format!("it knows {} templates and {} words", state.templates.len(), state.words.len())));
    }
    let reader = match state.level {
        Level::Template => {
            let templates = state.templates.into_iter().map(TemplateId).collect();
            Reader::Templates(Templates::new(config, Vocabulary::new(templates, state.knows_end)))
        }
        Level::Token => {
            let mut words = Words::new(state.words);
            let (n_words, unknown) = (words.words.len(), words.unknown());
            let is_word = |symbol: &Symbol| usize::from(*symbol) < n_words || *symbol == unknown;
            let is_line = |line: &[Symbol]| (1..=MAX_WORDS).contains(&line.len()) && line.iter().all(is_word);
            if let Some((template, _)) = state.wordings.iter().find(|(_, line)| !is_line(line)) {
                return Err(refuse(format!("the line of template {template} is none of its words")));
            }
            words.knows_others = state.knows_others;
            words.wordings = state.wordings.into_iter().map(|(template, line)| (TemplateId(template), line)).collect();
            Reader::Tokens(Tokens::new(config, words))
        }
    };
    let bytes = STANDARD.decode(state.weights).map_err(|error| refuse(format!("its weights: {error}")))?;
    let n_weights = reader.shape().n_weights();
    if bytes.len() != 4 * n_weights {
        return Err(refuse(format!("it holds {} bytes of weights, not {}", bytes.len(), 4 * n_weights)));
    }
    let weights: Vec<f32> =
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    if !weights.iter().all(|weight| weight.is_finite()) {
        return Err(refuse("a weight is not a number".to_owned()));
    }
    Ok(Model::new(config, state.version, reader, weights))
}
