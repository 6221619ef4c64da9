//! The loops over weights compiled for wider vectors, chosen at run time. All operations are the same, one by one, and none is fused: the
//! result does not depend on the choice.

#![allow(unsafe_code)]

use crate::grid::Grid;
use crate::rounding::{self, Cut};

macro_rules! dispatched {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    rounding::$name($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    rounding::$name($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the features were just detected.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was just detected.
                    return unsafe { avx2($($arg),*) };
                }
            }
            rounding::$name($($arg),*)
        }
    };
}

dispatched!(
    /// [`rounding::errors`].
    errors(grid: &Grid, group_size: usize, weights: &[f32], scales: &[f32], cuts: Option<&[Cut]>, out: &mut [f32])
);
dispatched!(
    /// [`rounding::group_errors`].
    group_errors(grid: &Grid, weights: &[f32], scales: &[f32], cut: Cut, out: &mut [f32])
);
