"""The training loop: step, evaluate, save. In: options, corpus, ranks. Out: a run folder, and an exit status.

After every step all ranks agree on the loss, on whether the update was skipped, and on whether to stop. This takes one
small collective and one wait for the device. Position and randomness depend only on (seed, step, rank), so a resumed
run continues with the same numbers. If a stop interrupts an evaluation, the step's record waits in the checkpoint.

Exit status: 0 finished; 1 failed (`TrainingFailed`, or a bug); 2 wrong flags, files, or settings. A request to stop
saves a checkpoint first: 130 SIGINT; 143 SIGTERM, or the launcher died; 138 SIGUSR1.
"""

import hashlib
import logging
import math
import time
from typing import Any

import torch

from kogpt.checkpoint.layout import pointed
from kogpt.data.loader import Share
from kogpt.optim.schedule import learning_rate, warmup_length
from kogpt.tracking.tracker import Tracker
from kogpt.tracking.wandb_run import start as start_wandb
from kogpt.train.activation_checkpointing import checkpoint_blocks
from kogpt.train.checkpoints import Checkpoints
from kogpt.train.compile import compile_as_wished
from kogpt.train.corpora import Corpora
from kogpt.train.deepspeed_config import EnginePlan
from kogpt.train.distributed import PATIENT_SECONDS, Ranks, on_first, set_timeouts
from kogpt.train.engine import TrainingEngine
from kogpt.train.evaluation import Evaluation
from kogpt.train.fine_tuning import begin
from kogpt.train.gpu_peaks import UNITS, peak_flops
from kogpt.train.heap import Heap
from kogpt.train.options import TrainOptions, stride
from kogpt.train.planner import fit_memory
from kogpt.train.profile import Profile
from kogpt.train.resume import Start, find_start
from kogpt.train.run_folder import hold
from kogpt.train.run_metadata import about, copy_tokenizer
from kogpt.train.setup import Setup
from kogpt.train.step_metrics import agree, mfu
from kogpt.train.stop_signal import Stop
from kogpt.train.task_evaluation import tokens_between

log = logging.getLogger(__name__)

SKIPS_IN_A_ROW = 20
"""Training fails after this many skipped updates in a row. The search for an fp16 loss scale takes fewer."""


class TrainingFailed(Exception):
    """Training cannot continue. The message says why, and from which checkpoint to resume."""


