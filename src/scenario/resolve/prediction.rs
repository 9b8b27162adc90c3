//! Predictors of output lengths: which keys go with which kind.

use super::{Fault, Workload, fault, positive};
use crate::scenario::file::{BucketValueFile, PredictionFile, PredictorFile, ScenarioFile};
use crate::workload::predictor::{BucketValue, Model, Predictor};

/// The scenario's predictor, with those of its classes.
pub(super) fn predictor(file: &ScenarioFile, workload: &Workload) -> Result<Predictor, Fault> {
    let common = model("workload.prediction", &file.workload.prediction)?;
    let of = |(index, class): (usize, &crate::scenario::file::ClassFile)| {
        let path = format!("workload.classes.{index}.prediction");
        class.prediction.as_ref().map(|own| model(&path, own)).transpose()
    };
    let of_class = file.workload.classes.iter().flatten().enumerate().map(of).collect::<Result<_, _>>()?;
    let predictor = Predictor { common, of_class };
    let streamed = matches!(workload, Workload::Trace { streamed: true, .. });
    if streamed && predictor.models().any(Model::needs_all) {
        return Err(fault(
            "workload.prediction",
            "compares a request with all others, and a stream is never known whole",
        )
        .help("leave out workload.streamed, or use \"lognormal\" or \"buckets\""));
    }
    Ok(predictor)
}

fn quoted(kind: PredictorFile) -> String {
    format!("\"{}\"", format!("{kind:?}").to_lowercase())
}

fn model(path: &str, written: &PredictionFile) -> Result<Model, Fault> {
    let kind = written.output_tokens;
    let given = [
        ("bias", written.bias.is_some(), &[PredictorFile::Exact, PredictorFile::Lognormal][..]),
        ("sigma", written.sigma.is_some(), &[PredictorFile::Lognormal]),
        ("edges", written.edges.is_some(), &[PredictorFile::Buckets]),
        ("accuracy", written.accuracy.is_some(), &[PredictorFile::Buckets]),
        ("value", written.value.is_some(), &[PredictorFile::Buckets]),
        ("correlation", written.correlation.is_some(), &[PredictorFile::Rank]),
    ];
    if let Some((key, _, kinds)) = given.iter().find(|(_, given, kinds)| *given && !kinds.contains(&kind)) {
        if kind == PredictorFile::None {
            return Err(fault(format!("{path}.{key}"), "needs a predictor")
                .help(format!("add output_tokens = {}", quoted(kinds[0]))));
        }
        let names: Vec<String> = kinds.iter().map(|kind| quoted(*kind)).collect();
        return Err(fault(format!("{path}.{key}"), "belongs to another predictor")
            .help(format!("it goes with output_tokens = {}", names.join(" or "))));
    }
    let share = |key: &str, value: f64, least: f64| match (least..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(fault(format!("{path}.{key}"), format!("expected {least} to 1, got {value}"))),
    };
    let bias = written.bias.map(|bias| positive(&format!("{path}.bias"), bias)).transpose()?.unwrap_or(1.0);
    let missing = |key: &str, example: &str| {
        fault(path, format!("this predictor needs `{key}`")).help(format!("add {key} = {example}"))
    };
    Ok(match kind {
        PredictorFile::None => Model::None,
        PredictorFile::Exact => Model::Scaled { bias },
        PredictorFile::Lognormal => {
            let sigma = written.sigma.ok_or_else(|| missing("sigma", "0.45"))?;
            Model::LogNormal { bias, sigma: positive(&format!("{path}.sigma"), sigma)? }
        }
        PredictorFile::Buckets => {
            let accuracy = written.accuracy.ok_or_else(|| missing("accuracy", "0.75"))?;
            let edges = written.edges.clone().unwrap_or_else(|| (5..=13).map(|power| 1 << power).collect());
            if edges.is_empty() || edges[0] == 0 || !edges.is_sorted_by(|a, b| a < b) {
                return Err(fault(format!("{path}.edges"), "expected rising lengths of at least 1"));
            }
            let value = match written.value {
                Some(BucketValueFile::Upper) => BucketValue::Upper,
                Some(BucketValueFile::Middle) | None => BucketValue::Middle,
            };
            Model::Buckets { edges, accuracy: share("accuracy", accuracy, 0.0)?, value }
        }
        PredictorFile::Rank => {
            let correlation = written.correlation.ok_or_else(|| missing("correlation", "0.81"))?;
            Model::Rank { correlation: share("correlation", correlation, -1.0)? }
        }
        PredictorFile::Mean => Model::Mean,
    })
}
