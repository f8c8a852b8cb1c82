"""What the nodes of a Ray cluster have free, and what a worker takes of one.

A worker lives on one node and must fit it: a GPU where the node has GPUs, else up to ``cores`` of its CPU cores. What
others have taken is theirs: a worker takes of what is free, and a node on which less is free than a worker would take
still gets one, with that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Share(NamedTuple):
    """What a worker takes of its node."""

    cpus: int
    gpus: int


@dataclass
class Node:
    """A living node: what it has, and what of it is free."""

    id: str
    name: str
    cpus: int
    gpus: int
    free_cpus: int
    free_gpus: int

    def share(self, cores: int, has_worker: bool) -> Share | None:
        """What the next worker takes here, at most ``cores`` CPU cores; None if there is no room for one."""
        if self.gpus:
            return Share(int(self.free_cpus >= self.free_gpus), 1) if self.free_gpus else None
        whole = min(cores, self.cpus)
        if self.free_cpus < whole and has_worker:
            return None
        return Share(min(whole, self.free_cpus), 0) if self.free_cpus else None

    def take(self, share: Share) -> None:
        """Counts a worker's share as taken."""
        self.free_cpus -= share.cpus
        self.free_gpus -= share.gpus

    def __str__(self) -> str:
        """Its name and what is free, such as "worker-3: 0 of 4 CPUs"."""
        gpus = f", {self.free_gpus} of {self.gpus} GPUs" if self.gpus else ""
        return f"{self.name}: {self.free_cpus} of {self.cpus} CPUs{gpus}"


def living_nodes(ray: Any) -> dict[str, Node]:
    """The nodes that Ray holds to be alive, by id. Of a node that has just died, Ray learns after some seconds."""
    free = _free(ray)
    nodes = {}
    for entry in ray.nodes():
        key, total = entry["NodeID"], entry["Resources"]
        if entry["Alive"] and key in free:
            cpus, gpus = (int(total.get(name, 0)) for name in ("CPU", "GPU"))
            free_cpus, free_gpus = (int(free[key].get(name, 0)) for name in ("CPU", "GPU"))
            nodes[key] = Node(key, entry["NodeManagerHostname"], cpus, gpus, free_cpus, free_gpus)
    return nodes


def _free(ray: Any) -> dict[str, dict[str, float]]:
    """What is free, by node. Ray has no such function for a client (ray://…), which has to ask through a task."""
    ask = ray._private.state.available_resources_per_node
    client = ray._private.client_mode_hook.client_mode_should_convert()
    free: dict[str, dict[str, float]] = ray.get(ray.remote(num_cpus=0)(ask).remote()) if client else ask()
    return free


def on_node(node: Node, share: Share) -> dict[str, Any]:
    """Ray's options that place a task or an actor on ``node`` and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return {"num_cpus": share.cpus, "num_gpus": share.gpus, "scheduling_strategy": place}


def listed(nodes: Iterable[Node], most: int = 8) -> str:
    """The nodes with what is free, the first ``most`` of them."""
    lines = [str(node) for node in nodes]
    more = f" and {len(lines) - most} more nodes" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more
