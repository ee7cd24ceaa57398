"""The figures of `affectmill evaluate` computed again by scikit-learn, SciPy and NumPy, from the definitions in
src/evaluation/README.md.

    evaluate.py metrics CASES.json                    faces and figures that the library wrote
    evaluate.py annotate FOLDER                       an annotation folder for the videos of tests/suite/evaluate.rs
    evaluate.py sets                                  evaluations against another label set on standard input
    evaluate.py check OUT FOLDER CALIBRATION|-        evaluations of that set on standard input, one JSON a line

Prints how many numbers were compared; raises at the first that is off by more than 1e-9.
"""

import json
import math
import random
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logsumexp
from sklearn.metrics import accuracy_score, f1_score, log_loss

warnings.filterwarnings("ignore")
CLASSES = ["Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other"]
UNITS = ["AU1", "AU2", "AU4", "AU6", "AU7", "AU10", "AU12", "AU15", "AU23", "AU24", "AU25", "AU26"]
compared = 0


def same(name, found, expected, tolerance=1e-9):
    global compared
    compared += 1
    if found is None or expected is None:
        assert found is None and expected is None, (name, found, expected)
    else:
        assert abs(found - expected) <= tolerance, (name, found, expected)


def ccc(said, true):
    said, true = np.clip(said, -0.99, 0.99), np.asarray(true)
    cov = np.mean((said - said.mean()) * (true - true.mean()))
    return 2 * cov / (said.var() + true.var() + (said.mean() - true.mean()) ** 2 + 1e-5)


def ece(p, true):
    """Guo et al. 2017: 15 bins, open below and closed above."""
    p, true = np.asarray(p), np.asarray(true, dtype=float)
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in zip(edges, edges[1:]):
        inside = (p > low) & (p <= high) if low else p <= high
        if inside.any():
            total += inside.mean() * abs(p[inside].mean() - true[inside].mean())
    return total


def f1_or_none(true, said):
    return f1_score(true, said) if np.any(true) or np.any(said) else None


