"""A small input and its corpus from an undisturbed run, for all tests of the pipeline."""

import json
import random

import pytest
from pipelines import COUNT, checksums

from preprocess.options import Options
from preprocess.pipeline import preprocess


@pytest.fixture(scope="session")
def texts() -> list[str]:
    rng = random.Random(0)
    syllables = [chr(code) for code in range(0xAC00, 0xAC00 + 11172, 97)]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(500)]
    texts = [" ".join(rng.choices(words, k=rng.randint(5, 120))) for _ in range(COUNT)]
    texts[7] += " 🙂👨‍👩‍👧 漢字 ᄒᆞᆫ\n\n\u3000끝  "
    return texts


@pytest.fixture(scope="session")
def options(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A small input with everything that is dropped, and a vocabulary that covers some of it."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "articles").mkdir()
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (folder / "articles" / "a.jsonl").write_text("\n".join([*lines, lines[0], '{"text": ""}', '{"x": 1}']))
    (folder / "articles" / "b.json").write_text('{"text"')
    (folder / "bert").mkdir()
    characters = sorted(set("".join(texts)) - set(" \n\u3000🙂漢"))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (folder / "bert" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return Options(
        input=(str(folder / "articles"),),
        output=str(folder / "corpus"),
        tokenizer=str(folder / "bert"),
        analyzer="none",
        layout="plain",
        workers=2,
    )


@pytest.fixture(scope="session")
def undisturbed(options: Options) -> dict[str, str]:
    """The bytes of a run that nothing happened to."""
    preprocess(options)
    return checksums(options)
