"""Types of optional flags. Their help shows neither `{None}|` nor `(default: None)`; the docstring says the default."""

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

OptionalInt = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]
OptionalFloat = Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")]
OptionalStr = Annotated[str | None, arg(metavar="STR", help_behavior_hint="")]
OptionalPath = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
