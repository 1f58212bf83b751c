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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from preprocess.analyzing import analyze
from preprocess.assembly import assemble
from preprocess.chat_layout import ChatLayout
from preprocess.checks import check, not_ours
from preprocess.filters import single_filters
from preprocess.held_out import drop_held_out, held_out_grams, scanned
from preprocess.layouts import Layout, named_layout, path_layout
from preprocess.listing import layout_of, listed
from preprocess.losses import Losses
from preprocess.options import Options
from preprocess.plan import WORK, Plan, open_output, settings_of
from preprocess.publish import claim, is_finished, publish
from preprocess.reading import Readers, Reading
from preprocess.report import log_to_wandb, show_summary
from preprocess.report_page import write_report
from preprocess.scan import Block, PlannedUnit, Scan
from preprocess.screen import screen, screening_of
from preprocess.spans import LARGE, bytes_for_workers
from preprocess.unit_stage import read_by
from preprocess.units import EncodedBatch, Store, unpack_encoded
from preprocess.vocabulary import loaded, settled, trained
from preprocess.work import MOST_UNITS, Known, Work
from preprocess.worker import Failed, Packed

log = logging.getLogger(__name__)


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


def _noted(blocks: Iterator[Block | None], seen: list[Block]) -> Iterator[Block | None]:
    """The blocks, and a note of each."""
    for block in blocks:
        if block is not None:
            seen.append(block)
        yield block


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
        self.work = Work(options)
        self.sources = not_ours(listed(options.input, self.work.connect), options)
        self.layout = self._choose_layout()
        cache, self.outlines = Store(options.cache_folder), Store(self.folder / WORK / "outlines")
        held_out = None
        if options.held_out:
            held_out = scanned(options.held_out, self.outlines, self.identity)
        settings = settings_of(
            options, self.layout.name, self.identity, tokenizer, held_out.found if held_out else None
        )
        plan = None
        if "://" not in options.output:
            plan = open_output(self.folder, settings)
        elif not is_finished(options.output, settings):  # neither of the two places is written to if one refuses
            plan = open_output(self.folder, settings)
            claim(options.output, settings)
        self.readers, self.scan = self._begin_scan(cache)
        if plan is None:
            is_finished(options.output, {**settings, "articles": self.scan.finish().account})
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
            analyze("morphemes", read_by(self.readers, self.scan), cache, self.work, options.analyzer, "the input")
            self._check_scan(plan)
            self.readers.close()
            if held_out is not None:
                analyze("held-out texts", held_out, cache, self.work, options.analyzer, "--held-out")
                drop_held_out(held_out_grams(held_out.found, cache), self.scan, cache, self.work)
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
        layout, sentence = layout_of(self.sources)
        log.info(sentence)
        return layout

    def _begin_scan(self, cache: Store) -> tuple[Readers, Scan]:
        options = self.options
        screening = screening_of(options, self.layout.kind)
        large = bytes_for_workers(self.sources) >= LARGE
        if large:
            self.work.connect()
        readers = Readers(Reading(self.layout, single_filters(options)), self.sources, self.outlines, large)
        self.ends.callback(readers.close)
        self.losses = Losses(self.sources, self.layout.kind)
        blocks, verdicts = readers.outlines(), {}
        if screening is not None:
            seen: list[Block] = []
            every = Scan(_noted(blocks, seen), self.outlines, {}, limit=options.limit)
            verdicts = screen(screening, read_by(readers, every), cache, self.work, self.folder / WORK)
            blocks = iter(seen)
        scan = Scan(
            blocks,
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

    # ---- the two stages

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
