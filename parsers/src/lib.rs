//! Station 4 of the path: log lines become templates, parameters and session keys.
//!
//! A raw line loses its header to columns ([`ParserConfig::line_format`]); what is left is masked and hashed in one pass
//! ([`tokens`], over [`scan`] and [`mask`]) and finds its template in the tree of its stream ([`drain`]); the session
//! comes from the first rule that applies. Nothing here fails on a line: one that nothing matches is its own template, or the
//! catch-all's of its length where its stream has founded too many.
//!
//! Read in this order: `tokens.rs`, `mask.rs`, `drain.rs`, `parser.rs`.

pub mod config;
pub mod drain;
mod error;
mod hash;
mod header;
pub mod mask;
mod parser;
mod preset;
pub mod scan;
mod session;
mod snapshot;
mod time;
pub mod tokens;

pub use config::{MaskConfig, ParserConfig, SessionRule};
pub use drain::{Change, Drain, DrainConfig, DrainStats, Match};
pub use error::ParserError;
pub use mask::{Masker, ParamSpan};
pub use parser::{LogParser, ParserStats};
pub use tokens::{MaskedLine, Params};
