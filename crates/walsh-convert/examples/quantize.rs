//! Quantises a file without the rest of Walsh, to be timed: `quantize IN OUT TYPE THREADS [IMATRIX]`.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use walsh_convert::{Files, Imatrix, Plan, PlanOptions, WriteOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, mix, threads, imatrix @ ..] = &args[..] else {
        return Err("give IN OUT TYPE THREADS [IMATRIX]".into());
    };
    let started = Instant::now();
    let files = Files::open(Path::new(input))?;
    let source = files.source()?;
    let imatrix = imatrix.first().map(|path| Imatrix::open(Path::new(path)));
    let imatrix = imatrix.transpose()?;
    let options = PlanOptions {
        mix: Some(mix.parse()?),
        overrides: &[],
        imatrix: imatrix.as_ref(),
        allow_requantize: true,
    };
    Plan::new(&source, &options)?.write(
        &mut File::create(output)?,
        &mut WriteOptions {
            threads: threads.parse()?,
            cancel: &AtomicBool::new(false),
            progress: &mut |_| {},
        },
    )?;
    println!("{:.2} s", started.elapsed().as_secs_f64());
    Ok(())
}
