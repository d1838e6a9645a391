//! Encodes raw little-endian f32 values, for `tests/golden/compare_encoders.py`, and says how long it took:
//! `encode TYPE COLUMNS VALUES OUT [IMPORTANCE]`, where the importance has a number for each column.

use std::error::Error;
use std::time::Instant;

use walsh_formats::DType;
use walsh_formats::ggml::{encode, encode_weighted};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dtype, columns, values, out, importance @ ..] = &args[..] else {
        return Err("give TYPE COLUMNS VALUES OUT [IMPORTANCE]".into());
    };
    let (dtype, columns): (DType, usize) = (dtype.parse()?, columns.parse()?);
    let values = floats(values)?;
    let importance = importance.first().map(|path| floats(path)).transpose()?;
    let row_bytes = dtype.row_bytes(columns as u64).ok_or("no whole blocks")? as usize;
    let mut stored = vec![0; values.len() / columns * row_bytes];
    let started = Instant::now();
    for (row, bytes) in values.chunks(columns).zip(stored.chunks_mut(row_bytes)) {
        match &importance {
            Some(importance) => encode_weighted(dtype, row, importance, bytes)?,
            None => encode(dtype, row, bytes)?,
        }
    }
    println!("{}", started.elapsed().as_secs_f64());
    Ok(std::fs::write(out, stored)?)
}

fn floats(path: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let chunks = bytes.as_chunks().0;
    Ok(chunks
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect())
}
