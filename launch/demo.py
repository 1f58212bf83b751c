"""The demo: from Korean texts to a small model that answers, trained on this machine.

It runs the commands that a user would type, and prints each of them. What they would start twice starts once: Ray, to
which both runs of the preprocessing connect, and the ranks of both trainings (launch/demo_ranks.py). What does not need
the processors of a training runs beside it: the conversations are preprocessed during the first one, and texts are
generated during the second. Stages that are already done are skipped when the demo runs again.

The articles are the texts in konlpy (the constitution and ten bills of the National Assembly), written as JSON files
like those of AI Hub. The conversations are the project's own (launch/demo_chats.jsonl).
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from kogpt.common.errors import UserError, exit_on_user_error
from kogpt.common.flags import NewFolder
from kogpt.common.ports import free_port
from kogpt.common.ranges import Count, problems

START = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CHATS = ROOT / "launch/demo_chats.jsonl"
RANKS = ROOT / "launch/demo_ranks.py"
DEEPSPEED, DEEPSPEED_CHAT = ROOT / "launch/ds_demo.json", ROOT / "launch/ds_demo_chat.json"
"""The second one has half the learning rates: with the first, the fine-tuning learns its conversations by heart."""
CHAT_STEPS = 0.2
"""Steps of the fine-tuning as a share of those of the training."""
PROMPTS = ("대한민국의 모든 국민은", "국회는", "이 법은 공포한 날부터")
QUESTIONS = ("우리나라의 수도는 어디야?", "국회는 어떤 일을 해?", "대통령의 임기는 몇 년이야?")
"""None of them is in launch/demo_chats.jsonl in these words."""
FORGET = "/clear"
FORGOTTEN = "A new conversation.\n"
"""What `kogpt chat` says to it."""


@dataclass(frozen=True)
class Demo:
    """Build a corpus from the texts in konlpy, train a small GPT on it, and teach it to answer."""

    folder: NewFolder = ROOT / "demo"
    """Output folder for articles/, corpus/, run/, chat-corpus/, and chat/."""
    steps: Count = 240
    """Length of the training in optimizer steps."""

    def __post_init__(self) -> None:
        if found := problems(Demo, vars(self)):
            raise UserError("\n".join(found))


def passages(text: str, at_least: int = 400) -> Iterator[str]:
    """The text in parts of at least so many characters, without empty lines and runs of spaces."""
    passage = ""
    for line in text.splitlines():
        if words := " ".join(line.split()):
            passage += f"\n{words}" if passage else words
        if len(passage) >= at_least:
            yield passage
            passage = ""
    if passage:
        yield passage


def write_articles(folder: Path) -> int:
    """Write konlpy's texts as AI Hub book articles; their number."""
    if os.path.expanduser("~") == "~":  # no HOME, and a user without a name: konlpy cannot be imported then
        os.environ["HOME"] = "/"
    from konlpy.corpus import kobill, kolaw

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, corpus in (("kolaw", kolaw), ("kobill", kobill)):
        for file in sorted(corpus.fileids()):
            text = corpus.open(file).read().strip()
            for part, passage in enumerate(passages(text)):
                doc_id = f"{name}-{Path(file).stem}-{part:03d}"
                metadata = {"doc_id": doc_id, "doc_name": text.split("\n")[0], "publisher": f"konlpy {name}"}
                content = json.dumps({"passage": passage, "metadata": metadata}, ensure_ascii=False, indent=1)
                (folder / f"{doc_id}.json").write_text(content, encoding="utf-8")
                count += 1
    return count


def say(stage: int, what: str) -> None:
    line = f"[{stage}/5] {what} (after {time.monotonic() - START:.0f} s)"
    print(f"\n\033[1m{line}\033[0m" if sys.stdout.isatty() else f"\n{line}", flush=True)


def show(*command: str | Path) -> list[str]:
    """Print a command as a user types it; its words."""
    words = [str(word) for word in command]
    shown = [os.path.relpath(word, ROOT) if word.startswith(str(ROOT)) else word for word in words]
    print("$", shlex.join([Path(shown[0]).name, *shown[1:]]), flush=True)
    return words


def program(*command: str | Path) -> list[str]:
    """Print a command as a user types it; the words that start it."""
    name, *words = show(*command)
    # Call the interpreter, because a script's first line fails if the project's path contains a space.
    return [sys.executable, *([] if name == "python" else [str(BIN / name)]), *words]


def check(code: int) -> None:
    """If a command failed, the demo fails."""
    if code:
        sys.exit(f"demo: a command above failed with exit status {code}.")


def run(*command: str | Path) -> None:
    """Run a command, and show what it says."""
    check(subprocess.run(program(*command), cwd=ROOT).returncode)


