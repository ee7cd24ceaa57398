//! Prepared faces in, outputs of every model out: one batch for each way of cropping, shared by the models that want it.
//!
//! An output does not depend on the other faces of its batch, so whoever fills batches may cut them anywhere.

use affectmill_base::INPUT_LEN;
use affectmill_base::{Crop, NetworkKind, Task};
use affectmill_nn::{Batch, Device, ModelError, Network, Sample, WeightFile};
use affectmill_spec::{Job, ModelSpec};

/// The models of a job on one device, and the batches they share.
pub struct Engine {
    models: Vec<Model>,
    crops: Vec<Crop>,
    /// One for each of `crops`, all equally full.
    batches: Vec<Batch>,
}

struct Model {
    tasks: &'static [Task],
    /// One, or the members of an ensemble.
    networks: Vec<Network>,
    /// Whether each member also sees every face mirrored.
    flip: bool,
    /// Which batch it reads.
    batch: usize,
}

impl Engine {
    /// Loads the models, in job order. `weights` is asked for their files one by one, those of each model's members in
    /// turn, so that one file is in memory at a time.
    ///
    /// # Errors
    /// [`ModelError`] when a weight file does not fit, or the device has no room; what `weights` says.
    pub fn load<E: From<ModelError>>(
        job: &Job,
        device: Device,
        mut weights: impl FnMut(&ModelSpec) -> Result<WeightFile, E>,
    ) -> Result<Self, E> {
        let crops = job.crops();
        let mut models = Vec::with_capacity(job.models.len());
        for model in &job.models {
            let crop = job.crop_of(model);
            let members = model.all_weights();
            let networks = members.map(|_| Ok(load(model, &weights(model)?, device)?));
            models.push(Model {
                tasks: model.tasks(),
                networks: networks.collect::<Result<_, E>>()?,
                flip: model.flip,
                batch: crops.iter().position(|other| *other == crop).unwrap_or(0),
            });
        }
        let batch = |_: &Crop| Batch::new(job.run.batch, device);
        let batches: Result<_, ModelError> = crops.iter().map(batch).collect();
        Ok(Self {
            models,
            batches: batches?,
            crops,
        })
    }

    /// The recipes by which each face is cropped, in the order in which [`push`](Self::push) takes the crops.
    pub fn crops(&self) -> &[Crop] {
        &self.crops
    }

    /// Numbers of one face, all its crops together.
    pub fn input_len(&self) -> usize {
        self.crops.len() * INPUT_LEN
    }

    /// Faces a batch holds.
    pub fn capacity(&self) -> usize {
        self.batches[0].capacity()
    }

    /// Whether the batch must be run before another face fits.
    pub fn is_full(&self) -> bool {
        self.batches[0].len() == self.capacity()
    }

    /// Adds a prepared face: for each of [`crops`](Self::crops) planar RGB `[3, 128, 128]` f32, normalised.
    ///
    /// # Errors
    /// [`ModelError`] when the sample has another length or the batch is full, nothing is added then; or when the GPU fails.
    pub fn push(&mut self, sample: &Sample) -> Result<(), ModelError> {
        match sample {
            Sample::Host(values) => {
                if values.len() != self.input_len() {
                    let (found, crops) = (values.len(), self.crops.len());
                    let cause =
                        format!("a sample of {found} values where {crops} × {INPUT_LEN} are expected");
                    return Err(ModelError::Batch(cause));
                }
                let crops = values.chunks_exact(INPUT_LEN);
                self.batches
                    .iter_mut()
                    .zip(crops)
                    .try_for_each(|(batch, crop)| batch.push(crop))
            }
            Sample::Gpu(crops) => self
                .batches
                .iter_mut()
                .enumerate()
                .try_for_each(|(n, batch)| batch.take(crops, n)),
        }
    }

    /// Whether a model reads batches in halves by now, because the GPU had no memory for a whole one.
    pub fn halves(&self) -> bool {
        self.models
            .iter()
            .flat_map(|model| &model.networks)
            .any(Network::halves)
    }

    /// Throws away what was pushed.
    pub fn clear(&mut self) {
        self.batches.iter_mut().for_each(Batch::clear);
    }

    /// Runs every model over its batch and empties them. A batch takes as long as all looks of all models together, so
    /// `looked` is called after each.
    ///
    /// # Errors
    /// [`ModelError`] when libtorch refuses; the batches are kept.
    pub fn run(&mut self, view_done: &dyn Fn()) -> Result<Outputs, ModelError> {
        let mut models = Vec::with_capacity(self.models.len());
        if !self.batches[0].is_empty() {
            for model in &self.models {
                models.push(model.run(&self.batches[model.batch], view_done)?);
            }
        }
        self.clear();
        Ok(Outputs { models })
    }
}

impl Model {
    /// Width and row-major `[faces, width]` values: the outputs of the only look at each face; or for each task their means
    /// over all looks, then their standard deviations (of the population of looks).
    fn run(&self, batch: &Batch, view_done: &dyn Fn()) -> Result<(usize, Vec<f32>), ModelError> {
        let mut views = Vec::with_capacity(2 * self.networks.len());
        for network in &self.networks {
            views.push(network.look(batch, false, view_done)?);
            if self.flip {
                views.push(network.look(batch, true, view_done)?);
            }
        }
        let width = self.tasks.iter().map(|task| task.outputs().len()).sum();
        match views.len() {
            1 => Ok((width, views.remove(0))),
            _ => Ok((2 * width, self.join(&views))),
        }
    }

    fn join(&self, views: &[Vec<f32>]) -> Vec<f32> {
        let mut joined = Vec::with_capacity(2 * views[0].len());
        let tasks = self.tasks.iter().map(|task| task.outputs().len());
        let widths: Vec<usize> = tasks.collect();
        let mut at = 0;
        while at < views[0].len() {
            for width in &widths {
                let moments = (at..at + width).map(|n| mean_and_deviation(views.iter().map(|look| look[n])));
                let (means, deviations): (Vec<f32>, Vec<f32>) = moments.unzip();
                joined.extend(means);
                joined.extend(deviations);
                at += width;
            }
        }
        joined
    }
}

/// One member of a model.
fn load(model: &ModelSpec, file: &WeightFile, device: Device) -> Result<Network, ModelError> {
    match model.kind {
        NetworkKind::Own(kind) => Network::load(file, kind, model.precision, device),
        NetworkKind::TorchScript => Network::load_script(file, &model.outputs, device),
    }
}

/// Computed in double precision, in the order of the looks.
fn mean_and_deviation(values: impl ExactSizeIterator<Item = f32> + Clone) -> (f32, f32) {
    let count = values.len() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let squares = values.map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>();
    (mean as f32, (squares / count).sqrt() as f32)
}

/// What the models say of the faces of one batch.
pub struct Outputs {
    /// Width and row-major `[faces, width]` values of each model.
    models: Vec<(usize, Vec<f32>)>,
}

impl Outputs {
    /// Raw outputs of each model, in job order, for the `n`-th face of the batch.
    pub fn face(&self, n: usize) -> Vec<&[f32]> {
        self.models
            .iter()
            .map(|(width, values)| &values[n * width..(n + 1) * width])
            .collect()
    }
}
