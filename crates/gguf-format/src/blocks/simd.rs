//! Twice the same code: for any x86-64, and for processors with AVX2, chosen at run time (feature `std`; without it there is no way to ask
//! the processor).
//!
//! The codecs are plain loops over arrays of lanes; with AVX2 the compiler makes eight lanes of them instead of four, and blends
//! instead of masks. The operations and their order are the same, fused multiply-add is not enabled, so are the results.

/// The version of `|values, row_len, importance, bytes| body`, a [`Rows`](super::quantize::Rows), for the processor at hand; or of
/// `|bytes => values| body`, a [`Dequantizer`](super::Dequantizer).
///
/// Everything that `body` calls must be `#[inline(always)]`: code that is not inlined is compiled once, for any x86-64.
macro_rules! versions {
    (|$values:ident, $row_len:ident, $importance:ident, $bytes:ident| $body:expr) => {
        $crate::blocks::simd::versions!(
            @of $crate::blocks::quantize::Rows,
            ($values: &[f32], $row_len: usize, $importance: Option<&[f32]>, $bytes: &mut [u8]) $body
        )
    };
    (|$bytes:ident => $values:ident| $body:expr) => {
        $crate::blocks::simd::versions!(@of $crate::blocks::Dequantizer, ($bytes: &[u8], $values: &mut [f32]) $body)
    };
    (@of $Version:ty, ($($arg:ident: $Arg:ty),*) $body:expr) => {{
        fn baseline($($arg: $Arg),*) {
            $body
        }
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        fn with_avx2($($arg: $Arg),*) {
            #[target_feature(enable = "avx2")]
            fn compiled($($arg: $Arg),*) {
                $body
            }
            // SAFETY: `compiled` is an ordinary function but for its instructions, and the branch below is the only place that
            // names `with_avx2`: the processor has them.
            #[allow(unsafe_code)]
            unsafe {
                compiled($($arg),*);
            }
        }
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        let version: $Version = if std::arch::is_x86_feature_detected!("avx2") { with_avx2 } else { baseline };
        #[cfg(not(all(target_arch = "x86_64", feature = "std")))]
        let version: $Version = baseline;
        version
    }};
}
pub(super) use versions;

/// Keeps the loop around it from being vectorized across its iterations.
///
/// Where an iteration is a block or a point of eight values, the compiler tends to take eight iterations together, byte by byte out of eight
/// places; one iteration is eight lanes by itself.
#[inline(always)]
pub(super) fn one_at_a_time() {
    core::hint::black_box(());
}

/// Keeps what is computed so far from being computed again where it is used: it goes to memory.
#[inline(always)]
pub(super) fn in_memory<T>(value: &T) -> &T {
    core::hint::black_box(value)
}
