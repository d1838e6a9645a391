//! One budget over several engines: memory goes where the work is, and answers stay what they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use walsh_runtime::{Budget, Engine, EngineOptions, Model, Request, Stream};

use super::engine::{all, greedy, idle, options, place, places, sliding};
use super::prefixes::{Lots, any_request, least_memory};
use super::text;
use crate::tiny::Tiny;

/// What an engine takes that has all that it can use.
fn full(model: &Model, options: &EngineOptions) -> u64 {
    let budget = Budget::new(0);
    let engine = within(model, options, (&budget, "alone"));
    let held = held(&budget, "alone");
    drop(engine);
    assert!(budget.held().is_empty());
    held
}

fn within(model: &Model, options: &EngineOptions, place: (&Budget, &str)) -> Engine {
    Engine::within(model.clone(), options.clone(), place).expect("an engine")
}

fn held(budget: &Budget, name: &str) -> u64 {
    let held = budget.held();
    held.iter().find(|(n, _)| n == name).expect("an engine").1
}

/// Looks at a budget all the time, until it is dropped.
struct Watchman {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Watchman {
    fn new(budget: &Budget) -> Self {
        let (budget, over) = (budget.clone(), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !ends.load(Ordering::Relaxed) {
                most = most.max(budget.held().iter().map(|(_, bytes)| bytes).sum());
                std::thread::sleep(Duration::from_micros(200));
            }
            most
        });
        let thread = Some(thread);
        Self { over, thread }
    }

