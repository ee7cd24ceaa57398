"""Holds what is told of faces without numbers against a closed form.

    no_numbers.py OUTPUT MEANS.csv REPORT.json EXPORT

The module of `numbers.rs` gives multiples of ln(mean of the normalised picture), which is NaN where that is negative. Pictures
are of one grey.
"""

import csv
import io
import json
import math
import sys
import tarfile
from pathlib import Path

import polars as pl

output, means, report, export = map(Path, sys.argv[1:])
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def grey(frame):
    return 20 if frame % 4 == 1 else 130 + frame


def wanted(frame):
    value = sum((grey(frame) / 255 - m) / s for m, s in zip(MEAN, STD)) / 3
    return math.log(value) if value > 0 else None


CLASSES = "Neutral Anger Disgust Fear Happiness Sadness Surprise".split()
rows = pl.read_parquet(output / "labels/*.parquet").filter(pl.col("video") == "faces").sort("frame").to_dicts()
assert len(rows) == 40
own = [name for name in rows[0] if name.startswith("own_")]
assert len(own) == 2 + 1 + 7 + 7, own
other = [name for name in rows[0] if name.startswith("mini_xception_")]
for row in rows:
    log = wanted(row["frame"])
    assert row["face"] == 0
    assert all(row[name] is not None and row[name] == row[name] for name in other), "another model's numbers stay"
    if log is None:
        assert row["status"] == "not_finite", row
        assert all(row[name] is None for name in own), row
        continue
    assert row["status"] == "ok", row
    logits = [log, 2 * log] + [n * log for n in range(1, 8)]
    found = [row["own_valence"], row["own_arousal"]] + [row[f"own_expr_{name}"] for name in CLASSES]
    assert all(abs(a - b) < 1e-3 * (1 + abs(b)) for a, b in zip(found, logits)), (found, logits)
    assert row["own_expression"] == ("Surprise" if log > 0 else "Neutral"), row
good = [wanted(frame) for frame in range(40) if wanted(frame) is not None]
assert len(good) == 30

videos = {row["video"]: row for row in pl.read_parquet(output / "videos.parquet").to_dicts()}
faces = videos["faces"]
assert (faces["status"], faces["rows"], faces["faces"], faces["not_finite"]) == ("partial", 40, 40, 10), faces
assert (faces["error_class"], faces["error_frame"]) == ("not_finite", 1) and "model `own`" in faces["error"], faces

# Means are over the faces that have numbers.
mean = sum(good) / len(good)
told = {row["video"]: row for row in csv.DictReader(io.StringIO(means.read_text()))}["faces"]
assert (told["rows"], told["faces"]) == ("40", "40"), told
assert abs(float(told["own_valence"]) - mean) < 1e-3, (told, mean)
figures = json.loads(report.read_text())
assert figures["corpus"]["not_finite"] == videos["faces"]["not_finite"] + videos["clip.mkv"]["not_finite"]
assert figures["corpus"]["faces"] == 40 + videos["clip.mkv"]["faces"]
whole = pl.read_parquet(output / "labels/*.parquet")["own_valence"].drop_nulls()
plane = next(plane for plane in figures["valence_arousal"] if plane["model"] == "own")
assert abs(plane["valence"]["mean"] - whole.mean()) < 1e-4, plane
shown = next(line for line in figures["timelines"] if line["video"] == "faces")
assert all(point["valence_arousal"] is not None for point in shown["points"])
assert sum(point["valence_arousal"][0] is None for point in shown["points"]) == 10, "a gap where there is no number"

# A frame without a label is invalid for ABAW (-5), and repeats the one before in a submission.
lines = (export / "annotations/VA_Set/faces.txt").read_text().split()[1:]
assert [line == "-5,-5" for line in lines] == [wanted(frame) is None for frame in range(40)], lines

# Crops: null in their JSON too.
samples = 0
for shard in output.glob("crops/*.tar"):
    with tarfile.open(shard) as archive:
        for member in archive.getmembers():
            if member.name.startswith("faces/") and member.name.endswith(".json"):
                sample = json.load(archive.extractfile(member))
                broken = wanted(sample["frame"]) is None
                assert all((sample[name] is None) == broken for name in own), sample
                samples += 1
assert samples == 40
print("equal")
