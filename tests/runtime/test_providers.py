from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import ProviderError
from mlic_runtime.providers.names import AUTO_ORDER, PROVIDERS, candidates

CPU, CUDA, OPENVINO = PROVIDERS["cpu"], PROVIDERS["cuda"], PROVIDERS["openvino"]


def test_a_provider_that_is_offered_is_the_only_candidate() -> None:
    assert candidates("cuda", [CUDA, CPU]) == ("cuda",)


def test_auto_takes_the_best_that_is_offered_and_openvino_last() -> None:
    assert candidates("auto", [CPU, OPENVINO, "AzureExecutionProvider", CUDA]) == ("cuda", "cpu", "openvino")
    assert set(AUTO_ORDER) < set(PROVIDERS)


@pytest.mark.parametrize("name", ["gpu", "CPU", "CPUExecutionProvider", ""])
def test_an_unknown_provider_lists_what_is_there(name: str) -> None:
    with pytest.raises(ProviderError, match=f"unknown provider '{name}'; available here: cpu, cuda, auto"):
        candidates(name, [CUDA, CPU])


def test_a_provider_that_is_not_offered_lists_what_is_there() -> None:
    with pytest.raises(ProviderError, match="offers no provider 'coreml'; available here: cpu, auto"):
        candidates("coreml", [CPU])


def test_openvino_is_a_package_of_its_own() -> None:
    with pytest.raises(ProviderError) as caught:
        candidates("openvino", [CPU])
    assert str(caught.value) == (
        "provider 'openvino' needs the package openvino, which is not installed: pip install 'mlic-runtime[openvino]'; "
        "available here: cpu, auto"
    )


# --- what the command says


@pytest.fixture
def command(tiny: Path, tmp_path: Path) -> list[str]:
    picture = str(tmp_path / "red.png")
    Image.new("RGB", (8, 6), "red").save(picture)
    return [picture, "red", "--model", str(tiny)]


def test_verbose_says_which_provider_auto_took_and_why(command: list[str], fake_runtime: Callable[..., object]) -> None:
    fake_runtime(["cuda", "cpu"], {"cpu"})
    result = CliRunner().invoke(infer, [*command, "--provider", "auto", "-v"])
    assert result.exit_code == 0, result.stderr
    said = result.stderr.splitlines()
    assert len(said) == 1
    assert " on cpu, " in said[0]
    assert "(provider: the best that loads here; provider 'cuda' did not load: " in said[0]


def test_verbose_says_that_auto_took_the_first(command: list[str], fake_runtime: Callable[..., object]) -> None:
    fake_runtime(["cuda", "cpu"], {"cuda", "cpu"})
    result = CliRunner().invoke(infer, [*command, "--provider", "auto", "-v"])
    assert " on cuda, " in result.stderr
    assert "(provider: the best that loads here; precision: " in result.stderr


def test_a_provider_that_was_named_needs_no_reason(command: list[str], fake_runtime: Callable[..., object]) -> None:
    fake_runtime(["cuda", "cpu"], {"cuda", "cpu"})
    result = CliRunner().invoke(infer, [*command, "--provider", "cuda", "-v"])
    assert " on cuda, " in result.stderr
    assert "provider:" not in result.stderr


def test_a_named_provider_that_does_not_load_is_one_line(
    command: list[str], fake_runtime: Callable[..., object]
) -> None:
    fake_runtime(["cuda", "cpu"], {"cpu"})
    result = CliRunner().invoke(infer, [*command, "--provider", "cuda"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: provider 'cuda' did not load: ")
    assert result.stderr.count("\n") == 1
