"""The counts and fingerprint of a scan, and which output folders a run refuses."""

from pathlib import Path

import pytest
from pipelines import articles_in

from kogpt.common.errors import UserError
from preprocess.documents import Document, Dropped
from preprocess.layouts import named_layout
from preprocess.plan import WORK, Scan, dropped_row, open_output, scan
from preprocess.sources import find_sources


def scan_of(folder: Path) -> Scan:
    return scan(articles_in(find_sources((str(folder),)), named_layout("plain")), {"name": "none"})


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    folder = tmp_path / "articles"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(f'{{"text": "글 {i % 90}\\u0007"}}\n' for i in range(100)))
    (folder / "b.json").write_text("{")
    return folder


def test_accounts_and_columns(articles: Path) -> None:
    found = scan_of(articles)
    assert (found.documents, found.articles_in) == (90, 101)
    assert (found.removed_controls, found.removed_surrogates) == (90, 0)
    assert [row["reason"] for row in found.dropped] == ["duplicate"] * 10 + ["broken JSON"]
    rows = [row for unit in found.units for row in unit.articles.to_pylist()]
    assert [row["id"] for row in rows] == [f"a.jsonl#{i}" for i in range(90)]
    assert sum(unit.chars for unit in found.units) == found.chars == sum(row["chars"] for row in rows)


def test_fingerprint_sees_every_change_and_nothing_else(articles: Path) -> None:
    first = scan_of(articles).fingerprint
    (articles / "b.json").touch()
    assert scan_of(articles).fingerprint == first
    seen = {first}
    for change in ('{"text": "글 0"}', '{"text": "글 00"}', "[", ""):
        (articles / "b.json").write_text(change)
        seen.add(scan_of(articles).fingerprint)
    (articles / "b.json").rename(articles / "c.json")
    seen.add(scan_of(articles).fingerprint)
    assert len(seen) == 6


def test_scan_keeps_what_it_was_given() -> None:
    articles: list[Document | Dropped] = [Dropped("a#0", "a", "empty", "nothing")]
    found = scan(articles, {"name": "none"})
    assert (found.units, found.articles_in) == ([], 1)


SETTINGS = {
    "analyzer": {"name": "none"},
    "articles": {"in": 5, "sha256": "ab" * 32},
    "limit": None,
    "spacing": "original",
}


def test_folder_goes_on_with_the_same_settings_only(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    assert open_output(tmp_path, SETTINGS) is None
    assert open_output(tmp_path, SETTINGS) is None
    for change, message in [
        ({"spacing": "morphemes"}, "was begun with --spacing original, not morphemes; name another folder"),
        ({"limit": 3, "articles": {"in": 3, "sha256": "cd"}}, "was begun with no --limit, not 3;"),
        ({"articles": {"in": 6, "sha256": "cd"}}, "other articles \\(5 with sha256 abababababab; now 6 with sha256 cd"),
        ({"analyzer": {"name": "kkma"}}, "--analyzer none, not kkma"),
        ({"layout": "nikl"}, "no --layout, not nikl"),
        ({"tokenizer": "trained on the train split, 9 pieces"}, "no --tokenizer, not trained on the train split"),
        ({"personal_data": "mask"}, "was begun with --personal-data keep, not mask"),
        ({"val_fraction": 0.5}, "no --val-fraction, not 0.5"),
        ({"analyzer": {"name": "none", "jar": "2"}}, "another version of the analyzer none \\(jar None, not 2\\)"),
    ]:
        with pytest.raises(UserError, match=message):
            open_output(tmp_path, SETTINGS | change)


def test_a_flag_that_is_no_longer_given_is_named(tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    open_output(tmp_path, SETTINGS | {"personal_data": "mask"})
    with pytest.raises(UserError, match="was begun with --personal-data mask, not keep;"):
        open_output(tmp_path, SETTINGS | {"articles": {"in": 3, "sha256": "cd"}})
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
    assert open_output(tmp_path, SETTINGS) is None
    with pytest.raises(UserError):
        open_output(tmp_path, SETTINGS | {"limit": 1})


def test_a_detail_that_is_not_unicode_can_be_written() -> None:
    """A lone surrogate in a JSON key, which parquet would refuse at the very end."""
    assert dropped_row("a#0", "a.json", "no text at the path", "found \ud800")["detail"] == "found \\ud800"
