//! Sizes and options of a model, read from `config.json` or GGUF keys. Differences between Llama-like models are
//! data here, never code elsewhere.
//!
//! Law: a value that would change the result and that the decoder does not know is an error, never ignored; a
//! configuration that is returned has sizes that can be multiplied without overflow.

mod embedding;
mod from_gguf;
mod from_json;
mod from_mmproj;
mod vision;

pub use embedding::Embedding;
pub use vision::VisionConfig;

use crate::weights::{Description, ModelFiles};
use crate::Result;

/// Everything the decoder needs to know. Letters as in `sglang_kernels::device`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `model_type` or GGUF `general.architecture`, e.g. `llama`.
    pub model_type: String,
    /// Class names of the configuration, e.g. `LlamaForCausalLM`.
    pub architectures: Vec<String>,
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
    /// Feed-forward size F, of one expert where there are several.
    pub ffn: usize,
    /// The feed-forward is a mixture.
    pub experts: Option<Experts>,
    /// Vocabulary V (rows of the embedding).
    pub vocab: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Epsilon of RMSNorm.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// What makes logits of states.
    pub head: Head,
    /// q, k and v have a bias (Qwen2).
    pub qkv_bias: bool,
    /// q and k heads are normalised (Qwen3).
    pub qk_norm: bool,
    /// Attention looks back this many tokens; 0 is all.
    pub sliding_window: usize,
    /// How its embeddings were trained, where its files say so.
    pub embedding: Option<Embedding>,
    /// The model sees pictures.
    pub vision: Option<VisionConfig>,
    /// Beginning of text, where the model names one; whether prompts get it is up to the tokenizer.
    pub bos: Option<u32>,
    /// Tokens that end a generation.
    pub eos: Vec<u32>,
}

/// What makes logits of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A matrix of its own.
    Own,
    /// The embedding of the tokens.
    Tied,
    /// Nothing: the model embeds only.
    None,
}

/// A mixture of experts.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Experts E of a layer.
    pub count: usize,
    /// Experts that each row goes to.
    pub per_token: usize,
    /// Their weights are divided by their sum.
    pub normalise: bool,
    /// Feed-forward size of one more, which every row goes to as far as a gate lets it (Qwen2's mixtures).
    pub shared: Option<usize>,
    /// Layers without it, ascending.
    pub dense: Vec<usize>,
    /// Feed-forward size of these; 0 where there are none.
    pub dense_ffn: usize,
    /// What files call them.
    pub names: &'static ExpertNames,
}

/// Tensor names `model.layers.N.{block}.gate` and `model.layers.N.{block}.experts.E.{part}`.
#[derive(Debug, PartialEq)]
pub struct ExpertNames {
    /// The mixture.
    pub block: &'static str,
    /// Gate, up and down projection.
    pub parts: [&'static str; 3],
}

/// Gate, up and down projection outside of mixtures.
pub const DENSE: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];
/// The expert for all rows, beside the others.
pub const SHARED: &str = "shared_expert";
const MOST_LAYERS: usize = 1 << 12;
const MIXTRAL: ExpertNames = ExpertNames { block: "block_sparse_moe", parts: ["w1", "w3", "w2"] };
const QWEN: ExpertNames = ExpertNames { block: "mlp", parts: DENSE };

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// Change of the frequencies for long contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched.
#[derive(Debug, Clone, PartialEq)]
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
    /// Each divided by its own factor `[S/2]` (tensor `rope_freqs.weight` of GGUF files).
    Factors(Vec<f32>),
}

/// What sets a model type apart where its files do not say so.
struct Family {
    /// `model_type` of `config.json`.
    model_type: &'static str,
    /// `general.architecture` of GGUF files that differs from it.
    gguf: &'static str,
    class: &'static str,
    qkv_bias: bool,
    qk_norm: bool,
    /// Names of its experts, if it is a mixture.
    experts: Option<&'static ExpertNames>,
    /// One of them is for all rows, and the weights of the others are as they are.
    shared_expert: bool,
}

const LLAMA: Family = Family {
    model_type: "llama",
    gguf: "llama",
    class: "LlamaForCausalLM",
    qkv_bias: false,
    qk_norm: false,
    experts: None,
    shared_expert: false,
};

const FAMILIES: [Family; 7] = [
    LLAMA,
    Family { model_type: "mistral", class: "MistralForCausalLM", ..LLAMA },
    Family { model_type: "mixtral", class: "MixtralForCausalLM", experts: Some(&MIXTRAL), ..LLAMA },
    Family { model_type: "qwen2", gguf: "qwen2", class: "Qwen2ForCausalLM", qkv_bias: true, ..LLAMA },
    Family {
        model_type: "qwen2_moe",
        gguf: "qwen2moe",
        class: "Qwen2MoeForCausalLM",
        qkv_bias: true,
        experts: Some(&QWEN),
        shared_expert: true,
        ..LLAMA
    },
    Family { model_type: "qwen3", gguf: "qwen3", class: "Qwen3ForCausalLM", qk_norm: true, ..LLAMA },
    Family {
        model_type: "qwen3_moe",
        gguf: "qwen3moe",
        class: "Qwen3MoeForCausalLM",
        qk_norm: true,
        experts: Some(&QWEN),
        ..LLAMA
    },
];

