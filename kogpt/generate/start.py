"""Load what generation needs side by side. In: a run or step folder. Out: its model, and its codec.

The analyzer of the prompts (Kkma in its JVM: about 1 s) starts in a thread while the weights are checked and read.
"""

from contextlib import suppress
from pathlib import Path

from kogpt.checkpoint.choose import Wish
from kogpt.checkpoint.layout import tokenizer_folder
from kogpt.checkpoint.load import LoadedRun, load_for_inference
from kogpt.common.device import choose_device
from kogpt.common.errors import UserError
from kogpt.tokenizer.codec import TextCodec


def load_with_codec(
    run_or_step_folder: Path, device: str | None = None, checkpoint: Wish = None
) -> tuple[LoadedRun, TextCodec]:
    """The checkpoint, as `load_for_inference` gives it, and a codec whose analyzer is starting. Raises the same."""
    codec, chosen = None, choose_device(device)
    folder = tokenizer_folder(run_or_step_folder)
    with suppress(UserError):  # what is wrong with the checkpoint is said first
        codec = TextCodec(folder)
        codec.start()
    run = load_for_inference(run_or_step_folder, chosen, checkpoint)
    if codec is None or run.tokenizer_folder.resolve() != folder.resolve():
        codec = TextCodec(run.tokenizer_folder)
    return run, codec
