//! Streams without a session key.

use super::*;

/// What happens to one instance in the middle of a stream.
#[derive(Clone, Copy, PartialEq)]
enum Spoil {
    Nothing,
    /// Its last record never comes.
    Lost,
    /// Its last record comes late.
    Slow,
    /// A last record comes that nothing asked for.
    Surplus,
}

struct Stream {
    key: WindowKey,
    records: Vec<LogEntry>,
    services: Vec<Arc<str>>,
    /// Positions of the records that were spoiled.
    spoiled: Vec<usize>,
}

impl Stream {
    /// Instances 1 → 2 → 3, 5 to 15 ms a step, one every `gap_ms` on average, and heartbeats (9), all interleaved.
    fn of(n: usize, gap_ms: i64, seed: u64, spoil: Spoil) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut lines: Vec<(i64, u64, bool)> = Vec::new();
        let mut start = 0;
        for idx in 0..n {
            start += rng.random_range(0..2 * gap_ms * MS);
            let steps = [(); 2].map(|()| 5 * MS + rng.random_range(0..10 * MS));
            let spoil = if idx == n / 2 { spoil } else { Spoil::Nothing };
            let (second, mut third) = (start + steps[0], start + steps[0] + steps[1]);
            lines.extend([(start, 1, false), (second, 2, spoil != Spoil::Nothing)]);
            if spoil == Spoil::Slow {
                third += 40 * MS;
            }
            if spoil != Spoil::Lost {
                lines.push((third, 3, spoil == Spoil::Slow));
            }
            if spoil == Spoil::Surplus {
                lines.push((third + MS, 3, true));
            }
            lines.push((start + rng.random_range(0..2 * gap_ms * MS), 9, false));
        }
        lines.sort_unstable();
        let entry = |(idx, &(time_unix_nano, template, _)): (usize, &(i64, u64, bool))| LogEntry {
            template: TemplateId(template),
            time_unix_nano,
            record: idx as u64 + 1,
            service: 0,
            severity_number: 9,
            is_since_deploy: false,
        };
        Self {
            key: WindowKey { stream: Arc::from("s"), session: Arc::from("worker") },
            records: lines.iter().enumerate().map(entry).collect(),
            services: vec![Arc::from("worker")],
            spoiled: (0..).zip(&lines).filter(|(_, line)| line.2).map(|(idx, _)| idx).collect(),
        }
    }

    fn window(&self, fresh: usize, n_records: usize) -> Window<'_> {
        let Self { key, services, .. } = self;
        Window::Log(LogWindow {
            key,
            records: &self.records[..n_records],
            numbers: Numbers::default(),
            fresh,
            n_dropped: 0,
            state: WindowState::Open,
            is_stream: true,
            services,
            templates: TemplateTexts::NONE,
        })
    }

    fn whole(&self) -> Window<'_> {
        self.window(0, self.records.len())
    }
}

/// Six or seven instances a second, so that hardly two overlap within a step.
fn calm(n: usize, seed: u64, spoil: Spoil) -> Stream {
    Stream::of(n, 150, seed, spoil)
}

fn config() -> Config {
    Config { streams: true, ..Config::default() }
}

fn fitted_on(streams: &[Stream]) -> Model {
    let windows: Vec<Window<'_>> = streams.iter().map(Stream::whole).collect();
    LogSed::fit(&config(), &windows, 0).expect("a few streams suffice")
}

fn calm_model() -> Model {
    fitted_on(&[calm(3000, 1, Spoil::Nothing), calm(3000, 2, Spoil::Nothing)])
}

#[test]
fn the_chain_is_mined_from_interleaved_instances_and_the_heartbeat_is_not() {
    let model = calm_model();
    let edges: Vec<(u64, u64)> = model.stream_edges().into_iter().map(|(from, to)| (from.0, to.0)).collect();
    assert_eq!(edges, [(1, 2), (2, 3)]);
    assert_eq!(model.edges(), [], "no session, no edge within sessions");
}

