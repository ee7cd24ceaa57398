//! The faces of a training: where each picture lies, and what is known of it. Pictures are not opened here.
//!
//! Flows in: the tar shards of crops that `run` kept, with teachers' labels in their JSON; folders of numbered images;
//! people's annotations. Flows out: samples in the order of video, frame and face, so that the same files give the same
//! training. A face without any label of the kind's tasks is left out.

use super::archives::Archives;
use super::error::TrainError;
use super::labels::{Human, Labels, Teacher};
use super::split;
use crate::dataset::paths::{self, SampleName};
use crate::domain::{ACTION_UNITS, Crop, EXPRESSIONS, ModelKind, Task, VALENCE_AROUSAL};
use crate::spec::TrainJob;
use crate::train::annotations::{self, Annotations, Split};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// No picture of a face is larger.
const MAX_BYTES: u64 = 1 << 26;
/// Image 00001 is frame 0, as in Aff-Wild2.
const IMAGE_BASE: u64 = 1;

/// One face.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Index among [`Corpus::videos`].
    pub video: usize,
    /// Frame of the video.
    pub frame: u64,
    /// Index of the face within the frame.
    pub face: i32,
    /// What is known of it.
    pub labels: Labels,
    place: Place,
}

/// Where a picture lies.
#[derive(Clone, Debug)]
enum Place {
    /// Bytes of an archive, by its index among [`Corpus::archives`].
    Member { archive: usize, start: u64, length: u64 },
    /// A file.
    File(PathBuf),
}

/// All faces that can be trained on or scored.
pub struct Corpus {
    /// Names of the videos, in order: keys of those that crops were cut from, paths of folders of images.
    pub videos: Vec<String>,
    /// Which videos are held out.
    pub held_out: Vec<bool>,
    /// The faces, by video, frame, face.
    pub samples: Vec<Sample>,
    /// How the faces were cropped.
    pub crop: Option<String>,
    /// What is not as one might think; training goes on.
    pub warnings: Vec<String>,
    archives: Archives,
}

impl Corpus {
    /// Finds the faces of a job and their labels, and splits them by video.
    ///
    /// # Errors
    /// [`TrainError`]: something cannot be read or is damaged, nothing is there, or the split would leak.
    pub fn read(job: &TrainJob) -> Result<Self, TrainError> {
        let mut corpus = Self {
            videos: Vec::new(),
            held_out: Vec::new(),
            samples: Vec::new(),
            crop: None,
            warnings: Vec::new(),
            archives: Archives::default(),
        };
        let mut names = BTreeMap::new();
        if let Some(crops) = &job.data.crops {
            corpus.read_crops(crops, job, &mut names)?;
        }
        if let Some(images) = &job.data.images {
            corpus.read_images(images, &mut names)?;
        }
        corpus.name(names);
        let people = match &job.data.annotations {
            Some(folder) => annotations::read(folder, Split::All)?,
            None => Annotations::default(),
        };
        corpus.annotate(&people)?;
        let kind = job.kind();
        corpus.keep_labelled(kind)?;
        corpus.held_out = split::held_out(&corpus.videos, job)?;
        corpus.warn(kind);
        Ok(corpus)
    }

    /// The samples of the videos that are held out, or of the others.
    pub fn side(&self, held_out: bool) -> Vec<usize> {
        let of = |index: &usize| self.held_out[self.samples[*index].video] == held_out;
        (0..self.samples.len()).filter(of).collect()
    }

    /// How a face is called in messages.
    pub fn called(&self, sample: usize) -> String {
        let Sample {
            video, frame, face, ..
        } = &self.samples[sample];
        format!("`{}` frame {frame} face {face}", self.videos[*video])
    }

