//! `affectmill evaluate`.

mod table;

use super::{Failure, exit, opened, print, print_json};
use affectmill_base::{Location, Task};
use affectmill_evaluation::annotations;
use affectmill_evaluation::annotations::{Annotations, LeftOut, PassedOver, Split};
use affectmill_evaluation::calibration;
use affectmill_evaluation::calibration::Samples;
use affectmill_evaluation::evaluate::{By, EvaluateError, Group, Overall, Plan, evaluate};
use affectmill_evaluation::labels::{LabelError, Labels};
use affectmill_evaluation::metrics::{Bootstrap, Decision, Profile, UNITS};
use affectmill_evaluation::pairing::{Account, Missing, PairError, Reference, Rules, Who};
use affectmill_labelset::{CALIBRATION_VERSION, CalibrationRecord, JobRecord, LabelSet, TunedOn, paths};
use affectmill_spec::ModelRecord;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

/// Compare a model's labels with people's annotations: concordance, F1, accuracy, calibration, with intervals.
///
/// Annotations are a folder as ABAW gives them (text files with a header; a file's name is its video's, its header says the
/// task, row i is frame i) or the single file of the multi-task challenges (`image,valence,arousal,expression,aus`). Frames
/// marked invalid (−5, −1) are ignored; other frames that were not compared are listed by reason.
///
/// A file belongs to the video of the same name, ignoring folder and extension. `NAME_left` and `NAME_right` are the left and right
/// of the two largest faces if no video has exactly that name; frames with one face are then skipped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The output: a folder, or s3://bucket/prefix.
    output: OsString,
    /// The annotations: a folder, a single file, or another output (also in S3), whose labels are then the reference: face by
    /// face, where both detected the same.
    #[arg(long, value_name = "PATH")]
    annotations: OsString,
    /// The model. Default: the only one.
    #[arg(long)]
    model: Option<String>,
    /// The model of that other output. Default: of the same name, or the only one.
    #[arg(long, value_name = "MODEL")]
    reference: Option<String>,
    /// The formulas. abaw2: VA mean CCC; EXPR 0.67 macro-F1 + 0.33 accuracy; AU (mean F1 + accuracy) / 2. abaw-mtl: VA the
    /// same; EXPR macro-F1 over 8 classes; AU mean F1; and their sum.
    #[arg(long, value_enum, default_value = "abaw2")]
    profile: Named<Profile>,
    /// Which annotations: the set that the nearest folder names (`Train_Set`, `Validation_Set`, `Test_Set`), or the name of a file of
    /// many videos (`training_set_annotations.txt`). Without such a name, and with `all`, all but the test set are read.
    #[arg(long, value_enum, default_value = "validation")]
    split: Named<Split>,
    /// Which of several faces is the annotated person, if the name does not say.
    #[arg(long, value_enum, default_value = "largest")]
    person: Named<Who>,
    /// A frame without the person's face: skip it, or repeat the previous label as ABAW submissions do.
    #[arg(long, value_enum, default_value = "skip")]
    missing: Named<Missing>,
    /// An action unit is active where its logit is above; 0 is p > 0.5. The paper's published practice is 0.5, p > 0.622.
    #[arg(long, value_name = "LOGIT", default_value_t = 0.0, allow_negative_numbers = true, conflicts_with_all = ["apply", "tune"])]
    au_threshold: f64,
    /// Also tune temperature and thresholds on these annotations, and write them [default: WEIGHTS.calibration.json beside the
    /// model's weights].
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    tune: Option<Option<PathBuf>>,
    /// Apply a temperature and thresholds that were tuned before [default file: as of --tune].
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, conflicts_with = "tune")]
    apply: Option<Option<PathBuf>>,
    /// Also show the figures of each video, or of each track.
    #[arg(long, value_enum)]
    by: Option<Named<By>>,
    /// Resamples of the 95 % intervals, which are drawn over videos; 0 for none.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    samples: u32,
    /// Seed of the resamples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A choice on the command line.
#[derive(Clone, Copy, Debug)]
struct Named<T>(T);

macro_rules! choices {
    ($type:ident: $($variant:ident = $name:literal),+) => {
        impl ValueEnum for Named<$type> {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Named($type::$variant)),+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                let name = match self.0 {
                    $($type::$variant => $name),+
                };
                Some(PossibleValue::new(name))
            }
        }
    };
}

