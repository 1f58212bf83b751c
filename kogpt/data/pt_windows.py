"""Windows as files: folders of `*_window_*.pt` -> token corpus, and token corpus -> pt, parquet, or Megatron.

A common preprocessing script writes each window of an article as `<article>_window_<i>.pt`: a dict of two int64
tensors [max_seq_len], `input_ids` and `attention_mask`, where window i starts at token i * stride of the article.
`import_pt` joins the windows of an article again; tokens that two windows share must be equal. `export_windows` writes
the windows of kogpt.data.windows.compat_windows:

- pt: files as above.
- parquet: `windows.parquet` with name (that of the .pt file), article, window, input_ids (int32), and attention_mask
  (int8).
- megatron: `windows.bin` and `.idx`, Megatron-LM's indexed dataset, version 1. One sequence per window, without
  padding, and one document per article. Ids are int32, because its readers (Megatron's, DeepSpeed's) disagree on the
  codes of unsigned types.

Tokens past 512 and articles under 128 tokens are in neither, because the script truncates and drops them. O(windows),
with one article in memory.
"""

import hashlib
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_folder, atomic_write
from kogpt.data.corpus import TokenCorpus
from kogpt.data.corpus_writer import CorpusWriter
from kogpt.data.split import VAL_FRACTION
from kogpt.data.windows import compat_windows
from kogpt.tokenizer.analyzers.load import analyzer_identity
from kogpt.tokenizer.wordpiece import Tokenizer, load_tokenizer, open_tokenizer, with_roles

log = logging.getLogger(__name__)

_NAME = re.compile(r"(.+)_window_(\d+)\.pt")
_UNFINISHED = re.compile(r"tokens-\d{5}\.npy|articles\.parquet|dropped\.parquet|tokenizer|\..+\.kogpt-[0-9a-f]{16}")
_LONGEST_NAME = 200  # bytes; file systems allow 255
_OVERLAP = 16
"""A window that begins with so many of the last tokens of the one before overlaps it."""
Windows = list[tuple[list[int], list[int]]]


def import_pt(
    folder: str | Path,
    corpus: str | Path,
    *,
    tokenizer: str,
    analyzer: str | None = None,
    stride: int = 128,
    val_fraction: float = VAL_FRACTION,
) -> str:
    """Write a token corpus from a folder of window files, and return its fingerprint.

    `tokenizer` (a name or folder) and `analyzer` ("kkma" by default) are those that made the windows. The spacing is
    "morphemes". The tokenizer folder of a corpus or run says both itself. An article with an unreadable, missing, or
    contradictory window is dropped with the reason. Raises `UserError` if none is left.
    """
    folder, corpus = Path(folder), Path(corpus)
    articles = _find_windows(folder)
    if corpus.is_dir() and (others := [path.name for path in corpus.iterdir() if not _UNFINISHED.fullmatch(path.name)]):
        raise UserError(f"{corpus} holds {min(others)}, which an unfinished corpus does not; name a new folder")
    codec = _tokenizer(tokenizer, analyzer)
    writer = CorpusWriter(
        corpus, codec, val_fraction=val_fraction, settings={"imported": "pt windows", "stride": stride}
    )
    dropped = []
    for article, numbers in tqdm(sorted(articles.items()), desc="import", unit="article", disable=None):
        source = _storable(article)
        name = _article_id(source)
        try:
            ids = _join([_load(folder / f"{article}_window_{i}.pt") for i in range(len(numbers))], stride)
            if max(ids, default=0) >= codec.vocab_size or min(ids, default=0) < 0:
                raise ValueError(f"ids outside the {codec.vocab_size} tokens of {tokenizer}")
        except ValueError as error:
            detail = _storable(str(error))
            row = {"id": name, "source": source, "status": "dropped", "reason": "bad windows", "detail": detail}
            dropped.append(row)
            continue
        # The writer adds [CLS] and [SEP]; windows from elsewhere may have neither.
        ids = ids[ids[:1] == [codec.cls_id] : len(ids) - (ids[-1:] == [codec.sep_id])]
        text = codec.decode(ids)
        writer.add(
            id=name,
            source=source,
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
            chars=len(text),
            ids=ids,
            unknown_ids=codec.count_unknown(ids),
        )
    if dropped:
        example = f"{dropped[0]['id']}: {dropped[0]['detail']}"
        if len(dropped) == len(articles):
            raise UserError(
                f"no article of {folder} has usable windows ({example}); give the --stride and the --tokenizer that "
                "they were made with"
            )
        log.warning(
            f"{len(dropped):,} of {len(articles):,} articles are left out because of their windows ({example}); "
            f"{corpus / 'dropped.parquet'} lists them"
        )
    return writer.finish(articles_in=len(articles), dropped=dropped, removed_controls=0, removed_surrogates=0)


def _tokenizer(name_or_folder: str, analyzer: str | None) -> Tokenizer:
    folder = Path(name_or_folder).expanduser()
    if not (folder / "kogpt.json").is_file():
        return load_tokenizer(name_or_folder, spacing="morphemes", analyzer=analyzer_identity(analyzer or "kkma"))
    saved = open_tokenizer(folder)
    if analyzer not in (None, saved.analyzer["name"]):
        raise UserError(
            f"--analyzer {analyzer}: the vocabulary of {folder} is used with {saved.analyzer['name']}; "
            "leave out --analyzer"
        )
    return with_roles(saved)


