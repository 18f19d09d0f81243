"""tools/launch for clusters: what reaches sbatch, and that it runs; what a Kubernetes API server would be given."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.launch.__main__ import main

ROOT = Path(__file__).resolve().parents[2]

# Programs of SLURM, as far as submitit calls them: sbatch keeps the file and starts every task of the array at once.
SBATCH = """
import os, pathlib, re, subprocess, sys
here, file = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[-1])
text = file.read_text()
(here / "batch.sh").write_text(text)
set_to = dict(re.findall(r"#SBATCH --([a-z-]+)=(.*)", text))
nodes, each = int(set_to["nodes"]), int(set_to["ntasks-per-node"])
number = len(list(here.glob("job-*"))) + 7
(here / f"job-{number}").touch()
last = int(re.match(r"0-(\\d+)", set_to["array"])[1]) if "array" in set_to else -1
for i in range(last + 1) if last >= 0 else [None]:
    array = {} if i is None else {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(i)}
    jobs = {"SLURM_JOB_ID": str(number + (i or 0)), "SLURM_NTASKS": str(nodes * each)}
    names = {"SLURM_JOB_NUM_NODES": str(nodes), "SLURM_JOB_NODELIST": f"node[1-{nodes}]", "PER_NODE": str(each)}
    env = os.environ | array | jobs | names
    subprocess.Popen(["bash", str(here / "batch.sh")], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(f"Submitted batch job {number}")
"""
SRUN = """
import os, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    words = words[1:] if "=" in words[0] or words[0] == "--unbuffered" else words[2:]
each = int(os.environ["PER_NODE"])
tasks = []
for i in range(int(os.environ["SLURM_NTASKS"])):
    env = os.environ | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i % each), "SLURM_NODEID": str(i // each)}
    tasks.append(subprocess.Popen(words, env=env))
sys.exit(max(task.wait() for task in tasks))
"""
SACCT = "print('JobID|State|NodeList')"
# What each task was told, from its environment.
TOLD = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[-1].removeprefix("--workdir="))
folder.mkdir(parents=True, exist_ok=True)
told = {name: value for name, value in os.environ.items() if name.startswith("JAX_")}
(folder / f"{os.environ['SLURM_PROCID']}.json").write_text(json.dumps(told))
(folder / "result.json").write_text(json.dumps({"quality": {"f1": 0.5}}))
"""
CONFIG = """
from ml_collections import ConfigDict
def get_config(arg=""):
    return ConfigDict({"rate": 0.1})
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with the programs of SLURM on the path."""
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / name}.py "$@"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "told.py").write_text(TOLD)
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("JAX_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(ROOT)
    return tmp_path


def command(folder):
    return ["--", sys.executable, str(folder / "told.py"), f"--config={folder / 'config.py'}"]


def test_slurm_gets_the_settings_and_its_tasks_find_each_other(cluster, capsys):
    options = ["--nodes=2", "--processes=2", "--minutes=90", "--at-once=3", "--results=result.json"]
    wanted = ["--set", "gpus_per_node=2", "--set", "cpus_per_task=4", "--set", "partition=long", "--set", "account=me"]
    arguments = ["slurm", f"--folder={cluster / 'big'}", *options, *wanted, "--grid", "rate=0.1,0.2"]
    assert main([*arguments, *command(cluster)]) == 0
    batch = (cluster / "batch.sh").read_text()
    given = dict(re.findall(r"#SBATCH --([a-z-]+)=(.*)", batch))
    expected = {"nodes": "2", "ntasks-per-node": "2", "time": "90", "gpus-per-node": "2", "cpus-per-task": "4"}
    expected |= {"partition": "long", "account": "me", "job-name": "big", "array": "0-1%2"}
    assert expected.items() <= given.items()
    subprocess.run(["bash", "-n", str(cluster / "batch.sh")], check=True)
    for i, rate in enumerate(("0.1", "0.2")):
        run = cluster / "big" / "cells" / f"rate={rate}" / "run"
        told = [json.loads((run / f"{host}.json").read_text()) for host in range(4)]
        address = f"node1:{61440 + 70 + i}"
        assert told == [
            {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "4",
                "JAX_PROCESS_ID": str(host),
                "JAX_LOCAL_DEVICE_IDS": str(host % 2),
            }
            for host in range(4)
        ]
    printed = capsys.readouterr().out
    assert "SLURM jobs 7" in printed and "| 0.2 | finished |" in printed and "| quality/f1 |" in printed
    assert main([*arguments, *command(cluster)]) == 0
    assert "2 of 2 cells are finished already" in capsys.readouterr().out
    assert [path.name for path in cluster.glob("job-*")] == ["job-7"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "partion=a"], "--set: Unknown argument 'partion' for executor 'slurm'"),
        (["--set", "gpus_per_node=4"], "of several processes each drives one GPU: --processes=2 for 4 GPUs"),
    ],
    ids=str,
)
def test_what_slurm_lacks_is_refused(cluster, capsys, options, message):
    assert main(["slurm", f"--folder={cluster / 'big'}", "--processes=2", *options, *command(cluster)]) == 2
    printed = capsys.readouterr().out
    assert message in printed and printed.count("\n") == 1


