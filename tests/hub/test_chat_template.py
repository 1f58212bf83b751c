"""The chat template of an export: what it renders is what kogpt trains on, and its mask is what kogpt learns."""

import random
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from builders import constitution, conversations, encode_with, make_run, make_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kogpt.hub.chat_template import chat_template, llama_chat_template
from kogpt.hub.export import export_model
from kogpt.tokenizer.analyzers.load import analyzer_identity, load_analyzer
from kogpt.tokenizer.chat import Message, render
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import SPACINGS, Tokenizer, train_tokenizer

CONTROLS = [*map(chr, {*range(0x20), *range(0x7F, 0xA0)} - {9, 10, 13})]
LITERALS = [*ROLE_PIECES, "[CLS]", "[SEP]", "[PAD]", "[[END]END]", "[LF]", "[SP]", "##", "## 제목", "###"]


def covered(spacing: str = "original", analyzer: dict[str, str] | None = None) -> Tokenizer:
    """A vocabulary that has every character of the texts below, trained on whole eojeols whatever the analyzer."""
    said = [message.content for talk in conversations() for message in talk]
    texts = [*constitution(), *said, " ".join("".join([*LITERALS, *said]))] * 9
    analyzed = [(text, load_analyzer("none").analyze(text)) for text in texts]
    return train_tokenizer(analyzed, 3000, spacing=spacing, analyzer=analyzer or {"name": "none"})


def loaded(tokenizer: Tokenizer, folder: Path) -> PreTrainedTokenizerFast:
    tokenizer.save(folder)
    library = AutoTokenizer.from_pretrained(folder)
    library.chat_template = chat_template(tokenizer.spacing)
    return library


def theirs(library: PreTrainedTokenizerFast, said: Sequence[Message], **more: Any) -> tuple[list[int], list[bool]]:
    messages = [message._asdict() for message in said]
    out = library.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True, **more)
    return out["input_ids"], [bool(flag) for flag in out["assistant_masks"]]


def ours(tokenizer: Tokenizer, said: Sequence[Message]) -> tuple[list[int], list[bool]]:
    ids, learnt = render(said, tokenizer, partial(encode_with, tokenizer))
    return [tokenizer.cls_id, *ids], [False, *learnt]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_1000_random_conversations(spacing: str, tmp_path: Path) -> None:
    """Token by token, with literal role tokens, control characters, runs of spaces, and line breaks in the messages."""
    tokenizer = covered(spacing)
    library = loaded(tokenizer, tmp_path)
    generator = random.Random(0)
    words = [*re.findall(r"[가-힣]+[.,]?", " ".join(constitution())), *LITERALS * 40, *CONTROLS * 5]
    if spacing == "original":  # the other loses more than line breaks
        words += ["뷁", "가뷁나", "\t", "é👍", "e\u0301"]

    def text() -> str:
        gaps = [generator.choice([" ", " ", " ", "  ", "\n", "\n\n", " \n", "\n  "]) for _ in range(8)]
        chosen = generator.choices(words, k=generator.randint(1, 8))
        return "".join(word + gap for word, gap in zip(chosen, gaps, strict=False))

    for _ in range(1000):
        said = [Message("system", text())] if generator.random() < 0.3 else []
        for _ in range(generator.randint(1, 3)):
            said += [Message("user", text()), Message("assistant", text())]
        expected = ours(tokenizer, said)
        assert theirs(library, said) == expected, said


def test_control_characters_around_a_message_are_no_part_of_it(tmp_path: Path) -> None:
    tokenizer = covered()
    library = loaded(tokenizer, tmp_path)
    for character in CONTROLS:
        said = [Message("user", f"국가 \r\n{character}\r\n"), Message("assistant", f"{character} 국민")]
        clean = [Message("user", "국가"), Message("assistant", "국민")]
        assert theirs(library, said) == ours(tokenizer, said) == ours(tokenizer, clean), repr(character)


def test_format_characters_keep_the_mask_where_the_spacing_drops_them(tmp_path: Path) -> None:
    tokenizer = covered("morphemes")
    library = loaded(tokenizer, tmp_path)
    for character in "\u200b\ufeff\u00ad\U000e0041":
        said = [Message("user", f"{character}국가"), Message("assistant", f"{character} 국{character}민")]
        assert theirs(library, said) == ours(tokenizer, said), repr(character)
        assert any(ours(tokenizer, said)[1])


