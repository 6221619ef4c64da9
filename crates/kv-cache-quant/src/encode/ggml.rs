//! ggml's block types: quantized by `gguf_format`, codes taken from its bytes and put together again to the same bytes.

use crate::codec::GgmlCode;
use gguf_format::blocks;

/// Values of a block.
const BLOCK: usize = 32;
/// Bytes of the largest block.
const MOST: usize = 2 + 32;

impl GgmlCode {
    /// Whether a minimum stands behind the scale; whether highest bits stand behind that.
    const fn fields(self) -> (bool, bool) {
        (matches!(self, Self::Q4_1 | Self::Q5_1), matches!(self, Self::Q5_0 | Self::Q5_1))
    }

    const fn block_bytes(self) -> usize {
        let (min, high) = self.fields();
        2 + if min { 2 } else { 0 } + if high { 4 } else { 0 } + if matches!(self, Self::Q8_0) { 32 } else { 16 }
    }
}

/// Codes of a block of 32 values; gives the bits of scale and minimum. A block that `gguf_format` refuses has zeros: the caller bounds the values.
pub(super) fn encode(ty: GgmlCode, x: &[f32], codes: &mut [u8]) -> (u16, u16) {
    let mut bytes = [0; MOST];
    let bytes = &mut bytes[..ty.block_bytes()];
    if blocks::quantize(ty.ggml_type(), x, BLOCK, None, bytes).is_err() {
        codes.fill(if ty == GgmlCode::Q8_0 { 128 } else { 0 });
        return (0, 0);
    }
    let (min, high) = ty.fields();
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let rest = if min { 4 } else { 2 };
    let scales = (half(0), if min { half(2) } else { 0 });
    if ty == GgmlCode::Q8_0 {
        codes.iter_mut().zip(&bytes[2..]).for_each(|(code, b)| *code = b ^ 0x80);
        return scales;
    }
    let nibbles = &bytes[rest + if high { 4 } else { 0 }..];
    for (i, code) in codes.iter_mut().enumerate() {
        let high = if high { (bytes[rest + i / 8] >> (i % 8) & 1) << 4 } else { 0 };
        *code = nibbles[i % 16] >> (i / 16 * 4) & 15 | high;
    }
    scales
}

/// Bytes of `channels` values.
pub(crate) fn ggml_row_len(ty: GgmlCode, channels: usize) -> usize {
    channels / BLOCK * ty.block_bytes()
}

/// The bytes of ggml for codes of whole blocks; scales and minima as bits, one per block.
pub(crate) fn ggml_bytes(ty: GgmlCode, codes: &[u8], scales: &[u16], mins: &[u16], out: &mut [u8]) {
    let (min, high) = ty.fields();
    let rest = if min { 4 } else { 2 };
    for (b, (codes, out)) in codes.chunks_exact(BLOCK).zip(out.chunks_exact_mut(ty.block_bytes())).enumerate() {
        out.fill(0);
        out[..2].copy_from_slice(&scales[b].to_le_bytes());
        if min {
            out[2..4].copy_from_slice(&mins[b].to_le_bytes());
        }
        if ty == GgmlCode::Q8_0 {
            out[2..].iter_mut().zip(codes).for_each(|(byte, code)| *byte = code ^ 0x80);
            continue;
        }
        let nibbles = rest + if high { 4 } else { 0 };
        for (i, code) in codes.iter().enumerate() {
            out[nibbles + i % 16] |= (code & 15) << (i / 16 * 4);
            if high {
                out[rest + i / 8] |= (code >> 4 & 1) << (i % 8);
            }
        }
    }
}
