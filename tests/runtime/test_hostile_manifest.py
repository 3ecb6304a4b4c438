"""Every key of a manifest, at every depth, without its value and with values that do not belong there."""

import copy
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlic_runtime.errors import ManifestError
from mlic_runtime.package.manifest import dump_manifest, parse_manifest

ROOT = Path(__file__).parents[2]
TINY, HYBRID = (ROOT / folder / "manifest.json" for folder in ("tests/data/tiny", "exported/hybrid"))
DEPTH = 10_000

Place = tuple["str | int", ...]

# As JSON writes them, for Python's own writer refuses some.
VALUES = {
    "null": "null",
    "true": "true",
    "false": "false",
    "0": "0",
    "1": "1",
    "-1": "-1",
    "2": "2",
    "0.5": "0.5",
    "1.0": "1.0",
    "-0.0": "-0.0",
    "1e308": "1e308",
    "1e999": "1e999",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "2**40": str(2**40),
    "2**53": str(2**53),
    "10**400": "1" + "0" * 400,
    "10**5000": "1" + "0" * 5000,
    "no text": '""',
    "blank": '" "',
    "text": '"x"',
    "path": '"../x"',
    "long": '"' + "x" * 5000 + '"',
    "control": r'"a\u001b[2J\n"',
    "surrogate": r'"\ud800"',
    "[]": "[]",
    "[0]": "[0]",
    "{}": "{}",
    "{x: 0}": '{"x": 0}',
    "deep list": "[" * DEPTH + "]" * DEPTH,
    "deep object": '{"a":' * DEPTH + "0" + "}" * DEPTH,
}
REMOVED = "removed"
NOT_BELOW_0 = {"0", "1", "2", "0.5", "1.0", "-0.0", "2**40", "1e308"}
SHARE = {"0", "1", "0.5", "1.0", "-0.0"}
COUNT = {"0", "1", "2"}
PRINTABLE = {"text", "path", "long"}

# What is accepted, by place (* is an index); whatever is not here is an error.
ACCEPTED = {
    r"schema_version": {"1"},
    r"name|version": {"text"},
    r"labels\.\*": {REMOVED},  # one of several
    r"labels\.\*\.name": PRINTABLE,
    r"labels\.\*\.threshold": SHARE,
    r"image\.(height|width)|text\.(max_length|vocab_size)": {"1", "2"},
    r"text\.pad_id": COUNT,
    r"files\.README\.md": {REMOVED},
    r"files\.(tokenizer\.json|README\.md)\.precision": {"null"},
    r"files\..*\.bytes": COUNT,
    r"metrics|parity": {"{}"},
    r"metrics\.[\w-]+": {REMOVED, "{}"},
    r"metrics\.[\w-]+\.[\w-]+": {REMOVED, "{}", "{x: 0}"},
    r"metrics\.[\w-]+\.[\w-]+\.\w+": {REMOVED, "-1", *NOT_BELOW_0},
    r"parity\.[\w-]+|parity\.[\w-]+\.splits\.[\w-]+": {REMOVED},
    r"parity\..*\.(rows|shapes)": {*COUNT, "2**40"},
    r"parity\..*\.(max_abs_difference|atol|rtol)": NOT_BELOW_0,
    r"parity\..*\.equal_decisions": SHARE,
    r"parity\.[\w-]+\.splits": {REMOVED, "{}"},
    r"latency|latency\.[\w-]+|recommended": {REMOVED, "{}"},
    r"latency\.[\w-]+\.\w+|recommended\.\w+": {REMOVED},
    r"latency\.[\w-]+\.\w+\.machine": PRINTABLE,
    r"latency\.[\w-]+\.\w+\.(threads|runs)": {"1", "2", "2**40"},
    r"latency\.[\w-]+\.\w+\.p50_ms": {"1", "2", "0.5", "1.0"},
    r"latency\.[\w-]+\.\w+\.p90_ms": {"2**40", "1e308"},
    r"evidence": {"null", REMOVED},
    r"evidence\.(height|width)": {"1", "2"},
    r"evidence\.faithfulness": {REMOVED, "{}", "{x: 0}"},
    r"evidence\.faithfulness\.\w+": {REMOVED, "-1", *NOT_BELOW_0},
    r"provenance": {"{}", "{x: 0}"},
    r"provenance\.[\w-]+": {REMOVED, "-1", *NOT_BELOW_0, *PRINTABLE, "no text", "blank", "control", "surrogate"},
}
TINY_ONLY = {r"files\.model\.fp\d+\.onnx": {REMOVED}}  # hybrid recommends each of its graphs, or has timed it
PLACEHOLDER = "@@@"


