"""What a run's files say: curves, costs, settings."""

import math
from pathlib import Path

import pytest
from builders import record, write_records

from kogpt.common.errors import UserError
from kogpt.tracking.run_record import RunRecord, at, over

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "version-0.1" / "run"


def test_costs_are_sums_over_the_steps(tmp_path: Path) -> None:
    records = [record(step, step_s=1800.0, loss=math.log(2)) for step in (1, 2, 3)]
    run = RunRecord.open(write_records(tmp_path / "실험", *records, world_size=4))
    assert run.name == "실험"
    assert (run.step, run.tokens[3], run.hours[3], run.device_hours) == (3, 30, 1.5, 6.0)
    assert run.training_bits == [(1, 0.5), (2, 0.5), (3, 0.5)], "one bit a token, and two characters a token"
    assert run.flops is None
    assert run.best is None


def test_a_run_of_version_0_1_has_all_of_it() -> None:
    run = RunRecord.open(OLD)
    assert run.step == 12
    assert run.best is not None
    assert run.flops == pytest.approx(run.tokens[12] * 6 * 5152, rel=0.5), "six a parameter and token, and attention"
    assert [one["name"] for one in run.corpora] == ["corpus"]
    assert run.settings["adam.lr"] == "0.003"


def test_values_between_evaluations_are_interpolated() -> None:
    curve, tokens = [(2.0, 4.0), (4.0, 3.0)], {2: 200, 4: 400}
    assert [at(curve, tokens, place) for place in (199, 200, 300, 400, 401)] == [None, 4.0, 3.5, 3.0, None]
    assert at(curve[:1], tokens, 200) == 4.0
    assert over(curve, tokens) == [(200, 4.0), (400, 3.0)]


@pytest.mark.parametrize("content", [None, "{"])
def test_a_folder_that_is_no_run_is_refused_in_a_sentence(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json"):
        RunRecord.open(tmp_path)
