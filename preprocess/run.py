#!/usr/bin/env python3
"""Articles -> token corpus, on this machine or on a Ray cluster: `python preprocess/run.py --help`.

The same file runs under `ray submit` (which copies it alone to a node where the packages are installed) and `ray job
submit`. Exit statuses: 0 done; 2 a mistake or problem that one sentence on stderr explains; 130 interrupted; 1 if Ray's
own processes were killed, which ends this one without a message. After each of them, the same command continues.
"""

import sys
from pathlib import Path

# Python puts the script's folder first on the path. Replace it by the project's folder, if this file is in it.
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
        print("interrupted; repeat the same command to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
