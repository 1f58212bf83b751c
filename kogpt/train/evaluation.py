"""What an evaluation during training does: score the validation texts, answer the tasks, continue the prompts.

Out: fields of a step's record.

Every corpus of the training has validation texts of its own; of conversations, the learnt tokens are scored. The
validation loss is the mean over the corpora of --corpus, weighted by their shares; if there are several, and for
replayed ones, each has its bits per character too.
"""

import logging
from pathlib import Path
from typing import Any

from kogpt.eval.likelihood import held_out_corpus
from kogpt.eval.multiple_choice import Item
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.train import sample_prompts, task_evaluation
from kogpt.train.corpora import Corpora
from kogpt.train.distributed import Ranks, broadcast_object, on_first
from kogpt.train.engine import TrainingEngine
from kogpt.train.step_metrics import Validation, validate
from kogpt.train.stop_signal import Stop
from kogpt.train.task_evaluation import Tasks

log = logging.getLogger(__name__)


class Evaluation:
    """The validation texts and prompts of a training."""

    def __init__(self, corpora: Corpora, max_seq_len: int, stride: int, prompts: tuple[str, ...]) -> None:
        self.corpora, self.prompts, self.max_seq_len = corpora, prompts, max_seq_len
        self.texts = {part.name: held_out_corpus(part.corpus, max_seq_len, stride) for part in corpora.parts}
        self._encoded: list[list[int]] = []
        self._tasks = Tasks([], [])

    def encode(self, ranks: Ranks, tasks: Path | None, tokens: float, batch_rows: int) -> None:
        """Encode the prompts and the file of tasks on rank 0, for all ranks. `tokens`: of training per evaluation."""

        def read() -> tuple[list[list[int]], Tasks]:
            limit = self.max_seq_len
            chosen = [] if tasks is None else task_evaluation.choose(tasks, limit, tokens, batch_rows, ranks.world_size)
            return self._read(chosen)

        self._encoded, self._tasks = broadcast_object(on_first(ranks, read))

    def _read(self, items: list[Item]) -> tuple[list[list[int]], Tasks]:
        folder, limit = self.corpora.tokenizer_folder, self.max_seq_len
        texts = task_evaluation.texts_of(items)
        context = limit if self.corpora.kind == "conversations" else None
        prompts, ids = sample_prompts.encode(folder, self.prompts, context, texts)
        if not ids:
            return prompts, Tasks([], [])
        tokens = dict(zip(texts, ids, strict=True))
        return prompts, task_evaluation.encoded(items, tokens, open_tokenizer(folder), limit)

    def run(self, engine: TrainingEngine, ranks: Ranks, stop: Stop) -> dict[str, Any] | int:
        """The fields for the step's record, or the exit status of a stop. All ranks must call it."""
        record: dict[str, Any] = {}
        with engine.evaluating():
            found = self._validate(engine, ranks, stop)
            if isinstance(found, int):
                return found
            record |= self._means(found)
            if self._tasks.rows:
                answered = task_evaluation.run(self._tasks, engine.token_nll, engine.plan.micro_batch, ranks, stop)
                if isinstance(answered, int):
                    return answered
                record |= answered
            if self._encoded:
                folder = self.corpora.tokenizer_folder
                texts = sample_prompts.continue_prompts(engine.module, folder, self._encoded)
                record["continuations"] = list(zip(self.prompts, texts, strict=True))
        return record

    def before(self, engine: TrainingEngine, ranks: Ranks, stop: Stop) -> dict[str, float]:
        """The validation loss and bits per character before the first step, logged as well; {} without validation."""
        found = self.run(engine, ranks, stop)
        if isinstance(found, int) or "val_loss" not in found:
            return {}
        loss, bits = found["val_loss"], found["val_bits_per_char"]
        log.info(f"before step 1: validation loss {loss:.4f}, {bits:.4f} bits per character")
        return {"val_loss": loss, "val_bits_per_char": bits}

    def _validate(self, engine: TrainingEngine, ranks: Ranks, stop: Stop) -> dict[str, Validation] | int:
        found = {}
        for name, text in self.texts.items():
            if text.rows:
                result = validate(engine.token_nll, text, engine.plan.micro_batch, ranks, stop)
                if isinstance(result, int):
                    return result
                found[name] = result
        return found

    def _means(self, found: dict[str, Validation]) -> dict[str, float]:
        main = [part for part in self.corpora.parts if part.name in found and not part.replayed]
        record = {}
        if main:
            whole = sum(part.share for part in main)
            scored = [(part.share / whole, found[part.name]) for part in main]
            record["val_loss"] = sum(share * one.loss for share, one in scored)
            record["val_bits_per_char"] = sum(share * one.bits_per_char for share, one in scored)
        if len(self.corpora.parts) > 1:
            record |= {f"val_bits_per_char/{name}": one.bits_per_char for name, one in found.items()}
        return record
