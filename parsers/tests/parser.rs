//! The parser as the pipeline sees it: batches in, batches out.

use std::collections::BTreeMap;

use arrow::array::{Array, StringArray};
use faultline_core::{LogBatch, LogBatchBuilder, LogRecord, Parser, TemplateId, batch::dict_value};
use faultline_parsers::{DrainStats, LogParser, MaskConfig, ParserConfig, ParserError, SessionRule};
use proptest::prelude::*;

fn raw(lines: &[&str]) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    for (idx, line) in lines.iter().enumerate() {
        builder.push(&LogRecord { time_unix_nano: idx as i64 + 1, body: line, ..LogRecord::default() });
    }
    builder.finish()
}

fn of_services(lines: &[(&str, &str)]) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    for (service_name, body) in lines {
        builder.push(&LogRecord { time_unix_nano: 1, body, service_name, ..LogRecord::default() });
    }
    builder.finish()
}

fn parser(preset: &str) -> LogParser {
    LogParser::new(ParserConfig::preset(preset).expect("a preset")).expect("a parser")
}

fn params(batch: &LogBatch, row: usize) -> Vec<String> {
    let values = batch.params().value(row);
    let values = values.as_any().downcast_ref::<StringArray>().expect("a list of text");
    values.iter().map(|value| value.unwrap_or("").to_owned()).collect()
}

fn texts(parser: &LogParser) -> Vec<String> {
    let mut texts: Vec<_> = parser.templates().into_iter().map(|t| format!("{:>3}  {}", t.count, t.text)).collect();
    texts.sort();
    texts
}

/// In the form of HDFS data node logs; not copied from any data set.
const HDFS: [&str; 8] = [
    "090101 101112 17 INFO dfs.DataNode$DataXceiver: Receiving block blk_-7001 src: /10.1.2.3:4000 dest: /10.1.2.4:50010",
    "090101 101113 18 INFO dfs.DataNode$DataXceiver: Receiving block blk_7002 src: /10.1.2.5:4001 dest: /10.1.2.4:50010",
    "090101 101114 19 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_-7001 terminating",
    "090101 101115 20 INFO dfs.DataNode$PacketResponder: Received block blk_7002 of size 67108864 from /10.1.2.5",
    "090101 101116 21 INFO dfs.FSNamesystem: BLOCK* NameSystem.allocateBlock: /user/root/part-00017. blk_7003",
    "090101 101117 22 WARN dfs.DataNode: Slow write of blk_7003 to mirror 10.1.2.9:50010 took 1.5 s",
    "java.io.IOException: Connection reset by peer",
    "090101 101118 23 INFO dfs.FSNamesystem: BLOCK* ask 10.1.2.3:50010 to delete blk_7001 blk_7002 blk_7003",
];