def read(manifest: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(manifest.read_text("utf-8"))
    return data


def places(value: object, above: Place = ()) -> Iterator[Place]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield (*above, key)
        yield from places(below, (*above, key))


def dotted(place: Place) -> str:
    return ".".join("*" if isinstance(key, int) else key for key in place)


def alike(place: Place) -> str:
    """The same for places that the same rule is for, such as those of two splits."""
    return re.sub(
        r"fp32|fp16|int8(-full)?|(?<=metrics\.\*\.)[\w-]+|(?<=splits\.)[\w-]+|(?<=provenance\.)\w+",
        "*",
        dotted(place),
    )


def container(data: Any, place: Place) -> Any:
    for key in place[:-1]:
        data = data[key]
    return data


def outcome(text: str) -> bool:
    """Whether a manifest is accepted; an error is of the right kind, and one short line."""
    try:
        parse_manifest(text)
    except ManifestError as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) < 500, message
        return False
    return True


def mutations(data: dict[str, Any], place: Place, values: "list[str]") -> Iterator[tuple[str, str]]:
    """(what was done, the manifest as text)."""
    around = container(data, place)
    kept = copy.copy(around)
    around[place[-1]] = PLACEHOLDER
    text = json.dumps(data)
    del around[place[-1]]
    without = json.dumps(data)
    around.clear()
    around.extend(kept) if isinstance(around, list) else around.update(kept)
    for name in values:
        yield name, text.replace(f'"{PLACEHOLDER}"', VALUES[name])
    yield REMOVED, without


def assert_outcomes(data: dict[str, Any], place: Place, values: "list[str]", accepted: "dict[str, set[str]]") -> int:
    expected: set[str] = set()
    for pattern, names in accepted.items():
        if re.fullmatch(pattern, dotted(place)):
            expected |= names
    found = {name: outcome(text) for name, text in mutations(data, place, values)}
    assert {name for name, good in found.items() if good} == expected & {*values, REMOVED}, dotted(place)
    return len(found)


def test_every_key_of_the_tiny_manifest_with_every_value() -> None:
    data = read(TINY)
    count = sum(assert_outcomes(data, place, list(VALUES), {**ACCEPTED, **TINY_ONLY}) for place in places(data))
    assert count == 45 * 33


def test_every_kind_of_key_of_the_released_manifest_with_every_value() -> None:
    data = read(HYBRID)
    for of_precision in (*data["metrics"].values(), *(parity["splits"] for parity in data["parity"].values())):
        for split in list(of_precision)[1:]:  # one says it all, in a third of the time
            del of_precision[split]
    kinds = {alike(place): place for place in places(data)}
    assert len(kinds) > 50
    for place in kinds.values():
        assert_outcomes(data, place, list(VALUES), ACCEPTED)


def test_every_key_of_the_released_manifest_missing_and_without_a_type_that_fits() -> None:
    data = read(HYBRID)
    for place in places(data):
        assert_outcomes(data, place, ["null"], ACCEPTED)


@pytest.mark.parametrize("manifest", [TINY, HYBRID], ids=["tiny", "hybrid"])
def test_every_object_with_a_key_twice_and_with_a_key_of_nobody(manifest: Path) -> None:
    data = read(manifest)
    kinds = {alike(place): place for place in places(data) if isinstance(place[-1], str)}
    for place in kinds.values():
        changed = copy.deepcopy(data)
        value = container(changed, place)[place[-1]]
        container(changed, place)[place[-1]] = PLACEHOLDER
        twice = f"{json.dumps(value)}, {json.dumps(place[-1])}: {json.dumps(value)}"
        assert not outcome(json.dumps(changed).replace(f'"{PLACEHOLDER}"', twice)), place
        changed = copy.deepcopy(data)
        container(changed, place)["surprise\n\x1b[2J"] = None
        assert not outcome(json.dumps(changed)), place


# --- found by looking for more than a wrong value


@pytest.mark.parametrize("depth", range(900, 1000))
def test_a_value_as_deep_as_the_parser_goes_is_an_error_of_ours(depth: int) -> None:
    """`repr` needs more of the stack than the parser did, and ended in a RecursionError."""
    deep = "[" * depth + "]" * depth
    assert not outcome(TINY.read_text("utf-8").replace('"1.0.0"', deep))


@pytest.mark.parametrize("where", ["labels", "keys"])
def test_a_repetition_among_very_many_is_found_at_once(where: str) -> None:
    """Counting each among all took 14 s for 20,000, and minutes for what 4 MB hold."""
    data = read(TINY)
    names = [*map(str, range(60_000)), "59999"]
    if where == "labels":
        data["labels"] = [{"name": name, "threshold": 0} for name in names]
        text = json.dumps(data)
    else:
        text = "{" + ",".join(f'"{name}": 0' for name in names) + "}"
    start = time.process_time()
    with pytest.raises(ManifestError, match="59999"):
        parse_manifest(text)
    assert time.process_time() - start < 60  # a safety net: the slow way takes more than 100 s


def test_what_is_accepted_is_written_and_read_without_a_change() -> None:
    for manifest in (TINY, HYBRID):
        found = parse_manifest(manifest.read_bytes())
        assert parse_manifest(dump_manifest(found)) == found