class Trainer:
    """One training, from its first step, or the step it resumes from, to its end."""

    def __init__(
        self, options: TrainOptions, setup: Setup, plan: EnginePlan, corpora: Corpora, ranks: Ranks, stop: Stop
    ) -> None:
        self.options, self.corpora, self.ranks, self.stop = options, corpora, ranks, stop
        self.run, self.plan, self.batches = options.out, plan, setup.batches
        self.base, self.init, self.config, self.recipe = setup.base, setup.init, setup.config, setup.recipe
        context = self.config.max_seq_len
        prompts = options.run.prompts if options.run.prompts is not None else corpora.prompts
        self.evaluation = Evaluation(corpora, context, stride(options.run, context), prompts)
        self.tokens_per_step = plan.global_batch * self.config.max_seq_len
        self.steps = setup.recipe.steps
        self.profile = Profile(options.run.profile, self.run, ranks, self.steps)
        corpora.check_length(self.batches, self.steps, plan.global_batch)
        self.identity = {
            "corpus": corpora.fingerprint,
            "seed": options.run.seed,
            "global_batch": plan.global_batch,
            "model": self.config.to_dict(),
            "recipe": setup.recipe.to_dict(),
            **({"kind": corpora.kind} if corpora.kind != "articles" else {}),
            **({"init": self.init} if self.init else {}),
            **({"branch_of": setup.branch_of} if setup.branch_of else {}),
        }
        self.heap = Heap()
        self.tracker: Tracker | None = None
        self.step = self.skipped = self.skips_in_a_row = 0
        self.unlogged: dict[str, Any] | None = None  # the record of this step while its evaluation is incomplete

    def train(self) -> int:
        """Train to the end or until stopped, and return the exit status."""
        set_timeouts(PATIENT_SECONDS)  # until the first step is done, because a rank may read or compile for long
        lock = on_first(self.ranks, lambda: hold(self.run))
        state = "failed"
        try:
            if not self.prepare():
                return 0
            code = self._loop()
            set_timeouts(PATIENT_SECONDS)  # rank 0 may wait for a disk or W&B, and the others do their next training
            state = "stopped" if code else "finished"
        finally:
            if self.tracker is not None:
                self.tracker.finish(state)
            if lock is not None:
                lock.release()
        return code

    def prepare(self) -> bool:
        """Fit the memory, find the checkpoint, build the engine, open the files.

        Returns False if there is nothing left to train. The run folder must be locked: files in it are written.
        """
        self._fit_memory()
        resume = self.options.run.resume
        base = self.base
        if base is not None:
            known = {"corpus", "kind", "init", "recipe"}
            resume, about = "auto", {key: self.identity[key] for key in known & {*self.identity}}
            on_first(self.ranks, lambda: begin(self.run, base, self.corpora, self.config, about))
        start = find_start(self.run, resume, self.identity, self.ranks)
        self._take_position(start)
        self.profile.begin(self.step)
        if self.step >= self.steps and self.unlogged is None:
            log.info(f"{self.run} is finished with {self.step} of {self.steps} steps; raise --steps to continue.")
            return False
        log.info(
            f"{self.config.parameter_count / 1e6:.1f}M parameters, {self.steps:,} steps of "
            f"{self.tokens_per_step:,} tokens; each rank needs about {self.memory}"
        )
        for line in self.corpora.lines(self.batches, self.steps * self.plan.global_batch):
            log.info(line)
        on_first(self.ranks, lambda: copy_tokenizer(self.corpora.tokenizer_folder, self.run))
        run = self.options.run
        between = tokens_between(run.eval_every, run.save_every, self.tokens_per_step)
        self.evaluation.encode(self.ranks, run.eval_tasks, between, self.plan.micro_batch)
        self.engine = TrainingEngine(self.config, self.plan, self.ranks, self.options.run.seed, start.checkpoint)
        if start.checkpoint is not None:
            self.engine.restore(start.checkpoint)
        if self.options.run.checkpoint_activations:
            checkpoint_blocks(self.engine.module)
        if self.init is not None and self.step == 0:
            self.init |= self.evaluation.before(self.engine, self.ranks, self.stop)
        compile_as_wished(self.engine.module, self.options.run.compile, self.plan.stage, self.ranks.device.type)
        self._start_tracking(start)
        best = start.state["best"] if start.state is not None else None
        self.checkpoints = Checkpoints(self.run, self.options.run.keep, self.ranks, self.tracker, best)
        return True

    def _fit_memory(self) -> None:
        """Choose the micro-batch."""
        ranks = self.ranks
        self.plan, self.memory = fit_memory(
            self.config,
            self.plan,
            ranks,
            self.run,
            checkpoint_activations=self.options.run.checkpoint_activations,
            document_mask=self.batches.has_documents,
        )
        share = Share(self.plan.micro_batch, self.plan.grad_accum, ranks.rank, ranks.world_size, ranks.device)
        self.batches = self.batches.of(share)

    def _loop(self) -> int:
        run = self.options.run
        code = 0
        while not code and (self.step < self.steps or self.unlogged is not None):
            if self.unlogged is None:
                with self.profile.step(self.step + 1):
                    record, code = self.train_step()
            else:
                record, self.unlogged = self.unlogged, None
            last = self.step == self.steps
            saving = last or self.step % run.save_every == 0
            if saving or self.step % run.eval_every == 0:
                code = code or self._evaluate(record)
                self.unlogged = record if code else None
            if self.unlogged is None:
                self.log(record)
            if code or saving:
                self._save(record)
            self.checkpoints.hear()
            set_timeouts()
        self.profile.end()
        self._end_saving(code)
        return code

    def train_step(self) -> tuple[dict[str, Any], int]:
        """One optimizer step. Returns its record, and the exit status if the ranks agreed to stop (else 0)."""
        started = time.perf_counter()
        schedule = self._schedule()
        if self.config.dropout:
            torch.manual_seed(_step_seed(self.options.run.seed, self.step, self.ranks.rank))
        total, waited, mark = torch.zeros((), device=self.ranks.device), 0.0, time.perf_counter()
        batches = self.batches.step(self.step * self.plan.global_batch)
        for batch in batches.micro_batches:
            waited += time.perf_counter() - mark
            loss = self.engine.loss(batch)
            self.engine.backward(loss, batches.targets)
            total += loss.detach()
            mark = time.perf_counter()
        grad_norm = self.engine.update(schedule)
        agreed = agree(self.ranks, self.stop, total / batches.targets, grad_norm)
        if self.ranks.device.type == "cpu":
            self.heap.watch(agreed.memory_gib[self.ranks.rank])
        self.step += 1
        self._count_skip(math.isfinite(agreed.grad_norm))
        seconds = time.perf_counter() - started
        lr = self.plan.lr * schedule
        record = self._record(agreed.loss, lr, agreed.grad_norm, seconds, waited, agreed.memory_gib)
        return record, agreed.stop_code

    def _record(
        self, loss: float, lr: float, grad_norm: float, seconds: float, waited: float, memory: list[float]
    ) -> dict[str, Any]:
        """The line of metrics.jsonl. W&B uses the same names."""
        tokens_per_s = self.tokens_per_step / seconds
        consumed = self.step * self.plan.global_batch
        return {
            "step": self.step,
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "loss_scale": self.engine.loss_scale,
            "skipped_steps": self.skipped,
            "epoch": consumed / self.corpora.epoch(self.batches),
            "tokens": self.step * self.tokens_per_step,
            "tokens_per_s": tokens_per_s,
            "chars_per_s": tokens_per_s * self.corpora.chars_per_token,
            "step_s": seconds,
            "data_wait": waited / seconds,
            "mfu": mfu(tokens_per_s, self.flops_per_token, self.peak, self.ranks.world_size),
            **{f"memory_gib_rank{rank}": gib for rank, gib in enumerate(memory)},
            "val_loss": None,
            "val_bits_per_char": None,
        }

    def _count_skip(self, applied: bool) -> None:
        self.skipped += not applied
        self.skips_in_a_row = 0 if applied else self.skips_in_a_row + 1
        if not applied:
            log.warning(f"Step {self.step}: a gradient is not finite, so all ranks skip the update.")
        if self.skips_in_a_row == SKIPS_IN_A_ROW:
            self.checkpoints.wait()
            last, kind = pointed(self.run, "latest"), "AdamW" if self.plan.muon is None else "Muon"
            raise TrainingFailed(
                f"the gradients of {SKIPS_IN_A_ROW} steps in a row were not finite, the last at step {self.step}; "
                f"the last good checkpoint is {last or 'none'}; resume from it with half the "
                f'learning rate: "optimizer": {{"type": "{kind}", "params": {{"lr": {self.plan.lr / 2:g}}}}} in '
                f"{self.plan.path.name}."
            )

    def _evaluate(self, record: dict[str, Any]) -> int:
        """Add validation results and continued prompts to the record. Returns the exit status of a stop, else 0."""
        found = self.evaluation.run(self.engine, self.ranks, self.stop)
        if isinstance(found, int):
            return found
        record |= found
        return 0

    def log(self, record: dict[str, Any]) -> None:
        """Record the metrics of a step. Only rank 0 has a tracker."""
        if self.tracker is None:
            return
        every = self.options.run.eval_every
        self.tracker.log(record, next_evaluation=min(self.steps, (self.step // every + 1) * every))
        if record["val_loss"] is not None or {"continuations", "above_chance"} & record.keys():
            self.tracker.evaluated(record)

    def _save(self, record: dict[str, Any]) -> None:
        """Start a checkpoint of this step. It is written while training continues."""
        state = {
            "step": self.step,
            "tokens": record["tokens"],
            "skipped_steps": self.skipped,
            "warmup_steps": self.warmup_steps,
            "unlogged": self.unlogged,
            "world_size": self.ranks.world_size,
            "zero_stage": self.plan.stage,
            "precision": self.plan.precision,
            **self.engine.counters(),
        }
        self.checkpoints.start(self.identity, state, record["val_loss"], self.engine.parts())

    def _end_saving(self, code: int) -> None:
        """Wait for the last checkpoint. Raises `TrainingFailed` if training is complete but it could not be saved."""
        unsaved = self.checkpoints.end()
        from_where = f"repeat the same command to continue from {pointed(self.run, 'latest') or 'the start'}."
        if unsaved is not None and not code:
            raise TrainingFailed(
                f"the last checkpoint could not be saved ({unsaved}); free disk space, then {from_where}"
            )
        if code:
            log.info(f"Stopped after step {self.step}; {from_where}")

    def _take_position(self, start: Start) -> None:
        state = start.state or {"step": 0, "skipped_steps": 0}
        self.step, self.skipped = state["step"], state["skipped_steps"]
        self.unlogged = state.get("unlogged")
        self.warmup_steps = warmup_length(self.recipe.warmup, self.steps, state.get("warmup_steps"))
        self.flops_per_token = self.config.flops_per_token(self.config.max_seq_len)
        self.peak = None
        if self.ranks.device.type == "cuda":
            self.peak = peak_flops(torch.cuda.get_device_name(self.ranks.device), UNITS[self.plan.precision])
        if start.state is not None and self.step:
            log.info(f"Continuing after step {self.step} of {self.run}.")

    def _schedule(self) -> float:
        """The factor on the peak learning rate of each parameter group in this step."""
        recipe = self.recipe
        return learning_rate(
            self.step,
            schedule=recipe.schedule,
            peak=1.0,
            total_steps=self.steps,
            warmup_steps=self.warmup_steps,
            decay_steps=round(recipe.decay * self.steps),
            final_ratio=recipe.min_lr_ratio,
        )

    def _start_tracking(self, start: Start) -> None:
        """Open the metrics files and the W&B run (on rank 0)."""
        source = start.checkpoint.folder.parent.parent if start.checkpoint is not None else self.run

        def open_tracker() -> Tracker:
            known = about(self.options, self.plan, self.corpora, self.identity, self.memory, self.ranks)
            known["data"] = self.corpora.report(self.batches)
            run = self.options.run
            return Tracker(
                self.run,
                step=self.step - (self.unlogged is not None),
                steps=self.steps,
                about=known,
                wandb=start_wandb(self.run, run.wandb, run.wandb_project, known),
                source=source / "metrics.jsonl",
                artifact=run.wandb_artifact,
            )

        self.tracker = on_first(self.ranks, open_tracker)


def _step_seed(seed: int, step: int, rank: int) -> int:
    """The dropout seed of one step on one rank."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:7])
