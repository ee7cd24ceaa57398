//! A network of somebody's own, as a TorchScript module (`torch.jit.save`).
//!
//! A module is a program. libtorch's interpreter runs it, not Python, and this is the one place where anything of a weight
//! file is run: in a worker process, and only where the job says `kind = "torchscript"`. [`describe_script`], which the
//! coordinator calls, reads the archive's table of contents and hashes the file.

use super::error::gist;
use crate::{Device, ModelError, Network, WeightFile};
use affectmill_base::INPUT_SIZE;
use affectmill_base::NamedOutputs;
use std::io::Cursor;
use std::path::Path;
use tch::{CModule, IValue, Kind, TchError, Tensor};
use zip::ZipArchive;

/// Faces that a module sees at once, always: what libraries choose by the shape of a batch is then always chosen alike.
const FACES: i64 = 32;
/// By so much of its size, or of 1, a number may differ with the face's place in the batch.
const UNSTEADY: f64 = 1e-2;

const SAVE: &str =
    "save it with `torch.jit.save(torch.jit.script(network.eval()), FILE)`, by PyTorch 2.11 or earlier";
const SHAPES: &str = "its `forward` must take faces as float32 [N, 3, 128, 128], RGB normalised as for ImageNet, and give [N, outputs]";

/// SHA-256 of a TorchScript file, 64 lower-case hex digits, once it is known to be one. None of it is run.
///
/// # Errors
/// [`ModelError::File`] when it is something else.
pub fn describe_script(file: &WeightFile) -> Result<String, ModelError> {
    let archive = ZipArchive::new(Cursor::new(file.bytes()));
    let names = archive.as_ref().map(|archive| archive.file_names());
    let has_code = names.is_ok_and(|mut names| names.any(|name| name.contains("/code/")));
    if !has_code {
        return Err(ModelError::file(file.path(), "is no TorchScript file", SAVE));
    }
    Ok(file.sha256().to_owned())
}

/// A loaded module.
pub(super) struct Script {
    module: CModule,
    /// `[outputs]` int64: where each output stands in what the module gives.
    columns: Tensor,
    width: i64,
}

impl Network {
    /// Loads a TorchScript file onto a device and tries it on two batches. `names` are those of its outputs, as
    /// [`NamedOutputs::new`] takes them; rows have them in the order of the tasks.
    ///
    /// # Errors
    /// [`ModelError::File`] when the names are not whole, when libtorch cannot load or run it, when it gives another count of numbers, or when what it gives
    /// for a face hangs on the other faces of the batch; [`ModelError::Device`].
    pub fn load_script(file: &WeightFile, names: &[String], device: Device) -> Result<Self, ModelError> {
        device.require()?;
        let path = file.path();
        let outputs = NamedOutputs::new(names).map_err(|_| {
            let remedy = "name each of its numbers in `outputs`, all of a task or none";
            ModelError::file(path, "its outputs are not named whole", remedy)
        })?;
        let _no_grad = tch::no_grad_guard();
        let script = Script::load(file, &outputs, device)?;
        script.check(path, device)?;
        Ok(Self::of_script(script, outputs.columns().len(), device))
    }
}

impl Script {
    fn load(file: &WeightFile, outputs: &NamedOutputs, device: Device) -> Result<Self, ModelError> {
        let refused = |cause: TchError| {
            let cause = format!("libtorch cannot load it: {}", gist(&cause));
            ModelError::file(file.path(), cause, SAVE)
        };
        let mut module = CModule::load_data_on_device(&mut file.bytes(), device.tch()).map_err(refused)?;
        module.f_set_eval().map_err(refused)?;
        let columns: Vec<i64> = outputs.columns().iter().map(|&column| column as i64).collect();
        let columns = Tensor::f_from_slice(&columns).and_then(|columns| columns.f_to_device(device.tch()));
        Ok(Self {
            module,
            columns: columns.map_err(ModelError::torch("preparing the outputs"))?,
            width: outputs.width() as i64,
        })
    }

