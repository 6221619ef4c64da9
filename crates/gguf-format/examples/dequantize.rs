//! Dequantizes a file of blocks again and again and says how long it takes: our side of `benches/side_by_side/dequantize.py`.
//!
//! `cargo run --release -p gguf-format --example dequantize -- TYPE INPUT OUTPUT`
//! prints the least time of one pass over the input, in seconds, and writes the values, little-endian f32.

use std::time::Instant;

use gguf_format::{GgmlType, blocks};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ty, input, output] = &args[..] else {
        return Err("usage: dequantize TYPE INPUT OUTPUT".into());
    };
    let ty = GgmlType::from_name(ty).ok_or_else(|| format!("no type {ty}"))?;
    let layout = ty.layout().ok_or("the type has no layout")?;
    let data = std::fs::read(input)?;
    let mut values = vec![0f32; data.len() / layout.block_bytes as usize * layout.block_len as usize];

    let (mut least, begin) = (f64::INFINITY, Instant::now());
    while begin.elapsed().as_secs_f64() < 0.2 {
        for _ in 0..64 {
            let start = Instant::now();
            blocks::dequantize(ty, &data, std::hint::black_box(&mut values))?;
            least = least.min(start.elapsed().as_secs_f64());
        }
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(output, bytes)?;
    println!("{least}");
    Ok(())
}
