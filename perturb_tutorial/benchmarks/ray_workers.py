"""Ray's workers of one run: started wherever one fits on a cluster whose nodes come and go, and replaced when they die.

A worker that dies may have been killed by what it computed, or its node has left. Ray learns of a node's death only
after some seconds, so the node of a dead worker is asked: a task that runs there afterwards proves that it lives.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from perturb_tutorial._outside import printable
from perturb_tutorial._words import counted
from perturb_tutorial.benchmarks.plan import Batch
from perturb_tutorial.benchmarks.ray_nodes import Node, Share, listed, on_node
from perturb_tutorial.benchmarks.store import BenchmarkError

GRACE = 5.0
"""Seconds from a worker's death to the question whether its node lives: a machine that stops ends its workers first."""
WAIT = 15.0
"""Seconds without a worker after which a line says what is awaited."""
SETTLE = 2.0
"""Seconds after a worker's start in which what its node has free may not be counted yet."""
SLOW_START = 60.0
"""Seconds after which a worker that has not started, on a node where others took its cores, is asked for anew."""
FAILED_STARTS = 3
"""How many a node may have before it is left out."""
NAMED = 5
"""Nodes that a line names."""
REASON = 300
"""Characters of what Ray says of a worker that does not start."""

Line = Callable[[str], None]
Hire = Callable[[Node, Share], Any]
"""Starts a worker with this share of a node: an actor with the methods ``ready()`` and ``measure(batch)``."""


@dataclass(eq=False)
class Actor:
    """A worker and what it has in hand."""

    handle: Any
    node: Node
    share: Share
    left: int
    """The node's free cores once this worker and those asked for with it have started."""
    since: float = field(default_factory=time.monotonic)
    """When it was asked for, then when it started."""
    greeting: Any = None
    """The awaited reply to ``ready()``, which goes ahead of the first batch of an idle worker."""
    started: bool = False
    awake: bool = False
    """Whether it replied since it was idle. Otherwise no batch has begun, so none is to blame for its death."""
    hands: dict[Any, Batch] = field(default_factory=dict)
    """The batch of each awaited reply to ``measure(batch)``."""
    alone: bool = False
    """Whether it has a suspect in hand, beside which it gets nothing else."""
    died: float | None = None
    reason: str = ""
    lost: list[Batch] = field(default_factory=list)
    """What it had in hand when it died."""
    probe: Any = None
    """The awaited reply of its node, after its death."""


