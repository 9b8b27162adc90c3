//! The time of one matrix product: a smooth maximum of arithmetic and memory traffic, and how measured products differ
//! from it.
//!
//! Where products of a card were measured on a grid of M, N and K (`hardware/gemm_grid.csv`, bfloat16), the form is
//! multiplied by the ratio of measurement to form, straight between the grid's logarithms. On the shapes that the grid
//! leaves out this halves the form's error. Tile edges of M are on the grid.

use crate::hardware::coefficients;
use crate::hardware::models::MatrixFormat;
use crate::hardware::{Gpu, Model};
use crate::step_time::grid::Grid;
use crate::step_time::routing::{Routing, Visits};

/// Where no near card was measured: start in microseconds, excess of arithmetic, excess of traffic, sharpness.
const DEFAULT: (f64, f64, f64, f64) = (4.0, 1.3, 1.2, 2.0);
/// Start of an fp8 product whose activation scales are static, so that the kernel before it quantises.
const FP8_C0_US: f64 = 4.5;
/// fp8 products in a real step over those measured alone, by step times of Llama-70B fp8 on H100; bfloat16 ones
/// agree as they are.
const FP8_MULTIPLIER: f64 = 1.1;

/// Stands for the experts of cards that resemble none where they were measured.
pub(super) const OTHER_EXPERTS: &str = "h100-sxm";

/// Prices matrix products `[M, K] x [K, N]` of one format on one card, in microseconds.
#[derive(Clone, Debug)]
pub(super) struct Gemm {
    c0_us: f64,
    us_per_flop: f64,
    us_per_byte: f64,
    p: f64,
    weight_bytes: f64,
    multiplier: f64,
    /// Measured over formed times by the logarithms of M, N and K.
    ratios: Option<Grid<3>>,
}

impl Gemm {
    pub(super) fn new(gpu: &Gpu, format: MatrixFormat) -> Gemm {
        let row = gpu.gemm_coefficients.as_deref().and_then(coefficients::gemm);
        let bf16 = row.map_or(DEFAULT, |row| {
            (row.bf16_c0_us, row.bf16_inv_eff_flops, row.bf16_inv_eff_bandwidth, row.bf16_p)
        });
        let fp8 = row.and_then(|row| {
            Some((FP8_C0_US, row.fp8_inv_eff_flops?, row.fp8_inv_eff_bandwidth?, row.fp8_p?))
        });
        // A card without fp8 arithmetic reads half the bytes and multiplies in bfloat16.
        let fp8_tflops = gpu.fp8_tflops.filter(|_| format == MatrixFormat::Fp8);
        let ((c0_us, flops, bandwidth, p), tflops, multiplier) = match fp8_tflops {
            Some(tflops) => (fp8.unwrap_or(DEFAULT), tflops, FP8_MULTIPLIER),
            None => (bf16, gpu.bf16_tflops, 1.0),
        };
        let form = Gemm {
            c0_us,
            us_per_flop: flops / (tflops * 1e6),
            us_per_byte: bandwidth / gpu.bytes_per_s() * 1e6,
            p,
            weight_bytes: format.bytes(),
            multiplier,
            ratios: None,
        };
        // Ratios of bfloat16 products go with bfloat16 weights alone.
        let measured = gpu.gemm_coefficients.as_deref().filter(|_| format == MatrixFormat::Bf16);
        Gemm { ratios: measured.and_then(ratios), ..form }
    }

    /// The product of M rows with an N by K weight matrix.
    pub(super) fn us(&self, m: f64, n: f64, k: f64) -> f64 {
        if m == 0.0 || n == 0.0 {
            return 0.0;
        }
        // Activations come in the format of the weights, products leave in bfloat16.
        let bytes = self.weight_bytes * (n * k + m * k) + 2.0 * m * n;
        let time = smooth_maximum(2.0 * m * n * k * self.us_per_flop, bytes * self.us_per_byte, self.p);
        let ratio = self.ratios.as_ref().map_or(1.0, |ratios| ratios.at([m.ln(), n.ln(), k.ln()]));
        self.multiplier * (self.c0_us + time) * ratio
    }
}

