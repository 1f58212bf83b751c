"""The token corpus on disk: writer, reader, manifest, verification. Only this module knows the format.

A corpus is a folder with:
- `tokens-00000.npy`, ...: token ids as a flat array, uint16 (uint32 if the vocabulary has more than 65,536 tokens),
  read through mmap. Every article is `[CLS] ids [SEP]`, complete and unpadded, and lies within one shard.
- `articles.parquet`: a row per article with id, source, text_sha256, chars, ids (number of tokens with [CLS] and
  [SEP]), unknown_ids, split, and offset (of its [CLS] in the concatenated shards).
- `dropped.parquet`: id, source, status ("dropped" or "degraded"), reason, detail.
- `tokenizer/`: the tokenizer (kogpt.tokenizer.wordpiece).
- `manifest.json`, written last: checksums, tokenizer, analyzer, normalizer, counts, settings. Its sha256 is the
  fingerprint of the corpus.

The bytes depend only on the articles, their order, and the settings, and not on time, host, or number of workers.
Articles go to "val" by the rank of sha256(text_sha256 + "split"), so the split is a property of the texts.

Cost: 2 bytes per token (uint16) plus the table. Reading a window touches only the pages it needs.
"""

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write, remove_strays
from kogpt.common.manifest import entries, faults
from kogpt.data.split import splits
from kogpt.data.stream import Stream
from kogpt.tokenizer.normalize import NORMALIZER

if TYPE_CHECKING:
    from kogpt.tokenizer.wordpiece import Tokenizer

FORMAT, VERSION = "kogpt-corpus", 1
_HEADER_BYTES = 128
"""numpy pads the header of a flat array to this, whatever its length."""
_ROWS = 1 << 13
_TEXT, _COUNT = pa.string(), pa.int64()
_ARTICLES = pa.schema(
    [(name, _TEXT) for name in ("id", "source", "text_sha256")]
    + [(name, _COUNT) for name in ("chars", "ids", "unknown_ids")]
    + [("split", _TEXT), ("offset", _COUNT)]
)
_DROPPED = pa.schema([(name, _TEXT) for name in ("id", "source", "status", "reason", "detail")])


