"""Measure generation on a CPU: kogpt, alone and in company, beside transformers, CTranslate2, and llama.cpp.

    python bench/generate.py [--arch gpt2] [--depth 6] [--threads 1] [--json OUT.json]

One random model (the numbers do not depend on its weights), the same prompts, greedy. Each contestant continues one
prompt, and then `--streams` prompts together; all take turns, `--rounds` times. Ours is kogpt.generate.batching, what
`kogpt serve` runs. CTranslate2 and llama.cpp take part if they are installed (pip install ctranslate2 xllamacpp gguf).

Reported are tokens per second by wall-clock and by CPU time of the process (medians of the rounds), and what matters on
a machine that does other things as well: the ratio to transformers by CPU time, the median of the ratios within each
round. "same" says whether the tokens are those of transformers; llama.cpp has weights in f16.
"""

import importlib.util
import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from kogpt.checkpoint import writer
from kogpt.checkpoint.load import load_for_inference
from kogpt.generate.batching import Batcher, Done, Request
from kogpt.generate.engine import Step
from kogpt.generate.sampling import Sampling
from kogpt.hub.export import export_model
from kogpt.model.registry import ARCHITECTURES, build, config_from_dict
from kogpt.tokenizer.wordpiece import Tokenizer

Ids = list[list[int]]
Contestant = Callable[[Ids, int], Ids]
"""Continues each of the prompts by so many tokens."""
PROMPT = 16


@dataclass(frozen=True)
class Options:
    """Measure generation on a CPU."""

    arch: Literal["gpt2", "qwen3"] = "gpt2"
    """Architecture."""
    depth: int = 6
    """Layers; the width follows as in training."""
    vocab_size: int = 8_000
    """Size of the vocabulary."""
    context: int = 256
    """Context length. The prompt has 16 tokens."""
    tokens: int = 64
    """Tokens that are generated for each prompt."""
    streams: int = 8
    """Prompts that are continued together."""
    threads: int = 1
    """Threads of every contestant."""
    rounds: int = 7
    """Number of measurements of each, in turns."""
    json: Path | None = None
    """Also write the numbers to this file."""


def make_run(folder: Path, options: Options) -> Path:
    """A run with a random model."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[LF]", "[SP]", *(f"<0x{n:02X}>" for n in range(256))]
    words = [*special, *(f"w{n}" for n in range(options.vocab_size - len(special)))]
    identity = {"name": "none", "version": "1"}
    Tokenizer(words, spacing="original", analyzer=identity, source="random", base_size=len(words)).save(
        folder / "tokenizer"
    )
    shape = ARCHITECTURES[options.arch].config.shape_of_depth(options.depth)
    shape |= {"arch": options.arch, "vocab_size": options.vocab_size, "max_seq_len": options.context}
    torch.manual_seed(0)
    model = build(config_from_dict(shape))
    with torch.no_grad():  # far from uniform, so that the most probable token is not a matter of rounding
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    writer.write_checkpoint(folder, 1, model.state_dict(), {"model": model.config.to_dict(), "step": 1}, {"step": 1})
    return folder


def ours(run: Path, options: Options, sampling: dict[str, Any]) -> Contestant:
    """kogpt's batcher."""
    batcher = Batcher(load_for_inference(run).model, places=options.streams)

    def call(prompts: Ids, count: int) -> Ids:
        made: Ids = [[] for _ in prompts]
        running = threading.Semaphore(0)

        def on_step(row: list[int], what: Step | Done) -> None:
            if isinstance(what, Done):
                running.release()
            else:
                row.append(what.id)

        for row, prompt in zip(made, prompts, strict=True):
            request = Request(prompt, Sampling(max_new_tokens=count, **sampling))
            batcher.submit(request, lambda what, row=row: on_step(row, what))  # type: ignore[misc]
        for _ in prompts:
            running.acquire()
        return made

    return call