choices!(Profile: Abaw2 = "abaw2", AbawMtl = "abaw-mtl");
choices!(Split: Train = "train", Validation = "validation", Test = "test", All = "all");
choices!(Who: Largest = "largest", LongestTrack = "longest-track");
choices!(Missing: Skip = "skip", Repeat = "repeat");
choices!(By: Video = "video", Track = "track");

impl<T> Named<T>
where
    Self: ValueEnum,
{
    fn name(&self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// The evaluation as it is printed.
#[derive(Serialize)]
struct Report {
    labels: String,
    /// Whether the label set and the reference are complete.
    finished: bool,
    model: String,
    weights: Vec<String>,
    untrained: bool,
    annotations: String,
    #[serde(flatten)]
    against: Against,
    profile: Profile,
    bootstrap: Bootstrap,
    temperature: f64,
    au_thresholds: [f64; UNITS],
    /// Where temperature and thresholds come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration: Option<String>,
    figures: Vec<Overall>,
    frames: BTreeMap<Task, Account>,
    /// Faces compared whose annotated expression is `Other`.
    other_expressions: u64,
    without_labels: Vec<String>,
    without_annotations: Vec<String>,
    unknown_units: Vec<String>,
    /// Annotation files that were skipped, by their set.
    left_out: LeftOut,
    /// Text files that are no annotations.
    passed_over: Vec<PassedOver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<By>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tuned: Option<Tuned>,
}

/// The reference of the comparison.
#[derive(Serialize)]
#[serde(untagged)]
enum Against {
    Annotations {
        split: Split,
        #[serde(flatten)]
        rules: Rules,
    },
    Labels {
        #[serde(rename = "reference")]
        model: String,
    },
}

impl Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotations { split, .. } => f.write_str(&Named(*split).name()),
            Self::Labels { model } => f.write_str(model),
        }
    }
}

/// The tuned calibration and its file.
#[derive(Serialize)]
struct Tuned {
    file: String,
    #[serde(flatten)]
    record: CalibrationRecord,
}

/// What a model said in a label set; without a name the only one.
fn labels_of<'a>(set: &'a LabelSet, model: Option<&str>) -> Result<Labels<'a>, Failure> {
    Labels::of(set, model).map_err(|error| match error {
        LabelError::Set(error) if !error.is_usage() => Failure::stopped(error),
        error => Failure::usage(error),
    })
}

/// Whether a location is a label set, not a folder of annotations.
fn is_label_set(place: &OsStr) -> bool {
    place.to_string_lossy().starts_with("s3://") || Path::new(place).join(paths::JOB).is_file()
}

