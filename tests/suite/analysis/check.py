"""Holds what `affectmill query` and `affectmill export` wrote against the label set, read and worked out anew here.

Usage: check.py PY_FEAT query|export LABELS FOLDER. It prints "equal", or fails with what differs.
"""

import csv
import glob
import json
import math
import statistics
import sys
import tarfile

import numpy as np
import polars as pl

CLASSES = "Neutral Anger Disgust Fear Happiness Sadness Surprise".split()
UNITS = "AU1 AU2 AU4 AU6 AU7 AU10 AU12 AU15 AU23 AU24 AU25 AU26".split()


def near(a, b, tolerance=2e-6):
    if a is None or b is None:
        return a is None and b is None
    return abs(a - b) <= tolerance


def read_labels(path):
    """Every row, with probabilities where only logits are stored."""
    rows = pl.read_parquet(f"{path}/labels/*.parquet").with_columns(pl.col(pl.Categorical).cast(pl.String))
    if "student_AU1_p" not in rows.columns:
        sigmoid = [(1 / (1 + (-pl.col(f"student_{u}").cast(pl.Float64)).exp())).alias(f"student_{u}_p") for u in UNITS]
        rows = rows.with_columns(sigmoid)
        for model in ("student", "fer"):
            logits = rows.select([f"{model}_expr_{c}" for c in CLASSES]).to_numpy().astype(float)
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            p = odds / odds.sum(axis=1, keepdims=True)
            p = {f"{model}_expr_{c}_p": p[:, n] for n, c in enumerate(CLASSES)}
            rows = rows.with_columns(**{name: pl.Series(values).fill_nan(None) for name, values in p.items()})
    return rows.sort("video", "frame", "face")


def read_answer(path):
    if path.endswith(".csv"):
        return pl.read_csv(path).to_dicts()
    if path.endswith(".json"):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    return pl.read_parquet(path).to_dicts()


# ---- query -----------------------------------------------------------------------------------------------------------


def stretches(rows, column):
    """{(video, track): [[(frame, time, face, value)]]}: frames of a track, each the next sampled one and later."""
    found = {}
    for (video,), group in rows.group_by("video", maintain_order=True):
        frames = group["frame"].unique().sort().to_list()
        after = dict(zip(frames, frames[1:]))
        by_track = {}
        for row in group.filter(pl.col("face").is_not_null()).iter_rows(named=True):
            by_track.setdefault(row["track"], []).append((row["frame"], row["timestamp_us"], row["face"], row[column]))
        for track, points in by_track.items():
            runs = [[points[0]]]
            for before, point in zip(points, points[1:]):
                follows = after[before[0]] == point[0] == before[0] + 1 and point[1] > before[1]
                runs[-1].append(point) if follows else runs.append([point])
            found[video, track] = runs
    return found


def gaussian(run, sigma):
    times, values = np.array([p[1] for p in run]) / 1e6, np.array([p[3] for p in run])
    distance = np.abs(times[:, None] - times[None, :])
    weights = np.where(distance <= 4 * sigma + 1e-9, np.exp(-(distance**2) / (2 * sigma**2)), 0)
    return list(weights @ values / weights.sum(axis=1))


def median(run, width):
    return [statistics.median(q[3] for q in run if abs(q[1] - p[1]) <= width / 2 * 1e6) for p in run]


def smoothed(found, how):
    if how is None:
        return found
    kind, seconds = how
    smooth = {"gaussian": gaussian, "median": median}[kind]
    return {
        key: [[(*p[:3], v) for p, v in zip(run, smooth(run, seconds))] for run in runs] for key, runs in found.items()
    }


def segments(rows, column, threshold, shortest, how=None):
    wanted = []
    for (video, track), runs in smoothed(stretches(rows, column), how).items():
        for run in runs:
            held = []
            for point in [*run, (None, None, None, -math.inf)]:
                if point[3] >= threshold:
                    held.append(point)
                    continue
                if held and held[-1][1] - held[0][1] >= shortest * 1e6:
                    values = [p[3] for p in held]
                    wanted.append(
                        (video, track, held[0][1] / 1e6, held[-1][1] / 1e6, held[0][0], held[-1][0], np.mean(values), max(values))
                    )
                held = []
    return sorted(wanted, key=lambda s: (s[0].encode(), s[2], s[1]))


