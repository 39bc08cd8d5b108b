import os

os.environ["OMP_NUM_THREADS"] = "1"  # tiny tensors: threads only get in each other's way
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
if os.environ.get("TESTS_OF") != "gpu":  # as `make test-gpu` sets it; all others test the same on every machine
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import pytest
import torch

from src.encoder import load_encoder
from tests.tiny_model import make_tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def tiny(tiny_folder):
    return load_encoder(str(tiny_folder), "mean")


@pytest.fixture
def unit_rows():
    def make(n, dim, seed=0, offset=0.3):
        rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32) + offset
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return make


@pytest.fixture(scope="session")
def some_sentences():
    subjects, verbs, objects = (
        ["the keeper", "a sprinter", "our skipper"],
        ["beats", "holds", "meets"],
        ["the field", "a rival"],
    )
    return [f"{s} {v} {o} in lap {n}." for n in range(1, 5) for s in subjects for v in verbs for o in objects]
