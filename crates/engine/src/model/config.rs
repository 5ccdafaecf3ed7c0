//! Sizes and options of a model, read from `config.json` or GGUF keys. Differences between Llama-like models are
//! data here, never code elsewhere.

/// Everything the decoder needs to know. Letters as in `sglang_kernels::device`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `model_type` or GGUF `general.architecture`, e.g. `llama`.
    pub model_type: String,
    /// Hidden size D.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads H.
    pub heads: usize,
    /// Key/value heads K.
    pub kv_heads: usize,
    /// Head size S.
    pub head_size: usize,
    /// Feed-forward size F.
    pub ffn: usize,
    /// Vocabulary V (rows of the embedding).
    pub vocab: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Epsilon of RMSNorm.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// The head is the embedding.
    pub tied_head: bool,
    /// q, k and v have a bias (Qwen2).
    pub qkv_bias: bool,
    /// q and k heads are normalised (Qwen3).
    pub qk_norm: bool,
    /// Attention looks back this many tokens; 0 is all.
    pub sliding_window: usize,
    /// First token of every prompt, where the model has one.
    pub bos: Option<u32>,
    /// Tokens that end a generation.
    pub eos: Vec<u32>,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// Change of the frequencies for long contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by the factor.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Context of the pre-trained model.
        original_context: f32,
    },
}
