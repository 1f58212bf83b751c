"""Near-duplicates against datatrove's MinHash and datasketch: CPU, memory, and recall on the same texts.

    pip install datatrove nltk datasketch        # in an environment of their own; those that are missing are left out
    python bench/near_duplicates.py ARTICLES.jsonl[.gz] [--limit N] [--json FILE]

In: JSON lines with `passage` or `text`. A changed copy of every fourth article is added: up to 3 % of its characters
are others. A pair counts if its exact similarity (Jaccard of 5-character shingles) is 0.8 or more.

Each contestant runs in a process of its own, on one core, from texts in memory to the list of texts that go:
- kogpt: signatures, groups, exact similarities (preprocess/near_duplicates.py), without Ray.
- datatrove, characters: its three steps with a signature over 5 characters and our number of bands and rows.
- datatrove, FineWeb-2: the same with its defaults: 5 words of its Korean tokenizer (Kiwi), 14 bands of 8 rows.
- datasketch: MinHash and MinHashLSH over the same shingles, our bands and rows.

Out: MB/s of UTF-8 and ms of CPU an article, growth of the resident size, recall, and texts that go without a partner
of 0.8.
"""

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.pop(0)  # of this folder, preprocess.py would be the package `preprocess`
import numpy as np

from preprocess.near_duplicates import bands, exact_similarity, groups, repeats, shape_for

THRESHOLD = 0.8


def kogpt(texts: list[str]) -> set[int]:
    shape = shape_for(THRESHOLD)
    columns = np.array([bands(text, shape) for text in texts]).T
    found = [(group, repeats([texts[i] for i in group], THRESHOLD)) for group in groups(columns, len(texts))]
    return {int(group[repeat.number]) for group, own in found for repeat in own}


def _datatrove(texts: list[str], characters: bool) -> set[int]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.logging import logger
    from datatrove.utils.word_tokenizers import KiwiTokenizer, WordTokenizer

    logger.remove()

    class Characters(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return list(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return []

    bands_and_rows = shape_for(THRESHOLD) if characters else (14, 8)
    config = MinhashConfig(5, *bands_and_rows, hash_config=HashConfig(precision=64))
    language = Characters() if characters else KiwiTokenizer(None)  # the largest model that is installed
    with tempfile.TemporaryDirectory() as folder:
        documents = (Document(text=text, id=str(i)) for i, text in enumerate(texts))
        MinhashDedupSignature(f"{folder}/sigs", config, language).run(documents, 0, 1)
        for rank in range(config.num_buckets):
            MinhashDedupBuckets(f"{folder}/sigs", f"{folder}/buckets", config=config).run(
                None, rank, config.num_buckets
            )
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/gone", config).run(None, 0, 1)
        files = sorted(Path(folder, "gone").glob("*.remove"))
        return {int(i) for file in files for i in np.frombuffer(file.read_bytes(), "<u4")}


def datatrove_characters(texts: list[str]) -> set[int]:
    return _datatrove(texts, True)


def datatrove_fineweb2(texts: list[str]) -> set[int]:
    return _datatrove(texts, False)


def datasketch(texts: list[str]) -> set[int]:
    from datasketch import MinHash, MinHashLSH

    shape = shape_for(THRESHOLD)
    size = shape.bands * shape.rows
    lsh = MinHashLSH(num_perm=size, params=tuple(shape))
    gone = set()
    for i, text in enumerate(texts):
        signature = MinHash(num_perm=size)
        signature.update_batch({text[j : j + 5].encode() for j in range(len(text) - 4)})
        if any(signature.jaccard(lsh_signatures) >= THRESHOLD for lsh_signatures in _found(lsh, signature)):
            gone.add(i)
        else:
            lsh.insert(i, signature)
            _SIGNATURES[i] = signature
    return gone


_SIGNATURES: dict = {}


def _found(lsh: object, signature: object) -> list:
    return [_SIGNATURES[i] for i in lsh.query(signature)]  # type: ignore[attr-defined]


CONTESTANTS = {f.__name__: f for f in (kogpt, datatrove_characters, datatrove_fineweb2, datasketch)}


def texts_with_copies(path: Path, limit: int) -> tuple[list[str], dict[int, int]]:
    """Texts, and copy -> original."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        rows = [json.loads(line) for _, line in zip(range(limit), file, strict=False)]
    texts = [row.get("passage") or row["text"] for row in rows]
    rng = random.Random(0)
    copies = {}
    for original in range(0, len(texts), 4):
        characters = list(texts[original])
        for _ in range(rng.randint(1, max(1, 3 * len(characters) // 100))):
            characters[rng.randrange(len(characters))] = rng.choice("가나다라마 .")
        copies[len(texts)] = original
        texts.append("".join(characters))
    return texts, copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("articles", type=Path)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--only", choices=list(CONTESTANTS), help="run one in this process, and print JSON")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    texts, copies = texts_with_copies(options.articles, options.limit)
    if options.only:
        CONTESTANTS[options.only](texts[:8])  # imports, dictionaries
        memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        gone = CONTESTANTS[options.only](texts)
        seconds = time.process_time() - began
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        print(json.dumps({"seconds": seconds, "mib": grown / 1024, "gone": sorted(gone)}))
        return
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    pairs = {
        copy: original
        for copy, original in copies.items()
        if exact_similarity(texts[copy], texts[original]) >= THRESHOLD
    }
    print(f"{len(texts):,} texts, {megabytes:.1f} MB, {len(pairs)} pairs of 0.8 or more among {len(copies)} copies")
    print(
        "| | MB/s of CPU | x kogpt's time | ms/article | MiB | recall | goes without a partner |\n" + "|---" * 7 + "|"
    )
    results = {}
    for name in CONTESTANTS:
        command = [sys.executable, __file__, str(options.articles), "--limit", str(options.limit), "--only", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"| {name} | not installed or failed: {done.stderr.strip().splitlines()[-1:]} |")
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        gone = set(result.pop("gone"))
        result["recall"] = sum(copy in gone or original in gone for copy, original in pairs.items()) / len(pairs)
        partners = set(pairs) | set(pairs.values())
        result["without"] = len(gone - partners)
        results[name] = result
        rate, each = megabytes / result["seconds"], 1000 * result["seconds"] / len(texts)
        ratio = result["seconds"] / next(iter(results.values()))["seconds"]
        print(
            f"| {name} | {rate:.2f} | {ratio:.1f} | {each:.3f} | {result['mib']:.0f} | {result['recall']:.3f} "
            f"| {result['without']} |"
        )
    if options.json:
        options.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
