//! A product with a weight of a GGUF file, from the blocks as they lie there.
//!
//! ```sh
//! cargo run --release -p walsh --example products -- model.gguf blk.0.ffn_down.weight
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use walsh::gguf::Gguf;
use walsh::ops::MatMul;
use walsh::{DType, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("give a GGUF file, the name of a weight, and a device if not the CPU".into());
    };
    let device = walsh::open(arguments.next().as_deref().unwrap_or("cpu"))?;

    // Read whole to keep this short: whoever maps a file implements `HostBytes` for the map.
    let file: Arc<[u8]> = std::fs::read(path)?.into();
    let gguf = Gguf::parse(&file)?;
    let info = gguf.tensor(&name).ok_or("there is no such tensor")?;
    let &[rows, columns] = &info.shape[..] else {
        return Err(format!("{name} is no matrix: {:?}", info.shape).into());
    };
    let bytes = gguf.data(info).len();
    let weight = Tensor::new(
        device.import(Arc::new(Arc::clone(&file)))?,
        info.offset,
        info.dtype,
        &info.shape,
    )?;

    let ones = vec![1.0f32; usize::try_from(columns)?];
    let input = device.tensor(&[1, columns], &ones)?;
    let output = device.zeros(DType::F32, &[1, rows])?;
    let mut list = device.record();
    list.push(MatMul {
        weight,
        input,
        bias: None,
        output: output.clone(),
    })?;
    let step = list.finish()?;
    print!("{step}");

    device.run(&step)?;
    let start = Instant::now();
    for _ in 0..100 {
        device.run(&step)?;
    }
    // Reading waits for what runs.
    let sums: Vec<f32> = device.read(&output)?;
    let seconds = start.elapsed().as_secs_f64() / 100.0;
    println!("sums of the first rows: {:?}", &sums[..sums.len().min(4)]);
    println!(
        "{:.1} us, {:.1} GB of weights per second",
        seconds * 1e6,
        bytes as f64 / seconds / 1e9
    );
    Ok(())
}