/// How products measured on this card differ from the form; none where no grid was measured.
fn ratios(measured: &str) -> Option<Grid<3>> {
    let card = crate::hardware::gpu(measured).ok()?;
    let row = coefficients::gemm(measured)?;
    let form = Gemm {
        c0_us: row.bf16_c0_us,
        us_per_flop: row.bf16_inv_eff_flops / (card.bf16_tflops * 1e6),
        us_per_byte: row.bf16_inv_eff_bandwidth / card.bytes_per_s() * 1e6,
        p: row.bf16_p,
        weight_bytes: MatrixFormat::Bf16.bytes(),
        multiplier: 1.0,
        ratios: None,
    };
    let mut points = Vec::new();
    for times in coefficients::gemm_times(measured) {
        let place = |m: f64| [m.ln(), times.n.ln(), times.k.ln()];
        points.extend(times.points().map(|(m, us)| (place(m), us / form.us(m, times.n, times.k))));
    }
    Grid::new(points)
}

/// `[a^p + b^p]^(1/p)`: the larger of two times that overlap, rounded at the corner.
pub(super) fn smooth_maximum(a: f64, b: f64, p: f64) -> f64 {
    (a.powf(p) + b.powf(p)).powf(p.recip())
}

/// The card whose experts stand for this one's. Those of data-centre Blackwell were measured on B200 alone, as its
/// attention was.
pub(super) fn measured_experts(gpu: &Gpu) -> Option<&str> {
    let measured = gpu.attention_coefficients.as_deref()?;
    coefficients::experts(measured, MatrixFormat::Bf16).map(|_| measured)
}

/// The experts of one layer, all of their products in one fused kernel of vLLM.
#[derive(Clone, Debug)]
pub(super) struct Experts {
    c0_us: f64,
    us_per_flop: f64,
    us_per_byte: f64,
    p: f64,
    weight_bytes: f64,
    visits: Visits,
    top_k: f64,
    hidden: f64,
    width: f64,
    /// Share of the experts, and of the visits, that one card has.
    share: f64,
}

impl Experts {
    /// Experts cut into so many slices each.
    pub(super) fn new(
        gpu: &Gpu,
        model: &Model,
        format: MatrixFormat,
        slices: f64,
        routing: Routing,
    ) -> Experts {
        let fp8_tflops = gpu.fp8_tflops.filter(|_| format == MatrixFormat::Fp8);
        // A card without fp8 arithmetic reads half the bytes and multiplies in bfloat16.
        let arithmetic = match format {
            MatrixFormat::Fp8 if fp8_tflops.is_none() => MatrixFormat::Bf16,
            other => other,
        };
        let row = measured_experts(gpu)
            .and_then(|measured| coefficients::experts(measured, arithmetic))
            .or_else(|| coefficients::experts(OTHER_EXPERTS, arithmetic))
            .expect("experts were measured in every format");
        Experts {
            c0_us: row.c0_us,
            us_per_flop: row.inv_eff_flops / (fp8_tflops.unwrap_or(gpu.bf16_tflops) * 1e6),
            us_per_byte: row.inv_eff_bandwidth / gpu.bytes_per_s() * 1e6,
            p: row.p,
            weight_bytes: format.bytes(),
            visits: Visits::new(model.experts, model.top_k, routing),
            top_k: f64::from(model.top_k),
            hidden: f64::from(model.hidden),
            width: f64::from(model.moe_intermediate) / slices,
            share: 1.0,
        }
    }

    /// The same with whole experts shared out among `cards`.
    pub(super) fn shared_out(self, cards: f64) -> Experts {
        Experts { share: cards.recip(), ..self }
    }

    /// All routed experts of a layer for M tokens.
    pub(super) fn us(&self, m: f64) -> f64 {
        let pairs = m * self.top_k * self.share;
        // Experts that at least one token visits: only their weights are read.
        let visited = self.share * self.visits.visited(m);
        let weights = visited * 3.0 * self.hidden * self.width * self.weight_bytes;
        let bytes = weights + pairs * (2.0 * self.hidden + 3.0 * self.width) * 2.0;
        let flops = 6.0 * pairs * self.hidden * self.width;
        self.c0_us + smooth_maximum(flops * self.us_per_flop, bytes * self.us_per_byte, self.p)
    }
}
