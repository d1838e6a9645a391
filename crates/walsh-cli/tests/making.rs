//! `walsh quantize`, `walsh imatrix` and `walsh convert`: files that are made, and what leaves none behind.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::tiny::{LAYERS, Tiny, WIDTH};
use support::{Folder, root, walsh};
use walsh::formats::DType;
use walsh::formats::gguf::Gguf;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn tiny(folder: &Folder, dtype: DType) -> PathBuf {
    let tiny = Tiny {
        dtype,
        ..Tiny::default()
    };
    folder.file(&format!("{dtype}.gguf"), &tiny.gguf())
}

/// What a model makes of a prompt, greedily.
fn answer(model: &Path, more: &[&str]) -> String {
    let fixed = [
        "generate",
        "--temperature",
        "0",
        "--max-tokens",
        "4",
        "--threads",
        "1",
        "--model",
    ];
    let words = fixed.iter().copied().chain([text(model), "abc"]);
    walsh(words.chain(more.iter().copied())).ok()
}

/// A copy of one of the folders of tiny models.
fn copied(name: &str, to: &Path) -> PathBuf {
    fs::create_dir(to).expect("a folder");
    let source = root().join("crates/walsh-convert/tests/folders").join(name);
    for name in names(&source) {
        fs::copy(source.join(&name), to.join(&name)).expect("a copy");
    }
    to.to_owned()
}

/// The names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_is_quantised_and_answers() {
    let folder = Folder::new();
    let model = tiny(&folder, DType::F16);
    let out = folder.path().join("out.gguf");
    let report = walsh([
        "quantize",
        text(&model),
        text(&out),
        "--type",
        "q8_0",
        "--tensor",
        "ffn_up=q5_0",
        "--json",
    ])
    .json();
    let tensors = report["tensors"].as_array().expect("tensors");
    let of = |name: &str| {
        let mut all = tensors.iter();
        all.find(|tensor| tensor["name"] == name).expect("a tensor")
    };
    assert_eq!(of("blk.0.ffn_up.weight")["to"], "q5_0");
    assert_eq!(of("blk.1.ffn_down.weight")["to"], "q8_0");
    assert_eq!(of("blk.1.attn_norm.weight")["to"], "f32");
    let bytes = fs::read(&out).expect("the file");
    let file = Gguf::parse(&bytes).expect("a model");
    for tensor in file.tensors() {
        assert_eq!(of(tensor.name)["to"], tensor.dtype.name());
        assert_eq!(of(tensor.name)["bytes_to"], tensor.bytes);
    }
    let listed = walsh(["inspect", text(&out), "--tensors", "--json"]).json();
    for tensor in listed["tensors"].as_array().expect("tensors") {
        let planned = of(tensor["name"].as_str().expect("a name"));
        let found = ["type", "bytes", "shape"].map(|key| &tensor[key]);
        assert_eq!(found, ["to", "bytes_to", "shape"].map(|key| &planned[key]));
    }
    let table = walsh(["inspect", text(&out), "--tensors"]).ok();
    assert!(table.lines().count() > tensors.len(), "{table}");
    // Eight bits change no likeliest token of so small a model.
    let eight = folder.path().join("eight.gguf");
    walsh([
        "quantize",
        text(&model),
        text(&eight),
        "-t",
        "1",
        "--type",
        "Q8_0",
    ])
    .ok();
    assert_eq!(answer(&eight, &[]), answer(&model, &[]));
    answer(&out, &[]);
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_it_would() {
    let folder = Folder::new();
    let model = tiny(&folder, DType::Q8_0);
    let out = folder.path().join("out.gguf");
    let table = walsh(["quantize", text(&model), text(&out), "--dry-run"]).ok();
    assert!(
        table.contains("blk.0.attn_q.weight") && table.contains("would be"),
        "{table}"
    );
    assert_eq!(names(folder.path()), ["q8_0.gguf"]);
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let folder = Folder::new();
    let model = tiny(&folder, DType::F16);
    let quantised = tiny(&folder, DType::Q8_0);
    let out = folder.path().join("out.gguf");
    let (model, quantised, out) = (text(&model), text(&quantised), text(&out));
    walsh(["quantize", quantised, out]).fails(1, "--allow-requantize");
    walsh(["quantize", model, out, "--type", "q4_k_x"]).fails(2, "q4_k_m");
    walsh(["quantize", model, out, "--tensor", "attn_q"]).fails(2, "REGEX=TYPE");
    walsh(["quantize", model, out, "--imatrix", model]).fails(1, "importance matrix");
    walsh(["quantize", model, out, "--tensor", "attn_w=q8_0"]).fails(1, "\"attn_w\"");
    let named = ["--type", "f16", "--tensor", "attn_norm=q8_0"];
    walsh([&["quantize", model, out], &named[..]].concat()).fails(1, "\"attn_norm\"");
    walsh(["quantize", model, text(folder.path())]).fails(1, "no file");
    let nowhere = folder.path().join("no/such/out.gguf");
    walsh(["quantize", model, text(&nowhere)]).fails(1, "no folder");
    // Before anything is looked for that is to be read.
    walsh(["quantize", "no-such-model", text(&nowhere)]).fails(1, "no folder");
    walsh(["convert", "/no/such/folder", text(&nowhere)]).fails(1, "no folder");
    walsh(["convert", text(folder.path()), out]).fails(1, "config.json");
    walsh(["convert", "/no/such/folder", out]).fails(1, "config.json");
    assert_eq!(names(folder.path()), ["f16.gguf", "q8_0.gguf"]);
}

