#!/usr/bin/env python3
"""Articles -> token corpus, on this machine or on a Ray cluster: `python preprocess/run.py --help`.

The same file runs under `ray submit` (copied alone to a node, where the packages are installed) and `ray job submit`.
Exit codes: 0 done, 2 a mistake or trouble that the one sentence on stderr names, 130 interrupted; 1 where Ray's own
processes were killed, which ends this one without a word. The same command goes on from each of them.
"""

import sys
from pathlib import Path

# A script's own folder comes first on the path. What belongs there is the project, if this file lies in it.
_HERE = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == _HERE:
    sys.path[:1] = [str(_HERE.parent)] if (_HERE.parent / "kogpt" / "cli.py").is_file() else []


def main() -> int:
    import tyro

    from kogpt.common.errors import UserError
    from kogpt.common.log import set_up_logging
    from kogpt.common.renamed_flags import rewrite
    from preprocess.options import Options
    from preprocess.pipeline import preprocess

    set_up_logging()
    try:
        preprocess(tyro.cli(Options, args=rewrite(sys.argv[1:])))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
