"""The plan of a run, and the check that it belongs to its output folder.

`scan` reads all articles once and yields units with their keys, the columns of the table, what is dropped, and a
fingerprint of all articles. `open_output` compares settings and fingerprint with those in the output folder
(`.work/plan.json` of an unfinished corpus, `manifest.json` of a finished one), and refuses with the difference.

Memory: about 430 bytes per article, a third of it the plan, the rest what the filters remember until the scan ends.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.normalize import Removed
from kogpt.tokenizer.wordpiece import Tokenizer
from preprocess.documents import Document, Dropped, Outline
from preprocess.options import Options
from preprocess.units import Unit, group

WORK = ".work"
_FLAGS = {"tokenizer": "--tokenizer", "analyzer": "--analyzer", "spacing": "--spacing", "layout": "--layout"}
_FLAGS |= {"limit": "--limit", "val_fraction": "--val-fraction", "personal_data": "--personal-data"}
_FLAGS |= {"uncut": "--uncut", "quality": "--quality", "near_duplicates": "--near-duplicates", "held_out": "--held-out"}
_ABSENT: dict[str, Any] = {"personal_data": "keep", "quality": "none", "near_duplicates": None, "held_out": None}
_ABSENT |= {"uncut": 0.0}
"""What it means that a setting is not recorded, for settings that are recorded only where they are not the default."""


class PlannedUnit(NamedTuple):
    """A unit without its texts."""

    key: str
    chars: int
    articles: pa.RecordBatch
    """id, source, text_sha256, chars; of conversations also learnt_chars"""
    gone: Mapping[int, str] = MappingProxyType({})
    """rows that are dropped after the analysis, and why"""
    places: Sequence[tuple[int, int]] = ()
    """of the documents, if workers read them (`Outline`)"""


@dataclass
class Scan:
    """Everything known about the input before the work starts."""

    units: list[PlannedUnit] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    documents: int = 0
    chars: int = 0
    removals: dict[str, Removed] = field(default_factory=dict)
    """id -> what normalization removed, of the documents that lost anything"""
    masks: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """id -> (kind, number of masks), of the documents that have any"""
    fingerprint: str = ""

    @property
    def removed_controls(self) -> int:
        return sum(own.controls for own in self.removals.values())

    @property
    def removed_surrogates(self) -> int:
        return sum(own.surrogates for own in self.removals.values())

    @property
    def masked(self) -> dict[str, int]:
        """Masks by kind."""
        counts: Counter[str] = Counter()
        for own in self.masks.values():
            counts.update(dict(own))
        return dict(counts)

    @property
    def articles_in(self) -> int:
        return self.documents + len(self.dropped)


def scan(articles: Iterable[Document | Dropped], analyzer: dict[str, str]) -> Scan:
    """Read all articles once."""
    result = Scan()
    digest = hashlib.sha256()

    def documents() -> Iterable[Document]:
        for article in articles:
            if isinstance(article, Dropped):
                digest.update(f"{article!r}\n".encode())
                result.dropped.append(dropped_row(article.id, article.source, article.reason, article.detail))
                continue
            digest.update(f"{article.id} {article.source} {article.sha256}\n".encode())
            result.documents += 1
            result.chars += article.sizes["chars"]
            if any(article.removed):
                result.removals[article.id] = article.removed
            if article.masked:
                result.masks[article.id] = article.masked
            yield article

    result.units.extend(map(_planned, group(documents(), analyzer)))
    result.fingerprint = digest.hexdigest()
    return result


def _planned(unit: Unit) -> PlannedUnit:
    counts = [document.sizes for document in unit.documents]
    columns: dict[str, list[Any]] = {
        "id": [document.id for document in unit.documents],
        "source": [document.source for document in unit.documents],
        "text_sha256": [document.sha256 for document in unit.documents],
        **{name: [own[name] for own in counts] for name in counts[0]},
    }
    places = [document.place for document in unit.documents if isinstance(document, Outline)]
    return PlannedUnit(unit.key, sum(columns["chars"]), pa.record_batch(columns), places=places)


def dropped_row(id: str, source: str, reason: str, detail: str, status: str = "dropped") -> dict[str, Any]:
    """A row of dropped.parquet. Lone surrogates in the detail (from a JSON key) are written as \\ud800."""
    detail = detail.encode("utf-8", "backslashreplace").decode()
    return {"id": id, "source": source, "status": status, "reason": reason, "detail": detail}


def settings_of(
    options: Options,
    found: Scan,
    layout: str,
    analyzer: dict[str, str],
    tokenizer: Tokenizer | None,
    held_out: Scan | None = None,
) -> dict[str, Any]:
    """Everything that the bytes of the corpus depend on, and nothing else. No tokenizer: one is to be trained."""
    trained = f"trained on the train split, {options.vocab_size} pieces"
    settings = {
        "analyzer": analyzer,
        "articles": {"in": found.articles_in, "sha256": found.fingerprint},
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


def open_output(folder: Path, settings: dict[str, Any]) -> TokenCorpus | None:
    """The finished corpus of exactly these settings, or None if there is work to do; then the plan is on disk."""
    plan = folder / WORK / "plan.json"
    finished = (folder / "manifest.json").is_file()
    corpus = TokenCorpus.open(folder) if finished else None
    begun = corpus.manifest["settings"] if corpus is not None else _read(plan)
    if begun is not None:
        refuse_other(str(folder), begun, settings, "was made" if finished else "was begun")
    elif corpus is None:
        with atomic_write(plan) as file:
            file.write((json.dumps(settings, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode())
    return corpus


def refuse_other(place: str, begun: dict[str, Any], settings: dict[str, Any], state: str) -> None:
    """Raise a `UserError` that names the differences if a corpus there has other settings than this run."""
    changed = [name for name in {**settings, **_recorded(begun)} if begun.get(name) != settings.get(name)]
    if changed != ["articles"]:  # otherwise a consequence of another flag
        changed = [name for name in changed if name != "articles"]
    differences = [_difference(name, begun.get(name), settings.get(name)) for name in changed]
    if differences:
        raise UserError(f"--output {place} {state} with {' and '.join(differences)}; name another folder, or delete it")


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
