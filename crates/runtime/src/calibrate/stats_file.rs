//! A file of input statistics: safetensors, four or five tensors for each input, and metadata that says what they were gathered from.
//!
//! | tensor | type | content |
//! |---|---|---|
//! | `<input>.count` | I64 `[1]` | rows (tokens) seen |
//! | `<input>.sum_squares` | F64 `[n]` | Σ x² |
//! | `<input>.abs_sum` | F64 `[n]` | Σ \|x\| |
//! | `<input>.abs_max` | F32 `[n]` | max \|x\| |
//! | `<input>.gram` | F32 `[n (n + 1) / 2]` | Σ x xᵀ, upper triangle by rows; only if it was kept |
//!
//! Inputs are named `blk.N.attn_input` (q, k, v), `blk.N.attn_output_input`, `blk.N.ffn_input` (gate, up), `blk.N.ffn_down_input` and `output_input`.
//! Metadata: `format` = `quant-input-stats`, `version` = `1`, `weights` (a JSON object: input -> names of the weights that read it),
//! `text`, `text_sha256`, `text_tokens`, `samples`, `seq_len`, `starts_with_bos`, `tokens_sha256`, `vocab_size`.

use super::{CalibrationSet, Detail, InputStats, SiteInfo};
use crate::safetensors_io::{Dtype, SafetensorsReader, SafetensorsWriter, TensorSpec};
use crate::{Error, Result};
use quant_core::UpperTriangle;
use quant_core::input_stats::InputStatsParts;
use std::collections::BTreeMap;
use std::path::Path;

const FORMAT: &str = "quant-input-stats";
const VERSION: &str = "1";

/// Writes the file, input by input in the order of its sites; the target appears with [`finish`](Self::finish).
#[derive(Debug)]
pub struct StatsFileWriter {
    out: SafetensorsWriter,
}

impl StatsFileWriter {
    /// Starts the file.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::create`].
    pub fn create(
        path: impl AsRef<Path>,
        sites: &[SiteInfo],
        detail: Detail,
        set: &CalibrationSet,
        vocab_size: usize,
    ) -> Result<Self> {
        let specs: Vec<TensorSpec> = sites
            .iter()
            .flat_map(|s| {
                let (key, n) = (s.key(), s.columns as u64);
                let mut specs = vec![
                    TensorSpec::new(format!("{key}.count"), Dtype::I64, [1]),
                    TensorSpec::new(format!("{key}.sum_squares"), Dtype::F64, [n]),
                    TensorSpec::new(format!("{key}.abs_sum"), Dtype::F64, [n]),
                    TensorSpec::new(format!("{key}.abs_max"), Dtype::F32, [n]),
                ];
                if detail == Detail::Gram {
                    let packed = UpperTriangle::packed_len(s.columns) as u64;
                    specs.push(TensorSpec::new(format!("{key}.gram"), Dtype::F32, [packed]));
                }
                specs
            })
            .collect();
        let weights: serde_json::Map<_, _> = sites.iter().map(|s| (s.key(), s.site.weight_names().into())).collect();
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("text", set.text_name.clone()),
            ("text_sha256", set.text_sha256.clone()),
            ("text_tokens", set.text_tokens.to_string()),
            ("samples", set.sequences.len().to_string()),
            ("seq_len", set.seq_len.to_string()),
            ("starts_with_bos", set.starts_with_bos.to_string()),
            ("tokens_sha256", set.tokens_sha256()),
            ("vocab_size", vocab_size.to_string()),
            ("weights", serde_json::Value::Object(weights).to_string()),
        ]
        .map(|(k, v)| (k.to_owned(), v));
        Ok(Self { out: SafetensorsWriter::create(path, &specs, &metadata)? })
    }

    /// The statistics of the next input.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::write`].
    pub fn write(&mut self, stats: &InputStats) -> Result<()> {
        self.out.write_i64(&[stats.count() as i64])?;
        self.out.write_f64(stats.sum_squares())?;
        self.out.write_f64(stats.abs_sum())?;
        self.out.write_f32(stats.abs_max())?;
        match stats.gram() {
            Some(gram) => self.out.write_f32(gram.packed()),
            None => Ok(()),
        }
    }

    /// Puts the file in place; returns its size.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::finish`].
    pub fn finish(self) -> Result<u64> {
        self.out.finish()
    }
}

