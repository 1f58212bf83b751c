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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray.exceptions import RayError, RayTaskError
from tqdm import tqdm

from kogpt.common.errors import DISK_FULL, UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.analyzers.load import analyzer_identity
from kogpt.tokenizer.wordpiece import Tokenizer, encoder_digest
from preprocess import cluster, stages
from preprocess.assembly import assemble
from preprocess.auto_layout import guess_layout
from preprocess.chat_layout import ChatLayout
from preprocess.checks import check, not_ours
from preprocess.documents import Document, Dropped, read_documents
from preprocess.filters import ExactDuplicates, filters_of, kept, single_filters
from preprocess.held_out import drop_held_out, held_out_documents, held_out_grams
from preprocess.layouts import Layout, named_layout, path_layout
from preprocess.losses import Losses
from preprocess.options import Options
from preprocess.plan import WORK, PlannedUnit, Scan, open_output, scan, settings_of
from preprocess.publish import claim, publish
from preprocess.reading import CHANGED, LARGE, Readers, Reading, TextsOf, bytes_for_workers, fetched
from preprocess.report import log_to_wandb, show_summary
from preprocess.report_page import write_report
from preprocess.screen import Verdict, screen, screened, screening_of
from preprocess.sources import Source, find_sources
from preprocess.units import CutText, EncodedBatch, Store, group, key_of, pack_cut_texts, unpack_encoded
from preprocess.vocabulary import loaded, settled, trained
from preprocess.work import MOST_UNITS, Work
from preprocess.worker import Failed, Packed

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
        self.readers: Readers | None = None  # of a large input

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
        if "://" in options.output and claim(options.output, self.settings):
            log.info(f"{options.output} is finished; there is nothing to do")
            return
        corpus = open_output(self.folder, self.settings)
        if corpus is not None:
            log.info(f"{self.folder} is finished: {len(corpus):,} {corpus.kind}; there is nothing to do")
            return
        if options.limit is None or not self.scan.units:
            self.losses.refuse_empty_inputs()
        with log_to_wandb(options.wandb, self.folder, self.settings) as wandb:
            self.work.wandb = wandb
            self._analyse("morphemes", cache, self.scan, self.texts)
            if self.readers is not None:
                self.readers.close()
            if held_out is not None:
                self._analyse("held-out texts", cache, held_out, self._texts_of(self._held_out))
                drop_held_out(held_out_grams(held_out, cache), self.scan, cache, self.work)
            if tokenizer is None:
                tokenizer = trained(options, self.scan, cache, self.identity)
            encoded = self._encode(cache, tokenizer)
            fingerprint = assemble(options, self.scan, self.settings, self.layout.kind, tokenizer, encoded)
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
        self.losses = Losses(self.sources, self.layout.kind)
        self.texts = self._texts_of(self._documents)
        articles: Iterable[Document | Dropped]
        if screening_of(self.options, self.layout.kind) is None and bytes_for_workers(self.sources) >= LARGE:
            self.work.connect()
            self.readers = Readers(Reading(self.layout, single_filters(self.options)), self.sources)
            self.texts = self.readers.texts
            bar: Any = tqdm(self.readers.outlines(), desc="read", unit=f" {self.layout.kind}", leave=False)
            articles = kept(bar, [ExactDuplicates()], self.options.limit)
        else:
            bar = tqdm(self.sources, desc="read", unit=" files", leave=False)
            articles = self._articles(bar)
        found = scan(self.losses.watched(articles), self.identity)
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

    def _analyse(self, stage: str, cache: Store, found: Scan, texts: TextsOf) -> None:
        """Stage 1: analyze every unit that is not in the cache. `texts` gives those of chunks of units, in parts."""
        missing = {unit.key: unit for unit in found.units if cache.get(unit.key) is None}
        flying: dict[tuple[str, ...], tuple[Any, ...]] = {}

        def chunks() -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
            planned = list(self.work.in_chunks(list(missing.values())) if missing else ())
            for units, parts in zip(planned, texts(planned), strict=True):
                keys = tuple(unit.key for unit in units)
                flying[keys] = parts
                yield keys, (_sizes(units), *parts)

        too_slow: list[str] = []

        def commit(keys: tuple[str, ...], results: list[Any] | Packed) -> None:
            parts = flying.pop(keys)
            if isinstance(results, Packed):
                for key, content in zip(keys, results.content, strict=True):
                    cache.put(key, content)
                return
            own = (text for part in parts for text in fetched(part))
            both = zip(own, results, strict=True)
            for key in keys:
                put(key, list(islice(both, missing[key].articles.num_rows)))

        def put(key: str, both: list[tuple[str, Any]]) -> None:
            """Commit the (text, result) of a unit in whose chunk something failed."""
            slow = [i for i, (_, result) in enumerate(both) if isinstance(result, Failed) and result.too_slow]
            if slow:
                ids = missing[key].articles["id"].to_pylist()
                too_slow.extend(f"{ids[i]} ({len(both[i][0]):,} characters)" for i in slow)
                return  # not cached: the result must not depend on a clock
            analyses = [
                stages.without_analysis(text, self.options.analyzer, result.cause)
                if isinstance(result, Failed)
                else CutText(text, *result)
                for text, result in both
            ]
            cache.put(key, pack_cut_texts(analyses))

        self.work.through_pool(
            stage,
            stages.MorphemeStage(self.options.analyzer),
            chunks(),
            commit,
            packing=stages.MorphemePacking(),
            chars=stages.all_sizes,
            total=found.documents,
            to_do=sum(unit.articles.num_rows for unit in missing.values()),
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

    def _held_out(self) -> Iterator[Document]:
        return held_out_documents(self.options.held_out)

    def _documents(self) -> Iterator[Document]:
        return (article for article in self._articles(self.sources) if isinstance(article, Document))

    def _articles(self, sources: Iterable[Source]) -> Iterator[Document | Dropped]:
        """All that the sources hold, filtered."""
        articles = kept(read_documents(sources, self.layout), filters_of(self.options), self.options.limit)
        return screened(articles, self.verdicts)

    def _texts_of(self, documents: Callable[[], Iterable[Document]]) -> TextsOf:
        """The texts of chunks of units, read by the driver."""

        def texts(chunks: Sequence[Sequence[PlannedUnit]]) -> Iterator[tuple[list[str]]]:
            wanted = {unit.key for chunk in chunks for unit in chunk}
            units = (unit for unit in group(documents(), self.identity) if unit.key in wanted)
            for chunk in chunks:
                own = list(islice(units, len(chunk)))
                if [unit.key for unit in own] != [unit.key for unit in chunk]:
                    raise UserError(CHANGED)
                yield ([document.text for unit in own for document in unit.documents],)

        return texts

    def _encode(self, cache: Store, tokenizer: Tokenizer) -> Iterator[tuple[list[PlannedUnit], EncodedBatch]]:
        """Stage 2: encode every unit; return neighboring units and their tokens, in order."""
        store = Store(self.folder / WORK / "ids")
        units = self.scan.units
        groups = [units[i : i + MOST_UNITS] for i in range(0, len(units), MOST_UNITS)]
        uncut = self.options.uncut
        by_key = {ids_key([unit.key for unit in group], tokenizer, uncut): group for group in groups}
        missing = {key: group for key, group in by_key.items() if store.get(key) is None}

        def content(key: str) -> tuple[Any, ...]:
            return _sizes(missing[key]), *(cache.existing(unit.key) for unit in missing[key])

        work, packing = stages.encoding_with(tokenizer, uncut), stages.EncodingPacking()

        def commit(key: str, results: list[Any] | Packed) -> None:
            if isinstance(results, Packed):
                store.put(key, results.content)
                return
            documents = packing.items(*content(key))
            ids = [id for unit in missing[key] for id in unit.articles["id"].to_pylist()]
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
            total=sum(unit.articles.num_rows for unit in units),
            to_do=sum(unit.articles.num_rows for group in missing.values() for unit in group),
            memory_mib=stages.ENCODE_MEMORY_MIB,
            seconds=lambda content: [n / stages.SLOWEST_ENCODED_CHARS_PER_SECOND for n in stages.all_sizes(content)],
        )
        return ((group, unpack_encoded(store.existing(key))) for key, group in by_key.items())


def _sizes(units: Iterable[PlannedUnit]) -> stages.Sizes:
    return [unit.articles["chars"].to_pylist() for unit in units]


def ids_key(keys: Iterable[str], tokenizer: Tokenizer, uncut: float = 0.0) -> str:
    """The key of the tokens of units: theirs, the vocabulary, and the code that encodes, which an update may change."""
    share = [f"uncut {uncut}"] if uncut else []
    return key_of(["tokens of units", *keys, tokenizer.sha256, tokenizer.spacing, encoder_digest(), *share])


def _reasons(found: Scan) -> str:
    counts = Counter(row["reason"] for row in found.dropped)
    return ", ".join(f"{n:,} {reason}" for reason, n in sorted(counts.items())) or "none"