#[test]
fn what_is_read_is_not_written_over() {
    const SAID: &str = "one of the files that are read";
    let folder = Folder::new();
    let model = tiny(&folder, DType::F16);
    let book = folder.file("book.txt", b"It is a truth universally acknowledged.");
    let matrix = folder.file("my.imatrix.gguf", b"GGUF");
    let source = copied("mistral", &folder.path().join("mistral"));
    let inner = names(&source);
    let inner = inner.iter().map(|name| source.join(name));
    let inner: Vec<PathBuf> = inner.collect();
    let all = [&model, &book, &matrix].into_iter().chain(&inner);
    let before: Vec<Vec<u8>> = all
        .clone()
        .map(|path| fs::read(path).expect("it"))
        .collect();
    let out = folder.path().join("out.gguf");
    let (model, book, matrix, out) = (text(&model), text(&book), text(&matrix), text(&out));

    walsh(["quantize", model, model]).fails(2, SAID);
    walsh(["quantize", model, matrix, "--imatrix", matrix]).fails(2, SAID);
    let given = ["--imatrix", matrix];
    walsh([&["convert", text(&source), matrix], &given[..]].concat()).fails(2, SAID);
    for file in &inner {
        walsh(["convert", text(&source), text(file)]).fails(2, SAID);
        walsh(["quantize", text(&source), text(file)]).fails(2, SAID);
    }
    #[cfg(unix)]
    {
        let link = folder.path().join("link.gguf");
        std::os::unix::fs::symlink(model, &link).expect("a link");
        walsh(["quantize", model, text(&link)]).fails(2, SAID);
        fs::remove_file(link).expect("the link");
    }
    let measured = ["--file", book, "--threads", "1", "--context", "8"];
    for (given, output) in [
        (model, model),
        (model, book),
        (text(&source), text(&inner[0])),
    ] {
        let words = ["imatrix", "--model", given, "--output", output];
        walsh([&words[..], &measured[..]].concat()).fails(2, SAID);
    }
    let after: Vec<Vec<u8>> = all.map(|path| fs::read(path).expect("it")).collect();
    assert!(after == before);
    assert!(!Path::new(out).exists());
}

/// As on a disk that is full: no file grows beyond a few thousand bytes.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full_leaves_nothing() {
    use std::os::unix::process::CommandExt;

    let folder = Folder::new();
    let model = tiny(&folder, DType::F16);
    let mut command = support::command();
    command
        .args(["quantize", text(&model)])
        .arg(folder.path().join("out.gguf"));
    // SAFETY: system calls are all that happens between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: 10_000,
                rlim_max: 10_000,
            };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
            Ok(())
        });
    }
    let ran = support::Ran::new(command.output().expect("the command starts"));
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let last = ran.err.lines().last().unwrap_or_default();
    assert!(last.starts_with("walsh: cannot write"), "{ran:?}");
    assert!(
        last.contains("out.gguf") && last.contains("would take"),
        "{ran:?}"
    );
    assert_eq!(names(folder.path()), ["f16.gguf"]);
}

