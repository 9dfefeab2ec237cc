//! Seeds and pins: templates that the user gives beforehand.

use faultline_core::{LogBatch, LogBatchBuilder, LogRecord, Parser, TemplateId};
use faultline_parsers::{LogParser, MaskConfig, ParserConfig};

fn raw(lines: &[&str]) -> LogBatch {
    let mut builder = LogBatchBuilder::default();
    for line in lines {
        builder.push(&LogRecord { time_unix_nano: 1, body: line, ..LogRecord::default() });
    }
    builder.finish()
}

fn parse(parser: &mut LogParser, lines: &[&str]) -> Vec<u64> {
    parser.parse(raw(lines)).template_id().values().to_vec()
}

fn config(seeds: &[&str], pins: &[&str]) -> ParserConfig {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    ParserConfig { seeds: owned(seeds), pins: owned(pins), ..ParserConfig::default() }
}

fn with(seeds: &[&str], pins: &[&str]) -> LogParser {
    LogParser::new(config(seeds, pins)).expect("a parser")
}

/// Counts and texts, in order of text.
fn texts(parser: &LogParser) -> Vec<(u64, String)> {
    let mut texts: Vec<_> = parser.templates().into_iter().map(|t| (t.count, t.text)).collect();
    texts.sort_by(|one, other| one.1.cmp(&other.1));
    texts
}

/// The id of a template that this text founds in the stream of lines without a service.
fn id(text: &str) -> u64 {
    TemplateId::founded("default", text, 0).0
}

const DOOR: &str = "door opened by person <*> today";

#[test]
fn a_seed_takes_lines_that_would_each_have_founded_a_template() {
    let lines = ["door opened by person ann today", "door opened by person bob today"];
    assert_eq!(
        texts(&{
            let mut parser = with(&[], &[]);
            parse(&mut parser, &lines);
            parser
        })
        .len(),
        2
    );
    let mut parser = with(&[DOOR], &[]);
    assert!(parser.templates().is_empty() && parser.drain_changes().is_empty(), "listed from its first line on");
    assert_eq!(parse(&mut parser, &lines), [id(DOOR); 2]);
    assert_eq!(texts(&parser), [(2, DOOR.to_owned())]);
    assert_eq!(parser.drain_changes().len(), 1);
    assert!(parser.drain_changes().is_empty());
}

#[test]
fn placeholders_units_and_example_values_are_masked_as_in_lines() {
    for seed in [
        "read <NUM> of part-<NUM> from (<IP>)",
        "read <NUM> KB of part-<NUM> from (<IP>)",
        "read 7 of part-00012 from (10.0.0.1:80)",
    ] {
        let mut parser = with(&[seed], &[]);
        let found =
            parse(&mut parser, &["read 12 KB of part-7 from (/10.1.2.3)", "read 1 of part-81 from (10.0.0.9:50010)"]);
        assert_eq!(found, [id("read <NUM> of part-<NUM> from (<IP>)"); 2], "{seed}");
    }
    let masks = vec![MaskConfig { name: "ORDER".into(), regex: "order [a-z]+ [a-z]+".into() }];
    for pin in ["paid <ORDER> in full", "paid order red apple in full"] {
        let mut parser =
            LogParser::new(ParserConfig { masks: masks.clone(), ..config(&[], &[pin]) }).expect("a parser");
        assert_eq!(parse(&mut parser, &["paid order green pear in full"]), [id("paid <ORDER> in full")], "{pin}");
    }
}

#[test]
fn a_seed_learns_and_a_pin_does_not() {
    let text = "link to node is up after retry <NUM>";
    let lines = ["link to node is up after retry 7", "link to node is up after retry never"];
    let mut seeded = with(&[text], &[]);
    assert_eq!(parse(&mut seeded, &lines), [id(text); 2]);
    assert_eq!(texts(&seeded), [(2, "link to node is up after retry <*>".to_owned())]);
    assert_eq!(seeded.templates()[0].lineage, [text]);
    let mut pinned = with(&[], &[text]);
    assert_eq!(parse(&mut pinned, &lines), [id(text), id("link to node is up after retry never")]);
    assert_eq!(texts(&pinned).len(), 2);
}

