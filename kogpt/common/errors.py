"""The exception for mistakes of the user, and how an entry point ends on it."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Bad input. The text is one sentence that names the file, flag, or line, and says what to do.

    Entry points print it and exit with status 2. A stack trace means a bug.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Run an entry point: a `UserError` becomes its sentence on standard error and exit status 2.

    So does a file that the system refuses (missing, closed, on a read-only or a full disk); the error names it.
    """
    try:
        yield
    except UserError as error:
        print(f"kogpt: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            raise
        print(f"kogpt: {error.filename or 'the output'} cannot be used: {error.strerror}.", file=sys.stderr)
        sys.exit(2)
