"""The Python API (`kogpt.load`), as the README and docs/python.md describe it."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import kogpt
from kogpt.common.errors import UserError
from kogpt.generate.sampling import Sampling
from kogpt.generate.stream import generate_text
from kogpt.model.decoder import Decoder
from kogpt.model.packed import packed

ROOT = Path(__file__).resolve().parents[1]


def test_load_generates_encodes_and_decodes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packings = []

    def pack(module: Decoder) -> Decoder:
        packings.append(module)
        return packed(module)

    monkeypatch.setattr("kogpt.generate.model.packed", pack)
    model = kogpt.load(run, device="cpu")
    text = "모든 국민은 법 앞에 평등하다."
    assert model.decode(model.encode(text)) == text
    settings: dict[str, Any] = {"max_new_tokens": 12, "top_k": 5, "seed": 3}
    prompts = ["대한민국은", "이 법은"]
    both = model.generate(prompts, **settings)
    expected = list(prompts)
    for piece in generate_text(run, prompts, Sampling(**settings), device="cpu"):
        expected[piece.prompt] += piece.text
    assert both == expected
    assert model.generate(prompts[0], **settings) == both[0]
    assert len(packings) == 1
    assert model.module.config == model.config
    assert "gpt2" in repr(model)


def test_mistakes_are_user_errors(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable checkpoint"):
        kogpt.load(tmp_path)
    with pytest.raises(UserError, match="--device foo is not a device"):
        kogpt.load(run, device="foo")
    with pytest.raises(UserError, match="--temperature"):
        kogpt.load(run, device="cpu").generate("가", temperature=0)


def test_the_version_is_stated_once_and_importing_is_light() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "kogpt.__version__"}
    code = "import sys, kogpt; print(kogpt.__version__, 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said.split() == [kogpt.__version__, "False"]
