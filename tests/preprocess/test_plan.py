"""Which output folders a run refuses."""

from pathlib import Path

import pytest
from pipelines import scan_of

from kogpt.common.errors import UserError
from preprocess.documents import Dropped
from preprocess.plan import WORK, open_output
from preprocess.scan import dropped_row

SETTINGS = {
    "analyzer": {"name": "none"},
    "limit": None,
    "spacing": "original",
}


def test_folder_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    assert open_output(tmp_path, SETTINGS).begun == SETTINGS
    assert open_output(tmp_path, SETTINGS).corpus is None
    for change, message in [
        ({"spacing": "morphemes"}, "was begun with --spacing original, not morphemes; name another folder"),
        ({"limit": 3}, "was begun with no --limit, not 3;"),
        ({"analyzer": {"name": "kkma"}}, "--analyzer none, not kkma"),
        ({"layout": "nikl"}, "no --layout, not nikl"),
        ({"tokenizer": "trained on the train split, 9 pieces"}, "no --tokenizer, not trained on the train split"),
        ({"personal_data": "mask"}, "was begun with --personal-data keep, not mask"),
        ({"val_fraction": 0.5}, "no --val-fraction, not 0.5"),
        ({"analyzer": {"name": "none", "jar": "2"}}, "another version of the analyzer none \\(jar None, not 2\\)"),
    ]:
        with pytest.raises(UserError, match=message):
            open_output(tmp_path, SETTINGS | change)


def test_other_articles_are_refused_when_the_scan_has_ended(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    one, other = (scan_of([Dropped("a#0", "a", "empty", detail)], tmp_path / "o") for detail in ("no", "nothing"))
    plan = open_output(tmp_path, SETTINGS)
    assert "articles" not in open_output(tmp_path, SETTINGS).begun
    plan.confirm(one)
    assert plan.settings["articles"] == {"in": 1, "sha256": one.fingerprint}
    again = open_output(tmp_path, SETTINGS)
    assert again.begun == plan.settings
    again.confirm(one)
    with pytest.raises(UserError, match=f"was begun with other articles .1 with sha256 {one.fingerprint[:12]}; now 1"):
        again.confirm(other)


def test_a_flag_that_is_no_longer_given_is_named(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    open_output(tmp_path, SETTINGS | {"personal_data": "mask"})
    with pytest.raises(UserError, match="was begun with --personal-data mask, not keep;"):
        open_output(tmp_path, SETTINGS)
    (tmp_path / WORK / "plan.json").unlink()
    open_output(tmp_path, SETTINGS | {"limit": 3})
    with pytest.raises(UserError, match="was begun with --limit 3, not without it;"):
        open_output(tmp_path, SETTINGS)


def test_other_thresholds_under_the_same_name_are_seen(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    rules = [{"quality": {"name": "own.toml", "rules": {"length": {"min": least}}}} for least in (5, 6)]
    open_output(tmp_path, SETTINGS | rules[0])
    with pytest.raises(UserError, match=r"was begun with other content of --quality own\.toml; name another folder"):
        open_output(tmp_path, SETTINGS | rules[1])


def test_torn_plan_is_written_again(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "plan.json").write_text("{")
    open_output(tmp_path, SETTINGS)
    with pytest.raises(UserError):
        open_output(tmp_path, SETTINGS | {"limit": 1})


def test_a_detail_that_is_not_unicode_can_be_written() -> None:
    """A lone surrogate in a JSON key, which parquet would refuse at the very end."""
    assert dropped_row("a#0", "a.json", "no text at the path", "found \ud800")["detail"] == "found \\ud800"
