//! `affectmill import-weights`.

use super::{Failure, exit, print};
use affectmill_base::{Crop, ModelKind};
use affectmill_nn as model;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use std::path::PathBuf;

/// Convert a PyTorch checkpoint (.pt, .pth, Lightning .ckpt) or safetensors file to the weights a job names.
///
/// A file that ends in .onnx must be CenterFace, the face detector; a Keras HDF5 file must be mini-Xception, the small expression
/// network.
///
/// Nothing in the file is executed. Both spellings of torchvision's keys are accepted; a tensor that does not fit is an error with its name
/// and shape.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The checkpoint.
    source: PathBuf,
    /// Kind of the model; default: by its heads. `teacher_va` on a student keeps only that head.
    #[arg(long)]
    kind: Option<Kind>,
    /// Crop recipe of the model's training faces; required by jobs that detect faces. Aff-Wild2's `cropped_aligned` is arcface112.
    /// Default: the one recorded in the source, if it is safetensors.
    #[arg(long, value_name = "RECIPE")]
    crop: Option<Recipe>,
    /// Where to write safetensors.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// A model kind on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Kind(pub ModelKind);

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        const KINDS: [Kind; 5] = [
            Kind(ModelKind::Student),
            Kind(ModelKind::TeacherVa),
            Kind(ModelKind::TeacherExpr),
            Kind(ModelKind::TeacherAu),
            Kind(ModelKind::MiniXception),
        ];
        &KINDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

/// A crop recipe on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Recipe(pub Crop);

impl ValueEnum for Recipe {
    fn value_variants<'a>() -> &'a [Self] {
        const RECIPES: [Recipe; 3] = [Recipe(Crop::Arcface112), Recipe(Crop::Square), Recipe(Crop::Box)];
        &RECIPES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

pub fn run(args: Args) -> Result<u8, Failure> {
    if args
        .source
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
    {
        return detector(&args);
    }
    let kind = args.kind.map(|kind| kind.0);
    let imported = model::import_weights(&args.source, kind, args.crop.map(|crop| crop.0), &args.output)
        .map_err(Failure::usage)?;
    if !imported.ignored.is_empty() {
        print(format!("left out: {}", imported.ignored.join(", ")))?;
    }
    print(format!(
        "{} with {} tensors from {} {}: {}",
        imported.kind.name(),
        imported.tensors,
        imported.source_format,
        args.source.display(),
        args.output.display()
    ))?;
    Ok(exit::OK)
}

fn detector(args: &Args) -> Result<u8, Failure> {
    if let Some(Kind(kind)) = args.kind {
        let message = "an ONNX file is taken for the face detector, which has no kind; leave --kind out";
        return Err(Failure::usage(format!("--kind {}: {message}", kind.name())));
    }
    if args.crop.is_some() {
        let message =
            "an ONNX file is taken for the face detector, which sees whole pictures; leave --crop out";
        return Err(Failure::usage(message));
    }
    let tensors = model::import_detector(&args.source, &args.output).map_err(Failure::usage)?;
    print(format!(
        "{} with {tensors} tensors from ONNX {}: {}",
        model::DETECTOR_ARCHITECTURE,
        args.source.display(),
        args.output.display()
    ))?;
    Ok(exit::OK)
}
