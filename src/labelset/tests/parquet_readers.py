"""Reads a part with Polars, PyArrow and DuckDB (or Spark) and compares schema and every value with what was written.

Usage: parquet_readers.py CASE.json [spark]. The case holds rows as they were pushed; columns, order and
probabilities are worked out here anew.
"""

import json
import math
import sys

import numpy as np

CLASSES = "Neutral Anger Disgust Fear Happiness Sadness Surprise".split()
UNITS = "AU1 AU2 AU4 AU6 AU7 AU10 AU12 AU15 AU23 AU24 AU25 AU26".split()
TASKS = {"student": ["va", "expr", "au"], "teacher_va": ["va"], "teacher_expr": ["expr"], "teacher_au": ["au"]}


def softmax(logits):
    top = max(logits)
    parts = [math.exp(x - top) for x in logits]
    return [part / math.fsum(parts) for part in parts]


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def expected_columns(case):
    """[(name, kind, values)] in order."""
    rows = case["rows"]
    faces = [row["face"] for row in rows]
    of_face = lambda key: [face and face[key] for face in faces]
    columns = [
        ("video", "text", [row["video"] for row in rows]),
        ("frame", "int64", [row["frame"] for row in rows]),
        ("timestamp_us", "int64", [row["timestamp"] for row in rows]),
        ("status", "text", [row["status"] for row in rows]),
        ("face", "int32", of_face("index")),
        ("track", "int32", of_face("track")),
    ]
    for at, name in enumerate(["box_x", "box_y", "box_w", "box_h"]):
        columns.append((name, "float", [face and face["box"][at] for face in faces]))
    columns.append(("face_score", "float", of_face("score")))
    columns.append(("landmarks", "points", of_face("landmarks")))
    logits = case["values"] in ("logits", "both")
    probabilities = case["values"] in ("probabilities", "both")
    for at, (model, kind) in enumerate(case["models"]):
        outputs = [row["outputs"] and row["outputs"][at] for row in rows]

        def add(name, kind, of):
            columns.append((f"{model}_{name}", kind, [None if o is None else of(o) for o in outputs]))

        start = 0
        for task in TASKS[kind]:
            if task == "va":
                add("valence", "float", lambda o, s=start: o[s])
                add("arousal", "float", lambda o, s=start: o[s + 1])
                start += 2
            elif task == "expr":
                head = lambda o, s=start: o[s : s + 7]
                add("expression", "text", lambda o: CLASSES[head(o).index(max(head(o)))])
                for n, name in enumerate(CLASSES if logits else []):
                    add(f"expr_{name}", "float", lambda o, n=n: head(o)[n])
                for n, name in enumerate(CLASSES if probabilities else []):
                    add(f"expr_{name}_p", "p", lambda o, n=n: softmax(head(o))[n])
                start += 7
            else:
                for n, name in enumerate(UNITS if logits else []):
                    add(name, "float", lambda o, s=start, n=n: o[s + n])
                for n, name in enumerate(UNITS if probabilities else []):
                    add(f"{name}_p", "p", lambda o, s=start, n=n: sigmoid(o[s + n]))
                start += 12
    return columns


def compare(reader, expected, names, types, types_wanted, values):
    assert names == [name for name, _, _ in expected], f"{reader}: columns {names}"
    for (name, kind, wanted), found_type, found in zip(expected, types, values, strict=True):
        where = f"{reader}: {name}"
        assert found_type == types_wanted[kind], f"{where} is {found_type}, not {types_wanted[kind]}"
        assert len(found) == len(wanted), f"{where} has {len(found)} rows, not {len(wanted)}"
        for row, (a, b) in enumerate(zip(found, wanted)):
            if a is None or b is None:
                same = a is None and b is None
            elif kind == "p":
                same = abs(a - b) <= 1.2e-7 * b + 1.5e-45  # half a step of float32, and its smallest number
            elif kind == "points":
                same = list(a) == b
            else:
                same = a == b
            assert same, f"{where}, row {row}: {a!r}, not {b!r}"


def read_pyarrow(path, expected):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path, partitioning=None)
    text = pa.dictionary(pa.int32(), pa.string())
    kinds = {"text": text, "int64": pa.int64(), "int32": pa.int32(), "float": pa.float32(), "p": pa.float32()}
    kinds["points"] = pa.list_(pa.field("element", pa.float32()), 10)
    values = [column.to_pylist() for column in table.columns]
    compare("pyarrow", expected, table.column_names, table.schema.types, kinds, values)
    required = [field.name for field in table.schema if not field.nullable]
    assert required == ["video", "frame", "status"], required


