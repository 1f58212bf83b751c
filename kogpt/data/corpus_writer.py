"""Write a token corpus (kogpt.data.corpus): articles or conversations as token ids -> shards, tables, manifest.

The manifest is written last, and a folder without one is no corpus. The accounts have to add up: every article that
came in is in the corpus, or in the table of those left out, with its reason.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
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

_ROWS = 1 << 13
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

    Shards are written as they fill. Memory: the table (about 270 bytes per article), and one article. A folder left
    by an unfinished writer is overwritten; a finished corpus is never touched. `kind` is "articles" or "conversations".
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
        self._table: list[pa.RecordBatch] = []  # those before them
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
        self._table += pa.table(columns, schema=self._schema).combine_chunks().to_batches()
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
            self._table.append(pa.record_batch(arrays, schema=self._schema))
            self._rows.clear()

    def _close_shard(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        self._shards += 1

    def finish(
        self,
        *,
        articles_in: int,
        dropped: list[dict[str, Any]],
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
        reasons = Counter(row["reason"] for row in dropped if row["status"] == "dropped")
        self._pack_rows()
        table = pa.Table.from_batches(self._table, schema=self._schema)
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
                "degraded": sum(row["status"] == "degraded" for row in dropped),
                "chars": _sum(table["chars"]),
                "ids": self._total,
                "unknown_ids": _sum(table["unknown_ids"]),
                **{name: _sum(table[name]) for name in _LEARNT if name in table.column_names},
                "removed_controls": removed_controls,
                "removed_surrogates": removed_surrogates,
                **({} if masked is None else {"masked": masked}),
                **({} if uncut is None else {"uncut": uncut}),
                "splits": {name: _split_counts(table, name) for name in ("train", "val")},
            },
            "settings": {**self._settings, "val_fraction": self._val_fraction},
        }
        content = (json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
        with atomic_write(self.folder / "manifest.json") as file:
            file.write(content)
        return hashlib.sha256(content).hexdigest()


def _split_counts(table: pa.Table, name: str) -> dict[str, int]:
    columns = [column for column in ("chars", "ids", *_LEARNT) if column in table.column_names]
    own = table.select(["split", *columns]).filter(pc.field("split") == name)
    return {"articles": own.num_rows, **{column: _sum(own[column]) for column in columns}}


def _sum(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_write(path) as file:
        pq.write_table(table, file, compression="zstd")
