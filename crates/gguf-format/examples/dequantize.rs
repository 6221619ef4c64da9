//! Dequantizes a file of blocks again and again and says how long it takes: our side of `benches/side_by_side/dequantize.py`.
//!
//! `cargo run --release -p gguf-format --example dequantize -- TYPE INPUT OUTPUT`
//! prints the least time of one pass over the input, in seconds, and writes the values, little-endian f32.

use std::time::Instant;

use gguf_format::{GgmlType, blocks};

/// Passes between two looks at the clock, which takes as long as some hundred values.
const PASSES: u32 = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ty, input, output] = &args[..] else {
        return Err("usage: dequantize TYPE INPUT OUTPUT".into());
    };
    let ty = GgmlType::from_name(ty).ok_or_else(|| format!("no type {ty}"))?;
    let layout = ty.layout().ok_or("the type has no layout")?;
    let data = std::fs::read(input)?;
    let len = data.len() / layout.block_bytes as usize * layout.block_len as usize;
    // The values begin where a cache line does, as the buffers of tensors do.
    let mut room = vec![0f32; len + 16];
    let first = room.as_ptr().align_offset(64).min(16);
    let values = &mut room[first..first + len];

    let (mut least, begin) = (f64::INFINITY, Instant::now());
    while begin.elapsed().as_secs_f64() < 0.2 {
        let start = Instant::now();
        for _ in 0..PASSES {
            blocks::dequantize(ty, &data, std::hint::black_box(&mut *values))?;
        }
        least = least.min(start.elapsed().as_secs_f64() / f64::from(PASSES));
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(output, bytes)?;
    println!("{least}");
    Ok(())
}
