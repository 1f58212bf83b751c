"""A checkpoint and its codec, loaded side by side: the same as one after the other, and the same errors."""

import shutil
import threading
from pathlib import Path

import pytest

from kogpt.checkpoint.choose import choose
from kogpt.common.errors import UserError
from kogpt.generate.start import load_with_codec
from kogpt.tokenizer import codec as codec_module
from kogpt.tokenizer.analyzers.load import Analyzer, load_analyzer
from kogpt.tokenizer.codec import TextCodec

TEXT = "모든 국민은 법 앞에 평등하다."


def test_the_analyzer_starts_beside_the_weights(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def load(name: str) -> Analyzer:
        threads.append(threading.current_thread())
        return load_analyzer(name)

    monkeypatch.setattr(codec_module, "load_analyzer", load)
    loaded, codec = load_with_codec(run)
    assert codec.encode(TEXT) == TextCodec(loaded.tokenizer_folder).encode(TEXT)
    assert threads[0] is not threading.main_thread()
    assert threads[1:] == [threading.main_thread()], "one for each codec"


def test_a_step_folder_has_the_tokenizer_of_its_run(run: Path) -> None:
    loaded, codec = load_with_codec(choose(run))
    assert loaded.tokenizer_folder == run.resolve() / "tokenizer"
    assert codec.tokenizer.decode(codec.encode(TEXT)) == TEXT


def test_what_fails_in_the_thread_is_raised_by_the_first_text(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Analyzer:
        raise UserError("no analyzer")

    monkeypatch.setattr(codec_module, "load_analyzer", load)
    _, codec = load_with_codec(run)
    with pytest.raises(UserError, match="no analyzer"):
        codec.encode(TEXT)


@pytest.mark.parametrize("wish", ["7000", None], ids=["missing", "damaged"])
def test_no_analyzer_starts_for_a_checkpoint_that_cannot_be_used(
    wish: str | None, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process would wait for it at its end."""
    started: list[str] = []
    monkeypatch.setattr(codec_module, "load_analyzer", started.append)
    copy = shutil.copytree(run, tmp_path / "run")
    for weights in copy.rglob("model*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match="no checkpoint of this step" if wish else "holds no usable checkpoint"):
        load_with_codec(copy, checkpoint=wish)
    assert not started


def test_what_is_wrong_with_the_checkpoint_is_said_first(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no usable checkpoint"):
        load_with_codec(tmp_path)
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "tokenizer" / "kogpt.json").write_text("{")
    with pytest.raises(UserError, match="damaged tokenizer"):
        load_with_codec(copy)