pub fn run(args: Args) -> Result<u8, Failure> {
    let set = opened(&args.output)?;
    let labels = labels_of(&set, args.model.as_deref())?;
    let model = labels.model();
    let file = |given: &Option<PathBuf>| calibration_file(given.as_deref(), set.job(), model);
    let apply = args.apply.as_ref().map(file).transpose()?;
    let tune_into = args.tune.as_ref().map(file).transpose()?;
    let mut decision = Decision::default();
    decision.thresholds.fill(args.au_threshold);
    if let Some(path) = &apply {
        decision = calibration::decision(&calibration::read(path, model).map_err(Failure::usage)?);
    }
    let plan = Plan {
        profile: args.profile.0,
        decision,
        bootstrap: Bootstrap {
            samples: args.samples as usize,
            seed: args.seed,
        },
        by: args.by.map(|by| by.0),
    };
    let mut samples = Samples::default();
    let tuning = tune_into.is_some().then_some(&mut samples);
    let mut finished = set.is_finished().map_err(Failure::stopped)?;
    let (against, evaluation, annotations) = if is_label_set(&args.annotations) {
        let other = opened(&args.annotations)?;
        finished &= other.is_finished().map_err(Failure::stopped)?;
        let same = Some(&model.name).filter(|name| other.model(name).is_some());
        let reference = labels_of(&other, args.reference.as_ref().or(same).map(String::as_str))?;
        let against = Against::Labels {
            model: reference.model().name.clone(),
        };
        let evaluation = evaluate(&labels, Reference::Labels(&reference), &plan, tuning);
        (against, evaluation, Annotations::default())
    } else {
        if args.reference.is_some() {
            let message = "--reference names a model of another output, and the annotations are none";
            return Err(Failure::usage(message));
        }
        let rules = Rules {
            person: args.person.0,
            missing: args.missing.0,
        };
        let path = Path::new(&args.annotations);
        let annotations = annotations::read(path, args.split.0).map_err(Failure::usage)?;
        let against = Against::Annotations {
            split: annotations.split,
            rules,
        };
        let evaluation = evaluate(
            &labels,
            Reference::Annotations(&annotations, rules),
            &plan,
            tuning,
        );
        (against, evaluation, annotations)
    };
    let evaluation = evaluation.map_err(failure)?;
    let tuned = tune_into.map(|path| tune(&args, &set, model, &against, &samples, path));
    let accounts = evaluation.ledger.accounts;
    let report = Report {
        labels: set.store().root().to_string(),
        finished,
        model: model.name.clone(),
        weights: model.weights().map(String::from).collect(),
        untrained: model.untrained,
        annotations: args.annotations.to_string_lossy().into(),
        against,
        profile: plan.profile,
        bootstrap: plan.bootstrap,
        temperature: plan.decision.temperature,
        au_thresholds: plan.decision.thresholds,
        calibration: apply.map(|path| path.display().to_string()),
        figures: evaluation.figures,
        frames: evaluation
            .tasks
            .iter()
            .map(|task| (*task, accounts[*task as usize]))
            .collect(),
        other_expressions: evaluation.others,
        without_labels: evaluation.ledger.without_labels,
        without_annotations: evaluation.ledger.without_annotations,
        unknown_units: annotations.unknown_units,
        left_out: annotations.left_out,
        passed_over: annotations.passed_over,
        by: plan.by,
        groups: evaluation.groups,
        tuned: tuned.transpose()?,
    };
    if args.json {
        print_json(&report)?
    } else {
        print(table::render(&report))?
    }
    Ok(exit::OK)
}

/// Unreadable labels stop the command; every other error is in its arguments.
fn failure(error: EvaluateError) -> Failure {
    match error {
        EvaluateError::Pair(PairError::Labels(_)) => Failure::stopped(error),
        _ => Failure::usage(error),
    }
}

/// Path of the calibration: as given, or beside the model's weights.
fn calibration_file(given: Option<&Path>, job: &JobRecord, model: &ModelRecord) -> Result<PathBuf, Failure> {
    let spec = job.job.models.iter().find(|spec| spec.name == model.name);
    match (given, spec.map(|spec| &spec.weights)) {
        (Some(path), _) => Ok(path.into()),
        (None, Some(Location::Local(weights))) => Ok(calibration::beside(weights, model)),
        (None, weights) => Err(Failure::usage(format!(
            "the weights of `{}` are not on this machine's disks{}: name the calibration's file, as in --tune=FILE or \
             --apply=FILE",
            model.name,
            weights.map(|at| format!(" ({at})")).unwrap_or_default()
        ))),
    }
}

fn tune(
    args: &Args,
    set: &LabelSet,
    model: &ModelRecord,
    against: &Against,
    samples: &Samples,
    path: PathBuf,
) -> Result<Tuned, Failure> {
    let record = CalibrationRecord {
        version: CALIBRATION_VERSION,
        affectmill: env!("CARGO_PKG_VERSION").into(),
        model: model.name.clone(),
        weights: model.weights().map(String::from).collect(),
        flip: model.flip,
        outputs: model.outputs.clone(),
        tuned_on: TunedOn {
            labels: args.output.to_string_lossy().into(),
            fingerprint: set.job().fingerprint.to_string(),
            annotations: args.annotations.to_string_lossy().into(),
            which: against.to_string(),
        },
        expression: samples.temperature(),
        units: samples.thresholds(),
    };
    if record.expression.is_none() && record.units.is_empty() {
        let message = "nothing to tune: no annotated expression and no active action unit was compared";
        return Err(Failure::usage(message));
    }
    if path.exists() && !calibration::is_one(&path) {
        return Err(Failure::usage(format!(
            "{} is there and is no calibration, and would be lost; name another file: --tune=FILE",
            path.display()
        )));
    }
    calibration::write(&path, &record).map_err(Failure::stopped)?;
    Ok(Tuned {
        file: path.display().to_string(),
        record,
    })
}