def top(rows, column, count, apart, how=None):
    points = [
        (-p[3], video.encode(), p[0], p[2], track, p[1])
        for (video, track), runs in smoothed(stretches(rows, column), how).items()
        for run in runs
        for p in run
    ]
    chosen = []
    for point in sorted(points):
        if all(point[1] != c[1] or point[4] != c[4] or abs(point[5] - c[5]) >= apart * 1e6 for c in chosen):
            chosen.append(point)
    return chosen[:count]


def check_means(rows, answer, columns):
    assert list(answer[0]) == ["video", "rows", "faces", *columns], list(answer[0])
    wanted = rows.group_by("video").agg(pl.len().alias("rows"), pl.col("face").count().alias("faces"), pl.col(columns).mean())
    wanted = sorted(wanted.to_dicts(), key=lambda row: row["video"].encode())
    assert len(answer) == len(wanted) == 4
    for a, b in zip(answer, wanted):
        assert all(a[name] == b[name] for name in ("video", "rows", "faces")), (a, b)
        assert all(near(a[name], b[name]) for name in columns), (a, b)


def check_segments(answer, wanted, of):
    assert len(answer) == len(wanted) > 3, (len(answer), len(wanted))
    for a, b in zip(answer, wanted):
        assert (a["video"], a["track"], a["first_frame"], a["last_frame"]) == (b[0], b[1], b[4], b[5]), (a, b)
        assert near(a["start_s"], b[2]) and near(a["end_s"], b[3]) and near(a["seconds"], b[3] - b[2]), (a, b)
        assert near(a["mean"], b[6]) and near(a["peak"], b[7]), (a, b)
        hours, minutes, seconds = a["start"].split(":")
        assert near(int(hours) * 3600 + int(minutes) * 60 + float(seconds), b[2], 5.1e-4), a
        assert a["of"] == of, a


def check_top(answer, wanted, of):
    assert len(answer) == len(wanted) > 3, (len(answer), len(wanted))
    for a, b in zip(answer, wanted):
        assert (a["video"].encode(), a["frame"], a["face"], a["track"]) == b[1:5], (a, b)
        assert near(a["time_s"], b[5] / 1e6) and near(a["value"], -b[0]) and a["of"] == of, (a, b)


def check_curve(answer, found, of):
    wanted = [(video.encode(), track, p) for (video, track), runs in found.items() for run in runs for p in run]
    wanted.sort(key=lambda w: (w[0], w[1], w[2][0]))
    assert len(answer) == len(wanted) > 1000, (len(answer), len(wanted))
    for a, (video, track, p) in zip(answer, wanted):
        assert (a["video"].encode(), a["track"], a["frame"], a["face"], a["of"]) == (video, track, p[0], p[2], of), (a, p)
        assert near(a["time_s"], p[1] / 1e6) and near(a["value"], p[3]), (a, p)


def query(labels, folder):
    rows = read_labels(labels)
    answer = lambda name: read_answer(f"{folder}/{name}")
    every = ["valence", "arousal", *(f"expr_{c}_p" for c in CLASSES), *(f"{u}_p" for u in UNITS)]
    check_means(rows, answer("means.csv"), [f"student_{name}" for name in every])
    check_means(rows, answer("means.json"), ["fer_expr_Happiness_p"])
    check_means(rows, answer("means.parquet"), ["student_AU12_p", "student_valence", "student_arousal"])
    check_segments(answer("segments.json"), segments(rows, "student_AU1_p", 0.5, 0.2), "student_AU1_p")
    fear, au4, au25 = "fer_expr_Fear_p", "student_AU4_p", "student_AU25_p"
    wanted = segments(rows, fear, 0.3, 0, ("gaussian", 0.1))
    check_segments(answer("smooth.parquet"), wanted, f"{fear}, smoothed by gaussian:0.1s")
    wanted = segments(rows, au4, 0.5, 0.1, ("median", 0.15))
    check_segments(answer("median.csv"), wanted, f"{au4}, smoothed by median:0.15s")
    curve = smoothed(stretches(rows, "student_arousal"), ("gaussian", 0.2))
    check_curve(answer("curve.parquet"), curve, "student_arousal, smoothed by gaussian:0.2s")
    check_curve(answer("raw.csv"), stretches(rows, "fer_expr_Anger_p"), "fer_expr_Anger_p")
    check_top(answer("top.json"), top(rows, "student_expr_Happiness_p", 7, 0), "student_expr_Happiness_p")
    check_top(answer("apart.csv"), top(rows, au25, 9, 2, ("gaussian", 0.05)), f"{au25}, smoothed by gaussian:0.05s")


# ---- export ----------------------------------------------------------------------------------------------------------


