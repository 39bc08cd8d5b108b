import json
import os
import shutil
import threading
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import (
    CamembertConfig,
    CamembertModel,
    GPT2Config,
    GPT2Model,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaXLConfig,
    XLMRobertaXLModel,
)  # fmt: skip

from src import encoder as encoder_module
from src.encoder import load_encoder
from src.presets import PRESETS, preset_folder


@pytest.fixture(scope="module")
def of_all_lengths(some_sentences):
    """Sentences of one to seven words, so that most of a batch are padded."""
    return [" ".join(sentence.split()[: 1 + k % 7]) for k, sentence in enumerate(some_sentences)]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_equals_sentence_transformers(tiny_folder, of_all_lengths, pooling):
    oracle = SentenceTransformer(
        modules=[Transformer(str(tiny_folder)), Pooling(32, pooling_mode=pooling), Normalize()], device="cpu"
    )
    ours = load_encoder(str(tiny_folder), pooling).encode(of_all_lengths, progress=False)
    assert ours.dtype == np.float32
    assert np.allclose(ours, oracle.encode(of_all_lengths), atol=1e-5)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_the_embedded_model_is_what_sentence_transformers_makes_of_it(of_all_lengths):
    ours = load_encoder("all-MiniLM-L6-v2")
    folder = preset_folder(PRESETS["all-MiniLM-L6-v2"], Path("models"))
    assert (ours.pooling, ours.max_length, ours.sha256) == ("mean", 256, PRESETS["all-MiniLM-L6-v2"].sha256)
    expected = SentenceTransformer(str(folder), device="cpu").encode(of_all_lengths[:6])
    assert np.allclose(ours.encode(of_all_lengths[:6], progress=False), expected, atol=1e-5)


def test_order_and_batches_do_not_matter(tiny, of_all_lengths, monkeypatch):
    embeddings = tiny.encode(of_all_lengths, progress=False)
    monkeypatch.setattr(encoder_module, "BATCH_SIZE", 5)
    backwards = tiny.encode(of_all_lengths[::-1], progress=False)[::-1]
    assert np.allclose(embeddings, backwards, atol=1e-6)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_do_not_matter(tiny, of_all_lengths, monkeypatch, three_threads):
    """Each thread takes batches of its own, so the numbers are those of one thread, bit for bit."""
    monkeypatch.setattr(encoder_module, "BATCH_SIZE", 2)
    at_work, embed = set(), tiny.embed
    barrier = threading.Barrier(3, timeout=30)  # three batches are under way at a time, or this breaks

    def seen(batch):
        if threading.get_ident() not in at_work:
            at_work.add(threading.get_ident())
            barrier.wait()
        return embed(batch)

    monkeypatch.setattr(tiny, "embed", seen)
    many = tiny.encode(of_all_lengths, progress=False)
    assert (len(at_work), torch.get_num_threads()) == (3, 3)
    torch.set_num_threads(1)
    monkeypatch.setattr(tiny, "embed", embed)
    assert np.array_equal(many, tiny.encode(of_all_lengths, progress=False))


def test_what_goes_wrong_in_a_thread_is_raised(tiny, some_sentences, monkeypatch, three_threads):
    monkeypatch.setattr(tiny, "embed", lambda batch: 1 / 0)
    tiny.model.train()
    with pytest.raises(ZeroDivisionError):
        tiny.encode(some_sentences, progress=False)
    assert (torch.get_num_threads(), tiny.model.training) == (3, True)  # as before


def test_dropout_is_off_while_encoding_and_the_mode_is_kept(tiny, some_sentences):
    tiny.model.train()
    first, second = tiny.encode(some_sentences, progress=False), tiny.encode(some_sentences, progress=False)
    assert np.array_equal(first, second)
    assert tiny.model.training


def test_cut_sentences_are_counted(tiny_folder):
    tiny = load_encoder(str(tiny_folder), "mean", max_length=8)
    with pytest.warns(UserWarning, match=r"1 of 2 sentences .* max_length = 8"):
        tiny.encode(["short one", "a far longer sentence than eight tokens will ever hold"], progress=False)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "0 sentences"),
        (["a", 7], "row 2: 7 "),
        (["a", " "], "row 2: .* empty"),
        ("Hello", "give a list of sentences, not one text"),  # else five letters are embedded
    ],
)
def test_bad_sentences(tiny, monkeypatch, sentences, message):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no type checker
    with pytest.raises(ValueError, match=message):
        tiny.encode(sentences)


