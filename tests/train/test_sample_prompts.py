"""Sample prompts: encoded in a separate process, continued by the model, and skipped with a warning if that fails."""

from pathlib import Path

import pytest
import torch

from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.tokenizer.codec import TextCodec
from kogpt.train import sample_prompts


def test_encode_and_continue(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = corpus / "tokenizer"
    codec = TextCodec(folder)
    texts, others = ["대한민국은", "모든 국민은"], ["국회는", "대통령은"]
    encoded, tokens = sample_prompts.encode(folder, texts, texts=others)
    assert encoded == [[codec.tokenizer.cls_id, *codec.encode(text)] for text in texts]
    assert tokens == [codec.encode(text) for text in others]
    assert caplog.messages == []

    torch.manual_seed(0)
    model = GPT(GPTConfig(codec.tokenizer.vocab_size, max_seq_len=64, n_layer=1, n_head=1, n_embd=16)).eval()
    once, again = (sample_prompts.continue_prompts(model, folder, encoded) for _ in range(2))
    assert once == again
    assert all(once)
    # Continued by hand: the token that scores highest, appended 40 times.
    for prompt, text, continuation in zip(encoded, texts, once, strict=True):
        row = list(prompt)
        while len(row) < len(prompt) + 40 and row[-1] != codec.tokenizer.sep_id:
            row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
        assert text + continuation == codec.decode(row)


def test_a_folder_that_is_no_tokenizer_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert sample_prompts.encode(tmp_path, ["가"], texts=["나"]) == ([], [])
    (said,) = caplog.messages
    assert "without prompts and tasks" in said
