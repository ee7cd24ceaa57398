//! Identity from frame to frame: which face is which.
//!
//! Flows in: the faces of one frame after the other. Flows out: the same with tracks. A face belongs to the track whose
//! predicted box it overlaps most (intersection ÷ union), the surest pair first: tracking by detection as in Bochinski,
//! Eiselein, Sikora, *High-Speed Tracking-by-Detection Without Using Image Information* (AVSS 2017), with the constant
//! velocity of SORT (Bewley et al., ICIP 2016) for the prediction. Paths that cross without overlap can therefore not be
//! confused, and a face that is lost for a moment is found again where it was heading.

use affectmill_base::{Face, Rect};
use affectmill_base::{ResumeFace, ResumeTrack, TrackerState};

/// Least overlap with the predicted box.
const SAME: f32 = 0.3;
/// Least overlap of two detections between which boxes are carried.
const CARRIED: f32 = 0.5;
/// Frames that a face may be lost for.
const GAP: u64 = 15;

/// The tracks of one video.
#[derive(Default)]
pub(super) struct Tracker {
    tracks: Vec<Track>,
    next: i32,
    /// The frame before.
    last: u64,
}

struct Track {
    id: i32,
    rect: Rect,
    /// Pixels a frame, of the box's middle.
    velocity: (f32, f32),
    frame: u64,
}

impl Tracker {
    /// Another scene begins: all tracks end.
    pub fn cut(&mut self) {
        self.tracks.clear();
    }

    /// Gives each face its track.
    pub fn step(&mut self, frame: u64, faces: &mut [Face]) {
        self.forget(frame);
        let predicted: Vec<Rect> = self.tracks.iter().map(|track| track.at(frame)).collect();
        let boxes: Vec<Rect> = faces.iter().map(|face| face.rect).collect();
        for face in faces.iter_mut() {
            face.track = None;
        }
        for (track, face) in pairs(&predicted, &boxes, SAME) {
            self.tracks[track].moved(frame, boxes[face]);
            faces[face].track = Some(self.tracks[track].id);
        }
        for face in faces.iter_mut().filter(|face| face.track.is_none()) {
            face.track = Some(self.next);
            self.tracks.push(Track {
                id: self.next,
                rect: face.rect,
                velocity: (0.0, 0.0),
                frame,
            });
            self.next += 1;
        }
        self.last = frame;
    }

    /// Lets faces keep tracks that are known already.
    pub fn carry(&mut self, frame: u64, faces: &[Face]) {
        for face in faces {
            if let Some(track) = self.tracks.iter_mut().find(|track| Some(track.id) == face.track) {
                track.moved(frame, face.rect);
            }
        }
        self.last = frame;
    }

    /// The tracks, and the faces of the frame before, for a resume point there.
    pub fn resume_point(&self, faces: &[Face]) -> TrackerState {
        let track = |track: &Track| ResumeTrack {
            id: track.id,
            rect: corners(track.rect),
            velocity: [track.velocity.0, track.velocity.1].map(f64::from),
            frame: track.frame,
        };
        let face = |face: &Face| ResumeFace {
            track: face.track,
            rect: corners(face.rect),
            score: face.score.map(f64::from),
            landmarks: face.landmarks.map(|points| points.map(f64::from)),
        };
        TrackerState {
            next: self.next,
            last: self.last,
            tracks: self.tracks.iter().map(track).collect(),
            faces: faces.iter().map(face).collect(),
        }
    }

    /// What [`seam`](Self::resume point) told.
    pub fn resume(following: &TrackerState) -> (Self, Vec<Face>) {
        let track = |track: &ResumeTrack| Track {
            id: track.id,
            rect: rect(track.rect),
            velocity: (track.velocity[0] as f32, track.velocity[1] as f32),
            frame: track.frame,
        };
        let face = |face: &ResumeFace| Face {
            index: 0,
            track: face.track,
            rect: rect(face.rect),
            score: face.score.map(|score| score as f32),
            landmarks: face.landmarks.map(|points| points.map(|point| point as f32)),
        };
        let tracker = Self {
            tracks: following.tracks.iter().map(track).collect(),
            next: following.next,
            last: following.last,
        };
        (tracker, following.faces.iter().map(face).collect())
    }

    /// Drops what is lost for too long. Where frames are sampled far apart, the frame before always counts.
    fn forget(&mut self, frame: u64) {
        let last = self.last;
        self.tracks
            .retain(|track| track.frame >= last || frame - track.frame <= GAP);
    }
}

impl Track {
    fn at(&self, frame: u64) -> Rect {
        let time = (frame - self.frame) as f32;
        Rect {
            x: self.rect.x + self.velocity.0 * time,
            y: self.rect.y + self.velocity.1 * time,
            ..self.rect
        }
    }

    fn moved(&mut self, frame: u64, rect: Rect) {
        let time = (frame - self.frame).max(1) as f32;
        let middle = |rect: Rect| (rect.x + rect.w / 2.0, rect.y + rect.h / 2.0);
        let (from, to) = (middle(self.rect), middle(rect));
        self.velocity = ((to.0 - from.0) / time, (to.1 - from.1) / time);
        (self.rect, self.frame) = (rect, frame);
    }
}

fn corners(rect: Rect) -> [f64; 4] {
    [rect.x, rect.y, rect.w, rect.h].map(f64::from)
}

