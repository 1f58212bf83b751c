"""`kogpt inspect CORPUS --card`: a data card in Markdown, in the form of a dataset's README on the Hugging Face hub.

It says what is in the corpus, where it came from, and what each step left out; the license and what only people know is
left to fill in. In: an open corpus. Out: Markdown. Cost: decodes up to 500 articles.
"""

from collections.abc import Iterable, Sequence

from kogpt.data.corpus import TokenCorpus
from kogpt.data.facts import lengths, quantiles, reasons, scripts, sources, tokens_per_char
from kogpt.tokenizer.wordpiece import open_tokenizer

_MEANING = {
    "personal_data": "Personal data (`--personal-data`)",
    "quality": "Quality rules (`--quality`)",
    "near_duplicates": "Near-duplicates (`--near-duplicates`, Jaccard similarity of 5-character shingles)",
    "held_out": "Articles that share 13 morphemes with an evaluation (`--held-out`)",
}


def card(corpus: TokenCorpus) -> str:
    """The data card of a corpus."""
    manifest = corpus.manifest
    counts, settings, tokenizer = manifest["counts"], manifest["settings"], manifest["tokenizer"]
    shares = scripts(corpus, open_tokenizer(corpus.tokenizer_folder))
    parts = [
        "---\nlanguage:\n- ko\nlicense: other  # FILL IN\n---",
        f"# Token corpus {corpus.folder.name}",
        f"{counts['written']:,} {corpus.kind}, {counts['chars']:,} characters, {counts['ids']:,} tokens. "
        f"Made with kogpt; fingerprint `{corpus.fingerprint}`.",
        "## Sources",
        _table(
            ("source", "license", corpus.kind, "characters", "tokens"),
            [(f"`{s.name}`", "FILL IN", f"{s.articles:,}", f"{s.chars:,}", f"{s.tokens:,}") for s in sources(corpus)],
        ),
        "## What was left out",
        f"Of {counts['articles_in']:,} that were read, {counts['written']:,} are in the corpus.",
        _table(
            ("reason", corpus.kind, "example"),
            [(one.name, f"{one.count:,}", f"`{one.examples[0][0]}`: {one.examples[0][1]}") for one in reasons(corpus)],
        ),
        "\n".join(f"- {text}: {_setting(settings.get(name))}" for name, text in _MEANING.items()),
        *_masks(counts.get("masked", {})),
        "## Texts",
        _table(
            ("", *quantiles(lengths(corpus))),
            [
                ("characters", *(f"{value:,.0f}" for value in quantiles(lengths(corpus)).values())),
                ("tokens per character", *(f"{value:.3f}" for value in quantiles(tokens_per_char(corpus)).values())),
            ],
        ),
        f"Without white space: {', '.join(f'{name} {share:.1%}' for name, share in shares.items())}.",
        "## Splits",
        _table(
            ("split", corpus.kind, "characters", "tokens"),
            [(name, *(f"{n:,}" for n in _numbers(split))) for name, split in counts["splits"].items()],
        ),
        "## Tokens",
        f"Vocabulary {tokenizer['source']} of {tokenizer['vocab_size']:,} tokens, spacing {tokenizer['spacing']}, "
        f"analyzer {manifest['analyzer']['name']}. {counts['unknown_ids']:,} tokens are unknown or bytes.",
        "## Uses and limits",
        "FILL IN: what the corpus is for, who may use it, and whom its texts are about.",
    ]
    return "\n\n".join(parts) + "\n"


def _numbers(split: dict[str, int]) -> list[int]:
    return [split[name] for name in ("articles", "chars", "ids")]


def _setting(value: object) -> str:
    if isinstance(value, dict):
        return str(value["name"])
    return "not asked for" if value is None else str(value)


def _masks(masked: dict[str, int]) -> list[str]:
    if not masked:
        return []
    return ["Masks of personal data:", _table(("kind", "masks"), [(kind, f"{n:,}") for kind, n in masked.items()])]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *cells])
