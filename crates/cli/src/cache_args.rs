//! What keys and values are stored as: the same flags for every command that runs a model.

use crate::error::CliResult;
use quant_runtime::CacheChoice;

/// Flags for the key/value cache.
#[derive(clap::Args, Debug)]
pub(crate) struct CacheArgs {
    /// Store keys and values by a preset: f16, fp8, fp8-e5m2, int8, k8v4, r4, r3, r2 [default: f32].
    #[arg(long, value_name = "PRESET", conflicts_with_all = ["cache_type_k", "cache_type_v"])]
    kv: Option<String>,
    /// Type of keys, without centring: f16, fp8, int8, r4, r3, r2, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl, kivi4, kivi2; +rot behind it rotates
    /// them, as llama.cpp does for its types.
    #[arg(long, value_name = "T")]
    cache_type_k: Option<String>,
    /// Type of values [default with --cache-type-k: f16].
    #[arg(long, value_name = "T")]
    cache_type_v: Option<String>,
}

impl CacheArgs {
    pub(crate) fn choice(&self) -> CliResult<CacheChoice> {
        let (kv, key, value) = (self.kv.as_deref(), self.cache_type_k.as_deref(), self.cache_type_v.as_deref());
        Ok(CacheChoice::parse(kv, key, value)?)
    }
}
