"""Several workers on Ray: on this machine, or on a cluster.

The queue, retries, and what is done are not Ray's. A worker returns its rows, and only the driver writes files, so machines
need no common disk.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CannotWrite
from ..training.ray_session import RaySession
from .comfy_host import HostSettings, RunStopped
from .ledger import FAILED, Row
from .manifest import Manifest
from .progress import EVERY
from .run import Outcome, Run, environments
from .units import Unit
from .work_queue import MOST_DEATHS, WorkQueue
from .worker import Worker, check_environment

SILENT_DEATHS = 3
"""So many workers in succession that die before one finishes a unit end the run."""


@dataclass(frozen=True)
class Result:
    """What a worker returns for a unit. Errors are data: not every exception survives its way through Ray."""

    rows: list[Row]
    environment: dict[str, Any] | None = None
    stopped: str = ""
    """Why the worker cannot go on."""


class RemoteWorker:
    """A worker in a process of Ray."""

    def __init__(
        self, manifest: Manifest, settings: HostSettings | None, name: str, keep: bool, expected: dict[str, Any] | None
    ):
        """Prepare the worker."""
        self.worker = Worker(manifest, settings, name=name, keep=keep, expected=expected)

    def make(self, unit: Unit) -> Result:
        """Make a unit."""
        try:
            return Result(self.worker.make(unit), self.worker.environment)
        except RunStopped as error:
            self.worker.close()
            return Result([], self.worker.environment, str(error))

    def pid(self) -> int:
        """Return the process's id."""
        return os.getpid()

    def close(self) -> None:
        """End its ComfyUI."""
        self.worker.close()


class Engine(RaySession):
    """A session of Ray whose workers own a ComfyUI each."""

    def __init__(self, workers: int, address: str, devices: list[str], cpu: bool):
        """Choose where to run.

        Args:
            workers: How many workers.
            address: HOST:PORT of a running cluster; "" starts a session of its own on this machine.
            devices: Numbers of this machine's GPUs, which workers take in turn. For sessions of its own only.
            cpu: Whether workers need no GPU.
        """
        super().__init__(workers, address, cpu)
        self.devices = devices

    def start(self, number: int, settings: HostSettings | None, run: Run) -> Any:
        """Start a worker, and return Ray's handle of it."""
        if settings is not None and self.devices and not self.address:
            settings = replace(settings, device=self.devices[number % len(self.devices)])
        return self.actor(RemoteWorker, run.manifest, settings, str(number), run.options.keep, run.expected_environment())


def run_on_ray(run: Run, settings: HostSettings | None, engine: Engine, most_silent: int = SILENT_DEATHS) -> Outcome:
    """Make all missing units with several workers.

    Args:
        run: The run.
        settings: How each worker starts ComfyUI.
        engine: The session.
        most_silent: So many deaths in succession end the run.
    """
    return _Driver(run, settings, engine, most_silent).go()


class _Driver:
    """Hands units to workers, and writes what they return."""

    def __init__(self, run: Run, settings: HostSettings | None, engine: Engine, most_silent: int):
        self.run, self.settings, self.engine, self.most_silent = run, settings, engine, most_silent
        self.queue, self.progress = WorkQueue(run.todo), run.progress()
        self.workers: dict[int, Any] = {}
        self.held: dict[Any, tuple[int, Unit]] = {}  # what is being made: by Ray's reference, the worker and the unit
        self.last: dict[int, Unit] = {}
        self.deaths, self.reasons = 0, []

    def go(self) -> Outcome:
        stopped = ""
        try:
            self.run.begin()
            for number in range(min(self.engine.workers, len(self.run.todo))):
                self._start(number)
                self._give(number)
            while self.held:
                done, _ = self.engine.ray.wait(list(self.held), num_returns=1, timeout=EVERY)
                for reference in done:
                    self._take(reference)
            if len(self.queue):
                stopped = "No worker is left. " + "\n".join(dict.fromkeys(self.reasons))
        except (RunStopped, CannotWrite) as error:
            stopped = str(error)
        except KeyboardInterrupt:
            stopped = "Interrupted."
        finally:
            self._close()
        return self.run.finish(self.progress, stopped)

    def _start(self, number: int) -> None:
        self.workers[number] = self.engine.start(number, self.settings, self.run)

    def _give(self, number: int) -> None:
        """Give a worker its next unit, if one waits."""
        unit = self.queue.take(self.last.get(number), [unit for _, unit in self.held.values()])
        if unit is not None:
            self.held[self.workers[number].make.remote(unit)] = number, unit

    def _take(self, reference: Any) -> None:
        """Take what a worker returned, or its death."""
        number, unit = self.held.pop(reference)
        try:
            result: Result = self.engine.ray.get(reference)
            if not result.stopped and result.environment is not None:
                self._check(result.environment)
        except self.engine.ray.exceptions.RayActorError as error:
            self._died(number, unit, str(error))
            return
        except RunStopped as error:
            result = Result([], stopped=str(error))
        if result.stopped:  # not the unit's fault: others may make it
            self.reasons.append(f"Worker {number}: {result.stopped}")
            self.queue.put_back(unit)
            self.engine.ray.kill(self.workers.pop(number))
            self._wake()
            return
        self.deaths = 0
        self.last[number] = unit
        self._write(unit, result.rows, result.environment)
        self._give(number)

    def _check(self, environment: dict[str, Any]) -> None:
        """Refuse rows of another device or other software than the first ones."""
        if not self.run.options.mixed:
            check_environment(next(iter(environments(self.run.out).values()), None), environment)

    def _write(self, unit: Unit, rows: list[Row], environment: dict[str, Any] | None) -> None:
        if environment is not None:
            self.run.note_environment(environment)
        self.run.ledger.write(unit, self.run.marks[unit.name], rows)
        self.run.wrote(unit, rows)
        self.progress.count(len(rows), sum(row.status == FAILED for row in rows), unit.name)

    def _died(self, number: int, unit: Unit, reason: str) -> None:
        """Put back the unit of a worker that died, or give it up, and start another worker."""
        self.deaths += 1
        if not self.queue.died(unit):
            text = f"{MOST_DEATHS} workers died while they made this unit"
            rows = [
                Row(
                    unit.name,
                    unit.method.name,
                    unit.person.name,
                    j.prompt,
                    j.head,
                    j.image,
                    j.seed,
                    FAILED,
                    text,
                    worker=str(number),
                )
                for j in unit.jobs
            ]
            self._write(unit, rows, None)
            self.deaths = 0
        if self.deaths >= self.most_silent:
            raise RunStopped(f"{self.deaths} workers died in succession. The last one: {reason}")
        self._start(number)
        self._give(number)

    def _wake(self) -> None:
        """Give units to workers that have none."""
        busy = {number for number, _ in self.held.values()}
        for number in self.workers.keys() - busy:
            self._give(number)

    def _close(self) -> None:
        """End all workers and their ComfyUI; Ray kills workers that are busy, and their ComfyUI ends with them."""
        idle = self.workers.keys() - {number for number, _ in self.held.values()}
        closing = [self.workers[number].close.remote() for number in idle]
        self.engine.ray.wait(closing, num_returns=len(closing), timeout=20) if closing else None
        for worker in self.workers.values():
            self.engine.ray.kill(worker)