    /// Whether it takes faces, gives as many numbers as are named, and looks at each face by itself.
    fn check(&self, path: &Path, device: Device) -> Result<(), ModelError> {
        let torch = ModelError::torch;
        let [first, last] = trials(device).map_err(torch("making faces to try a module on"))?;
        let given = self.run(&first).map_err(|cause| {
            let cause = format!("cannot be run on {FACES} faces: {}", gist(&cause));
            ModelError::file(path, cause, SHAPES)
        })?;
        match given.size()[..] {
            [FACES, width] if width == self.width => {}
            [FACES, width] => {
                let cause = format!(
                    "gives {width} numbers a face, and the job names {} outputs",
                    self.width
                );
                let remedy =
                    "name every number in `outputs`, in order, and \"_\" for those that are to be left out";
                return Err(ModelError::file(path, cause, remedy));
            }
            ref shape => {
                let cause = format!("gives {shape:?} for {FACES} faces");
                return Err(ModelError::file(path, cause, SHAPES));
            }
        }
        // A module may give a tensor that lies on another device.
        let _rows = given.f_index_select(1, &self.columns).map_err(|cause| {
            let cause = format!("gives numbers that cannot be used: {}", gist(&cause));
            ModelError::file(path, cause, "give them on the device of the faces")
        })?;
        let apart = || -> Result<bool, TchError> {
            let row = |batch: &Tensor, at| Vec::<f64>::try_from(batch.f_get(at)?.f_to_kind(Kind::Double)?);
            let (alone, among) = (row(&given, 0)?, row(&self.run(&last)?, FACES - 1)?);
            let mut pairs = alone.iter().zip(&among);
            // What is no number in both is found where rows are written, which names the face.
            Ok(
                pairs
                    .any(|(a, b)| !((a - b).abs() <= UNSTEADY * (1.0 + a.abs()) || a.is_nan() && b.is_nan())),
            )
        };
        if apart().map_err(torch("trying a module"))? {
            let cause = "gives other numbers for the same face among other faces, or by chance";
            let remedy = "call `network.eval()` before it is scripted or traced, so that batch norm and dropout are at rest";
            return Err(ModelError::file(path, cause, remedy));
        }
        Ok(())
    }

    /// `[N, 3, 128, 128]` f32 to `[N, outputs]` f32.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let faces = x.size()[0];
        let mut rows = Vec::new();
        for at in (0..faces).step_by(FACES as usize) {
            let count = FACES.min(faces - at);
            let mut batch = x.f_narrow(0, at, count)?;
            if count < FACES {
                let side = INPUT_SIZE as i64;
                let rest = Tensor::f_zeros([FACES - count, 3, side, side], (batch.kind(), batch.device()))?;
                batch = Tensor::f_cat(&[batch, rest], 0)?;
            }
            let given = self.run(&batch)?;
            if given.size() != [FACES, self.width] {
                let cause = format!(
                    "the module gave {:?}, not [{FACES}, {}]",
                    given.size(),
                    self.width
                );
                return Err(TchError::Shape(cause));
            }
            rows.push(given.f_narrow(0, 0, count)?);
        }
        Tensor::f_cat(&rows, 0)?.f_index_select(1, &self.columns)
    }

    /// Runs the module on a whole batch; tensors of a tuple, list or dict are put side by side.
    fn run(&self, batch: &Tensor) -> Result<Tensor, TchError> {
        // Else the first runs are watched and later ones optimised by what was seen, in another order of operations. A setting
        // of the thread.
        tch::jit::f_set_graph_executor_optimize(false)?;
        let given = self.module.forward_is(&[IValue::Tensor(batch.shallow_clone())])?;
        let mut tensors = Vec::new();
        take_tensors(given, &mut tensors)?;
        let columns = tensors.iter().map(|tensor| {
            // A tensor of one number a face may lack the second dimension.
            let tensor = match tensor.dim() {
                1 => tensor.f_unsqueeze(1)?,
                _ => tensor.shallow_clone(),
            };
            tensor.f_to_kind(Kind::Float)
        });
        Tensor::f_cat(&columns.collect::<Result<Vec<_>, _>>()?, 1)
    }
}

/// Two batches: the same face first of one, before zeros, and last of the other, after others.
fn trials(device: Device) -> Result<[Tensor; 2], TchError> {
    let side = INPUT_SIZE as i64;
    let count = FACES * 3 * side * side;
    // A low-discrepancy sequence: no random state is touched.
    let noise = Tensor::f_arange(count, (Kind::Double, tch::Device::Cpu))?
        .f_mul_scalar(0.618_033_988_749_895)?
        .f_frac()?
        .f_mul_scalar(2.0)?
        .f_sub_scalar(1.0)?;
    // Each brighter than the one before, so that what is normalised over the batch shows.
    let brightness = Tensor::f_arange(FACES, (Kind::Double, tch::Device::Cpu))?.f_div_scalar(FACES / 2)?;
    let noise = noise
        .f_view([FACES, 3, side, side])?
        .f_add(&brightness.f_view([FACES, 1, 1, 1])?)?
        .f_to_kind(Kind::Float)?
        .f_to_device(device.tch())?;
    let face = noise.f_narrow(0, FACES - 1, 1)?;
    let zeros = noise.f_narrow(0, 1, FACES - 1)?.f_zeros_like()?;
    Ok([Tensor::f_cat(&[face, zeros], 0)?, noise])
}

fn take_tensors(given: IValue, into: &mut Vec<Tensor>) -> Result<(), TchError> {
    match given {
        IValue::Tensor(tensor) => into.push(tensor),
        IValue::TensorList(tensors) => into.extend(tensors),
        IValue::Tuple(values) | IValue::GenericList(values) => {
            for value in values {
                take_tensors(value, into)?;
            }
        }
        IValue::GenericDict(entries) => {
            for (_, value) in entries {
                take_tensors(value, into)?;
            }
        }
        _ => {
            let cause = "it gives something other than a tensor, or a tuple, list or dict of tensors";
            return Err(TchError::Shape(cause.into()));
        }
    }
    Ok(())
}
