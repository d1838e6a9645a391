//! What is found about a model's keys: kept once, and measured again when it cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use walsh_runtime::{CalibrationNotice, CalibrationOptions, Error, Model};

use super::{go_on, options, sliding};

/// Opens the model anew with a folder; counts measurements and failures to keep them.
fn open(model: &Model, folder: &std::path::Path) -> (Model, Arc<[AtomicUsize; 2]>) {
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let seen = counts.clone();
    let calibrations = CalibrationOptions {
        folder: Some(folder.to_owned()),
        notice: Some(Arc::new(move |notice| {
            let which = match notice {
                CalibrationNotice::Measuring { done: 1, .. } => 0,
                CalibrationNotice::Measuring { .. } => return,
                CalibrationNotice::NotKept(_) => 1,
            };
            seen[which].fetch_add(1, Ordering::Relaxed);
        })),
        ..CalibrationOptions::default()
    };
    let model = Model::open_with(model.device(), model.path(), calibrations).expect("the model");
    (model, counts)
}

fn counted(counts: &[AtomicUsize; 2]) -> [usize; 2] {
    [0, 1].map(|which| counts[which].load(Ordering::Relaxed))
}

#[test]
fn a_calibration_is_measured_once_and_kept() {
    let place = sliding();
    let folder = place.path().with_extension("kept");
    let (first, counts) = open(&place.model, &folder);
    assert_eq!(counted(&counts), [0, 0], "only when a SPEC needs it");
    first.session(options("tq8")).expect("a session");
    assert_eq!(counted(&counts), [0, 0]);
    let bits = go_on(&mut first.session(options("tq4")).expect("a session"), 3);
    first.session(options("4bit")).expect("a session");
    assert_eq!(counted(&counts), [1, 0]);

    let (again, counts) = open(&place.model, &folder);
    assert_eq!(
        go_on(&mut again.session(options("tq4")).expect("a session"), 3),
        bits
    );
    assert_eq!(counted(&counts), [0, 0]);
    assert_eq!(
        again.calibration().expect("kept"),
        first.calibration().expect("kept")
    );

    // Damaged: measured and kept anew.
    let file = std::fs::read_dir(&folder)
        .expect("a folder")
        .next()
        .expect("a file");
    let file = file.expect("a file").path();
    let mut bytes = std::fs::read(&file).expect("read");
    for cut in [0, 10, bytes.len() - 1] {
        std::fs::write(&file, &bytes[..cut]).expect("written");
        let (_, counts) = (again.clone(), open(&place.model, &folder));
        counts.0.calibration().expect("measured");
        assert_eq!(counted(&counts.1), [1, 0], "cut at {cut}");
        assert_eq!(std::fs::read(&file).expect("read"), bytes);
    }
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let (model, counts) = open(&place.model, &folder);
    assert_eq!(
        model.calibration().expect("measured"),
        first.calibration().expect("kept")
    );
    assert_eq!(counted(&counts), [1, 0]);
}

#[test]
fn a_calibration_that_cannot_be_kept_is_used_all_the_same() {
    let place = sliding();
    let file = place.path().with_extension("file");
    std::fs::write(&file, b"in the way").expect("written");
    let (model, counts) = open(&place.model, &file);
    model.session(options("tq4")).expect("a session");
    assert_eq!(counted(&counts), [1, 1]);
}

#[test]
fn a_measurement_is_cancelled_and_not_kept() {
    let place = sliding();
    let folder = place.path().with_extension("kept");
    let calibrations = CalibrationOptions {
        folder: Some(folder.clone()),
        ..CalibrationOptions::default()
    };
    let cancel = calibrations.cancel.clone();
    let model = Model::open_with(place.model.device(), place.model.path(), calibrations);
    let model = model.expect("the model");
    cancel.store(true, Ordering::Relaxed);
    let cancelled = model.session(options("4bit"));
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    assert!(!folder.exists());
    cancel.store(false, Ordering::Relaxed);
    model.session(options("4bit")).expect("measured");
    assert!(folder.exists());
}
