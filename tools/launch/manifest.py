"""A Kubernetes manifest for one run over several pods: an indexed Job and the headless service by which they meet.

Pod i of the Job is process i. On GPUs and CPUs the pods hear of each other by the variables that
`research.core.hosts` reads; on Cloud TPU jax.distributed finds the other workers itself. When one pod is lost the
others end within a minute, the Job starts all of them anew, and the run goes on from its last checkpoint.
See https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

_PORT = 8476
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_INDEX_OF_POD = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_LONGEST_NAME = 50  # a pod's host name is <name>-<index>, of at most 63 characters


@dataclass(frozen=True)
class Pods:
    """What the pods of a run are.

    Attributes:
      claim: the PersistentVolumeClaim (ReadWriteMany) that all pods share, mounted at `mount`.
      gpus, tpus: chips of each pod, at most one of the two. accelerator, topology: of the TPU slice, as GKE names
        them (`tpu-v5-lite-podslice`, `4x4`).
      restarts: how often the whole Job may be started anew.
    """

    name: str
    image: str
    hosts: int
    claim: str
    mount: str = "/runs"
    gpus: int = 0
    tpus: int = 0
    accelerator: str = ""
    topology: str = ""
    cpu: str = ""
    memory: str = ""
    restarts: int = 10

    def check(self) -> None:
        """Refuses what the cluster would refuse, or start in vain."""
        if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", self.name) or len(self.name) > _LONGEST_NAME:
            raise ValueError(
                f"--name {self.name!r}: lower-case letters, digits and dashes, a letter first, at most {_LONGEST_NAME}"
            )
        for name in ("image", "claim"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is needed: " + _NEEDED[name])
        if self.hosts < 1 or self.gpus < 0 or self.tpus < 0 or self.restarts < 0:
            raise ValueError(f"a run has at least one host, and no negative numbers; given {self}")
        if self.gpus and self.tpus:
            raise ValueError(f"a pod has GPUs or TPU chips; given {self.gpus} and {self.tpus}")
        if bool(self.tpus) != bool(self.accelerator and self.topology):
            raise ValueError("TPU pods need all of --tpus (chips of each pod), --accelerator and --topology")
        if self.tpus and _chips(self.topology) != self.hosts * self.tpus:
            raise ValueError(
                f"the topology {self.topology} has {_chips(self.topology)} chips; {self.hosts} hosts of {self.tpus} "
                f"have {self.hosts * self.tpus}"
            )
        if not self.mount.startswith("/"):
            raise ValueError(f"--mount is an absolute path; given {self.mount!r}")


_NEEDED = {
    "image": "the container image with this project in it",
    "claim": "the PersistentVolumeClaim that all pods share, where checkpoints go",
}


def _chips(topology: str) -> int:
    if not re.fullmatch(r"\d+(x\d+){1,2}", topology):
        raise ValueError(f"--topology is like 4x4 or 2x2x2; given {topology!r}")
    product = 1
    for size in topology.split("x"):
        product *= int(size)
    return product


def manifest(pods: Pods, command: Sequence[str]) -> list[dict[str, Any]]:
    """[service, job] that run `command` with `--workdir` on the shared volume.

    Raises:
      ValueError: something missing or impossible.
    """
    pods.check()
    if not command:
        raise ValueError("there is no command; expected -- python -m experiments.train --config=... after the options")
    if any(word.split("=")[0] == "--workdir" for word in command):
        raise ValueError("--workdir is chosen here, on the shared volume; leave it out of the command")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": pods.name},
        # Pods look each other up while they start.
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": pods.name}},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": pods.name},
        "spec": {
            "completions": pods.hosts,
            "parallelism": pods.hosts,
            "completionMode": "Indexed",
            "backoffLimit": pods.restarts * pods.hosts,  # every pod fails when one does
            "podReplacementPolicy": "Failed",
            "template": {"spec": _pod(pods, command)},
        },
    }
    return [service, job]


def _pod(pods: Pods, command: Sequence[str]) -> dict[str, Any]:
    # TPU workers have an order of their own, which jax.distributed finds together with the rest.
    joining = ["--distributed"] if pods.hosts > 1 and pods.tpus else []
    container: dict[str, Any] = {
        "name": "run",
        "image": pods.image,
        "command": [*command, f"--workdir={pods.mount.rstrip('/')}/{pods.name}", *joining],
        "env": _variables(pods),
        "volumeMounts": [{"name": "runs", "mountPath": pods.mount}],
    }
    wanted = {"cpu": pods.cpu, "memory": pods.memory}
    chips = {"nvidia.com/gpu": pods.gpus, "google.com/tpu": pods.tpus}
    requests = {key: value for key, value in wanted.items() if value}
    limits = {key: str(value) for key, value in chips.items() if value}
    if requests or limits:
        container["resources"] = {"requests": requests | limits, "limits": limits}
    spec: dict[str, Any] = {
        "subdomain": pods.name,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,  # SIGTERM saves a checkpoint
        "containers": [container],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": pods.claim}}],
    }
    if pods.tpus:
        spec["nodeSelector"] = {
            "cloud.google.com/gke-tpu-accelerator": pods.accelerator,
            "cloud.google.com/gke-tpu-topology": pods.topology,
        }
    return spec


def _variables(pods: Pods) -> list[dict[str, Any]]:
    if pods.hosts == 1 or pods.tpus:
        return []
    return [
        {"name": ADDRESS, "value": f"{pods.name}-0.{pods.name}:{_PORT}"},
        {"name": COUNT, "value": str(pods.hosts)},
        {"name": INDEX, "valueFrom": {"fieldRef": {"fieldPath": _INDEX_OF_POD}}},
    ]


def text(documents: Sequence[Mapping[str, Any]]) -> str:
    """YAML for `kubectl apply -f -`."""
    return yaml.safe_dump_all(documents, sort_keys=False)
