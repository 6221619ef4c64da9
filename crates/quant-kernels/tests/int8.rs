//! The product of int8 activations with int8 weights against its definition, to the bit, on every instruction set of this machine.

use quant_kernels::{Int8Activations, Int8Weights, Isa, matmul_int8, matmul_int8_with};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }
    fn codes(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.next() as i8).collect()
    }
    /// About -1..1.
    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

fn reference(x: &Int8Activations, codes: &[i8], scales: &[f32]) -> Vec<f32> {
    let mut y = Vec::new();
    for t in 0..x.tokens() {
        for (row, &scale) in codes.chunks_exact(x.cols()).zip(scales) {
            let term = |(&w, &c): (&i8, &i8)| i64::from(w) * (i64::from(c) - i64::from(x.zeros()[t]));
            let n: i64 = row.iter().zip(x.codes(t)).map(term).sum();
            y.push(i32::try_from(n).unwrap() as f32 * (x.scales()[t] * scale));
        }
    }
    y
}

fn check(x: &Int8Activations, codes: &[i8], scales: &[f32], what: &str) {
    let want = reference(x, codes, scales);
    let (rows, cols) = (scales.len(), x.cols());
    // Whole, and as two matrices, one below the other.
    let cut = rows / 3;
    let whole = Int8Weights::pack(rows, cols, codes, scales).unwrap();
    let first = Int8Weights::pack(cut, cols, &codes[..cut * cols], &scales[..cut]).unwrap();
    let second = Int8Weights::pack(rows - cut, cols, &codes[cut * cols..], &scales[cut..]).unwrap();
    for isa in Isa::available() {
        for weights in [&[&whole][..], &[&first, &second]] {
            let mut y = vec![f32::NAN; x.tokens() * rows];
            matmul_int8_with(isa, x, weights, &mut y).unwrap();
            let wrong = y.iter().zip(&want).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(wrong, None, "{what}, {} tokens, [{rows}, {cols}], {}", x.tokens(), isa.name());
        }
    }
}

#[test]
fn products_are_exact() {
    let mut random = Random(7);
    for (rows, cols) in [(1, 1), (3, 4), (5, 63), (17, 64), (40, 65), (67, 130), (131, 896)] {
        let (codes, scales) = (random.codes(rows * cols), random.values(rows));
        for tokens in [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 50, 70] {
            let (x, x_scales) = (random.codes(tokens * cols), random.values(tokens));
            let zeros: Vec<i32> = random.codes(tokens).iter().map(|&z| i32::from(z)).collect();
            let symmetric = Int8Activations::from_codes(&x, cols, &x_scales, &[]).unwrap();
            check(&symmetric, &codes, &scales, "symmetric");
            let asymmetric = Int8Activations::from_codes(&x, cols, &x_scales, &zeros).unwrap();
            check(&asymmetric, &codes, &scales, "zero points");
        }
    }
}

/// The largest sums: nothing saturates, not even where two products meet in 16 bits.
#[test]
fn extremes_do_not_saturate() {
    let cols = 65_536;
    for w in [-128, 127] {
        for (x, zero) in [(-128, 0), (127, 0), (127, -128), (-128, 127)] {
            for tokens in [1, 9] {
                let codes = vec![x; tokens * cols];
                let x = Int8Activations::from_codes(&codes, cols, &[1.0], &[zero]).unwrap();
                check(&x, &vec![w; 3 * cols], &[1.0, 0.5, 2.0], &format!("{w} {zero}"));
            }
        }
    }
}

#[test]
fn rounding() {
    let x =
        Int8Activations::per_token(&[0.5, 1.5, -2.5, 127.0, 0.0, 0.0, -0.0, 0.0, 3.0, f32::NAN, 1.0, 2.0], 4).unwrap();
    // Ties to even.
    assert_eq!((x.codes(0), x.scales()[0]), (&[0, 2, -2, 127][..], 1.0));
    assert_eq!((x.codes(1), x.scales()[1]), (&[0, 0, 0, 0][..], 0.0));
    assert!(x.scales()[2].is_nan());
    let w = Int8Weights::pack(1, 4, &[1, 1, 1, 1], &[1.0]).unwrap();
    let mut y = [7.0; 3];
    matmul_int8(&x, &[&w], &mut y).unwrap();
    assert_eq!(y[..2], [127.0, 0.0]);
    assert!(y[2].is_nan());
    let x = Int8Activations::per_token(&[1.0, f32::INFINITY], 2).unwrap();
    assert!(x.scales()[0].is_nan());

    // Given scales saturate.
    let x = Int8Activations::with_scales(&[-1e9, 1e9, 1.0, 0.25], 4, &[0.5], &[3]).unwrap();
    assert_eq!(x.codes(0), [-128, 127, 5, 3]);
    let x = Int8Activations::with_scales(&[1.0, 2.0], 2, &[0.0], &[-5]).unwrap();
    assert_eq!(x.codes(0), [-5, -5]);

    let mut row = [0.0; 4];
    Int8Weights::pack(2, 4, &[0, 0, 0, 0, -128, 127, 1, 0], &[1.0, 0.5]).unwrap().row(1, &mut row).unwrap();
    assert_eq!(row, [-64.0, 63.5, 0.5, 0.0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(Int8Weights::pack(1, 0, &[], &[1.0]).is_err());
    assert!(Int8Weights::pack(1, 65_537, &vec![0; 65_537], &[1.0]).is_err());
    assert!(Int8Weights::pack(2, 2, &[0; 3], &[1.0; 2]).is_err());
    assert!(Int8Weights::pack(2, 2, &[0; 4], &[1.0; 3]).is_err());
    assert!(Int8Weights::pack(usize::MAX, 2, &[0; 4], &[1.0; 3]).is_err());
    assert!(Int8Activations::per_token(&[0.0; 3], 2).is_err());
    assert!(Int8Activations::per_token(&[], 0).is_err());
    assert!(Int8Activations::with_scales(&[0.0; 6], 2, &[1.0; 2], &[]).is_err());
    assert!(Int8Activations::with_scales(&[0.0; 6], 2, &[1.0], &[128]).is_err());
    assert!(Int8Activations::from_codes(&[0; 6], 2, &[1.0; 3], &[0; 2]).is_err());
    let w = Int8Weights::pack(2, 2, &[0; 4], &[1.0; 2]).unwrap();
    assert!(w.row(2, &mut [0.0; 2]).is_err() && w.row(0, &mut [0.0; 3]).is_err());
    let x = Int8Activations::per_token(&[0.0; 4], 2).unwrap();
    assert!(matmul_int8(&x, &[&w], &mut [0.0; 3]).is_err());
    let other = Int8Activations::per_token(&[0.0; 4], 4).unwrap();
    assert!(matmul_int8(&other, &[&w], &mut [0.0; 2]).is_err());
    assert!(matmul_int8(&other, &[], &mut []).is_ok());
}
