//! Runs the calibration sequences through a model and gathers the statistics.

use super::{CalibrationSet, Detail, InputStats, SiteInfo, StatsFileWriter, linear_sites};
use crate::eval::Logits;
use crate::model::{ActivationObserver, LinearSite};
use crate::{Error, LogitRows, Model, Result};
use candle_core::Tensor;
use std::collections::HashMap;
use std::path::Path;

/// What to gather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalibrationOptions {
    /// Sums per channel, or Gram matrices too.
    pub detail: Detail,
    /// The head's input too (llama-imatrix leaves it out unless asked).
    pub output: bool,
    /// Bytes that statistics may take at a time. What does not fit is gathered in further passes over the text; a single input that does not
    /// fit alone is an error.
    pub memory: u64,
}

impl Default for CalibrationOptions {
    fn default() -> Self {
        Self { detail: Detail::Diagonal, output: false, memory: 2 << 30 }
    }
}

/// How far a calibration is, in sequences over all passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalibrationProgress {
    /// Sequences run.
    pub done: usize,
    /// Sequences to run.
    pub total: usize,
}

/// What a calibration did.
#[derive(Clone, Debug)]
pub struct CalibrationSummary {
    /// The inputs with their sums per channel (the Gram matrices are in the file only).
    pub stats: Vec<(SiteInfo, InputStats)>,
    /// Passes over the text.
    pub passes: usize,
    /// Size of the file.
    pub bytes: u64,
}

/// Gathers the statistics of every linear layer and writes them to `out`, atomically.
///
/// # Errors
/// [`Error::Usage`] if a sequence is longer than the model's context or one input's statistics are larger than the memory allowed;
/// [`Error::NotFinite`] naming the layer and channel whose input is NaN or infinite; [`Error::Io`].
pub fn calibrate_to_file(
    model: &Model,
    set: &CalibrationSet,
    options: CalibrationOptions,
    out: impl AsRef<Path>,
    progress: &mut dyn FnMut(CalibrationProgress),
) -> Result<CalibrationSummary> {
    let config = model.config();
    let longest = set.sequences.iter().map(Vec::len).max().unwrap_or(0);
    if longest > config.max_context {
        return Err(Error::Usage(format!(
            "sequences of {longest} tokens do not fit the model's context of {}",
            config.max_context
        )));
    }
    let sites = linear_sites(config, options.output);
    let passes = group_by_memory(&sites, options.detail, options.memory)?;
    let mut writer = StatsFileWriter::create(out, &sites, options.detail, set, config.vocab_size)?;
    let mut summary = Vec::with_capacity(sites.len());
    let total = passes.len() * set.sequences.len();
    for (pass, sites) in passes.iter().enumerate() {
        let done = pass * set.sequences.len();
        let stats = collect_stats(model, set, sites, options.detail, &mut |n| {
            progress(CalibrationProgress { done: done + n, total })
        })?;
        for (site, stats) in sites.iter().zip(stats) {
            writer.write(&stats)?;
            summary.push((site.clone(), stats.without_gram()));
        }
    }
    let bytes = writer.finish()?;
    Ok(CalibrationSummary { stats: summary, passes: passes.len(), bytes })
}

