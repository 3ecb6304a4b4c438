"""The user's own folders for MLIC, whether they are there or not."""

import os
import sys
from pathlib import Path


def config_folder() -> Path:
    """Return the folder for settings; it is relative if the environment names no home.

    It is the one that `click.get_app_dir("mlic")` names, found without click.
    """
    home = os.path.expanduser("~")  # noqa: PTH111 # `Path` raises an error where there is no home
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", home), "mlic")
    if sys.platform == "darwin":
        return Path(home, "Library/Application Support/mlic")
    return Path(os.environ.get("XDG_CONFIG_HOME", Path(home, ".config")), "mlic")


def cache_folder() -> Path | None:
    """Return the folder for what can be made again; None if the environment names no home."""
    windows, mac = sys.platform == "win32", sys.platform == "darwin"
    system = {"LOCALAPPDATA": "mlic/Cache"} if windows else {"HOME": "Library/Caches/mlic" if mac else ".cache/mlic"}
    for variable, path in {"XDG_CACHE_HOME": "mlic", **system}.items():
        home = os.environ.get(variable)
        if home and Path(home).is_absolute():  # a relative one must be ignored, says the XDG specification
            return Path(home, path)
    return None
