import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlic_runtime.errors import ProviderError
from mlic_runtime.providers.distributions import conflict, how_to_get, installed_distributions
from mlic_runtime.providers.names import PROVIDERS, candidates

Install = Callable[..., Path]


def test_one_distribution_is_no_conflict(install: Install) -> None:
    install("onnxruntime", "1.32.0")
    install("click", "8.1.0", "click")
    assert installed_distributions() == {"onnxruntime": "1.32.0"}
    assert conflict() is None


def test_where_pip_installed_none_there_is_none(install: Install) -> None:
    install("click", "8.1.0", "click")
    assert installed_distributions() == {}
    assert conflict() is None


@pytest.mark.parametrize("other", ["onnxruntime-gpu", "onnxruntime-directml", "onnxruntime_openvino", "ort-nightly"])
def test_two_that_install_one_package_are_a_conflict(install: Install, other: str) -> None:
    install("onnxruntime", "1.32.0")
    install(other, "1.31.1")
    name = other.replace("_", "-")
    assert conflict() == (
        f"onnxruntime 1.32.0 and {name} 1.31.1 are installed and overwrite each other: "
        f"'pip uninstall -y onnxruntime {name}', then install only the one that you want"
    )


def test_what_was_asked_for_says_which_one_to_keep(install: Install) -> None:
    install("onnxruntime", "1.32.0")
    install("onnxruntime-gpu", "1.31.1")
    assert str(conflict("tensorrt")).endswith("then install only onnxruntime-gpu for 'tensorrt'")
    assert str(conflict("coreml")).endswith("then install only onnxruntime for 'coreml' on macOS")
    assert str(conflict("xnnpack")).endswith("then install only the one that you want")


@pytest.mark.parametrize(
    ("name", "package"), [("onnxruntime-extensions", "onnxruntime_extensions"), ("onnxruntime-genai", None)]
)
def test_a_distribution_with_another_package_is_no_conflict(install: Install, name: str, package: str | None) -> None:
    install("onnxruntime", "1.32.0")
    install(name, "0.15.2", package)
    assert installed_distributions() == {"onnxruntime": "1.32.0"}


def test_the_name_decides_without_a_list_of_files(install: Install) -> None:
    install("onnxruntime", "1.32.0", None)
    assert installed_distributions() == {"onnxruntime": "1.32.0"}


def test_folders_of_their_own_do_not_overwrite_each_other(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a virtual environment that sees the system's packages: the first on the path is imported."""
    first = install("onnxruntime-gpu", "1.31.1")
    install("onnxruntime", "1.32.0", site=tmp_path)
    monkeypatch.setattr(sys, "path", [str(first), str(tmp_path)])
    assert installed_distributions() == {"onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(first)])
    assert installed_distributions() == {"onnxruntime": "1.32.0"}


def test_what_an_interrupted_installation_left_is_passed_over(install: Install) -> None:
    site = install("onnxruntime", "1.32.0")
    (site / "onnxruntime_gpu-1.31.1.dist-info").mkdir()
    assert installed_distributions() == {"onnxruntime": "1.32.0"}


@pytest.mark.parametrize(
    ("provider", "advice"),
    [
        ("cuda", "'cuda' is in onnxruntime-gpu: 'pip uninstall -y onnxruntime', then 'pip install onnxruntime-gpu'"),
        ("tensorrt", "'tensorrt' is in onnxruntime-gpu: 'pip uninstall -y onnxruntime', then"),
        ("directml", "'directml' is in onnxruntime-directml on Windows: 'pip uninstall -y onnxruntime', then"),
        ("coreml", "which offers it only on macOS"),
        ("xnnpack", "no wheel on PyPI offers 'xnnpack'"),
    ],
)
def test_a_provider_that_is_not_offered_says_what_to_install(install: Install, provider: str, advice: str) -> None:
    install("onnxruntime", "1.32.0")
    with pytest.raises(ProviderError, match=f"available here: cpu, auto; installed is onnxruntime 1.32.0.*{advice}"):
        candidates(provider, [PROVIDERS["cpu"]])


def test_without_a_distribution_there_is_nothing_to_uninstall(install: Install) -> None:
    install("click", "8.1.0", "click")
    assert how_to_get("cuda") == (
        "it was not installed by pip; 'cuda' is in onnxruntime-gpu: 'pip install onnxruntime-gpu'"
    )


def test_a_provider_that_was_overwritten_says_by_what(install: Install) -> None:
    install("onnxruntime", "1.32.0")
    install("onnxruntime-gpu", "1.31.1")
    both = "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are installed and overwrite each other"
    with pytest.raises(ProviderError, match=f"offers no provider 'cuda'; available here: cpu, auto; {both}"):
        candidates("cuda", [PROVIDERS["cpu"]])
