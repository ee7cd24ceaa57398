//! Faces of two label sets that are the same: those of the same index in the same frame whose boxes agree.

use super::{Ledger, Pair, PairError};
use crate::labels::{Labels, Part};
use crate::metrics::{Decision, Prediction, Truth};
use affectmill_base::{NameIndex, ShardId, Task, argmax};
use std::collections::BTreeSet;
use std::ops::Range;

/// Least overlap (intersection ÷ union) of the boxes of one face in two label sets.
const SAME_FACE: f32 = 0.5;

/// What became of a face of the reference.
enum Met {
    Row(usize),
    NoRow,
    NoFace,
    AnotherFace,
}

/// The part that was read last.
type Held<'a> = Option<(&'a ShardId, Part)>;

/// Brings the faces of two label sets together.
pub fn with_labels(
    labels: &Labels<'_>,
    reference: &Labels<'_>,
    tasks: &[Task],
    take: &mut dyn FnMut(Pair<'_>),
) -> Result<Ledger, PairError> {
    let (ours, theirs) = (labels.videos(), reference.videos());
    let names: NameIndex<&str, &ShardId> = ours.iter().map(|(video, shard)| (*video, *shard)).collect();
    let mut ledger = Ledger::default();
    let mut met: BTreeSet<&str> = BTreeSet::new();
    // Both by shard: the videos of one part of ours mostly are in one part of theirs.
    let mut both: Vec<(&ShardId, &ShardId, [&str; 2])> = Vec::new();
    for (video, shard) in &theirs {
        let found = names.get(video).map_err(|alike| PairError::Several {
            name: alike.name,
            videos: alike.keys,
        })?;
        match found {
            // One that is there by its very name is not another one's.
            Some((our_video, our_shard)) if our_video == video || !theirs.contains_key(our_video) => {
                met.insert(our_video);
                both.push((our_shard, shard, [our_video, video]));
            }
            _ => ledger.without_labels.push((*video).into()),
        }
    }
    let bare = ours.keys().filter(|video| !met.contains(*video));
    ledger.without_annotations = bare.map(|video| (*video).into()).collect();
    if both.is_empty() {
        return Err(PairError::NoName {
            annotated: ledger.without_labels,
            labelled: ledger.without_annotations,
        });
    }
    both.sort();
    let (mut part, mut truths): (Held<'_>, Held<'_>) = (None, None);
    for (our_shard, their_shard, [video, their_video]) in both {
        let part = held(&mut part, labels, our_shard, tasks)?;
        let truths = held(&mut truths, reference, their_shard, tasks)?;
        let (Some(mut ahead), Some(rows)) = (part.rows_of(video), truths.rows_of(their_video)) else {
            continue;
        };
        for row in rows.filter(|row| truths.face(*row).is_some()) {
            let met = meet(part, &mut ahead, truths, row);
            let truth = truth_of(&truths.prediction(row));
            let prediction = match met {
                Met::Row(row) => part.prediction(row),
                _ => Prediction::default(),
            };
            for task in tasks.iter().filter(|task| truth.has(**task)) {
                let account = &mut ledger.accounts[*task as usize];
                account.annotated += 1;
                *match met {
                    Met::Row(_) if prediction.has(*task) => &mut account.scored,
                    Met::Row(_) => &mut account.no_value,
                    Met::NoRow => &mut account.no_row,
                    Met::NoFace => &mut account.no_face,
                    Met::AnotherFace => &mut account.ambiguous,
                } += 1;
            }
            if let Met::Row(row) = met {
                take(Pair {
                    video,
                    person: &reference.model().name,
                    track: part.track(row),
                    truth: &truth,
                    prediction: &prediction,
                });
            }
        }
    }
    Ok(ledger)
}

/// The part of a shard, kept from the last time where it is the same.
fn held<'a, 's>(
    kept: &'a mut Held<'s>,
    labels: &Labels<'_>,
    shard: &'s ShardId,
    tasks: &[Task],
) -> Result<&'a Part, PairError> {
    if kept.as_ref().is_none_or(|(held, _)| *held != shard) {
        // The old one goes first.
        *kept = None;
        *kept = Some((shard, labels.part(shard, tasks)?));
    }
    Ok(&kept.as_ref().expect("it was read just now").1)
}

/// Goes on among our rows of a video to the face of one of theirs.
fn meet(part: &Part, ahead: &mut Range<usize>, truths: &Part, row: usize) -> Met {
    let frame = truths.frame(row);
    while ahead.start < ahead.end && part.frame(ahead.start) < frame {
        ahead.start += 1;
    }
    let mut here = ahead
        .clone()
        .take_while(|ours| part.frame(*ours) == frame)
        .peekable();
    if here.peek().is_none() {
        return Met::NoRow;
    }
    match here.find(|ours| part.face(*ours) == truths.face(row)) {
        None => Met::NoFace,
        Some(ours) if agree(part.face_box(ours), truths.face_box(row)) => Met::Row(ours),
        Some(_) => Met::AnotherFace,
    }
}

/// Whether two boxes, in either of which NaN stands for the whole picture, are of one face.
fn agree(a: [f32; 4], b: [f32; 4]) -> bool {
    if a[0].is_nan() || b[0].is_nan() {
        return a[0].is_nan() && b[0].is_nan();
    }
    let shared = |n: usize| ((a[n] + a[n + 2]).min(b[n] + b[n + 2]) - a[n].max(b[n])).max(0.0);
    let both = shared(0) * shared(1);
    both >= SAME_FACE * (a[2] * a[3] + b[2] * b[3] - both)
}

/// What a model said, taken for true.
fn truth_of(said: &Prediction) -> Truth {
    Truth {
        va: said.va,
        expression: said.expression.map(|logits| argmax(&logits) as u8),
        units: said.units.map(|logits| Decision::default().units(&logits)),
    }
}
