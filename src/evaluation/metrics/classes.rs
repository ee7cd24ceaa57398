//! Right and wrong decisions, counted.

use super::{CLASSES, OTHER};

/// Decisions of one action unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Binary {
    /// Active, and said so.
    pub hits: u64,
    /// Not active, and said to be.
    pub false_alarms: u64,
    /// Active, and not said to be.
    pub misses: u64,
    /// Not active, and not said to be.
    pub rejections: u64,
}

impl Binary {
    /// Takes one decision.
    pub fn add(&mut self, active: bool, said: bool) {
        *match (active, said) {
            (true, true) => &mut self.hits,
            (false, true) => &mut self.false_alarms,
            (true, false) => &mut self.misses,
            (false, false) => &mut self.rejections,
        } += 1;
    }

    /// Takes all the decisions of another.
    pub fn merge(&mut self, other: &Self) {
        self.hits += other.hits;
        self.false_alarms += other.false_alarms;
        self.misses += other.misses;
        self.rejections += other.rejections;
    }

    /// Decisions taken.
    pub fn count(&self) -> u64 {
        self.right() + self.false_alarms + self.misses
    }

    /// Right ones among them.
    pub fn right(&self) -> u64 {
        self.hits + self.rejections
    }

    /// `2·hits / (2·hits + false alarms + misses)`; `None` where the unit is neither annotated active nor said to be.
    pub fn f1(&self) -> Option<f64> {
        f1(self.hits, self.false_alarms + self.misses)
    }
}

fn f1(hits: u64, wrong: u64) -> Option<f64> {
    (hits + wrong > 0).then(|| 2.0 * hits as f64 / (2 * hits + wrong) as f64)
}

/// How often each expression was said where each was true; the last row is [`OTHER`], which no model says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    counts: [[u64; CLASSES]; CLASSES + 1],
}

impl Confusion {
    /// Takes one decision.
    pub fn add(&mut self, class: u8, said: usize) {
        self.counts[usize::from(class)][said] += 1;
    }

    /// Takes all the decisions of another.
    pub fn merge(&mut self, other: &Self) {
        let counts = self.counts.iter_mut().flatten();
        counts
            .zip(other.counts.iter().flatten())
            .for_each(|(count, other)| *count += other);
    }

    /// Decisions on faces that are truly of a class.
    pub fn of_class(&self, class: u8) -> u64 {
        self.counts[usize::from(class)].iter().sum()
    }

    /// Decisions among the first `classes` true classes.
    pub fn count(&self, classes: usize) -> u64 {
        self.counts[..classes].iter().flatten().sum()
    }

    /// Share of right decisions among the first `classes` true classes; `None` without any.
    pub fn accuracy(&self, classes: usize) -> Option<f64> {
        let right: u64 = (0..CLASSES).map(|class| self.counts[class][class]).sum();
        let count = self.count(classes);
        (count > 0).then(|| right as f64 / count as f64)
    }

    /// F1 of a class against the others of the first `classes`; `None` where it is neither true nor said of any face.
    pub fn f1(&self, class: usize, classes: usize) -> Option<f64> {
        if class == usize::from(OTHER) {
            return f1(0, self.of_class(OTHER));
        }
        let hits = self.counts[class][class];
        let said: u64 = self.counts[..classes].iter().map(|row| row[class]).sum();
        f1(hits, said + self.of_class(class as u8) - 2 * hits)
    }
}
