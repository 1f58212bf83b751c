"""How many articles does each quality rule remove, by source, and what do the filters cost?

    python bench/filters.py ARTICLES.jsonl[.gz] ... [--limit N] [--json FILE]

In: JSON lines with `passage` or `text`, and `source`. Every rule is measured alone, with the threshold that FineWeb-2
or dps has, and those of `--quality web` together. Out: for each rule the share of articles that it removes in each
source, and its cost in ms of CPU an article; the same for personal data (articles with a finding; masks by kind).
"""

import argparse
import gzip
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.pop(0)  # of this folder, preprocess.py would be the package `preprocess`
from preprocess import personal
from preprocess.quality import RULES, WEB, Limits, Measured, broken_rule, load_thresholds

PUBLISHED = {
    "length": Limits(50, 100_000),
    "mean_word_length": Limits(3, 10),
    "symbols": Limits(max=0.1),
    "bullets": Limits(max=0.9),
    "ellipsis": Limits(max=0.3),
    "korean": Limits(0.25),
    "duplicate_lines": Limits(max=0.374),
    "punctuated_lines": Limits(0.062),
    "new_lines": Limits(max=0.196),
    "words_with_letters": Limits(0.791),
    "stop_words": Limits(2),
    **{f"top_{n}_gram": Limits(max=limit) for n, limit in ((2, 0.282), (3, 0.228), (4, 0.185))},
    **{
        f"duplicate_{n}_grams": Limits(max=limit)
        for n, limit in ((5, 0.201), (6, 0.184), (7, 0.168), (8, 0.154), (9, 0.14), (10, 0.127))
    },
}
"""What FineWeb-2 and dps have."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("articles", nargs="+", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    removed: dict[str, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    masks: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)
    web = load_thresholds(WEB)
    for path in options.articles:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
            rows = [json.loads(line) for _, line in zip(range(options.limit or 10**9), file, strict=False)]
        for row in rows:
            text, source = row.get("passage") or row["text"], row["source"]
            total[source] += 1
            measured = Measured(text)
            for name, rule in RULES.items():
                began = time.process_time()
                value, limits = rule(measured), PUBLISHED[name]
                seconds[name] += time.process_time() - began
                if not (limits.min or 0) <= value <= (limits.max if limits.max is not None else value):
                    removed[name][source] += 1
            removed["web (all that are on)"][source] += broken_rule(text, web) is not None
            began = time.process_time()
            found = personal.find(text)
            seconds["personal data"] += time.process_time() - began
            removed["personal data"][source] += bool(found)
            masks.update(one.kind for one in found)
    count = total.total()
    print("| rule | ms/article | all | " + " | ".join(f"{name} ({n:,})" for name, n in total.most_common()) + " |")
    print("|---" * (3 + len(total)) + "|")
    for name in [*RULES, "web (all that are on)", "personal data"]:
        shares = [removed[name].total() / count, *(removed[name][source] / n for source, n in total.most_common())]
        print(f"| {name} | {seconds[name] / count * 1000:.3f} | " + " | ".join(f"{x:.2%}" for x in shares) + " |")
    print("masks:", dict(masks))
    if options.json:
        options.json.write_text(json.dumps({"articles": total, "removed": removed, "seconds": seconds, "masks": masks}))


if __name__ == "__main__":
    main()