def read_polars(path, expected):
    import polars as pl

    frame = pl.read_parquet(path)
    kinds = {"text": pl.Categorical, "int64": pl.Int64, "int32": pl.Int32, "float": pl.Float32, "p": pl.Float32}
    kinds["points"] = pl.Array(pl.Float32, 10)
    compare("polars", expected, frame.columns, frame.dtypes, kinds, [column.to_list() for column in frame])


def read_duckdb(path, expected):
    import duckdb

    result = duckdb.execute("select * from read_parquet(?)", [path])
    names = [column[0] for column in result.description]
    types = [str(column[1]) for column in result.description]
    rows = result.fetchall()
    values = [list(column) for column in zip(*rows)] or [[] for _ in names]
    kinds = {"text": "VARCHAR", "int64": "BIGINT", "int32": "INTEGER", "float": "FLOAT", "p": "FLOAT"}
    kinds["points"] = "FLOAT[]"
    compare("duckdb", expected, names, types, kinds, values)


def read_spark(path, expected):
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        # Spark 3's vectorised reader knows no BYTE_STREAM_SPLIT; its row reader does.
        .config("spark.sql.parquet.enableVectorizedReader", "false")
        .config("spark.sql.debug.maxToStringFields", "1000")
        .getOrCreate()
    )
    frame = spark.read.parquet(path)
    rows = frame.collect()
    values = [list(column) for column in zip(*rows)] or [[] for _ in frame.columns]
    types = [kind for _, kind in frame.dtypes]
    kinds = {"text": "string", "int64": "bigint", "int32": "int", "float": "float", "p": "float"}
    kinds["points"] = "array<float>"
    compare("spark", expected, frame.columns, types, kinds, values)
    spark.stop()


def check_file(path, case):
    """Encoding and metadata as PyArrow reports them."""
    import pyarrow.parquet as pq

    meta = pq.read_metadata(path)
    assert meta.created_by == "affectmill version 1.0.0 (build labels)", meta.created_by
    pairs = {key.decode(): value.decode() for key, value in meta.metadata.items()}
    assert pairs["affectmill.fingerprint"] == case["fingerprint"]
    assert pairs["affectmill.schema_version"] == "1"
    assert pairs["affectmill.values"] == case["values"]
    assert json.loads(pairs["affectmill.expressions"]) == CLASSES
    assert json.loads(pairs["affectmill.action_units"]) == UNITS
    wanted = [
        {
            "name": name,
            "kind": kind,
            "sha256": "ab" * 32,
            "architecture": "resnet50-fpn256-mean5",
            "preprocessing": "whole-128",
            "precision": "fp32",
            "untrained": True,
        }
        for name, kind in case["models"]
    ]
    assert json.loads(pairs["affectmill.models"]) == wanted
    assert all(key == "ARROW:schema" or key.startswith("affectmill.") for key in pairs), pairs.keys()
    for group in range(meta.num_row_groups):
        for at in range(meta.num_columns):
            column = meta.row_group(group).column(at)
            assert column.compression == "ZSTD", column
            if column.physical_type in ("FLOAT", "DOUBLE"):
                assert set(column.encodings) - {"RLE"} == {"BYTE_STREAM_SPLIT"}, column


def check_videos(case):
    import duckdb
    import polars as pl
    import pyarrow.parquet as pq

    path, wanted = case["videos"], case["wanted"]
    names = ["video", "status", "frames", "rows", "faces", "seconds", "error", "error_class", "error_frame", "attempt",
             "shard", "bytes", "duration_us", "decode_fallback", "lost", "transfer", "tone_mapping", "device", "not_finite"]
    assert pq.read_table(path).to_pylist() == wanted
    assert pl.read_parquet(path).to_dicts() == wanted
    rows = duckdb.execute("select * from read_parquet(?)", [path]).fetchall()
    assert [dict(zip(names, row)) for row in rows] == wanted
    assert pl.read_parquet(path).columns == names
    int64, text = pl.Int64, pl.String
    types = [text, pl.Categorical, int64, int64, int64, pl.Float64, text, pl.Categorical, int64, pl.Int32, text, int64,
             int64, text, int64, text, text, pl.Categorical, int64]
    assert pl.read_parquet(path).dtypes == types
    assert pq.read_metadata(path).metadata[b"affectmill.fingerprint"].decode() == case["fingerprint"]


with open(sys.argv[1], encoding="utf-8") as file:
    case = json.load(file)
if "videos" in case:
    check_videos(case)
else:
    columns = expected_columns(case)
    # What was pushed is float32; JSON carries it exactly.
    for _, kind, values in columns:
        if kind == "float":
            assert all(value is None or float(np.float32(value)) == value for value in values)
    if "spark" in sys.argv:
        read_spark(case["part"], columns)
    else:
        read_pyarrow(case["part"], columns)
        read_polars(case["part"], columns)
        read_duckdb(case["part"], columns)
        check_file(case["part"], case)
print("equal")