def transformers(exported: Path) -> Contestant:
    """`generate` of transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(exported)

    def call(prompts: Ids, count: int) -> Ids:
        ids = torch.tensor(prompts)
        settings = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, **settings)
        return out[:, ids.size(1) :].tolist()

    return call


def ctranslate2(exported: Path, options: Options) -> Contestant:
    """CTranslate2, fp32."""
    import ctranslate2

    folder = str(exported / "ctranslate2")
    ctranslate2.converters.TransformersConverter(str(exported)).convert(folder)
    engine = ctranslate2.Generator(folder, device="cpu", intra_threads=options.threads)
    words = (exported / "vocab.txt").read_text(encoding="utf-8").splitlines()

    def call(prompts: Ids, count: int) -> Ids:
        settings = {"sampling_topk": 1, "include_prompt_in_result": False, "end_token": []}
        rows = engine.generate_batch([[words[id] for id in ids] for ids in prompts], max_length=count, **settings)
        return [row.sequences_ids[0] for row in rows]

    return call


def llama_cpp(exported: Path, options: Options) -> Contestant:
    """llama.cpp's server in this process, with weights in f16 and as many slots as streams."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(next(exported.glob("*.gguf")))
    settings.port, settings.verbosity, settings.cache_prompt = 0, 0, False
    settings.n_ctx, settings.n_parallel = options.context * options.streams, options.streams
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = options.threads
    server = xllamacpp.Server(settings)

    def one(prompt: list[int], count: int) -> list[int]:
        body = {"prompt": prompt, "n_predict": count, "temperature": 0, "return_tokens": True, "ignore_eos": True}
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(server.listening_address + "/completion", data, kind)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["tokens"]

    pool = ThreadPoolExecutor(options.streams)
    return lambda prompts, count: list(pool.map(lambda prompt: one(prompt, count), prompts))


def contestants(scratch: Path, options: Options) -> Iterator[tuple[str, Contestant]]:
    """All that are installed, transformers first."""
    run = make_run(scratch / "run", options)
    exported = scratch / "exported"
    gguf = importlib.util.find_spec("gguf") is not None
    export_model(run, exported, texts=["w1 w2"], gguf="f16" if gguf else None)
    yield "transformers", transformers(exported)
    yield "kogpt", ours(run, options, {"greedy": True})
    yield "kogpt, top-k 50", ours(run, options, {"top_k": 50})
    for name, make in {"CTranslate2": ctranslate2, "llama.cpp, f16": llama_cpp}.items():
        try:
            yield name, make(exported, options)
        except (ImportError, StopIteration) as missing:
            print(f"{name} does not take part: {missing}", file=sys.stderr)


def measure(found: dict[str, Contestant], options: Options) -> list[dict[str, Any]]:
    """A row of the table for each contestant and number of streams."""
    prompts = torch.randint(300, options.vocab_size, (options.streams, PROMPT)).tolist()
    seconds: dict[tuple[str, int], list[tuple[float, float]]] = {}
    made: dict[tuple[str, int], Ids] = {}
    for turn in range(options.rounds + 1):
        for streams in (1, options.streams):
            for name, call in found.items():
                start = time.perf_counter(), time.process_time()
                made[name, streams] = call(prompts[:streams], options.tokens)
                taken = time.perf_counter() - start[0], time.process_time() - start[1]
                if turn:  # the first one warms up
                    seconds.setdefault((name, streams), []).append(taken)
    rows = []
    for (name, streams), times in seconds.items():
        reference, alone = seconds["transformers", streams], seconds[name, 1]
        rows.append({
            "engine": name,
            "streams": streams,
            "tokens_per_s": streams * options.tokens / statistics.median(wall for wall, _ in times),
            "tokens_per_cpu_s": streams * options.tokens / statistics.median(cpu for _, cpu in times),
            "times_transformers": statistics.median(b[1] / a[1] for a, b in zip(times, reference, strict=True)),
            "times_one_stream": statistics.median(streams * b[1] / a[1] for a, b in zip(times, alone, strict=True)),
            "same_tokens": made[name, streams] == made["transformers", streams],
        })  # fmt: skip
    return rows


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(dict(contestants(Path(scratch), options)), options)
    table = Table("engine", "streams", "tokens/s", "tokens/CPU s", "x transformers", "x one stream", "same")
    for row in rows:
        table.add_row(
            row["engine"],
            str(row["streams"]),
            f"{row['tokens_per_s']:,.0f}",
            f"{row['tokens_per_cpu_s']:,.0f}",
            f"{row['times_transformers']:.2f}",
            f"{row['times_one_stream']:.2f}",
            "yes" if row["same_tokens"] else "no",
        )
    Console().print(table)
    if options.json is not None:
        report = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        options.json.write_text(json.dumps({**report, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
