"""The driver: articles or conversations -> token corpus. Scan, analyze, train a vocabulary if asked, encode, assemble.

Both stages work alike: units whose result is not in their `Store` go through a `Pool`, several in a chunk. The workers
make files of the results, and the driver writes each as it comes. Morphemes are in the cache folder, which other runs
share; tokens are in OUTPUT/.work, which is removed when the corpus is complete. The corpus is then assembled in the
order of the units, so its bytes do not depend on workers, deaths, or restarts. A kill at any time costs only the units
in flight.

    articles_in = written + dropped by reason      (checked by the writer, recorded in the manifest)
"""

import logging
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray.exceptions import RayError, RayTaskError

from kogpt.common.errors import DISK_FULL, UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.analyzers.load import analyzer_identity
from kogpt.tokenizer.wordpiece import Tokenizer
from preprocess import cluster, stages
from preprocess.assembly import assemble
from preprocess.auto_layout import guess_layout
from preprocess.chat_layout import ChatLayout
from preprocess.checks import check, not_ours
from preprocess.documents import Document, read_documents
from preprocess.filters import filters_of, kept, single_filters
from preprocess.held_out import drop_held_out, held_out_grams, scanned
from preprocess.layouts import Layout, named_layout, path_layout
from preprocess.losses import Losses
from preprocess.options import Options
from preprocess.plan import WORK, Plan, open_output, settings_of
from preprocess.publish import claim, publish
from preprocess.reading import Readers, Reading, TextsOf, fetched
from preprocess.report import log_to_wandb, show_summary
from preprocess.report_page import write_report
from preprocess.scan import PlannedUnit, Scan
from preprocess.screen import screen, screening_of
from preprocess.sources import find_sources
from preprocess.spans import LARGE, bytes_for_workers
from preprocess.units import CutText, EncodedBatch, Store, pack_cut_texts, unpack_encoded
from preprocess.vocabulary import loaded, settled, trained
from preprocess.work import MOST_UNITS, Known, Work
from preprocess.worker import Failed, Packed

log = logging.getLogger(__name__)

PLENTY = 1_000
"""Units that wait for workers when the scan has ended, while others are looked up in the cache."""


def preprocess(options: Options) -> None:
    """Preprocess as the options say, continuing what an earlier run has done."""
    folder = options.output_folder
    joined_before = ray.is_initialized()
    try:
        check(options)
        (folder / WORK).mkdir(exist_ok=True)
        with _locked(folder / WORK, f"--output {folder}"), ExitStack() as ends:
            try:
                _Run(options, ends).go()
            finally:
                if (folder / "manifest.json").is_file():
                    shutil.rmtree(folder / WORK)
            if "://" in options.output and (folder / "manifest.json").is_file():
                log.info(f"{publish(folder, options.output)} files copied to {options.output}")
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(
                f"no space is left for {error.filename or folder} ({error.strerror}); "
                "free some, then repeat the same command to continue"
            ) from None
        if any(Path(str(error.filename)).is_relative_to(ours) for ours in (folder, options.cache_folder)):
            raise UserError(
                f"{error.filename} cannot be used ({error.strerror}); fix it, then repeat the same command to continue"
            ) from None
        raise
    except RayTaskError:
        raise
    except RayError as error:
        reason = cluster.one_line(error)
        raise UserError(f"the Ray cluster was lost ({reason}); repeat the same command to continue") from None
    finally:
        if ray.is_initialized() and not joined_before:
            cluster.leave()


@contextmanager
def _locked(folder: Path, what: str) -> Iterator[None]:
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{what} is in use by another run; wait for it, or name another folder") from None
    try:
        yield
    finally:
        lock.release()