def figures(faces, profile, tasks, temperature, thresholds):
    """(task, name, of) -> value of faces: dictionaries of truth `va`, `expression`, `units` and said `p_…`."""
    out = {}
    scores = []
    if "va" in tasks:
        rows = [f for f in faces if f["va"] and f["p_va"]]
        both = [
            ccc(np.array([f["p_va"][n] for f in rows]), [f["va"][n] for f in rows]) if rows else None for n in (0, 1)
        ]
        out["va", "ccc", "valence"], out["va", "ccc", "arousal"] = both
        scores.append(np.mean(both) if rows else None)
        out["va", "score", None] = scores[-1]
    if "expr" in tasks:
        known = range(7 if profile == "abaw2" else 8)
        rows = [f for f in faces if f["expression"] in known and f["p_expression"]]
        true = np.array([f["expression"] for f in rows], dtype=int)
        said = np.array([int(np.argmax(f["p_expression"])) for f in rows], dtype=int)
        for n in known:
            out["expr", "f1", CLASSES[n]] = f1_or_none(true == n, said == n) if rows else None
        if profile == "abaw2":
            macro = f1_score(true, said, average="macro") if rows else None
        else:
            macro = f1_score(true, said, average="macro", labels=list(known), zero_division=0) if rows else None
        accuracy = accuracy_score(true, said) if rows else None
        out["expr", "macro_f1", None], out["expr", "accuracy", None] = macro, accuracy
        score = macro if profile == "abaw-mtl" or not rows else 0.67 * macro + 0.33 * accuracy
        scores.append(score)
        out["expr", "score", None] = score
        rows = [f for f in rows if f["expression"] < 7]
        logits = np.array([f["p_expression"] for f in rows]).reshape(-1, 7) / temperature
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True)) if rows else logits
        true = np.array([f["expression"] for f in rows], dtype=int)
        out["expr", "ece", None] = ece(p.max(axis=1), p.argmax(axis=1) == true) if rows else None
        nll = -np.mean([row[t] - logsumexp(row) for row, t in zip(logits, true)]) if rows else None
        out["expr", "nll", None] = nll
    if "au" in tasks:
        f1s, cells = [], ([], [], [])
        for n, unit in enumerate(UNITS):
            rows = [f for f in faces if f["units"] and f["p_units"] and f["units"][n] is not None]
            true = np.array([f["units"][n] for f in rows], dtype=bool)
            logit = np.array([f["p_units"][n] for f in rows], dtype=float)
            said = logit > thresholds[n]
            out["au", "f1", unit] = f1_or_none(true, said) if rows else None
            if rows:
                f1s.append(f1_score(true, said, zero_division=0))
            for kept, new in zip(cells, (true, said, logit)):
                kept.extend(new)
        true, said, logit = map(np.array, cells)
        any_ = len(true) > 0
        mean_f1 = np.mean(f1s) if any_ else None
        accuracy = accuracy_score(true, said) if any_ else None
        out["au", "mean_f1", None], out["au", "accuracy", None] = mean_f1, accuracy
        score = mean_f1 if profile == "abaw-mtl" or not any_ else (mean_f1 + accuracy) / 2
        scores.append(score)
        out["au", "score", None] = score
        out["au", "ece", None] = ece(expit(logit), true) if any_ else None
        # -log of the probability given to the truth, from the logit: log_loss of scikit-learn clips.
        nll = np.mean(np.logaddexp(0, np.where(true, -logit, logit))) if any_ else None
        out["au", "nll", None] = nll
        if any_ and np.abs(logit).max() < 30 and true.any() and not true.all():
            same("log_loss", nll, log_loss(true, expit(logit)))
    if profile == "abaw-mtl" and len(tasks) == 3:
        out[None, "total", None] = None if None in scores else sum(scores)
    return out


def chacha8(seed):
    """The 32-bit words of ChaCha8 (Bernstein 2008) under a key of the seed and zeros."""
    rotate = lambda x, n: ((x << n) | (x >> (32 - n))) & 0xFFFFFFFF
    key = struct.unpack("<8I", struct.pack("<Q", seed) + bytes(24))
    block = 0
    while True:
        start = list(struct.unpack("<4I", b"expand 32-byte k")) + list(key) + [block, 0, 0, 0]
        x = start[:]
        for _ in range(4):
            for a, b, c, d in (
                [(n, n + 4, n + 8, n + 12) for n in range(4)]
                + [(n, 4 + (n + 1) % 4, 8 + (n + 2) % 4, 12 + (n + 3) % 4) for n in range(4)]
            ):
                x[a] = (x[a] + x[b]) & 0xFFFFFFFF
                x[d] = rotate(x[d] ^ x[a], 16)
                x[c] = (x[c] + x[d]) & 0xFFFFFFFF
                x[b] = rotate(x[b] ^ x[c], 12)
                x[a] = (x[a] + x[b]) & 0xFFFFFFFF
                x[d] = rotate(x[d] ^ x[a], 8)
                x[c] = (x[c] + x[d]) & 0xFFFFFFFF
                x[b] = rotate(x[b] ^ x[c], 7)
        yield from ((a + b) & 0xFFFFFFFF for a, b in zip(x, start))
        block += 1


def intervals(videos, profile, tasks, temperature, thresholds, samples, seed):
    words = chacha8(seed)
    drawn = {}
    for _ in range(samples):
        draws = [(next(words) * len(videos)) >> 32 for _ in videos]
        faces = [face for n in draws for face in videos[n]]
        for key, value in figures(faces, profile, tasks, temperature, thresholds).items():
            drawn.setdefault(key, []).append(value)
    out = {}
    for key, values in drawn.items():
        values = [value for value in values if value is not None]
        out[key] = list(np.percentile(values, [2.5, 97.5])) if values else None
    return out


