//! Twice the same code: for any x86-64, and for processors with AVX2, chosen at run time (feature `std`; without it there is no way to ask
//! the processor).
//!
//! The codecs are plain loops over arrays of lanes; with AVX2 the compiler makes eight lanes of them instead of four, and blends
//! instead of masks. The operations and their order are the same, fused multiply-add is not enabled, so are the results.

/// The version of `|values, row_len, importance, bytes| body` for the processor at hand.
///
/// Everything that `body` calls must be `#[inline(always)]`: code that is not inlined is compiled once, for any x86-64.
macro_rules! versions {
    (|$values:ident, $row_len:ident, $importance:ident, $bytes:ident| $body:expr) => {{
        fn baseline($values: &[f32], $row_len: usize, $importance: Option<&[f32]>, $bytes: &mut [u8]) {
            $body
        }
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        fn with_avx2($values: &[f32], $row_len: usize, $importance: Option<&[f32]>, $bytes: &mut [u8]) {
            #[target_feature(enable = "avx2")]
            fn compiled($values: &[f32], $row_len: usize, $importance: Option<&[f32]>, $bytes: &mut [u8]) {
                $body
            }
            // SAFETY: `compiled` is an ordinary function but for its instructions, and the branch below is the only place that
            // names `with_avx2`: the processor has them.
            #[allow(unsafe_code)]
            unsafe {
                compiled($values, $row_len, $importance, $bytes);
            }
        }
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        let version: $crate::blocks::quantize::Rows =
            if std::arch::is_x86_feature_detected!("avx2") { with_avx2 } else { baseline };
        #[cfg(not(all(target_arch = "x86_64", feature = "std")))]
        let version: $crate::blocks::quantize::Rows = baseline;
        version
    }};
}
pub(super) use versions;