class _Run:
    """The state of one run."""

    def __init__(self, options: Options, ends: ExitStack):
        self.options = options = settled(options)
        self.folder = options.output_folder
        self.identity = analyzer_identity(options.analyzer)
        self.ends = ends  # of what must not outlive Ray

    def go(self) -> None:
        options = self.options
        tokenizer = loaded(options, self.identity)  # before the first stage, which may take hours
        self.sources = not_ours(find_sources(options.input), options)
        self.layout = self._choose_layout()
        self.work = Work(options)
        cache, self.outlines = Store(options.cache_folder), Store(self.folder / WORK / "outlines")
        held_out = None
        if options.held_out:
            held_out = scanned(options.held_out, self.outlines, self.identity)
        settings = settings_of(options, self.layout.name, self.identity, tokenizer, held_out and held_out[0])
        at_url = "://" in options.output and claim(options.output, settings)
        plan = None if at_url else open_output(self.folder, settings)
        self.readers, self.scan = self._begin_scan(cache)
        if plan is None:
            claim(options.output, {**settings, "articles": self.scan.finish().account})
            log.info(f"{options.output} is finished; there is nothing to do")
            return
        if plan.corpus is not None or not self.readers.ahead or "articles" in plan.begun:  # outlines are there
            self.scan.finish()
            self._check_scan(plan)
        if plan.corpus is not None:
            log.info(f"{self.folder} is finished: {len(plan.corpus):,} {plan.corpus.kind}; there is nothing to do")
            return
        with log_to_wandb(options.wandb, self.folder, plan.settings) as wandb:
            self.work.wandb = wandb
            self._analyse("morphemes", cache, self.scan, self._texts)
            self._check_scan(plan)
            self.readers.close()
            if held_out is not None:
                self._analyse("held-out texts", cache, *held_out)
                drop_held_out(held_out_grams(held_out[0], cache), self.scan, cache, self.work)
            if tokenizer is None:
                tokenizer = trained(options, self.scan, cache, self.identity)
            encoded = self._encode(cache, tokenizer)
            fingerprint = assemble(options, self.scan, plan.settings, self.layout.kind, tokenizer, encoded)
            write_report(self.folder, self.work.happened, self.work.speeds)
            counts = TokenCorpus.open(self.folder).manifest["counts"]
            wandb.finish({"fingerprint": fingerprint, **counts})
        show_summary(self.folder, counts, fingerprint, self.work.happened)

    # ---- before the work

    def _choose_layout(self) -> Layout:
        if self.options.text_path is not None:
            return path_layout(self.options.text_path)
        if self.options.layout == "chat":
            return ChatLayout()
        if self.options.layout != "auto":
            return named_layout(self.options.layout)
        layout, sentence = guess_layout(self.sources)
        log.info(sentence)
        return layout

    def _begin_scan(self, cache: Store) -> tuple[Readers, Scan]:
        options = self.options
        screening = screening_of(options, self.layout.kind)
        verdicts = {}
        if screening is not None:
            verdicts = screen(screening, self._documents, cache, self.work, self.folder / WORK)
        large = bytes_for_workers(self.sources) >= LARGE
        if large:
            self.work.connect()
        readers = Readers(Reading(self.layout, single_filters(options)), self.sources, self.outlines, large)
        self.ends.callback(readers.close)
        self.losses = Losses(self.sources, self.layout.kind)
        scan = Scan(
            readers.outlines(),
            self.outlines,
            self.identity,
            limit=options.limit,
            verdicts=verdicts,
            losses=self.losses,
        )
        return readers, scan

    def _check_scan(self, plan: Plan) -> None:
        """Say what a scan that has ended found, once, and refuse other articles than before."""
        if "articles" in plan.settings:
            return
        found, kind = self.scan, self.layout.kind
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(found.reasons.items())) or "none"
        log.info(
            f"{found.documents:,} {kind} ({found.chars:,} characters) in {len(self.sources):,} files; "
            f"dropped: {reasons}"
        )
        for line in self.losses.lines():
            log.warning(line)
        if found.documents == 1 and self.options.val_fraction:
            log.warning(
                f"The input is one {kind[:-1]}, which is used for training. The corpus has no validation "
                "split, so training reports no validation loss. Give several files, or JSON lines with one on each."
            )
        if plan.corpus is None and (self.options.limit is None or not found.units):
            self.losses.refuse_empty_inputs()
        plan.confirm(found)
        if "://" in self.options.output:
            claim(self.options.output, plan.settings)

    def _documents(self) -> Iterator[Document]:
        """The documents that the screening judges."""
        articles = kept(read_documents(self.sources, self.layout), filters_of(self.options), self.options.limit)
        return (article for article in articles if isinstance(article, Document))

    def _texts(self, chunks: Iterable[Sequence[PlannedUnit]]) -> Iterator[tuple[Sequence[PlannedUnit], Any]]:
        return self.readers.texts((chunk, self.scan.wanted(chunk)) for chunk in chunks)

    # ---- the two stages

    def _analyse(self, stage: str, cache: Store, found: Scan, texts: TextsOf) -> None:
        """Stage 1: analyze every unit that is not in the cache. `texts` gives those of chunks of units, in parts."""
        waiting: deque[PlannedUnit] = deque()
        flying: dict[tuple[str, ...], tuple[Sequence[PlannedUnit], tuple[Any, ...]]] = {}
        known, all_known = 0, False  # documents whose unit is in the cache; whether the others wait

        def missing() -> Iterator[PlannedUnit]:
            """The units to analyze. The scan goes on by at most one block for each, while there are others."""
            nonlocal known, all_known
            for units in found.coming():
                for unit in units:
                    if cache.get(unit.key) is None:
                        waiting.append(unit)
                    else:
                        known += unit.documents
                    if found.ended and len(waiting) > PLENTY:
                        yield waiting.popleft()
                if waiting and not found.ended:
                    yield waiting.popleft()
                elif not units:
                    time.sleep(0.01)
            all_known = True
            while waiting:
                yield waiting.popleft()

        def chunks() -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
            left = lambda: len(waiting) if all_known else None  # noqa: E731
            for units, parts in texts(self.work.in_chunks(missing(), left)):
                keys = tuple(unit.key for unit in units)
                flying[keys] = units, parts
                yield keys, ([found.sizes(unit) for unit in units], *parts)

        too_slow: list[str] = []

        def commit(keys: tuple[str, ...], results: list[Any] | Packed) -> None:
            units, parts = flying.pop(keys)
            if isinstance(results, Packed):
                for key, content in zip(keys, results.content, strict=True):
                    cache.put(key, content)
                return
            own = (text for part in parts for text in fetched(part))
            both = zip(own, results, strict=True)
            for unit in units:
                put(unit, list(islice(both, unit.documents)))

        def put(unit: PlannedUnit, both: list[tuple[str, Any]]) -> None:
            """Commit the (text, result) of a unit in whose chunk something failed."""
            slow = [i for i, (_, result) in enumerate(both) if isinstance(result, Failed) and result.too_slow]
            if slow:
                ids = found.rows([unit])["id"].to_pylist()
                too_slow.extend(f"{ids[i]} ({len(both[i][0]):,} characters)" for i in slow)
                return  # not cached: the result must not depend on a clock
            analyses = [
                stages.without_analysis(text, self.options.analyzer, result.cause)
                if isinstance(result, Failed)
                else CutText(text, *result)
                for text, result in both
            ]
            cache.put(unit.key, pack_cut_texts(analyses))

        self.work.through_pool(
            stage,
            stages.MorphemeStage(self.options.analyzer),
            chunks(),
            commit,
            packing=stages.MorphemePacking(),
            chars=stages.all_sizes,
            known=lambda: Known(found.documents if found.ended else None, known),
            threads=stages.THREADS[self.options.analyzer],
            memory_mib=stages.MEMORY_MIB[self.options.analyzer],
            spare=self.options.analyzer != "none",
            seconds=lambda content: [n / stages.SLOWEST_CHARS_PER_SECOND for n in stages.all_sizes(content)],
        )
        if too_slow:
            place = "--held-out" if stage == "held-out texts" else "the input"
            raise UserError(
                f"{len(too_slow):,} articles took the analyzer {self.options.analyzer} too long, the first is "
                f"{too_slow[0]}; all others are in the cache, so repeat the same command when this machine is less "
                f"busy, or remove the article from {place}"
            )

    def _encode(self, cache: Store, tokenizer: Tokenizer) -> Iterator[tuple[list[PlannedUnit], EncodedBatch]]:
        """Stage 2: encode every unit; return neighboring units and their tokens, in order."""
        store = Store(self.folder / WORK / "ids")
        units = self.scan.units
        groups = [units[i : i + MOST_UNITS] for i in range(0, len(units), MOST_UNITS)]
        uncut = self.options.uncut
        by_key = {stages.ids_key([unit.key for unit in group], tokenizer, uncut): group for group in groups}
        missing = {key: group for key, group in by_key.items() if store.get(key) is None}

        total = sum(unit.documents for unit in units)
        done = Known(total, total - sum(unit.documents for group in missing.values() for unit in group))

        def content(key: str) -> tuple[Any, ...]:
            sizes = [self.scan.sizes(unit) for unit in missing[key]]
            return sizes, *(cache.existing(unit.key) for unit in missing[key])

        work, packing = stages.encoding_with(tokenizer, uncut), stages.EncodingPacking()

        def commit(key: str, results: list[Any] | Packed) -> None:
            if isinstance(results, Packed):
                store.put(key, results.content)
                return
            documents = packing.items(*content(key))
            ids = self.scan.rows(missing[key])["id"].to_pylist()
            for i, result in enumerate(results):
                if isinstance(result, Failed):  # no article is lost here: once more, in this process, without a limit
                    log.warning(f"article {ids[i]}: {result.cause} while it was encoded; the driver encodes it")
                    results[i] = work()(documents[i])
            store.put(key, packing.pack(documents, results, []))

        self.work.through_pool(
            "ids",
            work,
            ((key, content(key)) for key in missing),
            commit,
            packing=packing,
            chars=stages.all_sizes,
            known=lambda: done,
            memory_mib=stages.ENCODE_MEMORY_MIB,
            seconds=lambda content: [n / stages.SLOWEST_ENCODED_CHARS_PER_SECOND for n in stages.all_sizes(content)],
        )
        return ((group, unpack_encoded(store.existing(key))) for key, group in by_key.items())
