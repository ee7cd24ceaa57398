//! Models held against one another: every pair that shares a task.

use super::figures::{ACTIVE, Agreement, ByExpression, Concordance, Confusion, UnitAgreement, UnitPair};
use super::parts::with_numbers;
use affectmill_base::{ACTION_UNITS, EXPRESSIONS, Task};
use affectmill_labelset::JobRecord;
use affectmill_labelset::rows::{LabelColumns, having};

/// Sums over faces, of each pair.
pub struct Pairs {
    planes: Vec<Pair<[Joint; 2]>>,
    expressions: Vec<Pair<[ByExpression; EXPRESSIONS.len()]>>,
    units: Vec<Pair<[[u64; 4]; ACTION_UNITS.len()]>>,
}

/// Two models of one task, by their number among those that have it.
struct Pair<Sums> {
    names: [String; 2],
    at: [usize; 2],
    sums: Sums,
}

impl<Sums: Default> Pair<Sums> {
    fn all(job: &JobRecord, task: Task) -> Vec<Self> {
        let names: Vec<&String> = having(job, task).map(|model| &model.name).collect();
        let pairs = (0..names.len()).flat_map(|a| (a + 1..names.len()).map(move |b| [a, b]));
        let pair = |at: [usize; 2]| Self {
            names: at.map(|model| names[model].clone()),
            at,
            sums: Sums::default(),
        };
        pairs.map(pair).collect()
    }
}

/// Sums of two numbers, their squares and their product.
#[derive(Clone, Copy, Default)]
struct Joint {
    count: f64,
    sums: [f64; 2],
    squares: [f64; 2],
    product: f64,
}

impl Joint {
    fn add(&mut self, pair: [f32; 2]) {
        let pair = pair.map(f64::from);
        self.count += 1.0;
        self.product += pair[0] * pair[1];
        for ((sum, squares), number) in self.sums.iter_mut().zip(&mut self.squares).zip(pair) {
            *sum += number;
            *squares += number * number;
        }
    }

    /// Lin's concordance correlation coefficient: 2σxy ÷ (σx² + σy² + (μx − μy)²), population moments.
    fn concordance(&self) -> Option<f64> {
        let mean = self.sums.map(|sum| sum / self.count);
        let variance = |side: usize| self.squares[side] / self.count - mean[side] * mean[side];
        let covariance = self.product / self.count - mean[0] * mean[1];
        let spread = variance(0) + variance(1) + (mean[0] - mean[1]).powi(2);
        (spread > 0.0).then(|| 2.0 * covariance / spread)
    }
}

impl Pairs {
    /// Nothing counted yet.
    pub fn new(job: &JobRecord) -> Self {
        Self {
            planes: Pair::all(job, Task::Va),
            expressions: Pair::all(job, Task::Expr),
            units: Pair::all(job, Task::Au),
        }
    }

    /// Counts the rows that carry a face.
    pub fn add(&mut self, rows: &LabelColumns, labelled: &[usize]) {
        for pair in &mut self.planes {
            let [a, b] = pair.at.map(|model| &rows.planes[model]);
            let both = with_numbers(labelled, &a[0]);
            let both = with_numbers(&both, &b[0]);
            for (axis, sums) in pair.sums.iter_mut().enumerate() {
                both.iter()
                    .for_each(|&row| sums.add([a[axis][row], b[axis][row]]));
            }
        }
        for pair in &mut self.expressions {
            let [a, b] = pair.at.map(|model| &rows.expressions[model].class);
            for &row in labelled {
                if let (Some(a), Some(b)) = (a[row], b[row]) {
                    pair.sums[usize::from(a)][usize::from(b)] += 1;
                }
            }
        }
        for pair in &mut self.units {
            let [a, b] = pair.at.map(|model| &rows.units[model]);
            let both = with_numbers(labelled, &a[0]);
            let both = with_numbers(&both, &b[0]);
            for (unit, sums) in pair.sums.iter_mut().enumerate() {
                for &row in both.iter() {
                    let quiet = [a, b].map(|units| usize::from(units[unit][row] <= ACTIVE));
                    // Both, only the first, only the second, neither.
                    sums[quiet[1] + 2 * quiet[0]] += 1;
                }
            }
        }
    }

    /// What came out.
    pub fn finish(self) -> Agreement {
        let planes = self.planes.into_iter().map(|pair| Concordance {
            models: pair.names,
            valence: pair.sums[0].concordance(),
            arousal: pair.sums[1].concordance(),
        });
        let expressions = self.expressions.into_iter().map(|pair| {
            let (agreement, kappa) = agreement(&pair.sums);
            Confusion {
                models: pair.names,
                faces: pair.sums,
                agreement,
                kappa,
            }
        });
        let units = self.units.into_iter().map(|pair| UnitAgreement {
            models: pair.names,
            units: std::iter::zip(ACTION_UNITS, pair.sums).map(unit_pair).collect(),
        });
        Agreement {
            valence_arousal: planes.collect(),
            expressions: expressions.collect(),
            action_units: units.collect(),
        }
    }
}

fn unit_pair((unit, faces): (&'static str, [u64; 4])) -> UnitPair {
    let [both, first, second, neither] = faces;
    let (agreement, kappa) = agreement(&[[both, first], [second, neither]]);
    UnitPair {
        unit,
        faces,
        agreement,
        kappa,
    }
}

/// Share on the diagonal, and Cohen's kappa: (share − chance) ÷ (1 − chance).
fn agreement<const N: usize>(counts: &[[u64; N]; N]) -> (f64, Option<f64>) {
    let all = counts.iter().flatten().sum::<u64>().max(1) as f64;
    let same = (0..N).map(|class| counts[class][class]).sum::<u64>() as f64 / all;
    let chance = (0..N).map(|class| {
        let row: u64 = counts[class].iter().sum();
        let column: u64 = counts.iter().map(|row| row[class]).sum();
        row as f64 * column as f64 / (all * all)
    });
    let chance: f64 = chance.sum();
    (same, (chance < 1.0).then(|| (same - chance) / (1.0 - chance)))
}