def files_of(folder):
    """{video: file}"""
    with open(f"{folder}/files.jsonl", encoding="utf-8") as file:
        named = [json.loads(line) for line in file]
    assert len({one["file"].lower() for one in named}) == len(named) == 4, named
    return {one["video"]: one["file"] for one in named}


def scores(rows):
    """The confidence of each row: that of the last look at its track."""
    last, found = {}, []
    for row in rows:
        if row["face_score"] is not None:
            last[row["track"]] = row["face_score"]
        found.append(None if row["face"] is None else last.get(row["track"], 1.0))
    return found


def check_openface(feat, rows, folder):
    import pandas as pd

    for video, file in files_of(folder).items():
        path, wanted = f"{folder}/{file}", [row for row in rows if row["video"] == video]
        fex = feat.read_openface(path)
        assert len(fex) == len(wanted) and fex.detector == "OpenFace"
        # The columns that OpenFace has for units, in its order.
        assert list(fex.aus.columns) == fex.au_columns and fex.aus.shape[1] == 35
        # As OpenFace's users read it.
        frame = pd.read_csv(path)
        frame.columns = frame.columns.str.strip()
        assert frame["frame"].tolist() == [row["frame"] + 1 for row in wanted]
        assert frame["success"].tolist() == [int(row["face"] is not None) for row in wanted]
        assert np.allclose(frame["timestamp"], [row["timestamp_us"] / 1e6 for row in wanted], atol=1e-9)
        assert frame["face_id"].tolist() == [row["track"] or 0 for row in wanted]
        assert np.allclose(frame["confidence"], [score or 0 for score in scores(wanted)], atol=6e-4)
        for unit in UNITS:
            present = [int((row[f"student_{unit}_p"] or 0) > 0.5) for row in wanted]
            assert frame[f"AU{int(unit[2:]):02}_c"].tolist() == present, unit
        for column in [c for c in frame.columns if c.endswith("_r")] + ["AU05_c", "AU45_c"]:
            assert frame[column].isna().all(), column
        assert (frame[frame.success == 1].confidence > 0).all()


