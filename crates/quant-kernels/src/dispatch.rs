//! The one place where an instruction set is chosen.

#[cfg(target_arch = "x86_64")]
use crate::lanes::{Avx2Lanes, AvxVnniLanes, EvexVnniLanes, VnniLanes};
use crate::lanes::{Lanes, Plain};
#[cfg(target_arch = "aarch64")]
use crate::lanes::{NeonDotLanes, NeonLanes};
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};
use std::sync::OnceLock;

/// An instruction set that the kernels are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, DQ, VL. Integer products take VNNI, too; where a machine has AVX-512 without it they run as those of AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// As AVX2, and integer products by `vpdpbusd` on its registers: with AVX-VNNI, or AVX-512 with VNNI, which has the same operation.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2, FMA, F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// As NEON, and integer products by `sdot`: the extension dotprod of ARMv8.2, which processors have had since about 2018.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    /// NEON, which is part of ARMv8.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Plain Rust.
    Portable,
}

impl Isa {
    /// The best that this machine has, detected once.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// All that this machine has, the best first.
    pub fn available() -> Vec<Self> {
        let mut list = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && avx512 {
                list.push(Self::Avx512);
            }
            if avx2 && (is_x86_feature_detected!("avxvnni") || avx512 && is_x86_feature_detected!("avx512vnni")) {
                list.push(Self::AvxVnni);
            }
            if avx2 {
                list.push(Self::Avx2);
            }
        }
        // The kernels read numbers as they lie in files: little endian.
        #[cfg(target_arch = "aarch64")]
        if cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("neon") {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                list.push(Self::NeonDot);
            }
            list.push(Self::Neon);
        }
        list.push(Self::Portable);
        list
    }

    /// `avx512`, `avxvnni`, `avx2`, `neondot`, `neon`, `portable`.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => "neondot",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// Runs `op` with this instruction set; one that the machine lacks is replaced by plain Rust.
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::AvxVnni | Self::Avx2 if !has(self) => op.run::<Portable>(),
            // SAFETY: `has` found the instruction set on this machine.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { run_avx512(op) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni | Self::Avx2 => unsafe { run_avx2(op) },
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot | Self::Neon if !has(self) => op.run::<Portable>(),
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot | Self::Neon => unsafe { run_neon(op) },
            Self::Portable => op.run::<Portable>(),
        }
    }
}

impl Isa {
    /// True if integer kernels multiply four bytes by one instruction: with VNNI or dotprod.
    pub(crate) fn has_dot(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Avx512 => return is_x86_feature_detected!("avx512vnni"),
            Self::AvxVnni => return true,
            _ => {}
        }
        #[cfg(target_arch = "aarch64")]
        if self == Self::NeonDot {
            return true;
        }
        false
    }

    /// As [`Isa::run`], for a kernel that is compiled for every type of weights. AVX-VNNI counts as AVX2: reading weights takes as long with both, and
    /// there are many types. dotprod does not count as NEON: it multiplies four times as fast, where processors tend to have less to multiply with.
    pub(crate) fn run_integer<O: IntegerOp>(self, op: O) -> O::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::AvxVnni | Self::Avx2 if !has(self) => op.run::<Plain>(),
            // SAFETY: `has` found AVX-512 on this machine, and the guard VNNI.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if self.has_dot() => unsafe { integer_vnni(op) },
            // SAFETY: `has` found AVX2 on this machine, which the others come with.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::AvxVnni | Self::Avx2 => unsafe { integer_avx2(op) },
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot | Self::Neon if !has(self) => op.run::<Plain>(),
            // SAFETY: `has` found NEON with dotprod on this machine.
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => unsafe { integer_neon_dot(op) },
            // SAFETY: `has` found NEON on this machine.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { integer_neon(op) },
            Self::Portable => op.run::<Plain>(),
        }
    }

    /// As [`Isa::run_integer`], for a kernel whose time is multiplying.
    pub(crate) fn run_product<O: IntegerOp>(self, op: O) -> O::Output {
        match self {
            // SAFETY: `has` found AVX2 and AVX-VNNI on this machine.
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni if has(self) && is_x86_feature_detected!("avxvnni") => unsafe { integer_avx_vnni(op) },
            // SAFETY: `has` found AVX2 and, as it was not AVX-VNNI, AVX-512 with VNNI.
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni if has(self) => unsafe { integer_evex_vnni(op) },
            other => other.run_integer(op),
        }
    }

    /// As [`Isa::run_integer`], for a kernel that moves codes to another layout: AVX2, NEON or plain Rust. Its [`Lanes::OFF`] is that of [`Isa::run_product`].
    pub(crate) fn run_move<O: IntegerOp>(self, op: O) -> O::Output {
        match self {
            // SAFETY: `has` found an instruction set on this machine that AVX2 comes with.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::AvxVnni | Self::Avx2 if has(self) => unsafe { integer_avx2(op) },
            // SAFETY: `has` found NEON on this machine.
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot | Self::Neon if has(self) => unsafe { integer_neon(op) },
            _ => op.run::<Plain>(),
        }
    }
}

/// True if `isa` is on this machine.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn has(isa: Isa) -> bool {
    static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
    AVAILABLE.get_or_init(Isa::available).contains(&isa)
}

/// A kernel with its arguments. `run` is to be forced inline, so that it is compiled with the instruction set of its caller.
///
/// Making one asserts what its unsafe operations need of pointers; [`Isa::run`] takes care of the instruction set.
pub(crate) trait Op {
    /// What it gives.
    type Output;
    /// Computes with the operations of `S`.
    fn run<S: Simd>(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run_avx512<O: Op>(op: O) -> O::Output {
    op.run::<Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<O: Op>(op: O) -> O::Output {
    op.run::<Avx2>()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn run_neon<O: Op>(op: O) -> O::Output {
    op.run::<Neon>()
}

/// As [`Op`], for the kernels on integers.
pub(crate) trait IntegerOp {
    /// What it gives.
    type Output;
    /// Computes with the operations of `S`.
    fn run<S: Lanes>(self) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn integer_vnni<O: IntegerOp>(op: O) -> O::Output {
    op.run::<VnniLanes>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
fn integer_avx_vnni<O: IntegerOp>(op: O) -> O::Output {
    op.run::<AvxVnniLanes>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512vnni,avx2,fma,f16c")]
fn integer_evex_vnni<O: IntegerOp>(op: O) -> O::Output {
    op.run::<EvexVnniLanes>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn integer_avx2<O: IntegerOp>(op: O) -> O::Output {
    op.run::<Avx2Lanes>()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
fn integer_neon_dot<O: IntegerOp>(op: O) -> O::Output {
    op.run::<NeonDotLanes>()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn integer_neon<O: IntegerOp>(op: O) -> O::Output {
    op.run::<NeonLanes>()
}