    /// The most that was held at once.
    fn most(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a thread");
        thread.join().expect("no panic")
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Another model of each kind of caches.
fn others() -> [(tempfile::TempDir, Model); 5] {
    let [_, _, hybrid, convolving, shared] = places();
    let other = |tiny: Tiny| {
        place(&Tiny {
            first_norm: 2.0,
            ..tiny
        })
    };
    [
        other(Tiny::default()),
        other(sliding()),
        hybrid,
        convolving,
        shared,
    ]
}

#[test]
fn memory_goes_where_the_work_is() {
    for ((_a, first), (_b, second)) in places().into_iter().zip(others()) {
        for kv in ["f16", "4bit", "tq4;first=2;recent=5"] {
            let options = EngineOptions {
                deterministic: true,
                ..options(kv, 8)
            };
            let requests = |from: i32| -> Vec<Request> {
                let of = |seed| greedy(text(150, seed), 60);
                (from..from + 6).map(of).collect()
            };
            let answers = |engine: &Engine, requests: &[Request]| -> Vec<_> {
                let submit = |r: &Request| engine.submit(r.clone()).expect("a stream");
                let streams: Vec<Stream> = requests.iter().map(submit).collect();
                let answers = streams.into_iter().map(all).collect();
                idle(engine);
                answers
            };
            let bytes = full(&first, &options) * 13 / 10;
            let budget = Budget::new(bytes);
            let watchman = Watchman::new(&budget);
            let a = within(&first, &options, (&budget, "a"));
            let b = within(&second, &options, (&budget, "b"));
            let (began_a, began_b) = (held(&budget, "a"), held(&budget, "b"));
            assert!(began_a > began_b, "{began_a} {began_b}");
            let alone = [&first, &second].map(|model| {
                let engine = Engine::new(model.clone(), options.clone()).expect("an engine");
                [requests(0), requests(6)].map(|requests| answers(&engine, &requests))
            });
            for turn in 0..2 {
                let requests = requests(6 * turn);
                for (engine, alone) in [(&a, &alone[0]), (&b, &alone[1])] {
                    assert_eq!(answers(engine, &requests), alone[turn as usize], "{kv}");
                }
            }
            // The second has pages that the first began with, and now the first asks for them again.
            assert!(held(&budget, "b") > began_b, "{kv}: {:?}", budget.held());
            assert!(held(&budget, "a") < began_a, "{kv}: {:?}", budget.held());
            let most = watchman.most();
            assert!(most <= bytes && most > 0, "{most} {bytes}");
            drop(a);
            assert_eq!(budget.held().len(), 1);
            drop(b);
            assert!(budget.held().is_empty());
        }
    }
}

#[test]
fn beginnings_that_were_of_use_the_longest_ago_go_first_whoever_keeps_them() {
    let (_a, first) = place(&Tiny::default());
    let [(_b, second), ..] = others();
    // Texts of five pages, of which there are 26.
    let options = EngineOptions {
        chunk: 64,
        ..options("f16", 4)
    };
    let budget = Budget::new(full(&first, &options) * 13 / 10);
    let ask = |engine: &Engine, seed: i32| {
        let before = engine.status().reused;
        all(engine.submit(greedy(text(250, seed), 2)).expect("a stream"));
        idle(engine);
        engine.status().reused - before
    };
    let a = within(&first, &options, (&budget, "a"));
    let b = within(&second, &options, (&budget, "b"));
    // The first keeps two texts, of which the second is in use again and again while the other model works.
    ask(&a, 0);
    ask(&a, 1);
    for seed in 10..16 {
        ask(&b, seed);
        assert!(ask(&a, 1) >= 192, "{seed}");
        // What was just asked for is there as well.
        assert!(ask(&b, seed) >= 192, "{seed}");
    }
    assert!(
        held(&budget, "b") > held(&budget, "a"),
        "{:?}",
        budget.held()
    );
    assert_eq!(ask(&a, 0), 0);
}

#[test]
fn engines_that_all_have_work_neither_wait_for_each_other_nor_mix() {
    let kinds = places().into_iter().zip(others());
    for (((_a, first), (_b, second)), kv) in kinds.zip(["f16", "tq4;first=2;recent=5", "4bit"]) {
        let options = EngineOptions {
            deterministic: true,
            ..options(kv, 6)
        };
        let alone = [&first, &second].map(|model| {
            let options = EngineOptions {
                keep_prefixes: false,
                sequences: 1,
                ..options.clone()
            };
            Engine::new(model.clone(), options).expect("an engine")
        });
        // A little more than both need at least.
        let least = [&first, &second].map(|model| least_memory(model, &options));
        let bytes = (least[0] + least[1]) * 12 / 10;
        let budget = Budget::new(bytes);
        let watchman = Watchman::new(&budget);
        let both = [(&first, "a"), (&second, "b")];
        let both = both.map(|(model, name)| within(model, &options, (&budget, name)));
        let mut lots = Lots(3);
        let documents: Vec<Vec<i32>> = (0..3).map(|seed| text(160, seed)).collect();
        let mut asked = Vec::new();
        for number in 0..160 {
            let request = any_request(&mut lots, &documents);
            let which = lots.below(2);
            let stream = both[which].submit(request.clone()).expect("a stream");
            if number % 7 > 0 {
                asked.push((which, request, stream));
            }
            if number % 40 == 39 {
                both.iter().for_each(idle);
            }
        }
        for (which, request, stream) in asked {
            let expected = alone[which].submit(request).expect("a stream");
            assert_eq!(all(stream), all(expected), "{kv}");
        }
        both.iter().for_each(idle);
        let most = watchman.most();
        assert!(most <= bytes, "{most} {bytes}");
    }
}

#[test]
fn who_begins_gets_the_room_of_one_text_from_those_that_are_there() {
    let (_a, model) = place(&Tiny::default());
    let options = options("f16", 2);
    let full = full(&model, &options);
    // For one text, and not for two.
    let budget = Budget::new(full * 3 / 4);
    let told = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&told);
    budget.on_lack(move || {
        counts.fetch_add(1, Ordering::Relaxed);
    });
    let a = within(&model, &options, (&budget, "a"));
    let request = greedy(text(20, 1), 250);
    let alone = all(a.submit(request.clone()).expect("a stream"));
    let stream = a.submit(request).expect("a stream");
    let (other, opened) = (model.clone(), budget.clone());
    let second = options.clone();
    let second = std::thread::spawn(move || within(&other, &second, (&opened, "b")));
    wait_for("nobody told of the lack", || {
        told.load(Ordering::Relaxed) > 0
    });
    assert!(budget.is_lacking() && !second.is_finished());
    // The text that runs loses nothing by it.
    assert_eq!(all(stream), alone);
    assert!(!second.is_finished());
    drop(a);
    let b = second.join().expect("an engine");
    assert!(!budget.is_lacking());
    assert!(held(&budget, "b") > full / 2, "{:?}", budget.held());
    drop(b);
    // One text is more than there is of all.
    let little = Budget::new(full / 3);
    let error = Engine::within(model, options, (&little, "c")).expect_err("too little");
    let error = error.to_string();
    assert!(error.contains("kv_memory must be at least"), "{error}");
}