#[test]
fn what_is_pinned_stays_apart_however_many_words_are_seen() {
    let names = ["ann", "bob", "cid", "dot", "eve", "fay", "gus"];
    let lines: Vec<String> = names.iter().map(|name| format!("door opened by person {name} today")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut parser = with(&[], &[lines[2]]);
    parse(&mut parser, &lines);
    assert_eq!(texts(&parser), [(6, DOOR.to_owned()), (1, lines[2].to_owned())]);
    // Without a memory of the line, too.
    let mut restored = LogParser::restore(config(&[], &[lines[2]]), &parser.snapshot()).expect("its own snapshot");
    assert_eq!(parse(&mut restored, &[lines[2]]), [id(lines[2])]);
}

#[test]
fn seeds_stay_apart_from_each_other() {
    let line = |name: &str| format!("door opened by person {name} today");
    let (ann, bob) = (line("ann"), line("bob"));
    let mut parser = with(&[&ann, &bob], &[]);
    for name in ["cid", "dot", "eve", "fay", "gus"] {
        parse(&mut parser, &[&line(name)]);
    }
    assert_eq!(parse(&mut parser, &[&ann, &bob, &line("hal")]), [id(&ann), id(&bob), id(&ann)]);
    assert_eq!(texts(&parser), [(7, DOOR.to_owned()), (1, bob)]);
}

#[test]
fn a_seed_that_widens_takes_lines_that_others_are_remembered_for() {
    let seed = "<*> alpha beta gamma <NUM>";
    let mut parser = with(&[seed], &[]);
    let line = "foo alpha beta gamma never";
    parse(&mut parser, &["foo has another leaf here"]);
    assert_eq!(parse(&mut parser, &[line, line]), [id(line); 2]);
    // Of the seed's leaf, where a word now stands for its number.
    assert_eq!(parse(&mut parser, &["bar alpha beta gamma always"]), [id(seed)]);
    let mut restored = LogParser::restore(config(&[seed], &[]), &parser.snapshot()).expect("its own snapshot");
    assert_eq!(parse(&mut restored, &[line]), [id(seed)]);
    assert_eq!(parse(&mut parser, &[line]), [id(seed)]);
}

#[test]
fn the_most_particular_of_several_wins() {
    let mut parser = with(&["job <*> ended <*>"], &["job backup ended <*>", "job backup ended well"]);
    let lines = ["job index ended well", "job backup ended badly", "job backup ended well"];
    assert_eq!(parse(&mut parser, &lines), [id("job <*> ended <*>"), id("job backup ended <*>"), id(lines[2])]);
}

#[test]
fn seeds_and_pins_never_make_room_for_others() {
    let limits = |seeds: &[&str], pins: &[&str]| ParserConfig { max_templates: 4, ..config(seeds, pins) };
    let mut parser = LogParser::new(limits(&["one seed here"], &["one pin <*>"])).expect("a parser");
    let words: Vec<String> = (0..40_u8).map(|n| vec!["w"; usize::from(n) + 4].join(" ")).collect();
    parse(&mut parser, &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(parser.drain_stats()[0].1.evicted > 30);
    assert_eq!(parse(&mut parser, &["one seed here", "one pin there"]), [id("one seed here"), id("one pin <*>")]);
    let error = LogParser::new(limits(&["a b", "c d"], &["e f", "g h"])).expect_err("no room").to_string();
    assert!(error.starts_with("parser.max_templates: 4 leaves no room beside 4 seeds and pins"), "{error}");
}

#[test]
fn a_restart_may_bring_other_seeds_and_pins() {
    let text = "link to node is up after retry <NUM>";
    let mut parser = with(&[], &[]);
    let lines = ["link to node is up after retry 7", "link to node is up after retry never", "plain line"];
    parse(&mut parser, &lines);
    // Pinned now: the id that the template has had since it was founded, its text as it was then, its count kept.
    let mut pinned = LogParser::restore(config(&["a <*> seed"], &[text]), &parser.snapshot()).expect("its snapshot");
    assert_eq!(texts(&pinned)[0], (2, text.to_owned()));
    let found = parse(&mut pinned, &[lines[0], lines[1], "a new seed"]);
    assert_eq!(found, [id(text), id(lines[1]), id("a <*> seed")]);
    // And neither seed nor pin any more.
    let mut freed = LogParser::restore(config(&[], &[]), &pinned.snapshot()).expect("its snapshot");
    let found = parse(&mut freed, &["link to node is up after retry 12", "a old seed"]);
    assert_eq!(found, [id(text), id("a <*> seed")]);
    assert_eq!(texts(&freed).iter().map(|template| template.0).sum::<u64>(), 3 + 3 + 2);
}

#[test]
fn an_alias_that_becomes_a_pin_is_itself_again() {
    let names = ["ann", "bob", "cid", "dot", "eve", "fay"];
    let lines: Vec<String> = names.iter().map(|name| format!("door opened by person {name} today")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut parser = with(&[], &[]);
    let ids = parse(&mut parser, &lines);
    assert!(parser.aliases().iter().any(|alias| alias.0.0 == ids[1]));
    let mut restored = LogParser::restore(config(&[], &[lines[1]]), &parser.snapshot()).expect("its snapshot");
    assert!(restored.aliases().iter().all(|alias| alias.0.0 != ids[1]));
    assert!(restored.drain_aliases().iter().all(|alias| alias.0.0 != ids[1]));
    assert_eq!(parse(&mut restored, &[lines[1], lines[2]]), [ids[1], ids[0]]);
}

#[test]
fn an_entry_that_does_not_do_is_named() {
    let error = |config: ParserConfig| LogParser::new(config).expect_err("a wrong entry").to_string();
    let of = |seeds: &[&str], pins: &[&str]| error(config(seeds, pins));
    assert_eq!(
        of(&["fine", "user=<*> in"], &[]),
        "parser.seeds: entry 2 (`user=<*> in`) has `<*>` inside a token, where only typed placeholders such as `<NUM>` can stand"
    );
    assert_eq!(
        of(&[], &["took <NUMBER> s"]),
        "parser.pins: entry 1 (`took <NUMBER> s`) has the placeholder `<NUMBER>`, which is neither built in nor a mask"
    );
    assert!(of(&["  "], &[]).contains("entry 1 (`  `) has no token besides `<*>`"));
    assert!(of(&[], &["<*> <*>"]).contains("no token besides"));
    assert_eq!(
        of(&["took 7 s"], &["x", "took <NUM>"]),
        "parser.pins: entry 2 (`took <NUM>`) is the same template as entry 1 of parser.seeds"
    );
    let long = ParserConfig { max_tokens: 3, ..config(&["a b c d"], &[]) };
    assert!(error(long).contains("has more tokens than parser.max_tokens (3)"));
    let many: Vec<String> = (0..1001).map(|n: usize| "w ".repeat(n + 1)).collect();
    let many = error(ParserConfig { pins: many, ..ParserConfig::default() });
    assert!(many.starts_with("parser.seeds: 1001 is not within 0 to 1000"), "{many}");
}

#[test]
fn every_stream_has_its_own() {
    let mut builder = LogBatchBuilder::default();
    for service_name in ["cart", "mail"] {
        let body = "door opened by person ann today";
        builder.push(&LogRecord { time_unix_nano: 1, body, service_name, ..LogRecord::default() });
    }
    let mut parser = with(&[], &[DOOR]);
    let ids = parser.parse(builder.finish()).template_id().values().to_vec();
    assert_eq!(ids, [TemplateId::founded("cart", DOOR, 0).0, TemplateId::founded("mail", DOOR, 0).0]);
}