def _find_windows(folder: Path) -> dict[str, set[int]]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the folder of the *_window_*.pt files")
    articles: dict[str, set[int]] = {}
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            articles.setdefault(match[1], set()).add(int(match[2]))
    if not articles:
        raise UserError(f"{folder} has no file like ARTICLE_window_0.pt; name the folder of the windows")
    return articles


def _load(path: Path) -> list[int]:
    """The token ids of one window without padding; a ValueError if the file is not a window."""
    import torch

    try:
        window = torch.load(path, weights_only=True)
        ids, mask = window["input_ids"].reshape(-1), window["attention_mask"].reshape(-1)
        count = int(mask.sum())
        if len(ids) != len(mask) or not bool(mask[:count].all()):
            raise ValueError("its attention mask does not match its ids")
        return ids[:count].tolist()
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, LookupError, TypeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]  # the error of an empty file has no text
        raise ValueError(f"{path.name} is not a window ({reason})") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _join(windows: list[list[int]], stride: int) -> list[int]:
    ids: list[int] = []
    for i, window in enumerate(windows):
        known = ids[i * stride :]
        if len(ids) < i * stride or window[: len(known)] != known[: len(window)]:
            raise ValueError(f"window {i} does not continue window {i - 1} at stride {stride}")
        # At a stride of the windows' length they share no token that could contradict it.
        if not known and (again := next((k for k in range(_OVERLAP, len(window) + 1) if ids[-k:] == window[:k]), 0)):
            raise ValueError(
                f"window {i} begins with the last {again} tokens of window {i - 1}: stride {stride} is too large"
            )
        ids += window[len(known) :]
    return ids


def export_windows(corpus: str | Path, folder: str | Path, format: str) -> int:
    """Write the windows of every article into `folder`, and return their number.

    The folder appears only when it is complete.
    """
    writers: dict[str, Callable[[Path, Iterator[tuple[str, Windows]]], int]] = {
        "pt": _write_pt,
        "parquet": _write_parquet,
        "megatron": _write_megatron,
    }
    if format not in writers:
        raise UserError(f"--format {format} is unknown; choose one of {', '.join(writers)}")
    source, folder = TokenCorpus.open(corpus), Path(folder)
    if source.kind != "articles":
        raise UserError(f"{corpus} holds {source.kind}; windows cannot say which tokens are learnt, so use the corpus")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; name another folder, or delete it")
    pad_id = open_tokenizer(source.tokenizer_folder).pad_id
    with atomic_folder(folder) as temporary:
        return writers[format](temporary, _articles(source, pad_id))


def _articles(corpus: TokenCorpus, pad_id: int) -> Iterator[tuple[str, Windows]]:
    ids = corpus.articles["id"].to_pylist()
    for i in tqdm(range(len(corpus)), desc="export", unit="article", disable=None):
        yield ids[i], compat_windows(corpus.article(i).tolist(), pad_id=pad_id)


def _file_stem(article: str) -> str:
    """The article's id as a file name: `/` and `%` are escaped; a long one is truncated and hashed."""
    name = article.replace("%", "%25").replace("/", "%2F")
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(article.encode()).hexdigest()[:16]
        name = name.encode()[: _LONGEST_NAME - 17].decode(errors="ignore") + "-" + digest
    return name


def _storable(text: str) -> str:
    """The text for a table, where a file's name may have bytes that are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _article_id(stem: str) -> str:
    return stem.replace("%2F", "/").replace("%25", "%")


def _write_pt(folder: Path, articles: Iterator[tuple[str, Windows]]) -> int:
    import torch

    written = 0
    for article, windows in articles:
        for i, (ids, mask) in enumerate(windows):
            tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
            torch.save(tensors, folder / f"{_file_stem(article)}_window_{i}.pt")
        written += len(windows)
    return written


def _write_parquet(folder: Path, articles: Iterator[tuple[str, Windows]]) -> int:
    schema = pa.schema(
        [
            ("name", pa.string()),
            ("article", pa.string()),
            ("window", pa.int32()),
            ("input_ids", pa.list_(pa.int32())),
            ("attention_mask", pa.list_(pa.int8())),
        ]
    )
    written, batch = 0, []
    with atomic_write(folder / "windows.parquet") as file, pq.ParquetWriter(file, schema, compression="zstd") as table:
        for article, windows in articles:
            for i, (ids, mask) in enumerate(windows):
                batch.append((f"{_file_stem(article)}_window_{i}", article, i, ids, mask))
            written += len(windows)
            if len(batch) >= 4096:
                table.write_table(_table(batch, schema))
                batch = []
        table.write_table(_table(batch, schema))
    return written


def _table(rows: list[tuple], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _write_megatron(folder: Path, articles: Iterator[tuple[str, Windows]]) -> int:
    lengths, documents = [], [0]
    with atomic_write(folder / "windows.bin") as file:
        for _, windows in articles:
            for ids, mask in windows:
                lengths.append(sum(mask))
                file.write(np.array(ids[: lengths[-1]], dtype="<i4").tobytes())
            if windows:
                documents.append(len(lengths))
    sizes = np.array(lengths, dtype="<i4")
    pointers = np.concatenate(([0], np.cumsum(sizes, dtype="<i8")))[:-1] * 4
    with atomic_write(folder / "windows.idx") as file:
        file.write(b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + bytes([4]))  # 4: int32
        file.write(len(sizes).to_bytes(8, "little") + len(documents).to_bytes(8, "little"))
        file.write(sizes.tobytes() + pointers.astype("<i8").tobytes() + np.array(documents, dtype="<i8").tobytes())
    return len(lengths)
