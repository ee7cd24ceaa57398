//! Tracking: assigns faces of successive frames to tracks.
//!
//! In: the faces of successive frames. Out: the same with track ids. Faces are matched greedily to predicted boxes by IoU, best
//! pair first: tracking by detection as in Bochinski, Eiselein, Sikora, *High-Speed Tracking-by-Detection Without Using Image
//! Information* (AVSS 2017), with the constant velocity model of SORT (Bewley et al., ICIP 2016). So paths that cross without
//! overlap are not confused, and a track that is briefly lost continues at its predicted position.

use affectmill_base::{Face, Rect};
use affectmill_base::{ResumeFace, ResumeTrack, TrackerState};

/// Minimum IoU with the predicted box.
const MIN_TRACK_IOU: f32 = 0.3;
/// Minimum IoU of two detections between which boxes are interpolated.
const MIN_MATCH_IOU: f32 = 0.5;
/// Maximum age of a lost track, in frames.
const MAX_AGE: u64 = 15;

/// The tracks of one video.
#[derive(Default)]
pub(super) struct Tracker {
    tracks: Vec<Track>,
    next: i32,
    /// The previous frame.
    last: u64,
}

struct Track {
    id: i32,
    rect: Rect,
    /// Velocity of the box's centre, in pixels per frame.
    velocity: (f32, f32),
    frame: u64,
}

impl Tracker {
    /// Ends all tracks at a scene cut.
    pub fn cut(&mut self) {
        self.tracks.clear();
    }

    /// Assigns each face to a track.
    pub fn step(&mut self, frame: u64, faces: &mut [Face]) {
        self.drop_lost(frame);
        let predicted: Vec<Rect> = self.tracks.iter().map(|track| track.at(frame)).collect();
        let boxes: Vec<Rect> = faces.iter().map(|face| face.rect).collect();
        for face in faces.iter_mut() {
            face.track = None;
        }
        for (track, face) in pairs(&predicted, &boxes, MIN_TRACK_IOU) {
            self.tracks[track].move_to(frame, boxes[face]);
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

    /// Updates tracks from faces that have their track ids already.
    pub fn update(&mut self, frame: u64, faces: &[Face]) {
        for face in faces {
            if let Some(track) = self.tracks.iter_mut().find(|track| Some(track.id) == face.track) {
                track.move_to(frame, face.rect);
            }
        }
        self.last = frame;
    }

    /// The state for a resume point at the previous frame, whose faces these are.
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

    /// Restores what [`resume_point`](Self::resume_point) saved.
    pub fn resume(state: &TrackerState) -> (Self, Vec<Face>) {
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
            tracks: state.tracks.iter().map(track).collect(),
            next: state.next,
            last: state.last,
        };
        (tracker, state.faces.iter().map(face).collect())
    }

    /// Drops tracks that were lost too long ago. Tracks of the previous frame stay, even when frames are sampled far apart.
    fn drop_lost(&mut self, frame: u64) {
        let last = self.last;
        self.tracks
            .retain(|track| track.frame >= last || frame - track.frame <= MAX_AGE);
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

    fn move_to(&mut self, frame: u64, rect: Rect) {
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

/// Matches the faces of two frames one to one: indices into `a` by index into `b`; `None` unless every face has a match.
pub(super) fn match_boxes(a: &[Face], b: &[Face]) -> Option<Vec<usize>> {
    let boxes = |faces: &[Face]| faces.iter().map(|face| face.rect).collect::<Vec<_>>();
    let mut pairs = pairs(&boxes(a), &boxes(b), MIN_MATCH_IOU);
    pairs.sort_by_key(|pair| pair.1);
    (pairs.len() == a.len() && pairs.len() == b.len()).then(|| pairs.into_iter().map(|pair| pair.0).collect())
}

/// A face interpolated linearly between `a` and `b`, at `share` of 0 to 1. It has no score, because no detector saw it.
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

/// Greedy matching: pairs of indices with an IoU of at least `least`, each box in one pair, the best pairs first.
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
    // The sort is stable: among equal overlaps the older track and the earlier face come first.
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
