//! The solver compiled for wider vectors, chosen at run time.
//!
//! Results may differ in the last bit between machines that fuse multiply and add and those that do not.

#![allow(unsafe_code)]

use crate::Passes;
use crate::codec::GroupCodec;
use crate::factor::Factor;
use crate::solver::{self, Tile};

/// Solves a tile with the widest vectors of this machine.
pub(crate) fn solve_tile<C: GroupCodec>(codec: &C, factor: &Factor, passes: Passes, tile: &mut Tile<C::Params>) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma")
        {
            // SAFETY: the features were just detected.
            return unsafe { solve_avx512(codec, factor, passes, tile) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the features were just detected.
            return unsafe { solve_avx2(codec, factor, passes, tile) };
        }
    }
    // On aarch64 fused multiply-add is always there; elsewhere without it `mul_add` would be a function call.
    solver::solve_tile::<C, { cfg!(target_arch = "aarch64") }>(codec, factor, passes, tile);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
fn solve_avx512<C: GroupCodec>(codec: &C, factor: &Factor, passes: Passes, tile: &mut Tile<C::Params>) {
    solver::solve_tile::<C, true>(codec, factor, passes, tile);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn solve_avx2<C: GroupCodec>(codec: &C, factor: &Factor, passes: Passes, tile: &mut Tile<C::Params>) {
    solver::solve_tile::<C, true>(codec, factor, passes, tile);
}
