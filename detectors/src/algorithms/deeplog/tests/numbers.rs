use faultline_core::RecordNumbers;

use super::*;

fn with_numbers() -> Config {
    Config { parameters: true, ..small() }
}

/// Sessions of 1, 2, 3, 4 with 40 to 60 ms in between. 1 counts its parts; 2 has a log-normal size and counts again.
fn transfers(n: usize, seed: u64) -> Vec<Session> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sessions = timed(n, seed);
    for session in &mut sessions {
        let gaussian = (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let mut n_parts = || f32::from(rng.random_range(1..6u8));
        session.numbers = vec![
            RecordNumbers::of([n_parts()]),
            RecordNumbers::of([(8.0 + 2.0 * gaussian).exp(), n_parts()]),
            RecordNumbers::default(),
            RecordNumbers::default(),
        ];
    }
    sessions
}

fn fitted_to(config: &Config, sessions: &[Session]) -> Model {
    let windows: Vec<Window<'_>> = sessions.iter().map(Session::closed).collect();
    DeepLog::fit(config, &windows, 1).expect("there are sessions enough")
}

#[test]
fn a_size_that_jumps_is_named_with_what_was_expected_and_a_heavy_tail_is_normal() {
    let mut model = fitted_to(&with_numbers(), &transfers(600, 1));
    let normal = transfers(200, 2);
    let sizes: Vec<f32> = normal.iter().map(|session| session.numbers[1].as_slice()[0]).collect();
    let (mean, largest) = (sizes.iter().sum::<f32>() / 200.0, sizes.iter().copied().fold(0.0, f32::max));
    assert!(largest > 5.0 * mean, "a heavy tail: {largest} where {mean} is the mean");
    let windows: Vec<Window<'_>> = normal.iter().map(Session::closed).collect();
    let n_beyond = score_all(&mut model, &windows).iter().flatten().filter(|score| score.value >= 10.0).count();
    assert!(n_beyond <= 1, "{n_beyond} of 200");

    let mut large = normal[0].clone();
    large.numbers[1] = RecordNumbers::of([8e12, 3.0]);
    let score = score_of(&mut model, large.closed());
    assert!(score.value > 10.0 && score.culprit == 1, "{score:?}");
    let evidence = model.explain(&large.closed(), &score);
    let figure = |name: &str| evidence.figures[name];
    assert_eq!((figure("number"), figure("number_value")), (1.0, f64::from(8e12f32)));
    assert!(figure("expected_low") < 1e3 && (1e5..1e10).contains(&figure("expected_high")), "{evidence:?}");
    assert!((100.0..100_000.0).contains(&figure("number_forecast")), "{evidence:?}");
    assert!(figure("deviations") > 5.0 && !evidence.figures.contains_key("elapsed_ms"), "{evidence:?}");
    let told = "template 2 came with 7999999967232 as number 1 of 2, where ";
    assert!(evidence.summary.starts_with(told), "{}", evidence.summary);
    assert_eq!((evidence.seen, evidence.culprit), (Some(TemplateId(2)), Some(large.records[1].record)));
    assert!(score_of(&mut model, large.window(2, true)).value < 10.0, "the size was judged before");

    let bytes = model.snapshot().expect("plain numbers");
    let mut loaded = DeepLog::load(&with_numbers(), &bytes).expect("just written");
    assert_eq!(score_of(&mut loaded, large.closed()), score);
    let update = model.update(&[large.closed()], 10.0);
    assert_eq!((update.n_before, update.n_after), (1, 0));
    assert!(score_of(&mut model, large.closed()).value < 10.0);
}

#[test]
fn the_first_record_is_judged_by_its_numbers_and_one_with_others_is_not() {
    let mut model = fitted_to(&with_numbers(), &transfers(600, 1));
    let session = transfers(1, 3).remove(0);
    let mut first = session.clone();
    first.numbers[0] = RecordNumbers::of([1e6]);
    let score = score_of(&mut model, first.closed());
    assert!(score.value > 10.0 && score.culprit == 0, "{score:?}");
    let summary = model.explain(&first.closed(), &score).summary;
    assert!(summary.starts_with("template 1 came with 1000000 as number 1 of 1"), "{summary}");

    // Whichever of the two is missing, the other is not in the place where it is known.
    let mut fewer = session.clone();
    fewer.numbers[1] = RecordNumbers::of([8e12]);
    assert!(score_of(&mut model, fewer.closed()).value < 10.0);
    // A slow record is slow, numbers or not.
    for numbers in [fewer.numbers.clone(), session.numbers.clone(), Vec::new()] {
        let mut slow = Session { numbers, ..session.clone() };
        slow.records[1..].iter_mut().for_each(|record| record.time_unix_nano += 900_000_000);
        let score = score_of(&mut model, slow.closed());
        assert!(score.value > 10.0 && score.culprit == 1, "{score:?}");
        assert!(model.explain(&slow.closed(), &score).summary.starts_with("template 2 came 9"), "{score:?}");
    }
}

#[test]
fn numbers_are_read_only_where_the_configuration_says_so() {
    let sessions = transfers(150, 1);
    let plain: Vec<Session> =
        sessions.iter().map(|session| Session { numbers: Vec::new(), ..session.clone() }).collect();
    let model = fitted_to(&small(), &sessions);
    let bytes = model.snapshot().expect("plain numbers");
    assert!(bytes == fitted_to(&small(), &plain).snapshot().expect("plain numbers"), "numbers that nobody asked for");
    // A model from before there were numbers goes on without.
    let mut old = DeepLog::load(&with_numbers(), &bytes).expect("the same format");
    let mut large = sessions[0].clone();
    large.numbers[1] = RecordNumbers::of([8e12, 3.0]);
    assert_eq!(score_of(&mut old, large.closed()), score_of(&mut old, sessions[0].closed()));
    let asks = |config: Config| DeepLog::reads_numbers(&config);
    let without_models = Config { value_models: 0, ..with_numbers() };
    assert_eq!([small(), with_numbers(), without_models].map(asks), [false, true, false]);
}
