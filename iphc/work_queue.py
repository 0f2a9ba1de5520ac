"""Which unit a free worker gets next. Plain data without processes, so that its rules can be tested by themselves."""

from collections import deque
from collections.abc import Iterable

from .units import Unit

MOST_DEATHS = 2
"""A unit during which this many workers died is not tried again."""


class WorkQueue:
    """Units that are waiting, grouped by method and person."""

    def __init__(self, units: Iterable[Unit]):
        """Queue units in their order."""
        self._groups: dict[tuple[str, str], deque[Unit]] = {}
        self._deaths: dict[str, int] = {}
        for unit in units:
            self._groups.setdefault(_key(unit), deque()).append(unit)

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def take(self, last: Unit | None = None, busy: Iterable[Unit] = ()) -> Unit | None:
        """Take the next unit for a worker.

        Args:
            last: What the worker did before. It gets another unit of the same method and person, else of the same method, so
                that it keeps what it has loaded.
            busy: What the other workers are doing. Groups that none of them works on come first, and of these the longest.

        Returns:
            The unit, or None if none waits.
        """
        if not self._groups:
            return None
        key = None if last is None else _key(last)
        if key not in self._groups:
            taken = {_key(unit) for unit in busy}
            method = None if key is None else key[0]
            # the first of equals: groups are in the manifest's order
            key = max(self._groups, key=lambda k: (k[0] == method, k not in taken, len(self._groups[k])))
        group = self._groups[key]
        unit = group.popleft()
        if not group:
            del self._groups[key]
        return unit

    def died(self, unit: Unit) -> bool:
        """Put back the unit of a worker that died.

        Returns:
            Whether it will be tried again. If not, it has killed MOST_DEATHS workers.
        """
        self._deaths[unit.name] = self._deaths.get(unit.name, 0) + 1
        if self._deaths[unit.name] >= MOST_DEATHS:
            return False
        self.put_back(unit)
        return True

    def put_back(self, unit: Unit) -> None:
        """Put back a unit that its worker did not begin or finish through no fault of the unit."""
        self._groups.setdefault(_key(unit), deque()).appendleft(unit)


def _key(unit: Unit) -> tuple[str, str]:
    return unit.method.name, unit.person.name
