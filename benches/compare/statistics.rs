//! Medians and spreads of the rounds.

/// One figure, measured once a round.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn all(&self) -> &[f64] {
        &self.0
    }

    /// None before the first round.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = sorted[(sorted.len() - 1) / 2];
        Some(f64::midpoint(lower, upper))
    }

    pub(crate) fn min(&self) -> Option<f64> {
        self.0.iter().copied().min_by(f64::total_cmp)
    }

    pub(crate) fn max(&self) -> Option<f64> {
        self.0.iter().copied().max_by(f64::total_cmp)
    }

    /// The median of the rounds' shares of another's figure. Within a round
    /// both had the same neighbours on the machine, so this is steadier than
    /// the share of the medians.
    pub(crate) fn share_of(&self, whole: &Self) -> Option<f64> {
        let shares = self.0.iter().zip(&whole.0).map(|(part, whole)| part / whole);
        Self(shares.collect()).median()
    }
}
