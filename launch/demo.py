"""The whole road on this machine: real Korean text in, Korean text written by a GPT trained here out.

Each stage is the command a user would type, run from the project's folder and printed before it starts.
The text is what ships inside konlpy (the constitution, ten bills of the National Assembly), written as
AI-Hub-style JSON, one article a file. A stage that is already done is found done: run it again at will.
"""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from konlpy.corpus import kobill, kolaw

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PROMPTS = ("대한민국의 모든 국민은", "국회는", "이 법은 공포한 날부터")


@dataclass(frozen=True)
class Demo:
    """Build a corpus from konlpy's own texts, train a small GPT on it, and let it write."""

    folder: Path = ROOT / "demo"
    """Where everything goes: articles/, corpus/ and run/."""
    steps: int = 500
    """How many optimizer steps to train."""


def write_articles(folder: Path, at_least: int = 600) -> int:
    """Write konlpy's texts as AI-Hub book articles, cut at blank lines into `at_least` characters or more."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, corpus in (("kolaw", kolaw), ("kobill", kobill)):
        for file in sorted(corpus.fileids()):
            paragraphs = re.split(r"\n\s*\n", corpus.open(file).read().strip())
            title, passage, part = paragraphs[0].strip(), "", 0
            for paragraph in [*paragraphs, None]:
                if paragraph is not None:
                    passage += ("\n\n" if passage else "") + paragraph.strip()
                if passage and (paragraph is None or len(passage) >= at_least):
                    doc_id = f"{name}-{Path(file).stem}-{part:03d}"
                    metadata = {"doc_id": doc_id, "doc_name": title, "publisher": f"konlpy {name}"}
                    article = {"passage": passage, "metadata": metadata}
                    text = json.dumps(article, ensure_ascii=False, indent=1)
                    (folder / f"{doc_id}.json").write_text(text, encoding="utf-8")
                    passage, part, count = "", part + 1, count + 1
    return count


def say(stage: int, what: str) -> None:
    print(f"\n\033[1m[{stage}/4] {what}\033[0m" if sys.stdout.isatty() else f"\n[{stage}/4] {what}", flush=True)


def run(*command: str | Path) -> None:
    """Run one command of the project as a user would; its failure is the demo's."""
    words = [str(word) for word in command]
    shown = [os.path.relpath(w, ROOT) if w.startswith(str(ROOT)) else w for w in words]
    print("$", shlex.join([Path(shown[0]).name, *shown[1:]]), flush=True)
    code = subprocess.run([str(BIN / words[0]), *words[1:]], cwd=ROOT).returncode
    if code:
        sys.exit(f"demo: the command above ended with exit code {code}.")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main() -> None:
    demo = tyro.cli(Demo)
    folder = demo.folder.resolve()
    articles, corpus, out = folder / "articles", folder / "corpus", folder / "run"
    start = time.monotonic()

    say(1, f"Korean articles, as AI Hub delivers them -> {articles}")
    print(f"{write_articles(articles)} JSON files")

    say(2, f"Kkma on every core (Ray), a WordPiece vocabulary, the token corpus -> {corpus}")
    run("python", ROOT / "preprocess/run.py", "--input", articles, "--output", corpus, "--vocab-size", "2000",
        "--val-fraction", "0.05")  # fmt: skip

    ranks, where = [], f"{torch.cuda.device_count()} GPU"
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # keeps DeepSpeed from warning that it found nothing better
        ranks, where = ["--num_accelerators", "2"], "2 CPU ranks"
    say(3, f"a small GPT, trained with DeepSpeed ZeRO on {where} -> {out}")
    run("deepspeed", "-q", *ranks, "--master_port", str(free_port()), ROOT / "launch/train.py", "--corpus", corpus,
        "--out", out, "--deepspeed-config", ROOT / "launch/ds_demo.json", "--preset", "tiny", "--dropout", "0.1",
        "--steps", str(demo.steps))  # fmt: skip

    say(4, "what it writes")
    run("kogpt", "generate", out, *PROMPTS, "--max-new-tokens", "60", "--temperature", "0.7")

    print(f"Done in {time.monotonic() - start:.0f} s. The loss curve: {out / 'curves.png'}")


if __name__ == "__main__":
    main()
