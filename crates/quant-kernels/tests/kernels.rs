//! The kernels against their definitions: decoding against `gguf_format` to the bit, products and attention against sums in f64, on every
//! instruction set of this machine.

use gguf_format::{GgmlType, blocks};
use quant_core::affine::{AffineMatrix, AffineParts, Bits};
use quant_kernels::{
    AffineWeights, Encoding, Interleaved, Isa, KvStore, Matrix, attention_with, gather, is_integer, is_supported,
    matmul_interleaved_with, matmul_rounded, matmul_rounded_with, matmul_with, rms_norm, rms_norm_in_place, rope,
    silu_mul_with,
};

/// What the processor has is found.
#[test]
fn instruction_sets() {
    let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
    println!("instruction sets: {names:?}");
    assert_eq!(Isa::best().name(), names[0]);
    assert_eq!(names.last(), Some(&"portable"));
    #[cfg(target_arch = "aarch64")]
    match std::arch::is_aarch64_feature_detected!("dotprod") {
        true => assert_eq!(names, ["neondot", "neon", "portable"]),
        false => assert_eq!(names, ["neon", "portable"]),
    }
}

/// FP8 weights: every code, and products of rows of any length.
#[test]
fn e4m3() {
    use quant_core::float8::Float8;
    let all: Vec<u8> = (0..=255).collect();
    for isa in Isa::available() {
        // The product with one 1 a token picks a code.
        let mut x = vec![0.0; 16 * 16];
        (0..16).for_each(|t| x[t * 17] = 1.0);
        let mut y = vec![0.0; 256];
        let weights = Matrix::new(Encoding::E4M3, 16, 16, &all).unwrap();
        matmul_with(isa, &x, 16, &[weights], &mut y).unwrap();
        for (code, value) in all.iter().map(|&code| (code, y[usize::from(code % 16) * 16 + usize::from(code / 16)])) {
            let expected = match code & 0x7f {
                0x7f => {
                    if code == 0x7f {
                        480.0
                    } else {
                        -480.0
                    }
                }
                _ => Float8::E4M3.decode(code),
            };
            assert_eq!(value, expected, "{isa:?} {code:#x}");
        }
        let mut random = Random(7);
        for cols in [1, 15, 17, 100, 600] {
            for tokens in [1, 3, 9, 40] {
                let codes: Vec<u8> =
                    random.bytes(5 * cols).iter().map(|c| if c & 0x7f > 0x60 { 0x21 } else { *c }).collect();
                let x = random.values(tokens * cols);
                let weights = Matrix::new(Encoding::E4M3, 5, cols, &codes).unwrap();
                let mut y = vec![0.0; tokens * 5];
                matmul_with(isa, &x, tokens, &[weights], &mut y).unwrap();
                for (at, y) in y.iter().enumerate() {
                    let (x, w) = (&x[at / 5 * cols..][..cols], &codes[at % 5 * cols..][..cols]);
                    let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(Float8::E4M3.decode(*w)));
                    let (sum, size) = terms.fold((0.0, 0.0), |(s, m), t| (s + t, m + t.abs()));
                    assert!((f64::from(*y) - sum).abs() <= 1e-5 * size + 1e-12, "{isa:?} {cols} {tokens}: {y} {sum}");
                }
            }
        }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    /// About -1..1.
    fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// Type, and where the binary16 scales of a block lie.
const TYPES: &[(GgmlType, &[usize])] = &[
    (GgmlType::Q4_0, &[0]),
    (GgmlType::Q4_1, &[0, 2]),
    (GgmlType::Q5_0, &[0]),
    (GgmlType::Q5_1, &[0, 2]),
    (GgmlType::Q8_0, &[0]),
    (GgmlType::Q2_K, &[80, 82]),
    (GgmlType::Q3_K, &[108]),
    (GgmlType::Q4_K, &[0, 2]),
    (GgmlType::Q5_K, &[0, 2]),
    (GgmlType::Q6_K, &[208]),
    (GgmlType::IQ4_NL, &[0]),
    (GgmlType::IQ4_XS, &[0]),
    // Without a decoder in registers.
    (GgmlType::TQ2_0, &[64]),
    (GgmlType::IQ2_XXS, &[0]),
];

/// Random rows with moderate scales.
fn packed(random: &mut Random, ty: GgmlType, rows: usize, cols: usize) -> Vec<u8> {
    match ty {
        GgmlType::F32 => random.values(rows * cols).iter().flat_map(|v| v.to_le_bytes()).collect(),
        GgmlType::F16 => {
            random.values(rows * cols).iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()
        }
        GgmlType::BF16 => {
            random.values(rows * cols).iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect()
        }
        _ => {
            let mut bytes = random.bytes(ty.bytes_for((rows * cols) as u64).unwrap() as usize);
            let (_, scales) = TYPES.iter().find(|(t, _)| *t == ty).unwrap();
            for block in bytes.chunks_exact_mut(ty.layout().unwrap().block_bytes as usize) {
                for &at in *scales {
                    let scale = half::f16::from_f32(0.01 + 0.02 * random.value());
                    block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
                }
            }
            bytes
        }
    }
}

/// Codes, scales and zero points of any value, `ordered` with the groups of the columns in any order.
fn affine(random: &mut Random, rows: usize, cols: usize, bits: u8, group_size: usize, ordered: bool) -> AffineMatrix {
    let groups = cols.div_ceil(group_size);
    let bits = Bits::new(bits).unwrap();
    AffineMatrix::from_parts(AffineParts {
        out_features: rows,
        in_features: cols,
        bits,
        group_size,
        codes: random.bytes(rows * cols).iter().map(|b| b & bits.max_code()).collect(),
        scales: (0..rows * groups).map(|_| half::f16::from_f32(0.1 * random.value())).collect(),
        zeros: (0..rows * groups).map(|_| (random.next() >> 32) as u16 % ((1 << bits.get()) + 1)).collect(),
        g_idx: ordered.then(|| (0..cols).map(|_| (random.next() >> 32) as u32 % groups as u32).collect()),
    })
    .unwrap()
}

/// Columns, group size, whether groups are out of order, and the block length that follows (0: any).
const AFFINE: &[(usize, usize, bool, usize)] = &[
    (896, 128, false, 128),
    (896, 896, false, 128),
    (192, 64, false, 64),
    (192, 192, false, 64),
    (160, 32, false, 32),
    (48, 16, false, 16),
    // No whole blocks: padded.
    (100, 32, false, 0),
    (50, 24, false, 0),
    (7, 3, false, 16),
    (1, 1, false, 16),
    (256, 64, true, 0),
    (2048, 128, true, 0),
    (60, 60, true, 0),
];

#[test]
fn affine_rows_have_the_reference_bits() {
    let mut random = Random(5);
    for bits in [2, 3, 4, 8] {
        for &(cols, group_size, ordered, block) in AFFINE {
            let matrix = affine(&mut random, 3, cols, bits, group_size, ordered);
            let weights = AffineWeights::pack(&matrix).unwrap();
            if block > 0 {
                assert_eq!(weights.block().len(), block, "{bits} bits, {cols} columns in groups of {group_size}");
            }
            assert_eq!(
                weights.gather().is_some(),
                ordered && cols != 60 || !cols.is_multiple_of(16) || group_size == 24
            );
            for row in 0..3 {
                let (mut want, mut got) = (vec![0.0; cols], vec![f32::NAN; cols]);
                matrix.dequantize_row_into(row, &mut want).unwrap();
                weights.row(row, &mut got).unwrap();
                let same = want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{bits} bits, {cols} columns in groups of {group_size}, row {row}: {got:?} {want:?}");
            }
        }
    }
    let matrix = affine(&mut random, 4, 1024, 4, 128, false);
    assert_eq!(AffineWeights::pack(&matrix).unwrap().bytes(), 4 * 1024 / 128 * (64 + 4), "4.25 bits a weight");
    // A byte each: no kernel of their own.
    for bits in [5, 6, 7] {
        let matrix = affine(&mut random, 2, 64, bits, 32, false);
        let weights = AffineWeights::pack(&matrix).unwrap();
        let (mut want, mut got) = (vec![0.0; 64], vec![f32::NAN; 64]);
        matrix.dequantize_row_into(1, &mut want).unwrap();
        weights.row(1, &mut got).unwrap();
        assert_eq!(want, got, "{bits} bits");
    }
}

#[test]
fn affine_products() {
    let mut random = Random(6);
    let mut failed = Vec::new();
    for bits in [2, 3, 4, 8] {
        for &(cols, group_size, ordered, _) in AFFINE {
            let rows = if cols > 500 { 37 } else { 131 };
            let matrix = affine(&mut random, rows, cols, bits, group_size, ordered);
            let weights = AffineWeights::pack(&matrix).unwrap();
            let mut dense = vec![0.0; rows * cols];
            matrix.dequantize_into(&mut dense).unwrap();
            for tokens in [1, 2, 3, 8, 9, 33] {
                let x = random.values(tokens * cols);
                let packed_cols = weights.matrix().cols;
                let mut gathered = vec![f32::NAN; tokens * packed_cols];
                match weights.gather() {
                    Some(map) => gather(&x, cols, map, &mut gathered).unwrap(),
                    None => gathered.copy_from_slice(&x),
                }
                for isa in Isa::available() {
                    let mut y = vec![f32::NAN; tokens * rows];
                    matmul_with(isa, &gathered, tokens, &[weights.matrix()], &mut y).unwrap();
                    for t in 0..tokens {
                        for r in 0..rows {
                            let terms = (0..cols).map(|c| f64::from(dense[r * cols + c]) * f64::from(x[t * cols + c]));
                            let (sum, size) = terms.fold((0.0, 0.0), |(s, a), p| (s + p, a + p.abs()));
                            let got = f64::from(y[t * rows + r]);
                            if got.is_nan() || (got - sum).abs() > 1e-6 * size {
                                failed.push(format!(
                                    "{} {bits} bits {cols} {group_size} token {t} of {tokens} row {r}: {got} {sum}",
                                    isa.name()
                                ));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} wrong: {:#?}", failed.len(), &failed[..failed.len().min(10)]);
    assert!(gather(&[0.0; 4], 3, &[0], &mut [0.0]).is_err());
    assert!(gather(&[0.0; 4], 2, &[0, 1, u32::MAX], &mut [0.0; 5]).is_err());
}

fn all_types() -> Vec<GgmlType> {
    let dense = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];
    dense.into_iter().chain(TYPES.iter().map(|&(t, _)| t)).collect()
}

#[test]
fn rows_have_the_reference_bits() {
    let mut random = Random(1);
    for ty in all_types() {
        // Any bytes: scales may be infinite or NaN.
        let cols = if ty.is_quantized() { 512 } else { 53 };
        let bytes = random.bytes(ty.bytes_for(2 * cols).unwrap() as usize);
        let mut want = vec![0.0; 2 * cols as usize];
        blocks::dequantize(ty, &bytes, &mut want).unwrap();
        let matrix = Matrix::new(ty, 2, cols as usize, &bytes).unwrap();
        for row in 0..2 {
            let mut got = vec![0.0; cols as usize];
            matrix.row(row, &mut got).unwrap();
            for (i, (got, want)) in got.iter().zip(&want[row * cols as usize..]).enumerate() {
                assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{ty} {i}: {got} {want}");
            }
        }
    }
}

#[test]
fn products() {
    let mut random = Random(2);
    let mut failed = Vec::new();
    for ty in all_types() {
        let shapes: &[(usize, usize)] = if ty.is_quantized() {
            &[(1, 256), (37, 1280), (200, 512)]
        } else {
            &[(1, 1), (3, 172), (37, 1280), (131, 31)]
        };
        for &(rows, cols) in shapes {
            let bytes = packed(&mut random, ty, rows + 5, cols);
            let row_bytes = bytes.len() / (rows + 5);
            let mut dense = vec![0.0; (rows + 5) * cols];
            blocks::dequantize(ty, &bytes, &mut dense).unwrap();
            // Two matrices, one below the other.
            let (first, second) = bytes.split_at(rows * row_bytes);
            let matrices = [Matrix::new(ty, rows, cols, first).unwrap(), Matrix::new(ty, 5, cols, second).unwrap()];
            for tokens in [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 70] {
                let x = random.values(tokens * cols);
                for isa in Isa::available() {
                    let mut y = vec![f32::NAN; tokens * (rows + 5)];
                    matmul_with(isa, &x, tokens, &matrices, &mut y).unwrap();
                    for t in 0..tokens {
                        for r in 0..rows + 5 {
                            let terms = (0..cols).map(|c| f64::from(dense[r * cols + c]) * f64::from(x[t * cols + c]));
                            let (sum, size) = terms.fold((0.0, 0.0), |(s, a), p| (s + p, a + p.abs()));
                            let got = f64::from(y[t * (rows + 5) + r]);
                            if got.is_nan() || (got - sum).abs() > 1e-6 * size {
                                failed.push(format!(
                                    "{ty} {} [{rows}, {cols}] token {t} of {tokens} row {r}: {got} {sum}",
                                    isa.name()
                                ));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} wrong: {:#?}", failed.len(), &failed[..failed.len().min(10)]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let bytes = [0u8; 144];
    assert!(Matrix::new(GgmlType::Q4_K, 1, 256, &bytes).is_ok());
    for (ty, rows, cols, len) in [
        (GgmlType::Q4_K, 1, 255, 144),
        (GgmlType::Q4_K, 1, 256, 143),
        (GgmlType::Q4_K, 2, 256, 144),
        (GgmlType::Q4_K, usize::MAX, 256, 144),
        (GgmlType::F32, 1, usize::MAX, 144),
        (GgmlType::Q8_1, 1, 32, 36),
        (GgmlType::from_id(999), 1, 256, 144),
    ] {
        assert!(Matrix::new(ty, rows, cols, &bytes[..len]).is_err(), "{ty} {rows} {cols}");
    }
    assert!(!is_supported(GgmlType::Q8_1));
    let w = Matrix::new(GgmlType::F32, 6, 6, &bytes).unwrap();
    let other = Matrix::new(GgmlType::F32, 4, 9, &bytes).unwrap();
    let isa = Isa::Portable;
    assert!(matmul_with(isa, &[0.0; 5], 1, &[w], &mut [0.0; 6]).is_err());
    assert!(matmul_with(isa, &[0.0; 6], 1, &[w], &mut [0.0; 5]).is_err());
    assert!(matmul_with(isa, &[0.0; 6], 1, &[w, other], &mut [0.0; 10]).is_err());
    assert!(w.row(6, &mut [0.0; 6]).is_err());
    // The fields are public: a matrix that was not checked is refused when it is used.
    let forged = Matrix { rows: 7, ..w };
    assert!(matmul_with(isa, &[0.0; 6], 1, &[forged], &mut [0.0; 7]).is_err());
}

/// Attention by its definition, in f64. `k`, `v`: [positions][kv_heads * d]; `q`: [tokens][heads * d].
#[allow(clippy::too_many_arguments)]
fn attention_f64(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    heads: usize,
    kv_heads: usize,
    d: usize,
    window: Option<usize>,
    scale: f32,
) -> Vec<f64> {
    let (tokens, positions, width) = (q.len() / (heads * d), k.len() / (kv_heads * d), kv_heads * d);
    let mut out = Vec::new();
    for t in 0..tokens {
        let end = positions - tokens + t + 1;
        let start = window.map_or(0, |w| end.saturating_sub(w));
        for h in 0..heads {
            let kv = h / (heads / kv_heads);
            let q = &q[(t * heads + h) * d..][..d];
            let dot =
                |p: usize| -> f64 { (0..d).map(|c| f64::from(q[c]) * f64::from(k[p * width + kv * d + c])).sum() };
            let scores: Vec<f64> = (start..end).map(|p| dot(p) * f64::from(scale)).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for c in 0..d {
                out.push((start..end).map(|p| weights[p - start] / sum * f64::from(v[p * width + kv * d + c])).sum());
            }
        }
    }
    out
}

#[test]
fn attention_is_its_definition() {
    let mut random = Random(3);
    // heads, kv heads, d, positions before, tokens, window
    let cases = [
        (1, 1, 2, 0, 1, None),
        (8, 4, 8, 0, 70, None),
        (14, 2, 64, 31, 1, None),
        (14, 2, 64, 32, 2, None),
        (4, 2, 80, 100, 33, None),
        (7, 1, 128, 300, 1, None),
        (4, 4, 16, 0, 130, Some(33)),
        (4, 2, 16, 200, 3, Some(1)),
        (4, 2, 16, 200, 40, Some(64)),
        (4, 2, 16, 10, 40, Some(1000)),
    ];
    for (heads, kv_heads, d, before, tokens, window) in cases {
        let (width, positions) = (kv_heads * d, before + tokens);
        let (k, v) = (random.values(positions * width), random.values(positions * width));
        let q: Vec<f32> = random.values(tokens * heads * d).iter().map(|x| 6.0 * x).collect();
        let scale = 1.0 / (d as f32).sqrt();
        let want = attention_f64(&q, &k, &v, heads, kv_heads, d, window, scale);
        for isa in Isa::available() {
            let mut store = KvStore::new(kv_heads, d);
            // Some more, forgotten again: what a block keeps of them must not be seen.
            store.append(&k[..before * width], &v[..before * width], width, before).unwrap();
            store.append(&vec![f32::NAN; 40 * width], &vec![f32::NAN; 40 * width], width, 40).unwrap();
            store.truncate(before);
            store.append(&k[before * width..], &v[before * width..], width, tokens).unwrap();
            assert_eq!(store.len(), positions);
            let mut out = vec![f32::NAN; tokens * heads * d];
            attention_with(isa, &q, heads * d, tokens, heads, &store, window, scale, &mut out).unwrap();
            for (i, (got, want)) in out.iter().zip(&want).enumerate() {
                assert!(
                    (f64::from(*got) - want).abs() < 2e-6,
                    "{heads} {kv_heads} {d} {before} {tokens} {window:?} {i}: {got} {want}"
                );
            }
        }
    }
}

#[test]
fn functions_between() {
    let mut random = Random(4);
    for n in [1, 7, 8, 16, 37, 4864] {
        let x: Vec<f32> = random.values(3 * 2 * n).iter().map(|v| v * 30.0).collect();
        for isa in Isa::available() {
            let mut y = vec![f32::NAN; 3 * n];
            silu_mul_with(isa, &x, n, &mut y).unwrap();
            for (i, y) in y.iter().enumerate() {
                let (g, u) = (f64::from(x[i / n * 2 * n + i % n]), f64::from(x[i / n * 2 * n + n + i % n]));
                let want = g / (1.0 + (-g).exp()) * u;
                assert!(
                    (f64::from(*y) - want).abs() <= 1e-6 * want.abs() + 1e-30,
                    "{} {g} {u}: {y} {want}",
                    isa.name()
                );
            }
        }
    }
    let (x, w) = (random.values(2 * 37), random.values(37));
    let mut y = vec![0.0; 2 * 37];
    rms_norm(&x, &w, 1e-5, &mut y).unwrap();
    for (i, y) in y.iter().enumerate() {
        let row = &x[i / 37 * 37..][..37];
        let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 37.0;
        let want = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(w[i % 37]);
        assert!((f64::from(*y) - want).abs() <= 1e-6 * want.abs(), "{y} {want}");
    }
    let mut in_place = x.clone();
    rms_norm_in_place(&mut in_place, &w, 1e-5).unwrap();
    assert_eq!(in_place, y);
    assert!(rms_norm_in_place(&mut in_place[..36], &w, 1e-5).is_err());
    let (cos, sin) = ([0.0, 1.0], [1.0, 0.0]);
    let mut adjacent = [1.0, 2.0, 3.0, 4.0];
    rope(&mut adjacent, &cos, &sin, true).unwrap();
    assert_eq!(adjacent, [-2.0, 1.0, 3.0, 4.0]);
    let mut halves = [1.0, 2.0, 3.0, 4.0];
    rope(&mut halves, &cos, &sin, false).unwrap();
    assert_eq!(halves, [-3.0, 2.0, 1.0, 4.0]);
}

/// silu is wrong for no gate, however large; NaN stays NaN.
#[test]
fn silu_at_the_ends() {
    for isa in Isa::available() {
        let gates = [f32::NEG_INFINITY, -1e30, -200.0, 0.0, 200.0, 1e30, f32::NAN];
        let x: Vec<f32> = gates.iter().copied().chain([1.0; 7]).collect();
        let mut y = vec![0.0; 7];
        silu_mul_with(isa, &x, 7, &mut y).unwrap();
        assert!(y[1].abs() < 1e-6 && y[2].abs() < 1e-6 && y[3] == 0.0 && y[4] == 200.0 && y[5] == 1e30, "{y:?}");
        assert!(y[6].is_nan());
    }
}

/// `x`, `[tokens, cols]`, on the grid that `matmul_rounded` rounds to, in f64.
fn on_grid(x: &[f32], largest: f32) -> Vec<f64> {
    let block = |x: &[f32]| {
        let max = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let (scale, inverse) = (max / largest, largest / max);
        x.iter().map(move |v| f64::from((v * inverse).round_ties_even()) * f64::from(scale)).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(block).collect()
}

#[cfg(target_arch = "x86_64")]
fn vnni() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn vnni() -> bool {
    false
}

/// Compares products with rounded activations, of the rows and of the same rows side by side, with the sum in f64. `slack` are the magnitudes that
/// belong to each weight.
fn check_rounded(name: &str, weights: &[Matrix<'_>], dense: &[f64], slack: &[f64], cols: usize, random: &mut Random) {
    let rows = dense.len() / cols;
    let packed: Vec<Vec<u8>> = weights
        .iter()
        .map(|w| {
            let mut all: Vec<Vec<u8>> = Vec::new();
            for isa in Isa::available() {
                let mut bytes = vec![0xa5; Interleaved::bytes(w.ty, w.rows, w.cols).unwrap()];
                Interleaved::pack_with(isa, w, &mut bytes).unwrap();
                all.push(bytes);
            }
            assert!(all.iter().all(|bytes| *bytes == all[0]), "{name}");
            all.swap_remove(0)
        })
        .collect();
    let pairs = weights.iter().zip(&packed);
    let side_by_side: Vec<_> = pairs.map(|(w, bytes)| Interleaved::new(w.ty, w.rows, w.cols, bytes).unwrap()).collect();
    for (w, interleaved) in weights.iter().zip(&side_by_side) {
        let (mut want, mut got) = (vec![0.0; cols], vec![f32::NAN; cols]);
        for row in 0..w.rows {
            w.row(row, &mut want).unwrap();
            interleaved.row(row, &mut got).unwrap();
            let same = want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits() || a == b);
            assert!(same, "{name}, row {row}: {got:?} {want:?}");
        }
    }
    for tokens in [1, 2, 3, 4, 5, 16, 17, 33, 50, 97] {
        let mut x = random.values(tokens * cols);
        // Blocks of very different size, and one of zeros.
        x.iter_mut().enumerate().for_each(|(i, v)| *v *= [1.0, 30.0, 0.01, 0.0][i / 32 % 4]);
        let grids = [16256.0, 127.0].map(|largest| on_grid(&x, largest));
        for isa in Isa::available() {
            // With VNNI or dotprod up to 3 tokens have codes of 16 bits, else up to 8; side by side up to 3.
            let few = match isa.name() {
                "avxvnni" | "neondot" => 3,
                "avx512" if vnni() => 3,
                _ => 8,
            };
            for (few, interleaved) in [(few, false), (3, true)] {
                let grid = &grids[usize::from(tokens > few)];
                let mut y = vec![f32::NAN; tokens * rows];
                match interleaved {
                    true => matmul_interleaved_with(isa, &x, tokens, &side_by_side, &mut y).unwrap(),
                    false => matmul_rounded_with(isa, &x, tokens, weights, &mut y).unwrap(),
                }
                for t in 0..tokens {
                    for r in 0..rows {
                        let at = |c: usize| (r * cols + c, grid[t * cols + c]);
                        let (want, size) = (0..cols).map(at).fold((0.0, 0.0), |(sum, size), (i, x)| {
                            let x: f64 = if x.is_nan() { 0.0 } else { x };
                            (sum + dense[i] * x, size + slack[i] * x.abs())
                        });
                        let got = f64::from(y[t * rows + r]);
                        assert!(
                            (got - want).abs() <= 1e-6 * size,
                            "{name} {} {interleaved} {cols} columns, token {t} of {tokens}, row {r}: {got} {want} {size}",
                            isa.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn rounded_products() {
    let mut random = Random(8);
    for &(ty, _) in TYPES.iter().filter(|(t, _)| is_integer(*t)) {
        let small = ty.layout().unwrap().block_len == 32;
        for (rows, cols) in if small { [(1, 32), (21, 96), (37, 896)] } else { [(1, 256), (21, 768), (37, 1280)] } {
            let bytes = packed(&mut random, ty, rows + 5, cols);
            let mut dense = vec![0.0; (rows + 5) * cols];
            blocks::dequantize(ty, &bytes, &mut dense).unwrap();
            // Where there are mins, they may be some times larger than what remains.
            let least = match ty {
                GgmlType::Q4_1 | GgmlType::Q5_1 => 1.0,
                GgmlType::Q2_K | GgmlType::Q4_K | GgmlType::Q5_K => 2.0,
                _ => 0.0,
            };
            let dense: Vec<f64> = dense.into_iter().map(f64::from).collect();
            let slack: Vec<f64> = dense.iter().map(|w| w.abs().max(least)).collect();
            let (first, second) = bytes.split_at(bytes.len() / (rows + 5) * rows);
            let weights = [Matrix::new(ty, rows, cols, first).unwrap(), Matrix::new(ty, 5, cols, second).unwrap()];
            check_rounded(&ty.to_string(), &weights, &dense, &slack, cols, &mut random);
        }
    }
    for bits in [2, 3, 4, 8] {
        for (cols, group_size) in [(896, 128), (192, 64), (160, 32), (96, 32)] {
            let matrix = affine(&mut random, 37, cols, bits, group_size, false);
            let weights = AffineWeights::pack(&matrix).unwrap();
            assert!(is_integer(weights.matrix().ty) && weights.gather().is_none());
            let mut dense = vec![0.0; 37 * cols];
            matrix.dequantize_into(&mut dense).unwrap();
            let dense: Vec<f64> = dense.into_iter().map(f64::from).collect();
            let most = 0.2 * f64::from(1 << bits);
            let slack: Vec<f64> = dense.iter().map(|w| w.abs().max(most)).collect();
            check_rounded(&format!("{bits} bits"), &[weights.matrix()], &dense, &slack, cols, &mut random);
        }
    }
}

/// With few tokens weights that are floats meet activations of 11 bits, whatever their size; with many those as they are.
#[test]
fn floats_with_rounded_activations() {
    let mut random = Random(10);
    for (ty, cols) in [(GgmlType::F16, 100), (GgmlType::F16, 1408), (GgmlType::BF16, 72), (GgmlType::F32, 33)] {
        let bytes = packed(&mut random, ty, 19, cols);
        let weights = Matrix::new(ty, 19, cols, &bytes).unwrap();
        let mut dense = vec![0.0; 19 * cols];
        blocks::dequantize(ty, &bytes, &mut dense).unwrap();
        for (tokens, size) in [(1, 1.0), (2, 1e7), (3, 1e-9), (4, 3e4), (8, 1.0), (9, 1e7)] {
            let x: Vec<f32> = random.values(tokens * cols).into_iter().map(|v| v * size).collect();
            let mut exact = vec![0.0; tokens * 19];
            for isa in Isa::available() {
                let mut y = vec![f32::NAN; tokens * 19];
                matmul_rounded_with(isa, &x, tokens, &[weights], &mut y).unwrap();
                matmul_with(isa, &x, tokens, &[weights], &mut exact).unwrap();
                let rounded = tokens <= 8 && isa != Isa::Portable;
                assert!(rounded || y == exact);
                for (t, x) in x.chunks_exact(cols).enumerate() {
                    let largest = f64::from(x.iter().fold(0.0f32, |most, x| most.max(x.abs())));
                    let factor = (14.0 - largest.log2().floor()).exp2();
                    let seen = |x: f32| match rounded {
                        true => half::f16::from_f64(f64::from(x) * factor).to_f64() / factor,
                        false => f64::from(x),
                    };
                    for (row, y) in dense.chunks_exact(cols).zip(&y[19 * t..]) {
                        let products = || row.iter().zip(x).map(|(w, x)| f64::from(*w) * seen(*x));
                        let (sum, bound) = (products().sum::<f64>(), 1e-6 * products().map(f64::abs).sum::<f64>());
                        assert!((f64::from(*y) - sum).abs() <= bound, "{ty} {cols} {tokens} {isa:?}: {y} {sum}");
                    }
                }
            }
        }
    }
}

/// What is not finite stays visible in its token and does not reach others; matrices of both kinds in one product.
#[test]
fn rounded_products_at_the_ends() {
    let mut random = Random(9);
    let bytes = packed(&mut random, GgmlType::Q4_K, 3, 256);
    let floats = packed(&mut random, GgmlType::F32, 2, 256);
    let weights =
        [Matrix::new(GgmlType::Q4_K, 3, 256, &bytes).unwrap(), Matrix::new(GgmlType::F32, 2, 256, &floats).unwrap()];
    for tokens in [2, 20] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random.values(tokens * 256);
            x[256 + 77] = bad;
            for isa in Isa::available() {
                let (mut y, mut exact) = (vec![0.0; tokens * 5], vec![0.0; tokens * 5]);
                matmul_rounded_with(isa, &x, tokens, &weights, &mut y).unwrap();
                matmul_with(isa, &x, tokens, &weights, &mut exact).unwrap();
                for t in 0..tokens {
                    let (y, exact) = (&y[5 * t..][..5], &exact[5 * t..][..5]);
                    if t == 1 {
                        assert!(y.iter().all(|v| !v.is_finite()), "{y:?}");
                    } else {
                        assert!(y.iter().zip(exact).all(|(a, b)| (a - b).abs() < 2.0), "{y:?} {exact:?}");
                        // Floats meet rounded activations only with few tokens.
                        assert!(y[3..] == exact[3..] || tokens <= 8 && isa != Isa::Portable);
                    }
                }
            }
        }
    }
    // The same side by side; the rest of a panel is nobody's.
    let mut packed = vec![0; Interleaved::bytes(GgmlType::Q4_K, 3, 256).unwrap()];
    Interleaved::pack_with(Isa::Portable, &weights[0], &mut packed).unwrap();
    let interleaved = Interleaved::new(GgmlType::Q4_K, 3, 256, &packed).unwrap();
    for tokens in [2, 5, 20] {
        let mut x = random.values(tokens * 256);
        x[256 + 77] = f32::NEG_INFINITY;
        for isa in Isa::available() {
            let mut y = vec![0.0; tokens * 3];
            matmul_interleaved_with(isa, &x, tokens, &[interleaved], &mut y).unwrap();
            assert!(
                y[3..6].iter().all(|v| !v.is_finite()) && y[..3].iter().chain(&y[6..]).all(|v| v.is_finite()),
                "{y:?}"
            );
        }
    }
    assert!(
        Interleaved::bytes(GgmlType::F16, 16, 256).is_none() && Interleaved::bytes(GgmlType::Q4_K, 16, 32).is_none()
    );
    assert!(Interleaved::bytes(GgmlType::Q4_K, usize::MAX, 256).is_none());
    assert!(Interleaved::new(GgmlType::Q4_K, 4, 256, &packed[1..]).is_err());
    assert!(Interleaved::new(GgmlType::Q4_K, 17, 256, &packed).is_err());
    assert!(interleaved.row(3, &mut [0.0; 256]).is_err() && interleaved.row(0, &mut [0.0; 255]).is_err());
    assert!(matmul_interleaved_with(Isa::Portable, &[0.0; 256], 1, &[interleaved], &mut [0.0; 4]).is_err());
    assert!(matmul_interleaved_with(Isa::Portable, &[0.0; 255], 1, &[interleaved], &mut [0.0; 3]).is_err());
    for x in [vec![0.0; 512], vec![f32::MIN_POSITIVE; 512], vec![1e-36; 512]] {
        let mut y = [f32::NAN; 10];
        matmul_rounded(&x, 2, &weights, &mut y).unwrap();
        assert!(y.iter().all(|v| v.abs() < 1e-30), "{y:?}");
    }
}