class Workers:
    """Those of one run; ``say`` gets lines that the user should see."""

    def __init__(self, ray: Any, hire: Hire, *, cores: int, say: Line) -> None:
        self._ray, self._hire, self._cores, self._say = ray, hire, cores, say
        self.living: list[Actor] = []
        self.dead: list[Actor] = []
        """Those of which it is not known yet whether their node died, too."""
        self.waiting: dict[Any, Actor] = {}
        """The worker of each awaited reply."""
        self._failed_starts: Counter[str] = Counter()
        self._unfit: dict[str, str] = {}
        """Nodes on which no worker starts, and why."""
        self._without: float | None = time.monotonic()
        """Since when there is no worker; infinite once that was said."""

    @property
    def started(self) -> list[Actor]:
        """Those that have replied."""
        return [actor for actor in self.living if actor.started]

    def close(self) -> None:
        """Ends all of them."""
        for actor in self.living:
            self._ray.kill(actor.handle)

    def greet(self, actor: Actor) -> None:
        """Asks for a sign of life."""
        actor.awake = False
        actor.greeting = actor.handle.ready.remote()
        self.waiting[actor.greeting] = actor

    def replied(self, actor: Actor) -> None:
        """A reply has come."""
        if not actor.started:
            actor.since = time.monotonic()
            self._failed_starts.pop(actor.node.id, None)
            self._without = None
        actor.started = actor.awake = True
        actor.alone = actor.alone and bool(actor.hands)
        self._bury(actor)

    def lose(self, actor: Actor, error: Exception) -> None:
        """A reply will not come: the worker is dead, or as good as dead."""
        if actor.died is None:
            actor.died = time.monotonic()
            actor.reason = printable(str(error).strip().splitlines()[-1])[:REASON]
            self.living.remove(actor)
            self._ray.kill(actor.handle)
            if not self.started:
                self._without = self._without or actor.died
        self._bury(actor)

    def _bury(self, actor: Actor) -> None:
        """Keeps a dead worker with all that it has lost, once no reply of it is awaited any more."""
        if actor.died is not None and not actor.hands and actor.greeting is None:
            self.dead.append(actor)

    def verdicts(self, nodes: Mapping[str, Node]) -> Iterator[tuple[Actor, bool]]:
        """Each dead worker of which it is known by now whether its node outlived it, and whether it did."""
        for actor in list(self.dead):
            outlived = self._outlived(actor, nodes)
            if outlived is not None:
                self.dead.remove(actor)
                if outlived and not actor.started:
                    self._count_start(actor)
                yield actor, outlived

    def _outlived(self, actor: Actor, nodes: Mapping[str, Node]) -> bool | None:
        if actor.node.id not in nodes:
            return False
        if time.monotonic() < (actor.died or 0) + GRACE:
            return None
        if actor.probe is None:
            actor.probe = self._ray.remote(platform.node).options(**on_node(actor.node, Share(0, 0))).remote()
        if not self._ray.wait([actor.probe], timeout=0)[0]:
            return None
        try:
            self._ray.get(actor.probe)
        except self._ray.exceptions.RayError:
            actor.probe = None  # either Ray learns of the node's death, or the next one gets through
            return None
        return True

    def _count_start(self, actor: Actor) -> None:
        self._failed_starts[actor.node.id] += 1
        if self._failed_starts[actor.node.id] == FAILED_STARTS:
            self._unfit[actor.node.id] = actor.reason
            self._say(f"ray: no worker starts on {actor.node.name}, it is left out: {actor.reason}")

    def hire(self, nodes: Mapping[str, Node]) -> None:
        """Starts workers where there is room, but for nodes on which one is still starting or has just failed to.

        ``BenchmarkError`` where no node is left on which one starts.
        """
        able = _able(nodes)
        if able and all(node.id in self._unfit for node in able):
            reasons = "; ".join(f"{node.name}: {self._unfit[node.id]}" for node in able[:NAMED])
            raise BenchmarkError(f"ray: no worker starts on any node ({reasons})")
        busy = self._unfit.keys() | {actor.node.id for actor in self.dead if not actor.started}
        for actor in list(self.living):
            settled = actor.started and time.monotonic() > actor.since + SETTLE
            if not settled and not self._given_up(actor, nodes):
                busy.add(actor.node.id)
        staffed = {actor.node.id for actor in self.living}
        for node in able:
            asked: list[Actor] = []
            while node.id not in busy and (
                share := node.share(self._cores, node.id in staffed or bool(asked))
            ):
                asked.append(Actor(self._hire(node, share), node, share, 0))
                node.take(share)
            for actor in asked:
                actor.left = node.free_cpus
                self.greet(actor)
            self.living += asked

    def _given_up(self, actor: Actor, nodes: Mapping[str, Node]) -> bool:
        """Gives up a worker that cannot start since others took its cores in the moment when they were free."""
        free = nodes[actor.node.id].free_cpus if actor.node.id in nodes else 0
        late = not actor.started and time.monotonic() > actor.since + SLOW_START
        if not (late and actor.left < free < actor.share.cpus):
            return False
        self.living.remove(actor)
        del self.waiting[actor.greeting]
        self._ray.kill(actor.handle)
        return True

    def tell_if_none(self, nodes: Mapping[str, Node]) -> None:
        """One line after some time without a worker: what one takes, and what the nodes have."""
        if self._without is not None and time.monotonic() > self._without + WAIT:
            self._without = float("inf")
            starting = f", {len(self.living)} still starting" if self.living else ""
            self._say(
                f"ray: no worker for {WAIT:.0f} s{starting}. Each takes a GPU, or up to "
                f"{counted(self._cores, 'core')} of a node without one; free: "
                f"{listed(_able(nodes)) or 'no node has any'}. Waiting until there is room or a node joins; "
                "Ctrl-C stops"
            )


def _able(nodes: Mapping[str, Node]) -> list[Node]:
    """Those that could have a worker; a cluster's head often has no cores."""
    return [node for node in nodes.values() if node.cpus or node.gpus]
