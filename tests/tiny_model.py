"""A two-layer BERT with random weights, so that a whole notebook runs in seconds. `python tests/tiny_model.py FOLDER`."""

import re
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

ROOT = Path(__file__).parent.parent


def make_tiny_model(folder: Path | str, dropout: float = 0.1, seed: int = 0) -> Path:
    """Write model and tokenizer to `folder`; the vocabulary is the words of grammar and names, and the letters."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = " ".join(path.read_text().lower() for path in sorted((ROOT / "data").rglob("*.yaml")))
    words = sorted({word for word in re.findall(r"[a-z]+", text) if len(word) > 1})
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(f"a tiny model with random weights is at {make_tiny_model(sys.argv[1])}")
