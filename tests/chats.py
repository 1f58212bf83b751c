"""A run that has learnt a few conversations by heart, for tests of what answers: `taught(folder, tokenizer)`.

Its greedy answers are those of ANSWERS, character by character.
"""

from pathlib import Path

import torch
from builders import scattered, shape_of, write_checkpoint

from kogpt.model.loss import IGNORED
from kogpt.tokenizer.chat import Message, render
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import Tokenizer

ANSWERS = {
    "안녕하세요?": "안녕하세요! 만나서 반갑습니다. 무엇이 궁금하세요?",
    "수도는 어디인가요?": "대한민국의 수도는 서울입니다. 서울에는 한강이 흐르고, 남산에 오르면 시내가 보입니다. 🙂",
    "태그를 써 봐.": "<script>document.title='x'</script> [여기](javascript:alert(1)) <img src=x onerror=alert(1)>",
}
STEPS = 400
ENOUGH = 0.01
"""Nats per learnt token: every greedy choice is sure."""


def taught(folder: Path, tokenizer: Tokenizer) -> Path:
    """A run folder with a model of 2 layers, context 256, that was trained on ANSWERS until it knows them."""
    tokenizer.save(folder / "tokenizer")
    codec = TextCodec(folder / "tokenizer")
    rows = []
    for question, answer in ANSWERS.items():
        ids, learnt = render([Message("user", question), Message("assistant", answer)], tokenizer, codec.encode)
        rows.append(([tokenizer.cls_id, *ids], [False, *learnt]))
    length = max(len(ids) for ids, _ in rows)
    tokens = torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rows])
    flags = torch.tensor([learnt + [False] * (length - len(learnt)) for _, learnt in rows])
    targets = tokens.masked_fill(~flags, IGNORED)
    shape = shape_of("gpt2", vocab_size=tokenizer.vocab_size, max_seq_len=256, n_embd=64)
    model = scattered(shape, spread=0.0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        loss = model(tokens[:, :-1], targets[:, 1:]) / flags.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < ENOUGH:
            break
    assert loss < ENOUGH, "it has not learnt its conversations"
    write_checkpoint(folder, model.eval(), 5, kind="conversations")
    return folder