def test_a_prompt_ends_with_the_role_of_the_answer(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(constitution(), 400)
    library = loaded(tokenizer, tmp_path)
    assert tokenizer.roles is not None
    ids, _ = theirs(library, [Message("user", "국민")], add_generation_prompt=True)
    assert ids == [*ours(tokenizer, [Message("user", "국민")])[0], tokenizer.roles["assistant"]]
    with pytest.raises(Exception, match="role tool is unknown"):
        theirs(library, [Message("tool", "국민")])


def test_llama_cpp_gets_the_words_alone(tmp_path: Path) -> None:
    library = loaded(make_tokenizer(constitution(), 400), tmp_path)
    library.chat_template = llama_chat_template()
    said = [Message("user", " 국민  은?\n"), Message("assistant", "## [END] 국민")]
    text = library.apply_chat_template([message._asdict() for message in said], tokenize=False)
    assert text == "[USER]국민  은?[END][ASSISTANT]## [ END] 국민[END]"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TextCodec]:
    """(export of a run that was trained on conversations, its codec)."""
    folder = tmp_path_factory.mktemp("tuned")
    make_run(folder / "run", covered(), kind="conversations")
    export_model(folder / "run", folder / "export")
    return folder / "export", TextCodec(folder / "run" / "tokenizer")


def test_the_export_stops_at_the_end_of_an_answer(tuned: tuple[Path, TextCodec], run: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    folder, codec = tuned
    ends = [codec.tokenizer.end_id, codec.tokenizer.sep_id]
    assert GenerationConfig.from_pretrained(folder).eos_token_id == ends
    assert AutoConfig.from_pretrained(folder).eos_token_id == ends[0]
    assert AutoTokenizer.from_pretrained(folder).eos_token == "[END]"
    said = conversations()[0]
    assert theirs(AutoTokenizer.from_pretrained(folder), said) == ours(codec.tokenizer, said)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "answers in Korean conversations" in card
    assert "It neutralizes special tokens in messages" in card
    export_model(run, tmp_path / "base")
    assert AutoTokenizer.from_pretrained(tmp_path / "base").eos_token == "[SEP]"
    assert "was not fine-tuned on conversations" in (tmp_path / "base" / "README.md").read_text(encoding="utf-8")


# ---- TRL


def trl_labels(folder: Path, talks: Sequence[Sequence[Message]], scratch: Path) -> list[dict[str, list[int]]]:
    """The input_ids and labels that TRL's SFTTrainer makes of conversations, with assistant_only_loss."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        output_dir=str(scratch), assistant_only_loss=True, report_to="none", use_cpu=True, bf16=False, max_length=None
    )
    rows = [{"messages": [message._asdict() for message in talk]} for talk in talks]
    return list(SFTTrainer(str(folder), args=settings, train_dataset=Dataset.from_list(rows)).train_dataset)


@pytest.mark.ecosystem
def test_trl_learns_the_same_tokens(tuned: tuple[Path, TextCodec], tmp_path: Path) -> None:
    folder, codec = tuned
    talks = conversations()
    for talk, row in zip(talks, trl_labels(folder, talks, tmp_path), strict=True):
        ids, learnt = ours(codec.tokenizer, talk)
        assert row["input_ids"] == ids
        assert row["labels"] == [i if own else -100 for i, own in zip(ids, learnt, strict=True)]


@pytest.mark.ecosystem
def test_trl_learns_the_same_characters_of_a_corpus_cut_by_kkma(tmp_path: Path) -> None:
    talks = conversations()[:12]
    make_run(tmp_path / "run", covered(analyzer=analyzer_identity("kkma")), kind="conversations")
    export_model(tmp_path / "run", tmp_path / "export")
    codec = TextCodec(tmp_path / "run" / "tokenizer")
    differ = 0
    for talk, row in zip(talks, trl_labels(tmp_path / "export", talks, tmp_path / "trl"), strict=True):
        ids, learnt = render(talk, codec.tokenizer, codec.encode)
        differ += row["input_ids"][1:] != ids
        expected = codec.decode([i for i, own in zip(ids, learnt, strict=True) if own])
        assert codec.decode([label for label in row["labels"] if label != -100]) == expected
    assert differ, "the analyzer changed no token, so this shows nothing"