def check_fex(feat, rows, folder):
    for video, file in files_of(folder).items():
        wanted = [row for row in rows if row["video"] == video]
        fex = feat.read_feat(f"{folder}/{file}")
        assert fex.detector == "Feat" and len(fex) == len(wanted)
        value = lambda row, name: float("nan") if row[name] is None else row[name]
        same = lambda found, names: np.allclose(
            found.to_numpy(dtype=float), [[value(row, name) for name in names] for row in wanted], atol=2e-6, equal_nan=True
        )
        assert same(fex.faceboxes[fex.facebox_columns[:4]], ["box_x", "box_y", "box_w", "box_h"])
        found = [None if math.isnan(score) else score for score in fex["FaceScore"]]
        assert all(map(near, found, scores(wanted)))
        assert [*fex.aus.columns] == [f"AU{int(unit[2:]):02}" for unit in UNITS]
        assert same(fex.aus, [f"student_{unit}_p" for unit in UNITS])
        emotions = [*fex.emotions.columns]
        assert emotions == ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
        assert same(fex.emotions, [f"student_expr_{name.capitalize()}_p" for name in emotions])
        assert fex.inputs.tolist() == [video] * len(wanted)
        assert fex["frame"].tolist() == [row["frame"] for row in wanted]
        people = [None if row["face"] is None else f"Person_{row['track']}" for row in wanted]
        assert [None if name != name else name for name in fex["Identity"]] == people
        seconds = [sum(int(part) * unit for part, unit in zip(t.split(":"), (60, 1))) for t in fex["approx_time"]]
        assert seconds == [row["timestamp_us"] // 1_000_000 for row in wanted]


def check_abaw(rows, folder):
    """Reads the folders back: annotations frame by frame, submissions with gaps filled."""
    decoded = 303
    with open(f"{folder}/submission/videos.txt", encoding="utf-8") as file:
        submitted = dict(line.rsplit(" ", 1) for line in file.read().splitlines())
    assert set(submitted.values()) == {str(decoded)} and len(submitted) == 4
    best = lambda row: CLASSES.index(row["student_expression"])
    tasks = {
        "VA_Set": ("valence,arousal", 2, [-5, -5], lambda r: [max(-1, min(1, r[f"student_{x}"])) for x in ("valence", "arousal")]),
        "EXPR_Set": (",".join(CLASSES), 1, [-1], lambda r: [best(r)]),
        "AU_Set": (",".join(UNITS), 12, [-1] * 12, lambda r: [int(r[f"student_{u}_p"] > 0.5) for u in UNITS]),
    }
    for video, file in files_of(folder).items():
        assert file.removesuffix(".txt") in submitted
        largest = {row["frame"]: row for row in rows if row["video"] == video and row["face"] == 0}
        for task, (header, width, invalid, say) in tasks.items():
            read = {}
            for kind in ("annotations", "submission"):
                with open(f"{folder}/{kind}/{task}/{file}", encoding="utf-8") as text:
                    lines = text.read().splitlines()
                assert lines[0] == header
                read[kind] = [[float(cell) for cell in line.split(",")] for line in lines[1:]]
                assert len(read[kind]) == decoded and all(len(row) == width for row in read[kind])
            last = invalid
            for frame in range(decoded):
                label = say(largest[frame]) if frame in largest else invalid
                last = label if frame in largest else last
                assert np.allclose(read["annotations"][frame], label, atol=1e-6), (video, task, frame)
                assert np.allclose(read["submission"][frame], last, atol=1e-6), (video, task, frame)
            leading = read["submission"][0] == invalid
            assert leading == (video == "late.mp4"), video


def check_webdataset(rows, folder):
    import webdataset as wds

    faces = {(r["video"], r["frame"], r["face"]): r for r in rows if r["face"] is not None}
    shards = sorted(glob.glob(f"{folder}/*.tar"))
    seen = set()
    for sample in wds.WebDataset(shards, shardshuffle=False).decode("rgb8"):
        labels = sample["json"]
        key = (labels["video"], labels["frame"], labels["face"])
        row = faces[key]
        seen.add(key)
        assert sample["jpg"].shape == (128, 128, 3)
        assert sample["cls"] == CLASSES.index(row["student_expression"]) and labels["expression"] == row["student_expression"]
        assert labels.pop("crop") == "arcface112"
        for name, value in labels.items():
            wanted = row.get(name, row.get(f"student_{name}"))
            same = list(value) == list(wanted) if name == "landmarks" else value == wanted
            assert same or near(np.float32(value), np.float32(wanted)), (name, value, wanted)
        assert {"valence", "expr_Fear", "expr_Fear_p", "AU26", "AU26_p", "track", "box_w"} <= set(labels)
        assert not any(name.startswith(("student", "fer")) for name in labels)
    assert seen == set(faces), (len(seen), len(faces))
    with tarfile.open(shards[0]) as archive:
        assert [name.rsplit(".", 1)[1] for name in archive.getnames()[:3]] == ["jpg", "json", "cls"]


def check_plain(labels, csv_file, jsonl_file):
    rows = pl.read_parquet(f"{labels}/labels/*.parquet").with_columns(pl.col(pl.Categorical).cast(pl.String))
    points = [f"landmark_{n // 2}_{'xy'[n % 2]}" for n in range(10)]
    wide = rows.with_columns(pl.col("landmarks").arr.get(n).alias(name) for n, name in enumerate(points)).drop("landmarks")
    found = pl.read_csv(csv_file, schema_overrides=wide.schema)
    assert found.columns == rows.columns[:11] + points + rows.columns[12:], found.columns
    assert found.equals(wide.select(found.columns))
    # Python's own reader agrees on the odd names.
    with open(csv_file, newline="", encoding="utf-8") as file:
        assert [row["video"] for row in csv.DictReader(file)] == rows["video"].to_list()
    with open(jsonl_file, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    for line, row in zip(lines, rows.iter_rows(named=True), strict=True):
        assert list(line) == list(row)
        for name, value in row.items():
            if isinstance(value, float):
                assert np.float32(line[name]) == np.float32(value), (name, value)
            elif name == "landmarks" and value is not None:
                assert np.array_equal(np.float32(line[name]), np.float32(value))
            else:
                assert line[name] == value, (name, value)


def export(labels, folder):
    import feat as loader

    feat = loader.load(sys.argv[1])
    rows = read_labels(labels).to_dicts()
    check_openface(feat, rows, f"{folder}/openface")
    check_fex(feat, rows, f"{folder}/fex")
    check_abaw(rows, f"{folder}/abaw")
    check_webdataset(rows, f"{folder}/webdataset")
    check_plain(labels, f"{folder}/csv/labels.csv", f"{folder}/jsonl/labels.jsonl")


{"query": query, "export": export}[sys.argv[2]](*sys.argv[3:])
print("equal")