    /// The bytes of a face's picture.
    ///
    /// # Errors
    /// [`TrainError::Data`] when they cannot be read.
    pub fn picture(&self, sample: usize) -> Result<Vec<u8>, TrainError> {
        let mut bytes = Vec::new();
        match &self.samples[sample].place {
            Place::Member {
                archive,
                start,
                length,
            } => {
                bytes.resize(*length as usize, 0);
                self.archives.read(*archive, *start, &mut bytes)?;
            }
            Place::File(path) => {
                let file = File::open(path).map_err(TrainError::data(path))?;
                file.take(MAX_BYTES)
                    .read_to_end(&mut bytes)
                    .map_err(TrainError::data(path))?;
            }
        }
        Ok(bytes)
    }

    /// Where a face's picture lies, for messages.
    pub fn place(&self, sample: usize) -> &Path {
        match &self.samples[sample].place {
            Place::Member { archive, .. } => self.archives.path(*archive),
            Place::File(path) => path,
        }
    }

    /// A hash over everything that training sees of the corpus but the pixels: names, sides, labels, sizes.
    pub fn identity(&self) -> String {
        let mut hasher = Sha256::new();
        for (video, held_out) in self.videos.iter().zip(&self.held_out) {
            hasher.update(format!("{video}\n{held_out}\n"));
        }
        for sample in &self.samples {
            let Sample {
                video,
                frame,
                face,
                labels,
                place,
            } = sample;
            let bytes = match place {
                Place::Member { length, .. } => *length,
                Place::File(_) => 0,
            };
            hasher.update(format!("{video} {frame} {face} {bytes} {labels:?}\n"));
        }
        hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn read_crops(
        &mut self,
        crops: &Path,
        job: &TrainJob,
        names: &mut BTreeMap<String, usize>,
    ) -> Result<(), TrainError> {
        for path in files(crops, &["tar"])? {
            let (archive, file) = self.archives.add(&path).map_err(TrainError::data(&path))?;
            self.read_archive((archive, &file), job, names)
                .map_err(|cause| TrainError::Data { path, cause })?;
        }
        let set = crops.parent().unwrap_or(crops);
        if set.join(paths::JOB).is_file() && !set.join(paths::SUCCESS).exists() {
            self.warnings.push(format!(
                "the labels in {} are not finished, and faces may be missing: run that job to its end first",
                set.display()
            ));
        }
        match self.archives.is_empty() {
            false => Ok(()),
            true => Err(TrainError::Data {
                path: crops.into(),
                cause: "holds no tar file; name the folder `crops` of a run with `[output] crops = \"webdataset\"`".into(),
            }),
        }
    }

    fn read_archive(
        &mut self,
        (archive, file): (usize, &File),
        job: &TrainJob,
        names: &mut BTreeMap<String, usize>,
    ) -> Result<(), String> {
        let broken =
            |error: std::io::Error| format!("is no whole tar file ({error}); make or fetch it again");
        let mut pictures: BTreeMap<(String, u64, i32), (u64, u64)> = BTreeMap::new();
        let mut texts: BTreeMap<(String, u64, i32), Map<String, Value>> = BTreeMap::new();
        for member in tar::Archive::new(file).entries_with_seek().map_err(broken)? {
            let mut member = member.map_err(broken)?;
            let path = member.path_bytes().into_owned();
            let Some(name) = std::str::from_utf8(&path).ok().and_then(SampleName::parse) else {
                continue;
            };
            let key = (name.video.to_owned(), name.frame, name.face);
            if name.ending == "jpg" {
                if member.size() > MAX_BYTES {
                    return Err(format!("`{name}` has {} bytes, which no face has", member.size()));
                }
                pictures.insert(key, (member.raw_file_position(), member.size()));
            } else {
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).map_err(broken)?;
                let text = serde_json::from_slice(&bytes).map_err(|error| format!("`{name}`: {error}"))?;
                texts.insert(key, text);
            }
        }
        for ((video, frame, face), (start, length)) in pictures {
            let Some(text) = texts.remove(&(video.clone(), frame, face)) else {
                return Err(format!(
                    "frame {frame} of `{video}` has a crop without JSON; make the shard again"
                ));
            };
            let labels = Labels {
                human: Human::default(),
                teacher: teacher(&text, job)
                    .map_err(|cause| format!("frame {frame} of `{video}`: {cause}"))?,
            };
            self.take_crop(text.get("crop").and_then(Value::as_str))?;
            let next = names.len();
            self.samples.push(Sample {
                video: *names.entry(video).or_insert(next),
                frame,
                face,
                labels,
                place: Place::Member {
                    archive,
                    start,
                    length,
                },
            });
        }
        Ok(())
    }

