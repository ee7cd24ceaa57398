"""Reads the cropped faces of a job with `[output] crops = "webdataset"`, and the labels of each.

    python read_webdataset.py [OUTPUT]
"""

import argparse
import glob

import webdataset as wds

arguments = argparse.ArgumentParser(description="Read crops with webdataset.")
arguments.add_argument("output", nargs="?", default="out")
args = arguments.parse_args()

samples = wds.WebDataset(sorted(glob.glob(f"{args.output}/crops/*.tar")), shardshuffle=False).decode("rgb8")
for sample in samples:
    face, labels = sample["jpg"], sample["json"]  # [128, 128, 3] uint8; a dict
    print(labels["video"], labels["frame"], face.shape, labels["student_expression"])
