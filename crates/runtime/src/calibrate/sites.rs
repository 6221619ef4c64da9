//! The linear layers of a decoder, by the inputs they share.

use crate::ModelConfig;
use crate::model::LinearSite;

/// One input that statistics are kept of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteInfo {
    /// Which one.
    pub site: LinearSite,
    /// Its width.
    pub columns: usize,
}

impl SiteInfo {
    /// The name of the input in a file of statistics: `blk.0.attn_input`.
    pub fn key(&self) -> String {
        match self.site {
            LinearSite::AttentionInput(l) => format!("blk.{l}.attn_input"),
            LinearSite::AttentionOutput(l) => format!("blk.{l}.attn_output_input"),
            LinearSite::FfnInput(l) => format!("blk.{l}.ffn_input"),
            LinearSite::FfnDown(l) => format!("blk.{l}.ffn_down_input"),
            LinearSite::Output => "output_input".to_owned(),
        }
    }
}

/// Every site of a model in the order of the forward pass, layer by layer. The head only with `output`, and only if it is a
/// matrix of its own: a tied head is the embedding table, which is read by row and has no input.
pub fn linear_sites(config: &ModelConfig, output: bool) -> Vec<SiteInfo> {
    let attention = config.num_heads * config.head_dim;
    let layers = (0..config.num_layers).flat_map(|l| {
        [
            SiteInfo { site: LinearSite::AttentionInput(l), columns: config.hidden_size },
            SiteInfo { site: LinearSite::AttentionOutput(l), columns: attention },
            SiteInfo { site: LinearSite::FfnInput(l), columns: config.hidden_size },
            SiteInfo { site: LinearSite::FfnDown(l), columns: config.intermediate_size },
        ]
    });
    let head = SiteInfo { site: LinearSite::Output, columns: config.hidden_size };
    layers.chain((output && !config.tied).then_some(head)).collect()
}
