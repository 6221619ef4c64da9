//! Perplexity and divergence: what quantization costs, by the protocol of llama.cpp's `llama-perplexity`.
//!
//! A text is cut into sequences ([`EvalPlan`]), a [`LogitSource`] (a model, a file of logits) gives the logits of each, and
//! [`evaluate`] scores them: perplexity alone, or also against a base that runs in lockstep, so that memory holds the logits of
//! one sequence at a time. Divergences are taken from f32 logits directly, without the 16-bit floor of llama.cpp's base files.

mod divergence;
mod logit_source;
mod logits_file;
mod percentile;
mod perplexity;
mod plan;
mod row_scores;
mod speed;

pub use divergence::{DivergenceReport, KlSummary};
pub use logit_source::{LogitSource, Logits, MemoryLogits, ModelLogits};
pub use logits_file::{LogitsFile, LogitsWriter};
pub use percentile::percentile;
pub use perplexity::{EvalProgress, EvalReport, evaluate};
pub use plan::{EvalPlan, EvalSequence};
pub use speed::{SpeedOptions, SpeedResult, measure_speed};
