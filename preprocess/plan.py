"""The settings of a run, and the check that they belong to its output folder.

`open_output` compares them with those in the output folder (`.work/plan.json` of an unfinished corpus, `manifest.json`
of a finished one), and refuses with the difference. The articles are a setting as well, which is known when the scan
has ended: `Plan.confirm` compares their fingerprint, before anything is written into the corpus.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.wordpiece import Tokenizer
from preprocess.options import Options
from preprocess.scan import Scan

WORK = ".work"
_FLAGS = {"tokenizer": "--tokenizer", "analyzer": "--analyzer", "spacing": "--spacing", "layout": "--layout"}
_FLAGS |= {"limit": "--limit", "val_fraction": "--val-fraction", "personal_data": "--personal-data"}
_FLAGS |= {"uncut": "--uncut", "quality": "--quality", "near_duplicates": "--near-duplicates", "held_out": "--held-out"}
_ABSENT: dict[str, Any] = {"personal_data": "keep", "quality": "none", "near_duplicates": None, "held_out": None}
_ABSENT |= {"uncut": 0.0}
"""What it means that a setting is not recorded, for settings that are recorded only where they are not the default."""


def settings_of(
    options: Options,
    layout: str,
    analyzer: dict[str, str],
    tokenizer: Tokenizer | None,
    held_out: Scan | None = None,
) -> dict[str, Any]:
    """All that the bytes of the corpus depend on besides the articles. No tokenizer: one is to be trained."""
    trained = f"trained on the train split, {options.vocab_size} pieces"
    settings = {
        "analyzer": analyzer,
        "layout": layout,
        "held_out": held_out and {"name": _names(options.held_out), "sha256": held_out.fingerprint},
        "limit": options.limit,
        "near_duplicates": options.near_duplicates,
        "personal_data": options.personal_data,
        "quality": _quality(options),
        "spacing": options.spacing,
        "uncut": options.uncut,
        "tokenizer": trained if tokenizer is None else f"{tokenizer.source} ({tokenizer.base_sha256[:12]})",
        "val_fraction": options.val_fraction,
    }
    return {name: value for name, value in settings.items() if _ABSENT.get(name, ...) != value}


def _names(paths: Iterable[str]) -> str:
    return ", ".join(Path(path).name for path in paths)


def _quality(options: Options) -> dict[str, Any] | str:
    """The thresholds of --quality, and the name of its file."""
    thresholds = options.thresholds
    if thresholds is None:
        return "none"
    rules = {rule: {k: v for k, v in limits._asdict().items() if v is not None} for rule, limits in thresholds.items()}
    return {"name": Path(options.quality).name, "rules": rules}


@dataclass
class Plan:
    """The settings of a run, and what its output folder says of earlier ones."""

    folder: Path
    settings: dict[str, Any]
    begun: dict[str, Any]
    """the settings there; without the articles if no scan has ended yet"""
    corpus: TokenCorpus | None
    """if it is finished"""

    def confirm(self, found: Scan) -> None:
        """Add the articles of a scan that has ended to the settings, and compare them with those of earlier runs."""
        self.settings = {**self.settings, "articles": found.account}
        if "articles" not in self.begun:
            _write(self.folder, self.settings)
        self.refuse_other()

    def refuse_other(self) -> None:
        """Raise a `UserError` if the folder has other settings."""
        state = "was made" if self.corpus is not None else "was begun"
        refuse_other(str(self.folder), self.begun, self.settings, state)


def open_output(folder: Path, settings: dict[str, Any]) -> Plan:
    """The plan of a run, which is on the disk then. Raises `UserError` if the folder has other settings."""
    finished = (folder / "manifest.json").is_file()
    corpus = TokenCorpus.open(folder) if finished else None
    begun = corpus.manifest["settings"] if corpus is not None else _read(folder / WORK / "plan.json")
    if begun is None:
        _write(folder, settings)
    plan = Plan(folder, settings, settings if begun is None else begun, corpus)
    plan.refuse_other()
    return plan


def refuse_other(place: str, begun: dict[str, Any], settings: dict[str, Any], state: str) -> None:
    """Raise a `UserError` that names the differences if a corpus there has other settings than this run.

    The articles are compared where both know them.
    """
    names = [name for name in {**settings, **_recorded(begun)} if name != "articles" or name in begun]
    differences = [
        _difference(name, begun.get(name), settings.get(name))
        for name in names
        if begun.get(name) != settings.get(name)
    ]
    if differences:
        raise UserError(f"--output {place} {state} with {' and '.join(differences)}; name another folder, or delete it")


def _write(folder: Path, settings: dict[str, Any]) -> None:
    with atomic_write(folder / WORK / "plan.json") as file:
        file.write((json.dumps(settings, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode())


def _read(plan: Path) -> dict[str, Any] | None:
    try:
        return json.loads(plan.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _difference(name: str, before: Any, now: Any) -> str:
    if name == "articles" and isinstance(before, dict):
        old, new = (f"{value['in']:,} with sha256 {value['sha256'][:12]}" for value in (before, now))
        return f"other articles ({old}; now {new})"
    if name == "analyzer" and isinstance(before, dict) and before.get("name") == now["name"]:
        changed = [
            f"{key} {before.get(key)}, not {now.get(key)}"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key)
        ]
        return f"another version of the analyzer {now['name']} ({', '.join(changed)})"
    if name in ("quality", "held_out") and before and now and before["name"] == now["name"]:
        return f"other content of {_FLAGS[name]} {now['name']}"
    if isinstance(before, dict) or isinstance(now, dict):
        before, now = ((value or {}).get("name") for value in (before, now))
    before, now = (_ABSENT.get(name) if value is None else value for value in (before, now))
    flag = _FLAGS.get(name, name)
    given = f"no {flag}" if before is None else f"{flag} {before}"
    return f"{given}, not {'without it' if now is None else now}"


def _recorded(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of the settings that are recorded only where they are not the default."""
    return {name: value for name, value in settings.items() if name in _ABSENT}