class CorpusWriter:
    """Write a corpus article by article. The folder becomes a corpus only with `finish`.

    Shards are written as they fill. Memory: the table (about 270 bytes per article), and one article. A folder left
    by an unfinished writer is overwritten; a finished corpus is never touched.
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer: "Tokenizer",
        *,
        val_fraction: float,
        settings: dict[str, Any],
        shard_ids: int = 1 << 26,
    ):
        if not 0 <= val_fraction < 1:
            raise UserError(f"--val-fraction {val_fraction} must be at least 0 and below 1")
        self.folder, self.tokenizer = Path(folder), tokenizer
        self._val_fraction, self._settings, self._shard_ids = val_fraction, settings, shard_ids
        self._dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self._rows: list[tuple[Any, ...]] = []  # the last articles, as Python objects, of which a row takes 400 bytes
        self._table: list[pa.RecordBatch] = []  # those before them
        self._files: list[str] = []
        self._shard: Any = None
        self._total = 0
        if (self.folder / "manifest.json").exists():
            raise UserError(f"{self.folder} already holds a finished corpus; name another folder, or delete it")
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob("tokens-[0-9][0-9][0-9][0-9][0-9].npy"):
            stale.unlink()
        for folder in filter(Path.is_dir, (self.folder, self.folder / "tokenizer")):
            remove_strays(folder)

    def add(
        self,
        *,
        id: str,
        source: str,
        text_sha256: str,
        chars: int,
        ids: Sequence[int] | np.ndarray,
        unknown_ids: int,
    ) -> None:
        """Append an article. `ids` are its token ids without [CLS] and [SEP], which are added here."""
        inner = ids if isinstance(ids, np.ndarray) else np.array(ids, dtype=np.int64)
        if inner.size and not 0 <= inner.min() <= inner.max() < self.tokenizer.vocab_size:
            raise ValueError(f"article {id}: ids outside the vocabulary of {self.tokenizer.vocab_size}")
        article = np.empty(len(inner) + 2, self._dtype)
        article[0], article[1:-1], article[-1] = self.tokenizer.cls_id, inner, self.tokenizer.sep_id
        if self._shard is not None and self._in_shard + len(article) > self._shard_ids:
            self._close_shard()
        if self._shard is None:
            self._open_shard()
        self._shard.write(article.data)
        self._in_shard += len(article)
        row = (id, source, text_sha256, chars, len(article), unknown_ids, "", self._total)
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._pack_rows()
        self._total += len(article)

    def _pack_rows(self) -> None:
        if self._rows:
            columns = zip(zip(*self._rows, strict=True), _ARTICLES, strict=True)
            arrays = [pa.array(column, field.type) for column, field in columns]
            self._table.append(pa.record_batch(arrays, schema=_ARTICLES))
            self._rows.clear()

    def _open_shard(self) -> None:
        self._files.append(f"tokens-{len(self._files):05d}.npy")
        self._in_shard = 0
        self._writing = atomic_write(self.folder / self._files[-1])
        self._shard = self._writing.__enter__()
        self._shard.write(bytes(_HEADER_BYTES))

    def _close_shard(self) -> None:
        # The number of tokens is known only now. The length of the header does not depend on it.
        self._shard.seek(0)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._in_shard,)}
        np.lib.format.write_array_header_1_0(self._shard, header)
        self._writing.__exit__(None, None, None)
        self._shard = None

    def finish(
        self,
        *,
        articles_in: int,
        dropped: list[dict[str, Any]],
        removed_controls: int,
        removed_surrogates: int,
        masked: dict[str, int] | None = None,
    ) -> str:
        """Check the counts; write the tables, the tokenizer, and last the manifest; return the fingerprint.

        The rows of `dropped` have the columns of dropped.parquet. Those with status "degraded" are in the corpus too.
        `masked` is the number of masks by kind of personal data, where masking was asked for.
        """
        if self._shard is not None:
            self._close_shard()
        reasons = Counter(row["reason"] for row in dropped if row["status"] == "dropped")
        self._pack_rows()
        table = pa.Table.from_batches(self._table, schema=_ARTICLES)
        written = table.num_rows
        if articles_in != written + reasons.total():
            raise ValueError(f"{articles_in} articles in, but {written} written + {reasons.total()} dropped")
        hashes = (sha256 for batch in self._table for sha256 in batch["text_sha256"].to_pylist())
        split = pa.array(splits(hashes, written, self._val_fraction), pa.string())
        self._table.clear()
        # Combine the chunks, because they would decide where the pages of the file end.
        table = table.set_column(_ARTICLES.get_field_index("split"), _ARTICLES.field("split"), split).combine_chunks()
        _write_table(self.folder / "articles.parquet", table)
        _write_table(self.folder / "dropped.parquet", pa.Table.from_pylist(dropped, schema=_DROPPED))
        self.tokenizer.save(self.folder / "tokenizer")
        saved = sorted(f"tokenizer/{path.name}" for path in (self.folder / "tokenizer").glob("[!.]*"))
        files = entries(self.folder, [*self._files, "articles.parquet", "dropped.parquet", *saved])
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "dtype": self._dtype.name,
            "files": files,
            "tokenizer": {
                "source": self.tokenizer.source,
                "sha256": self.tokenizer.sha256,
                "vocab_size": self.tokenizer.vocab_size,
                "spacing": self.tokenizer.spacing,
            },
            "analyzer": self.tokenizer.analyzer,
            "normalizer": NORMALIZER,
            "counts": {
                "articles_in": articles_in,
                "written": written,
                "dropped": dict(sorted(reasons.items())),
                "degraded": sum(row["status"] == "degraded" for row in dropped),
                "chars": _sum(table["chars"]),
                "ids": self._total,
                "unknown_ids": _sum(table["unknown_ids"]),
                "removed_controls": removed_controls,
                "removed_surrogates": removed_surrogates,
                **({} if masked is None else {"masked": masked}),
                "splits": {name: _split_counts(table, name) for name in ("train", "val")},
            },
            "settings": {**self._settings, "val_fraction": self._val_fraction},
        }
        content = (json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
        with atomic_write(self.folder / "manifest.json") as file:
            file.write(content)
        return hashlib.sha256(content).hexdigest()


def _split_counts(table: pa.Table, name: str) -> dict[str, int]:
    own = table.select(["split", "chars", "ids"]).filter(pc.field("split") == name)
    return {"articles": own.num_rows, **{column: _sum(own[column]) for column in ("chars", "ids")}}


def _sum(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_write(path) as file:
        pq.write_table(table, file, compression="zstd")


def count_rows(counts: dict[str, Any]) -> list[tuple[str, str]]:
    """The counts of a manifest as (label, value) for people."""
    ids, splits = counts["ids"], counts["splits"].items()
    return [
        ("articles in", f"{counts['articles_in']:,}"),
        ("written", f"{counts['written']:,}"),
        *((f"dropped: {reason}", f"{count:,}") for reason, count in counts["dropped"].items()),
        ("degraded (see dropped.parquet)", f"{counts['degraded']:,}"),
        *((f"split {name}", f"{split['articles']:,} articles, {split['ids']:,} tokens") for name, split in splits),
        ("characters", f"{counts['chars']:,}"),
        ("tokens", f"{ids:,}"),
        ("tokens per character", f"{ids / max(1, counts['chars']):.3f}"),
        ("unknown or byte tokens", f"{counts['unknown_ids']:,} ({counts['unknown_ids'] / max(1, ids):.2%})"),
        ("control characters removed", f"{counts['removed_controls']:,}"),
        ("lone surrogates removed", f"{counts['removed_surrogates']:,}"),
        *((f"masked: {kind}", f"{count:,}") for kind, count in counts.get("masked", {}).items()),
    ]


class TokenCorpus:
    """A finished corpus, read-only; create it with `open`. Arrays are views of the mapped files."""

    def __init__(self, folder: Path, manifest: dict[str, Any], fingerprint: str):
        self.folder, self.manifest, self.fingerprint = folder, manifest, fingerprint
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.tokenizer_folder = folder / "tokenizer"
        try:
            self.articles = pq.read_table(folder / "articles.parquet")
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{folder / 'articles.parquet'} cannot be read ({error}); copy or build it again") from None
        self._offsets = self.articles["offset"].to_numpy()
        self._lengths = self.articles["ids"].to_numpy()
        self._names = sorted(name for name in manifest["files"] if name.startswith("tokens-"))
        itemsize = np.dtype(manifest["dtype"]).itemsize
        sizes = [(manifest["files"][name]["bytes"] - _HEADER_BYTES) // itemsize for name in self._names]
        self._starts = [0, *accumulate(sizes)]
        self._shards: dict[int, np.ndarray] = {}

    @classmethod
    def open(cls, folder: str | Path) -> "TokenCorpus":
        """Open a corpus folder without checking the checksums (see `verify`)."""
        folder = Path(folder)
        try:
            content = (folder / "manifest.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{folder} is not a finished token corpus (no manifest.json); create one with preprocess/run.py"
            ) from None
        try:
            manifest = json.loads(content)
            if manifest["format"] != FORMAT or manifest["version"] != VERSION:
                raise ValueError(f"format {manifest['format']} {manifest['version']}")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder / 'manifest.json'} is not that of a {FORMAT} version {VERSION} ({error}); rebuild the corpus"
            ) from None
        return cls(folder, manifest, hashlib.sha256(content).hexdigest())

    def verify(self) -> list[str]:
        """Compare every file with the manifest, and return the problems ([] if there are none). Reads all files."""
        return list(faults(self.folder, self.manifest["files"]))

    def __len__(self) -> int:
        return len(self._lengths)

    def shard(self, k: int) -> np.ndarray:
        """All token ids of a shard: a view of the mapped file."""
        if k not in self._shards:
            path = self.folder / self._names[k]
            try:
                # asarray: a plain view, whose slices are several times cheaper than np.memmap's
                self._shards[k] = np.asarray(np.load(path, mmap_mode="r"))
            except (OSError, ValueError) as error:
                raise UserError(f"{path} cannot be read ({error}); copy or build the corpus again") from None
        return self._shards[k]

    def place(self, offset: int) -> tuple[int, int]:
        """(shard, index within it) of a global offset."""
        k = bisect_right(self._starts, offset) - 1
        return k, offset - self._starts[k]

    def article(self, i: int) -> np.ndarray:
        """The token ids of article `i`, [CLS] ... [SEP]: a view of the mapped file."""
        k, start = self.place(int(self._offsets[i]))
        return self.shard(k)[start : start + int(self._lengths[i])]

    def split(self, name: str) -> np.ndarray:
        """The article numbers of split "train" or "val" in corpus order, int64."""
        return np.flatnonzero(pc.equal(self.articles["split"], name).to_numpy())

    def stream(self, split: str) -> Stream:
        """All tokens of a split: its articles concatenated in corpus order."""
        chosen = self.split(split)
        return Stream(self, self._offsets[chosen], self._lengths[chosen])
