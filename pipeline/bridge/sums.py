"""What several bridge processes show on their /metrics pages, added up to the page of one service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipeline.service.metrics.process import READY

TIMESTAMP_SUFFIX = "_timestamp_seconds"
INFO_SUFFIX = "_info"  # Always 1: what it says is in its labels.
STARTED = "vod_pipeline_started_timestamp_seconds"
STARTS = (STARTED, "process_start_time_seconds")
COUNTING = ("counter", "histogram", "summary")

Page = Sequence[Metric]


class Sums:
    """
    The pages of several processes, which come and go, in one whose counters never fall.

    What an ended process counted stays, up to its last page. A process that says nothing shows its last page.
    """

    def __init__(self) -> None:
        self._last: dict[int, Page] = {}
        self._ended: Page = ()

    def take(self, number: int, text: str) -> None:
        """Take the page that process *number* shows now; it may be a successor's under the same number."""
        page = list(text_string_to_metric_families(text))
        before = self._last.get(number, ())
        if _started(before) != _started(page):
            self._ended = add_up([self._ended, [family for family in before if family.type in COUNTING]])
        self._last[number] = page

    def page(self) -> Page:
        """Return the sums."""
        return add_up([self._ended, *self._last.values()])


def add_up(pages: Iterable[Page]) -> Page:
    """Add up the samples that have the same name and labels; of timestamps take the oldest, but the newest start."""
    families: dict[str, Metric] = {}
    values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
    for page in pages:
        for family in page:
            if family.name.endswith("_created") or family.name == READY:  # The service has its own answer to that.
                continue
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                key = family.name, sample.name, tuple(sorted(sample.labels.items()))
                values[key] = _add(sample.name, values.get(key, 0.0), sample.value)
    for (family_name, name, labels), value in values.items():
        families[family_name].add_sample(name, dict(labels), value)
    return list(families.values())


def _add(name: str, sum_so_far: float, value: float) -> float:
    if name in STARTS or name.endswith(INFO_SUFFIX):  # Any process that keeps ending itself must be seen.
        return max(sum_so_far, value)
    if name.endswith(TIMESTAMP_SUFFIX) and sum_so_far and value:
        return min(sum_so_far, value)
    return sum_so_far + value


def _started(page: Page) -> float | None:
    """Return when the process of *page* started, which tells it from its predecessor."""
    return next((sample.value for family in page if family.name == STARTED for sample in family.samples), None)
