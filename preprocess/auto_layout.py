"""`--layout auto`: which presets find text in a sample of the files, as a layout and a sentence."""

import posixpath
from collections import Counter
from itertools import islice

from kogpt.common.errors import UserError
from preprocess.layouts import PRESETS, Layout, matching
from preprocess.parsers import PARSE_ERRORS, Broken, values
from preprocess.sources import Source

_SAMPLED_FILES, _SAMPLED_VALUES = 24, 4


def guess_layout(sources: list[Source]) -> tuple[Layout, str]:
    """(layout, sentence that says what was seen) from files spread evenly over the sources."""
    everything = Layout(tuple(PRESETS.values()))
    step = max(1, -(-len(sources) // _SAMPLED_FILES))
    seen: Counter[str] = Counter()
    texts = counted = 0
    unknown = ""
    for source in sources[::step]:
        for name, stream in islice(source.members(), _SAMPLED_VALUES):
            try:
                for value in islice(values(name, stream, everything), _SAMPLED_VALUES):
                    if isinstance(value, str):
                        texts += 1
                    elif not isinstance(value, Broken):
                        counted += 1
                        found = matching(value)
                        seen.update(found[:1])
                        if not found and not everything.is_side_file(posixpath.basename(name)):
                            unknown = unknown or f"{name}: {everything.describe(value)}"
            except (*PARSE_ERRORS, Broken):
                continue  # counted when it is read
    if unknown and not seen:
        raise UserError(f"--layout auto does not know this layout ({unknown}); name the place with --text-path")
    if not seen:
        return Layout((PRESETS["plain"],)), f"layout auto: plain text ({texts} files sampled)"
    layout = Layout(tuple(preset for name, preset in PRESETS.items() if name in seen))
    shares = ", ".join(f"{name} ({seen[name]})" for name in PRESETS if name in seen)
    return layout, f"layout auto: {shares} of {counted} sampled values; --layout or --text-path say otherwise"
