"""The driver: articles or conversations -> token corpus. Scan, analyze, train a vocabulary if asked, encode, assemble.

Both stages work alike: units whose result is not in their `Store` go through a `Pool`, and the driver writes each
result as it comes. Morphemes are in the cache folder, which other runs share; tokens are in OUTPUT/.work, which is
removed when the corpus is complete. The corpus is then assembled in the order of the units, so its bytes do not depend
on workers, deaths, or restarts. A kill at any time costs only the units in flight.

    articles_in = written + dropped by reason      (checked by the writer, recorded in the manifest)
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray.exceptions import RayError, RayTaskError
from tqdm import tqdm

from kogpt.common.errors import DISK_FULL, UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.corpus_writer import CorpusWriter
from kogpt.tokenizer.analyzers.load import analyzer_identity
from kogpt.tokenizer.chat import learnt_flags
from kogpt.tokenizer.wordpiece import Tokenizer, encoder_digest
from preprocess import cluster, stages
from preprocess.auto_layout import guess_layout
from preprocess.chat_layout import ChatLayout
from preprocess.checks import check, not_ours
from preprocess.documents import Document, Dropped, read_documents
from preprocess.filters import filters_of, kept
from preprocess.held_out import drop_held_out, held_out_documents, held_out_grams
from preprocess.layouts import Layout, named_layout, path_layout
from preprocess.losses import Losses
from preprocess.options import Options
from preprocess.plan import WORK, Scan, dropped_row, open_output, scan, settings_of
from preprocess.publish import publish
from preprocess.report import log_to_wandb, show_summary
from preprocess.report_page import write_report
from preprocess.screen import Verdict, screen, screened, screening_of
from preprocess.sources import Source, find_sources
from preprocess.units import (
    CutText,
    Encoded,
    Store,
    group,
    key_of,
    pack_cut_texts,
    pack_encoded,
    unpack_cut_texts,
    unpack_encoded,
)
from preprocess.vocabulary import loaded, settled, trained
from preprocess.work import Work
from preprocess.worker import Failed

log = logging.getLogger(__name__)


def preprocess(options: Options) -> None:
    """Preprocess as the options say, continuing what an earlier run has done."""
    folder = options.output_folder
    joined_before = ray.is_initialized()
    try:
        check(options)
        (folder / WORK).mkdir(exist_ok=True)
        with _locked(folder / WORK, f"--output {folder}"):
            try:
                _Run(options).go()
            finally:
                if (folder / "manifest.json").is_file():
                    shutil.rmtree(folder / WORK)
            if "://" in options.output:
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
            ray.shutdown()


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

    def __init__(self, options: Options):
        self.options = options = settled(options)
        self.folder = options.output_folder
        self.identity = analyzer_identity(options.analyzer)
        self.verdicts: dict[str, Verdict] = {}

    def go(self) -> None:
        options = self.options
        tokenizer = loaded(options, self.identity)  # before the first stage, which may take hours
        self.sources = not_ours(find_sources(options.input), options)
        self.layout = self._choose_layout()
        self.work = Work(options)
        cache = Store(options.cache_folder)
        screening = screening_of(options, self.layout.kind)
        if screening is not None:
            self.verdicts = screen(screening, self._documents, cache, self.work, self.folder / WORK)
        self.scan = self._scan()
        held_out = scan(self._held_out(), self.identity) if options.held_out else None
        self.settings = settings_of(options, self.scan, self.layout.name, self.identity, tokenizer, held_out)
        corpus = open_output(self.folder, self.settings)
        if corpus is not None:
            log.info(f"{self.folder} is finished: {len(corpus):,} {corpus.kind}; there is nothing to do")
            return
        if options.limit is None or not self.scan.units:
            self.losses.refuse_empty_inputs()
        with log_to_wandb(options.wandb, self.folder, self.settings) as wandb:
            self.work.wandb = wandb
            self._analyse("morphemes", cache, self.scan, self._documents)
            if held_out is not None:
                self._analyse("held-out texts", cache, held_out, self._held_out)
                drop_held_out(held_out_grams(held_out, cache), self.scan, cache, self.work)
            if tokenizer is None:
                tokenizer = trained(options, self.scan, cache, self.identity)
            encoded = self._encode(cache, tokenizer)
            fingerprint = self._assemble(tokenizer, encoded)
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

    def _scan(self) -> Scan:
        bar: Any = tqdm(self.sources, desc="read", unit=" files", leave=False)
        self.losses = Losses(self.sources, self.layout.kind)
        found = scan(self.losses.watched(self._articles(bar)), self.identity)
        bar.close()
        log.info(
            f"{found.documents:,} {self.layout.kind} ({found.chars:,} characters) in {len(self.sources):,} files; "
            f"dropped: {_reasons(found)}"
        )
        for line in self.losses.lines():
            log.warning(line)
        if found.documents == 1 and self.options.val_fraction:
            log.warning(
                f"The input is one {self.layout.kind[:-1]}, which is used for training. The corpus has no validation "
                "split, so training reports no validation loss. Give several files, or JSON lines with one on each."
            )
        return found

    # ---- the two stages

    def _analyse(self, stage: str, cache: Store, found: Scan, documents: Callable[[], Iterable[Document]]) -> None:
        """Stage 1: analyze every unit that is not in the cache."""
        missing = {unit.key: unit for unit in found.units if cache.get(unit.key) is None}
        texts: dict[str, Sequence[str]] = {}

        def chunks() -> Iterator[tuple[str, Sequence[str]]]:
            left = len(missing)
            for unit in group(documents(), self.identity) if left else ():
                if unit.key in missing:
                    texts[unit.key] = [document.text for document in unit.documents]
                    left -= 1
                    yield unit.key, texts[unit.key]
                if not left:
                    return
            if left:
                raise UserError("the articles changed while they were read; repeat the same command")

        too_slow: list[str] = []

        def commit(key: str, results: list[Any]) -> None:
            own = texts.pop(key)
            if slow := [i for i, result in enumerate(results) if isinstance(result, Failed) and result.too_slow]:
                ids = missing[key].articles["id"].to_pylist()
                too_slow.extend(f"{ids[i]} ({len(own[i]):,} characters)" for i in slow)
                return  # not cached: the result must not depend on a clock
            analyses = [
                stages.without_analysis(text, self.options.analyzer, result.cause)
                if isinstance(result, Failed)
                else CutText(text, *result)
                for text, result in zip(own, results, strict=True)
            ]
            cache.put(key, pack_cut_texts(analyses))

        self.work.through_pool(
            stage,
            stages.MorphemeStage(self.options.analyzer),
            chunks(),
            commit,
            chars=len,
            total=found.documents,
            to_do=sum(unit.articles.num_rows for unit in missing.values()),
            threads=stages.THREADS[self.options.analyzer],
            memory_mib=stages.MEMORY_MIB[self.options.analyzer],
            spare=self.options.analyzer != "none",
            item_seconds=lambda text: len(text) / stages.SLOWEST_CHARS_PER_SECOND,
        )
        if too_slow:
            place = "--held-out" if stage == "held-out texts" else "the input"
            raise UserError(
                f"{len(too_slow):,} articles took the analyzer {self.options.analyzer} too long, the first is "
                f"{too_slow[0]}; all others are in the cache, so repeat the same command when this machine is less "
                f"busy, or remove the article from {place}"
            )

    def _held_out(self) -> Iterator[Document]:
        return held_out_documents(self.options.held_out)

    def _documents(self) -> Iterator[Document]:
        return (article for article in self._articles(self.sources) if isinstance(article, Document))

    def _articles(self, sources: Iterable[Source]) -> Iterator[Document | Dropped]:
        """All that the sources hold, filtered."""
        articles = kept(read_documents(sources, self.layout), filters_of(self.options), self.options.limit)
        return screened(articles, self.verdicts)

    def _encode(self, cache: Store, tokenizer: Tokenizer) -> Callable[[str], bytes]:
        """Stage 2: encode every unit; return a function from a unit's key to its tokens."""
        store = Store(self.folder / WORK / "ids")
        missing = {unit.key: unit for unit in self.scan.units if store.get(ids_key(unit.key, tokenizer)) is None}
        held: dict[str, list[CutText]] = {}

        def chunks() -> Iterator[tuple[str, Sequence[CutText]]]:
            for unit in self.scan.units:
                if unit.key in missing:
                    held[unit.key] = unpack_cut_texts(cache.existing(unit.key))
                    yield unit.key, held[unit.key]

        work = stages.encoding_with(tokenizer)

        def commit(key: str, results: list[Any]) -> None:
            documents = held.pop(key)
            for i, result in enumerate(results):
                if isinstance(result, Failed):  # no article is lost here: once more, in this process, without a limit
                    id = missing[key].articles["id"][i].as_py()
                    log.warning(f"article {id}: {result.cause} while it was encoded; the driver encodes it")
                    results[i] = work()(documents[i])
            store.put(ids_key(key, tokenizer), pack_encoded([Encoded(*result) for result in results]))

        self.work.through_pool(
            "ids",
            work,
            chunks(),
            commit,
            chars=lambda document: len(document.text),
            total=sum(unit.articles.num_rows for unit in self.scan.units),
            to_do=sum(unit.articles.num_rows for unit in missing.values()),
            memory_mib=stages.ENCODE_MEMORY_MIB,
            item_seconds=lambda document: len(document.text) / stages.SLOWEST_ENCODED_CHARS_PER_SECOND,
        )
        return lambda key: store.existing(ids_key(key, tokenizer))

    # ---- the corpus

    def _assemble(self, tokenizer: Tokenizer, encoded: Callable[[str], bytes]) -> str:
        """Write the corpus in the order of the units, and check the counts."""
        settings = {name: value for name, value in self.settings.items() if name != "val_fraction"}
        kind = self.layout.kind
        writer = CorpusWriter(
            self.folder, tokenizer, val_fraction=self.options.val_fraction, settings=settings, kind=kind
        )
        notes = list(self.scan.dropped)
        for unit in tqdm(self.scan.units, desc="corpus", unit=" units", leave=False):
            rows = unit.articles.to_pylist()
            for i, (row, result) in enumerate(zip(rows, unpack_encoded(encoded(unit.key)), strict=True)):
                if i in unit.gone:
                    continue
                place = (row["id"], row["source"])
                if result.degraded is not None:
                    reason, _, detail = result.degraded.partition(": ")
                    notes.append(dropped_row(*place, reason, detail, status="degraded"))
                learnt = learnt_flags(result.ids.tolist(), tokenizer) if kind == "conversations" else None
                writer.add(**row, ids=result.ids, unknown_ids=result.unknown_ids, learnt=learnt)
        return writer.finish(
            articles_in=self.scan.articles_in,
            dropped=notes,
            removed_controls=self.scan.removed_controls,
            removed_surrogates=self.scan.removed_surrogates,
            masked=self.scan.masked if self.options.personal_data == "mask" else None,
        )


def ids_key(key: str, tokenizer: Tokenizer) -> str:
    """The key of a unit's tokens: its own, the vocabulary, and the code that encodes, which an update may change."""
    return key_of([key, tokenizer.sha256, tokenizer.spacing, encoder_digest()])


def _reasons(found: Scan) -> str:
    counts = Counter(row["reason"] for row in found.dropped)
    return ", ".join(f"{n:,} {reason}" for reason, n in sorted(counts.items())) or "none"
