"""Send the units without a result through a pool, and commit each result as it comes.

In: (key, items) of each unit, and a function that commits (key, results). Out: a progress bar, and rows for the
summary.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import ray

from preprocess import cluster
from preprocess.options import Options
from preprocess.plan import Scan
from preprocess.pool import Pool
from preprocess.report import Log, Progress

log = logging.getLogger(__name__)

HANG_SECONDS = 60.0
"""How long an item may take without an answer, in addition to the time for its length."""


class Work:
    """The distributed part of one run. Ray starts with the first stage that has work."""

    def __init__(self, options: Options, scan: Scan, wandb: Log):
        self._options, self._documents, self._wandb = options, scan.documents, wandb
        self._units = {unit.key: unit for unit in scan.units}
        self.happened: list[tuple[str, str]] = []

    def through_pool(
        self,
        stage: str,
        setup: Callable[[], Callable[[Any], Any]],
        chunks: Iterator[tuple[str, Sequence[Any]]],
        missing: Collection[str],
        commit: Callable[[str, list[Any]], None],
        **needs: Any,
    ) -> None:
        """Run one stage for the missing units. `needs` are arguments of the pool."""
        if not missing:
            log.info(f"{stage}: all {self._documents:,} articles are already done")
            return
        if not ray.is_initialized():
            log.info(cluster.connect(self._options.ray_address, self._options.workers))
        to_do = sum(self._units[key].articles.num_rows for key in missing)
        progress = Progress(stage, self._documents, self._documents - to_do, self._wandb)
        with Pool(setup, workers=self._options.workers, hang_seconds=HANG_SECONDS, **needs) as workers:
            for key, results in workers.map(chunks):
                commit(str(key), results)
                stats = workers.stats
                progress.add(
                    len(results),
                    self._units[str(key)].chars,
                    workers=stats.workers,
                    deaths=stats.deaths,
                    quarantined=stats.failed,
                )
        seconds = progress.close()
        self.happened += [
            (f"{stage}: articles, seconds", f"{to_do:,}, {seconds:.1f}"),
            (f"{stage}: characters/s", f"{progress.chars / seconds:,.0f}"),
            (f"{stage}: workers lost, articles quarantined", f"{stats.deaths}, {stats.failed}"),
        ]