#[test]
fn an_importance_is_measured_and_used() {
    let folder = Folder::new();
    let model = tiny(&folder, DType::F16);
    let words = "It is a truth universally acknowledged. ".repeat(12);
    let book = folder.file("book.txt", words.as_bytes());
    let importance = folder.path().join("my.imatrix.gguf");
    let said = walsh([
        "imatrix",
        "--model",
        text(&model),
        "--file",
        text(&book),
        "--output",
        text(&importance),
        "--context",
        "64",
        "--chunks",
        "3",
        "--threads",
        "1",
    ])
    .ok();
    assert!(said.contains("3 chunks of 64 tokens"), "{said}");
    let bytes = fs::read(&importance).expect("the file");
    let file = Gguf::parse(&bytes).expect("a file");
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.type").expect("a type"), "imatrix");
    assert_eq!(metadata.u32("imatrix.chunk_count").expect("a count"), 3);
    assert_eq!(metadata.u32("imatrix.chunk_size").expect("a size"), 64);
    let floats = |name: &str| -> Vec<f32> {
        let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name}"));
        let chunks = file.data(tensor).as_chunks().0;
        chunks
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    };
    for layer in 0..LAYERS {
        for part in [
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
        ] {
            assert_eq!(
                floats(&format!("blk.{layer}.{part}.weight.counts")),
                [192.0]
            );
        }
        // A norm makes the mean square of each row one, and its weights here are ones.
        let sums = floats(&format!("blk.{layer}.attn_q.weight.in_sum2"));
        assert_eq!(sums.len(), WIDTH);
        let mean = sums.iter().sum::<f32>() / (192 * WIDTH) as f32;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        assert_eq!(sums, floats(&format!("blk.{layer}.attn_v.weight.in_sum2")));
    }
    assert_eq!(file.tensors().len(), 2 * 7 * LAYERS);
    let out = folder.path().join("out.gguf");
    let report = walsh([
        "quantize",
        text(&model),
        text(&out),
        "--type",
        "q4_0",
        "--imatrix",
        text(&importance),
        "--json",
    ])
    .json();
    let tensors = report["tensors"].as_array().expect("tensors");
    let weighted = tensors.iter().filter(|tensor| tensor["weighted"] == true);
    assert_eq!(weighted.count(), 7 * LAYERS);
    answer(&out, &[]);
}

#[test]
fn folders_are_converted_and_run() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    for name in [
        "qwen3", "llama", "gemma3", "mistral", "smollm3", "olmo2", "phi3", "qwen2", "qwen3moe",
    ] {
        let source = root().join("crates/walsh-convert/tests/folders").join(name);
        let out = folder.path().join(format!("{name}.gguf"));
        walsh(["convert", text(&source), text(&out)]).ok();
        let from_file = answer(&out, &[]);
        let direct = answer(&source, &["--cache-dir", text(&cache)]);
        assert_eq!(from_file, direct, "{name}");
        // Once converted, it is there.
        let kept = names(&cache.join("converted"));
        assert_eq!(answer(&source, &["--cache-dir", text(&cache)]), direct);
        assert_eq!(names(&cache.join("converted")), kept);
    }
    let source = root().join("crates/walsh-convert/tests/folders/qwen3");
    let out = folder.path().join("q8.gguf");
    let report = walsh([
        "convert",
        text(&source),
        text(&out),
        "--type",
        "q8_0",
        "--json",
    ])
    .json();
    assert_eq!(report["type"], "q8_0");
    answer(&out, &[]);
}

#[test]
fn folders_of_mlx_run_and_become_files_of_types_that_ggml_has() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    let given = |name: &str| {
        let all = root().join("crates/walsh-runtime/tests/architectures/mlx");
        all.join(name)
    };
    let out = folder.path().join("out.gguf");
    // 4 bits in groups of 32 and 4-bit floats are GGML's.
    let (experts, out) = (given("qwen3moe"), text(&out));
    walsh(["convert", text(&experts), out]).ok();
    let direct = answer(&experts, &["--cache-dir", text(&cache)]);
    assert_eq!(answer(Path::new(out), &[]), direct);

    let llama = given("llama");
    let first = answer(&llama, &["--cache-dir", text(&cache)]);
    assert_eq!(answer(&llama, &["--cache-dir", text(&cache)]), first);
    let inspect = ["inspect", text(&llama), "--cache-dir", text(&cache)];
    let report = walsh(inspect.iter().copied().chain(["--json"])).json();
    let tensors = report["tensors"].as_array().expect("tensors");
    let types = tensors
        .iter()
        .map(|share| share["dtype"].as_str().expect("a type"));
    let types: Vec<&str> = types.collect();
    for dtype in [
        "mlx2", "mlx3", "mlx4", "mlx5", "mlx6", "mlx8", "q4_1", "q5_1",
    ] {
        assert!(types.contains(&dtype), "{dtype} of {types:?}");
    }
    let given = text(&llama);
    walsh(["convert", given, out]).fails(1, "which is no type of GGUF files");
    let q8 = ["convert", given, out, "--type", "q8_0"];
    let ran = walsh(q8);
    assert!(
        ran.err.contains("loses more than quantising the original"),
        "{ran:?}"
    );
    ran.ok();
    answer(Path::new(out), &[]);
    walsh(["quantize", given, out, "--type", "q8_0"]).fails(1, "--allow-requantize");
}

