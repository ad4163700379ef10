//! Values of a measurement, and their statistics.

/// Values of one quantity over many rounds. The statistics require at least one value.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: Vec<f64>,
}

impl Samples {
    /// Adds the value of a round.
    pub fn push(&mut self, value: f64) {
        let place = self.values.partition_point(|other| *other < value);
        self.values.insert(place, value);
    }

    /// Smallest of the values.
    pub fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    /// Median of the values.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The 90th percentile of the values.
    pub fn p90(&self) -> f64 {
        self.quantile(0.9)
    }

    /// Largest of the values.
    pub fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    fn quantile(&self, share: f64) -> f64 {
        assert!(!self.values.is_empty(), "quantiles are asked for after the rounds");
        self.values[((self.values.len() - 1) as f64 * share).round() as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn quantiles_do_not_depend_on_the_order_of_rounds() {
        let mut samples = Samples::default();
        for value in [5.0, 1.0, 4.0, 2.0, 3.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0] {
            samples.push(value);
        }
        assert_eq!((samples.min(), samples.median(), samples.p90(), samples.max()), (1.0, 6.0, 10.0, 11.0));
    }
}
