//! What rounding does to keys and values, on data that is the same in every run: `cargo run --release -p kv-cache-quant --example noise`.
//!
//! 128 channels, 512 tokens. *Normal*: independent standard normal values, error as a share of power. *Mild* and *biased* keys: the same plus a mean per
//! channel (a few channels' much larger; those of *biased* are like a key bias of Qwen2.5's), turned by a rotary embedding of base 1e6; the error is that of
//! the logits of normal queries, after removing each row's mean (softmax does not see it), as a share of the logits' own variance.

#[path = "../tests/common/noise.rs"]
mod noise;

fn main() {
    println!("| keys and values | bits | normal | mild keys | biased keys |");
    println!("|---|---|---|---|---|");
    for row in noise::ROWS {
        let n = noise::measure(row);
        println!("| {} | {:.3} | {:.2e} | {:.2e} | {:.2e} |", row.name, n.bits, n.normal, n.mild, n.biased);
    }
}