#[test]
fn where_chance_brings_the_partner_as_quickly_nothing_is_claimed() {
    // An instance a millisecond: any record finds any other within a step.
    let mut model = fitted_on(&[Stream::of(4000, 1, 3, Spoil::Nothing)]);
    assert_eq!(model.stream_edges(), []);
    assert_eq!(score_of(&mut model, Stream::of(1000, 1, 4, Spoil::Lost).whole()).value, 0.0);
}

#[test]
fn normal_streams_are_silent_and_a_lost_a_late_and_a_surplus_record_are_told_apart() {
    let mut model = calm_model();
    let scores = (10..60).map(|seed| score_of(&mut model, calm(60, seed, Spoil::Nothing).whole()).value);
    let n_alarms = scores.filter(|score| *score > 2.0).count();
    assert!(n_alarms <= 2, "{n_alarms} of 50");
    for (spoil, kind, culprit) in
        [(Spoil::Lost, "sequence", 0), (Spoil::Slow, "latency", 1), (Spoil::Surplus, "redundancy", 1)]
    {
        let mut n_right = 0;
        for seed in 100..130 {
            let stream = calm(60, seed, spoil);
            let score = score_of(&mut model, stream.whole());
            let summary = model.explain(&stream.whole(), &score).summary;
            // Where two instances overlap, their records may be exchanged.
            let is_near = score.culprit.abs_diff(stream.spoiled[culprit]) < 8;
            n_right += usize::from(summary.starts_with(kind) && score.value > 2.0 && is_near);
        }
        assert!(n_right >= 27, "{kind}: {n_right} of 30");
    }
}

#[test]
fn what_a_window_before_has_told_is_not_told_again_and_a_piece_is_no_worse_than_the_whole() {
    let mut model = calm_model();
    let stream = calm(60, 101, Spoil::Lost);
    let n = stream.records.len();
    let whole = score_of(&mut model, stream.whole()).value;
    let at = stream.spoiled[0];
    assert!(score_of(&mut model, stream.window(0, at + 1)).value < whole, "it may still come");
    assert_eq!(score_of(&mut model, stream.window(at + 20, n)).value, 0.0, "told by then");
    let mut told = Vec::new();
    for end in (8..n).step_by(8).chain([n]) {
        told.push(score_of(&mut model, stream.window((end - 1) / 8 * 8, end)).value);
    }
    let largest = told.iter().copied().fold(0.0, f64::max);
    assert!(largest > 0.0 && largest <= whole + 1e-9, "{told:?} of {whole}");
    assert_eq!(told.iter().filter(|value| **value > 0.0).count(), 1, "{told:?}");
}

#[test]
fn sessions_score_the_same_beside_streams() {
    let requests = traces(400, 1, Fault::default());
    let streams = [calm(500, 1, Spoil::Nothing)];
    let fit = |config: Config| {
        let windows: Vec<Window<'_>> =
            requests.iter().map(Trace::closed).chain(streams.iter().map(Stream::whole)).collect();
        LogSed::fit(&config, &windows, 0).expect("enough requests")
    };
    let (mut with, mut without) = (fit(config()), fit(Config::default()));
    assert_eq!((with.stream_edges().len(), without.stream_edges().len()), (2, 0));
    for trace in traces(20, 2, Fault { delay_ms: 100, ..Fault::default() }) {
        assert_eq!(score_of(&mut with, trace.closed()), score_of(&mut without, trace.closed()));
    }
    assert_eq!(score_all(&mut without, &[streams[0].whole()]), [None]);
    let mut loaded = LogSed::load(&config(), &with.snapshot().expect("numbers")).expect("just written");
    let lost = calm(60, 102, Spoil::Lost);
    assert_eq!(score_of(&mut loaded, lost.whole()), score_of(&mut with, lost.whole()));
}

#[test]
fn a_verdict_on_a_stream_leaves_other_faults_and_sessions_alone() {
    let (mut model, mut before) = (calm_model(), calm_model());
    let lost = calm(60, 103, Spoil::Lost);
    let cut = score_of(&mut model, lost.whole()).value;
    assert!(model.accept(&lost.whole(), cut) >= 1);
    assert!(score_of(&mut model, lost.whole()).value < cut);
    let surplus = calm(60, 104, Spoil::Surplus);
    assert_eq!(score_of(&mut model, surplus.whole()), score_of(&mut before, surplus.whole()));
}
