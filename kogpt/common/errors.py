"""The one exception that a user can cause, and how an entry point ends on it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input. Its text is one sentence that names the file, flag or line, and the mend.

    Entry points print it and exit with status 2; a stack trace is for bugs.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Around an entry point's work: a `UserError` becomes its sentence on standard error and exit status 2."""
    try:
        yield
    except UserError as error:
        print(f"kogpt: {error}", file=sys.stderr)
        sys.exit(2)
