"""The text of an answer that may be sent, token by token."""

from hypothesis import example, given
from hypothesis import strategies as st

from kogpt.generate.engine import Step
from kogpt.serve.answer import Answer, Piece
from kogpt.tokenizer.wordpiece import StreamDecoder, Tokenizer

TEXTS = ["법 앞에", "나라", "\n", " ", "😀", "가각", "[END]", "ab", "aab", "<script>"]


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    from kogpt.tokenizer.analyzers.load import load_analyzer

    return tokenizer.encode(text, load_analyzer("none").analyze(text))


def answered(tokenizer: Tokenizer, ids: list[int], stops: list[str]) -> tuple[list[Piece], Answer]:
    answer = Answer(tokenizer, stops=stops, with_tokens=True)
    pieces = []
    for id in ids:
        pieces.append(answer.push(Step(id, -0.5, ((id, -0.5),))))
        if answer.stopped:
            break
    return [*pieces, answer.flush()], answer


@given(
    parts=st.lists(st.sampled_from(TEXTS), max_size=12),
    stops=st.lists(st.sampled_from(["aab", "ab", "법", " 앞", "각\n", "😀", "없음", "ba"]), max_size=3),
)
@example(parts=["aab"], stops=["ab", "b"])
@example(parts=["😀"], stops=["😀"])
def test_the_text_ends_before_the_first_stop_string(tokenizer: Tokenizer, parts: list[str], stops: list[str]) -> None:
    ids = ids_of(tokenizer, "".join(parts))
    whole = tokenizer.decode(ids)
    pieces, answer = answered(tokenizer, ids, stops)
    text = "".join(piece.text for piece in pieces)
    found = [whole.index(stop) for stop in stops if stop in whole]
    if answer.stopped:
        # the first in time: the stop string whose last character came first
        assert any(whole.startswith(stop, len(text)) for stop in stops)
        assert whole.startswith(text)
        assert not [stop for stop in stops if stop in text]
    else:
        assert not found
        assert text == whole
    tokens = [token for piece in pieces for token in piece.tokens]
    joined = b"".join(token.text for token in tokens)
    assert joined.startswith(text.encode())
    if not answer.stopped:
        assert joined == text.encode()
        assert len(tokens) == len(ids) == answer.count


@given(values=st.lists(st.integers(0, 255), max_size=20))
def test_bytes_that_are_no_text_are_left_out(tokenizer: Tokenizer, values: list[int]) -> None:
    ids = [tokenizer.vocab.index(f"<0x{value:02X}>") for value in values]
    pieces, _ = answered(tokenizer, ids, ["\x00\x00"])
    text = "".join(piece.text for piece in pieces)
    assert "\ufffd" not in text
    whole = bytes(values).decode(errors="replace").replace("\ufffd", "")
    if "\x00\x00" in whole:
        assert text == whole[: whole.index("\x00\x00")]
    else:
        assert text == whole
        assert b"".join(token.text for piece in pieces for token in piece.tokens) == bytes(values)


def test_a_syllable_in_bytes_comes_whole(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.vocab.index(f"<0x{value:02X}>") for value in "뷁".encode()]
    pieces, _ = answered(tokenizer, ids, [])
    assert [piece.text for piece in pieces] == ["", "", "뷁", ""]
    assert [len(piece.tokens) for piece in pieces] == [0, 0, 3, 0]
    half, _ = answered(tokenizer, ids[:2], [])
    assert "".join(piece.text for piece in half) == ""
    assert b"".join(token.text for piece in half for token in piece.tokens) == "뷁".encode()[:2]


def test_a_completion_continues_its_prompt_with_the_right_space(tokenizer: Tokenizer) -> None:
    prompt, more = ids_of(tokenizer, "모든 국민은"), ids_of(tokenizer, "법 앞에")
    answer = Answer(tokenizer, context=[tokenizer.cls_id, *prompt], with_tokens=True)
    pieces = [answer.push(Step(id, 0.0)) for id in more] + [answer.flush()]
    decoder = StreamDecoder(tokenizer)
    before = "".join(decoder.push(id) for id in prompt)
    assert before + "".join(piece.text for piece in pieces) == tokenizer.decode(prompt + more)
    assert pieces[0].tokens[0].text.startswith(b" ")
    alone = Answer(tokenizer)
    assert not alone.push(Step(more[0])).text.startswith(" ")
