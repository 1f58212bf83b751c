"""Accuracies from the scores of choices; those of a model are in test_run.py."""

from dataclasses import asdict

import pytest

from kogpt.eval.multiple_choice import Item, accuracies
from kogpt.eval.report import numbers, rows


def test_a_score_is_divided_by_the_length_for_accuracy_and_not_for_acc() -> None:
    """아니오 has three characters and 예 one: 3 and 2 nats are 1 and 2 a character."""
    items = [Item("boolq", "물은 젖는가?", ("아니오", "예"), label) for label in (0, 1, 1)]
    found = accuracies(items, [3.0, 2.0] * 3)["boolq"]
    assert (found.accuracy, found.acc) == pytest.approx((1 / 3, 2 / 3))
    result = {"multiple_choice": {"0": {"boolq": asdict(found)}}}
    assert ("", "acc as in lm-eval (not divided by length)", "0.667", "") in rows(result)
    assert numbers(result)["boolq/0-shot/acc"] == found.acc
