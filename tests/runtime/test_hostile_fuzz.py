"""The targets of fuzz/, without the fuzzer: what they start from, and a fixed few hundred mutations of each."""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
NAMES = ("archive", "caption", "graph", "manifest", "picture", "tokenizer")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_fuzz_{name}", FUZZ / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


TARGETS: dict[str, Any] = load("targets").TARGETS
json_mutator = load("json_mutator")


def changed(data: bytes, randomness: random.Random) -> bytes:
    """Some bytes set, or a part removed or repeated."""
    result = bytearray(data)
    for _ in range(randomness.randint(1, 4)):
        start = randomness.randint(0, len(result))
        end = min(len(result), start + randomness.randint(1, 8))
        how = randomness.randrange(3)
        result[start:end] = (randomness.randbytes(end - start), b"", result[start:end] * 2)[how]
    return bytes(result)


def test_all_targets_are_here() -> None:
    assert tuple(sorted(TARGETS)) == NAMES


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of metadata that are damaged
@pytest.mark.parametrize("name", NAMES)
def test_a_target_lets_pass_what_its_input_may_cause(name: str) -> None:
    target = TARGETS[name]
    randomness = random.Random(0)
    for seed in target.seeds():
        target.run(seed)
        for number in range(60):
            target.run(changed(seed, randomness))
            mutated = json_mutator.mutate(seed, number) if target.is_json else None
            if mutated is not None:
                target.run(mutated)


def test_json_stays_json_and_changes() -> None:
    seed = TARGETS["manifest"].seeds()[0]
    assert json_mutator.mutate(b"[1, 2", 0) is None
    found = {json_mutator.mutate(seed, number) for number in range(100)}
    assert len(found) > 80
    assert json_mutator.mutate(seed, 3) == json_mutator.mutate(seed, 3)


def test_a_target_fails_where_the_product_does_what_it_must_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an error of another kind, a message of two lines, or ids beyond the vocabulary."""
    module = sys.modules["_fuzz_targets"]

    def raising(error: Exception) -> Any:
        def parse(data: bytes) -> None:
            raise error

        return parse

    monkeypatch.setattr(module, "parse_manifest", raising(KeyError("name")))
    with pytest.raises(KeyError):
        TARGETS["manifest"].run(b"{}")
    from mlic_runtime.errors import ManifestError

    monkeypatch.setattr(module, "parse_manifest", raising(ManifestError("two\nlines")))
    with pytest.raises(AssertionError):
        TARGETS["manifest"].run(b"{}")