def compare(found, faces, profile, tasks, temperature, thresholds, where):
    expected = figures(faces, profile, tasks, temperature, thresholds)
    names = [(figure["task"], figure["name"], figure["of"]) for figure in found]
    assert set(names) == set(expected) and len(names) == len(expected), (where, names, list(expected))
    for name, figure in zip(names, found):
        same((where, name), figure["value"], expected[name])


def compare_intervals(found, videos, profile, tasks, temperature, thresholds, bootstrap, where):
    videos = [video for video in videos if video]
    expected = intervals(videos, profile, tasks, temperature, thresholds, bootstrap["samples"], bootstrap["seed"])
    for figure in found:
        name = (figure["task"], figure["name"], figure["of"])
        interval = expected[name] if figure["videos"] > 1 else None
        assert (figure["interval"] is None) == (interval is None), (where, name, figure, interval)
        for found_, expected_ in zip(figure["interval"] or [], interval or []):
            same((where, name, "interval"), found_, expected_)


def check_tuned(tuned, faces, where):
    rows = [f for f in faces if f["expression"] is not None and f["expression"] < 7 and f["p_expression"]]
    if rows:
        logits = np.array([f["p_expression"] for f in rows])
        true = np.array([f["expression"] for f in rows])
        nll = lambda t: np.mean(logsumexp(logits / t, axis=1) - logits[range(len(rows)), true] / t)
        best = minimize_scalar(lambda b: nll(1 / b), bounds=(1 / 20, 20), method="bounded", options={"xatol": 1e-12})
        expression = tuned["expression"]
        assert expression["faces"] == len(rows)
        same((where, "nll at 1"), expression["nll"][0], nll(1.0))
        same((where, "nll"), expression["nll"][1], nll(expression["temperature"]))
        # A minimum is flat: its height is compared as sharply as everything, its place as sharply as that allows.
        assert expression["nll"][1] <= best.fun + 1e-9, (where, expression, best.fun)
        if 0.06 < expression["temperature"] < 19 and np.ptp(logits, axis=1).max() > 1e-3:
            same((where, "temperature"), expression["temperature"], 1 / best.x, 1e-3 * expression["temperature"])
    else:
        assert tuned["expression"] is None, where
    for n, unit in enumerate(UNITS):
        rows = [f for f in faces if f["units"] and f["p_units"] and f["units"][n] is not None]
        true = np.array([f["units"][n] for f in rows], dtype=bool)
        logit = np.array([f["p_units"][n] for f in rows], dtype=float)
        if not true.any():
            assert unit not in tuned["units"], (where, unit)
            continue
        found = tuned["units"][unit]
        assert found["faces"] == len(rows)
        candidates = np.append(np.unique(logit), logit.min() - 1)
        best = max(f1_score(true, logit > threshold, zero_division=0) for threshold in candidates)
        same((where, unit, "at 0"), found["f1"][0], f1_score(true, logit > 0, zero_division=0))
        same((where, unit, "at its threshold"), found["f1"][1], f1_score(true, logit > found["logit"]))
        same((where, unit, "best"), found["f1"][1], best)


def metrics(path):
    for case in json.loads(Path(path).read_text()):
        faces = [face for video in case["videos"] for face in video]
        given = (case["profile"], case["tasks"], case["temperature"], case["thresholds"])
        compare(case["figures"], faces, *given, case["name"])
        compare_intervals(case["figures"], case["videos"], *given, case["bootstrap"], case["name"])
        check_tuned(case["tuned"], faces, case["name"])


VA, EXPR, AU = "valence,arousal", ",".join(CLASSES[:7]), ",".join(UNITS)


