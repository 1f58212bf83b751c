"""Upload an exported folder to the Hugging Face hub. In: a folder, and the name USER/NAME. Out: its address.

A new repository is private. The token is the one that huggingface_hub finds: HF_TOKEN, or what `hf auth login` saved.
A vocabulary that was not trained here belongs to others (KR-Medium's states no license at all), so it is uploaded only
under a license that the user names.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kogpt.common.errors import UserError


def check_push(name: str, vocabulary: str, license: str | None) -> None:
    """Raise `UserError` for what would stop the upload: no token, a wrong name, a vocabulary without a license.

    `vocabulary` is `Tokenizer.source`. Asks the hub who the token belongs to, so that a wrong one is found at once.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        if "/" not in name:
            raise ValueError("it has no /")
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--push {name} is not a name on the hub ({reason}); give USER/NAME.") from None
    if license is None and not vocabulary.startswith("trained-"):
        raise UserError(
            f"--push needs --license: the vocabulary comes from {vocabulary} and belongs to its authors (KR-Medium's "
            "states no license); name the license under which you may share the model."
        )
    if get_token() is None:
        raise UserError("--push needs a token of the Hugging Face hub; run `hf auth login`, or set HF_TOKEN.")
    mend = "check the network, or log in again with `hf auth login`"
    with _refusals(f"--push {name}: the hub did not confirm this machine's token", mend):
        HfApi().whoami()


def upload(folder: Path, name: str) -> str:
    """Upload a folder, and return the model's address. Raises `UserError` that says how to go on without kogpt."""
    from huggingface_hub import HfApi

    api = HfApi()
    left = f"{folder} is complete, but was not uploaded to {name}"
    with _refusals(
        left, f"once that is mended, upload it with `hf upload --private {name} {shlex.quote(str(folder))}`"
    ):
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="A model trained with kogpt")
    return str(address)


@contextmanager
def _refusals(problem: str, mend: str) -> Iterator[None]:
    """Answers of the hub, checks of its library, and failures of the network as a `UserError`."""
    from huggingface_hub import errors

    http_error = errors.HTTPError  # of the HTTP library that this version uses
    try:
        yield
    except (OSError, ValueError, RuntimeError, http_error) as error:  # it raises any of them
        raise UserError(f"{problem} ({_reason(error)}); {mend}.") from None


def _reason(error: BaseException) -> str:
    """What the hub answered, or else what went wrong first, on one line."""
    if said := getattr(error, "server_message", None):
        return " ".join(said.split())[:300]
    if error.__cause__ is not None:
        return _reason(error.__cause__)
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
