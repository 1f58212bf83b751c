"""Trainings on several corpora: exact on resume, the same at any number of ranks, validated corpus by corpus."""

from pathlib import Path

import pytest
from builders import bills, encoded, write_corpus
from trainings import Plan, copy_as_of, deepspeed_file, flags, losses, records, together

from kogpt.tokenizer.wordpiece import Tokenizer


@pytest.fixture(scope="module")
def other(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture") / "bills"
    return write_corpus(folder, tokenizer, encoded(tokenizer, bills()[:4], "kobill"), val_fraction=0.3)


def test_a_mixture_resumes_exactly_at_any_number_of_ranks(corpus: Path, other: Path, tmp_path: Path) -> None:
    config = deepspeed_file(tmp_path / "ds.json", 2)

    def plan(run: Path, *more: str) -> Plan:
        line = flags(corpus, run, config, 12, "--save-every", "6", "--eval-every", "6", *more)
        line[line.index(str(corpus))] = f"{corpus}=0.7"
        return Plan([*line[: line.index("--out")], f"{other}=0.3", *line[line.index("--out") :]])

    whole, replayed = tmp_path / "whole", tmp_path / "replayed"
    mix = Plan(flags(corpus, replayed, config, 6, "--mix", f"{other}=0.25"))
    assert together(2, [plan(whole), mix], tmp_path / "a") == [0, 0]
    again, alone = (copy_as_of(whole, 6, tmp_path / name) for name in ("again", "alone"))
    assert together(2, [plan(again)], tmp_path / "b") == [0]
    assert together(1, [plan(alone)], tmp_path / "c") == [0]
    assert losses(again) == losses(whole)
    assert losses(alone) == pytest.approx(losses(whole), abs=1e-5)

    last = records(whole)[-1]
    own = last["val_bits_per_char/corpus"], last["val_bits_per_char/bills"]
    assert last["val_bits_per_char"] == pytest.approx(0.7 * own[0] + 0.3 * own[1])
    last = records(replayed)[-1]
    assert last["val_bits_per_char"] == last["val_bits_per_char/corpus"] != last["val_bits_per_char/bills"]

    other_data = [Plan(flags(corpus, again, config, 13)), plan(again, "--max-repeat", "2")]
    for refused in together(1, other_data, tmp_path / "d"):
        assert "--corpus (its fingerprint)" in refused
