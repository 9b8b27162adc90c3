//! What a calibration can change of the catalogue's prices.
//!
//! Shapes stay; each group of operators has one factor. All are one where nothing was calibrated.

/// Factors on the catalogue's prices, in the order of [`Multipliers::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers(pub [f64; Multipliers::COUNT]);

impl Multipliers {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// What each one multiplies.
    pub const NAMES: [&'static str; Multipliers::COUNT] = [
        "matrix_products",
        "decode_attention",
        "prefill_attention",
        "small_kernels",
        "all_reduce",
        "fixed",
        "host",
    ];
    /// The catalogue's prices as they are.
    pub const NONE: Multipliers = Multipliers([1.0; Multipliers::COUNT]);

    /// Matrix products and experts.
    pub fn matrix_products(&self) -> f64 {
        self.0[0]
    }

    /// Attention of decodes in steps without prompts, and where the sum of both is paid.
    pub fn decode_attention(&self) -> f64 {
        self.0[1]
    }

    /// Attention of prompts, and of all in one call of FlashAttention 2.
    pub fn prefill_attention(&self) -> f64 {
        self.0[2]
    }

    /// Norms, activations, rotary angles and the sampler.
    pub fn small_kernels(&self) -> f64 {
        self.0[3]
    }

    /// What cards pass to each other.
    pub fn all_reduce(&self) -> f64 {
        self.0[4]
    }

    /// Time of each step that no operator accounts for.
    pub fn fixed(&self) -> f64 {
        self.0[5]
    }

    /// The host's part of a step.
    pub fn host(&self) -> f64 {
        self.0[6]
    }
}