#[test]
fn a_raw_line_fills_every_column_and_stays_whole() {
    let mut parser = parser("hdfs");
    let batch = parser.parse(raw(&HDFS));
    for (row, line) in HDFS.iter().enumerate() {
        let header = if batch.header().is_valid(row) { batch.header().value(row) } else { "" };
        assert_eq!(format!("{header}{}", batch.body().value(row)), *line);
    }
    assert_eq!(batch.time_unix_nano().value(0), 1_230_804_672_000_000_000);
    assert_eq!(batch.severity_number().value(5), 13);
    assert_eq!(dict_value(batch.severity_text(), 5), Some("WARN"));
    assert_eq!(dict_value(batch.scope_name(), 0), Some("dfs.DataNode$DataXceiver"));
    assert_eq!(batch.attributes().value(0), r#"{"Pid":"17"}"#);
    assert_eq!(params(&batch, 0), ["blk_-7001", "/10.1.2.3:4000", "/10.1.2.4:50010"]);
    let sessions: Vec<&str> = batch.session().iter().flatten().collect();
    assert_eq!(
        sessions,
        ["blk_-7001", "blk_7002", "blk_-7001", "blk_7002", "blk_7003", "blk_7003", "hdfs", "blk_7001"]
    );
    assert_eq!(batch.template_id().value(0), batch.template_id().value(1));
    // The line without header: its text, its own time, its own template, and a count.
    assert_eq!(batch.time_unix_nano().value(6), 7);
    assert!(batch.header().is_null(6) && batch.severity_number().is_null(6));
    assert_eq!(parser.stats().unmatched_headers, 1);
}

#[test]
fn templates_are_readable() {
    let mut parser = parser("hdfs");
    parser.parse(raw(&HDFS));
    insta::assert_snapshot!(texts(&parser).join("\n"));
}

#[test]
fn the_label_on_a_line_stays_in_the_raw_header() {
    let line = "KERNDTLB 1117838570 2005.06.03 R02-M1 2005-06-03-15.42.50.363779 R02-M1 RAS KERNEL FATAL data TLB error interrupt";
    let unlabelled = line.replace("KERNDTLB", "-");
    let (labelled, plain) = (parser("bgl").parse(raw(&[line])), parser("bgl").parse(raw(&[&unlabelled])));
    assert!(labelled.header().value(0).starts_with("KERNDTLB "));
    for (column, field) in labelled.as_arrow().columns().iter().zip(LogBatch::schema().fields()) {
        let other = plain.as_arrow().column_by_name(field.name()).expect("the same schema");
        assert_eq!(field.name() == "header", column.as_ref() != other.as_ref(), "column {}", field.name());
    }
    assert_eq!(labelled.time_unix_nano().value(0), 1_117_813_370_363_779_000);
    assert_eq!(labelled.severity_number().value(0), 21);
    assert_eq!(labelled.session().value(0), "R02-M1");
}

#[test]
fn words_are_semantics_until_many_have_been_seen() {
    let mut parser = LogParser::new(ParserConfig::default()).expect("a parser");
    let states = ["machine web VM started now", "machine web VM paused now", "machine web VM stopped now"];
    let batch = parser.parse(raw(&states));
    assert_eq!(parser.templates().len(), 3, "three states are three templates");
    assert!(parser.aliases().is_empty());
    let names: Vec<String> = ["ann", "bob", "cid", "dot", "eve", "fay"]
        .iter()
        .map(|name| format!("door opened by person {name} today"))
        .collect();
    let batch_of_names = parser.parse(raw(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let ids: Vec<u64> = batch_of_names.template_id().values().to_vec();
    assert_eq!(
        texts(&parser),
        [
            "  1  machine web VM paused now",
            "  1  machine web VM started now",
            "  1  machine web VM stopped now",
            "  6  door opened by person <*> today",
        ]
    );
    assert_eq!(params(&batch_of_names, 5), ["fay"]);
    // The ids of the first ones live on as aliases of the one that took their lines.
    assert_eq!(ids[4], ids[0]);
    let aliases: Vec<(TemplateId, TemplateId)> = parser.aliases();
    assert_eq!(aliases.len(), 3);
    assert!(aliases.iter().all(|(from, into)| ids[1..4].contains(&from.0) && into.0 == ids[0]));
    let snapshot = parser.snapshot();
    assert_eq!(parser.drain_aliases(), aliases);
    assert!(parser.drain_aliases().is_empty(), "each is told of once");
    let mut restored = LogParser::restore(ParserConfig::default(), &snapshot).expect("its snapshot");
    assert_eq!(restored.drain_aliases(), aliases, "and again after a restart");
    assert_eq!(batch.len(), 3);
}

#[test]
fn a_template_keeps_its_id_and_its_history_when_it_widens() {
    let mut parser = LogParser::new(ParserConfig::default()).expect("a parser");
    let first = parser.parse(raw(&["link to node is up after retry 7"]));
    assert_eq!(parser.drain_changes().len(), 1);
    let second = parser.parse(raw(&["link to node is up after retry never"]));
    assert_eq!(first.template_id().value(0), second.template_id().value(0));
    let changes = parser.drain_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].text, "link to node is up after retry <*>");
    assert_eq!(changes[0].lineage, ["link to node is up after retry <NUM>"]);
    assert_eq!((changes[0].count, changes[0].first_seen_unix_nano), (2, 1));
    assert!(parser.drain_changes().is_empty());
}

#[test]
fn a_users_mask_is_a_typed_hole() {
    let masks = vec![MaskConfig { name: "ORDER".into(), regex: "order [a-z]+ [a-z]+".into() }];
    let session = vec![SessionRule::Param(faultline_core::ParamKind::Custom)];
    let mut parser = LogParser::new(ParserConfig { masks, session, ..ParserConfig::default() }).expect("a parser");
    let batch = parser.parse(raw(&["paid order red apple in full", "paid order green pear in full"]));
    assert_eq!(texts(&parser), ["  2  paid <ORDER> in full"]);
    assert_eq!(params(&batch, 1), ["order green pear"]);
    assert_eq!(batch.session().value(0), "order red apple");
}

#[test]
fn a_wrong_configuration_names_its_key() {
    let with = |change: fn(&mut ParserConfig)| {
        let mut config = ParserConfig::default();
        change(&mut config);
        LogParser::new(config).expect_err("a wrong value").to_string()
    };
    assert!(with(|c| c.similarity = f64::NAN).starts_with("parser.similarity"));
    assert!(with(|c| c.max_tokens = 1).starts_with("parser.max_tokens"));
    assert!(with(|c| c.line_format = Some("<Date>".into())).starts_with("parser.line_format"));
    assert!(with(|c| c.time_format = Some("%Y".into())).starts_with("parser.time_fields"));
    assert!(with(|c| c.masks = vec![MaskConfig { name: "A".into(), regex: "(".into() }]).contains("mask `A`"));
    assert!(with(|c| c.masks = vec![MaskConfig { name: "a b".into(), regex: "x".into() }]).contains("`a b`"));
    let unknown: Result<ParserConfig, _> = serde_json::from_str(r#"{"similarty":0.5}"#);
    assert!(unknown.expect_err("unknown key").to_string().contains("similarty"));
}

#[test]
fn a_damaged_or_foreign_snapshot_is_refused() {
    let mut parser = parser("hdfs");
    parser.parse(raw(&HDFS));
    let snapshot = parser.snapshot();
    let config = || ParserConfig::preset("hdfs").expect("a preset");
    assert!(LogParser::restore(config(), &snapshot).is_ok());
    for at in 0..snapshot.len() {
        let mut damaged = snapshot.clone();
        damaged[at] ^= 0x10;
        assert!(LogParser::restore(config(), &damaged).is_err(), "byte {at}");
        if at % 97 == 0 {
            assert!(matches!(LogParser::restore(config(), &snapshot[..at]), Err(ParserError::CorruptSnapshot { .. })));
        }
    }
    assert_eq!(
        LogParser::restore(config(), b"{}").expect_err("no snapshot").to_string(),
        "parser snapshot is corrupt: it does not begin like one"
    );
    for other in [1, 3] {
        let mut of_other_release = snapshot.clone();
        of_other_release[12] = other;
        let error = LogParser::restore(config(), &of_other_release).expect_err("another version");
        let expected = format!("parser snapshot has format version {other}, this release reads version 2");
        assert_eq!(error.to_string(), expected);
    }
    let masks = vec![MaskConfig { name: "X".into(), regex: "x".into() }];
    let other = LogParser::restore(ParserConfig { masks, ..config() }, &snapshot);
    assert!(matches!(other, Err(ParserError::SnapshotMasks)));
}

#[test]
fn limits_hold_and_are_counted() {
    let config = ParserConfig {
        max_templates: 8,
        max_nodes: 12,
        max_children: 3,
        max_tokens: 4,
        max_line_bytes: 64,
        max_streams: 3,
        ..ParserConfig::default()
    };
    let mut parser = LogParser::new(config).expect("a parser");
    let word = |n: u32| -> String { format!("{n:b}").chars().map(|c| if c == '0' { 'o' } else { 'i' }).collect() };
    let mut n_lines = 0;
    for n in 0..300_u32 {
        let body = (0..=n % 7).map(|k| word(n * 7 + k)).collect::<Vec<_>>().join(" ");
        let service = format!("service-{}", n % 5);
        parser.parse(of_services(&[(&service, &body), (&service, &"long ".repeat(30))]));
        n_lines += 2;
    }
    let stats = parser.drain_stats();
    assert_eq!(stats.iter().map(|s| s.0).collect::<Vec<_>>(), ["_overflow", "service-0", "service-1"]);
    assert!(parser.templates().len() <= 3 * 8);
    let sum: u64 = parser.templates().iter().map(|t| t.count).sum();
    let evicted: u64 = stats.iter().map(|s| s.1.evicted_lines).sum();
    assert_eq!(sum + evicted, n_lines);
    for (name, stats) in stats {
        for (what, counter) in [
            ("evicted", stats.evicted),
            ("shared_branches", stats.shared_branches),
            ("cut_tokens", stats.cut_tokens),
            ("cut_lines", stats.cut_lines),
        ] {
            assert!(counter > 0, "{what} of {name}: {stats:?}");
        }
    }
    assert_eq!(parser.stats().overflowed_lines, 3 * 60 * 2);
}

/// Lines that look like logs, so that they share templates, split and merge.
fn line() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        4 => "(open|close|read|write|user|from|to|block|node|at|ok)",
        2 => "[a-e]{1,3}",
        2 => "[0-9]{1,5}",
        1 => "blk_-?[0-9]{1,9}",
        1 => "10\\.0\\.[0-9]{1,2}\\.[0-9](:[0-9]{1,4})?",
        1 => "/[a-z]{1,3}/[a-z0-9]{1,3}",
        1 => "\\PC{1,6}",
        1 => "(Jul|[0-9]{2}:[0-9]{2}:[0-9]{2}|2005|\\(1\\.5|KB\\)|ms)",
    ];
    proptest::collection::vec(token, 0..8).prop_map(|tokens| tokens.join(" "))
}

