//! Budgets that are fitted to a model: measured once, kept whole or not at all, and part of sessions.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use walsh_runtime::{
    CalibrationOptions, Error, Fit, FitOptions, Model, Progress, RestoreOptions, SessionOptions,
    Watch, fit,
};

use super::{Place, global, open_on, options, sliding, text};

const TOKENS: usize = 128;

/// The model anew, with a folder to keep things in.
fn kept_in(folder: &Path, model: &Model) -> Model {
    let calibrations = CalibrationOptions {
        folder: Some(folder.to_owned()),
        ..CalibrationOptions::default()
    };
    Model::open_with(model.device(), model.path(), calibrations).expect("the model")
}

fn quick() -> FitOptions {
    FitOptions {
        tokens: TOKENS,
        watch: Watch::default(),
    }
}

/// A model that keeps things, with its folder.
fn keeping(place: &Place) -> (Model, std::path::PathBuf) {
    let folder = place.path().with_extension("kept");
    (kept_in(&folder, &place.model), folder)
}

/// The files of fits in a folder, by their endings.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let endings = entries.filter_map(|entry| Some(entry.path().extension()?.to_str()?.to_owned()));
    let mut endings: Vec<String> = endings.filter(|ending| ending != "keys").collect();
    endings.sort();
    endings
}

fn fit_file(folder: &Path) -> std::path::PathBuf {
    let mut entries = fs::read_dir(folder).expect("a folder").flatten();
    let is_fit = |path: &std::path::PathBuf| path.extension().is_some_and(|ending| ending == "fit");
    entries
        .find_map(|entry| Some(entry.path()).filter(is_fit))
        .expect("a fit")
}

#[test]
fn a_budget_is_what_was_fitted() {
    let place = sliding();
    let (model, folder) = keeping(&place);
    let used = |model: &Model, kv: &str| {
        model
            .session(options(kv))
            .expect("a session")
            .options()
            .kv
            .to_string()
    };
    assert_eq!(model.fit().expect("readable"), None);
    assert_eq!(used(&model, "2.5bit"), "k=tq3,v=tq2");
    let fitted = fit(&model, &quick()).expect("measured");
    assert_eq!(fitted.tokens, TOKENS);
    assert_eq!(fitted.layers.len(), model.config().layers.len());
    assert_eq!(files(&folder), ["fit"]);
    let spec = |bits| fitted.spec(bits).expect("a SPEC").to_string();
    for model in [&model, &kept_in(&folder, &place.model)] {
        assert_eq!(model.fit().expect("readable").as_ref(), Some(&fitted));
        assert_eq!(used(model, "2.25bit"), spec(2.25));
        assert_eq!(used(model, "3.5bit"), spec(3.5));
        // A budget that something stands behind, and one of 8 bits, are what they were.
        assert_eq!(used(model, "8bit"), "8bit");
        assert_eq!(used(model, "2.5bit;recent=8"), "2.5bit;recent=8");
        let per_token = |kv: &str| {
            model
                .kv_bytes_per_token(&kv.parse().unwrap())
                .expect("bytes")
        };
        assert_eq!(per_token("3.5bit"), per_token(&spec(3.5)));
        // Read, not measured.
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = seen.clone();
        let watch = Watch {
            progress: Some(Arc::new(move |_: Progress| {
                counted.fetch_add(1, Ordering::Relaxed);
            })),
            ..Watch::default()
        };
        let tokens = TOKENS;
        assert_eq!(
            fit(model, &FitOptions { tokens, watch }).expect("kept"),
            fitted
        );
        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }
    for bits in [1.9, 6.1, f64::NAN] {
        let error = fitted.spec(bits).expect_err("out of range").to_string();
        assert!(error.contains("from 2 to 6"), "{error}");
    }
}

