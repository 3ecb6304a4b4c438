import ast
import subprocess
import sys
from pathlib import Path

import mlic_train
from mlic_runtime.errors import MlicError
from mlic_train.errors import DataError


def test_all_is_sorted_and_every_name_resolves() -> None:
    assert mlic_train.__all__ == sorted(mlic_train.__all__)
    for name in mlic_train.__all__:
        assert getattr(mlic_train, name) is not None


def test_no_public_name_is_a_module_too() -> None:
    modules = {path.stem for path in Path(mlic_train.__file__).parent.iterdir()}
    assert not modules & set(mlic_train.__all__)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, mlic_train; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_picture_and_caption_preprocessing_exists_once() -> None:
    """Training decodes, resizes and tokenises through the runtime only; what a report shows is no model's input."""
    package = Path(mlic_train.__file__).parent
    for path in set(package.rglob("*.py")) - set((package / "report").iterdir()):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        called = {function.attr for function in calls if isinstance(function, ast.Attribute)}
        assert not called & {"resize", "thumbnail", "encode_batch"}, path


def test_an_error_of_training_can_be_made_again_from_data() -> None:
    again = MlicError.from_dict(DataError("train.csv: it is empty").to_dict())
    assert type(again) is DataError
    assert str(again) == "train.csv: it is empty"
