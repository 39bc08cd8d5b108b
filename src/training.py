"""Fine-tuning on the transformers Trainer: unsupervised SimCSE, with a look at the model after every epoch."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from datasets import Dataset
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from src.corpus import check_sentences
from src.encoder import Encoder
from src.losses import info_nce


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

    @property
    def bf16(self) -> bool:
        if self.precision == "auto":
            on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            return on_gpu or (not torch.cuda.is_available() and torch.cpu._is_avx512_bf16_supported())
        return self.precision == "bf16"


def fine_tune(
    encoder: Encoder,
    sentences: Sequence,
    settings: TrainingSettings,
    after_epoch: Callable[[int], object] = lambda epoch: None,
) -> list[float]:
    """Train `encoder` in place by unsupervised SimCSE (Gao et al. 2021, section 3); returns the loss of every step.

    Each sentence is encoded twice under the model's own dropout; the rest of the batch are the negatives. The
    learning rate warms up over a tenth of an epoch and then stays, so that after epoch 1 a run of three epochs is where
    a run of one would be. `after_epoch(1)`, … is called with the model in eval mode.

    Raises `ValueError` for sentences that repeat or are fewer than a batch, or for a model without dropout, and
    `FloatingPointError` when the loss is no longer finite.
    """
    check_sentences(sentences, "the training sentences")
    if repeated := len(sentences) - len(set(sentences)):
        raise ValueError(f"{repeated} training sentences are repeats: each would be a false negative of its twin")
    if settings.batch_size > len(sentences):
        raise ValueError(f"batch_size is {settings.batch_size}, but there are only {len(sentences)} training sentences")
    tokens = encoder.tokenize(sentences)
    _refuse_equal_views(encoder, tokens[:2])
    set_seed(settings.seed)
    progress = _Progress(settings, after_epoch)
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
            DropoutViews(encoder, settings),
            arguments,
            data_collator=lambda rows: encoder.tokenizer.pad(rows + rows, return_tensors="pt"),
            train_dataset=Dataset.from_list(tokens),
            callbacks=[progress],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    encoder.model.eval()
    return progress.losses


class DropoutViews(nn.Module):
    """The training objective as the module that the Trainer wants: tokens in, loss out.

    A batch holds every sentence twice, first half and second half; both views go through in one forward pass and
    differ by their dropout masks alone.
    """

    def __init__(self, encoder: Encoder, settings: TrainingSettings):
        super().__init__()
        width = encoder.model.config.hidden_size
        self.transformer, self.embed, self.temperature = encoder.model, encoder.embed, settings.temperature
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if settings.mlp_head else nn.Identity()
        self.head.to(encoder.model.device)

    def forward(
        self, input_ids: Int[Tensor, "views tokens"], attention_mask: Int[Tensor, "views tokens"], **inputs: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        embeddings = self.head(self.embed({"input_ids": input_ids, "attention_mask": attention_mask, **inputs}))
        # not under bf16 autocast, where a cosine has two digits: too few for 1/0.05
        with torch.autocast(embeddings.device.type, enabled=False):
            return {"loss": info_nce(*embeddings.float().chunk(2), self.temperature)}


class _Progress(TrainerCallback):
    """A plain-text progress bar with the loss, a stop when the loss is not finite, and the call after every epoch."""

    def __init__(self, settings: TrainingSettings, after_epoch: Callable[[int], object]):
        self.settings, self.after_epoch = settings, after_epoch
        self.losses: list[float] = []

    def on_epoch_begin(self, args, state, control, **kwargs):
        epochs, temperature = self.settings.epochs, self.settings.temperature
        label = f"fine-tuning, temperature {temperature}, epoch {round(state.epoch) + 1} of {epochs}"
        self.bar = tqdm(total=math.ceil(state.max_steps / epochs), desc=label, unit=" steps", leave=False)

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(f"the loss is {logs['loss']} at step {state.global_step}: lower the learning rate")
        self.losses.append(logs["loss"])
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update()

    def on_epoch_end(self, args, state, control, model, **kwargs):
        self.bar.close()  # before the caller opens one: notebooks cannot draw one bar below another
        model.eval()
        with torch.random.fork_rng():  # whatever the caller does, training goes on as if nobody had looked
            self.after_epoch(round(state.epoch))
        model.train()


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