@contextmanager
def beside(*command: str | Path) -> Iterator[None]:
    """Run a command during the block, on one thread because the processors are busy; then show what it said."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        one = os.environ | {"OMP_NUM_THREADS": "1"}
        job = subprocess.Popen(program(*command), cwd=ROOT, env=one, stdout=said, stderr=subprocess.STDOUT)
        try:
            yield
            job.wait()
        finally:
            job.terminate()  # if the block failed
            job.wait()
        said.seek(0)
        print(said.read(), flush=True)
        check(job.returncode)


@contextmanager
def one_ray() -> Iterator[None]:
    """Start Ray for all commands of the block, unless the user names a cluster, which they find themselves."""
    if os.environ.get("RAY_ADDRESS"):
        yield
        return
    import ray

    from preprocess import cluster

    cluster.connect(None, None)
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        cluster.leave()


@contextmanager
def ranks_of(*flags: str) -> Iterator[Callable[..., None]]:
    """Start ranks with these flags of `deepspeed`; in the block, the function has them train, and waits for it."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, str(BIN / "deepspeed"), *flags, "--master_port", str(free_port()), str(RANKS)]
    with theirs:
        job = subprocess.Popen(command, cwd=ROOT, stdin=theirs.fileno())
    try:
        with ours, ours.makefile() as answers:

            def train(*words: str | Path) -> None:
                said = json.dumps(show("deepspeed", *flags, ROOT / "launch/train.py", *words)[len(flags) + 2 :])
                with suppress(BrokenPipeError):  # the ranks have died, and said why
                    ours.sendall(f"{said}\n".encode())
                answer = answers.readline()
                check(int(answer) if answer else job.wait() or 1)

            yield train
    finally:
        job.wait()


def deepspeed_file(path: Path, folder: Path, ranks: int) -> Path:
    """The DeepSpeed file for so many ranks: this one, or a copy with the next larger batch that divides."""
    content = json.loads(path.read_text())
    batch = -(-content["train_batch_size"] // ranks) * ranks
    if batch == content["train_batch_size"]:
        return path
    fitted = folder / f"{path.stem}_{ranks}_ranks.json"
    fitted.write_text(json.dumps(content | {"train_batch_size": batch}, indent=2) + "\n")
    return fitted


def ask(chat: Path) -> None:
    """Ask each question in a conversation of its own, and show the answers."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as questions:
        questions.write(f"\n{FORGET}\n".join(QUESTIONS) + "\n")
        questions.seek(0)
        command = program("kogpt", "chat", chat, "--greedy", "--max-new-tokens", "60")
        done = subprocess.run(command, cwd=ROOT, stdin=questions, stdout=subprocess.PIPE, encoding="utf-8")
    check(done.returncode)
    for question, answer in zip(QUESTIONS, done.stdout.split(FORGOTTEN), strict=True):
        print(f"\n>>> {question}\n{answer.strip()}")


def main() -> None:
    os.environ["PYTHONUTF8"] = "1"  # the commands read and write Korean in any locale
    with exit_on_user_error():
        demo = tyro.cli(Demo)
    folder = demo.folder.resolve()
    articles, corpus, out = folder / "articles", folder / "corpus", folder / "run"
    chat_corpus, chat = folder / "chat-corpus", folder / "chat"

    say(1, f"write Korean articles in the format of AI Hub -> {articles}")
    print(f"{write_articles(articles)} JSON files")

    flags, ranks, where = ["-q"], torch.cuda.device_count(), "GPU"
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"  # keeps DeepSpeed from warning that it found nothing better
        flags, ranks, where = ["-q", "--num_accelerators", "2"], 2, "CPU ranks"
    preprocess = ("python", ROOT / "preprocess/run.py")

    say(2, f"analyze them with Kkma on every core (Ray), train a vocabulary, write the token corpus -> {corpus}")
    with exit_on_user_error(), ExitStack() as ray, ranks_of(*flags) as start:

        def train(target: Path, file: Path, steps: int, *more: str | Path) -> None:
            """Without prompts, for which each training would start a JVM: texts and answers come at the end."""
            every = str(max(1, steps // 6))
            start("--out", target, "--deepspeed-config", deepspeed_file(file, folder, ranks), "--steps", str(steps),
                  "--eval-every", every, "--save-every", every, "--dropout", "0.2", "--prompts", *more)  # fmt: skip

        ray.enter_context(one_ray())
        run(*preprocess, "--input", articles, "--output", corpus, "--vocab-size", "2000", "--val-fraction", "0.06")

        say(3, f"train a small GPT with DeepSpeed ZeRO on {ranks} {where}, and preprocess conversations -> {out}")
        with beside(*preprocess, "--input", CHATS, "--output", chat_corpus, "--layout", "chat", "--tokenizer", corpus,
                    "--val-fraction", "0.1", "--workers", "1"):  # fmt: skip
            train(out, DEEPSPEED, demo.steps, "--corpus", corpus, "--arch", "qwen3", "--depth", "3")
        ray.close()

        say(4, f"teach it to answer, and generate text beside it -> {chat}")
        with beside("kogpt", "generate", out, *PROMPTS, "--max-new-tokens", "40", "--temperature", "0.7", "--top-p",
                    "0.9"):  # fmt: skip
            train(chat, DEEPSPEED_CHAT, max(1, round(demo.steps * CHAT_STEPS)), "--corpus", chat_corpus, "--init", out)

    say(5, "ask it")
    ask(chat)

    print(f"\nDone in {time.monotonic() - START:.0f} s. The loss curves: {out / 'curves.png'}, {chat / 'curves.png'}")
    here = shlex.quote(os.path.relpath(chat))
    print(f"""
Next:
  .venv/bin/kogpt serve {here}    # then open http://127.0.0.1:8000 in a browser
  .venv/bin/kogpt chat {here}     # the same in the terminal
  .venv/bin/python preprocess/run.py --input YOUR_ARTICLES --output corpus    # your own texts: README.md""")


if __name__ == "__main__":
    main()
