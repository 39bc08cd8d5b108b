"""The training objectives, each as one or more terms: which texts a step embeds, and the loss of their embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate.utils import broadcast_object_list
from jaxtyping import Float, Int
from torch import Tensor

from src.corpus import check_sentences
from src.encoder import Encoder, Tokens
from src.losses import info_nce, ranking_loss, rehearsal_loss, relation_loss
from src.settings import TrainingSettings
from src.targets import topic_and_facts

FEWEST_PAIRS = 10
PAIRS, REHEARSED = 64, 32  # graded pairs and everyday sentences in a step


@dataclass(frozen=True, eq=False)
class Term:
    """A part of the objective: `batch_size` of the rows in each step, and the loss of their embeddings."""

    views: list[Tokens]  # one, two or three texts of each row
    loss: Callable[[Float[Tensor, "batch views dim"], Tensor | None], Float[Tensor, ""]]
    batch_size: int
    targets: np.ndarray | None = None  # what `loss` learns: one row for each row of texts

    @property
    def steps(self) -> int:
        """Of an epoch; sentences left over after the last full batch wait for the next one."""
        return len(self.views[0]) // self.batch_size

    def rows(self, step: int, seed: Sequence[int]) -> Int[np.ndarray, " batch"]:
        """The numbers of this step's rows. Each epoch is shuffled anew; the order depends on seed and step alone."""
        epoch, position = divmod(step, self.steps)
        order = _epoch_order(len(self.views[0]), *seed, epoch)
        return order[position * self.batch_size : (position + 1) * self.batch_size]


@lru_cache(maxsize=8)  # an epoch's order is made once, not at every step
def _epoch_order(rows: int, *seed: int) -> Int[np.ndarray, " rows"]:
    return np.random.default_rng(seed).permutation(rows)


def make_terms(
    encoder: Encoder,
    sentences: Sequence,
    settings: TrainingSettings,
    targets: Float[np.ndarray, "n target_dim"] | None,
    pairs: pd.DataFrame | None,
    rehearsal: Sequence[str] | None,
) -> list[Term]:
    """The terms of `settings.objective`; the first one is what epochs are counted by. Raises `ValueError` for data that
    the objective cannot use."""
    if settings.objective == "graded_pairs":
        if pairs is None:
            raise ValueError("graded_pairs learns from pairs: give some")
        return [_pair_term(encoder, pairs, settings)]
    terms = [_sentence_term(encoder, sentences, settings, targets)]
    if rehearsal is not None and settings.objective == "topic_and_facts":
        terms.append(_rehearsal_term(encoder, rehearsal))
    return terms


def _sentence_term(encoder: Encoder, sentences: Sequence, settings: TrainingSettings, targets) -> Term:
    columns = _columns(sentences, settings)
    views = [encoder.tokenize(column) for column in columns]
    if settings.objective == "topic_and_facts":
        if targets is None:
            targets = topic_and_facts(columns[0], encoder.encode, settings.facts)
        (targets,) = broadcast_object_list([targets])  # all processes have those of the first, to the last bit
        return Term(
            views, lambda e, wanted: relation_loss(e[:, 0], wanted, settings.stretch), settings.batch_size, targets
        )
    if settings.objective == "simcse":
        _refuse_equal_views(encoder, views[0][:2])
        views *= 2  # the two views of a sentence differ by their dropout masks alone

    def loss(embeddings: Tensor, _) -> Tensor:
        anchors, positives, *hard_negatives = embeddings.unbind(1)
        return info_nce(anchors, positives, settings.temperature, *hard_negatives)

    return Term(views, loss, settings.batch_size)


def _pair_term(encoder: Encoder, pairs: pd.DataFrame, settings: TrainingSettings) -> Term:
    if len(pairs) < FEWEST_PAIRS or pairs["relatedness"].nunique() < 2:
        grades = pairs["relatedness"].nunique()
        raise ValueError(
            f"{len(pairs)} pairs of {grades} grades: {FEWEST_PAIRS} pairs or more, not all alike, are needed"
        )
    views = [encoder.tokenize(pairs[column].tolist()) for column in ("sentence1", "sentence2")]

    def loss(embeddings: Tensor, relatedness: Tensor) -> Tensor:
        cosines = F.cosine_similarity(*embeddings.unbind(1), dim=-1)
        if settings.pair_loss == "ranking":
            return ranking_loss(cosines, relatedness, settings.temperature)
        return F.mse_loss(cosines, relatedness)  # Reimers & Gurevych 2019, section 3

    return Term(views, loss, min(PAIRS, len(pairs)), pairs["relatedness"].to_numpy(np.float32))


def _rehearsal_term(encoder: Encoder, rehearsal: Sequence[str]) -> Term:
    check_sentences(rehearsal, "the rehearsal sentences")
    before = encoder.encode(rehearsal, progress=False)
    return Term(
        [encoder.tokenize(rehearsal)],
        lambda e, before: rehearsal_loss(e[:, 0], before),
        min(REHEARSED, len(before)),
        before,
    )


def _columns(sentences: Sequence, settings: TrainingSettings) -> list[list[str]]:
    """The columns of the training data, each checked: one of sentences, or two or three for supervised SimCSE."""
    columns = [list(sentences)]
    if settings.objective == "supervised_simcse":
        lengths = {len(row) if isinstance(row, tuple | list) else 1 for row in sentences}
        if lengths not in ({2}, {3}):
            counts = " or ".join(map(str, sorted(lengths)))
            raise ValueError(f"supervised_simcse learns from rows of 2 or 3 sentences each, these rows have {counts}")
        columns = [list(column) for column in zip(*sentences)]
    for column in columns:
        check_sentences(column, "the training sentences")
    for column in columns[:2]:
        if repeats := len(column) - len(set(column)):
            raise ValueError(f"{repeats} training sentences are repeats: each would be a false negative of its twin")
    if any(len({*row}) < len(row) for row in zip(*columns)) or len(set(columns[-1])) < 2:
        raise ValueError("a row of training data holds one sentence twice, or all hard negatives are the same")
    if settings.batch_size > len(columns[0]):
        raise ValueError(f"batch_size is {settings.batch_size}, but there are only {len(sentences)} training sentences")
    return columns


def has_dropout(encoder: Encoder, tokens: Tokens) -> bool:
    """Whether two passes in training mode differ; else SimCSE has nothing to teach."""
    batch = encoder.pad(tokens)
    encoder.model.train()
    with torch.no_grad(), torch.random.fork_rng():
        equal = torch.equal(encoder.embed(batch), encoder.embed(batch))
    encoder.model.eval()
    return not equal


def _refuse_equal_views(encoder: Encoder, tokens: Tokens) -> None:
    if not has_dropout(encoder, tokens):
        config = encoder.model.config.to_dict()
        zeros = [key for key, value in config.items() if "dropout" in key and "classifier" not in key and value == 0]
        raise ValueError(
            f"{encoder.name} has dropout 0 everywhere, both views of a sentence would be identical: set "
            f"{', '.join(zeros)} in its config.json (0.1 in most models), or take the objective topic_and_facts"
        )
