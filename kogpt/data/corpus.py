"""The token corpus on disk: its format, reader, and verification. kogpt.data.corpus_writer writes it.

A corpus is a folder with:
- `tokens-00000.npy`, ...: token ids as a flat array, uint16 (uint32 if the vocabulary has more than 65,536 tokens),
  read through mmap. Every article is `[CLS] ids [SEP]`, complete and unpadded, and lies within one shard.
- `articles.parquet`: a row per article with id, source, text_sha256, chars, ids (number of tokens with [CLS] and
  [SEP]), unknown_ids, split, and offset (of its [CLS] in the concatenated shards).
- `dropped.parquet`: id, source, status ("dropped" or "degraded"), reason, detail.
- `tokenizer/`: the tokenizer (kogpt.tokenizer.wordpiece).
- `manifest.json`, written last: checksums, tokenizer, analyzer, normalizer, counts, settings. Its sha256 is the
  fingerprint of the corpus.

A corpus holds articles or conversations, never both. One of conversations (`"kind": "conversations"` and version 2 in
the manifest) has further
- `learnt-00000.npy`, ...: a bool for each token of the shard of that number: whether a model is trained to say it. An
  "article" is a conversation (kogpt.tokenizer.chat), and its row also has learnt_ids and learnt_chars: the number of
  learnt tokens, and the characters of the assistant's messages.

The bytes depend only on the articles, their order, and the settings, and not on time, host, or number of workers.
Articles go to "val" by the rank of sha256(text_sha256 + "split"), so the split is a property of the texts.

Cost: 2 bytes per token (uint16) plus the table. Reading a window touches only the pages it needs.
"""

import hashlib
import json
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kogpt.common.errors import UserError
from kogpt.common.manifest import faults
from kogpt.data.npy import HEADER_BYTES
from kogpt.data.stream import Stream

FORMAT = "kogpt-corpus"
VERSIONS = {"articles": 1, "conversations": 2}
"""kind -> format version. Software that knows only articles refuses conversations: it would learn every token."""


def count_rows(counts: dict[str, Any]) -> list[tuple[str, str]]:
    """The counts of a manifest as (label, value) for people."""
    ids, splits = counts["ids"], counts["splits"].items()
    learnt = counts.get("learnt_ids")
    things = "articles" if learnt is None else "conversations"
    return [
        (f"{things} in", f"{counts['articles_in']:,}"),
        ("written", f"{counts['written']:,}"),
        *((f"dropped: {reason}", f"{count:,}") for reason, count in counts["dropped"].items()),
        ("degraded (see dropped.parquet)", f"{counts['degraded']:,}"),
        *((f"split {name}", f"{split['articles']:,} {things}, {split['ids']:,} tokens") for name, split in splits),
        ("characters", f"{counts['chars']:,}"),
        ("tokens", f"{ids:,}"),
        *([] if learnt is None else [("learnt tokens", f"{learnt:,} ({learnt / max(1, ids):.1%})")]),
        ("tokens per character", f"{ids / max(1, counts['chars']):.3f}"),
        ("unknown or byte tokens", f"{counts['unknown_ids']:,} ({counts['unknown_ids'] / max(1, ids):.2%})"),
        ("control characters removed", f"{counts['removed_controls']:,}"),
        ("lone surrogates removed", f"{counts['removed_surrogates']:,}"),
        *([("not cut into morphemes", f"{counts['uncut']:,} {things}")] if "uncut" in counts else []),
        *((f"masked: {kind}", f"{count:,}") for kind, count in counts.get("masked", {}).items()),
    ]


class TokenCorpus:
    """A finished corpus, read-only; create it with `open`. Arrays are views of the mapped files."""

    def __init__(self, folder: Path, manifest: dict[str, Any], fingerprint: str):
        self.folder, self.manifest, self.fingerprint = folder, manifest, fingerprint
        self.kind: str = manifest.get("kind", "articles")
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.tokenizer_folder = folder / "tokenizer"
        self._offsets = self.column("offset").to_numpy()
        self._lengths = self.column("ids").to_numpy()
        self._names = sorted(name for name in manifest["files"] if name.startswith("tokens-"))
        itemsize = np.dtype(manifest["dtype"]).itemsize
        sizes = [(manifest["files"][name]["bytes"] - HEADER_BYTES) // itemsize for name in self._names]
        self._starts = [0, *accumulate(sizes)]
        self._shards: dict[str, np.ndarray] = {}

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
            known = VERSIONS.get(manifest.get("kind", "articles"))
            if manifest["format"] != FORMAT or manifest["version"] != known:
                raise ValueError(f"format {manifest['format']} {manifest['version']}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder / 'manifest.json'} is not that of a {FORMAT} of version 1 or 2 ({error}); rebuild the corpus"
            ) from None
        return cls(folder, manifest, hashlib.sha256(content).hexdigest())

    @cached_property
    def articles(self) -> pa.Table:
        """The table with all its columns, which take 160 bytes per article."""
        return self._read(None)

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of the table."""
        return self._read([name])[name]

    def _read(self, columns: list[str] | None) -> pa.Table:
        path = self.folder / "articles.parquet"
        try:
            return pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} cannot be read ({error}); copy or build it again") from None

    def verify(self) -> list[str]:
        """Compare every file with the manifest, and return the problems ([] if there are none). Reads all files."""
        return list(faults(self.folder, self.manifest["files"]))

    def __len__(self) -> int:
        return len(self._lengths)

    def shard(self, k: int) -> np.ndarray:
        """All token ids of a shard: a view of the mapped file."""
        return self._array(self._names[k])

    def _array(self, name: str) -> np.ndarray:
        if name not in self._shards:
            path = self.folder / name
            try:
                # asarray: a plain view, whose slices are several times cheaper than np.memmap's
                self._shards[name] = np.asarray(np.load(path, mmap_mode="r"))
            except (OSError, ValueError) as error:
                raise UserError(f"{path} cannot be read ({error}); copy or build the corpus again") from None
        return self._shards[name]

    def place(self, offset: int) -> tuple[int, int]:
        """(shard, index within it) of a global offset."""
        k = bisect_right(self._starts, offset) - 1
        return k, offset - self._starts[k]

    def article(self, i: int) -> np.ndarray:
        """The token ids of article `i`, [CLS] ... [SEP]: a view of the mapped file."""
        k, start = self.place(int(self._offsets[i]))
        return self.shard(k)[start : start + int(self._lengths[i])]

    def learnt(self, i: int) -> np.ndarray:
        """Which tokens of conversation `i` are learnt: bool, parallel to `article(i)`; a view of the mapped file."""
        k, start = self.place(int(self._offsets[i]))
        return self._array(self._names[k].replace("tokens-", "learnt-"))[start : start + int(self._lengths[i])]

    def split(self, name: str) -> np.ndarray:
        """The article numbers of split "train" or "val" in corpus order, int64."""
        return np.flatnonzero(pc.equal(self.column("split"), name).to_numpy())

    def stream(self, split: str) -> Stream:
        """All tokens of a split: its articles concatenated in corpus order."""
        chosen = self.split(split)
        return Stream(self, self._offsets[chosen], self._lengths[chosen])
