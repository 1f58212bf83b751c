"""The vocabulary of a run: of an earlier corpus or run, a base vocabulary (kogpt.tokenizer.vocab), or a trained one.

With `--tokenizer CORPUS` or `--tokenizer RUN` the vocabulary, analyzer, and spacing are those of that folder. Only the
role tokens are appended if it has none, so a model of that vocabulary can be trained on the new corpus.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.data.split import splits
from kogpt.tokenizer.wordpiece import Tokenizer, load_tokenizer, open_tokenizer, train_tokenizer, with_roles
from preprocess import stages
from preprocess.options import Options
from preprocess.plan import WORK
from preprocess.scan import Scan
from preprocess.units import Store, unpack_cut_texts

log = logging.getLogger(__name__)


def settled(options: Options) -> Options:
    """The options with the analyzer and spacing that go with their vocabulary.

    Raises UserError if --analyzer or --spacing asks for others.
    """
    saved = _saved(options)
    if saved is None:
        return options
    own: dict[str, Any] = {"analyzer": saved.analyzer["name"], "spacing": saved.spacing}
    for flag, value in own.items():
        asked = getattr(options, flag)
        if asked not in (value, getattr(Options, flag)):
            raise UserError(
                f"--{flag} {asked}: the vocabulary of {options.tokenizer} is used with {value}; leave out --{flag}"
            )
    log.info(f"analyzer {own['analyzer']}, spacing {own['spacing']}, as in {options.tokenizer}")
    return replace(options, **own)


def loaded(options: Options, analyzer: dict[str, str]) -> Tokenizer | None:
    """The tokenizer of the options, which `settled` returned; None if its vocabulary has yet to be trained."""
    if options.vocab_size is not None:
        return None
    saved = _saved(options)
    if saved is None:
        return load_tokenizer(options.tokenizer, spacing=options.spacing, analyzer=analyzer)
    if saved.analyzer != analyzer:
        different = sorted(key for key in saved.analyzer | analyzer if saved.analyzer.get(key) != analyzer.get(key))
        log.warning(
            f"the analyzer {analyzer['name']} differs from the one of {options.tokenizer} in {', '.join(different)}; "
            "some texts may become other tokens"
        )
    return with_roles(
        Tokenizer(saved.vocab, spacing=saved.spacing, analyzer=analyzer, source=saved.source, base_size=saved.base_size)
    )


def trained(options: Options, found: Scan, cache: Store, analyzer: dict[str, str]) -> Tokenizer:
    """Train the vocabulary on the train split, and store it, so that a killed run does not train it again."""
    stored = options.output_folder / WORK / "tokenizer"
    try:
        return open_tokenizer(stored)
    except UserError:
        pass
    assert options.vocab_size is not None
    hashes = (
        sha256
        for unit in found.units
        for i, sha256 in enumerate(found.rows([unit])["text_sha256"].to_pylist())
        if i not in unit.gone
    )
    split = splits(hashes, found.documents, options.val_fraction)
    log.info(f"training a vocabulary of {options.vocab_size:,} tokens on {split.count('train'):,} articles")
    cut_texts = (
        cut
        for unit in found.units
        for i, cut in enumerate(unpack_cut_texts(cache.existing(unit.key)))
        if i not in unit.gone
    )
    documents = (
        (message.content, analysis)
        for cut, part in zip(cut_texts, split, strict=True)
        if part == "train"
        for message, analysis in stages.analyzed_messages(cut, options.uncut)
    )
    tokenizer = train_tokenizer(documents, options.vocab_size, spacing=options.spacing, analyzer=analyzer)
    tokenizer.save(stored)
    return tokenizer


def _saved(options: Options) -> Tokenizer | None:
    folder = Path(options.tokenizer).expanduser() / "tokenizer"
    named = options.vocab_size is None and (folder / "kogpt.json").is_file()
    return open_tokenizer(folder) if named else None
