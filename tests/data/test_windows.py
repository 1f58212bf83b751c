"""Properties of windows: every target is scored once. Compared with the loop of the original script."""

import ast
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.data import windows
from kogpt.data.windows import compat_windows, eval_windows, train_window, train_windows

SIZES = st.tuples(st.integers(0, 900), st.integers(1, 70), st.integers(1, 70)).filter(lambda t: t[2] <= t[1])


def covered(start, ids):
    """Targets (numbered by the id they are predicted from) of a window of `ids` ids."""
    return range(start, start + ids - 1)


@given(st.integers(0, 900), st.integers(1, 70))
def test_train_windows_cover_every_target_with_whole_windows(length, size):
    count = train_windows(length, size)
    assert (count == 0) == (length <= size)
    starts = [train_window(i, length, size) for i in range(count)]
    assert all(start >= 0 and start + size + 1 <= length for start in starts)
    assert starts[:-1] == [i * size for i in range(count - 1)]
    if count:
        assert {t for start in starts for t in covered(start, size + 1)} == set(range(length - 1))
        with pytest.raises(IndexError):
            train_window(count, length, size)


@given(SIZES)
def test_evaluation_windows_start_where_the_stated_formula_says(sizes):
    length, size, stride = sizes
    targets = length - 1
    if targets < 1:
        expected = []
    elif targets <= size:
        expected = [0]
    else:
        count = 1 + -(-(targets - size) // stride)
        expected = [min(i * stride, targets - size) for i in range(count)]
    windows = eval_windows(length, size, stride)
    assert [window.start for window in windows] == expected
    assert all(window.length == min(size + 1, length) for window in windows)


@given(SIZES)
def test_eval_windows_score_each_target_exactly_once_with_context(sizes):
    length, size, stride = sizes
    scored = []
    for window in eval_windows(length, size, stride):
        targets = [window.start + j for j in range(window.length - 1)]
        assert window.length <= size + 1
        assert window.start + window.length <= length
        new = targets[window.score_from :]
        assert new
        if window.start > 0:
            assert window.score_from >= size - stride
        scored += new
    assert scored == list(range(max(0, length - 1)))


def original(input_ids, max_seq_len=256, stride=128):
    """The loop of the original script, with tokens truncated as by its tokenizer."""
    saved = []
    num_windows = (len(input_ids) - max_seq_len + stride) // stride + 1
    for i in range(num_windows):
        start = i * stride
        end = start + max_seq_len
        window = input_ids[start:end]
        mask = [1] * len(window)
        if len(window) < max_seq_len:
            missing = max_seq_len - len(window)
            window = window + [0] * missing
            mask = mask + [0] * missing
        saved.append((window, mask))
    return saved


@given(st.integers(0, 1200))
def test_compat_is_the_original(length):
    article = [2, *range(5, 5 + length), 3]
    truncated = article if len(article) <= 512 else [*article[:511], 3]
    windows = compat_windows(article)
    assert windows == original(truncated)
    assert len(windows) == len(truncated) // 128


@given(SIZES.filter(lambda t: t[0] >= 2), st.integers(2, 900))
def test_compat_with_other_parameters(sizes, max_length):
    length, size, stride = sizes
    article = list(range(1, length + 1))
    truncated = article if length <= max_length else [*article[: max_length - 1], length]
    assert compat_windows(article, size, stride, max_length) == original(truncated, size, stride)


@pytest.mark.parametrize(
    ("length", "count"), [(127, 0), (128, 1), (255, 1), (256, 2), (384, 3), (511, 3), (512, 4), (4000, 4)]
)
def test_compat_counts(length, count):
    assert len(compat_windows([2] + [9] * (length - 2) + [3])) == count


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="stride 9"):
        eval_windows(100, 8, 9)


def test_imports_the_standard_library_alone():
    tree = ast.parse(Path(windows.__file__).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in sys.stdlib_module_names
        assert not isinstance(node, ast.Import)
