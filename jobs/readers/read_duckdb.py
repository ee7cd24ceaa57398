"""Reads labels with DuckDB: a training set with as many faces of each expression.

    python read_duckdb.py [OUTPUT] [--most 1000]

`face_score` is null where a box was interpolated between two detections. Such faces, most of them near copies of their neighbours,
are left out below; `(face_score > 0.8 or face_score is null)` keeps them.
"""

import argparse

import duckdb

arguments = argparse.ArgumentParser(description="Read labels with DuckDB.")
arguments.add_argument("output", nargs="?", default="out")
arguments.add_argument("--most", type=int, default=1000, help="faces of each expression")
args = arguments.parse_args()

balanced = duckdb.sql(f"""
    select labels.*, duration_us
    from '{args.output}/labels/*.parquet' labels join '{args.output}/videos.parquet' videos using (video)
    where videos.status = 'ok' and face_score > 0.8
    qualify row_number() over (partition by student_expression order by hash(video, frame, face)) <= {args.most}
""")
balanced.write_parquet("balanced.parquet")
