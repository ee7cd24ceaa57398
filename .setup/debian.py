"""Finds out which system packages are missing, and installs them where that is Debian's business."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fetch import SetupError, run, say


def require_packages(packages: list[str], *, pkg_config: Sequence[str] = (), commands: Sequence[str] = ()) -> None:
    """Installs Debian packages that are missing; on other systems judges by what the packages would bring."""
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        missing = [command for command in commands if not shutil.which(command)]
        if not missing and pkg_config and subprocess.run(["pkg-config", "--exists", *pkg_config]).returncode:
            missing = pkg_config
        if missing:
            raise SetupError(
                f"not there: {', '.join(missing)} (and this is no Debian, where they would be installed now)",
                f"Install what these Debian packages hold, FFmpeg 5.1 or newer: {' '.join(packages)}",
            )
        return
    query = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True, text=True,
    )  # fmt: skip
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    missing = [package for package in packages if package not in installed]
    if missing:
        apt_install(missing)


def apt_install(packages: list[str]) -> None:
    by_hand = f"apt-get install --no-install-recommends {' '.join(packages)}"
    sudo = []
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            raise SetupError(
                "Debian packages are missing; this is not root, and there is no sudo", f"As root: {by_hand}"
            )
        # The password is asked for here, where the terminal is free; without a terminal it must go without one.
        sudo = ["sudo", "--non-interactive"]
        if subprocess.run(["sudo", "--validate"] if sys.stdin.isatty() else [*sudo, "true"]).returncode:
            raise SetupError("Debian packages are missing, and sudo refused", f"As root: {by_hand}")
    say(f"installing Debian packages: {' '.join(packages)}")
    apt = [
        *sudo,
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "LC_ALL=C",
        "apt-get",
        "-qq",
        "-y",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]
    # A third party's source that does not answer is no reason to stop: what counts is whether the packages come.
    try:
        run([*apt, "update"], "apt-get update failed")
    except SetupError as error:
        say(f"{error}\n    going on with the package lists that are there")
    run([*apt, "install", "--no-install-recommends", *packages], "apt-get install failed", f"As root: {by_hand}")


def codename() -> str:
    """Of the Debian release; empty elsewhere."""
    release = Path("/etc/os-release")
    lines = release.read_text().splitlines() if release.is_file() else []
    return next((line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")), "")


def unpack(package: str, member: str, target: Path) -> None:
    """Brings a file of a Debian package without installing that, which would start its service."""
    if target.exists():
        return
    say(f"fetching {target.name} of the Debian package {package}")
    with tempfile.TemporaryDirectory() as scratch:
        run(
            ["apt-get", "-qq", "download", package],
            f"apt-get download {package} failed",
            "As root: apt-get update",
            cwd=scratch,
        )
        [archive] = Path(scratch).glob("*.deb")
        run(["dpkg-deb", "--extract", archive, scratch], f"{archive.name} cannot be unpacked")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        shutil.copy(Path(scratch) / member, part)
        os.replace(part, target)
