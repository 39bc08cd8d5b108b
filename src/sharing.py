"""Save a fine-tuned encoder as a folder that sentence-transformers and transformers open."""

import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from src.encoder import Encoder


def save_encoder(encoder: Encoder, folder: Path | str, settings: dict) -> Path:
    """Write the encoder to `folder`, with a model card that holds `settings`; an older model there is replaced.

    The folder appears complete or not at all. Raises `FileExistsError` when `folder` holds something that is no model,
    `ValueError` for a pooling that sentence-transformers has no name for.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "modules.json").is_file():
        raise FileExistsError(f"{folder} exists and holds no model: nothing is overwritten")
    if encoder.pooling == "first_last_mean":
        raise ValueError("sentence-transformers has no first_last_mean pooling: train with cls, mean or max")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write(encoder, scratch, settings)
        scratch.chmod(0o755)
        if folder.exists():
            os.replace(folder, old := scratch.with_name(scratch.name + ".old"))
            os.replace(scratch, folder)
            shutil.rmtree(old)
        else:
            os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _write(encoder: Encoder, folder: Path, settings: dict) -> None:
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    kinds = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    pooling = {f"pooling_mode_{kind}": encoder.pooling == name for name, kind in kinds.items()}
    files = {
        # the classic module paths: version 6 opens them and older versions know no others
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{module}"}
            for i, (path, module) in enumerate(
                (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
            )
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": encoder.model.config.hidden_size, **pooling},
        "sentence_bert_config.json": {"max_seq_length": encoder.max_length, "do_lower_case": False},
        "training.json": settings,
    }
    (folder / "2_Normalize").mkdir()
    (folder / "1_Pooling").mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    lines = "\n".join(f"- {key}: {value}" for key, value in settings.items())
    (folder / "README.md").write_text(
        f"---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n---\n# {folder.name}\n\n"
        f"{encoder.name} fine-tuned without labels by unsupervised SimCSE (Gao et al. 2021) on one domain.\n"
        f"{encoder.pooling} pooling, unit-length embeddings, up to {encoder.max_length} tokens.\n\n"
        f"## Settings\n\n{lines}\n- transformers: {version('transformers')}\n- torch: {version('torch')}\n"
    )
