"""Which of Ray's workers computes which batch; what becomes of the batches of a worker that died.

- Its node left: they are computed again, and none is blamed.
- Its node lives, and it had several: each is a suspect and is computed again, alone at a worker.
- Its node lives, and it had one: that batch is blamed, and computed again alone, on another node if there is one.
  Blamed three times it is set aside; the others are done before the run ends with its name.

Ray Data's pool of actors would do the first, but its workers are all of one size, and it does not know which batch
kills its worker.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from perturb_tutorial._words import counted
from perturb_tutorial.benchmarks.plan import Batch
from perturb_tutorial.benchmarks.ray_nodes import living_nodes
from perturb_tutorial.benchmarks.ray_workers import Actor, Hire, Line, Workers
from perturb_tutorial.benchmarks.store import BenchmarkError

LOOK = 1.0
"""Seconds between two looks at the nodes."""
DEATHS = 3
"""Workers that a batch may kill."""
HOPELESS = 10
"""Batches that are set aside before the run is given up, if no other was finished."""
IN_HAND = 2
"""Batches at each worker, so that it need not wait for the next one."""
NAMED = 5
"""Batches that the last line names."""

Rows = list[dict[str, Any]]


class Dispatcher:
    """Hands the batches of one run to workers.

    Args:
        ray: the module, connected to a cluster.
        hire: starts a worker.
        cores: CPU cores of a worker, at most, where there is no GPU.
        say: gets lines that the user should see.
        show: gets who is at work, when it changes.
    """

    def __init__(self, ray: Any, hire: Hire, *, cores: int, say: Line, show: Line) -> None:
        self._ray, self._show = ray, show
        self._workers = Workers(ray, hire, cores=cores, say=say)
        self._batches: Iterator[Batch] = iter(())
        self._again: deque[Batch] = deque()
        """Those to be computed again through no fault of theirs."""
        self._suspects: deque[Batch] = deque()
        self._deaths: dict[int, list[str]] = {}
        """Of a batch by number, the nodes that outlived the workers that it killed."""
        self._aside: list[Batch] = []
        self._open = self._finished = self._repeated = 0
        """Batches at workers, finished, and lost by a worker."""
        self._shown = ""

    def compute(self, batches: Iterator[Batch]) -> Iterator[tuple[int, Rows]]:
        """Number and records of each batch, as they finish; ``BenchmarkError`` at the end names those set aside."""
        self._batches = batches
        next_look = 0.0
        while self._unfinished() and (self._finished or len(self._aside) < HOPELESS):
            if time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + LOOK
            if not self._workers.waiting:
                time.sleep(LOOK)
                continue
            for reply in self._ray.wait(list(self._workers.waiting), num_returns=1, timeout=LOOK)[0]:
                result = self._collect(reply)
                if result is not None:
                    self._finished += 1
                    yield result
        if self._aside:
            raise BenchmarkError(_set_aside(self._aside, all_others=not self._unfinished()))

    def close(self) -> None:
        """Ends all workers."""
        self._workers.close()

    def _unfinished(self) -> bool:
        # A dead worker that owes a greeting is still among those whose replies are awaited.
        mourned = (*self._workers.dead, *self._workers.waiting.values())
        if self._open or self._again or self._suspects or any(actor.lost for actor in mourned):
            return True
        self._again.extend(itertools.islice(self._batches, 1))
        return bool(self._again)

    def _look(self) -> None:
        nodes = living_nodes(self._ray)
        for actor, outlived in self._workers.verdicts(nodes):
            self._take_back(actor, outlived)
        self._workers.hire(nodes)
        for actor in self._workers.living:
            self._supply(actor)
        self._workers.tell_if_none(nodes)
        self._tell_who()

    def _collect(self, reply: Any) -> tuple[int, Rows] | None:
        """The batch that a reply is about and its records; None for a greeting, or where no reply will come."""
        actor = self._workers.waiting.pop(reply)
        batch = actor.hands.pop(reply, None)
        if batch is None:
            actor.greeting = None
        else:
            self._open -= 1
        try:
            rows = self._ray.get(reply)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            if batch is not None:
                actor.lost.append(batch)
            self._workers.lose(actor, error)
            return None
        self._workers.replied(actor)
        self._supply(actor)
        return None if batch is None else (batch.number, rows)

    def _supply(self, actor: Actor) -> None:
        """What a worker does next: a suspect if there is one, which waits until the worker has nothing else."""
        if not actor.started or actor.alone or actor.died is not None:
            return
        suspect = next((batch for batch in self._suspects if self._may_take(actor, batch)), None)
        if suspect is None:
            while len(actor.hands) < IN_HAND and (batch := self._next()) is not None:
                self._submit(actor, batch)
        elif not actor.hands:
            self._suspects.remove(suspect)
            actor.alone = True
            self._submit(actor, suspect)

    def _next(self) -> Batch | None:
        return self._again.popleft() if self._again else next(self._batches, None)

    def _may_take(self, actor: Actor, suspect: Batch) -> bool:
        """Not on a node where this batch has killed a worker, while there is another."""
        nodes = self._deaths.get(suspect.number, [])
        return actor.node.id not in nodes or all(other.node.id in nodes for other in self._workers.started)

    def _submit(self, actor: Actor, batch: Batch) -> None:
        if not actor.hands and actor.greeting is None:
            self._workers.greet(actor)
        reply = actor.handle.measure.remote(batch)
        actor.hands[reply] = batch
        self._workers.waiting[reply] = actor
        self._open += 1

    def _take_back(self, actor: Actor, outlived: bool) -> None:
        """The batches of a dead worker, whose node did or did not outlive it."""
        self._repeated += len(actor.lost)
        if not outlived or not actor.awake:
            self._again.extend(actor.lost)
            return
        if len(actor.lost) == 1:
            (batch,) = actor.lost
            nodes = self._deaths.setdefault(batch.number, [])
            nodes.append(actor.node.id)
            if len(nodes) >= DEATHS:
                self._aside.append(batch)
                return
        self._suspects.extend(actor.lost)

    def _tell_who(self) -> None:
        at_work = self._workers.started
        nodes = {actor.node.id for actor in at_work}
        parts = [
            f"{counted(len(at_work), 'worker')} on {counted(len(nodes), 'node')}",
            f"{counted(self._repeated, 'batch', 'batches')} again" if self._repeated else "",
            f"{len(self._aside)} set aside" if self._aside else "",
        ]
        text = ", ".join(filter(None, parts))
        if text != self._shown:
            self._shown = text
            self._show(text)


def _set_aside(batches: list[Batch], all_others: bool) -> str:
    """The last line of a run with batches that always kill their worker."""
    named = []
    for batch in batches[:NAMED]:
        images = ", ".join(str(question.image.id) for question in batch.questions[:3])
        named.append(f"batch {batch.number} ({batch.method}, images {images} …)")
    more = f" and {len(batches) - NAMED} more" if len(batches) > NAMED else ""
    others = "all others are done" if all_others else "no other was done, so the run is given up"
    return (
        f"ray: a worker died {DEATHS} times on {'; '.join(named)}{more}; {others}. Is the memory full? Give workers "
        "more cores, so that a node has fewer, or a smaller batch size; the same command tries these again"
    )
