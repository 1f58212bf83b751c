"""The exception for mistakes of the user, and how an entry point ends on it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input. The text is one sentence that names the file, flag, or line, and says what to do.

    Entry points print it and exit with status 2. A stack trace means a bug.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Run an entry point: a `UserError` becomes its sentence on standard error and exit status 2."""
    try:
        yield
    except UserError as error:
        print(f"kogpt: {error}", file=sys.stderr)
        sys.exit(2)
