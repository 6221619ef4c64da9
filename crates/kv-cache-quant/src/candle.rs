//! Tensors in and out, for programs built on candle (feature `candle`).
//!
//! Codes lie in the CPU's memory. There attention reads them; for tensors on another device they are dequantized and sent there: as exact, but neither the
//! memory nor the speed of that device gains.

use crate::{Attend, Error, LayerCache};
use candle_core::{D, DType, Device, Tensor};

/// What can go wrong with tensors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// candle's own.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The rows do not belong in this cache.
    #[error(transparent)]
    Cache(#[from] Error),
}

/// Appends keys and values, `[tokens, kv_heads, head_dim]` each, of any float type on any device.
///
/// # Errors
/// [`TensorError`]; the cache then holds what it held.
pub fn append(cache: &mut LayerCache, keys: &Tensor, values: &Tensor) -> Result<(), TensorError> {
    let (tokens, kv_heads, head_dim) = keys.dims3()?;
    let spec = cache.spec();
    for dims in [keys.dims(), values.dims()] {
        if dims != [tokens, spec.kv_heads, spec.head_dim] {
            let expected = format!("[{tokens}, {}, {}]", spec.kv_heads, spec.head_dim);
            return Err(
                Error::Shape { what: "elements of keys or values", expected, found: dims.iter().product() }.into()
            );
        }
    }
    Ok(cache.append(&to_f32(keys)?, &to_f32(values)?, kv_heads * head_dim, tokens)?)
}

/// All keys and values held, `[kv_heads, len, head_dim]` each, f32.
///
/// # Errors
/// [`TensorError::Candle`].
pub fn dequantize(cache: &LayerCache, device: &Device) -> Result<(Tensor, Tensor), TensorError> {
    let shape = (cache.spec().kv_heads, cache.len(), cache.spec().head_dim);
    let mut keys = vec![0.0; shape.0 * shape.1 * shape.2];
    let mut values = keys.clone();
    cache.dequantize_all(&mut keys, &mut values)?;
    Ok((Tensor::from_vec(keys, shape, device)?, Tensor::from_vec(values, shape, device)?))
}

/// Attention of the last tokens held: `q` and the result are `[tokens, heads, head_dim]`; see [`LayerCache::attend`].
///
/// On the CPU straight on the codes, elsewhere [`attend_dequantized`].
///
/// # Errors
/// [`TensorError`].
pub fn attend(cache: &LayerCache, q: &Tensor, options: &Attend<'_>) -> Result<Tensor, TensorError> {
    if !q.device().is_cpu() {
        return attend_dequantized(cache, q, options);
    }
    let (tokens, heads, head_dim) = q.dims3()?;
    let values = to_f32(q)?;
    let mut out = vec![0.0; values.len()];
    cache.attend(&values, heads * head_dim, tokens, heads, options, &mut out)?;
    Ok(Tensor::from_vec(out, q.shape(), &Device::Cpu)?.to_dtype(q.dtype())?)
}