/// An opened file of statistics. Inputs are read one at a time.
#[derive(Debug)]
pub struct StatsFile {
    reader: SafetensorsReader,
    weights: BTreeMap<String, Vec<String>>,
}

impl StatsFile {
    /// Opens the file and checks that it is one.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] if it is another file, or of a later version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let reader = SafetensorsReader::open(path)?;
        for (key, expected) in [("format", FORMAT), ("version", VERSION)] {
            match reader.metadata().get(key) {
                Some(found) if found == expected => {}
                found => {
                    let found = found.map_or("none", String::as_str);
                    return Err(Error::malformed(path, format!("metadata `{key}`"), expected, found));
                }
            }
        }
        let text = reader.metadata().get("weights").map_or("", String::as_str);
        let weights = serde_json::from_str(text).map_err(|e| {
            Error::malformed(path, "metadata `weights`", "a JSON object of lists of names", e.to_string())
        })?;
        Ok(Self { reader, weights })
    }

    /// The inputs, by name, with the weights that read each.
    pub fn inputs(&self) -> &BTreeMap<String, Vec<String>> {
        &self.weights
    }

    /// What the statistics were gathered from.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.reader.metadata()
    }

    /// The statistics of an input: with the Gram matrix if [`Detail::Gram`] is asked for and it is there.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the tensor that is missing, of another length, or no sum (NaN, infinite, negative count).
    pub fn stats(&mut self, input: &str, detail: Detail) -> Result<InputStats> {
        let name = |part: &str| format!("{input}.{part}");
        let n = self.reader.need(&name("sum_squares"), Dtype::F64)?.bytes / Dtype::F64.size();
        let count = self.reader.read_i64(&name("count"), 0, 1)?;
        let count = count.first().and_then(|&c| u64::try_from(c).ok());
        let Some(count) = count else {
            return Err(self.malformed(&name("count"), "a number of rows", "less than none"));
        };
        for part in ["abs_sum", "abs_max"] {
            let dtype = if part == "abs_sum" { Dtype::F64 } else { Dtype::F32 };
            let found = self.reader.need(&name(part), dtype)?.bytes / dtype.size();
            if found != n {
                return Err(self.malformed(&name(part), &format!("{n} values"), &found.to_string()));
            }
        }
        let sum_squares = self.reader.read_f64(&name("sum_squares"), 0, n)?;
        let abs_sum = self.reader.read_f64(&name("abs_sum"), 0, n)?;
        let abs_max = self.reader.read_f32(&name("abs_max"), 0, n)?;
        let mut gram = None;
        if detail == Detail::Gram && self.reader.tensors().contains_key(&name("gram")) {
            let found = self.reader.need(&name("gram"), Dtype::F32)?.bytes / Dtype::F32.size();
            let packed = n.checked_add(1).and_then(|m| n.checked_mul(m)).map(|v| v / 2);
            if packed != Some(found) {
                return Err(self.malformed(&name("gram"), &format!("the triangle of {n} columns"), &found.to_string()));
            }
            gram = UpperTriangle::from_packed(n as usize, self.reader.read_f32(&name("gram"), 0, found)?);
        }
        let parts = InputStatsParts { count, sum_squares, abs_sum, abs_max, gram };
        InputStats::from_parts(parts).map_err(|e| self.malformed(input, "sums of finite rows", &e.to_string()))
    }

    fn malformed(&self, tensor: &str, expected: &str, found: &str) -> Error {
        Error::malformed(self.reader.path(), format!("tensor `{tensor}`"), expected, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{linear_sites, load_importance, to_imatrix};
    use super::*;
    use crate::model::LinearSite;

    fn set() -> CalibrationSet {
        CalibrationSet {
            sequences: vec![vec![1, 2], vec![3, 4]],
            seq_len: 2,
            starts_with_bos: false,
            text_name: "a.txt".into(),
            text_sha256: "00".into(),
            text_tokens: 4,
            wanted: 2,
        }
    }

    fn sites() -> Vec<SiteInfo> {
        [(LinearSite::AttentionInput(0), 3), (LinearSite::FfnDown(0), 2)]
            .map(|(site, columns)| SiteInfo { site, columns })
            .to_vec()
    }

    fn stats(detail: Detail) -> Vec<InputStats> {
        sites()
            .iter()
            .map(|s| {
                let mut stats = InputStats::new(s.columns, detail);
                let x: Vec<f32> = (0..4 * s.columns).map(|i| (i as f32).sin()).collect();
                stats.add(&x, 4, s.columns).unwrap();
                stats
            })
            .collect()
    }

    fn write(path: &Path, detail: Detail) {
        let mut w = StatsFileWriter::create(path, &sites(), detail, &set(), 5).unwrap();
        for s in stats(detail) {
            w.write(&s).unwrap();
        }
        w.finish().unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        for detail in [Detail::Diagonal, Detail::Gram] {
            write(&path, detail);
            let mut file = StatsFile::open(&path).unwrap();
            assert_eq!(
                file.inputs()["blk.0.attn_input"],
                ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"]
            );
            assert_eq!(file.metadata()["tokens_sha256"], set().tokens_sha256());
            for (site, want) in sites().iter().zip(stats(detail)) {
                assert_eq!(file.stats(&site.key(), Detail::Gram).unwrap(), want);
            }
        }
        assert_eq!(
            StatsFile::open(&path).unwrap().stats("blk.0.ffn_down_input", Detail::Diagonal).unwrap(),
            stats(Detail::Diagonal)[1]
        );
    }

    #[test]
    fn importance_comes_from_either_file() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("x.safetensors"), dir.path().join("x.gguf"));
        write(&ours, Detail::Diagonal);
        let stats = stats(Detail::Diagonal);
        let pairs: Vec<_> = sites().into_iter().zip(stats.iter()).collect();
        let imatrix = to_imatrix(pairs.iter().map(|(s, t)| (s, *t)), &set());
        imatrix.write(&theirs).unwrap();
        assert_eq!((imatrix.chunk_count, imatrix.chunk_size, &imatrix.datasets[..]), (2, 2, &["a.txt".to_owned()][..]));
        let (a, b) = (load_importance(&ours).unwrap(), load_importance(&theirs).unwrap());
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        assert_eq!(a.len(), 4);
        for (name, values) in &a {
            assert!(values.iter().zip(&b[name]).all(|(x, y)| (x - y).abs() <= 1e-6 * x), "{name}");
        }
        assert_eq!(a["blk.0.attn_k.weight"], stats[0].importance());
        for (name, bytes) in
            [("empty", &b""[..]), ("text", b"hello, this is not a matrix"), ("safetensors", b"\x02\0\0\0\0\0\0\0{}")]
        {
            std::fs::write(&ours, bytes).unwrap();
            let error = load_importance(&ours).expect_err(name).to_string();
            assert!(error.contains("x.safetensors"), "{name}: {error}");
        }
        assert!(load_importance(dir.path().join("none")).is_err());
    }

    #[test]
    fn defects_name_their_tensor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write(&path, Detail::Gram);
        let good = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize + 8;
        // The count of the first input, then its sums of squares.
        let cases: [(&str, usize, &[u8]); 2] =
            [("blk.0.attn_input.count", header, &[0xff; 8]), ("blk.0.attn_input", header + 8, &f64::NAN.to_le_bytes())];
        for (what, at, bytes) in cases {
            let mut bad = good.clone();
            bad[at..at + 8].copy_from_slice(bytes);
            std::fs::write(&path, bad).unwrap();
            let error = StatsFile::open(&path).unwrap().stats("blk.0.attn_input", Detail::Gram).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(matches!(StatsFile::open(&path), Err(Error::Malformed { .. })));
    }

    #[test]
    fn sites_of_a_model() {
        use crate::model::{Architecture, RopeConfig, RopeLayout, RopeScaling};
        let rope = RopeConfig { theta: 1e4, dim: 8, layout: RopeLayout::Halves, scaling: RopeScaling::None };
        let config = crate::ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 10,
            hidden_size: 16,
            intermediate_size: 24,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 8,
            rms_norm_eps: 1e-5,
            rope,
            max_context: 64,
            tied: false,
            sliding_window: None,
        };
        let columns: Vec<_> = linear_sites(&config, true).iter().map(|s| s.columns).collect();
        assert_eq!(columns, [16, 32, 16, 24, 16, 32, 16, 24, 16]);
        assert_eq!(linear_sites(&config, false).len(), 8);
        assert_eq!(linear_sites(&crate::ModelConfig { tied: true, ..config }, true).len(), 8);
    }
}