    fn take_crop(&mut self, crop: Option<&str>) -> Result<(), String> {
        match (&self.crop, crop) {
            (None, Some(crop)) => self.crop = Some(crop.into()),
            (Some(first), Some(crop)) if first != crop => {
                return Err(format!(
                    "has faces cropped by `{crop}` beside others by `{first}`; train on one recipe, as a model sees one"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn read_images(&mut self, images: &Path, names: &mut BTreeMap<String, usize>) -> Result<(), TrainError> {
        let before = self.samples.len();
        for path in files(images, &["jpg", "jpeg", "png", "bmp", "webp"])? {
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse::<u64>().ok());
            let folder = path.parent().and_then(|folder| folder.strip_prefix(images).ok());
            let (Some(number), Some(video)) = (number, folder.and_then(Path::to_str)) else {
                continue;
            };
            let Some(frame) = number.checked_sub(IMAGE_BASE) else {
                let cause = format!("is numbered below {IMAGE_BASE}, which is frame 0");
                return Err(TrainError::Data { path, cause });
            };
            let next = names.len();
            self.samples.push(Sample {
                video: *names.entry(video.to_owned()).or_insert(next),
                frame,
                face: 0,
                labels: Labels::default(),
                place: Place::File(path),
            });
        }
        if self.samples.len() == before {
            let cause =
                "holds no numbered images, as `<video>/00001.jpg`; name the folder above the videos".into();
            return Err(TrainError::Data {
                path: images.into(),
                cause,
            });
        }
        let aligned = self.take_crop(Some(Crop::Arcface112.name()));
        aligned.map_err(|cause| TrainError::Data {
            path: images.into(),
            cause,
        })
    }

    /// Brings videos and samples into order.
    fn name(&mut self, names: BTreeMap<String, usize>) {
        let mut place = vec![0; names.len()];
        for (at, (video, met)) in names.into_iter().enumerate() {
            place[met] = at;
            self.videos.push(video);
        }
        for sample in &mut self.samples {
            sample.video = place[sample.video];
        }
        self.samples
            .sort_by_key(|sample| (sample.video, sample.frame, sample.face));
    }

    /// Gives each face what people said of its frame. Where a frame has several faces, it cannot be told whom they meant.
    fn annotate(&mut self, people: &Annotations) -> Result<(), TrainError> {
        let videos = &self.videos;
        let mut named: BTreeMap<&str, &str> = BTreeMap::new();
        for video in videos {
            let stem = split::stem(video);
            let path = &video[..video.rfind(stem).unwrap_or(0)];
            if let Some(other) = named.insert(stem, path).filter(|other| *other != path)
                && people.persons.contains_key(stem)
            {
                return Err(TrainError::Corpus(format!(
                    "the annotations of `{stem}` fit `{other}{stem}` and `{path}{stem}`; which one they speak of cannot be told: \
                     rename one of them, with its annotations"
                )));
            }
        }
        for faces in self
            .samples
            .chunk_by_mut(|a, b| (a.video, a.frame) == (b.video, b.frame))
        {
            let [sample] = faces else { continue };
            let person = people.persons.get(split::stem(&videos[sample.video]));
            if let Some(truth) = person.and_then(|person| person.frames.get(&sample.frame)) {
                sample.labels.human = Human::from(truth);
            }
        }
        Ok(())
    }

    fn keep_labelled(&mut self, kind: ModelKind) -> Result<(), TrainError> {
        let found = self.samples.len();
        self.samples
            .retain(|sample| kind.tasks().iter().any(|&task| sample.labels.any(task)));
        if self.samples.is_empty() {
            return Err(TrainError::Corpus(format!(
                "none of the {found} faces has a label that a {} learns from; are the annotations called as the videos are \
                 (`a.txt` for `a.mp4`)?",
                kind.name()
            )));
        }
        // A video without a labelled face is on neither side.
        let used: BTreeSet<usize> = self.samples.iter().map(|sample| sample.video).collect();
        let place: BTreeMap<usize, usize> = used.iter().copied().zip(0..).collect();
        for sample in &mut self.samples {
            sample.video = place[&sample.video];
        }
        let videos = std::mem::take(&mut self.videos).into_iter().enumerate();
        self.videos = videos
            .filter(|(at, _)| used.contains(at))
            .map(|(_, video)| video)
            .collect();
        Ok(())
    }

    fn warn(&mut self, kind: ModelKind) {
        for &task in kind.tasks() {
            if !self.samples.iter().any(|sample| sample.labels.any(task)) {
                self.warnings.push(format!(
                    "no face has a label of {}: that head learns nothing, and what it says means nothing",
                    match task {
                        Task::Va => "valence and arousal",
                        Task::Expr => "expression",
                        Task::Au => "action units",
                    }
                ));
            }
        }
    }
}

/// Files with one of the endings, below a folder or the path itself, in order.
fn files(path: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, TrainError> {
    let mut files = Vec::new();
    for entry in WalkDir::new(path).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| TrainError::Data {
            path: error.path().unwrap_or(path).into(),
            cause: error.to_string(),
        })?;
        let ending = entry.path().extension().and_then(|ending| ending.to_str());
        let known =
            ending.is_some_and(|ending| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)));
        if entry.file_type().is_file() && known {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

/// What teachers said, out of a sample's JSON.
fn teacher(text: &Map<String, Value>, job: &TrainJob) -> Result<Teacher, String> {
    let mut teacher = Teacher::default();
    for &task in job.kind().tasks() {
        let Some(model) = job.teacher(task) else { continue };
        match task {
            Task::Va => teacher.va = outputs(text, model, "", VALENCE_AROUSAL, |_| f64::NAN)?,
            Task::Expr => teacher.expr = outputs(text, model, "expr_", EXPRESSIONS, f64::ln)?,
            Task::Au => teacher.au = outputs(text, model, "", ACTION_UNITS, |p| (p / (1.0 - p)).ln())?,
        }
    }
    Ok(teacher)
}

/// A head's outputs: logits, or where only probabilities were kept, `logit` of them. `None` where the teacher gave no finite
/// numbers for the face.
fn outputs<const N: usize>(
    text: &Map<String, Value>,
    model: &str,
    prefix: &str,
    names: [&str; N],
    logit: impl Fn(f64) -> f64,
) -> Result<Option<[f32; N]>, String> {
    // A probability that was rounded to 0 or 1 has no finite logit.
    const TINY: f64 = 1e-7;
    let mut outputs = [0.0; N];
    for (output, name) in outputs.iter_mut().zip(names) {
        let key = format!("{model}_{prefix}{name}");
        let number = |key: &str| text.get(key).and_then(Value::as_f64);
        if [&key, &format!("{key}_p")]
            .iter()
            .any(|key| text.get(*key) == Some(&Value::Null))
        {
            return Ok(None);
        }
        let probability = || number(&format!("{key}_p")).map(|p| logit(p.clamp(TINY, 1.0 - TINY)));
        let value = number(&key)
            .or_else(probability)
            .filter(|value| value.is_finite());
        *output = value.ok_or_else(|| {
            let known = text
                .keys()
                .filter_map(|key| key.strip_suffix("_expr_Neutral").or(key.strip_suffix("_valence")));
            let known: Vec<&str> = known.collect();
            format!(
                "has no number `{key}`; is `{model}` a model of that run? It has {}",
                known.join(", ")
            )
        })? as f32;
    }
    Ok(Some(outputs))
}
