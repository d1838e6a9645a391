//! Compiles the text that Metal is given of every kernel that the conformance cases and models need, with no Metal:
//! `.ci/apple` calls it.
//!
//! The compiler is clang's of C++ for OpenCL, whose address spaces are Metal's, over the declarations of
//! `tools/msl/metal_stdlib`; attributes of entry points are looked at here. What both of them know of Metal's rules is
//! shown first: mistakes are planted, and each must be found. Whether Apple's own compiler takes the texts, a machine of
//! Apple's alone can show.

mod entries;
mod planted;
#[path = "../nvrtc/recorder.rs"]
mod recorder;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use entries::rewritten;
use recorder::Recorder;
use walsh::Activations;
use walsh_kernels::in_parallel;
use walsh_kernels::{Platform, Variant};

/// What `--help` prints.
const HELP: &str = "\
Compiles every kernel's text for Metal, with no Metal.

Usage: msl --clang FILE --headers FOLDER [--quick]
       msl --metal [--quick]

Options:
      --clang FILE      clang++, version 19 or newer
      --headers FOLDER  Where metal_stdlib is
      --metal           Has Metal itself compile them, on a Mac
      --quick           Leaves out the kernels that the conformance cases alone need
  -h, --help            Prints this";

/// Kernels of one text: the compiler reads the header once for all of them.
const BATCH: usize = 16;

/// The threadgroup memory of a kernel, in bytes.
const THREADGROUP_BYTES: u32 = 32 << 10;

/// C++ for OpenCL without what Metal has not: double precision, and variables of a program that are no constants. The generic
/// address space is for copies of structs; that pointers name theirs is a rule of `xtask lint-kernels`. Warnings are of constants that a variant makes of its text, such as a division by zero behind a condition.
const FLAGS: &[&str] = &[
    "-x",
    "cl",
    "-cl-std=clc++2021",
    "-cl-no-stdinc",
    "-nostdinc",
    "-target",
    "spir64",
    "-Xclang",
    "-cl-ext=-all,+cl_khr_fp16,+__opencl_c_generic_address_space",
    "-D__METAL_VERSION__=300",
    "-fsyntax-only",
    "-w",
];

/// A compiler and its declarations.
pub(crate) struct Compiler {
    clang: PathBuf,
    headers: PathBuf,
}

/// What a compiler found.
pub(crate) struct Found {
    /// What is wrong; none when nothing is.
    pub(crate) log: Option<String>,
}

impl Compiler {
    /// Compiles a text.
    ///
    /// # Errors
    /// When the compiler does not run.
    pub(crate) fn compile(&self, text: &str) -> Result<Found, String> {
        let explain = |error: std::io::Error| format!("{}: {error}", self.clang.display());
        let mut compiler = Command::new(&self.clang)
            .args(FLAGS)
            .arg("-I")
            .arg(&self.headers)
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(explain)?;
        // The compiler reads all of its input before it says what is wrong.
        if let Some(mut input) = compiler.stdin.take() {
            input.write_all(text.as_bytes()).map_err(explain)?;
        }
        let output = compiler.wait_with_output().map_err(explain)?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = log.contains(" error: ");
        match (output.status.success(), refused) {
            (true, _) => Ok(Found { log: None }),
            (false, true) => Ok(Found { log: Some(log) }),
            // Whatever ended it was not the text.
            (false, false) => Err(format!(
                "{} ended with {}: {log}",
                self.clang.display(),
                output.status
            )),
        }
    }
}

fn main() -> ExitCode {
    let mut compiler = Compiler {
        clang: PathBuf::new(),
        headers: PathBuf::new(),
    };
    let (mut quick, mut metal) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || PathBuf::from(arguments.next().unwrap_or_default());
        match argument.as_str() {
            "--clang" => compiler.clang = value(),
            "--headers" => compiler.headers = value(),
            "--quick" => quick = true,
            "--metal" => metal = true,
            "-h" | "--help" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("msl: unknown argument {argument}: see --help");
                return ExitCode::FAILURE;
            }
        }
    }
    match run((!metal).then_some(&compiler), quick) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("msl: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Has a compiler, or Metal itself, compile all; whether nothing is wrong.
fn run(compiler: Option<&Compiler>, quick: bool) -> Result<bool, String> {
    let mut wrong = Vec::new();
    if let Some(compiler) = compiler {
        let (planted, missed) = planted::found(compiler)?;
        let found = planted - missed.len();
        println!("{found} of {planted} planted mistakes are found");
        wrong = missed;
    }
    let limits = [Activations::Int8, Activations::F32].map(walsh_metal::limits);
    let wanted = Recorder::wanted(limits.to_vec(), !quick)?;
    for (op, (reason, times)) in &wanted.missing {
        wrong.push(format!("{op} has no kernel {times} times, first: {reason}"));
    }
    let variants: Vec<&Variant> = wanted.kernels.values().map(|k| &k.variant).collect();
    let begun = Instant::now();
    let failures = match compiler {
        Some(compiler) => compiled(compiler, &variants),
        None => walsh_metal::refused(0, &variants).map_err(|error| error.to_string())?,
    };
    println!(
        "{} kernels compiled as Metal's, {} failed ({:.1} s)",
        variants.len(),
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    wrong.extend(failures);
    for line in &wrong {
        println!("FAILED {line}");
    }
    Ok(wrong.is_empty() && !variants.is_empty())
}

/// Compiles in batches, on as many threads as the machine runs; what fails.
fn compiled(compiler: &Compiler, variants: &[&Variant]) -> Vec<String> {
    let failures = Mutex::new(Vec::new());
    let batches: Vec<&[&Variant]> = variants.chunks(BATCH).collect();
    in_parallel(batches.len(), &|at| {
        let found = compile(compiler, batches[at]);
        let mut failures = failures.lock().expect("nothing panics under the lock");
        failures.extend(found);
    });
    failures
        .into_inner()
        .expect("nothing panics under the lock")
}

/// The kernels of a batch that do not compile, each with what is wrong.
fn compile(compiler: &Compiler, batch: &[&Variant]) -> Vec<String> {
    let mut source = Variant::header(Platform::Metal);
    for variant in batch {
        source.push_str(&variant.body(Platform::Metal));
        if variant.kernel().shared {
            source.push_str(&format!(
                "static_assert(sizeof({}_text::Shared) <= {THREADGROUP_BYTES}, \"threadgroup memory\");\n",
                variant.symbol()
            ));
        }
    }
    let found = rewritten(&source).map(|text| compiler.compile(&text));
    let wrong = match found {
        Ok(Ok(Found { log: None })) => return Vec::new(),
        Ok(Ok(Found { log: Some(log) })) => log,
        Ok(Err(error)) | Err(error) => error,
    };
    match batch {
        [alone] => {
            let log = wrong
                .lines()
                .filter(|line| line.contains(" error: "))
                .take(3);
            let log: Vec<&str> = log.collect();
            let log = if log.is_empty() {
                wrong.clone()
            } else {
                log.join("\n    ")
            };
            vec![format!("{alone}: {log}")]
        }
        _ => batch
            .chunks(1)
            .flat_map(|one| compile(compiler, one))
            .collect(),
    }
}
