"""Fine-tuning by any of `OBJECTIVES`: one loop, with a look at the model after every epoch.

python -m src.training PROFILE.yaml trains and saves as fine_tune.ipynb does, without the looking. So does
torchrun --nproc-per-node N -m src.training PROFILE.yaml on N processes, which share each batch.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from accelerate.utils import gather, reduce
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from src.checkpoints import restore, run_folder, save
from src.corpus import draw_sentences, load_sentences, split_sentences
from src.encoder import Encoder, Tokens, by_length, load_encoder
from src.objectives import Objective, make_objective
from src.pairs import draw_pairs, load_pairs, load_triplets
from src.quality import effective_rank
from src.records import output_folder
from src.settings import OBJECTIVES, RunSettings, TrainingSettings, read_profile
from src.sharing import check_model_folder, save_encoder
from src.similarity import pairwise_distribution

PROBE = 64  # texts that the collapse guard embeds
LOOKS = 2  # checks of the collapse guard, and checkpoints, an epoch (about)
# Texts in one forward pass, sorted by length. Small on a CPU, to save padding (half of the time); large on a GPU, to
# fill it; 128 with gradient caching, to save memory.
CHUNK, GPU_CHUNK, CACHED_GPU_CHUNK = 32, 512, 128


def fine_tune(
    encoder: Encoder,
    sentences: Sequence,
    settings: TrainingSettings,
    after_epoch: Callable[[int], object] = lambda epoch: None,
    pairs: pd.DataFrame | None = None,
) -> list[float]:
    """Train `encoder` in place; returns the loss of every step.

    - `simcse` (Gao et al. 2021, section 3): each sentence is encoded twice under the model's own dropout; the rest of
      the batch are the negatives.
    - `supervised_simcse` (their section 4): a row of `sentences` is (anchor, positive) or (anchor, positive, hard
      negative), each encoded once.
    - `topic_and_facts`: each sentence is encoded once, and the batch's cosines learn those of its targets, which
      `src.targets` makes of the sentences and the encoder as it comes.
    - `graded_pairs`: the cosines of `pairs` (a table of `load_pairs`) learn their grades. An epoch is
      `settings.pair_steps` steps, and `sentences` are not used.

    `after_epoch(1)`, … is called with the model in eval mode. With `encoder.cache`, a run that was killed goes on from
    its last checkpoint, and one that was finished is loaded; either way `after_epoch` is called for every epoch.

    Raises `ValueError` for data that the objective cannot use, such as sentences that repeat or are fewer than a batch,
    for a model without dropout where its two views would be equal, or for a damaged checkpoint; `BlockingIOError`
    when another process is at the same run; `Collapse` when the loss is not finite, all cosines get high, or few
    directions are left.
    """
    encoder.model.eval()
    objective = make_objective(encoder, sentences, settings, pairs)

    with run_folder(encoder, settings, objective) as folder:
        try:
            return _train(encoder, objective, settings, after_epoch, folder)
        finally:
            encoder.model.eval()


def _train(encoder, objective: Objective, settings, after_epoch, folder: Path | None) -> list[float]:
    """The loop. Dropout masks and the order of the sentences depend on seed and step alone, so that a checkpoint needs
    no random state, and nothing that `after_epoch` does changes the training."""
    views = objective.views
    probe = [text for i, view in enumerate(views) for text in view[i :: len(views)][: PROBE // len(views)]]
    model, guard = encoder.model, CollapseGuard(encoder, probe, settings)
    optimizer = torch.optim.AdamW(model.parameters(), settings.rate, weight_decay=0.0, fused=True)
    steps = settings.pair_steps if settings.objective == "graded_pairs" else objective.steps  # of an epoch
    finished, losses = restore(folder, encoder, optimizer, settings.epochs, steps, after_epoch)
    guard.keep_weights(len(losses))

    for epoch in range(finished, settings.epochs):
        model.train()
        with tqdm(
            desc=f"{settings.name}, epoch {epoch + 1} of {settings.epochs}", total=steps,
            initial=len(losses) - epoch * steps, unit=" steps", leave=False, disable=not PartialState().is_main_process,
        ) as bar:  # fmt: skip
            for step in range(len(losses), (epoch + 1) * steps):
                mask_seed = np.random.SeedSequence([settings.seed, step, PartialState().process_index])
                torch.manual_seed(int(mask_seed.generate_state(1)[0]))
                # linear warm-up, then constant, so that epoch 1 does not depend on `epochs`
                optimizer.param_groups[0]["lr"] = settings.rate * min(1.0, 10 * (step + 1) / steps)
                loss = _training_step(encoder, objective, step, settings, optimizer)
                guard.check_loss(loss, step + 1)
                losses.append(loss)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update()
                done = step % steps + 1  # of this epoch
                if done % math.ceil(steps / LOOKS) == 0 or done == steps:
                    guard.check_model(step + 1)  # before anything is saved
                    save(folder, "latest", encoder, losses, optimizer)
        save(folder, f"epoch-{epoch + 1}", encoder, losses)
        model.eval()
        after_epoch(epoch + 1)  # the bar is closed: notebooks cannot draw one bar below another
    return losses


def _training_step(encoder, objective: Objective, step: int, settings, optimizer) -> float:
    """One step of the optimizer; returns the loss before it."""
    loss = batch_loss(encoder, objective, step, settings)
    optimizer.zero_grad()
    loss.backward()
    parameters = [parameter for parameter in encoder.model.parameters() if parameter.grad is not None]
    if PartialState().num_processes > 1:  # each has the gradient through its own rows, and the batch's is their sum
        total = reduce(torch.cat([parameter.grad.flatten() for parameter in parameters]), "sum")  # one message
        for parameter, gradient in zip(parameters, total.split([parameter.numel() for parameter in parameters])):
            parameter.grad = gradient.view_as(parameter)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


def batch_loss(encoder: Encoder, objective: Objective, step: int, settings: TrainingSettings) -> Float[Tensor, ""]:
    """The loss of the rows that this step draws."""
    rows = objective.rows(step, settings.seed)
    texts = [view[row] for row in rows for view in objective.views]
    with torch.autocast(encoder.model.device.type, torch.bfloat16, enabled=settings.bf16):
        embeddings = embed_texts(encoder, texts, settings.gradient_caching)
    embeddings = embeddings.float()  # under bf16 a cosine has two digits, too few to be divided by 0.05
    targets = None if objective.targets is None else torch.from_numpy(objective.targets[rows]).to(embeddings.device)
    return objective.loss(embeddings.view(len(rows), len(objective.views), -1), targets)


def embed_texts(encoder: Encoder, texts: Sequence, gradient_caching: bool = False) -> Float[Tensor, "texts dim"]:
    """Embeddings of tokenized texts. Under a launcher each process embeds its share of them.

    With `gradient_caching` no chunk's activations are kept: each is run again, under the same dropout masks, when its
    gradient is known.
    """
    process = PartialState()
    share = -(-len(texts) // process.num_processes)
    filled = list(islice(cycle(texts), share * process.num_processes))  # all processes have the same number
    own = filled[process.process_index * share : (process.process_index + 1) * share]
    size = CHUNK
    if encoder.model.device.type == "cuda":
        size = CACHED_GPU_CHUNK if gradient_caching else GPU_CHUNK
    embed = partial(checkpoint, encoder.embed, use_reentrant=False) if gradient_caching else encoder.embed
    chunks = by_length(own, size)
    embeddings = torch.cat([embed(encoder.pad([own[row] for row in rows])) for rows in chunks])
    embeddings = embeddings[np.argsort(np.concatenate(chunks))]
    return _gather_with_gradient(embeddings)[: len(texts)]


def _gather_with_gradient(own: Float[Tensor, "share dim"]) -> Float[Tensor, "filled dim"]:
    """The rows of all processes; a gradient flows to this process's own."""
    rows, start = gather(own.detach()), PartialState().process_index * len(own)
    return torch.cat([rows[:start], own, rows[start + len(own) :]])


