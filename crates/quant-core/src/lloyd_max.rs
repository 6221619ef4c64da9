//! Codebooks of least mean squared error for a normal variable (Lloyd 1982, Max 1960), in integers.
//!
//! A rotated row is close to normal, so its values cluster where these levels are dense. The levels are whole numbers, so that an inner product with
//! codes is one of integers: multiplied by `sigma / UNIT` they are within 0.01 sigma of the exact ones, which costs less than 1 % of the error.

/// The levels above zero of 2, 3 and 4 bits, ascending; those below are their negatives. The largest is 127.
///
/// Exact levels for variance 1 (J. Max, "Quantizing for minimum distortion", table I): 0.4528 1.5104; 0.2451 0.7560 1.3439 2.1520;
/// 0.1284 0.3881 0.6568 0.9424 1.2562 1.6181 2.0690 2.7326.
///
/// `None` for other widths.
pub const fn lloyd_max_levels(bits: u8) -> Option<&'static [i8]> {
    Some(match bits {
        2 => &[38, 127],
        3 => &[14, 45, 79, 127],
        4 => &[6, 18, 31, 44, 58, 75, 96, 127],
        _ => return None,
    })
}

/// What a standard deviation is in units of the levels.
pub const fn lloyd_max_sigma(bits: u8) -> Option<f32> {
    Some(match bits {
        2 => 127.0 / 1.5104,
        3 => 127.0 / 2.1520,
        4 => 127.0 / 2.7326,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean squared error of the levels for a standard normal variable, by integration.
    fn distortion(bits: u8) -> f64 {
        let sigma = f64::from(lloyd_max_sigma(bits).unwrap());
        let levels: Vec<f64> = lloyd_max_levels(bits).unwrap().iter().map(|&l| f64::from(l) / sigma).collect();
        let step = 1e-4;
        (0..80_000)
            .map(|i| {
                let x = (f64::from(i) + 0.5) * step;
                let error = levels.iter().map(|l| (l - x) * (l - x)).fold(f64::INFINITY, f64::min);
                2.0 * step * error * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
            })
            .sum()
    }

    #[test]
    fn distortion_is_that_of_the_exact_levels() {
        // Max's table I.
        for (bits, expected) in [(2, 0.1175), (3, 0.03454), (4, 0.009497)] {
            let found = distortion(bits);
            assert!(found > expected * 0.999 && found < expected * 1.005, "{bits} bits: {found}, table {expected}");
        }
        assert_eq!((lloyd_max_levels(5), lloyd_max_sigma(1)), (None, None));
    }
}
