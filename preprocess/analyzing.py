"""Stage 1: the morphemes of every unit of a scan, in the cache.

What fails is decided by the texts alone: one that kills its worker is kept without cuts; one that was only too slow is
not cached, because the result must not depend on a clock, and ends the run when all others are done.
"""

from typing import Any

from kogpt.common.errors import UserError
from preprocess import stages
from preprocess.scan import PlannedUnit
from preprocess.unit_stage import UnitTexts, through_units
from preprocess.units import CutText, Store, pack_cut_texts
from preprocess.work import Work
from preprocess.worker import Failed


def analyze(stage: str, given: UnitTexts, cache: Store, work: Work, analyzer: str, place: str) -> None:
    """Analyze every unit that is not in the cache. `place` is where a text comes from."""
    too_slow: list[str] = []

    def finish(unit: PlannedUnit, both: list[tuple[str, Any]]) -> bytes | None:
        slow = [i for i, (_, result) in enumerate(both) if isinstance(result, Failed) and result.too_slow]
        if slow:
            ids = given.found.rows([unit])["id"].to_pylist()
            too_slow.extend(f"{ids[i]} ({len(both[i][0]):,} characters)" for i in slow)
            return None
        analyses = [
            stages.without_analysis(text, analyzer, result.cause)
            if isinstance(result, Failed)
            else CutText(text, *result)
            for text, result in both
        ]
        return pack_cut_texts(analyses)

    through_units(
        stage,
        given,
        cache,
        work,
        stages.MorphemeStage(analyzer),
        finish=finish,
        packing=stages.MorphemePacking(),
        slowest=stages.SLOWEST_CHARS_PER_SECOND,
        threads=stages.THREADS[analyzer],
        memory_mib=stages.MEMORY_MIB[analyzer],
        spare=analyzer != "none",
    )
    if too_slow:
        raise UserError(
            f"{len(too_slow):,} articles took the analyzer {analyzer} too long, the first is {too_slow[0]}; all others "
            "are in the cache, so repeat the same command when this machine is less busy, or remove the article from "
            f"{place}"
        )
