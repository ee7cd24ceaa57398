//! The concordance correlation coefficient (Lin 1989).

/// Moments of pairs of numbers, updated and joined without loss of precision (Welford 1962; Chan, Golub, LeVeque 1979).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: [f64; 2],
    /// Sums of squared deviations from the mean.
    squares: [f64; 2],
    /// Sum of products of deviations.
    products: f64,
}

impl Moments {
    /// Takes one pair.
    pub fn add(&mut self, x: f64, y: f64) {
        self.count += 1;
        let n = self.count as f64;
        let before = [x - self.mean[0], y - self.mean[1]];
        self.mean[0] += before[0] / n;
        self.mean[1] += before[1] / n;
        let after = [x - self.mean[0], y - self.mean[1]];
        self.squares[0] += before[0] * after[0];
        self.squares[1] += before[1] * after[1];
        self.products += before[0] * after[1];
    }

    /// Takes all the pairs of another.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let apart = [other.mean[0] - self.mean[0], other.mean[1] - self.mean[1]];
        let share = m / (n + m);
        self.count += other.count;
        self.products += other.products + apart[0] * apart[1] * n * share;
        for (side, apart) in apart.into_iter().enumerate() {
            self.squares[side] += other.squares[side] + apart * apart * n * share;
            self.mean[side] += apart * share;
        }
    }

    /// Pairs taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// `2·cov / (σx² + σy² + (μx − μy)² + ε)` with population moments; `None` without a pair.
    pub fn ccc(&self, epsilon: f64) -> Option<f64> {
        let n = self.count as f64;
        let apart = self.mean[0] - self.mean[1];
        let spread = (self.squares[0] + self.squares[1]) / n + apart * apart + epsilon;
        (self.count > 0).then(|| 2.0 * self.products / n / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_moments_are_those_of_all_pairs() {
        let pairs: Vec<(f64, f64)> = (0..50)
            .map(|n| (f64::from(n).sin(), 1e3 + f64::from(n * n % 17)))
            .collect();
        let of = |pairs: &[(f64, f64)]| {
            let mut moments = Moments::default();
            pairs.iter().for_each(|(x, y)| moments.add(*x, *y));
            moments
        };
        let mut joined = Moments::default();
        for piece in [&pairs[..0], &pairs[..1], &pairs[1..20], &pairs[20..]] {
            joined.merge(&of(piece));
        }
        assert_eq!(joined.count(), 50);
        let (a, b) = (joined.ccc(0.0).unwrap(), of(&pairs).ccc(0.0).unwrap());
        assert!((a - b).abs() < 1e-15, "{a} {b}");
    }

    #[test]
    fn a_shift_and_a_scale_cost_what_the_formula_says() {
        // y = 2x + 1 of x in {0, 1}: cov 0.5·0.5·2 = 0.5, variances 0.25 and 1, means 0.5 and 2.
        let mut moments = Moments::default();
        moments.add(0.0, 1.0);
        moments.add(1.0, 3.0);
        assert_eq!(moments.ccc(0.0), Some(1.0 / (1.25 + 2.25)));
        assert_eq!(Moments::default().ccc(1e-5), None);
    }
}
