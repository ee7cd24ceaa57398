"""py-feat 2.1.5's own readers of CSV, without the rest of it: importing the package takes PyTorch.

`load(folder)` runs the definitions of `read_feat`, `read_openface` and the classes of what they return, as the package has them, and leaves
out what stands around them.
"""

import ast
import os
import sys
import types
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Iterable

import numpy as np
import pandas as pd


def run(path, names, scope):
    """Runs a file's definitions of these names (every one but imports of PyTorch, when names is None) in `scope`."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))

    def defined(node):
        if isinstance(node, ast.Assign):
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        return [getattr(node, "name", None)]

    if names is None:
        is_torch = lambda node: isinstance(node, ast.Import) and node.names[0].name == "torch"
        body = [node for node in tree.body if not is_torch(node)]
    else:
        body = [node for node in tree.body if set(defined(node)) & set(names)]
        missing = set(names) - {name for node in body for name in defined(node)}
        assert not missing, f"{path} has no {missing}"
    exec(compile(ast.Module(body, []), str(path), "exec"), scope)
    return scope


def load(folder):
    folder = Path(folder)
    utils = run(folder / "utils.py", None, {})
    vendor = {"pd": pd, "np": np, "DataFrame": pd.DataFrame, "Series": pd.Series, "os": os, "warnings": warnings}
    # A default of `Fex.predict`, which no reader calls.
    vendor["LinearRegression"] = None
    data = run(folder / "data.py", ["FexSeries", "Fex"], {**vendor, "Iterable": Iterable, "deepcopy": deepcopy})
    feat = types.ModuleType("feat")
    feat.Fex = data["Fex"]
    multitask = types.ModuleType("feat.multitask")
    # The list of names that v2.4 has is cut from EMOTION_NAMES.
    names = ["EMOTION_NAMES", "EMOTION_NAMES_V24", "EMOTION_COLUMNS_V2"]
    run(folder / "multitask.py", names, multitask.__dict__)
    sys.modules.update({"feat": feat, "feat.multitask": multitask})
    return types.SimpleNamespace(**run(folder / "io.py", ["read_feat", "read_openface"], {**utils, "pd": pd, "feat": feat}))
