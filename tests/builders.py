"""Build a tokenizer, a token corpus, and a run for tests, in the form that preprocessing and training write.

`tests/conftest.py` makes one of each per session (`corpus`, `tokenizer`, `run`, `trained`). Use those. Build your own
only if the test is about its content. All morpheme boundaries are those of the analyzer `none`.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import konlpy
import pytest
import torch

from kogpt.checkpoint import writer
from kogpt.data.corpus_writer import CorpusWriter
from kogpt.model.config import ModelConfig
from kogpt.model.decoder import Decoder
from kogpt.model.registry import build, config_from_dict
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.chat import Message, render
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import Tokenizer, train_tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Articles, vocabularies and items that are not part of the project: a public clone has none of them."""
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"about data that this clone does not have ({SHARED})")

TEXTS = ["나는 학교에 갔다.\n친구가 왔다.", "어제는  비가 왔고 오늘은 맑다.", "학교에 친구가 있다."]
ANALYZER = "none"


def constitution() -> list[str]:
    """The Korean constitution (konlpy's kolaw), cut at empty lines: 13 texts, 18,860 characters."""
    law = Path(konlpy.__file__).parent / "data" / "corpus" / "kolaw" / "constitution.txt"
    return [normalize(part)[0] for part in law.read_text(encoding="utf-8").split("\n\n") if part.strip()]


def bills() -> list[str]:
    """Ten bills before the Korean parliament (konlpy's kobill), 48,000 characters with many runs of spaces."""
    folder = Path(konlpy.__file__).parent / "data" / "corpus" / "kobill"
    return [normalize(path.read_text(encoding="utf-8"))[0] for path in sorted(folder.glob("*.txt"))]


