"""Holds jobs/kubernetes.yaml, jobs/keda.yaml, jobs/nats-values.yaml and jobs/Dockerfile against what others publish and what the
repository has.

Usage: manifests.py REPOSITORY NATS_SERVER [AFFECTMILL]. With the program, the image's packages are held against what it is
linked with (on Debian).

The manifests are validated against Kubernetes' own schemas (PyPI kubernetes-validate carries them), the job in them against
schemas/job.schema.json, the server's users by a real server. No package for Python carries KEDA's schema: its fields stand below.
That the queue is where jobs/keda.yaml looks for it is a test of its own, with a real server (tests/suite/cluster.rs).
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


def options(spec):
    command, *rest = container(spec)["args"]
    assert command == "worker"
    return dict((option + "=").split("=")[:2] for option in rest)


given = options(workers["spec"])
assert given["--queue"] == job["run"]["queue"] and given["--job"] == job["run"]["name"]
assert given["--scratch"] == job["run"]["scratch"]
assert container(coordinator["spec"])["args"] == ["run", "/job/job.toml"]
drain = job["run"].get("drain_seconds", 25)
assert workers["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain
print("the job in them is valid, and the workers look for it where it is posted")

# ---- threads by the CPU request ---------------------------------------------------------------------------------------

# Whole CPUs, rounded up, as resourceFieldRef has them without a divisor.
assert container(workers["spec"])["env"] == [
    {"name": "THREADS", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}}
]
assert given["--threads"] == "$(THREADS)" and "cpu" in container(workers["spec"])["resources"]["requests"]
refused(lambda spec: container(spec)["env"][0]["valueFrom"]["resourceFieldRef"].pop("resource"))

# ---- KEDA -------------------------------------------------------------------------------------------------------------

# The fields of keda.sh/v1alpha1 ScaledJob (KEDA 2.12 to 2.18), its own ones; what a job is, Kubernetes says.
integer, string, strings = {"type": "integer"}, {"type": "string"}, {"type": "array", "items": {"type": "string"}}
positive = {"type": "string", "pattern": "^[1-9][0-9]*$"}


def fields(required, **properties):
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


SCALED_JOB = fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledJob"},
    metadata={"type": "object", "required": ["name"]},
    spec=fields(
        ["jobTargetRef", "triggers"],
        jobTargetRef={"type": "object"},
        pollingInterval=integer,
        minReplicaCount=integer,
        maxReplicaCount=integer,
        successfulJobsHistoryLimit=integer,
        failedJobsHistoryLimit=integer,
        envSourceContainerName=string,
        rollout=fields([], strategy={"enum": ["default", "gradual"]}, propagationPolicy={"enum": ["background", "foreground"]}),
        scalingStrategy=fields(
            [],
            strategy={"enum": ["default", "custom", "accurate", "eager"]},
            customScalingQueueLengthDeduction=integer,
            customScalingRunningJobPercentage=string,
            pendingPodConditions=strings,
            multipleScalersCalculation={"enum": ["max", "min", "avg", "sum"]},
        ),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": fields(
                ["type", "metadata"],
                type={"const": "nats-jetstream"},
                name=string,
                metricType={"enum": ["AverageValue", "Value"]},
                authenticationRef=fields(["name"], name=string, kind=string),
                # All values of a trigger are text.
                metadata=fields(
                    ["natsServerMonitoringEndpoint", "account", "stream", "consumer"],
                    natsServerMonitoringEndpoint={"type": "string", "pattern": "^[a-z0-9.-]+:[0-9]+$"},
                    account=string,
                    stream=string,
                    consumer=string,
                    lagThreshold=positive,
                    activationLagThreshold=positive,
                    useHttps={"enum": ["true", "false"]},
                ),
            ),
        },
    ),
)


def amiss_in(scaled):
    wrong = [error.message for error in jsonschema.Draft202012Validator(SCALED_JOB).iter_errors(scaled)]
    if not wrong:
        try:
            validate({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": scaled["spec"]["jobTargetRef"]})
        except kubernetes_validate.ValidationError as error:
            wrong.append(error.message)
    return wrong


scaled = yaml.safe_load((jobs / "keda.yaml").read_text())
assert not amiss_in(scaled), amiss_in(scaled)
assert "namespace" not in scaled["metadata"]
for change in (
    lambda spec: spec.pop("triggers"),
    lambda spec: spec.update(maxReplicas=4),
    lambda spec: spec.update(pollingInterval="30s"),
    lambda spec: spec["triggers"][0]["metadata"].update(lagThreshold=8),
    lambda spec: spec["triggers"][0]["metadata"].pop("consumer"),
    lambda spec: spec["jobTargetRef"].pop("template"),
    lambda spec: container(spec["jobTargetRef"]).update(imagePullPolice="Always"),
):
    wrong = copy.deepcopy(scaled)
    change(wrong["spec"])
    assert amiss_in(wrong), "a wrong manifest passed: the validation proves nothing"
    print(f"refused, as it should be: {amiss_in(wrong)[0][:90]}")

# The same workers as those of the other manifest, started for one queue that is there.
target, usual = scaled["spec"]["jobTargetRef"], copy.deepcopy(workers["spec"])
assert options(target) == given | {"--wait": options(target)["--wait"]} and int(options(target)["--wait"]) <= 600
container(usual)["args"] = container(target)["args"]
assert target["template"] == usual["template"] and target["podFailurePolicy"] == usual["podFailurePolicy"]
assert target["parallelism"] == target["completions"] == 1
assert workers["metadata"]["labels"]["part"] == "workers", "the other workers can be left out by their label"
assert not any("part" in manifest["metadata"].get("labels", {}) for manifest in manifests if manifest is not workers)
looks_at = scaled["spec"]["triggers"][0]["metadata"]
assert looks_at["stream"] == f"affectmill-{job['run']['name']}"
# The port and the service that NATS' chart opens, whose release is called as the queue's host.
host = job["run"]["queue"].removeprefix("nats://").split(":")[0]
assert re.fullmatch(rf"{host}-headless\.[a-z0-9-]+\.svc\.cluster\.local:8222", looks_at["natsServerMonitoringEndpoint"])
print("jobs/keda.yaml is valid, and its workers are those of jobs/kubernetes.yaml")

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