def test_a_machine_without_slurm_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["slurm", f"--folder={tmp_path / 'big'}", "--", "true"]) == 2
    assert "there is no SLURM here: srun was not found" in capsys.readouterr().out


RUN = ["--", "python", "-m", "experiments.train", "--config=configs/forkme.py", "--config.mesh.data=-1"]
NEEDED = ["print-k8s", "--name=big", "--image=registry/lifecycle:1", "--claim=shared"]


def printed(capsys, *options):
    assert main([*NEEDED, *options, *RUN]) == 0
    service, job = yaml.safe_load_all(capsys.readouterr().out)
    return service, job, job["spec"]["template"]["spec"]


def test_pods_of_a_job_meet_by_a_headless_service(capsys):
    service, job, pod = printed(capsys, "--hosts=4", "--gpus=8", "--cpu=32", "--memory=200Gi")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 4
    assert pod["restartPolicy"] in ("Never", "OnFailure"), "a Job takes no other"
    # The host name of a pod is <job>-<index>.<subdomain>, which exists only through a headless service of that name.
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    assert container["name"] and container["image"] == "registry/lifecycle:1"
    assert container["command"] == [*RUN[1:], "--workdir=/runs/big"]
    variables = {one["name"]: one for one in container["env"]}
    assert re.fullmatch(r"big-0\.big:\d+", variables["JAX_COORDINATOR_ADDRESS"]["value"])
    assert variables["JAX_NUM_PROCESSES"]["value"] == "4", "values are texts"
    index = variables["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    resources = container["resources"]
    assert resources["limits"] == {"nvidia.com/gpu": "8"}
    assert resources["requests"] == {"cpu": "32", "memory": "200Gi", "nvidia.com/gpu": "8"}
    volumes = {one["name"]: one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"]}
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert volumes == {"runs": "shared"} and mounts == {"runs": "/runs"}


def test_tpu_pods_are_found_by_jax_itself(capsys):
    tpu = ["--hosts=4", "--tpus=4", "--accelerator=tpu-v5-lite-podslice", "--topology=4x4", "--mount=/data/"]
    _, _, pod = printed(capsys, *tpu)
    (container,) = pod["containers"]
    assert container["env"] == [] and container["command"][-2:] == ["--workdir=/data/big", "--distributed"]
    assert container["resources"]["limits"] == {"google.com/tpu": "4"}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name=Big", "--hosts=2"], "--name 'Big': lower-case letters"),
        (["--name=" + "a" * 51, "--hosts=2"], "at most 50"),
        (["--image=", "--hosts=2"], "--image is needed: the container image"),
        (["--claim=", "--hosts=2"], "--claim is needed: the PersistentVolumeClaim"),
        (["--hosts=0"], "a run has at least one host"),
        (["--hosts=2", "--gpus=1", "--tpus=1"], "a pod has GPUs or TPU chips"),
        (["--hosts=2", "--tpus=4"], "TPU pods need all of --tpus"),
        (["--hosts=2", "--tpus=4", "--accelerator=a", "--topology=4x4"], "has 16 chips; 2 hosts of 4 have 8"),
        (["--hosts=2", "--tpus=4", "--accelerator=a", "--topology=four"], "--topology is like 4x4"),
        (["--hosts=2", "--mount=runs"], "--mount is an absolute path; given 'runs'"),
    ],
    ids=str,
)
def test_what_a_cluster_would_refuse_is_one_line(capsys, options, message):
    assert main([*NEEDED, *options, *RUN]) == 2
    said = capsys.readouterr().out
    assert message in said and said.count("\n") == 1


def test_a_manifest_needs_a_command_without_a_folder(capsys):
    for words, message in (([], "there is no command"), ([*RUN, "--workdir=/x"], "--workdir is chosen here")):
        assert main([*NEEDED, "--hosts=2", *words]) == 2
        assert message in capsys.readouterr().out
