"""Files of version 0.1 still open: a corpus, its cache, a run, and an export (tests/fixtures/version-0.1).

They were made by version 0.1 with

    preprocess/run.py --input articles.jsonl --train-tokenizer 300 --val-fraction 0.2 --workers 1
    launch/train.py --deepspeed-config ds_config.json --stride 16 --save-every 6 --eval-every 6 --prompts \
        --compile off --wandb off --steps 12
    kogpt export RUN EXPORT

The run was then cut back to its checkpoint of step 6, with the metrics of all 12 steps. Do not regenerate these files:
if one of these tests fails, it fails for everybody who has such a folder.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from trainings import launch, losses, records

from kogpt.checkpoint.load import load_for_inference
from kogpt.data.corpus import TokenCorpus
from kogpt.hub.import_run import import_run
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import open_tokenizer
from preprocess.cluster import connect, leave
from preprocess.options import Options
from preprocess.pipeline import preprocess

OLD = Path(__file__).with_name("fixtures") / "version-0.1"
FINGERPRINT = "f4a68cb67097fa52ad921c32d7b42734d781bc47cacbb235408dd97dc6c83343"
METRICS = {
    *("step", "loss", "lr", "grad_norm", "loss_scale", "skipped_steps", "epoch", "tokens", "tokens_per_s"),
    *("chars_per_s", "step_s", "data_wait", "mfu", "memory_gib_rank0", "val_loss", "val_bits_per_char"),
}
OTHER_CPU = 2e-5
"""How far a loss may be from the one that version 0.1 saw: fp32 sums in another order, over six steps."""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, trained from step 6 to 12 by the command that made it."""
    folder = tmp_path_factory.mktemp("version-0.1")
    run = folder / "run"
    shutil.copytree(OLD / "run", run)
    arguments = ["--corpus", str(OLD / "corpus"), "--out", str(run), "--deepspeed-config", str(OLD / "ds_config.json")]
    arguments += ["--stride", "16", "--save-every", "6", "--eval-every", "6", "--prompts", "--compile", "off"]
    with launch([*arguments, "--wandb", "off", "--steps", "12"], folder / "log", world=1, command=False) as job:
        assert job.wait() == [0], job.said
    return run


def test_the_corpus_verifies_and_reads() -> None:
    corpus = TokenCorpus.open(OLD / "corpus")
    assert corpus.fingerprint == FINGERPRINT
    assert corpus.verify() == []
    decode = open_tokenizer(corpus.tokenizer_folder).decode
    texts = [json.loads(line)["text"] for line in (OLD / "articles.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = list(dict.fromkeys(normalize(text)[0] for text in texts if text.strip()))
    assert [decode(corpus.article(i)) for i in range(len(corpus))] == expected
    assert len(expected) == 12


@pytest.fixture
def local_ray() -> Iterator[None]:
    connect("local", 1)
    yield
    leave()


@pytest.mark.usefixtures("local_ray")
def test_the_cache_saves_the_analysis_and_the_corpus_has_the_same_tokens(tmp_path: Path) -> None:
    cache = shutil.copytree(OLD / "cache", tmp_path / "cache")
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    articles = str(OLD / "articles.jsonl")
    output = str(tmp_path / "corpus")
    options = Options(input=(articles,), output=output, cache=str(cache), workers=1, vocab_size=300, val_fraction=0.2)
    preprocess(options)
    new, old = TokenCorpus.open(output), TokenCorpus.open(OLD / "corpus")
    assert new.shard(0).tolist() == old.shard(0).tolist()
    assert new.articles.equals(old.articles)
    vocabularies = [open_tokenizer(corpus.tokenizer_folder).vocab for corpus in (new, old)]
    assert vocabularies[0] == [*vocabularies[1], *ROLE_PIECES]
    after = {path.name: path.stat().st_mtime_ns for path in cache.iterdir() if not path.name.startswith(".")}
    assert after == before, "articles were analysed again"


def test_the_run_goes_on_with_the_losses_that_it_had(resumed: Path) -> None:
    assert [record["step"] for record in records(resumed)] == list(range(1, 13))
    assert losses(resumed)[:6] == losses(OLD / "run")[:6]
    assert losses(resumed)[6:] == pytest.approx(losses(OLD / "run")[6:], abs=OTHER_CPU)
    for name in ("val_loss", "val_bits_per_char"):
        last = [records(run)[-1][name] for run in (resumed, OLD / "run")]
        assert last[0] == pytest.approx(last[1], abs=OTHER_CPU)
    assert all(record.keys() >= METRICS for record in records(resumed))


@pytest.mark.parametrize("step", [6, 12])
def test_it_evaluates_to_the_number_of_its_training(step: int, resumed: Path, kogpt: Callable, tmp_path: Path) -> None:
    written = tmp_path / "numbers.json"
    checkpoint = resumed / "checkpoints" / f"step-{step:08d}"
    done = kogpt("evaluate", checkpoint, "--corpus", OLD / "corpus", "--json-file", written)
    assert done.returncode == 0, done.stderr
    [scores] = json.loads(written.read_text())["bits_per_char"].values()
    assert scores["bits_per_char"] == pytest.approx(records(OLD / "run")[step - 1]["val_bits_per_char"], abs=OTHER_CPU)


def test_it_generates(kogpt: Callable) -> None:
    done = kogpt("generate", OLD / "run", "등대는", "--max-new-tokens", "5", "--greedy", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("등대는")
    assert len(done.stdout.strip()) > len("등대는")


def test_the_export_loads_with_transformers_and_is_the_run(resumed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, report = AutoModelForCausalLM.from_pretrained(OLD / "export", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert AutoTokenizer.from_pretrained(OLD / "export").bos_token == "[CLS]"
    ours = load_for_inference(resumed / "checkpoints" / "step-00000012").model
    ids = torch.arange(64).reshape(2, 32)
    with torch.no_grad():
        assert (ours(ids) - model.eval()(ids).logits).abs().max() < OTHER_CPU


def test_the_export_is_imported(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    import_run(OLD / "export", tmp_path / "run", OLD / "corpus")
    ours = load_for_inference(tmp_path / "run").model
    ids = torch.arange(64).reshape(2, 32)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(OLD / "export").eval()(ids).logits
        assert (ours(ids) - expected).abs().max() < 1e-5
