//! What makes an input hard to round: a few channels, or a few values of a row, that are far larger than all others.

use crate::SampleRows;

/// A channel is an outlier whose largest value is this many times the median channel's.
pub const OUTLIER: f32 = 10.0;

/// The shape of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// `max |x|` by channel.
    pub abs_max: Vec<f32>,
    /// Channels whose maximum is more than [`OUTLIER`] times the median of the maxima.
    pub outlier_channels: usize,
    /// `mean x⁴ / (mean x²)²` of a row, the median over the rows: 3 for normal values, the number of channels for a single one that is not zero.
    pub kurtosis: f64,
    /// `max |x| / √(mean x²)` of a row, the median over the rows: what part of the grid of a token is left to its usual values.
    pub peak: f64,
}

impl Profile {
    /// Of some rows.
    pub fn new(rows: &SampleRows) -> Self {
        let columns = rows.columns();
        let mut abs_max = vec![0.0f32; columns];
        let (mut kurtosis, mut peaks) = (Vec::new(), Vec::new());
        for row in rows.values().chunks_exact(columns) {
            abs_max.iter_mut().zip(row).for_each(|(max, x)| *max = max.max(x.abs()));
            let (mut second, mut fourth, mut largest) = (0.0f64, 0.0f64, 0.0f64);
            for &x in row {
                let square = f64::from(x) * f64::from(x);
                (second, fourth, largest) = (second + square, fourth + square * square, largest.max(square));
            }
            let n = columns as f64;
            if second > 0.0 {
                kurtosis.push(n * fourth / (second * second));
                peaks.push((largest * n / second).sqrt());
            }
        }
        let limit = OUTLIER * median(abs_max.clone(), f32::total_cmp).unwrap_or(0.0);
        let outlier_channels = abs_max.iter().filter(|&&max| max > limit).count();
        let of = |values| median(values, f64::total_cmp).unwrap_or(0.0);
        Self { outlier_channels, kurtosis: of(kurtosis), peak: of(peaks), abs_max }
    }
}

/// The upper one of two.
fn median<T: Copy>(mut values: Vec<T>, order: impl Fn(&T, &T) -> std::cmp::Ordering) -> Option<T> {
    values.sort_by(order);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_by_hand() {
        let rows =
            SampleRows::new(vec![1.0, -1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 40.0, 0.0, 0.0, 0.0, 0.0], 4, None).unwrap();
        let profile = Profile::new(&rows);
        assert_eq!(profile.abs_max, [1.0, 1.0, 1.0, 40.0]);
        // Of 1 and 4, and of 1 and 2: the rows of zeros do not count.
        assert_eq!((profile.outlier_channels, profile.kurtosis, profile.peak), (1, 4.0, 2.0));
        let zeros = Profile::new(&SampleRows::new(vec![0.0; 4], 2, None).unwrap());
        assert_eq!((zeros.outlier_channels, zeros.kurtosis, zeros.peak), (0, 0.0, 0.0));
    }
}