def annotate(folder):
    """Rows for every frame and some beyond the end, with marks of invalid frames; names as ABAW's."""
    dice = random.Random(7)
    spell = {
        "va": lambda: f"{dice.uniform(-1, 1):.3f},{dice.uniform(-1, 1):.3f}",
        "expr": lambda: str(dice.randrange(8)),
        "au": lambda: ",".join(str(dice.randrange(2)) for _ in UNITS),
    }
    invalid = {"va": ["-5,-5", "-5,0.1"], "expr": ["-1"], "au": [",".join(["-1"] * 12), "-1" + ",0" * 11]}
    heads = {"va": VA, "expr": EXPR + ",Other,", "au": AU}
    sets = {"va": "VA_Set", "expr": "EXPR_Set", "au": "AU_Set"}
    for name, rows, tasks in [
        ("one", 34, ["va", "expr", "au"]),
        ("gap", 24, ["va", "expr", "au"]),
        ("two_left", 12, ["va", "expr", "au"]),
        ("two_right", 12, ["va", "expr"]),
        ("gone", 5, ["va"]),
    ]:
        for task in tasks:
            path = Path(folder) / sets[task] / "Validation_Set" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [dice.choice(invalid[task]) if dice.random() < 0.15 else spell[task]() for _ in range(rows)]
            path.write_text("\n".join([heads[task], *lines]) + "\n")
    other = Path(folder) / "VA_Set" / "Train_Set"
    other.mkdir()
    (other / "one.txt").write_text(VA + "\n0.1,0.1\n")


def truths(folder):
    """name -> frame -> task -> value or None where it is invalid."""
    out = {}
    for path in sorted(Path(folder).glob("*/Validation_Set/*.txt")):
        head, *lines = path.read_text().splitlines()
        task = {"v": "va", "N": "expr", "A": "au"}[head[0]]
        for frame, line in enumerate(lines):
            values = [float(value) for value in line.split(",")]
            if task == "va":
                value = None if -5 in values else values
            elif task == "expr":
                value = None if values[0] == -1 else int(values[0])
            else:
                value = None if -1 in values else [int(value) for value in values]
            out.setdefault(path.stem, {}).setdefault(frame, {})[task] = value
    return out


def check(out, folder, calibration):
    import polars as pl

    labels = pl.read_parquet(f"{out}/labels/*.parquet").sort("video", "frame", "face")
    frames = {}
    for row in labels.iter_rows(named=True):
        frames.setdefault(row["video"], {}).setdefault(row["frame"], []).append(row)
    place = {"one": "a/one.mp4", "gap": "gap.mp4", "two_left": "two.mp4", "two_right": "two.mp4"}
    for line in sys.stdin:
        report = json.loads(line)
        where = (report["profile"], report["person"], report["missing"])
        account = {task: dict.fromkeys(report["frames"]["va"], 0) for task in ("va", "expr", "au")}
        videos, groups = {}, {}
        for person, truth in truths(folder).items():
            if person not in place:
                continue
            video = place[person]
            tracks = [row["track"] for rows in frames[video].values() for row in rows if row["face"] is not None]
            longest = max(sorted(set(tracks)), key=tracks.count)
            held = None
            for frame in range(max(max(truth), max(frames[video])) + 1):
                rows = frames[video].get(frame)
                faces = [row for row in rows or [] if row["face"] is not None]
                faces.sort(key=lambda row: row["face"])
                why, row = "no_row" if rows is None else "no_face", None
                if "_" in person and len(faces) == 1:
                    why = "ambiguous"
                elif "_" in person and faces:
                    pick = min if person.endswith("left") else max
                    row = pick(faces[:2], key=lambda row: row["box_x"] + row["box_w"] / 2)
                elif faces and report["person"] == "largest":
                    row = faces[0]
                elif faces:
                    row = next((row for row in faces if row["track"] == longest), None)
                repeated = row is None and why != "ambiguous" and report["missing"] == "repeat" and held is not None
                held = row or held
                row = held if repeated else row
                for task, value in truth.get(frame, {}).items():
                    count = account[task]
                    count["annotated"] += 1
                    entry = "invalid" if value is None else "scored" if row else why
                    count[entry] += 1
                    if entry == "scored":
                        count["repeated"] += repeated
                        count["several_faces"] += len(faces) > 1 and not repeated
                if row and any(value is not None for value in truth.get(frame, {}).values()):
                    face = {
                        "va": truth[frame].get("va"),
                        "expression": truth[frame].get("expr"),
                        "units": truth[frame].get("au"),
                    } | said(row, "student")
                    videos.setdefault(video, []).append(face)
                    groups.setdefault((video, person, row["track"]), []).append(face)
        assert report["frames"] == account, (where, report["frames"], account)
        assert report["without_labels"] == ["gone"] and report["without_annotations"] == ["bare.mp4"], where
        temperature, thresholds = 1.0, [0.0] * 12
        if "calibration" in report:
            tuned = json.loads(Path(calibration).read_text())
            temperature = tuned["expression"]["temperature"]
            thresholds = [tuned["units"].get(unit, {"logit": 0.0})["logit"] for unit in UNITS]
        same("temperature", report["temperature"], temperature)
        faces = [face for video in sorted(videos) for face in videos[video]]
        given = (report["profile"], ["va", "expr", "au"], temperature, thresholds)
        compare(report["figures"], faces, *given, where)
        compare_intervals(report["figures"], [videos[v] for v in sorted(videos)], *given, report["bootstrap"], where)
        if "groups" in report:
            found = {(g["video"], g["person"], g["track"]): g["figures"] for g in report["groups"]}
            assert set(found) == set(groups), (where, set(found), set(groups))
            for key, group in groups.items():
                compare(found[key], group, *given, (where, key))
        if "tuned" in report:
            check_tuned(report["tuned"], faces, where)