#[test]
fn a_sensitivity_is_the_divergence_of_whole_sessions() {
    let place = sliding();
    let fitted = fit(&place.model, &quick()).expect("measured");
    let tokens = builtin(&place.model);
    let logits = |kv: &str| {
        let mut session = place
            .model
            .session(SessionOptions {
                context: TOKENS,
                kv: kv.parse().expect("a SPEC"),
                chunk: TOKENS,
                scored: TOKENS,
            })
            .expect("a session");
        let mut rows = Vec::new();
        let mut keep = |_: usize, row: &[f32]| {
            rows.push(row.to_vec());
            Ok(())
        };
        session
            .score(&tokens, TOKENS / 4, &mut keep)
            .expect("scored");
        rows
    };
    let reference = logits("f32");
    let mean = |kv: &str| {
        let rows = logits(kv);
        let sum: f64 = reference
            .iter()
            .zip(&rows)
            .map(|(a, b)| divergence(a, b))
            .sum();
        sum / rows.len() as f64
    };
    for (layer, found) in fitted.layers.iter().enumerate() {
        for (codecs, found) in [("k=tq2,v=f32", found.keys), ("k=f32,v=tq2", found.values)] {
            let whole = mean(&format!("f32;layers={layer}:{codecs}"));
            assert!(whole > 0.0);
            assert!(
                (found / whole - 1.0).abs() < 0.02,
                "{layer} {codecs}: {found} for {whole}"
            );
        }
    }
}

/// The start of the built-in text: a model of bytes has a token for each.
fn builtin(model: &Model) -> Vec<i32> {
    let text = include_str!("../../src/fit/text.txt");
    let special = walsh_runtime::tokenizer::Special::Text;
    let mut tokens = model
        .tokenizer()
        .encode_prompt(text, special)
        .expect("tokens");
    tokens.truncate(TOKENS);
    tokens
}

fn divergence(reference: &[f32], other: &[f32]) -> f64 {
    let log_sum = |row: &[f32]| row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
    let (a, b) = (log_sum(reference), log_sum(other));
    let each = reference
        .iter()
        .zip(other)
        .map(|(x, y)| (f64::from(*x) - a, f64::from(*y) - b));
    each.map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn a_fit_that_is_ended_goes_on_where_it_was() {
    let place = sliding();
    let expected = fit(&place.model, &quick()).expect("measured");
    let (model, folder) = keeping(&place);
    let layers = model.config().layers.len();
    assert!(layers >= 2);
    // The reference, and the first layer twice to the end: the next thing is another layer.
    let first = layers + 2 * layers;
    let cancel = Arc::new(AtomicBool::new(false));
    let ending = cancel.clone();
    let watch = Watch {
        cancel,
        progress: Some(Arc::new(move |run: Progress| {
            if run.done == first {
                ending.store(true, Ordering::Relaxed);
            }
        })),
    };
    let tokens = TOKENS;
    let ended = fit(&model, &FitOptions { tokens, watch });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert_eq!(files(&folder), ["part"]);
    assert_eq!(model.fit().expect("readable"), None, "a half fit is none");

    let least = Arc::new(AtomicUsize::new(usize::MAX));
    let runs = Arc::new(AtomicUsize::new(0));
    let (seen, count) = (least.clone(), runs.clone());
    let watch = Watch {
        progress: Some(Arc::new(move |run: Progress| {
            assert!(run.done < run.total);
            count.fetch_add(1, Ordering::Relaxed);
            seen.fetch_min(run.total - run.done, Ordering::Relaxed);
        })),
        ..Watch::default()
    };
    let fitted = fit(&model, &FitOptions { tokens, watch }).expect("measured");
    assert_eq!(fitted, expected);
    assert_eq!(least.load(Ordering::Relaxed), 1, "all is counted");
    let all = layers + layers * (layers + 1) + layers - 1;
    assert_eq!(runs.load(Ordering::Relaxed), all - 2 * layers);
    assert_eq!(files(&folder), ["fit"]);
}

#[test]
fn a_part_of_something_else_is_no_start() {
    let place = global();
    let (model, folder) = keeping(&place);
    let fitted = fit(&model, &quick()).expect("measured");
    let file = fit_file(&folder);
    let bytes = fs::read(&file).expect("read");
    let part = file.with_extension("part");
    fs::remove_file(&file).expect("removed");
    for wrong in [&bytes[..], &bytes[..bytes.len() / 2], b"x"] {
        fs::write(&part, wrong).expect("written");
        assert_eq!(fit(&model, &quick()).expect("measured"), fitted);
        assert_eq!(files(&folder), ["fit"]);
        fs::remove_file(&file).expect("removed");
    }
}

#[test]
fn a_fit_that_is_damaged_or_of_another_model_is_refused() {
    let place = sliding();
    let (model, folder) = keeping(&place);
    let fitted = fit(&model, &quick()).expect("measured");
    let file = fit_file(&folder);
    let bytes = fs::read(&file).expect("read");

    let other = global();
    let (stranger, others) = keeping(&other);
    fit(&stranger, &quick()).expect("measured");
    let foreign = fs::read(fit_file(&others)).expect("read");

    let mut newer = bytes.clone();
    newer[16] += 1;
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for wrong in [
        &foreign[..],
        &newer,
        &flipped,
        &bytes[..bytes.len() - 1],
        b"",
    ] {
        fs::write(&file, wrong).expect("written");
        let error = model
            .session(options("3bit"))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("'walsh fit' makes a new one"), "{error}");
        model.session(options("tq3")).expect("has no fit in it");
        assert_eq!(fit(&model, &quick()).expect("made anew"), fitted);
        assert_eq!(fs::read(&file).expect("read"), bytes);
    }
}

