//! Metrics of prom-client in several workers, put together as its `AggregatorRegistry` does: each metric by its own
//! `aggregator`, and as a sum by default. Pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

/// The question that a worker with prom-client answers.
pub(super) const QUESTION: &str = "prom-client:getMetricsReq";

/// A metric of one worker.
#[derive(Debug, Deserialize)]
struct Metric {
    name: String,
    #[serde(default)]
    help: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    values: Vec<Sample>,
    #[serde(default)]
    aggregator: Option<String>,
}

/// One value of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sample {
    /// Null where it is no number.
    value: Option<f64>,
    #[serde(default)]
    labels: BTreeMap<String, Value>,
    /// Of a part of a histogram or summary: its own name.
    #[serde(default)]
    metric_name: Option<String>,
}

/// A metric of all workers.
struct Family {
    help: String,
    kind: String,
    aggregator: String,
    /// By name and labels, in the order in which they came.
    series: Vec<(String, Vec<f64>)>,
    places: HashMap<String, usize>,
}

/// The text of all workers' metrics. Each item is what one worker has answered: its registries, in JSON. One that
/// cannot be read counts as none.
pub(super) fn text(answers: &[String]) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for answer in answers {
        let registries: Vec<Vec<Metric>> = serde_json::from_str(answer).unwrap_or_default();
        for metric in registries.into_iter().flatten().filter(|metric| is_name(&metric.name)) {
            let Metric { name, help, kind, values, aggregator } = metric;
            let family = families.entry(name.clone()).or_insert_with(|| Family {
                help,
                kind: if is_name(&kind) { kind } else { "untyped".to_owned() },
                aggregator: aggregator.unwrap_or_else(|| "sum".to_owned()),
                series: Vec::new(),
                places: HashMap::new(),
            });
            values.into_iter().for_each(|sample| family.add(&name, sample));
        }
    }
    families.retain(|_, family| family.aggregator != "omit" && !family.series.is_empty());
    families.iter().map(|(name, family)| family.text(name)).collect()
}

impl Family {
    fn add(&mut self, name: &str, sample: Sample) {
        let Some(value) = sample.value else { return };
        let name = sample.metric_name.as_deref().filter(|it| is_name(it)).unwrap_or(name);
        let series = format!("{name}{}", labels(&sample.labels));
        let next = self.series.len();
        let place = *self.places.entry(series.clone()).or_insert(next);
        if place == next {
            self.series.push((series, Vec::new()));
        }
        self.series[place].1.push(value);
    }

    fn text(&self, name: &str) -> String {
        let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} {}\n", self.kind);
        for (series, values) in &self.series {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{series} {}", put_together(&self.aggregator, values));
        }
        text + "\n"
    }
}

fn put_together(aggregator: &str, values: &[f64]) -> f64 {
    let sum = || values.iter().sum::<f64>();
    match aggregator {
        "first" => values.first().copied().unwrap_or_default(),
        #[expect(clippy::cast_precision_loss, reason = "there are few workers")]
        "average" => sum() / values.len() as f64,
        "min" => values.iter().copied().fold(f64::INFINITY, f64::min),
        "max" => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        _ => sum(),
    }
}

/// Labels in braces, or nothing.
fn labels(labels: &BTreeMap<String, Value>) -> String {
    let label = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    let labels: Vec<_> = labels.iter().filter(|(name, _)| is_name(name)).map(label).collect();
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}

/// A worker's texts don't break those of others.
fn is_name(text: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    text.starts_with(|first: char| !first.is_ascii_digit()) && text.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(metrics: &[&str]) -> String {
        text(&metrics.iter().map(|it| format!("[[{it}]]")).collect::<Vec<_>>())
    }

    fn metric(aggregator: &str, value: &str) -> String {
        format!(
            r#"{{"name":"m","help":"h\n","type":"gauge","aggregator":"{aggregator}",
               "values":[{{"value":{value},"labels":{{}}}}]}}"#
        )
    }

    #[test]
    fn each_metric_is_put_together_by_its_aggregator() {
        for (aggregator, expected) in [
            ("sum", "9"),
            ("first", "4"),
            ("average", "4.5"),
            ("min", "4"),
            ("max", "5"),
            ("own", "9"),
        ] {
            let text = of(&[&metric(aggregator, "4"), &metric(aggregator, "5")]);
            assert_eq!(text, format!("# HELP m h\\n\n# TYPE m gauge\nm {expected}\n\n"));
        }
        assert_eq!(of(&[&metric("omit", "4")]), "");
        assert_eq!(of(&[&metric("sum", "null")]), "", "it is no number");
    }

    #[test]
    fn series_are_told_apart_by_name_and_labels() {
        let histogram = r#"{"name":"h","help":"","type":"histogram","values":[
            {"labels":{"le":0.1,"route":"/\"a\""},"value":1,"metricName":"h_bucket"},
            {"labels":{"route":"/\"a\"","le":"+Inf"},"value":2,"metricName":"h_bucket"},
            {"labels":{},"value":0.3,"metricName":"h_sum"}]}"#;
        let expected = "# HELP h \n# TYPE h histogram\n\
            h_bucket{le=\"0.1\",route=\"/\\\"a\\\"\"} 2\n\
            h_bucket{le=\"+Inf\",route=\"/\\\"a\\\"\"} 4\n\
            h_sum 0.6\n\n";
        assert_eq!(of(&[histogram, histogram]), expected);
    }

    #[test]
    fn a_worker_cannot_break_the_text() {
        let odd = r#"{"name":"a b\nc","type":"x","values":[{"value":1,"labels":{}}]},
            {"name":"ok","type":"x\ny","values":[{"value":1,"labels":{"a\n":1},"metricName":"z\n"}]}"#;
        assert_eq!(of(&[odd, "no JSON"]), "# HELP ok \n# TYPE ok untyped\nok 1\n\n");
    }
}