def articles_of(path: Path, count: int, every: int = 1) -> list[str]:
    """Normalized texts of a .jsonl.gz of articles with a `passage` each: `count` of them, from each `every`-th line."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [normalize(json.loads(line)["passage"])[0] for line in islice(lines, 0, count * every, every)]


def analyzed(texts: Iterable[str]) -> list[tuple[str, Analysis]]:
    """Normalized texts with their morpheme boundaries."""
    analyzer = load_analyzer(ANALYZER)
    return [(text, analyzer.analyze(text)) for text in (normalize(text)[0] for text in texts)]


def make_tokenizer(texts: Sequence[str] = TEXTS * 3, vocab: int = 300, spacing: str = "original") -> Tokenizer:
    """A WordPiece tokenizer trained on the texts. What occurs once becomes no piece: repeat texts that are few."""
    identity = load_analyzer(ANALYZER).identity
    return train_tokenizer(analyzed(texts), vocab, spacing=spacing, analyzer=identity)


def without_roles(tokenizer: Tokenizer) -> Tokenizer:
    """As versions before role tokens made it."""
    vocab = [piece for piece in tokenizer.vocab if piece not in ROLE_PIECES]
    return Tokenizer(
        vocab,
        spacing=tokenizer.spacing,
        analyzer=tokenizer.analyzer,
        source=tokenizer.source,
        base_size=tokenizer.base_size,
    )


def encoded(tokenizer: Tokenizer, texts: Iterable[str], source: str = "kolaw") -> Iterator[dict[str, Any]]:
    """Articles as `CorpusWriter.add` takes them."""
    for number, (text, analysis) in enumerate(analyzed(texts)):
        ids = tokenizer.encode(text, analysis)
        yield {
            "id": f"{source}:{number}",
            "source": source,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "chars": len(text),
            "ids": ids,
            "unknown_ids": tokenizer.count_unknown(ids),
        }


def write_corpus(
    folder: Path,
    tokenizer: Tokenizer,
    articles: Iterable[dict[str, Any]],
    *,
    val_fraction: float = 0.1,
    dropped: Sequence[dict[str, str]] = (),
    **writer: Any,
) -> Path:
    """A finished corpus of articles that are tokens already; `writer`: more arguments of `CorpusWriter`."""
    made = CorpusWriter(folder, tokenizer, val_fraction=val_fraction, settings={}, **writer)
    count = 0
    for article in articles:
        made.add(**article)
        count += 1
    made.finish(articles_in=count + len(dropped), dropped=list(dropped), removed_controls=0, removed_surrogates=0)
    return folder


def make_corpus(folder: Path) -> Path:
    """A corpus of the Korean constitution under a tokenizer trained on it."""
    tokenizer = make_tokenizer(constitution(), 400)
    return write_corpus(folder, tokenizer, encoded(tokenizer, constitution()))


def conversations() -> list[list[Message]]:
    """Questions about the articles of the constitution, one to three in a conversation, every fourth with a system
    message: 66 conversations, whose answers are the first three eojeols of the article."""
    law = dict(re.findall(r"제(\d+)조 (?:① ?)?(\S+ \S+ \S+)", "\n".join(constitution())))
    articles, made = iter(sorted(law.items(), key=lambda item: int(item[0]))), list[list[Message]]()
    while turns := list(islice(articles, 1 + len(made) % 3)):
        system = [Message("system", "헌법을 아는 사람이다.")] if len(made) % 4 == 0 else []
        asked = [(Message("user", f"제{n}조는?"), Message("assistant", text)) for n, text in turns]
        made.append(system + [message for turn in asked for message in turn])
    return made


def encode_with(tokenizer: Tokenizer, text: str) -> list[int]:
    """Text -> ids, as `TextCodec.encode` does."""
    [(text, analysis)] = analyzed([text])
    return tokenizer.encode(text, analysis)


def conversed(
    tokenizer: Tokenizer, talks: Iterable[Sequence[Message]], source: str = "kolaw"
) -> Iterator[dict[str, Any]]:
    """Conversations as `CorpusWriter.add` takes them."""
    for number, messages in enumerate(talks):
        ids, learnt = render(messages, tokenizer, partial(encode_with, tokenizer))
        yield {
            "id": f"{source}:{number}",
            "source": source,
            "text_sha256": hashlib.sha256(repr(messages).encode()).hexdigest(),
            "chars": sum(len(message.content) for message in messages),
            "ids": ids,
            "unknown_ids": tokenizer.count_unknown(ids),
            "learnt": learnt,
            "learnt_chars": sum(len(message.content) for message in messages if message.role == "assistant"),
        }


def make_chat_corpus(folder: Path, tokenizer: Tokenizer | None = None) -> Path:
    """A corpus of `conversations()`, under the tokenizer of `make_corpus` unless another is given."""
    tokenizer = tokenizer or make_tokenizer(constitution(), 400)
    return write_corpus(folder, tokenizer, conversed(tokenizer, conversations()), kind="conversations")


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2, "n_head": 2, "n_embd": 32},
    "qwen3": {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_kv_head": 2, "head_dim": 12, "n_inner": 40, "tied": False},
}
"""A small model of each architecture; no two sizes of the second are equal that need not be."""


def shape_of(arch: str, **more: Any) -> ModelConfig:
    """The configuration of the small model, with `more` fields: a vocabulary of 301 and a context of 32 by default."""
    return config_from_dict({"arch": arch, "vocab_size": 301, "max_seq_len": 32, **SHAPES[arch], **more})


def scattered(config: ModelConfig, *, seed: int = 0, spread: float = 0.1) -> Decoder:
    """A model whose every parameter is far enough from its start that a missing one is noticed, in eval mode."""
    torch.manual_seed(seed)
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    return model


def write_checkpoint(run: Path, model: Decoder, step: int, **more: Any) -> None:
    """The checkpoint of a step, with what inference reads."""
    config = {"model": model.config.to_dict(), "step": step} | more
    writer.write_checkpoint(run, step, model.state_dict(), config, {"step": step})


def make_run(
    folder: Path,
    tokenizer: Tokenizer | None = None,
    arch: str = "gpt2",
    *,
    spread: float = 0.1,
    kind: str | None = None,
    corpus: str = "c0ffee" * 10,
    **shape: Any,
) -> Path:
    """A run folder with a random model: a checkpoint of step 5 of a run that has come to step 7."""
    tokenizer = tokenizer or make_tokenizer()
    tokenizer.save(folder / "tokenizer")
    model = scattered(shape_of(arch, vocab_size=tokenizer.vocab_size, **shape), spread=spread)
    write_checkpoint(folder, model, 5, corpus=corpus, **({"kind": kind} if kind else {}))
    # As trainings leave them: the run is further than this checkpoint.
    (folder / "run.json").write_text(json.dumps({"step": 7, "tokens": 700, "seed": 31, "corpus_folder": "/home/me"}))
    evaluated: dict[str, Any] = {"val_loss": 2.5, "val_bits_per_char": 3.25}
    records: list[dict[str, Any]] = [{"step": step, "tokens": 100 * step, "loss": step / 2} for step in range(1, 8)]
    records = [record | (evaluated if record["step"] == 4 else dict.fromkeys(evaluated)) for record in records]
    records[-1] |= {"val_loss": 1.5, "val_bits_per_char": 2.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def make_chat_run(folder: Path, tokenizer: Tokenizer | None = None, **shape: Any) -> Path:
    """The same, of a run that was trained on conversations. Context 128."""
    return make_run(folder, tokenizer, kind="conversations", **({"max_seq_len": 128} | shape))


def make_endless_run(folder: Path, tokenizer: Tokenizer, says: str = "법", **shape: Any) -> Path:
    """A run that was trained on conversations, and whose every answer is this one piece of text again and again."""
    tokenizer.save(folder / "tokenizer")
    model: Any = scattered(shape_of("gpt2", vocab_size=tokenizer.vocab_size, **shape))
    with torch.no_grad():
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(model.wte.weight[tokenizer.vocab.index(says)] * 1e6)
    write_checkpoint(folder, model, 5, kind="conversations")
    return folder


def record(step: int, **more: Any) -> dict[str, Any]:
    """A line of metrics.jsonl, made up, as the trainer hands it to the tracker."""
    numbers = {"loss": 5.0 / step, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_s": 10.0, "mfu": None}
    numbers |= {"chars_per_s": 20.0, "data_wait": 0.01, "loss_scale": 1.0, "memory_gib_rank0": 0.5}
    counts = {"step": step, "skipped_steps": 0, "epoch": 0.1, "tokens": 10 * step}
    return {**numbers, **counts, "val_loss": None, "val_bits_per_char": None, **more}


def write_records(folder: Path, *records: dict[str, Any], **about: Any) -> Path:
    """A run folder with metrics.jsonl of these records and run.json of `about`, and nothing else."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"state": "running", "steps": 9, **about}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder


class Inside:
    """Takes the place of a function that returns a context, and knows whether the code is within it."""

    now = False

    @contextmanager
    def __call__(self, *_: Any) -> Iterator[None]:
        self.now = True
        yield
        self.now = False