fn small() -> ParserConfig {
    ParserConfig {
        max_templates: 12,
        max_nodes: 20,
        max_children: 4,
        max_tokens: 6,
        max_new_templates: 20,
        new_template_lines: 100,
        seeds: vec!["open <*>".into(), "<*> from <NUM>".into()],
        pins: vec!["user <*>".into(), "close".into()],
        ..ParserConfig::default()
    }
}

/// Limits and seeds under which everything that can happen to a line does.
fn any_limits() -> impl Strategy<Value = ParserConfig> {
    (1..40_usize, 1..30_usize, 1..6_usize, 2..10_usize, 1..40_usize, any::<bool>()).prop_map(
        |(max_templates, max_nodes, max_children, max_tokens, max_new_templates, seeded)| ParserConfig {
            max_templates: max_templates + 2,
            max_nodes,
            max_children,
            max_tokens,
            max_new_templates,
            new_template_lines: 100,
            seeds: if seeded { vec!["open <*>".into()] } else { Vec::new() },
            pins: if seeded { vec!["user <*>".into()] } else { Vec::new() },
            ..ParserConfig::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn counts_sum_to_the_number_of_lines_at_any_limit(
        lines in proptest::collection::vec(line(), 0..200), config in any_limits(),
    ) {
        let max_templates = config.max_templates;
        let mut parser = LogParser::new(config).expect("a parser");
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let batch = parser.parse(raw(&lines));
        let stats = parser.drain_stats().first().map_or_else(DrainStats::default, |stream| stream.1);
        prop_assert_eq!(stats.lines, lines.len() as u64);
        prop_assert_eq!(parser.templates().iter().map(|t| t.count).sum::<u64>() + stats.evicted_lines, stats.lines);
        prop_assert!(parser.templates().len() <= max_templates);
        if stats.evicted == 0 && stats.lost_aliases == 0 {
            // Of each template: the lines whose id is its own or has become an alias of it.
            let into: BTreeMap<u64, u64> = parser.aliases().into_iter().map(|(from, into)| (from.0, into.0)).collect();
            let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
            for id in batch.template_id().values() {
                *counts.entry(*into.get(id).unwrap_or(id)).or_default() += 1;
            }
            let counted: BTreeMap<u64, u64> = parser.templates().into_iter().map(|t| (t.id.0, t.count)).collect();
            prop_assert_eq!(counted, counts);
        }
    }

    #[test]
    fn the_order_in_which_streams_arrive_changes_nothing(
        lines in proptest::collection::vec((0..4_usize, line()), 1..150), order in any::<u64>(), n_batches in 1..5_usize,
    ) {
        let named: Vec<(&str, &str)> = lines.iter().map(|(s, l)| (["a", "b", "c", "d"][*s], l.as_str())).collect();
        let mut one = LogParser::new(small()).expect("a parser");
        one.parse(of_services(&named));
        // Another interleaving: each stream's lines in their order, the streams' turns at random, in several batches.
        let mut left: Vec<Vec<(&str, &str)>> = ["a", "b", "c", "d"]
            .map(|stream| named.iter().copied().filter(|line| line.0 == stream).rev().collect()).into();
        let (mut mixed, mut state) = (Vec::new(), order | 1);
        while mixed.len() < named.len() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            mixed.extend(left[(state >> 60) as usize % 4].pop());
        }
        let mut other = LogParser::new(small()).expect("a parser");
        mixed.chunks(mixed.len().div_ceil(n_batches)).for_each(|part| _ = other.parse(of_services(part)));
        let untimed = |parser: &LogParser| {
            parser.templates().into_iter().map(|t| (t.id, t.stream, t.text, t.lineage, t.count)).collect::<Vec<_>>()
        };
        prop_assert_eq!(untimed(&one), untimed(&other));
        prop_assert_eq!(one.aliases(), other.aliases());
        prop_assert_eq!(one.drain_stats(), other.drain_stats());
    }

    #[test]
    fn another_stream_between_changes_no_id(
        lines in proptest::collection::vec((any::<bool>(), line()), 1..150),
    ) {
        let mixed: Vec<(&str, &str)> = lines.iter().map(|(a, l)| (if *a { "a" } else { "b" }, l.as_str())).collect();
        let alone: Vec<(&str, &str)> = mixed.iter().copied().filter(|line| line.0 == "a").collect();
        let both = LogParser::new(small()).expect("a parser").parse(of_services(&mixed));
        let one = LogParser::new(small()).expect("a parser").parse(of_services(&alone));
        let of_a: Vec<u64> =
            (0..mixed.len()).filter(|row| mixed[*row].0 == "a").map(|row| both.template_id().value(row)).collect();
        prop_assert_eq!(of_a, one.template_id().values().to_vec());
    }

    #[test]
    fn a_restored_parser_goes_on_as_if_nothing_had_happened(
        lines in proptest::collection::vec(line(), 2..200), cut in 1..200_usize,
    ) {
        let cut = cut % lines.len();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut parser = LogParser::new(small()).expect("a parser");
        parser.parse(raw(&lines[..cut]));
        let mut restored = LogParser::restore(small(), &parser.snapshot()).expect("its own snapshot");
        prop_assert_eq!(restored.snapshot(), parser.snapshot());
        prop_assert_eq!(parser.parse(raw(&lines[cut..])).into_arrow(), restored.parse(raw(&lines[cut..])).into_arrow());
        prop_assert_eq!(parser.drain_changes(), restored.drain_changes());
        prop_assert_eq!(parser.templates(), restored.templates());
    }

    #[test]
    fn the_hash_seed_changes_nothing(lines in proptest::collection::vec(line(), 1..100), seed: u64) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut one = LogParser::new(small()).expect("a parser");
        let mut other = LogParser::with_hash_seed(small(), seed).expect("a parser");
        prop_assert_eq!(one.parse(raw(&lines)).into_arrow(), other.parse(raw(&lines)).into_arrow());
    }

    #[test]
    fn any_text_is_parsed_and_stays_whole(
        lines in proptest::collection::vec("(?s).{0,200}", 0..20), preset in 0..16_usize,
    ) {
        let preset = ParserConfig::preset_names().nth(preset).expect("sixteen presets");
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let batch = parser(preset).parse(raw(&lines));
        for (row, line) in lines.iter().enumerate() {
            let header = if batch.header().is_valid(row) { batch.header().value(row) } else { "" };
            prop_assert_eq!(&format!("{header}{}", batch.body().value(row)), line);
            prop_assert!(batch.template_id().is_valid(row) && batch.session().is_valid(row));
        }
    }
}
