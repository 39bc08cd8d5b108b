"""Fine-tuning on the transformers Trainer, by any of three objectives, with a look at the model after every epoch."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from src.corpus import check_sentences
from src.encoder import Encoder
from src.losses import info_nce, relation_loss, take_apart, topic_and_facts
from src.quality import effective_rank
from src.similarity import pairwise_distribution

OBJECTIVES = ("simcse", "supervised_simcse", "topic_and_facts")
PROBE, LOOKS = 128, 4  # sentences by which a collapse is seen, and how often an epoch


@dataclass(frozen=True)
class TrainingSettings:
    """What a run depends on beside model and sentences. Raises `ValueError` for a value that cannot work."""

    epochs: int = 1  # Gao et al. 2021 train for one
    temperature: float = 0.05  # theirs
    learning_rate: float = 3e-5  # theirs for BERT-base with batches of 64
    batch_size: int = 64  # sentences; each has batch_size - 1 negatives
    mlp_head: bool = False  # a dense layer with tanh on top, trained and then dropped (their table 11)
    seed: int = 0
    precision: str = "auto"  # "fp32", "bf16", or "auto": bf16 autocast where the hardware has it
    objective: str = "simcse"  # one of OBJECTIVES
    facts: float = 0.7  # their share of the targets of `topic_and_facts`; the topic has the rest
    stretch: float = 2.5  # by how much those targets' cosines are multiplied

    def __post_init__(self):
        if self.epochs < 1 or self.epochs != int(self.epochs):
            raise ValueError(f"epochs is {self.epochs}: it must be a whole number, 1 or more")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}: it must be above 0 (the paper uses 0.05)")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: it must be above 0 (the paper uses 3e-5)")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}: without a second sentence there are no negatives")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision is {self.precision!r}: expected auto, fp32 or bf16")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r}: expected one of {', '.join(OBJECTIVES)}")
        if not 0 <= self.facts <= 1:
            raise ValueError(f"facts is {self.facts}: it is a share, from 0 (topic alone) to 1 (facts alone)")
        if not self.stretch > 0:
            raise ValueError(f"stretch is {self.stretch}: it must be above 0 (1 leaves the targets as they are)")

    @property
    def bf16(self) -> bool:
        if self.precision == "auto":
            on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            return on_gpu or (not torch.cuda.is_available() and torch.cpu._is_avx512_bf16_supported())
        return self.precision == "bf16"


class Collapse(RuntimeError):
    """Training was stopped; the encoder is as it was when it was last seen to be in order."""


def fine_tune(
    encoder: Encoder,
    sentences: Sequence,
    settings: TrainingSettings,
    after_epoch: Callable[[int], object] = lambda epoch: None,
    parts: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[float]:
    """Train `encoder` in place; returns the loss of every step.

    - `simcse` (Gao et al. 2021, section 3): each sentence is encoded twice under the model's own dropout; the rest of
      the batch are the negatives.
    - `supervised_simcse` (their section 4): a row of `sentences` is (anchor, positive) or (anchor, positive, hard
      negative), each encoded once.
    - `topic_and_facts`: each sentence is encoded once, and the batch's cosines learn those of its targets, made of
      `parts`, which `take_apart` returns for these sentences; None: it is called here, with the encoder as it comes.

    The learning rate warms up over a tenth of an epoch and then stays, so that after epoch 1 a run of three epochs is
    where a run of one would be. `after_epoch(1)`, … is called with the model in eval mode.

    Raises `ValueError` for sentences that repeat or are fewer than a batch, or for a model without dropout where its
    views would be equal; `Collapse` when the loss is not finite, all cosines get high, or few directions are left.
    """
    columns = _columns(sentences, settings)
    targets = None
    if settings.objective == "topic_and_facts":
        topic, facts = parts or take_apart(columns[0], encoder.encode, seed=settings.seed)
        targets = torch.from_numpy(topic_and_facts(topic, facts, settings.facts).astype(np.float32))
    tokens = [encoder.tokenize(column) for column in columns]
    if settings.objective == "simcse":
        _refuse_equal_views(encoder, tokens[0][:2])
        tokens *= 2  # two views

    def collate(rows: list[int]) -> dict[str, Tensor]:
        views = [view[row] for view in tokens for row in rows]
        return {**encoder.tokenizer.pad(views, return_tensors="pt"), "rows": torch.tensor(rows)}

    set_seed(settings.seed)
    progress = _Progress(encoder, columns[0], settings, after_epoch)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=settings.epochs, per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate, lr_scheduler_type="constant_with_warmup",
            warmup_steps=math.ceil(0.1 * len(sentences) / settings.batch_size), seed=settings.seed, bf16=settings.bf16,
            use_cpu=not torch.cuda.is_available(), logging_steps=1, logging_nan_inf_filter=False, save_strategy="no",
            report_to="none", disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        trainer = Trainer(
            Objective(encoder, settings, targets),
            arguments,
            data_collator=collate,
            train_dataset=range(len(sentences)),
            callbacks=[progress],
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        finally:
            encoder.model.eval()
    return progress.losses


class Objective(nn.Module):
    """The training objective as the module that the Trainer wants: tokens in, loss out.

    A batch holds every view of its sentences, one view after the other, and all go through in one forward pass: for
    `simcse` the same sentences twice, differing by their dropout masks alone. `rows` says which sentences they are.
    """

    def __init__(
        self, encoder: Encoder, settings: TrainingSettings, targets: Float[Tensor, "n target_dim"] | None = None
    ):
        super().__init__()
        width = encoder.model.config.hidden_size
        self.transformer, self.embed, self.settings = encoder.model, encoder.embed, settings
        self.register_buffer("targets", targets, persistent=False)
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if settings.mlp_head else nn.Identity()
        self.head.to(encoder.model.device)

    def forward(
        self,
        rows: Int[Tensor, " batch"],
        input_ids: Int[Tensor, "views tokens"],
        attention_mask: Int[Tensor, "views tokens"],
        **inputs: Tensor,
    ) -> dict[str, Float[Tensor, ""]]:
        embeddings = self.head(self.embed({"input_ids": input_ids, "attention_mask": attention_mask, **inputs}))
        # not under bf16 autocast, where a cosine has two digits: too few for 1/0.05
        with torch.autocast(embeddings.device.type, enabled=False):
            if self.targets is not None:
                return {"loss": relation_loss(embeddings.float(), self.targets[rows], self.settings.stretch)}
            anchors, positives, *hard_negatives = embeddings.float().split(len(rows))
            return {"loss": info_nce(anchors, positives, self.settings.temperature, *hard_negatives)}


class _Progress(TrainerCallback):
    """A plain-text progress bar with the loss, the guard against a collapse, and the call after every epoch."""

    def __init__(
        self,
        encoder: Encoder,
        sentences: Sequence[str],
        settings: TrainingSettings,
        after_epoch: Callable[[int], object],
    ):
        self.encoder, self.settings, self.after_epoch = encoder, settings, after_epoch
        self.probe = sentences[:PROBE]
        self.losses: list[float] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.steps = state.max_steps // self.settings.epochs  # of an epoch
        self.every = max(1, self.steps // LOOKS)
        self.mean, self.rank = self._look()
        self._keep(0)

    def on_epoch_begin(self, args, state, control, **kwargs):
        of_objective = f", temperature {self.settings.temperature}" * ("simcse" in self.settings.objective)
        label = f"{self.settings.objective}{of_objective}, epoch {round(state.epoch) + 1} of {self.settings.epochs}"
        self.bar = tqdm(total=self.steps, desc=label, unit=" steps", leave=False)

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            self._stop(f"the loss is {logs['loss']} at step {state.global_step}")
        self.losses.append(logs["loss"])
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update()
        if state.global_step % self.every == 0 or state.global_step % self.steps == 0:  # before `after_epoch`
            self._guard(state.global_step)

    def on_epoch_end(self, args, state, control, model, **kwargs):
        self.bar.close()  # before the caller opens one: notebooks cannot draw one bar below another
        model.eval()
        with torch.random.fork_rng():  # whatever the caller does, training goes on as if nobody had looked
            self.after_epoch(round(state.epoch))
        model.train()

    def _look(self) -> tuple[float, float]:
        """Mean cosine and effective rank of the probe; dropout is off, so nothing random is drawn."""
        embeddings = self.encoder.encode(self.probe, progress=False)
        try:
            return pairwise_distribution(embeddings).mean, effective_rank(embeddings)
        except ValueError:  # NaN, a row of zeros, or all rows equal
            return math.nan, math.nan

    def _guard(self, step: int) -> None:
        mean, rank = self._look()
        if not mean < (1 + self.mean) / 2:
            self._stop(f"the mean cosine is {mean:.2f} at step {step}, it was {self.mean:.2f} before training")
        if not rank > self.rank / 3:
            self._stop(f"the effective rank is {rank:.0f} at step {step}, it was {self.rank:.0f} before training")
        self._keep(step)

    def _keep(self, step: int) -> None:
        self.kept = step, {name: value.clone() for name, value in self.encoder.model.state_dict().items()}

    def _stop(self, reason: str) -> None:
        self.bar.close()
        step, weights = self.kept
        self.encoder.model.load_state_dict(weights)
        stretched = " or the stretch" if self.settings.objective == "topic_and_facts" else ""
        raise Collapse(
            f"{reason}: stopped, and the model is as it was at step {step}. "
            f"Lower the learning rate{stretched}, or train less"
        )


def _columns(sentences: Sequence, settings: TrainingSettings) -> list[list[str]]:
    """The views that a row of the training data has, each checked: one column of sentences, or two or three."""
    columns = [list(sentences)]
    if settings.objective == "supervised_simcse":
        lengths = {len(row) if isinstance(row, tuple | list) else 1 for row in sentences}
        if lengths not in ({2}, {3}):
            raise ValueError(
                "supervised_simcse learns from rows of (anchor, positive) or (anchor, positive, hard negative), "
                f"these have {' or '.join(map(str, sorted(lengths)))} sentences"
            )
        columns = [list(column) for column in zip(*sentences)]
    for column in columns:
        check_sentences(column, "the training sentences")
    if repeated := len(columns[0]) - len(set(columns[0])):
        raise ValueError(f"{repeated} training sentences are repeats: each would be a false negative of its twin")
    if settings.batch_size > len(sentences):
        raise ValueError(f"batch_size is {settings.batch_size}, but there are only {len(sentences)} training sentences")
    return columns


def _refuse_equal_views(encoder: Encoder, tokens: list[dict[str, list[int]]]) -> None:
    """Two passes in training mode must differ, or the objective has nothing to teach."""
    batch = encoder.tokenizer.pad(tokens, return_tensors="pt")
    was_training = encoder.model.training
    encoder.model.train()
    with torch.no_grad(), torch.random.fork_rng():
        equal = torch.equal(encoder.embed(batch), encoder.embed(batch))
    encoder.model.train(was_training)
    if equal:
        raise ValueError(
            f"{encoder.name} has dropout 0 everywhere, both views of a sentence would be identical: set dropout in its "
            "config.json (hidden_dropout_prob = 0.1 for most models)"
        )


def view_retrieval(encoder: Encoder, sentences: Sequence[str]) -> float:
    """Share of the sentences whose second dropout view is nearer to the first than the views of all others are, in
    [0, 1]: what SimCSE trains for, on sentences that need not have been trained on, without a label."""
    was_training = encoder.model.training
    encoder.model.train()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        rows = encoder.tokenize(sentences)
        first, second = (
            torch.cat([
                F.normalize(encoder.embed(encoder.tokenizer.pad(rows[i : i + 64], return_tensors="pt")), dim=-1)
                for i in range(0, len(rows), 64)
            ])
            for _ in range(2)
        )  # fmt: skip
    encoder.model.train(was_training)
    return float((first @ second.T).argmax(1).eq(torch.arange(len(rows), device=first.device)).float().mean())
