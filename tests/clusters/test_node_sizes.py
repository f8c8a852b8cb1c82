"""A cluster of nodes of one, two and six cores and one with GPUs: each gets the workers that fit it."""

from __future__ import annotations

from collections import Counter

import pytest
import ray_cases
from ray_cases import QUICK, Job, Share, Watched

ray = pytest.importorskip("ray", reason="the engine needs the extra ray")
from cluster import SMALL, simulated  # noqa: E402


def test_nodes_of_all_sizes_work_side_by_side() -> None:
    with simulated(1, 2, 6, **QUICK) as nodes:
        nodes.add_node(num_cpus=4, num_gpus=2, **SMALL)
        ray.cloudpickle.register_pickle_by_value(ray_cases)
        watched = Watched()
        rows = list(watched.do([Job(number, seconds=0.3) for number in range(60)]))
        ray.cloudpickle.unregister_pickle_by_value(ray_cases)
    assert sorted(row["number"] for row in rows) == list(range(60))
    assert Counter(share for _, share in watched.hired) == {
        Share(1, 0): 1, Share(2, 0): 1, Share(4, 0): 1, Share(1, 1): 2,
    }  # fmt: skip
    assert {row["node"] for row in rows} == {node for node, _ in watched.hired}
    assert watched.shown[-1] == "5 workers on 4 nodes"
