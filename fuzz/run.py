"""Fuzzes one target with atheris, guided by coverage.

    python fuzz/run.py TARGET [options of libFuzzer]

README.md in this folder says more.
"""

import sys
from pathlib import Path

import atheris

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE)]

with atheris.instrument_imports(include=["mlic_runtime", "PIL"]):
    from json_mutator import mutate
    from targets import TARGETS, Target

from tests.hostile import captions, pictures  # noqa: E402  the imports above must come first

_DEFAULTS = {
    "max_total_time": 300,  # seconds
    "timeout": 60,  # seconds that one input may take
    "rss_limit_mb": 2048,
    "max_len": 32_768,
    "print_final_stats": 1,
}


def _options(name: str, given: list[str]) -> list[str]:
    """Write the seeds of a target into its corpus, and return the arguments of libFuzzer."""
    corpus, findings = _HERE / "corpus" / name, _HERE / "findings" / name
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(_seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    defaults = [f"-{key}={value}" for key, value in _DEFAULTS.items()]
    return [*defaults, f"-artifact_prefix={findings}/", *given, *([] if _replays(given) else [str(corpus)])]


def _seeds(name: str) -> list[bytes]:
    """Return the seeds of a target, and the hostile pictures and captions of the tests."""
    seeds = TARGETS[name].seeds()
    if name == "picture":
        seeds += [case.data for case in pictures() if len(case.data) <= _DEFAULTS["max_len"]]
    elif name == "caption":
        texts = [case.value for case in captions() if isinstance(case.value, str)]
        seeds += [text[: _DEFAULTS["max_len"] // 4].encode("utf-16-le", "surrogatepass") for text in texts]
    return seeds


def _replays(given: list[str]) -> bool:
    """Return whether the arguments name files to run; without them, the corpus grows."""
    return any(not option.startswith("-") for option in given)


def _mutator(data: bytes, max_size: int, seed: int) -> bytes:
    changed = mutate(data, seed) if seed % 4 else None  # every fourth mutation is one of bytes
    return changed if changed is not None and len(changed) <= max_size else bytes(atheris.Mutate(data, max_size))


def main(arguments: list[str]) -> None:
    """Fuzz one target."""
    if not arguments or arguments[0] not in TARGETS:
        raise SystemExit(f"usage: python fuzz/run.py {{{'|'.join(TARGETS)}}} [options of libFuzzer]")
    name = arguments[0]
    target: Target = TARGETS[name]
    extra = {"custom_mutator": _mutator} if target.is_json else {}
    atheris.Setup([sys.argv[0], *_options(name, arguments[1:])], target.run, **extra)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