def test_what_a_folder_lacks_is_named(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match=r"pooling of .* is None"):
        load_encoder(str(tiny_folder))
    for length in (2, 65):
        with pytest.raises(ValueError, match=f"max_length is {length}: .* 3 to 64"):
            load_encoder(str(tiny_folder), "cls", max_length=length)
    shutil.copytree(tiny_folder, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"bare holds no model\.safetensors"):
        load_encoder(str(tmp_path / "bare"), "cls")
    for name in ("models/nothing", "runs/nothing", "all-minilm", "./owner/model", "/owner/model"):
        with pytest.raises(FileNotFoundError, match=f"no model '{name}'"):
            load_encoder(name)


def test_bin_weights_load_and_safetensors_are_preferred(tiny_folder, tmp_path, some_sentences):
    folder = tmp_path / "with_bin"
    shutil.copytree(tiny_folder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    both = load_encoder(str(folder), "cls")
    assert both.sha256 == load_encoder(str(tiny_folder), "cls").sha256
    (folder / "model.safetensors").unlink()
    alone = load_encoder(str(folder), "cls")
    assert np.array_equal(alone.encode(some_sentences, progress=False), both.encode(some_sentences, progress=False))


def test_a_pickle_payload_is_not_executed(tiny_folder, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hacked"),)

    folder = tmp_path / "evil"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin cannot be read"):
        load_encoder(str(folder), "cls")
    assert not (tmp_path / "hacked").exists()


def test_a_tokenizer_that_is_missing_or_of_another_model(tiny_folder, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(tiny_folder, folder)
    tokenizer = load_encoder(str(folder), "mean").tokenizer
    tokenizer.add_tokens([f"more{n}" for n in range(9)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="the model's own words"):
        load_encoder(str(folder), "mean")
    for file in [*folder.glob("tokenizer*"), *folder.glob("vocab*")]:
        file.unlink()
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        load_encoder(str(folder), "mean")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        load_encoder(str(folder), "mean")


def test_missing_weights_are_no_silent_random_ones(tiny_folder, tmp_path):
    folder = tmp_path / "partial"
    shutil.copytree(tiny_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights .* encoder\.layer\.1\.output\.dense\.weight"):
        load_encoder(str(folder), "cls")


def test_pooling_is_read_from_sentence_transformers_files(tiny_folder, tmp_path):
    for name, saved in {"old": {"pooling_mode_cls_token": True}, "new": {"pooling_mode": "cls"}}.items():
        folder = tmp_path / name
        shutil.copytree(tiny_folder, folder)
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(saved))
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
        loaded = load_encoder(str(folder))
        assert (loaded.pooling, loaded.max_length) == ("cls", 24)
    two = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(two))
    with pytest.raises(ValueError, match=r"'mean\+max'"):
        load_encoder(str(folder))


def test_tokens_are_counted_before_the_cut(tiny_folder):
    encoder = load_encoder(str(tiny_folder), "mean", max_length=8)
    long = "the keeper beats the field in lap 1 and the skipper holds a rival"
    before = encoder.count_tokens([long, "the keeper"])
    with pytest.warns(UserWarning, match=r"1 of 2 sentences .* max_length = 8"):
        after = [len(row["input_ids"]) for row in encoder.tokenize([long, "the keeper"])]
    assert before[0] > after[0] == 8
    assert before[1] == after[1] == 4


def test_a_layer_that_is_not_read_is_refused(tiny_folder, tmp_path):
    folder = tmp_path / "with-dense"
    shutil.copytree(tiny_folder, folder)
    names = ("models.Transformer", "models.Pooling", "models.Dense")
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.{name}"} for name in names]))
    with pytest.raises(ValueError, match=r"with-dense .* Dense"):
        load_encoder(str(folder), "mean")


def test_a_prompt_is_put_before_each_sentence(tiny, tiny_folder, some_sentences, tmp_path):
    folder = tmp_path / "prompted"
    shutil.copytree(tiny_folder, folder)
    general = {"prompts": {"query": "the lap: ", "other": "no "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(general))
    prompted = load_encoder(str(folder), "mean")
    expected = tiny.encode(["the lap: " + sentence for sentence in some_sentences], progress=False)
    assert np.array_equal(prompted.encode(some_sentences, progress=False), expected)
    assert prompted.count_tokens(["a"]) == tiny.count_tokens(["the lap: a"])


def other_model(folder, tiny_folder, kind, config_kind, **sizes):
    """A random model of another kind with the tiny one's tokenizer."""
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    words = len((folder / "vocab.txt").read_text().splitlines())
    kind(config_kind(vocab_size=words, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "config_kind"),
    [
        (RobertaModel, RobertaConfig),
        (MPNetModel, MPNetConfig),
        (CamembertModel, CamembertConfig),
        (XLMRobertaXLModel, XLMRobertaXLConfig),
    ],
)
def test_a_sentence_as_long_as_the_model_takes(tiny_folder, tmp_path, kind, config_kind):
    """Two positions of these are never a token's: the table of 18 holds 16 tokens."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    folder = other_model(tmp_path / "other", tiny_folder, kind, config_kind, max_position_embeddings=18, **sizes)
    encoder = load_encoder(str(folder), "mean")
    sentence = "the keeper " * 7  # 14 words and two special tokens
    assert encoder.count_tokens([sentence]) == [16]
    with pytest.warns(UserWarning, match=r"1 of 2 .* max_length = 16"):
        embeddings = encoder.encode([sentence, sentence + "the keeper"], progress=False)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match=r"max_length is 17: .* 3 to 16"):
        load_encoder(str(folder), "mean", max_length=17)


def test_a_decoder_is_refused(tiny_folder, tmp_path):
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    folder = other_model(tmp_path / "decoder", tiny_folder, GPT2Model, GPT2Config, **sizes)
    with pytest.raises(ValueError, match=r"is a gpt2: an encoder is needed"):
        load_encoder(str(folder), "mean")


def of_nan(folder):
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][3, 3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_weights(name, content="{}"):
    def change(folder):
        (folder / "model.safetensors").unlink()
        (folder / name).write_text(content)

    return change


def with_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def of_kind(model_type):
    return lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": model_type}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_weights("adapter_config.json"), "holds no model.* it is a LoRA adapter: merge it"),
        (without_weights("model.onnx"), "holds no model.* ONNX alone cannot be trained"),
        (without_weights("tf_model.h5"), "holds no model.* TensorFlow's weights are not read"),
        (without_weights("model.safetensors", "version https://git-lfs.github.com/spec/v1"), "run `git lfs pull`"),
        (without_weights("model.safetensors", "half"), "cannot be read, it may be half a download"),
        (
            without_weights("model.safetensors.index.json", '{"weight_map": {"a": "part-1.safetensors"}}'),
            "names part-1.safetensors, which is not there",
        ),
        (of_nan, r"holds NaN or infinity, in embeddings\.word_embeddings"),
        (with_config(auto_map={"AutoModel": "own.Model"}), "asks for code of its own"),
        (of_kind("t5"), "is a t5: an encoder is needed"),
        (of_kind("bart"), "is a bart: an encoder is needed"),
        (of_kind("xlnet"), "is a xlnet: an encoder is needed"),
        (of_kind("fnet"), "is a fnet: an encoder is needed"),
    ],
)
def test_a_folder_that_cannot_be_used_says_what_to_do(tiny_folder, tmp_path, change, message):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_encoder(str(folder), "mean")


def test_other_layouts_give_the_same_embeddings(tiny, tiny_folder, some_sentences, tmp_path):
    """Weights in several files, and in the folder where sentence-transformers once kept them."""
    weights = load_file(tiny_folder / "model.safetensors")
    shutil.copytree(tiny_folder, tmp_path / "shards" / "0_Transformer")
    sharded = tmp_path / "sharded"
    shutil.copytree(tiny_folder, sharded)
    (sharded / "model.safetensors").unlink()
    names = {key: f"model-{number % 2 + 1}-of-2.safetensors" for number, key in enumerate(sorted(weights))}
    for file in set(names.values()):
        part = {key: value for key, value in weights.items() if names[key] == file}
        save_file(part, sharded / file, metadata={"format": "pt"})
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    expected = tiny.encode(some_sentences, progress=False)
    for folder in (sharded, tmp_path / "shards"):
        loaded = load_encoder(str(folder), "mean")
        assert np.array_equal(loaded.encode(some_sentences, progress=False), expected)


def test_the_length_is_the_one_that_the_tokenizer_was_saved_with(tiny_folder, tmp_path):
    """Version 6 of sentence-transformers writes it there and nowhere else."""
    saved = SentenceTransformer(str(tiny_folder))
    saved.max_seq_length = 24
    saved.save(str(tmp_path / "saved"))
    assert load_encoder(str(tmp_path / "saved")).max_length == 24


def test_tokens_that_the_model_does_not_know_are_warned_of(tiny):
    with pytest.warns(UserWarning, match="40% of the tokens are unknown to tiny"):
        tiny.encode(["\u8d5b \u573a \u8d62", "the keeper \u8d5b"], progress=False)
