"""Write a token corpus (kogpt.data.corpus): articles or conversations as token ids -> shards, tables, manifest.

The manifest is written last, and a folder without one is no corpus. The accounts have to add up: every article that
came in is in the corpus, or in the table of those left out, with its reason.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write, remove_strays
from kogpt.common.manifest import entries
from kogpt.data.corpus import FORMAT, VERSIONS
from kogpt.data.npy import NpyWriter
from kogpt.data.split import splits
from kogpt.tokenizer.normalize import NORMALIZER

if TYPE_CHECKING:
    from kogpt.tokenizer.wordpiece import Tokenizer

_ROWS, _ROW_GROUP = 1 << 13, 1 << 20
_TEXT, _COUNT = pa.string(), pa.int64()
_ARTICLES = pa.schema(
    [(name, _TEXT) for name in ("id", "source", "text_sha256")]
    + [(name, _COUNT) for name in ("chars", "ids", "unknown_ids")]
    + [("split", _TEXT), ("offset", _COUNT)]
)
_LEARNT = ("learnt_ids", "learnt_chars")
_CONVERSATIONS = pa.schema([*_ARTICLES, *((name, _COUNT) for name in _LEARNT)])
_DROPPED = pa.schema([(name, _TEXT) for name in ("id", "source", "status", "reason", "detail")])


class CorpusWriter:
    """Write a corpus article by article, or many at once. The folder becomes a corpus only with `finish`.

    Shards are written as they fill. The table waits in a temporary file, because the split is known only at the end.
    Memory: up to a million rows of it (270 bytes each, twice), and 17 bytes for each article. A folder left by an
    unfinished writer is overwritten; a finished corpus is never touched. `kind` is "articles" or "conversations".
    """

    def __init__(
        self,
        folder: str | Path,
        tokenizer: "Tokenizer",
        *,
        val_fraction: float,
        settings: dict[str, Any],
        shard_ids: int = 1 << 26,
        kind: str = "articles",
    ):
        if not 0 <= val_fraction < 1:
            raise UserError(f"--val-fraction {val_fraction} must be at least 0 and below 1")
        self.folder, self.tokenizer = Path(folder), tokenizer
        self._val_fraction, self._settings, self._shard_ids = val_fraction, settings, shard_ids
        self._dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self._rows: list[tuple[Any, ...]] = []  # the last articles, as Python objects, of which a row takes 400 bytes
        self._kind, self._schema = kind, _ARTICLES if kind == "articles" else _CONVERSATIONS
        self._shards, self._files = 0, list[str]()
        self._open: dict[str, NpyWriter] = {}
        self._total = 0
        if (self.folder / "manifest.json").exists():
            raise UserError(f"{self.folder} already holds a finished corpus; name another folder, or delete it")
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokens", "learnt"):
            for stale in self.folder.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9].npy"):
                stale.unlink()
        for folder in filter(Path.is_dir, (self.folder, self.folder / "tokenizer")):
            remove_strays(folder)
        self._table = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 - those before them
        self._batches = pa.ipc.new_stream(self._table, self._schema)

    def add(
        self,
        *,
        id: str,
        source: str,
        text_sha256: str,
        chars: int,
        ids: Sequence[int] | np.ndarray,
        unknown_ids: int,
        learnt: Sequence[bool] | np.ndarray | None = None,
        learnt_chars: int = 0,
    ) -> None:
        """Append an article. `ids` are its token ids without [CLS] and [SEP], which are added here.

        A conversation also has `learnt`, a bool for each of the ids, of which at least one must be true.
        """
        inner = ids if isinstance(ids, np.ndarray) else np.array(ids, dtype=np.int64)
        if inner.size and not 0 <= inner.min() <= inner.max() < self.tokenizer.vocab_size:
            raise ValueError(f"article {id}: ids outside the vocabulary of {self.tokenizer.vocab_size}")
        article = np.empty(len(inner) + 2, self._dtype)
        article[0], article[1:-1], article[-1] = self.tokenizer.cls_id, inner, self.tokenizer.sep_id
        arrays: dict[str, np.ndarray] = {"tokens": article}
        row: tuple[Any, ...] = (id, source, text_sha256, chars, len(article), unknown_ids, "", self._total)
        if self._kind == "conversations":
            flags = np.array([False, *(() if learnt is None else learnt), False])
            if len(flags) != len(article) or not flags.any():
                raise ValueError(f"conversation {id}: {len(article)} tokens, {len(flags)} flags, {flags.sum()} learnt")
            arrays["learnt"] = flags
            row = (*row, int(flags.sum()), learnt_chars)
        self._write(arrays, np.array([len(article)]))
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._pack_rows()
        self._total += len(article)

    def add_many(
        self,
        articles: pa.Table,
        ids: np.ndarray,
        lengths: np.ndarray,
        unknown_ids: np.ndarray,
        learnt: np.ndarray | None = None,
    ) -> None:
        """Append articles, as `add` does with each.

        `articles` has the columns id, source, text_sha256, chars, and of conversations learnt_chars. `ids` and `learnt`
        are those of all articles, one after the other, and `lengths` (int64) the number of each article's.
        """
        if not len(lengths):
            return
        if ids.size and not 0 <= ids.min() <= ids.max() < self.tokenizer.vocab_size:
            raise ValueError(f"ids outside the vocabulary of {self.tokenizer.vocab_size}")
        ends = np.cumsum(lengths + 2)
        starts = ends - lengths - 2
        inner = np.ones(ends[-1], dtype=bool)
        inner[starts] = inner[ends - 1] = False
        tokens = np.empty(ends[-1], self._dtype)
        tokens[starts], tokens[ends - 1], tokens[inner] = self.tokenizer.cls_id, self.tokenizer.sep_id, ids
        arrays = {"tokens": tokens}
        columns = [articles[name] for name in ("id", "source", "text_sha256", "chars")]
        columns += [pa.array(column) for column in (lengths + 2, unknown_ids, [""] * len(ends), self._total + starts)]
        if self._kind == "conversations":
            flags = np.zeros(ends[-1], dtype=bool)
            flags[inner] = False if learnt is None else learnt
            counts = np.add.reduceat(flags, starts, dtype=np.int64)
            if not counts.all():
                raise ValueError(f"conversation {articles['id'][int(np.argmin(counts))]}: no token is learnt")
            arrays["learnt"] = flags
            columns += [pa.array(counts), articles["learnt_chars"]]
        self._write(arrays, ends)
        self._pack_rows()
        self._batches.write_table(pa.table(columns, schema=self._schema).combine_chunks())
        self._total += int(ends[-1])

    def _write(self, arrays: dict[str, np.ndarray], ends: np.ndarray) -> None:
        """Write whole articles, which end at `ends` in the arrays, to this shard while they fit, then to new ones."""
        written = begin = 0
        while written < len(ends):
            room = self._shard_ids - (len(self._open["tokens"]) if self._open else 0)
            fit = int(np.searchsorted(ends, begin + room, side="right"))
            if fit <= written and self._open:
                self._close_shard()
                continue
            fit = max(fit, written + 1)  # one that is longer than a shard gets its own
            end = int(ends[fit - 1])
            for name, array in arrays.items():
                if name not in self._open:
                    self._files.append(f"{name}-{self._shards:05d}.npy")
                    self._open[name] = NpyWriter(self.folder / self._files[-1], array.dtype)
                self._open[name].write(array[begin:end])
            written, begin = fit, end

    def _pack_rows(self) -> None:
        if self._rows:
            columns = zip(zip(*self._rows, strict=True), self._schema, strict=True)
            arrays = [pa.array(column, field.type) for column, field in columns]
            self._batches.write_batch(pa.record_batch(arrays, schema=self._schema))
            self._rows.clear()

    def _rows_so_far(self) -> Iterator[pa.RecordBatch]:
        self._table.seek(0)
        with pa.ipc.open_stream(self._table) as rows:
            yield from rows

    def _write_articles(self, count: int) -> dict[str, Counter[str]]:
        """Write articles.parquet; return the sums of each split."""
        hashes = (sha256 for batch in self._rows_so_far() for sha256 in batch["text_sha256"].to_pylist())
        split = splits(hashes, count, self._val_fraction)
        totals = {name: _sums(self._schema.empty_table()) for name in ("train", "val")}
        place, field = self._schema.get_field_index("split"), self._schema.field("split")
        done = 0
        with (
            atomic_write(self.folder / "articles.parquet") as file,
            pq.ParquetWriter(file, self._schema, compression="zstd") as writer,
        ):
            for rows in _in_groups(self._rows_so_far(), self._schema):
                own = pa.array(split[done : done + rows.num_rows], _TEXT)
                done += rows.num_rows
                # Combine the chunks, because they would decide where the pages of the file end.
                rows = rows.set_column(place, field, own).combine_chunks()
                writer.write_table(rows)
                counts = rows.select(["split", *_counts(self._schema)])
                for name, total in totals.items():
                    total.update(_sums(counts.filter(pc.field("split") == name)))
        self._table.close()
        return totals

    def _close_shard(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        self._shards += 1

    def finish(
        self,
        *,
        articles_in: int,
        dropped: list[dict[str, Any]] | pa.Table,
        removed_controls: int,
        removed_surrogates: int,
        masked: dict[str, int] | None = None,
        uncut: int | None = None,
    ) -> str:
        """Check the counts; write the tables, the tokenizer, and last the manifest; return the fingerprint.

        The rows of `dropped` have the columns of dropped.parquet. Those with status "degraded" are in the corpus too.
        `masked` is the number of masks by kind of personal data, where masking was asked for, and `uncut` that of the
        articles that are not cut into morphemes, where a share was asked for.
        """
        if self._open:
            self._close_shard()
        notes = dropped if isinstance(dropped, pa.Table) else pa.Table.from_pylist(dropped, schema=_DROPPED)
        reasons = Counter(notes.filter(pc.field("status") == "dropped")["reason"].to_pylist())
        self._pack_rows()
        self._batches.close()
        written = sum(batch.num_rows for batch in self._rows_so_far())
        if articles_in != written + reasons.total():
            raise ValueError(f"{articles_in} articles in, but {written} written + {reasons.total()} dropped")
        totals = self._write_articles(written)
        everything = totals["train"] + totals["val"]
        with atomic_write(self.folder / "dropped.parquet") as file:
            pq.write_table(notes.combine_chunks(), file, compression="zstd")
        self.tokenizer.save(self.folder / "tokenizer")
        saved = sorted(f"tokenizer/{path.name}" for path in (self.folder / "tokenizer").glob("[!.]*"))
        files = entries(self.folder, [*self._files, "articles.parquet", "dropped.parquet", *saved])
        manifest = {
            "format": FORMAT,
            "version": VERSIONS[self._kind],
            **({} if self._kind == "articles" else {"kind": self._kind}),
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
                "degraded": notes.num_rows - reasons.total(),
                "chars": everything["chars"],
                "ids": self._total,
                "unknown_ids": everything["unknown_ids"],
                **{name: everything[name] for name in _LEARNT if name in self._schema.names},
                "removed_controls": removed_controls,
                "removed_surrogates": removed_surrogates,
                **({} if masked is None else {"masked": masked}),
                **({} if uncut is None else {"uncut": uncut}),
                "splits": {
                    split: {name: own[name] for name in ("articles", "chars", "ids", *_LEARNT) if name in own}
                    for split, own in totals.items()
                },
            },
            "settings": {**self._settings, "val_fraction": self._val_fraction},
        }
        content = (json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
        with atomic_write(self.folder / "manifest.json") as file:
            file.write(content)
        return hashlib.sha256(content).hexdigest()


def _in_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a table as parquet keeps them together."""
    held = schema.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.table(batch)])
        while held.num_rows >= _ROW_GROUP:
            yield held.slice(0, _ROW_GROUP)
            held = held.slice(_ROW_GROUP)
    if held.num_rows:
        yield held


def _counts(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if field.type == _COUNT and field.name != "offset"]


def _sums(table: pa.Table) -> Counter[str]:
    """The number of rows, and the sum of each column of counts."""
    names = _counts(table.schema)
    return Counter({"articles": table.num_rows, **{name: pc.sum(table[name]).as_py() or 0 for name in names}})
