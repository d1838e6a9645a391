//! What KV codecs make of a row of numbers: bits per value and squared error.
//!
//! ```sh
//! cargo run --release -p walsh --example codecs -- 128
//! ```

use std::error::Error;

use walsh::KvCodec;
use walsh::formats::kv::RowCodec;
use walsh::formats::random::SplitMix64;

const ROWS: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let head_dim: usize = std::env::args()
        .nth(1)
        .as_deref()
        .unwrap_or("128")
        .parse()?;
    println!(
        "{ROWS} rows of {head_dim} normal numbers, one of them ten times as large as the others"
    );
    println!(
        "{:<12} {:>14} {:>16}",
        "codec", "bits per value", "squared error"
    );
    for codec in KvCodec::all() {
        let Ok(codec) = RowCodec::new(codec, head_dim) else {
            println!("{:<12} takes no rows of {head_dim}", codec.to_string());
            continue;
        };
        let mut random = SplitMix64(1);
        let mut codes = vec![0; codec.code_bytes()];
        let mut scales = vec![0; codec.scale_bytes()];
        let mut scratch = vec![0.0; head_dim];
        let mut decoded = vec![0.0; head_dim];
        let (mut error, mut energy) = (0.0, 0.0);
        for _ in 0..ROWS {
            let mut row = random.normals(head_dim);
            row[head_dim / 2] *= 10.0;
            codec.encode_row(&row, &mut scratch, &mut codes, &mut scales)?;
            codec.decode_row(&codes, &scales, &mut decoded);
            for (number, stored) in row.iter().zip(&decoded) {
                error += f64::from(number - stored).powi(2);
                energy += f64::from(*number).powi(2);
            }
        }
        let bits = 8.0 * (codes.len() + scales.len()) as f64 / head_dim as f64;
        let name = codec.codec().to_string();
        println!("{name:<12} {bits:>14.3} {:>16.3e}", error / energy);
    }
    Ok(())
}