def said(row, model):
    """What a model said of a row: expression, action units, and all its logits."""
    expression = [row[f"{model}_expr_{name}"] for name in CLASSES[:7]]
    if f"{model}_AU1" not in row:
        return {"p_va": None, "p_expression": expression, "p_units": None}
    va = [row[f"{model}_valence"], row[f"{model}_arousal"]]
    return {"p_va": va, "p_expression": expression, "p_units": [row[f"{model}_{unit}"] for unit in UNITS]}


def sets():
    """Both sets found the same faces here; one may lack frames."""
    import polars as pl

    def rows(out):
        labels = pl.read_parquet(f"{out}/labels/*.parquet").filter(pl.col("face").is_not_null())
        return {(row["video"], row["frame"], row["face"]): row for row in labels.iter_rows(named=True)}

    for line in sys.stdin:
        report = json.loads(line)
        ours, theirs = rows(report["labels"]), rows(report["annotations"])
        videos, count = {}, 0
        for key, row in sorted(theirs.items()):
            true = said(row, report["reference"])
            units = true["p_units"] and [int(logit > 0) for logit in true["p_units"]]
            face = {"va": true["p_va"], "expression": int(np.argmax(true["p_expression"])), "units": units}
            if key in ours:
                count += 1
                videos.setdefault(key[0], []).append(face | said(ours[key], report["model"]))
        tasks = sorted(report["frames"])
        assert tasks == (["au", "expr", "va"] if report["reference"] == "student" else ["expr"]), tasks
        for account in report["frames"].values():
            assert (account["annotated"], account["scored"]) == (len(theirs), count), account
            assert account["annotated"] == account["scored"] + account["no_row"], account
        given = (report["profile"], tasks, 1.0, [0.0] * 12)
        compare(report["figures"], [face for video in videos.values() for face in video], *given, line[:80])
        compare_intervals(report["figures"], list(videos.values()), *given, report["bootstrap"], line[:80])


{"metrics": metrics, "sets": sets, "annotate": annotate, "check": check}[sys.argv[1]](*sys.argv[2:])
print(compared)
