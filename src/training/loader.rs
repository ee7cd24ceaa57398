//! Batches of faces, decoded ahead of the step that wants them, in an order that the seed alone decides.
//!
//! Flows in: the batches of an epoch, each a list of samples. Flows out: the same batches with their pictures as the
//! network reads them. Every decoding thread is at most two batches ahead, so memory is bounded; batches come in their
//! order, whichever thread is faster.

use super::corpus::Corpus;
use super::error::TrainError;
use affectmill_base::{INPUT_LEN, INPUT_SIZE};
use affectmill_media::decode;
use affectmill_vision::{Preparer, full_frame};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

/// Pixels of the largest picture that is taken for a face.
const MAX_PIXELS: u64 = 1 << 26;

/// A face to be shown to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Index into the corpus.
    pub sample: usize,
    /// Shown mirrored.
    pub mirrored: bool,
}

/// A batch with its pictures.
pub struct Batch {
    /// Its faces.
    pub draws: Vec<Draw>,
    /// Their pictures, `[N, 3, 128, 128]` normalised RGB.
    pub inputs: Vec<f32>,
}

/// The batches of an epoch, counted from 0: a permutation of the samples (Fisher–Yates over ChaCha8), the first `share` of its
/// batches. Depends on its arguments alone, so a training that goes on finds the same.
pub fn epoch(
    samples: &[usize],
    seed: u64,
    epoch: u64,
    batch: usize,
    share: f64,
    flip: f64,
) -> Vec<Vec<Draw>> {
    let key = Sha256::digest(format!("affectmill train 1\n{seed}\n{epoch}"));
    let mut random = ChaCha8Rng::from_seed(key.into());
    let mut order = samples.to_vec();
    for at in (1..order.len()).rev() {
        let other = (u128::from(random.next_u64()) * (at as u128 + 1)) >> 64;
        order.swap(at, other as usize);
    }
    let batches = order.len().div_ceil(batch);
    let used = ((batches as f64 * share).ceil() as usize).clamp(1, batches.max(1));
    let mut draw = |&sample: &usize| Draw {
        sample,
        mirrored: (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 <= flip && flip > 0.0,
    };
    order
        .chunks(batch)
        .take(used)
        .map(|samples| samples.iter().map(&mut draw).collect())
        .collect()
}

/// The samples in their order, none mirrored, for scoring.
pub fn in_order(samples: &[usize], batch: usize) -> Vec<Vec<Draw>> {
    let plain = |&sample: &usize| Draw {
        sample,
        mirrored: false,
    };
    samples
        .chunks(batch)
        .map(|samples| samples.iter().map(plain).collect())
        .collect()
}

/// Decodes batches ahead.
pub struct Loader {
    threads: Vec<Receiver<Result<Batch, TrainError>>>,
    next: usize,
    batches: usize,
}

impl Loader {
    /// Starts so many threads over the batches. They end with the batches, or when the loader is dropped.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn start(corpus: &Arc<Corpus>, batches: Vec<Vec<Draw>>, threads: usize) -> Result<Self, TrainError> {
        let count = batches.len();
        let threads = threads.clamp(1, count.max(1));
        let mut shares: Vec<Vec<Vec<Draw>>> = vec![Vec::new(); threads];
        for (n, batch) in batches.into_iter().enumerate() {
            shares[n % threads].push(batch);
        }
        let mut receivers = Vec::with_capacity(threads);
        for (n, share) in shares.into_iter().enumerate() {
            let (sender, receiver) = sync_channel(1);
            let corpus = Arc::clone(corpus);
            Builder::new()
                .name(format!("loader {n}"))
                .spawn(move || load(&corpus, share, &sender))
                .map_err(|error| {
                    TrainError::Corpus(format!("the system starts no thread to decode faces: {error}"))
                })?;
            receivers.push(receiver);
        }
        Ok(Self {
            threads: receivers,
            next: 0,
            batches: count,
        })
    }

    /// The next batch; `None` after the last.
    ///
    /// # Errors
    /// [`TrainError::Data`] when a picture cannot be read or is damaged.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Batch>, TrainError> {
        if self.next == self.batches {
            return Ok(None);
        }
        let thread = self.next % self.threads.len();
        self.next += 1;
        let batch = self.threads[thread].recv();
        batch
            .map_err(|_| {
                TrainError::Corpus("a thread that decodes faces ended before its batches did".into())
            })?
            .map(Some)
    }
}

fn load(corpus: &Corpus, batches: Vec<Vec<Draw>>, sender: &SyncSender<Result<Batch, TrainError>>) {
    let mut preparer = Preparer::new();
    for draws in batches {
        let batch = fill(corpus, draws, &mut preparer);
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

fn fill(corpus: &Corpus, draws: Vec<Draw>, preparer: &mut Preparer) -> Result<Batch, TrainError> {
    let mut inputs = vec![0.0; draws.len() * INPUT_LEN];
    for (draw, out) in draws.iter().zip(inputs.chunks_exact_mut(INPUT_LEN)) {
        let bad = |cause: String| TrainError::Data {
            path: corpus.place(draw.sample).into(),
            cause: format!(
                "the picture of {}: {cause}; remove it or make it again",
                corpus.called(draw.sample)
            ),
        };
        let picture = decode::image(&corpus.picture(draw.sample)?, MAX_PIXELS).map_err(bad)?;
        preparer
            .prepare(&picture, &full_frame(&picture), out)
            .map_err(|error| bad(error.to_string()))?;
        if draw.mirrored {
            out.chunks_exact_mut(INPUT_SIZE).for_each(<[f32]>::reverse);
        }
    }
    Ok(Batch { draws, inputs })
}
