//! Bad input: what would flood, grow or stall a parser stays within its limits, and says so in a counter.

use faultline_core::{LogBatch, LogBatchBuilder, LogRecord, Parser};
use faultline_parsers::{LogParser, ParserConfig};

fn of_services(lines: &[(&str, &str)]) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    for (service_name, body) in lines {
        builder.push(&LogRecord { time_unix_nano: 1, body, service_name, ..LogRecord::default() });
    }
    builder.finish()
}

fn parse(parser: &mut LogParser, lines: &[String]) -> LogBatch {
    parser.parse(of_services(&lines.iter().map(|line| ("s", line.as_str())).collect::<Vec<_>>()))
}

/// A word without digits that is different for each number.
fn word(n: usize) -> String {
    format!("{n:x}").bytes().map(|digit| char::from(b'g' + (digit % 39) % 16)).collect()
}

/// Lines of five words of which none comes twice: the masks find nothing, and no two lines are alike.
fn random_words(lines: std::ops::Range<usize>) -> Vec<String> {
    lines.map(|n| (0..5).map(|k| word(n * 5 + k)).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_million_distinct_words_make_templates_at_the_rate_allowed_and_no_faster() {
    let mut parser = LogParser::new(ParserConfig::default()).expect("a parser");
    let (n_lines, mut ids) = (200_000, std::collections::BTreeSet::new());
    for from in (0..n_lines).step_by(10_000) {
        let batch = parse(&mut parser, &random_words(from..from + 10_000));
        ids.extend(batch.template_id().values().iter().copied());
    }
    let stats = parser.drain_stats()[0].1;
    // The first thousand at once, one for each hundred lines, and one catch-all.
    assert_eq!(stats.created, 1000 + 1999 + 1, "{stats:?}");
    assert_eq!(ids.len() as u64, stats.created);
    assert_eq!(stats.limited_lines, n_lines as u64 - 2999);
    let catch_all = parser.templates().into_iter().find(|t| t.text == "<*> <*> <*> <*> <*>").expect("a catch-all");
    assert_eq!(catch_all.count, stats.limited_lines);
    assert_eq!(parser.templates().iter().map(|t| t.count).sum::<u64>(), n_lines as u64);
    assert!(parser.snapshot().len() < 2_000_000, "{} bytes", parser.snapshot().len());
}

#[test]
fn a_flood_in_one_stream_leaves_others_and_what_was_known_alone() {
    let limited = ParserConfig { max_new_templates: 20, new_template_lines: 1000, ..ParserConfig::default() };
    let mut parser = LogParser::new(limited).expect("a parser");
    let known = parse(&mut parser, &["cache of node is warm".to_owned()]).template_id().value(0);
    parse(&mut parser, &random_words(0..500));
    let limited_lines = parser.drain_stats()[0].1.limited_lines;
    assert!(limited_lines >= 460, "{limited_lines}");
    let now = parser.parse(of_services(&[("s", "cache of node is warm"), ("other", "a b c"), ("other", "d e f")]));
    assert_eq!(now.template_id().value(0), known);
    assert_ne!(now.template_id().value(1), now.template_id().value(2));
    assert_eq!(parser.drain_stats()[0].1.limited_lines, 0, "of stream `other`");
    // No value of a refused line is a parameter but what the masks find.
    let refused = parse(&mut parser, &["zzz yyy 17 xxx www".to_owned()]);
    assert_eq!(refused.params().value(0).len(), 1);
    // Calm lines make up for it: fifty of them for one new template.
    parse(&mut parser, &vec!["cache of node is warm".to_owned(); 50]);
    let again = parse(&mut parser, &["zzz yyy 17 xxx www".to_owned()]);
    assert_ne!(again.template_id().value(0), refused.template_id().value(0));
}

#[test]
fn catch_alls_are_one_for_each_length() {
    let limited = ParserConfig { max_new_templates: 1, ..ParserConfig::default() };
    let mut parser = LogParser::new(limited).expect("a parser");
    let lines: Vec<String> =
        (0..3000).map(|n| (0..=n % 300).map(|k| word(n * 300 + k)).collect::<Vec<_>>().join(" ")).collect();
    parse(&mut parser, &lines);
    let stats = parser.drain_stats()[0].1;
    assert_eq!((stats.created, stats.limited_lines), (1 + 256, 2999));
}

#[test]
fn the_allowance_outlives_a_restart() {
    let limited = || ParserConfig { max_new_templates: 5, new_template_lines: 100, ..ParserConfig::default() };
    let mut parser = LogParser::new(limited()).expect("a parser");
    parse(&mut parser, &random_words(0..50));
    let mut restored = LogParser::restore(limited(), &parser.snapshot()).expect("its own snapshot");
    let lines = random_words(50..400);
    assert_eq!(parse(&mut parser, &lines).into_arrow(), parse(&mut restored, &lines).into_arrow());
    assert_eq!(restored.snapshot(), parser.snapshot());
}

#[test]
fn a_line_of_a_mebibyte_is_looked_at_up_to_the_cap_and_kept_whole() {
    let mut parser = LogParser::new(ParserConfig::default()).expect("a parser");
    let words = random_words(0..60_000).join(" ");
    let lines = [
        words[..1 << 20].to_owned(),
        "x".repeat(1 << 20),
        "7".repeat(1 << 20),
        "1,".repeat(1 << 19),
        "/a".repeat(1 << 19),
        "<*> ".repeat(1 << 18),
        "((((".repeat(1 << 18),
        "a.b:c@d-".repeat(1 << 17),
        "10.0.0.1:80 ".repeat(87_381),
    ];
    let batch = parse(&mut parser, &lines);
    for (row, line) in lines.iter().enumerate() {
        assert_eq!(batch.body().value(row), line);
        assert!(batch.params().value(row).len() <= 16 * 1024 / 2, "row {row}");
    }
    let stats = parser.drain_stats()[0].1;
    assert_eq!((stats.cut_lines, stats.cut_tokens), (9, 2), "{stats:?}");
    for template in parser.templates() {
        assert!(template.text.len() <= 16 * 1024 + 8 * 256, "{} bytes", template.text.len());
    }
    // Each template's text and hashes, once.
    assert!(parser.snapshot().len() < 9 * 3 * 16 * 1024, "{} bytes", parser.snapshot().len());
}

#[test]
fn deep_repetition_is_one_value_and_one_template() {
    let mut parser = LogParser::new(ParserConfig::default()).expect("a parser");
    let lines: Vec<String> = (1..500).map(|n| format!("ids {}", "1 ".repeat(n))).collect();
    let lists: Vec<String> = (1..500).map(|n| format!("ids {}9", "1,".repeat(n))).collect();
    let batch = parse(&mut parser, &[lines, lists].concat());
    assert!(batch.template_id().values().iter().all(|id| *id == batch.template_id().value(0)));
}

#[test]
fn binary_bytes_are_lines_like_any_other() {
    let mut parser = LogParser::new(ParserConfig::default()).expect("a parser");
    // What a decoder hands on: every byte that is not UTF-8 as the replacement character, control characters as they are.
    let mut state = 1_u64;
    let lines: Vec<String> = (0..2000)
        .map(|_| {
            let bytes: Vec<u8> = (0..200)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        })
        .collect();
    let batch = parse(&mut parser, &lines);
    assert!((0..batch.len()).all(|row| batch.body().value(row) == lines[row]));
    assert_eq!(parser.templates().iter().map(|t| t.count).sum::<u64>(), 2000);
    let texts: usize = parser.templates().iter().map(|t| t.text.len()).sum();
    assert!(texts < 2000 * 1000, "{texts} bytes");
}

#[test]
fn widening_again_and_again_keeps_a_bounded_history() {
    let mut parser = LogParser::new(ParserConfig::default()).expect("a parser");
    // A word in the place of a value, in one place after the other.
    let line = |n: usize| (0..60).map(|k| if k == n { "- x " } else { "- 7 " }).collect::<String>();
    parse(&mut parser, &(1..41).map(line).collect::<Vec<_>>());
    let template = &parser.templates()[0];
    assert_eq!((template.count, template.lineage.len()), (40, 32));
    assert!(!template.lineage[0].contains("<*>"), "the text that founded it");
    assert_eq!(template.lineage[31].matches("<*>").count() + 1, template.text.matches("<*>").count());
}
