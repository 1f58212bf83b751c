"""Load what generation needs side by side. In: a run or step folder. Out: its model, and its codec.

The analyzer of the prompts (Kkma in its JVM: about 1 s) starts in a thread while the weights are read. It starts once
the checkpoint is chosen and checked, because a process that ends with an error would wait for it.
"""

from pathlib import Path

from kogpt.checkpoint.choose import Wish, choose
from kogpt.checkpoint.layout import CONFIG, MODEL, tokenizer_folder
from kogpt.checkpoint.load import LoadedRun, load_step
from kogpt.common.device import choose_device
from kogpt.tokenizer.codec import TextCodec


def load_with_codec(
    run_or_step_folder: Path, device: str | None = None, checkpoint: Wish = None
) -> tuple[LoadedRun, TextCodec]:
    """The checkpoint, as `load_for_inference` gives it, and a codec whose analyzer is starting. Raises the same."""
    chosen = choose_device(device)
    step = choose(Path(run_or_step_folder), checkpoint, (MODEL, CONFIG))
    codec = TextCodec(tokenizer_folder(step))
    codec.start()
    return load_step(step, chosen), codec
