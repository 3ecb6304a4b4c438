import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from mlic_runtime import Predictor
from mlic_runtime.caption.tokenizer import CaptionTokenizer
from mlic_runtime.graph.session import create_session
from mlic_runtime.package.graph_safety import check_graph
from mlic_runtime.package.manifest import TOKENIZER_NAME, TextSpec
from mlic_train.captions.tokenizer import PAD_TOKEN, token_texts, train_tokenizer
from mlic_train.config import DataOptions, ModelConfig, TrainConfig
from mlic_train.data.splits import Splits, load_splits
from mlic_train.errors import ConfigError
from mlic_train.exporting.graph import export_graph
from mlic_train.exporting.inputs import example_inputs
from mlic_train.exporting.package import export_package
from mlic_train.exporting.parity import ATOL, SHAPES
from mlic_train.models import Hybrid, create_model
from mlic_train.models.huggingface import ENCODERS, HuggingFaceEncoder, load_text_encoder
from mlic_train.runs.folder import LAST_NAME, load_checkpoint, load_trained
from mlic_train.training.embedding import initial_embedding
from mlic_train.training.run import resume_run, train_run

WORDS = ["a", "wall", "in", "red", "green", "blue", "and", "one", "thing", "number"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s"]
# A text's ids in that vocabulary, between [CLS] and [SEP].
WALLS, WALLS_IDS = "A red walls", [2, 5, 8, 6, 15, 3]
HIDDEN, POSITIONS = 24, 40


def architecture(kind: str = "bert") -> dict[str, Any]:
    """A config.json of a tiny encoder."""
    shape = {"vocab_size": len(PIECES), "max_position_embeddings": POSITIONS}
    if kind == "distilbert":
        return {"model_type": kind, **shape, "dim": HIDDEN, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    shape |= {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return {"model_type": kind, **shape, **({"embedding_size": 8} if kind in ("albert", "electra") else {})}


def untrained(config: dict[str, Any], library: Any = AutoModel) -> Any:
    """The library's own model of that architecture, with random weights."""
    return library.from_config(AutoConfig.for_model(**config))


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(WordPiece({piece: index for index, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens(PIECES[:5])
    tokenizer.enable_truncation(4)  # as many repositories have it; the manifest decides
    tokenizer.save(str(folder / TOKENIZER_NAME))


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """What a hub repository holds: config.json, model.safetensors and tokenizer.json."""
    folder = tmp_path / "hub" / "tiny-bert"
    torch.manual_seed(7)
    untrained(architecture()).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def rewrite_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def encoder(kind: str = "bert", width: int = 16) -> HuggingFaceEncoder:
    torch.manual_seed(0)
    return HuggingFaceEncoder(architecture(kind), width, 0.1).eval()


def tokens() -> tuple[Tensor, Tensor]:
    """Four rows of 9 tokens at most; the second has none. Padding is 0, as the runtime makes it."""
    lengths = torch.tensor([9, 0, 4, 1])
    mask = (torch.arange(9) < lengths[:, None]).long()
    ids = torch.randint(5, len(PIECES), mask.shape, generator=torch.Generator().manual_seed(1))
    return ids * mask, mask


@pytest.mark.parametrize("kind", ENCODERS)
def test_states_do_not_depend_on_padding(kind: str) -> None:
    model = encoder(kind)
    ids, mask = tokens()
    with torch.inference_mode():
        states = model(ids, mask)
        alone = model(ids[2:3, :4], mask[2:3, :4])
        other_filling = model(torch.where(mask == 1, ids, 7), mask)
    assert states.shape == (4, 9, 16)
    torch.testing.assert_close(states[2, :4], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(states, other_filling)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_row_without_caption_is_finite(kind: str) -> None:
    model = encoder(kind).train()
    ids, mask = tokens()
    states = model(ids, mask)
    states.sum().backward()
    assert states.isfinite().all()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.embedding.weight.grad is not None


def test_the_encoder_never_gets_a_row_without_a_visible_token() -> None:
    """Whether a softmax over nothing is finite hangs on the value of the mask, and on the precision."""
    model = encoder()
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, __, given: seen.append(given["attention_mask"]), with_kwargs=True)
    ids, mask = tokens()
    model(ids, mask)
    assert torch.equal(seen[0][[0, 2, 3]], mask[[0, 2, 3]])
    assert seen[0].any(dim=1).all()


def test_every_token_sees_those_after_it() -> None:
    model = encoder()
    ids, mask = tokens()
    changed = ids.clone()
    changed[0, 8] = 5 if ids[0, 8] != 5 else 6
    with torch.inference_mode():
        assert not torch.allclose(model(ids, mask)[0, 0], model(changed, mask)[0, 0], atol=1e-4)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_graph_says_what_pytorch_says_at_every_shape(kind: str, small_model: ModelConfig) -> None:
    config = dataclasses.replace(
        small_model, text_encoder="x/y", text_config=architecture(kind), vocab_size=len(PIECES), fusion="late"
    )
    torch.manual_seed(0)
    model = create_model(config).eval()
    graph = export_graph(model, 32)
    check_graph(graph, "model.fp32.onnx")
    session = create_session(graph)
    for batch, length in SHAPES:
        inputs = example_inputs(model, batch, length, seed=batch)
        with torch.inference_mode():
            expected = model(*inputs).numpy()
        assert batch < 3 or (inputs[2].sum(dim=1) == 0).any()
        np.testing.assert_allclose(session.run(*(tensor.numpy() for tensor in inputs)), expected, atol=ATOL)


def test_the_loaded_encoder_is_the_pretrained_one(pretrained: Path) -> None:
    loaded = load_text_encoder(str(pretrained))
    model = HuggingFaceEncoder(loaded.config, HIDDEN, 0.0).eval()
    model.load_state_dict({"project.weight": torch.eye(HIDDEN), "project.bias": torch.zeros(HIDDEN), **loaded.state})
    original = AutoModel.from_pretrained(pretrained).eval()
    ids = torch.tensor([WALLS_IDS])
    with torch.inference_mode():
        expected = original(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        torch.testing.assert_close(model(ids, torch.ones_like(ids)), expected, atol=1e-5, rtol=0)
    assert (len(loaded.embedding), loaded.max_length) == (len(PIECES), POSITIONS)
    assert torch.equal(loaded.embedding, original.get_input_embeddings().weight)


def test_the_architecture_survives_json_and_says_nothing_of_where_it_lay(pretrained: Path) -> None:
    config = load_text_encoder(str(pretrained)).config
    assert json.loads(json.dumps(config)) == config
    assert str(pretrained) not in json.dumps(config)
    assert HuggingFaceEncoder(config, 8, 0.0).project.in_features == HIDDEN


def test_the_runtime_reads_the_tokenizer(pretrained: Path) -> None:
    loaded = load_text_encoder(str(pretrained))
    tokenizer = CaptionTokenizer(loaded.tokenizer_json, TextSpec(loaded.max_length, len(loaded.embedding)))
    ids, mask = tokenizer.encode([WALLS, None])
    assert ids.tolist() == [WALLS_IDS, [0] * 6]
    assert mask.tolist() == [[1] * 6, [0] * 6]


def test_an_encoder_under_a_language_model_is_found(pretrained: Path) -> None:
    model = untrained(architecture(), AutoModelForMaskedLM)
    model.save_pretrained(pretrained)
    assert "bert.embeddings.word_embeddings.weight" in load_file(pretrained / "model.safetensors")
    loaded = load_text_encoder(str(pretrained))
    assert torch.equal(loaded.embedding, model.get_input_embeddings().weight)
    assert not [name for name in loaded.state if "cls" in name or "pooler" in name]


def test_half_precision_weights_are_widened(pretrained: Path) -> None:
    file = pretrained / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    rewrite_config(pretrained, dtype="float16")
    loaded = load_text_encoder(str(pretrained))
    assert {tensor.dtype for tensor in loaded.state.values()} == {torch.float32}
    assert {p.dtype for p in HuggingFaceEncoder(loaded.config, 8, 0.0).parameters()} == {torch.float32}


def test_positions_that_begin_after_the_padding_are_not_counted(pretrained: Path) -> None:
    untrained(architecture("roberta")).save_pretrained(pretrained)
    assert load_text_encoder(str(pretrained)).max_length == POSITIONS - 2
    model = encoder("roberta")
    longest = torch.full((1, POSITIONS - 2), 5)
    assert model(longest, torch.ones_like(longest)).shape == (1, POSITIONS - 2, 16)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, POSITIONS - 1), 5), torch.ones(1, POSITIONS - 1, dtype=torch.int64))


def test_a_hub_id_is_fetched_without_anything_that_runs(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(repository: str, allow_patterns: list[str]) -> str:
        assert repository == "someone/tiny-bert"
        asked.extend(allow_patterns)
        return str(pretrained)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert len(load_text_encoder("someone/tiny-bert").embedding) == len(PIECES)
    assert "model.safetensors" in asked
    assert not [pattern for pattern in asked if pattern.endswith((".py", ".bin", "*"))]


def test_without_a_hub_the_error_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> str:
        raise OSError("Got: ConnectError\nplease check your internet connection")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    message = (
        r"someone/tiny-bert: no such folder, and the hub does not provide it \(Got: ConnectError please "
        r"check your internet connection\); give a folder with config.json, tokenizer.json and model.safetensors"
    )
    with pytest.raises(ConfigError, match=message):
        load_text_encoder("someone/tiny-bert")


def test_a_path_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    for missing in (tmp_path / "nowhere", Path("../nowhere"), Path("a/b/c")):
        with pytest.raises(ConfigError, match="no such folder, and not a repository's id; give a folder"):
            load_text_encoder(str(missing))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"model\.safetensors is a file; give a folder"):
        load_text_encoder(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"tiny-bert.*config\.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[1]"), "must be a JSON object, found list"),
        (lambda f: rewrite_config(f, model_type="gpt2"), "has the architecture 'gpt2'; supported: albert, bert,"),
        (lambda f: rewrite_config(f, model_type="t5"), "has the architecture 't5'; supported"),
        (
            lambda f: rewrite_config(f, model_type="new", auto_map={"AutoModel": "modeling.NewModel"}),
            "has the architecture 'new'; it brings code of its own, which is never run; supported",
        ),
        (lambda f: rewrite_config(f, is_decoder=True), r"is a decoder \(is_decoder is set"),
        (lambda f: rewrite_config(f, num_attention_heads=7), "its weights cannot be read: .*multiple"),
        (lambda f: (f / "model.safetensors").unlink(), "has neither model.safetensors nor pytorch_model.bin"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "its weights cannot be read: "),
        (lambda f: rewrite_config(f, num_hidden_layers=3), r"its weights lack 16 tensors, encoder\.layer\.2\."),
        (lambda f: rewrite_config(f, hidden_size=20), "its weights cannot be read: "),
        (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json is not a tokenizer"),
        (lambda f: (f / "tokenizer.json").write_bytes(b"\xff"), r"tokenizer\.json is not a tokenizer"),
        (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer\.json \(a 'fast' tokenizer\)"),
    ],
)
def test_what_cannot_be_loaded_is_named_in_one_line(
    pretrained: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(pretrained)
    with pytest.raises(ConfigError, match=message) as caught:
        load_text_encoder(str(pretrained))
    assert "\n" not in str(caught.value)
    assert "tiny-bert" in str(caught.value)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(pretrained: Path) -> None:
    untrained({**architecture(), "vocab_size": 9}).save_pretrained(pretrained)
    with pytest.raises(ConfigError, match="its tokenizer has ids up to 15, its weights only 9 tokens"):
        load_text_encoder(str(pretrained))


def test_pickled_weights_are_read_but_run_no_code(pretrained: Path) -> None:
    marker = pretrained / "it-ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(marker),))

    expected = load_text_encoder(str(pretrained)).state
    tensors = load_file(pretrained / "model.safetensors")
    (pretrained / "model.safetensors").unlink()
    torch.save(tensors, pretrained / "pytorch_model.bin")
    found = load_text_encoder(str(pretrained)).state
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    torch.save({"weight": Evil()}, pretrained / "pytorch_model.bin")
    rewrite_config(pretrained, dtype=None)  # so that the library looks into the file for it, one more time
    with pytest.raises(ConfigError, match="its weights cannot be read"):
        load_text_encoder(str(pretrained))
    assert not marker.exists()


def test_code_in_the_folder_is_not_run(pretrained: Path) -> None:
    marker = pretrained / "it-ran"
    (pretrained / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nEvilModel = EvilConfig = EvilTokenizer = None\n")
    names = {"AutoModel": "evil.EvilModel", "AutoConfig": "evil.EvilConfig"}
    rewrite_config(pretrained, auto_map=names)
    (pretrained / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", null]}}')
    loaded = load_text_encoder(str(pretrained))
    HuggingFaceEncoder({**loaded.config, "auto_map": names}, 8, 0.0)
    assert not marker.exists()


def test_without_transformers_the_error_names_it(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for attempt in (lambda: load_text_encoder(str(pretrained)), lambda: HuggingFaceEncoder(architecture(), 8, 0.0)):
        with pytest.raises(ConfigError, match=r"needs the package transformers, .*; pip install transformers"):
            attempt()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "text_config has the architecture 'llama'; supported"),
        ({"hidden_size": 7}, "text_config does not describe an encoder"),
    ],
)
def test_a_run_folder_cannot_ask_for_another_architecture(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HuggingFaceEncoder({**architecture(), **change}, 8, 0.0)


@pytest.fixture(scope="module")
def splits(colours: Path) -> Splits:
    return load_splits(DataOptions(colours))


def start_run(folder: Path, *arguments: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Tensor]:
    """Start a run that is stopped before its first step; the weights it starts from."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlic_train.training.run.fit", stop)
        with pytest.raises(KeyboardInterrupt):
            train_run(folder, *arguments, **options)
    return dict(load_checkpoint(folder / LAST_NAME).model)


def test_a_run_starts_from_the_encoder_and_then_needs_its_folder_no_more(
    tmp_path: Path,
    pretrained: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
    colours: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    loaded = load_text_encoder(str(pretrained))
    config = dataclasses.replace(small_model, text_encoder=str(pretrained), max_length=POSITIONS)
    train_config = dataclasses.replace(small_train, epochs=1)
    start = start_run(run, config, train_config, splits, monkeypatch=monkeypatch)
    assert all(torch.equal(start[f"caption.{name}"], tensor) for name, tensor in loaded.state.items())

    shutil.rmtree(pretrained)
    assert resume_run(run, splits).finished
    trained = load_trained(run)
    assert isinstance(trained.model, Hybrid)
    assert isinstance(trained.model.caption, HuggingFaceEncoder)
    assert trained.config.model.vocab_size == len(PIECES)
    assert trained.config.provenance["text_encoder"] == "tiny-bert"
    assert (run / TOKENIZER_NAME).read_bytes() == loaded.tokenizer_json
    learned = dict(load_checkpoint(run / LAST_NAME).model)
    name = "caption.encoder.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(learned[name], start[name])

    manifest = export_package(trained, tmp_path / "package")
    assert manifest.text == TextSpec(POSITIONS, len(PIECES))
    picture = colours / "images" / "train0.png"
    probabilities = Predictor.load(tmp_path / "package").predict(picture, "a wall in red").probabilities
    assert set(probabilities) == {"red", "green", "blue"}


def test_more_tokens_than_the_encoder_reads_are_refused(
    tmp_path: Path, pretrained: Path, splits: Splits, small_model: ModelConfig, small_train: TrainConfig
) -> None:
    config = dataclasses.replace(small_model, text_encoder=str(pretrained), max_length=POSITIONS + 1)
    with pytest.raises(ConfigError, match="reads at most 40 tokens, max_length is 41; give --max-length 40 or less"):
        train_run(tmp_path / "run", config, small_train, splits)


@pytest.mark.parametrize(
    ("name", "encoder", "embedding", "message"),
    [
        ("cnn", "some/encoder", None, "cnn reads no captions; leave --text-encoder out"),
        ("cnn", "lstm", "some/encoder", "cnn reads no captions; leave --embedding out"),
        ("hybrid", "some/encoder", "some/encoder", "leave --embedding out"),
    ],
)
def test_an_encoder_that_nothing_would_use_is_refused(
    tmp_path: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
    name: str,
    encoder: str,
    embedding: str | None,
    message: str,
) -> None:
    config = dataclasses.replace(small_model, name=name, text_encoder=encoder)
    with pytest.raises(ConfigError, match=message):
        train_run(tmp_path / "run", config, small_train, splits, embedding=embedding)


@pytest.fixture
def own_tokenizer() -> bytes:
    return train_tokenizer(["a red wall and a blue wall", "one green thing", "things in red walls"] * 4)


def piece_means(pretrained: Path, own_tokenizer: bytes) -> tuple[list[int], Tensor]:
    """By hand: the ids of our tokens that have pieces, and around zero the mean (N, E) of each one's pieces."""
    loaded = load_text_encoder(str(pretrained))
    pieces = Tokenizer.from_str(loaded.tokenizer_json.decode())
    split = [pieces.encode(text, add_special_tokens=False).ids for text in token_texts(own_tokenizer)]
    known = [index for index, ids in enumerate(split) if ids and index != 0]
    means = torch.stack([loaded.embedding[split[index]].mean(dim=0) for index in known])
    return known, means - means.mean(dim=0)


def test_token_texts_say_what_a_caption_is_made_of(own_tokenizer: bytes) -> None:
    texts = token_texts(own_tokenizer)
    caption = "a red wall and one thing"
    assert texts[0] == PAD_TOKEN
    assert "".join(texts[index] for index in Tokenizer.from_str(own_tokenizer.decode()).encode(caption).ids) == (
        " " + caption
    )


def test_an_initial_embedding_keeps_the_distances_between_tokens(pretrained: Path, own_tokenizer: bytes) -> None:
    known, centred = piece_means(pretrained, own_tokenizer)
    table = initial_embedding(own_tokenizer, str(pretrained), HIDDEN)
    assert table.shape == (len(token_texts(own_tokenizer)), HIDDEN)
    assert table.dtype == torch.float32
    products = centred @ centred.T
    torch.testing.assert_close(table[known] @ table[known].T, products / centred.std(correction=0) ** 2)
    assert table[known].std(correction=0).item() == pytest.approx(1.0)


def test_an_initial_embedding_keeps_the_directions_of_most_variance(pretrained: Path, own_tokenizer: bytes) -> None:
    known, centred = piece_means(pretrained, own_tokenizer)
    table = initial_embedding(own_tokenizer, str(pretrained), 4)
    largest = torch.linalg.svdvals(centred)[:4]
    found = table[known].square().sum(dim=0).sqrt()  # per column: orthogonal to the others, largest first
    torch.testing.assert_close(found / found[0], largest / largest[0])
    directions = torch.linalg.pinv(centred) @ table[known]
    # An eigenvector may as well point the other way: which of the two must not depend on the machine.
    assert (directions.gather(0, directions.abs().argmax(dim=0, keepdim=True)) > 0).all()
    assert table[known].std(correction=0).item() == pytest.approx(1.0)


def test_padding_and_tokens_without_a_piece_are_zero(pretrained: Path, own_tokenizer: bytes) -> None:
    table = initial_embedding(own_tokenizer, str(pretrained), 8)
    space = token_texts(own_tokenizer).index(" ")
    assert table[0].tolist() == table[space].tolist() == [0.0] * 8
    others = torch.ones(len(table), dtype=torch.bool)
    others[[0, space]] = False
    assert (table[others].abs().amax(dim=1) > 0).all()


def test_an_initial_embedding_is_never_wider_than_its_source(pretrained: Path, own_tokenizer: bytes) -> None:
    with pytest.raises(ConfigError, match="tiny-bert has 24 dimensions; give a --width of at most that"):
        initial_embedding(own_tokenizer, str(pretrained), HIDDEN + 1)


def test_an_embedding_that_tells_nothing_apart_is_refused(pretrained: Path, own_tokenizer: bytes) -> None:
    file = pretrained / "model.safetensors"
    tensors = load_file(file)
    tensors["embeddings.word_embeddings.weight"] = torch.ones(len(PIECES), HIDDEN)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="has the same embedding for every token"):
        initial_embedding(own_tokenizer, str(pretrained), 8)


def test_a_run_starts_from_the_embedding(
    tmp_path: Path,
    pretrained: Path,
    splits: Splits,
    small_model: ModelConfig,
    small_train: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    start = start_run(run, small_model, small_train, splits, embedding=str(pretrained), monkeypatch=monkeypatch)
    expected = initial_embedding((run / TOKENIZER_NAME).read_bytes(), str(pretrained), small_model.width)
    assert torch.equal(start["caption.embedding.weight"], expected)
    assert json.loads((run / "config.json").read_text())["provenance"]["embedding"] == "tiny-bert"
