//! The weights of an antialiased triangle filter along one axis, as Pillow's `Image.resize(…, BILINEAR)` defines
//! them: the triangle is as wide as an output pixel, at least as wide as an input sample; sample centres lie at
//! + 0.5; weights that fall off the edge are dropped and the rest scaled to sum to 1.

use affectmill_nn::Weights;

/// Weights are padded to a multiple of this, so that a dot product works in whole registers.
pub(super) const LANES: usize = 8;

/// The samples and weights of every output position.
pub(super) struct Filter {
    /// First sample and number of samples of each output.
    pub spans: Vec<(usize, usize)>,
    /// Weights, `pitch` to an output, those beyond its span 0.
    weights: Vec<f32>,
    pitch: usize,
}

impl Filter {
    /// Resizes `[start, start + length)` of an axis with `size` samples to `outputs` pixels. `size`, `length` and `outputs` are
    /// above 0.
    pub(super) fn new(size: usize, start: f64, length: f64, outputs: usize) -> Self {
        let scale = length / outputs as f64;
        let support = scale.max(1.0);
        let mut rows = Vec::with_capacity(outputs);
        for output in 0..outputs {
            let centre = start + (output as f64 + 0.5) * scale;
            let end = ((centre + support + 0.5).max(0.0) as usize).clamp(1, size);
            let first = ((centre - support + 0.5).max(0.0) as usize).min(end - 1);
            let weight = |sample| (1.0 - ((sample as f64 + 0.5 - centre) / support).abs()).max(0.0);
            let mut weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            if sum > 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= sum);
            } else {
                weights.fill(1.0 / (end - first) as f64);
            }
            rows.push((first, weights));
        }
        let longest = rows.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0);
        let pitch = longest.next_multiple_of(LANES);
        let mut weights = vec![0.0; outputs * pitch];
        for (padded, (_, row)) in weights.chunks_exact_mut(pitch).zip(&rows) {
            padded
                .iter_mut()
                .zip(row)
                .for_each(|(to, from)| *to = *from as f32);
        }
        let spans = rows
            .iter()
            .map(|(first, weights)| (*first, weights.len()))
            .collect();
        Self {
            spans,
            weights,
            pitch,
        }
    }

    /// Half-open range of the samples used.
    pub(super) fn range(&self) -> (usize, usize) {
        let first = self.spans.iter().map(|span| span.0).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.0 + span.1).max().unwrap_or(0);
        (first, end)
    }

    /// The weights as one matrix over the samples used.
    pub(super) fn dense(&self) -> Weights {
        let (first, end) = self.range();
        let count = end - first;
        let mut matrix = vec![0.0; self.spans.len() * count];
        let rows = self.spans.iter().zip(self.weights.chunks_exact(self.pitch));
        for (to, (&(start, length), weights)) in matrix.chunks_exact_mut(count).zip(rows) {
            to[start - first..][..length].copy_from_slice(&weights[..length]);
        }
        Weights { first, count, matrix }
    }

    /// Padding that a line of samples needs beyond its end.
    pub(super) fn pitch(&self) -> usize {
        self.pitch
    }

    /// Filters a line whose first element is sample `origin`; it must have [`pitch`](Self::pitch) more finite elements than the
    /// range needs.
    pub(super) fn apply(&self, line: &[f32], origin: usize, out: &mut [f32]) {
        let rows = self.spans.iter().zip(self.weights.chunks_exact(self.pitch));
        for (out, (&(first, _), weights)) in out.iter_mut().zip(rows) {
            let samples = &line[first - origin..][..self.pitch];
            let mut sums = [0.0f32; LANES];
            for (s, w) in samples
                .as_chunks::<LANES>()
                .0
                .iter()
                .zip(weights.as_chunks::<LANES>().0)
            {
                for lane in 0..LANES {
                    sums[lane] += s[lane] * w[lane];
                }
            }
            *out = (sums[0] + sums[4]) + (sums[1] + sums[5]) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
        }
    }

    /// The weights of one output as 16-bit fractions that sum to exactly 65,535, one unit short of 1: a sum of
    /// weighted `u16` then fits a `u16`.
    pub(super) fn fractions(&self, output: usize) -> Vec<u16> {
        let weights = &self.weights[output * self.pitch..][..self.spans[output].1];
        let mut fractions: Vec<i32> = weights.iter().map(|w| (w * 65_535.0).round() as i32).collect();
        let rest = 65_535 - fractions.iter().sum::<i32>();
        if let Some(largest) = fractions.iter_mut().max() {
            *largest += rest;
        }
        fractions
            .into_iter()
            .map(|fraction| fraction.clamp(0, 65_535) as u16)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_pillows() {
        // 4 → 2: triangles of half-width 2 around 1 and 3. At samples 0.5, 1.5, 2.5: 0.75, 0.75, 0.25, over 1.75.
        let filter = Filter::new(4, 0.0, 4.0, 2);
        assert_eq!(filter.spans, [(0, 3), (1, 3)]);
        let third = [3.0 / 7.0, 3.0 / 7.0, 1.0 / 7.0];
        for (weight, expected) in filter.weights[..3].iter().zip(third) {
            assert!((weight - expected as f32).abs() < 1e-6, "{weight} {expected}");
        }
        // 2 → 4: the inner two mix 3 : 1, the outer two are the edge samples.
        let line = [10.0, 20.0].into_iter().chain([0.0; LANES]).collect::<Vec<f32>>();
        let mut out = [0.0; 4];
        Filter::new(2, 0.0, 2.0, 4).apply(&line, 0, &mut out);
        assert_eq!(out, [10.0, 12.5, 17.5, 20.0]);
    }

    #[test]
    fn fractions_sum_to_one_unit_below_one() {
        for (size, start, length) in [
            (1, 0.0, 1.0),
            (3, 0.25, 2.5),
            (1080, 0.0, 1080.0),
            (4320, 17.3, 999.9),
        ] {
            let filter = Filter::new(size, start, length, 128);
            for output in 0..128 {
                let fractions = filter.fractions(output);
                assert_eq!(fractions.len(), filter.spans[output].1);
                assert_eq!(fractions.iter().map(|&f| u32::from(f)).sum::<u32>(), 65_535);
            }
            assert!(filter.range().1 <= size);
        }
    }
}
