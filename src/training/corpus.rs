//! The faces of a training: where each picture lies, and what is known of it. Pictures are not opened here.
//!
//! Flows in: the tar shards of crops that `run` kept, with teachers' labels in their JSON; folders of numbered images;
//! people's annotations. Flows out: samples in the order of video, frame and face, so that the same files give the same
//! training. A face without any label of the kind's tasks is left out.

use super::archives::Archives;
use super::error::TrainError;
use super::labels::{Human, Labels, Teacher};
use super::split::held_out;
use super::state::Identity;
use affectmill_base::SampleName;
use affectmill_base::{Crop, ModelKind, Task, hex};
use affectmill_evaluation::annotations;
use affectmill_evaluation::annotations::{Annotations, PassedOver, Person, Split};
use affectmill_evaluation::names::{Names, split};
use affectmill_labelset::paths;
use affectmill_spec::TrainJob;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
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
    /// A file, and its bytes and time of change, seconds and nanoseconds, when it was found.
    File(PathBuf, (u64, i64, i64)),
}

/// All faces that can be trained on or scored.
pub struct Corpus {
    /// Names of the videos, in order: keys of those that crops were cut from, paths of folders of images.
    pub videos: Vec<String>,
    /// Which videos are held out.
    pub held_out: Vec<bool>,
    /// The faces, by video, frame, face.
    pub samples: Vec<Sample>,
    /// How faces were cropped: one recipe, and nothing of those of which it is not known.
    crops: BTreeSet<Option<String>>,
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
            crops: BTreeSet::new(),
            warnings: Vec::new(),
            archives: Archives::default(),
        };
        let mut names = BTreeMap::new();
        if let Some(crops) = &job.data.crops {
            corpus.read_crops(crops, job, &mut names)?;
        }
        if let Some(images) = &job.data.images {
            corpus.read_images(images, job.data.image_crop, &mut names)?;
        }
        corpus.name(names);
        let people = match &job.data.annotations {
            Some(folder) => annotations::read(folder, Split::All)?,
            None => Annotations::default(),
        };
        corpus.annotate(&people)?;
        let kind = job.kind();
        corpus.keep_labelled(kind)?;
        let sides = held_out(&corpus.videos, &people, job)?;
        corpus.held_out = sides.held_out;
        if let Some([trained, held_out]) = sides.namesakes {
            corpus.warnings.push(format!(
                "`{trained}` is trained on and `{held_out}` is held out: videos of one name in different folders are taken for different \
                 footage; if they are recordings of the same, list both in `validation.videos`"
            ));
        }
        if let Some(names) = PassedOver::list(&people.passed_over) {
            corpus
                .warnings
                .push(format!("passed over beside the annotations: {names}"));
        }
        for (set, files) in &people.left_out {
            corpus.warnings.push(format!(
                "annotations of the {set} set are not trained on: files left out {files}"
            ));
        }
        corpus.warn(kind);
        Ok(corpus)
    }

    /// The samples of the videos that are held out, or of the others.
    pub fn side(&self, held_out: bool) -> Vec<usize> {
        let of = |index: &usize| self.held_out[self.samples[*index].video] == held_out;
        (0..self.samples.len()).filter(of).collect()
    }

    /// How the faces were cropped, where that is known of all of them.
    pub fn crop(&self) -> Option<&str> {
        let first = self.crops.first()?.as_deref();
        first.filter(|_| self.crops.len() == 1)
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
            Place::File(path, _) => {
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
            Place::File(path, _) => path,
        }
    }

    /// What tells these faces, sides, labels and files from others; pixels are not looked at.
    pub fn identity(&self) -> Identity {
        let (mut hasher, mut pictures) = (Sha256::new(), Sha256::new());
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
                Place::File(_, stamp) => {
                    pictures.update(format!("{video} {frame} {stamp:?}\n"));
                    0
                }
            };
            hasher.update(format!("{video} {frame} {face} {bytes} {labels:?}\n"));
        }
        Identity {
            faces: hex(&hasher.finalize()),
            pictures: hex(&pictures.finalize()),
        }
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
        if !self.archives.is_empty() {
            Ok(())
        } else {
            Err(TrainError::Data {
            path: crops.into(),
            cause: "holds no tar file; name the folder `crops` of a run with `[output] crops = \"webdataset\"`".into(),
        })
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
                teacher: Teacher::read(&text, job)
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

    /// Takes note of how faces were cropped, if that is known.
    fn take_crop(&mut self, crop: Option<&str>) -> Result<(), String> {
        if let (Some(crop), Some(other)) = (
            crop,
            self.crops.iter().flatten().find(|other| Some(&***other) != crop),
        ) {
            return Err(format!(
                "has faces cropped by `{crop}` beside others by `{other}`; train on one recipe, as a model sees one"
            ));
        }
        self.crops.insert(crop.map(String::from));
        Ok(())
    }

    fn read_images(
        &mut self,
        images: &Path,
        crop: Option<Crop>,
        names: &mut BTreeMap<String, usize>,
    ) -> Result<(), TrainError> {
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
            let file = path.metadata().map_err(TrainError::data(&path))?;
            let stamp = (file.len(), file.mtime(), file.mtime_nsec());
            let next = names.len();
            self.samples.push(Sample {
                video: *names.entry(video.to_owned()).or_insert(next),
                frame,
                face: 0,
                labels: Labels::default(),
                place: Place::File(path, stamp),
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
        if crop.is_none() {
            self.warnings.push(format!(
                "`{}`: how these faces were cropped is not stated, so the weights state no crop, and jobs that crop faces refuse them; \
                 add `image_crop` to [data]",
                images.display()
            ));
        }
        let stated = self.take_crop(crop.map(Crop::name));
        stated.map_err(|cause| TrainError::Data {
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
        let names = Names::of(self.videos.iter().map(String::as_str));
        let mut annotated: BTreeMap<&str, Vec<(&str, &Person)>> = BTreeMap::new();
        for (name, person) in &people.persons {
            let fit = names.fit(name);
            if let Some(other) = fit.iter().find(|video| split(video).0 != split(fit[0]).0) {
                return Err(TrainError::Corpus(format!(
                    "the annotations of `{name}` fit `{}` and `{other}`; which one they speak of cannot be told: rename one of them, or \
                     put their annotations into folders called as theirs",
                    fit[0]
                )));
            }
            for video in fit {
                let others = annotated.entry(video).or_default();
                let same = |(_, other): &&(&str, &Person)| {
                    Task::ALL.iter().any(|task| person.has(*task) && other.has(*task))
                };
                if let Some((other, _)) = others.iter().find(same) {
                    return Err(TrainError::Corpus(format!(
                        "the annotations `{other}` and `{name}` both fit `{video}`; leave one of them out"
                    )));
                }
                others.push((name, person));
            }
        }
        for faces in self
            .samples
            .chunk_by_mut(|a, b| (a.video, a.frame) == (b.video, b.frame))
        {
            let [sample] = faces else { continue };
            let persons = annotated.get(&*self.videos[sample.video]).into_iter().flatten();
            for truth in persons.filter_map(|(_, person)| person.frames.get(&sample.frame)) {
                sample.labels.human.add(&Human::from(truth));
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