#[test]
fn what_was_used_is_part_of_a_session() {
    let place = sliding();
    let (model, folder) = keeping(&place);
    let before = place.path().with_extension("before");
    let mut session = model.session(options("2.5bit")).expect("a session");
    session.prefill(&text(20, 1)).expect("read");
    session.save(&before).expect("saved");

    let spec = fit(&model, &quick())
        .expect("measured")
        .spec(2.5)
        .expect("a SPEC");
    let after = place.path().with_extension("after");
    let mut session = model.session(options("2.5bit")).expect("a session");
    session.prefill(&text(20, 1)).expect("read");
    session.save(&after).expect("saved");
    assert_eq!(session.fork().expect("a copy").options().kv, spec);

    let restore = |path: &Path, kv: Option<&str>| {
        model.restore(
            path,
            RestoreOptions {
                kv: kv.map(|kv| kv.parse().expect("a SPEC")),
                ..RestoreOptions::default()
            },
        )
    };
    for kv in [None, Some("2.5bit")] {
        assert_eq!(
            restore(&before, kv)
                .expect("restored")
                .options()
                .kv
                .to_string(),
            "k=tq3,v=tq2"
        );
        assert_eq!(restore(&after, kv).expect("restored").options().kv, spec);
    }
    assert!(restore(&after, Some("k=tq3,v=tq2")).is_err() || spec.to_string() == "k=tq3,v=tq2");
    // Where the fit has gone, the session still knows.
    fs::remove_file(fit_file(&folder)).expect("removed");
    assert_eq!(restore(&after, None).expect("restored").options().kv, spec);
}

#[test]
fn as_many_tokens_are_read_as_lie_behind_a_window() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens_of = |window: u32, context: u32| {
        let sliding = super::tiny::Tiny {
            architecture: "gemma2",
            window: Some(window),
            metadata: vec![("gemma2.context_length", Some(context.into()))],
            ..super::tiny::Tiny::default()
        };
        let model = open_on("cpu:threads=1", &folder, "windows.gguf", &sliding.gguf());
        let fit = fit(&model, &FitOptions::default()).expect("measured");
        assert_eq!(fit.layers.len(), model.config().layers.len());
        fit.tokens
    };
    assert_eq!(tokens_of(12, 320), 268);
    assert_eq!(tokens_of(64, 320), 320);
    // Where a window cannot be seen from behind, as for a model without one.
    assert_eq!(tokens_of(65, 320), FitOptions::TOKENS);
    assert_eq!(tokens_of(12, 200), 200);
}

#[test]
fn what_cannot_be_fitted_says_why() {
    let place = global();
    for tokens in [1, 100_000] {
        let options = FitOptions {
            tokens,
            watch: Watch::default(),
        };
        let error = fit(&place.model, &options)
            .expect_err("out of range")
            .to_string();
        assert!(error.contains("tokens must be from 64 to 256"), "{error}");
    }
    let file = place.path().with_extension("file");
    fs::write(&file, b"in the way").expect("written");
    let model = kept_in(&file, &place.model);
    assert!(matches!(fit(&model, &quick()), Err(Error::File { .. })));

    let folder = tempfile::tempdir().expect("a folder");
    let small = super::tiny::Tiny {
        metadata: vec![("llama.context_length", Some(32u32.into()))],
        ..super::tiny::Tiny::default()
    };
    let model = open_on("cpu:threads=1", &folder, "small.gguf", &small.gguf());
    let error = fit(&model, &quick()).expect_err("too small").to_string();
    assert!(error.contains("a context of 32"), "{error}");
    assert!(Fit::has(walsh::formats::kv::Budget::B3));
}