#[test]
fn folders_of_8_bit_floats_run_and_say_what_is_rounded() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    let all = root().join("crates/walsh-runtime/tests/architectures/fp8");
    let out = folder.path().join("out.gguf");
    for (name, note) in [
        ("qwen3", "no powers of two"),
        ("static", "scales of the inputs"),
    ] {
        let given = all.join(name);
        let ran = walsh(["convert", text(&given), text(&out)]);
        assert!(ran.err.contains(note), "{ran:?}");
        ran.ok();
        let first = answer(&given, &["--cache-dir", text(&cache)]);
        assert_eq!(answer(&out, &[]), first);
        for mix in ["f32", "q8_0", "iq4_nl"] {
            walsh(["quantize", text(&given), text(&out), "--type", mix]).ok();
            answer(&out, &[]);
        }
    }
}

#[test]
fn folders_are_converted_anew_when_what_is_read_has_changed() {
    let folder = Folder::new();
    let source = copied("qwen3", &folder.path().join("qwen3"));
    let cache = folder.path().join("cache");
    let kept_in = cache.join("converted");
    let run = || answer(&source, &["--cache-dir", text(&cache)]);
    let first = run();
    let kept = names(&kept_in);
    assert_eq!(kept.len(), 1);
    assert!(kept[0].starts_with("qwen3-"), "{kept:?}");

    // What conversion does not read.
    fs::write(source.join("README.md"), "words").expect("a file");
    #[cfg(unix)]
    std::os::unix::fs::symlink("/no/such/file", source.join("flax_model.msgpack")).expect("a link");
    let written = |name: &str| {
        let metadata = fs::metadata(kept_in.join(name)).expect("the file");
        metadata.modified().expect("a time")
    };
    let at = written(&kept[0]);
    assert_eq!(run(), first);
    assert_eq!(names(&kept_in), kept);
    assert_eq!(written(&kept[0]), at);

    // Another folder of the same name, and a file of somebody's.
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("a folder");
    let other = copied("qwen3", &other.join("qwen3"));
    answer(&other, &["--cache-dir", text(&cache)]);
    assert_eq!(names(&kept_in).len(), 2);
    let place = kept[0].rsplit_once('-').expect("a name").0;
    fs::write(kept_in.join(format!("{place}-mine.gguf")), "mine").expect("a file");

    let config = source.join("config.json");
    let changed = fs::read_to_string(&config).expect("it") + "\n";
    fs::write(&config, changed).expect("a file");
    assert_eq!(run(), first);
    let now = names(&kept_in);
    assert_eq!(now.len(), 3, "{now:?}");
    assert!(!now.contains(&kept[0]), "{now:?}");
    let own = now.iter().filter(|name| name.starts_with(place));
    assert_eq!(own.count(), 2, "{now:?}");
}

#[test]
fn a_folder_is_quantised_without_a_file_between() {
    let folder = Folder::new();
    let source = copied("qwen3", &folder.path().join("qwen3"));
    let cache = folder.path().join("cache");
    let (direct, between) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
    let options = ["--type", "q8_0", "--cache-dir", text(&cache)];
    walsh([&["quantize", text(&source), text(&direct)], &options[..]].concat()).ok();
    assert!(!cache.exists());
    let whole = folder.path().join("whole.gguf");
    walsh(["convert", text(&source), text(&whole)]).ok();
    walsh([&["quantize", text(&whole), text(&between)], &options[..]].concat()).ok();
    let [direct, between] = [direct, between].map(|path| fs::read(path).expect("a file"));
    assert!(direct == between);
}

#[test]
fn every_type_of_weights_is_listed_with_what_it_loses() {
    let report = walsh(["types", "--json"]).json();
    let types = report["types"].as_array().expect("types");
    let of = |name: &str| {
        let mut all = types.iter();
        all.find(|facts| facts["name"] == name).expect("a type")
    };
    let error = |name: &str| of(name)["error"].as_f64().expect("an error");
    for (better, worse) in [
        ("q8_0", "q4_K"),
        ("q4_K", "iq3_s"),
        ("iq3_s", "iq2_s"),
        ("iq2_s", "iq2_xxs"),
    ] {
        assert!(error(better) < error(worse) && error(worse) < 0.15);
    }
    assert_eq!(of("iq1_s")["error"], serde_json::Value::Null);
    assert_eq!(of("mlx2_32")["bits"], 3.0);
    assert!(types.iter().all(|facts| facts["no_products"].is_null()));
    let table = walsh(["types"]).ok();
    assert!(table.lines().count() > types.len(), "{table}");
}
