"""`kogpt compare RUN...`: runs at equal tokens and at equal time, and the settings in which they differ.

In: records of two or more runs. Out: a table for the terminal, and a page with the curves. The runs are compared at the
largest number of tokens, and of hours of training, at which every run has been validated. Between two evaluations of a
run, its bits per character are interpolated.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Column, Table

from kogpt.common.errors import UserError
from kogpt.common.page import Block, heading, lines, paragraph, table, thinned, write_page
from kogpt.tracking.run_record import Curve, RunRecord, at, over

PAGE = "compare.html"


class Comparison:
    """Several runs side by side. Raises `UserError` for fewer than two, or one twice."""

    def __init__(self, folders: Sequence[Path]) -> None:
        if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
            raise UserError("name at least two runs, each once, to compare them.")
        runs = [RunRecord.open(folder) for folder in folders]
        names = [run.name for run in runs]
        self.runs = {
            run.name if names.count(run.name) == 1 else str(folder): run
            for run, folder in zip(runs, folders, strict=True)
        }
        self.bits = {name: run.curve("val_bits_per_char") for name, run in self.runs.items()}
        validated = [(run, int(self.bits[name][-1][0])) for name, run in self.runs.items() if self.bits[name]]
        self.tokens = min((run.tokens[step] for run, step in validated), default=0)
        self.hours = min((run.hours[step] for run, step in validated), default=0.0)

    @property
    def notes(self) -> list[str]:
        """What has to be known before the numbers are believed."""
        said = []
        if len({tuple(one["corpus"] for one in run.corpora) for run in self.runs.values()}) > 1:
            said.append("The corpora differ, and with them the validation texts.")
        if len({(run.about.get("device"), run.about.get("world_size")) for run in self.runs.values()}) > 1:
            said.append("The machines differ, so equal time is not equal work.")
        missing = [name for name, bits in self.bits.items() if not bits]
        return said + ([f"Not validated: {', '.join(missing)}."] if missing else [])

    def numbers(self) -> list[list[str]]:
        """A row for each number: its name, and the value of each run."""
        runs, bits = self.runs.items(), self.bits
        hours, best = [run.hours.get(run.step, 0.0) for _, run in runs], [run.best for _, run in runs]
        tokens = [run.tokens.get(run.step, 0) for _, run in runs]
        equal = [at(bits[name], run.tokens, self.tokens) for name, run in runs]
        timed = [at(bits[name], run.hours, self.hours) for name, run in runs]
        return [
            ["parameters", *(f"{run.about.get('parameters', 0):,}" for _, run in runs)],
            ["tokens", *(f"{n:,}" for n in tokens)],
            ["hours of training", *(f"{h:.2f}" for h in hours)],
            ["tokens/s", *(f"{n / (3600 * h):,.0f}" if h else "" for n, h in zip(tokens, hours, strict=True))],
            ["best bits per character", *("" if one is None else f"{one[1]:.4f}" for one in best)],
            [f"that at {self.tokens:,} tokens", *("" if value is None else f"{value:.4f}" for value in equal)],
            [f"that at {self.hours:.2f} hours", *("" if value is None else f"{value:.4f}" for value in timed)],
        ]

    def differences(self) -> list[list[str]]:
        """A row for each setting that is not the same in all runs: its name, and the value of each run."""
        every = [run.settings for run in self.runs.values()]
        keys = dict.fromkeys(key for settings in every for key in settings)
        found = [[key, *(settings.get(key, "") for settings in every)] for key in keys]
        return [row for row in found if len({*row[1:]}) > 1]

    def tables(self) -> list[Table]:
        """For the terminal."""
        names = [escape(name) for name in self.runs]
        numbers = Table("", *(Column(name, justify="right", overflow="fold") for name in names))
        settings = Table("settings that differ", *(Column(name, overflow="fold") for name in names))
        for out, rows in ((numbers, self.numbers()), (settings, self.differences())):
            for row in rows:
                out.add_row(*map(escape, row))
        return [numbers, settings]

    def write_page(self, path: Path) -> None:
        """The same with the curves."""
        blocks: list[Block] = [table(self.numbers(), ("", *self.runs)), *map(paragraph, self.notes)]
        training = {name: thinned(run.training_bits, 200) for name, run in self.runs.items()}
        for title, curves in (("Validation", self.bits), ("Training", training)):
            curves = {name: curve for name, curve in curves.items() if curve}
            blocks += [heading(f"{title}, at equal tokens"), self._lines(curves, "tokens")]
            blocks += [heading(f"{title}, at equal time"), self._lines(curves, "hours of training")]
        blocks += [heading("Settings that differ"), table(self.differences(), ("setting", *self.runs))]
        write_page(path, f"{len(self.runs)} runs compared", blocks)

    def _lines(self, curves: dict[str, Curve], x: str) -> Block:
        runs = self.runs
        placed = {n: over(c, runs[n].tokens if x == "tokens" else runs[n].hours) for n, c in curves.items()}
        return lines(placed, x, "bits per character", zero=False)
