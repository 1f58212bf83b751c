"""What tests are made of: a small corpus and a small run, as preprocessing and training leave them."""

import hashlib
import json
from pathlib import Path

import konlpy
import torch

from kogpt.checkpoint.layout import CONFIG, MODEL
from kogpt.checkpoint.writer import CheckpointWriter
from kogpt.data.corpus import CorpusWriter
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import Tokenizer, train_tokenizer

TEXTS = ["나는 학교에 갔다.\n친구가 왔다.", "어제는  비가 왔고 오늘은 맑다.", "학교에 친구가 있다."]


def make_corpus(folder: Path, vocab: int = 400) -> Path:
    """A token corpus of the Korean constitution (konlpy's kolaw), words as the only cuts."""
    law = Path(konlpy.__file__).parent / "data" / "corpus" / "kolaw" / "constitution.txt"
    texts = [normalize(part)[0] for part in law.read_text(encoding="utf-8").split("\n\n") if part.strip()]
    analyzer = load_analyzer("none")
    documents = [(text, analyzer.analyze(text)) for text in texts]
    tokenizer = train_tokenizer(documents, vocab, spacing="original", analyzer=analyzer.identity)
    writer = CorpusWriter(folder, tokenizer, val_fraction=0.1, settings={})
    for number, (text, analysis) in enumerate(documents):
        ids = tokenizer.encode(text, analysis)
        writer.add(
            id=f"kolaw:{number}",
            source="kolaw",
            text_sha256=hashlib.sha256(text.encode()).hexdigest(),
            chars=len(text),
            ids=ids,
            unknown_ids=tokenizer.count_unknown(ids),
        )
    writer.finish(articles_in=len(documents), dropped=[], removed_controls=0, removed_surrogates=0)
    return folder


def make_run(folder: Path, *, bias: bool = True, tokenizer: Tokenizer | None = None) -> Path:
    if tokenizer is None:
        analyzer = load_analyzer("none")
        documents = [(text, analyzer.analyze(text)) for text in TEXTS * 3]
        tokenizer = train_tokenizer(documents, 300, spacing="original", analyzer=analyzer.identity)
    tokenizer.save(folder / "tokenizer")
    torch.manual_seed(0)
    shape = {
        "vocab_size": tokenizer.vocab_size,
        "max_seq_len": 32,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
        "bias": bias,
    }
    model = GPT(GPTConfig(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = model.state_dict()
    writer = CheckpointWriter(folder, 5, writing=True)
    writer.tensors(MODEL, {name: tuple(value.shape) for name, value in state.items()}, state.__getitem__)
    writer.json(CONFIG, {"model": shape, "step": 5, "corpus": "c0ffee" * 10})
    writer.finish()
    # As trainings leave them: the run is further than this checkpoint.
    (folder / "run.json").write_text(json.dumps({"step": 7, "tokens": 700, "seed": 31, "corpus_folder": "/home/me"}))
    evaluated = {"val_loss": 2.5, "val_bits_per_char": 3.25}
    records = [{"step": step, "tokens": 100 * step, "loss": step / 2} for step in range(1, 8)]
    records = [record | (evaluated if record["step"] == 4 else dict.fromkeys(evaluated)) for record in records]
    records[-1] |= {"val_loss": 1.5, "val_bits_per_char": 2.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder
