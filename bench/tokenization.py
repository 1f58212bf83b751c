"""Is Kkma worth it? Compare bits per character of the same held-out text between ways to tokenize.

    python bench/tokenization.py --articles ARTICLES.jsonl.gz --tokenizer FOLDER --work WORK

Arms: {none, kkma, kkma morphemes, kiwi} x {the given vocabulary, one trained with that arm's boundaries}. "kkma
morphemes" joins dictionary forms by spaces. The text cannot be restored from them, and what becomes [UNK] costs
nothing, so its bits are a lower bound. The metric is bits per character of the raw text, because loss per token favors
arms with more tokens.

Each cell (arm, seed) trains one small GPT on the same articles of the train split, and is evaluated at two budgets:

    characters   one pass over those articles, in as many steps as the arm's tokens need
    compute      the FLOPs (including the head) that "none" spends on that pass with the given vocabulary

Both end with the same decay of the learning rate (kogpt.optim.schedule, wsd), and branch off one stable phase. The
arms of a seed share initialization and data order as far as their shapes allow. Held out is the beginning of every
validation article (the split is by text, so all arms have the same), clean and with changed spaces: removed, put
between all characters, or each gap between characters flipped with a probability of 20 %. All bits are divided by the
characters of the clean text.

Interval: paired bootstrap of the difference to "none" with the same vocabulary, over articles and seeds (95 %).

WORK keeps the morphemes, the corpora (written by preprocess/run.py), and each finished cell; the same command
continues. Cost with the defaults: about two hours on 2 cores.
"""

import copy
import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, in which preprocess.py has the name of a package

from bench.tokenization_report import draw, show, summarise  # noqa: E402
from kogpt.common.device import has_bf16  # noqa: E402
from kogpt.common.files import atomic_write  # noqa: E402
from kogpt.data.corpus import TokenCorpus  # noqa: E402
from kogpt.data.sampler import windows_for_step  # noqa: E402
from kogpt.data.windows import train_window, train_windows  # noqa: E402
from kogpt.eval.likelihood import score_articles  # noqa: E402
from kogpt.model.gpt2 import GPT, GPTConfig  # noqa: E402
from kogpt.optim.parameter_groups import parameter_groups  # noqa: E402
from kogpt.optim.schedule import learning_rate  # noqa: E402
from kogpt.tokenizer.codec import TextCodec  # noqa: E402

SHAPE = {"max_seq_len": 256, "n_layer": 4, "n_head": 4, "n_embd": 128}
BATCH, PEAK, WARM_UP, DECAY, WEIGHT_DECAY = 8, 3e-3, 20, 0.3, 0.1
HELD_OUT_CHARS, FLIPPED = 300, 0.2
ANALYZERS = ("none", "kkma", "kkma morphemes", "kiwi")
VOCABULARIES = ("given", "trained")
CONDITIONS = ("clean", "no spaces", "all spaces", "random spaces")


@dataclass(frozen=True)
class Options:
    """Compare the ways from text to ids."""

    articles: Path
    """JSON lines (or .gz) of articles, as preprocess/run.py reads them."""
    tokenizer: str
    """The given vocabulary: a WordPiece folder, or a name on the hub."""
    work: Path
    """Where everything is kept."""
    chars: float = 2e6
    """Characters of the training articles."""
    pieces: int = 20_000
    """Size of the trained vocabularies."""
    seeds: int = 3
    """Seeds of each arm."""
    processes: int = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    """Cells that are trained at the same time."""
    json: Path | None = None
    """Also write the numbers to this file."""
    plot: Path | None = None
    """Draw them into this PNG."""


@dataclass(frozen=True)
class Arm:
    """A way from text to ids."""

    analyzer: str
    vocabulary: str

    @property
    def name(self) -> str:
        return f"{self.analyzer.replace(' ', '-')}-{self.vocabulary}"

    def corpus(self, work: Path) -> Path:
        return work / "corpora" / self.name


ARMS = [Arm(analyzer, vocabulary) for vocabulary, analyzer in product(VOCABULARIES, ANALYZERS)]
BASE = Arm("none", "given")


# ---- text to ids


def make_corpus(options: Options, arm: Arm) -> None:
    """The arm's corpus of all articles, by the command that users run; what is done is left alone."""
    analyzer, _, spacing = arm.analyzer.partition(" ")
    folder = arm.corpus(options.work)
    command = [sys.executable, str(ROOT / "preprocess/run.py"), "--input", str(options.articles)]
    command += ["--output", str(folder), "--cache", str(options.work / "morphemes"), "--ray-address", "local"]
    command += ["--analyzer", analyzer, "--spacing", spacing or "original"]
    if arm.vocabulary == "given":
        command += ["--tokenizer", options.tokenizer]
    else:
        command += ["--vocab-size", str(options.pieces)]
    if not (folder / "manifest.json").exists():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def in_hash_order(corpus: TokenCorpus, split: str) -> list[int]:
    """The split's articles in an order that no source of articles decides, the same for every arm."""
    hashes = corpus.articles["text_sha256"].to_pylist()
    return sorted(map(int, corpus.split(split)), key=hashes.__getitem__)


def training_ids(corpus: TokenCorpus, chars: float) -> np.ndarray:
    """The ids of the first train articles in hash order that together have `chars` characters, end to end."""
    lengths, taken, total = corpus.articles["chars"].to_pylist(), [], 0
    for i in in_hash_order(corpus, "train"):
        if total >= chars:
            break
        taken.append(corpus.article(i))
        total += lengths[i]
    return np.concatenate(taken).astype(np.int64)


def respaced(text: str, condition: str, seed: int) -> str:
    """The text with its spaces changed; line breaks stay."""
    if condition == "clean":
        return text
    numbers = random.Random(seed)
    lines = []
    for line in text.split("\n"):
        letters: list[str] = []
        for character in line.strip(" "):
            if character != " ":
                letters.append(character)
            elif not letters[-1].endswith(" "):
                letters[-1] += " "
        for i, letter in enumerate(letters[:-1]):
            spaced = {
                "no spaces": False,
                "all spaces": True,
                "random spaces": letter.endswith(" ") != (numbers.random() < FLIPPED),
            }[condition]
            letters[i] = letter[0] + " " * spaced
        lines.append("".join(letters))
    return "\n".join(lines)


def hold_out(work: Path, arm: Arm) -> dict[str, Any]:
    """The held-out ids of an arm by condition, the clean texts' characters, and what the arm loses; kept in WORK."""
    base, corpus = TokenCorpus.open(BASE.corpus(work)), TokenCorpus.open(arm.corpus(work))
    kept, key = work / "held-out" / f"{arm.name}.json", key_of(base.fingerprint, corpus.fingerprint)
    if (found := read_kept(kept, key)) is not None:
        return found
    decode = TextCodec(base.tokenizer_folder).decode
    texts = [decode(base.article(i).tolist())[:HELD_OUT_CHARS].strip() for i in in_hash_order(base, "val")]
    codec = TextCodec(corpus.tokenizer_folder)
    tokenizer = codec.tokenizer
    ids = {
        condition: [
            [tokenizer.cls_id, *codec.encode(respaced(text, condition, seed)), tokenizer.sep_id]
            for seed, text in enumerate(texts)
        ]
        for condition in CONDITIONS
    }
    clean = ids["clean"]
    result = {
        "key": key,
        "chars": [len(text) for text in texts],
        "ids": ids,
        "ids_per_char": sum(map(len, clean)) / sum(map(len, texts)),
        "unknown": sum(row.count(tokenizer.unk_id) for row in clean) / sum(map(len, clean)),
        "come_back": sum(map(str.__eq__, map(codec.decode, clean), texts)) / len(texts),
    }
    keep(kept, result)
    return result


def key_of(*settings: Any) -> str:
    """What a kept result depends on."""
    text = json.dumps([SHAPE, BATCH, PEAK, WARM_UP, DECAY, HELD_OUT_CHARS, FLIPPED, *settings])
    return hashlib.sha256(text.encode()).hexdigest()


def read_kept(path: Path, key: str) -> dict[str, Any] | None:
    """A result that is there and was made with these settings."""
    found = json.loads(path.read_bytes()) if path.exists() else None
    return found if found is not None and found["key"] == key else None


def keep(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps(content).encode())


# ---- a cell


class Learner:
    """A model, its optimizer and its place in the data; a deep copy is a branch."""

    def __init__(self, config: GPTConfig, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.model, self.seed, self.device, self.step = GPT(config).to(device), seed, device, 0
        self.adam = torch.optim.AdamW(parameter_groups(self.model, WEIGHT_DECAY), betas=(0.9, 0.95), fused=True)

    def learn(self, ids: np.ndarray, steps: int) -> None:
        """The next of `steps` updates."""
        context = self.model.config.max_seq_len
        rate = learning_rate(
            self.step,
            schedule="wsd",
            peak=PEAK,
            total_steps=steps,
            warmup_steps=WARM_UP,
            decay_steps=decay_steps(steps),
            final_ratio=0.01,
        )
        for group in self.adam.param_groups:
            group["lr"] = rate
        position = {"consumed": self.step * BATCH, "micro_batch": BATCH, "grad_accum": 1, "rank": 0, "world_size": 1}
        chosen = windows_for_step(train_windows(len(ids), context), seed=self.seed, **position)[0]
        starts = [train_window(int(i), len(ids), context) for i in chosen]
        rows = torch.from_numpy(np.stack([ids[start : start + context + 1] for start in starts])).to(self.device)
        with autocast(self.device):
            loss = self.model(rows[:, :-1], rows[:, 1:].contiguous()) / rows[:, 1:].numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.step += 1


def autocast(device: str) -> torch.autocast:
    """bf16 where the hardware has it, else fp32."""
    return torch.autocast(device, torch.bfloat16, enabled=has_bf16(torch.device(device)))


def decay_steps(steps: int) -> int:
    """How many of the last steps the learning rate falls in."""
    return round(DECAY * steps)


def budgets(options: Options, arm: Arm) -> dict[str, int]:
    """Steps by budget."""

    def size(one: Arm) -> tuple[int, int]:
        corpus = TokenCorpus.open(one.corpus(options.work))
        windows = train_windows(len(training_ids(corpus, options.chars)), SHAPE["max_seq_len"])
        return round(windows / BATCH), GPTConfig(corpus.vocab_size, **SHAPE).flops_per_token(SHAPE["max_seq_len"])

    (base_steps, base_flops), (steps, flops) = size(BASE), size(arm)
    return {"characters": steps, "compute": round(base_steps * base_flops / flops)}


def trained(config: GPTConfig, ids: np.ndarray, lengths: set[int], seed: int) -> Iterator[tuple[int, GPT]]:
    """(length, model) for each length in steps, the shortest first."""
    trunk = Learner(config, seed, "cuda" if torch.cuda.is_available() else "cpu")
    for steps in sorted(lengths):
        while trunk.step < steps - decay_steps(steps):
            trunk.learn(ids, steps)
        branch = copy.deepcopy(trunk)
        while branch.step < steps:
            branch.learn(ids, steps)
        yield steps, branch.model.eval()


def train_cell(options: Options, arm: Arm, seed: int) -> dict[str, Any]:
    """One model, and its nll of the held-out texts, by budget and condition: nats by article; kept in WORK."""
    corpus, held = TokenCorpus.open(arm.corpus(options.work)), hold_out(options.work, arm)
    lengths = budgets(options, arm)
    kept, key = options.work / "cells" / f"{arm.name}-{seed}.json", key_of(options.chars, lengths, held["key"])
    if (found := read_kept(kept, key)) is not None:
        return found
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.processes))
    nats: dict[str, dict[str, list[float]]] = {}
    ids = training_ids(corpus, options.chars)
    config = GPTConfig(corpus.vocab_size, **SHAPE)
    for steps, model in trained(config, ids, set(lengths.values()), seed):
        for budget in (name for name, length in lengths.items() if length == steps):
            nats[budget] = {
                condition: score(model, held["ids"][condition], held["chars"])
                for condition in (CONDITIONS if budget == "characters" else CONDITIONS[:1])
            }
    what = {"key": key, "name": arm.name, "arm": asdict(arm), "seed": seed}
    result = what | {"steps": lengths, "ids": len(ids), "nats": nats}
    keep(kept, result)
    return result


def score(model: GPT, rows: list[list[int]], chars: list[int]) -> list[float]:
    """Nats of each article."""
    with autocast(next(model.parameters()).device.type):
        return score_articles(model, zip(rows, chars, strict=True)).nll


def main(options: Options) -> None:
    """Make the corpora, train the cells that are missing, show what there is after each round of seeds."""
    for arm in ARMS:
        make_corpus(options, arm)
    cells: list[dict[str, Any]] = []
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=spawned) as pool:
        list(pool.map(hold_out, [options.work] * len(ARMS), ARMS))
        futures = [pool.submit(train_cell, options, arm, seed) for seed in range(options.seeds) for arm in ARMS]
        for future in as_completed(futures):
            cells.append(cell := future.result())
            clean = {budget: sum(nats["clean"]) for budget, nats in cell["nats"].items()}
            print(
                f"{len(cells)} of {len(futures)}: {Arm(**cell['arm']).name} seed {cell['seed']}, nats {clean}",
                flush=True,
            )
    result = summarise(cells, {arm.name: hold_out(options.work, arm) for arm in ARMS})
    show(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot is not None:
        draw(result, options.plot)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
