"""The demo: from Korean articles to text written by a GPT that was trained on this machine.

Each stage prints the command that a user would type, and runs it from the project's folder. The articles are the texts
in konlpy (the constitution and ten bills of the National Assembly), written as JSON files like those of AI Hub. Stages
that are already done are skipped when the demo runs again.
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

from kogpt.common.errors import UserError, exit_on_user_error
from kogpt.common.flags import NewFolder
from kogpt.common.ranges import Count, problems

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PROMPTS = ("대한민국의 모든 국민은", "국회는", "이 법은 공포한 날부터")


@dataclass(frozen=True)
class Demo:
    """Build a corpus from the texts in konlpy, train a small GPT on it, and generate text."""

    folder: NewFolder = ROOT / "demo"
    """Output folder for articles/, corpus/, and run/."""
    steps: Count = 500
    """Length of the training in optimizer steps."""

    def __post_init__(self) -> None:
        if found := problems(Demo, vars(self)):
            raise UserError("\n".join(found))


def write_articles(folder: Path, at_least: int = 600) -> int:
    """Write konlpy's texts as AI Hub book articles of at least `at_least` characters, split at blank lines."""
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
    """Print and run one command; if it fails, the demo fails."""
    words = [str(word) for word in command]
    shown = [os.path.relpath(w, ROOT) if w.startswith(str(ROOT)) else w for w in words]
    print("$", shlex.join([Path(shown[0]).name, *shown[1:]]), flush=True)
    # Call the interpreter, because a script's first line fails if the project's path contains a space.
    script = [] if words[0] == "python" else [str(BIN / words[0])]
    code = subprocess.run([sys.executable, *script, *words[1:]], cwd=ROOT).returncode
    if code:
        sys.exit(f"demo: the command above failed with exit status {code}.")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def deepspeed_file(folder: Path, ranks: int) -> Path:
    """The DeepSpeed file for so many ranks: the demo's own, or a copy with the next larger batch that divides."""
    path = ROOT / "launch/ds_demo.json"
    content = json.loads(path.read_text())
    batch = -(-content["train_batch_size"] // ranks) * ranks
    if batch == content["train_batch_size"]:
        return path
    fitted = folder / f"ds_demo_{ranks}_ranks.json"
    fitted.write_text(json.dumps(content | {"train_batch_size": batch}, indent=2) + "\n")
    return fitted


def main() -> None:
    with exit_on_user_error():
        demo = tyro.cli(Demo)
    folder = demo.folder.resolve()
    articles, corpus, out = folder / "articles", folder / "corpus", folder / "run"
    start = time.monotonic()

    say(1, f"write Korean articles in the format of AI Hub -> {articles}")
    print(f"{write_articles(articles)} JSON files")

    say(2, f"analyze them with Kkma on every core (Ray), train a vocabulary, write the token corpus -> {corpus}")
    run("python", ROOT / "preprocess/run.py", "--input", articles, "--output", corpus, "--vocab-size", "2000",
        "--val-fraction", "0.05")  # fmt: skip

    words, ranks, where = [], torch.cuda.device_count(), "GPU"
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # keeps DeepSpeed from warning that it found nothing better
        words, ranks, where = ["--num_accelerators", "2"], 2, "CPU ranks"
    say(3, f"train a small GPT with DeepSpeed ZeRO on {ranks} {where} -> {out}")
    run("deepspeed", "-q", *words, "--master_port", str(free_port()), ROOT / "launch/train.py", "--corpus", corpus,
        "--out", out, "--deepspeed-config", deepspeed_file(folder, ranks), "--preset", "tiny", "--dropout", "0.1",
        "--steps", str(demo.steps))  # fmt: skip

    say(4, "generate text")
    run("kogpt", "generate", out, *PROMPTS, "--max-new-tokens", "60", "--temperature", "0.7")

    print(f"Done in {time.monotonic() - start:.0f} s. The loss curve: {out / 'curves.png'}")


if __name__ == "__main__":
    main()