/// The statistics of some inputs, in one pass over all sequences. `progress` is told how many are done.
///
/// # Errors
/// What the model reports; [`Error::NotFinite`] naming layer and channel.
pub fn collect_stats(
    model: &Model,
    set: &CalibrationSet,
    sites: &[SiteInfo],
    detail: Detail,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<InputStats>> {
    let mut collector = Collector::new(sites, detail);
    // The head sees only the rows whose logits are wanted.
    let rows = if sites.iter().any(|s| s.site == LinearSite::Output) { LogitRows::All } else { LogitRows::None };
    let mut cache = model.new_cache();
    for (i, sequence) in set.sequences.iter().enumerate() {
        cache.truncate(0);
        model.forward_observed(sequence, &mut cache, rows, &mut collector)?;
        progress(i + 1);
    }
    Ok(collector.stats)
}

/// Adds every input it is shown to the statistics of its site.
struct Collector {
    index: HashMap<LinearSite, usize>,
    stats: Vec<InputStats>,
}

impl Collector {
    fn new(sites: &[SiteInfo], detail: Detail) -> Self {
        Self {
            index: sites.iter().enumerate().map(|(i, s)| (s.site, i)).collect(),
            stats: sites.iter().map(|s| InputStats::new(s.columns, detail)).collect(),
        }
    }
}

impl ActivationObserver for Collector {
    fn linear_input(&mut self, site: LinearSite, x: &Tensor) -> Result<()> {
        let stats = self.index.get(&site).and_then(|&i| self.stats.get_mut(i));
        let Some(stats) = stats else { return Ok(()) };
        let (rows, columns) = x.dims2()?;
        Logits::Tensor(x.clone()).with_values(|values| {
            stats
                .add(values, rows, columns)
                .map_err(|e| Error::NotFinite(format!("inputs of {} ({e})", site.weight_names().join(", "))))
        })
    }
}

/// Cuts the sites into runs whose statistics fit the memory.
fn group_by_memory(sites: &[SiteInfo], detail: Detail, memory: u64) -> Result<Vec<Vec<SiteInfo>>> {
    let mut groups: Vec<Vec<SiteInfo>> = Vec::new();
    let mut used = 0u64;
    for site in sites {
        let bytes = detail.bytes(site.columns);
        if bytes > memory {
            return Err(Error::Usage(format!(
                "the statistics of {} take {bytes} bytes, more than the {memory} allowed",
                site.key()
            )));
        }
        match groups.last_mut() {
            Some(group) if used.saturating_add(bytes) <= memory => {
                group.push(site.clone());
                used += bytes;
            }
            _ => {
                groups.push(vec![site.clone()]);
                used = bytes;
            }
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn sites(columns: &[usize]) -> Vec<SiteInfo> {
        columns.iter().enumerate().map(|(l, &columns)| SiteInfo { site: LinearSite::FfnDown(l), columns }).collect()
    }

    #[test]
    fn passes_follow_the_memory() {
        let sites = sites(&[10, 10, 30, 10]);
        let (small, large) = (Detail::Gram.bytes(10), Detail::Gram.bytes(30));
        let lens =
            |memory| group_by_memory(&sites, Detail::Gram, memory).map(|g| g.iter().map(Vec::len).collect::<Vec<_>>());
        assert_eq!(lens(u64::MAX).unwrap(), [4]);
        assert_eq!(lens(large).unwrap(), [2, 1, 1]);
        assert_eq!(lens(large + small).unwrap(), [2, 2]);
        assert!(lens(large - 1).unwrap_err().to_string().contains("blk.2.ffn_down_input"));
    }

    #[test]
    fn inputs_go_to_their_site() {
        let mut c = Collector::new(&sites(&[2, 3]), Detail::Gram);
        let x = Tensor::new(&[[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::Cpu).unwrap();
        c.linear_input(LinearSite::FfnDown(1), &x).unwrap();
        c.linear_input(LinearSite::FfnDown(1), &x.narrow(0, 1, 1).unwrap()).unwrap();
        c.linear_input(LinearSite::Output, &x).unwrap();
        assert_eq!((c.stats[0].count(), c.stats[1].count()), (0, 3));
        assert_eq!(c.stats[1].sum_squares(), [33.0, 54.0, 81.0]);
        let bad = Tensor::new(&[[1.0f32, f32::NAN, 3.0]], &Device::Cpu).unwrap();
        let error = c.linear_input(LinearSite::FfnDown(1), &bad).unwrap_err().to_string();
        assert!(error.contains("blk.1.ffn_down.weight") && error.contains("column 1"), "{error}");
    }
}