/// The same by candle's operations on the queries' device, over dequantized keys and values.
///
/// # Errors
/// [`TensorError`].
pub fn attend_dequantized(cache: &LayerCache, q: &Tensor, options: &Attend<'_>) -> Result<Tensor, TensorError> {
    let (tokens, heads, head_dim) = q.dims3()?;
    let (kv_heads, len, device) = (cache.spec().kv_heads, cache.len(), q.device());
    let shape = |what, expected: String, found| TensorError::Cache(Error::Shape { what, expected, found });
    if heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(shape("heads", format!("a multiple of {kv_heads}"), heads));
    }
    if tokens > len {
        return Err(shape("tokens", format!("at most the {len} held"), tokens));
    }
    if head_dim != cache.spec().head_dim {
        return Err(shape("head_dim", cache.spec().head_dim.to_string(), head_dim));
    }
    if let Some(sinks) = options.sink_logits.filter(|sinks| sinks.len() != heads) {
        return Err(shape("sink logits", heads.to_string(), sinks.len()));
    }
    if tokens == 0 {
        return Ok(q.clone());
    }
    let (keys, values) = dequantize(cache, device)?;
    let group = heads / kv_heads;
    let rows = (q.to_dtype(DType::F32)? * f64::from(options.scale))?.transpose(0, 1)?.contiguous()?;
    let rows = rows.reshape((kv_heads, group * tokens, head_dim))?;
    let mut logits = rows.matmul(&keys.transpose(1, 2)?.contiguous()?)?.reshape((heads, tokens, len))?;
    if let Some(cap) = options.softcap.map(f64::from) {
        logits = ((logits / cap)?.tanh()? * cap)?;
    }
    let mask: Vec<f32> = (0..tokens)
        .flat_map(|t| {
            let end = len - tokens + t + 1;
            let start = options.window.map_or(0, |w| end.saturating_sub(w));
            let sees = move |p| p < end && (p >= start || p < options.always);
            (0..len).map(move |p| if sees(p) { 0.0 } else { f32::NEG_INFINITY })
        })
        .collect();
    logits = logits.broadcast_add(&Tensor::from_vec(mask, (1, tokens, len), device)?)?;
    let mut most = logits.max_keepdim(D::Minus1)?;
    let sinks = options.sink_logits.map(|sinks| Tensor::from_slice(sinks, (heads, 1, 1), device)).transpose()?;
    if let Some(sinks) = &sinks {
        most = most.broadcast_maximum(sinks)?;
    }
    let weights = logits.broadcast_sub(&most)?.exp()?;
    let mut sum = weights.sum_keepdim(D::Minus1)?;
    if let Some(sinks) = &sinks {
        sum = (sum + sinks.broadcast_sub(&most)?.exp()?)?;
    }
    let weights = weights.broadcast_div(&sum)?.reshape((kv_heads, group * tokens, len))?;
    let out = weights.matmul(&values)?.reshape((heads, tokens, head_dim))?;
    Ok(out.transpose(0, 1)?.contiguous()?.to_dtype(q.dtype())?)
}

fn to_f32(tensor: &Tensor) -> Result<Vec<f32>, candle_core::Error> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Centre, KvSpec, PairLayout, RopeSpec};

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * i % 8191 + seed * i) as f32 * 0.37).sin()).collect()
    }

    /// Both ways to attend give the same, whatever the options.
    #[test]
    fn devices_and_codes_agree() {
        let (kv_heads, heads, d, len, tokens) = (2, 4, 32, 150, 5);
        let tensor =
            |n: usize, h: usize, seed| Tensor::from_vec(values(n * h * d, seed), (n, h, d), &Device::Cpu).unwrap();
        let spec = KvSpec::new(kv_heads, d, "int8".parse().unwrap(), "r4g32".parse().unwrap())
            .with_centre(Centre::BeforeRope { mean: values(kv_heads * d, 3), pairs: 4 })
            .with_rope(RopeSpec::plain(d, 1e4, PairLayout::Halves));
        let mut cache = LayerCache::new(spec).unwrap();
        append(&mut cache, &tensor(len, kv_heads, 1), &tensor(len, kv_heads, 2).to_dtype(DType::F16).unwrap()).unwrap();
        assert_eq!(cache.len(), len);
        let q = tensor(tokens, heads, 7);
        let plain = Attend::causal(0.3);
        let sinks = [0.5, -1.0, 3.0, 0.0];
        for options in [
            plain,
            Attend { window: Some(20), always: 3, ..plain },
            Attend { softcap: Some(2.0), sink_logits: Some(&sinks), ..plain },
        ] {
            let (a, b) = (attend(&cache, &q, &options).unwrap(), attend_dequantized(&cache, &q, &options).unwrap());
            assert_eq!(a.dims(), [tokens, heads, d]);
            let error = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(error < 1e-4, "{options:?}: {error}");
        }
        let refused = append(&mut cache, &tensor(1, 3, 1), &tensor(1, 3, 1));
        assert!(matches!(refused, Err(TensorError::Cache(Error::Shape { .. }))));
        assert!(matches!(attend_dequantized(&cache, &tensor(1, 3, 1), &plain), Err(TensorError::Cache(_))));
        assert_eq!(cache.len(), len);
    }
}