class Collapse(RuntimeError):
    """Training diverged; the encoder has the weights of the last check that it passed."""


class CollapseGuard:
    """Stops a run that goes wrong, and gives back the weights of the last look at which all was well."""

    def __init__(self, encoder: Encoder, probe: Tokens, settings: TrainingSettings):
        self.encoder, self.probe = encoder, probe
        stretch = " or the stretch" if "stretch" in OBJECTIVES[settings.objective] else ""
        self.advice = f"Lower the learning rate{stretch}, or train less"
        self.mean, self.rank = self._measure()

    def keep_weights(self, step: int) -> None:
        weights = self.encoder.model.state_dict()
        self.healthy = step, {name: value.clone() for name, value in weights.items()}

    def check_loss(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            self._stop(f"the loss is {loss} at step {step}")

    def check_model(self, step: int) -> None:
        mean, rank = self._measure()
        if not mean < (1 + self.mean) / 2:
            self._stop(f"the mean cosine is {mean:.2f} at step {step}, it was {self.mean:.2f} before training")
        if not rank > self.rank / 3:
            self._stop(f"the effective rank is {rank:.0f} at step {step}, it was {self.rank:.0f} before training")
        self.keep_weights(step)

    def _measure(self) -> tuple[float, float]:
        """Mean cosine and effective rank of the probe's embeddings."""
        embeddings = self.encoder.encode_tokens(self.probe, progress=False)
        try:
            return pairwise_distribution(embeddings).mean, effective_rank(embeddings)
        except ValueError:  # NaN, a row of zeros, or all rows equal
            return math.nan, math.nan

    def _stop(self, reason: str) -> None:
        step, weights = self.healthy
        self.encoder.model.load_state_dict(weights)
        raise Collapse(f"{reason}: stopped, and the model is as it was at step {step}. {self.advice}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", type=Path, help="a YAML file like those in profiles/; its section fine_tune is read")
    try:
        train_and_save(*read_profile(parser.parse_args().profile))
    except (ValueError, OSError, Collapse) as error:  # whose sentences need no traceback above them
        raise SystemExit(f"Stopped. {error}") from None


def train_and_save(run: RunSettings, settings: TrainingSettings) -> None:
    """What `python -m src.training` does with its settings."""
    process = PartialState(cpu=not torch.cuda.is_available())  # under a launcher: joins the others, picks a GPU
    output_folder(check_model_folder(run.saved_model).parent)
    encoder = load_encoder(run.model, run.pooling, run.max_length, run.models_folder, run.cache_folder)
    rows, pairs = [], None
    if settings.objective == "graded_pairs":
        if not run.pairs_path:
            raise ValueError("graded_pairs learns from pairs: name a file as pairs_path, or another objective")
        source, graded = run.pairs_path, load_pairs(run.pairs_path, settings.seed)
        pairs, *_ = draw_pairs(graded, run.graded_train_pairs, 0, settings.seed)
    elif settings.objective == "supervised_simcse":
        source, rows = run.triplets_path, load_triplets(run.triplets_path)
    else:
        source, table = run.corpus_path, load_sentences(run.corpus_path, run.text_column, run.duplicates_from)
        drawn = draw_sentences(split_sentences(table, settings.seed), "train", run.train_sentences, settings.seed)
        rows = drawn["sentence"].tolist()
    count = len(rows if pairs is None else pairs)
    if process.is_main_process:
        print(f"{settings}, {count:,} rows of {source}, {process.num_processes} processes", flush=True)
    fine_tune(encoder, rows, settings, pairs=pairs)
    if process.is_main_process:
        record = asdict(settings) | {"corpus": source, "rows": count}
        print(f"saved to {save_encoder(encoder, run.saved_model, record)}")
    process.wait_for_everyone()  # a process that ends while another still talks may abort
    process.destroy_process_group()


if __name__ == "__main__":
    main()
