"""Write the corpus in the order of the units. In: the plan and the tokens of all units. Out: the fingerprint.

Cost of the driver: 0.01 ms per article.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from kogpt.data.corpus_writer import CorpusWriter
from kogpt.data.split import is_uncut
from kogpt.tokenizer.wordpiece import Tokenizer
from preprocess.options import Options
from preprocess.scan import DROPPED, PlannedUnit, Scan, dropped_row, masks
from preprocess.units import EncodedBatch


def assemble(
    options: Options,
    found: Scan,
    settings: dict[str, Any],
    kind: str,
    tokenizer: Tokenizer,
    encoded: Iterable[tuple[Sequence[PlannedUnit], EncodedBatch]],
) -> str:
    """Write the corpus, and check the counts. `encoded` are neighboring units and their tokens, in order."""
    settings = {name: value for name, value in settings.items() if name != "val_fraction"}
    writer = CorpusWriter(
        options.output_folder, tokenizer, val_fraction=options.val_fraction, settings=settings, kind=kind
    )
    notes: list[dict[str, Any]] = []
    removed: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    uncut = 0
    bar = tqdm(total=len(found.units), desc="corpus", unit=" units", leave=False)
    for units, batch in encoded:
        articles = found.rows(units)
        if any(unit.gone for unit in units):
            stays = np.array([i not in unit.gone for unit in units for i in range(unit.documents)])
            articles, batch = articles.filter(pa.array(stays)), batch.filtered(stays)
        for i in np.flatnonzero(batch.degraded.is_valid().to_numpy(zero_copy_only=False)).tolist():
            reason, _, detail = batch.degraded[i].as_py().partition(": ")
            id, source = articles["id"][i].as_py(), articles["source"][i].as_py()
            notes.append(dropped_row(id, source, reason, detail, status="degraded"))
        if options.uncut:
            uncut += sum(is_uncut(sha256, options.uncut) for sha256 in articles["text_sha256"].to_pylist())
        removed.update({name: pc.sum(articles[name]).as_py() or 0 for name in ("controls", "surrogates")})
        masked.update(masks(articles))
        writer.add_many(articles, batch.ids, batch.lengths, batch.unknown_ids, batch.learnt)
        bar.update(len(units))
    bar.close()
    return writer.finish(
        articles_in=found.articles_in,
        dropped=pa.Table.from_batches([*found.dropped, pa.RecordBatch.from_pylist(notes, schema=DROPPED)]),
        removed_controls=removed["controls"],
        removed_surrogates=removed["surrogates"],
        masked=dict(masked) if options.personal_data == "mask" else None,
        uncut=uncut if options.uncut else None,
    )
