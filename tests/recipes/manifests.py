"""Holds jobs/kubernetes.yaml, jobs/nats-values.yaml and jobs/Dockerfile against what others publish and what the repository has.

Usage: manifests.py REPOSITORY NATS_SERVER [AFFECTMILL]. With the program, the image's packages are held against what it is
linked with (on Debian).

The manifests are validated against Kubernetes' own schemas (PyPI kubernetes-validate carries them), the job in them against
schemas/job.schema.json, the server's users by a real server.
"""

import copy
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

repository, nats_server = Path(sys.argv[1]), sys.argv[2]
jobs = repository / "jobs"
# Where podFailurePolicy is stable, and the newest that the package knows.
VERSIONS = ["1.31", kubernetes_validate.latest_version()]
ACTIONS = {"FailJob", "FailIndex", "Ignore", "Count"}


def validate(manifest):
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def judged(job, code):
    """What Kubernetes does with a pod whose container ended so: the first rule that matches; else it counts."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if codes := rule.get("onExitCodes"):
            inside = code in codes["values"]
            if inside == (codes["operator"] == "In"):
                return rule["action"]
    return "Count"


# ---- manifests -------------------------------------------------------------------------------------------------------

manifests = list(yaml.safe_load_all((jobs / "kubernetes.yaml").read_text()))
for manifest in manifests:
    validate(manifest)
    assert "namespace" not in manifest["metadata"], "kubectl's own namespace is meant"
by_name = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
coordinator = by_name["Job", "affectmill-coordinator"]
workers = by_name["Job", "affectmill-workers"]
print(f"{len(manifests)} manifests are valid for Kubernetes {' and '.join(VERSIONS)}")


def refused(change, manifest=workers):
    wrong = copy.deepcopy(manifest)
    change(wrong["spec"])
    try:
        validate(wrong)
    except kubernetes_validate.ValidationError as error:
        return error.message
    raise AssertionError("a wrong manifest passed: the validation proves nothing")


container = lambda spec: spec["template"]["spec"]["containers"][0]  # noqa: E731
for change in (
    lambda spec: spec.update(podFailurePolicies=spec.pop("podFailurePolicy")),
    lambda spec: spec.update(parallelism="four"),
    lambda spec: spec.pop("template"),
    lambda spec: spec["podFailurePolicy"]["rules"][0].pop("action"),
    lambda spec: spec["podFailurePolicy"]["rules"][1]["onExitCodes"].update(values=["75"]),
    lambda spec: container(spec).pop("name"),
    lambda spec: container(spec)["resources"].update(limit={"nvidia.com/gpu": 1}),
):
    print(f"refused, as it should be: {refused(change)[:90]}")

# What the schemas leave open, and the exit codes of README.md.
for job, expected in (
    (coordinator, {2: "FailJob", 3: "FailJob", 4: "Count", 75: "Ignore", 130: "Count", 137: "Count"}),
    (workers, {2: "FailJob", 4: "Count", 75: "Ignore", 130: "Count", 137: "Count"}),
):
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} <= ACTIONS
    # First, so that a worker which is evicted while it fails is not blamed.
    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert {code: judged(job, code) for code in expected} == expected
    assert pod["restartPolicy"] == "Never"
    mounts = {mount["name"] for mount in container(spec)["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    for volume in pod["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in by_name
assert container(coordinator["spec"])["image"] == container(workers["spec"])["image"]
assert workers["spec"]["completionMode"] == "Indexed"
assert workers["spec"]["completions"] == workers["spec"]["parallelism"]
assert container(workers["spec"])["resources"]["limits"]["nvidia.com/gpu"] == 1

# ---- the job in them -------------------------------------------------------------------------------------------------

schema = json.loads((repository / "schemas/job.schema.json").read_text())
job = tomllib.loads(by_name["ConfigMap", "affectmill-job"]["data"]["job.toml"])
amiss = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(job)]
assert not amiss, f"{amiss}: is schemas/job.schema.json up to date?"
args = container(workers["spec"])["args"]
given = dict(zip(args, args[1:]))
assert given["--queue"] == job["run"]["queue"] and given["--job"] == job["run"]["name"]
assert given["--scratch"] == job["run"]["scratch"]
assert container(coordinator["spec"])["args"] == ["run", "/job/job.toml"]
drain = job["run"].get("drain_seconds", 25)
assert workers["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain
print("the job in them is valid, and the workers look for it where it is posted")

# ---- NATS ------------------------------------------------------------------------------------------------------------

values = yaml.safe_load((jobs / "nats-values.yaml").read_text())
assert values["config"]["cluster"] == {"enabled": True, "replicas": job["nats"]["replicas"]}
assert values["config"]["jetstream"]["enabled"] and values["config"]["jetstream"]["fileStore"]["enabled"]
for name, source in values["container"]["env"].items():
    reference = source["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "affectmill-nats", "key": name}
    assert {"secretRef": {"name": reference["name"]}} in container(workers["spec"])["envFrom"]


def answer(port, user, password):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connect = json.dumps({"verbose": False, "user": user, "pass": password})
        connection.sendall(f"CONNECT {connect}\r\nPING\r\n".encode())
        told = b""
        while b"PONG" not in told and b"-ERR" not in told and (more := connection.recv(4096)):
            told += more
        return told


with tempfile.TemporaryDirectory() as folder:
    # As the chart writes it: JSON, whose strings "<< … >>" lose their quotes.
    merged = values["config"]["merge"] | {"host": "127.0.0.1", "port": -1, "ports_file_dir": folder}
    text = re.sub(r'"<<\s+(.*?)\s+>>"', r"\1", json.dumps(merged, indent=1))
    configuration = Path(folder) / "nats.conf"
    configuration.write_text(text)
    secret = {"NATS_USER": "affectmill", "NATS_PASSWORD": "p0123456789abcdef"}
    server = subprocess.Popen(
        [nats_server, "--config", configuration], env=os.environ | secret, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            if ports := list(Path(folder).glob("*.ports")):
                break
            assert server.poll() is None, f"the server refuses its configuration:\n{text}"
            time.sleep(0.1)
        port = int(re.search(r"nats://127.0.0.1:(\d+)", ports[0].read_text())[1])
        assert b"PONG" in answer(port, *secret.values())
        assert b"Authorization Violation" in answer(port, "affectmill", "$NATS_PASSWORD")
        assert b"Authorization Violation" in answer(port, "", "")
    finally:
        server.kill()
        server.wait()
print("a server takes the user of nats-values.yaml, and nobody else")

# ---- the image -------------------------------------------------------------------------------------------------------

hadolint = Path(sys.executable).with_name("hadolint")
linted = subprocess.run([hadolint, "--no-color", jobs / "Dockerfile"], capture_output=True, text=True)
assert linted.returncode == 0, linted.stdout + linted.stderr

lines = [line for line in (jobs / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
instructions = [shlex.split(line) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]
stages = {words[-1] for words in instructions if words[0] == "FROM" and words[-2] == "AS"}
copied = set()
for words in instructions:
    if words[0] == "COPY":
        flags = [word for word in words[1:] if word.startswith("--")]
        sources = [word for word in words[1:-1] if word not in flags]
        if flags:
            assert flags[0].removeprefix("--from=") in stages, words
            assert not any((repository / source.lstrip("/")).exists() for source in sources), words
        else:
            copied.update(sources)
            assert all((repository / source).exists() for source in sources), words
build_script = tomllib.loads((repository / "Cargo.toml").read_text())["package"].get("build")
assert {"Cargo.toml", "Cargo.lock", "src", ".setup", "Makefile"} <= copied
assert build_script is None or build_script.split("/")[0] in copied
print(f"the image is built of {', '.join(sorted(copied))}")

if len(sys.argv) > 3 and shutil.which("dpkg-query"):
    final = next(words for words in reversed(instructions) if words[0] == "RUN" and "install" in words)
    linked = subprocess.run(["ldd", sys.argv[3]], check=True, capture_output=True, text=True).stdout
    dynamic = subprocess.run(["readelf", "-d", sys.argv[3]], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic):
        found = re.search(rf"{re.escape(library)} => (\S+)", linked)
        # The program loader names itself; what is not Debian's comes along with libtorch.
        owner = found and subprocess.run(
            ["dpkg-query", "--search", os.path.realpath(found[1])], capture_output=True, text=True
        ).stdout.split(":")[0]
        assert not owner or owner in [*final, "libc6", "libgcc-s1"], f"{library}: the image lacks {owner}"
    print("the image has what the program is linked with")