fn rect(corners: [f64; 4]) -> Rect {
    let [x, y, w, h] = corners.map(|number| number as f32);
    Rect { x, y, w, h }
}

/// The faces of two frames, one to one, when every face of either has its counterpart nearby in the other: indices into
/// `a` by index into `b`.
pub(super) fn match_boxes(a: &[Face], b: &[Face]) -> Option<Vec<usize>> {
    let boxes = |faces: &[Face]| faces.iter().map(|face| face.rect).collect::<Vec<_>>();
    let mut pairs = pairs(&boxes(a), &boxes(b), CARRIED);
    pairs.sort_by_key(|pair| pair.1);
    (pairs.len() == a.len() && pairs.len() == b.len()).then(|| pairs.into_iter().map(|pair| pair.0).collect())
}

/// A face on its straight way from `a` to `b`, `share` of the way gone. It has no score: no detector saw it.
pub(super) fn interpolate(a: &Face, b: &Face, share: f32) -> Face {
    let mix = |a: f32, b: f32| a + (b - a) * share;
    let landmarks = a.landmarks.zip(b.landmarks).map(|(a, b)| {
        let mut mixed = a;
        mixed.iter_mut().zip(b).for_each(|(a, b)| *a = mix(*a, b));
        mixed
    });
    Face {
        index: 0,
        track: b.track,
        rect: Rect {
            x: mix(a.rect.x, b.rect.x),
            y: mix(a.rect.y, b.rect.y),
            w: mix(a.rect.w, b.rect.w),
            h: mix(a.rect.h, b.rect.h),
        },
        score: None,
        landmarks,
    }
}

/// Pairs of indices whose boxes overlap at least `least`, each box in one pair, the surest pairs first.
fn pairs(a: &[Rect], b: &[Rect], least: f32) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for (i, first) in a.iter().enumerate() {
        for (j, second) in b.iter().enumerate() {
            let overlap = first.overlap(*second);
            if overlap >= least {
                all.push((overlap, i, j));
            }
        }
    }
    // Stable: of equal overlaps the older track and the earlier face.
    all.sort_by(|x, y| y.0.total_cmp(&x.0));
    let mut chosen: Vec<(usize, usize)> = Vec::new();
    for (_, i, j) in all {
        if chosen.iter().all(|&(first, second)| first != i && second != j) {
            chosen.push((i, j));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f32, y: f32) -> Face {
        Face {
            index: 0,
            track: None,
            rect: Rect {
                x,
                y,
                w: 40.0,
                h: 50.0,
            },
            score: Some(0.9),
            landmarks: None,
        }
    }

    fn ids(tracker: &mut Tracker, frame: u64, places: &[(f32, f32)]) -> Vec<i32> {
        let mut faces: Vec<Face> = places.iter().map(|&(x, y)| face(x, y)).collect();
        tracker.step(frame, &mut faces);
        faces.iter().filter_map(|face| face.track).collect()
    }

    #[test]
    fn people_who_cross_keep_their_tracks() {
        let mut tracker = Tracker::default();
        for frame in 0..60 {
            let x = 5.0 * frame as f32;
            // One walks right, one left, 55 pixels below; the detector lists the rightmost first.
            let (a, b) = ((x, 100.0), (300.0 - x, 155.0));
            let found = if a.0 < b.0 {
                ids(&mut tracker, frame, &[b, a])
            } else {
                ids(&mut tracker, frame, &[a, b])
            };
            let expected = if a.0 < b.0 { [0, 1] } else { [1, 0] };
            assert_eq!(found, expected, "frame {frame}");
        }
    }

    #[test]
    fn a_track_outlives_a_short_gap_in_motion_and_no_long_one_and_no_cut() {
        let mut tracker = Tracker::default();
        for frame in 0..=10 {
            assert_eq!(ids(&mut tracker, frame, &[(8.0 * frame as f32, 20.0)]), [0]);
        }
        for frame in 11..20 {
            ids(&mut tracker, frame, &[]);
        }
        // 80 pixels on: two widths of the face, but where it was heading.
        assert_eq!(ids(&mut tracker, 20, &[(160.0, 20.0)]), [0]);
        for frame in 21..40 {
            ids(&mut tracker, frame, &[]);
        }
        assert_eq!(ids(&mut tracker, 40, &[(320.0, 20.0)]), [1]);
        tracker.cut();
        assert_eq!(ids(&mut tracker, 41, &[(320.0, 20.0)]), [2]);
    }

    #[test]
    fn frames_sampled_far_apart_still_follow() {
        let mut tracker = Tracker::default();
        assert_eq!(ids(&mut tracker, 0, &[(10.0, 10.0)]), [0]);
        assert_eq!(ids(&mut tracker, 100, &[(15.0, 10.0)]), [0]);
    }

    #[test]
    fn boxes_are_carried_between_pairs_only() {
        let (a, b) = (
            [face(0.0, 0.0), face(100.0, 0.0)],
            [face(104.0, 2.0), face(8.0, 0.0)],
        );
        assert_eq!(match_boxes(&a, &b), Some(vec![1, 0]));
        assert_eq!(match_boxes(&a, &b[..1]), None);
        assert_eq!(match_boxes(&a[..1], &[face(30.0, 0.0)]), None);
        let way = interpolate(&a[0], &b[1], 0.25);
        assert_eq!((way.rect.x, way.score), (2.0, None));
    }
}
