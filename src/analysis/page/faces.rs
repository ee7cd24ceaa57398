//! The most and the least confident faces, and their crops where crops were kept.

use super::PageError;
use super::figures::{Faces, Shown};
use affectmill_base::SampleName;
use affectmill_base::{EXPRESSIONS, ShardId};
use affectmill_labelset::rows::{ExpressionColumns, LabelColumns};
use affectmill_labelset::{CommitRecord, paths};
use affectmill_store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};

/// A crop of 128 × 128 pixels has far fewer bytes.
const MOST_BYTES: u64 = 256 << 10;

/// The best faces seen so far, of each end.
pub struct Extremes {
    most: Best,
    least: Best,
}

/// At most one face of each track and expression, so that one scene does not fill the page: the best of each, best first.
struct Best {
    faces: Vec<Shown>,
    room: usize,
    /// 1 where high confidence is good, −1 where low is.
    sign: f32,
}

impl Extremes {
    /// Keeps `room` of each.
    pub fn new(room: usize) -> Self {
        let best = |sign| Best {
            faces: Vec::with_capacity(room + 1),
            room,
            sign,
        };
        Self {
            most: best(1.0),
            least: best(-1.0),
        }
    }

    /// Looks at the rows that carry a face.
    pub fn add(
        &mut self,
        shard: &ShardId,
        rows: &LabelColumns,
        classes: &ExpressionColumns,
        labelled: &[usize],
    ) {
        for &row in labelled {
            let Some(class) = classes.class[row].map(usize::from) else {
                continue;
            };
            let confidence = classes.probabilities[class][row];
            if !(self.most.wants(confidence) || self.least.wants(confidence)) {
                continue;
            }
            let face = Shown {
                video: rows.videos.get(row).unwrap_or_default().to_owned(),
                frame: rows.frames[row],
                face: rows.faces[row].unwrap_or_default(),
                track: rows.tracks[row],
                timestamp_us: rows.timestamps[row],
                expression: EXPRESSIONS[class],
                confidence,
                shard: shard.to_string(),
                jpeg: None,
            };
            self.most.offer(&face);
            self.least.offer(&face);
        }
    }

    /// What came out.
    pub fn finish(self) -> Faces {
        Faces {
            most: self.most.faces,
            least: self.least.faces,
        }
    }
}

impl Best {
    fn wants(&self, confidence: f32) -> bool {
        let worst = self.faces.last().filter(|_| self.faces.len() == self.room);
        self.room > 0 && worst.is_none_or(|worst| self.better(confidence, worst.confidence))
    }

    fn better(&self, a: f32, b: f32) -> bool {
        self.sign * a > self.sign * b
    }

    fn offer(&mut self, face: &Shown) {
        if !self.wants(face.confidence) {
            return;
        }
        let key = |face: &Shown| (face.track, face.expression);
        let alike = |kept: &Shown| kept.video == face.video && key(kept) == key(face);
        if let Some(at) = self.faces.iter().position(alike) {
            if !self.better(face.confidence, self.faces[at].confidence) {
                return;
            }
            self.faces.remove(at);
        }
        let place = self
            .faces
            .iter()
            .position(|kept| self.better(face.confidence, kept.confidence));
        self.faces.insert(place.unwrap_or(self.faces.len()), face.clone());
        self.faces.truncate(self.room);
    }
}

/// Brings the crops of these faces, from the shards that kept theirs.
pub fn bring_crops(
    store: &Store,
    commits: &BTreeMap<ShardId, CommitRecord>,
    faces: &mut Faces,
) -> Result<(), PageError> {
    let all = || faces.most.iter().chain(&faces.least);
    let shards: BTreeSet<&str> = all().map(|face| face.shard.as_str()).collect();
    let kept = commits
        .iter()
        .filter(|(shard, record)| record.crops.is_some() && shards.contains(shard.as_str()));
    let mut crops: BTreeMap<(String, i64, i32), Vec<u8>> = BTreeMap::new();
    for (shard, _) in kept {
        let wanted: BTreeSet<(&str, i64, i32)> = all()
            .filter(|face| face.shard == shard.as_str())
            .map(|face| (face.video.as_str(), face.frame, face.face))
            .collect();
        let key = paths::crops(shard);
        let Some(file) = store.file(&key)? else { continue };
        let unreadable = |source| StoreError::Io {
            operation: "read",
            path: store.path(&key).to_string().into(),
            source,
        };
        members(file, &wanted, &mut crops).map_err(unreadable)?;
    }
    for face in faces.most.iter_mut().chain(&mut faces.least) {
        face.jpeg = crops.get(&(face.video.clone(), face.frame, face.face)).cloned();
    }
    Ok(())
}

/// Reads the images of some samples; of the others the headers alone.
fn members(
    file: File,
    wanted: &BTreeSet<(&str, i64, i32)>,
    crops: &mut BTreeMap<(String, i64, i32), Vec<u8>>,
) -> io::Result<()> {
    for member in tar::Archive::new(file).entries_with_seek()? {
        let mut member = member?;
        let name = member.path_bytes().into_owned();
        let name = std::str::from_utf8(&name).ok().and_then(SampleName::parse);
        let Some(name) = name.filter(|name| name.ending == "jpg") else {
            continue;
        };
        let key = (name.video, name.frame as i64, name.face);
        if !wanted.contains(&key) || member.size() > MOST_BYTES {
            continue;
        }
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes)?;
        // What is no JPEG gets no place in the page.
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            crops.insert((name.video.to_owned(), key.1, key.2), bytes);
        }
    }
    Ok(())
}
