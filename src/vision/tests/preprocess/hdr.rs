//! HDR brought to SDR: against zscale (zimg) where the roll-off changes nothing, and against the published formulas, written
//! once more in NumPy, everywhere.

use super::{INPUT, ours, picture};
use affectmill_base::SourceKind;
use affectmill_base::{Rect, TONE_MAPPING};
use affectmill_testing::media::{cached, ffmpeg, output};
use std::fs;
use std::path::{Path, PathBuf};

/// A picture of 128 × 128 pixels, which nothing resamples, in R′G′B′ of ten bits.
fn made(folder: &Path, name: &str, transfer: &str, filter: &str) -> PathBuf {
    let path = folder.join(name);
    let tags = format!("-color_trc {transfer} -color_primaries bt2020 -colorspace rgb -color_range pc");
    let source = "-f lavfi -i testsrc2=size=128x128:rate=25";
    ffmpeg(
        &format!("{source} -vf {filter}format=gbrp10le -frames:v 1 -c:v ffv1 {tags}"),
        &path,
    );
    path
}

/// Ours as values of 0…255, pixel by pixel.
fn toned(path: &Path) -> Vec<f32> {
    let picture = picture(path, SourceKind::File, 0);
    assert!(picture.tone().is_some(), "{}", path.display());
    let ours = ours(&picture, Rect::whole(picture.size()));
    assert_eq!(ours.len(), INPUT);
    ours
}

fn planes(path: &Path, filter: &str, format: &str) -> Vec<u16> {
    let raw = path.with_extension("raw");
    let file = path.display();
    ffmpeg(
        &format!("-i {file} {filter} -frames:v 1 -f rawvideo -pix_fmt {format}"),
        &raw,
    );
    let bytes = fs::read(raw).unwrap();
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|two| u16::from_le_bytes(*two))
        .collect()
}

/// Mean and largest distance, of planes G, B, R.
fn apart(ours: &[f32], planes: impl Fn(usize) -> f64) -> (f64, f64) {
    let pixels = INPUT / 3;
    let theirs = |at: usize| planes([2, 0, 1][at % 3] * pixels + at / 3);
    let distances = ours
        .iter()
        .enumerate()
        .map(|(at, value)| (f64::from(*value) - theirs(at)).abs());
    let (sum, most) = distances.fold((0.0, 0.0), |(sum, most): (f64, f64), d| (sum + d, most.max(d)));
    (sum / ours.len() as f64, most)
}

#[test]
fn skin_in_hdr_is_as_bright_as_zscale_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    // To linear light, 203 cd/m² white; to BT.709's primaries; to its display's gamma. All of it lies below the roll-off. Of
    // HLG zscale takes each channel by itself where BT.2100 takes the luminance: for grey that is the same.
    let sdr = "-vf zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,zscale=t=bt709";
    let cases = [
        (
            "pq.mkv",
            "smpte2084",
            "format=gbrp10le,lutrgb=r=val*0.48:g=val*0.48:b=val*0.48,",
        ),
        ("hlg.mkv", "arib-std-b67", "format=gray10le,lutyuv=y=val*0.6,"),
    ];
    for (name, transfer, filter) in cases {
        let path = made(folder.path(), name, transfer, filter);
        let theirs = planes(&path, sdr, "gbrp16le");
        let (mean, most) = apart(&toned(&path), |at| f64::from(theirs[at]) / 257.0);
        println!("{name}: mean {mean:.4}, most {most:.3} grey levels");
        assert!(mean < 0.05 && most < 0.5, "{name}: {mean} {most}");
    }
}

/// BT.2100, BT.2390, BT.2087 and BT.1886, over planes G, B, R of ten bits; written as doubles of 0…255.
const FORMULAS: &str = "
import sys
import numpy as np
source, target, hlg = sys.argv[1:]
g, b, r = np.fromfile(source, '<u2').reshape(3, -1) / 1023
code = np.stack([r, g, b])
m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
eotf = lambda v: 10000 * (np.maximum(v ** (1 / m2) - c1, 0) / (c2 - c3 * v ** (1 / m2))) ** (1 / m1)
coded = lambda l: ((c1 + c2 * (l / 10000) ** m1) / (1 + c3 * (l / 10000) ** m1)) ** m2
if hlg == 'hlg':
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, code ** 2 / 3, (np.exp((code - c) / a) + b) / 12)
    luminance = np.array([0.2627, 0.6780, 0.0593]) @ scene
    light = 1000 * scene * np.maximum(luminance, 1e-30) ** 0.2
else:
    light = eotf(code)
e1 = coded(np.minimum(light, 1000)) / coded(1000)
most = coded(203) / coded(1000)
knee = 1.5 * most - 0.5
t = (e1 - knee) / (1 - knee)
spline = (2*t**3 - 3*t**2 + 1) * knee + (t**3 - 2*t**2 + t) * (1 - knee) + (-2*t**3 + 3*t**2) * most
light = eotf(np.where(e1 < knee, e1, spline) * coded(1000)) / 203
matrix = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
r, g, b = 255 * np.clip(matrix @ light, 0, 1) ** (1 / 2.4)
np.stack([g, b, r]).astype('<f8').tofile(target)
";

#[test]
fn hdr_goes_by_the_published_formulas() {
    assert_eq!(TONE_MAPPING, "bt2390-1000-203");
    let folder = tempfile::tempdir().unwrap();
    for (name, transfer) in [("pq", "smpte2084"), ("hlg", "arib-std-b67")] {
        let path = made(folder.path(), &format!("{name}.mkv"), transfer, "");
        let codes = planes(&path, "", "gbrp10le");
        let (source, target) = (folder.path().join("codes"), folder.path().join("target"));
        fs::write(
            &source,
            codes
                .iter()
                .flat_map(|code| code.to_le_bytes())
                .collect::<Vec<_>>(),
        )
        .unwrap();
        let (source, to) = (source.to_str().unwrap(), target.to_str().unwrap());
        output(&cached("venv/bin/python"), &["-c", FORMULAS, source, to, name]);
        let theirs = fs::read(&target).unwrap();
        let theirs: Vec<f64> = theirs
            .as_chunks::<8>()
            .0
            .iter()
            .map(|eight| f64::from_le_bytes(*eight))
            .collect();
        let (mean, most) = apart(&toned(&path), |at| theirs[at]);
        println!("{name}: mean {mean:.4}, most {most:.3} grey levels");
        // The matrix has four digits there, which shows where a channel is the small difference of large ones.
        assert!(mean < 0.1 && most < 3.0, "{name}: {mean} {most}");
    }
}

#[test]
fn what_is_not_hdr_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for transfer in ["bt709", "bt2020-10", "bt2020-12", "iec61966-2-1", "smpte170m"] {
        let path = made(folder.path(), &format!("{transfer}.mkv"), transfer, "");
        let picture = picture(&path, SourceKind::File, 0);
        assert!(picture.tone().is_none(), "{transfer}");
        assert_eq!(picture.transfer(), Some(transfer));
        let codes = planes(&path, "", "gbrp10le");
        let (_, most) = apart(&ours(&picture, Rect::whole(picture.size())), |at| {
            f64::from(codes[at]) * 255.0 / 1023.0
        });
        assert!(most < 0.05, "{transfer}: {most}");
    }
}