impl Family {
    /// The family of a type; `name` says which of its names that is.
    fn of(model_type: &str, name: fn(&Family) -> &'static str) -> std::result::Result<&'static Family, String> {
        FAMILIES.iter().find(|family| name(family) == model_type).ok_or_else(|| {
            let mut known: Vec<_> = FAMILIES.iter().map(name).collect();
            known.dedup();
            format!("models of type {model_type:?} are not supported; supported are {}", known.join(", "))
        })
    }

    /// Whether one of these classes is the family's model without its head, e.g. `MistralModel`.
    fn is_headless(&self, architectures: &[String]) -> bool {
        let name = self.class.strip_suffix("ForCausalLM");
        architectures.iter().any(|class| class.strip_suffix("Model") == name)
    }
}

impl ModelConfig {
    /// The configuration of opened files.
    pub fn of(files: &ModelFiles) -> Result<Self> {
        match &files.description {
            Description::Gguf(metadata) => {
                let model = Self::from_gguf(metadata, files.weights.as_ref())?;
                let Some(tower) = &files.tower else { return Ok(model) };
                let vision = VisionConfig::from_mmproj(tower, files.weights.as_ref(), model.hidden)?;
                let (model_type, architectures) = ("llava".into(), vec!["LlavaForConditionalGeneration".into()]);
                Ok(ModelConfig { model_type, architectures, vision: Some(vision), ..model })
            }
            Description::Folder(folder) => Self::from_folder(folder),
        }
    }

    /// The mixture of a layer, if it has one.
    pub fn experts_of(&self, layer: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| !experts.dense.contains(&layer))
    }

    /// Frequencies of the rotary embedding `[S/2]` in radians per position, computed in f32 as transformers does.
    pub fn inv_freq(&self) -> Vec<f32> {
        let size = self.head_size as f32;
        let plain = (0..self.head_size / 2).map(|i| 1.0 / self.rope.theta.powf((2 * i) as f32 / size));
        match &self.rope.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Factors(factors) => plain.zip(factors).map(|(f, factor)| f / factor).collect(),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => plain
                .map(|f| {
                    let turns = original_context * f / (2.0 * std::f32::consts::PI);
                    let keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    (1.0 - keep) * f / factor + keep * f
                })
                .collect(),
        }
    }

    /// Fails where the sizes cannot be those of a model.
    fn checked(self) -> std::result::Result<Self, String> {
        let sizes = [
            ("hidden size", self.hidden, 1 << 20),
            ("number of layers", self.layers, MOST_LAYERS),
            ("number of heads", self.heads, 1 << 12),
            ("number of key/value heads", self.kv_heads, 1 << 12),
            ("head size", self.head_size, 1 << 12),
            ("feed-forward size", self.ffn, 1 << 22),
            ("vocabulary size", self.vocab, 1 << 24),
            ("context length", self.context, 1 << 28),
        ];
        if let Some((what, size, most)) = sizes.into_iter().find(|&(_, size, most)| size == 0 || size > most) {
            return Err(format!("the {what} is {size}; it must be between 1 and {most}"));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(format!("{} heads cannot share {} key/value heads evenly", self.heads, self.kv_heads));
        }
        if !self.head_size.is_multiple_of(2) {
            return Err(format!("the head size is {}; rotary embedding needs an even one", self.head_size));
        }
        self.experts.as_ref().map_or(Ok(()), Experts::check)?;
        if !(self.norm_eps >= 0.0 && self.norm_eps < 1.0) {
            return Err(format!("the epsilon of RMSNorm is {}; it must be between 0 and 1", self.norm_eps));
        }
        if let Some(token) = self.eos.iter().chain(&self.bos).find(|&&token| token as usize >= self.vocab) {
            return Err(format!("special token {token} is outside the vocabulary of {}", self.vocab));
        }
        self.rope.check()?;
        Ok(self)
    }
}

impl Experts {
    fn check(&self) -> std::result::Result<(), String> {
        let Experts { count, per_token, shared, .. } = *self;
        if count > 1 << 12 || !(1..=count).contains(&per_token) {
            return Err(format!("{per_token} of {count} experts for each token make no sense"));
        }
        if shared.is_some_and(|ffn| !(1..=1 << 22).contains(&ffn)) {
            return Err(format!("the feed-forward size of the shared expert makes no sense: {shared:?}"));
        }
        if !self.dense.is_empty() && !(1..=1 << 22).contains(&self.dense_ffn) {
            return Err(format!("the feed-forward size of layers without experts makes no sense: {}", self.dense_ffn));
        }
        Ok(())
    }
}

impl Rope {
    fn check(&self) -> std::result::Result<(), String> {
        let positive = |x: f32| x.is_finite() && x > 0.0;
        let sound = match &self.scaling {
            RopeScaling::None => true,
            &RopeScaling::Linear { factor } => positive(factor),
            &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                positive(factor)
                    && positive(low_freq_factor)
                    && positive(original_context)
                    && positive(high_freq_factor - low_freq_factor)
            }
            RopeScaling::Factors(factors) => factors.iter().all(|&factor| positive(factor)),
        };
        match sound && positive(self.theta) {
            true => Ok(()),
            false => Err(format!("the rotary embedding is not sound: {self:?}")),
        }
    }
}
