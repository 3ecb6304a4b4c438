"""The installed distributions of ONNX Runtime: PyPI has several, and all install the same package `onnxruntime`.

pip does not know that they overwrite each other, nor that one can replace another. Nothing here runs unless something
failed: reading what is installed takes 40 ms of CPU time.
"""

# provider: (the distribution whose wheels offer it, on which system)
_WHEELS = {
    "cuda": ("onnxruntime-gpu", ""),
    "tensorrt": ("onnxruntime-gpu", ""),
    "directml": ("onnxruntime-directml", " on Windows"),
    "coreml": ("onnxruntime", " on macOS"),
}


def installed_distributions() -> dict[str, str]:
    """Return {name: version} of the distributions that install `onnxruntime` into the folder it is imported from."""
    from importlib.metadata import distributions  # here, because it loads email and zipfile

    folders: dict[str, dict[str, str]] = {}  # in the order of sys.path: `onnxruntime` is imported from the first
    seen = set()
    for distribution in distributions():
        metadata = distribution.metadata
        if "Name" not in metadata or "Version" not in metadata:  # left by an interrupted pip
            continue
        name = metadata["Name"].lower().replace("_", "-")
        if not name.startswith(("onnxruntime", "ort-")) or name in seen:
            continue
        seen.add(name)
        # onnxruntime-extensions and others have their own package; without a RECORD (Debian) the name decides.
        files = distribution.files
        if name == "onnxruntime" if files is None else any(file.parts[0] == "onnxruntime" for file in files):
            folder = str(distribution.locate_file("onnxruntime"))
            folders.setdefault(folder, {})[name] = distribution.version
    return dict(sorted(next(iter(folders.values()), {}).items()))


def conflict(provider: str | None = None) -> str | None:
    """Return what to do about distributions that overwrite each other; None if at most one is installed.

    Args:
        provider: the requested one, a key of `names.PROVIDERS`, to name the distribution that has it.
    """
    installed = installed_distributions()
    if len(installed) < 2:
        return None
    wheel, where = _WHEELS.get(provider or "", ("", ""))
    wanted = f"{wheel} for {provider!r}{where}" if wheel else "the one that you want"
    return (
        f"{_and(installed)} are installed and overwrite each other: "
        f"'pip uninstall -y {' '.join(installed)}', then install only {wanted}"
    )


def how_to_get(provider: str) -> str:
    """Return what to install for a provider that is not offered.

    Args:
        provider: a key of `names.PROVIDERS`.
    """
    advice = conflict(provider)
    if advice is not None:
        return advice
    installed = installed_distributions()
    here = f"installed is {_and(installed)}" if installed else "it was not installed by pip"
    if provider not in _WHEELS:
        return f"{here}; no wheel on PyPI offers {provider!r}, only a build of your own"
    wheel, where = _WHEELS[provider]
    if wheel in installed:
        return f"{here}, which offers it only{where or ' on some systems'}"
    remove = f"'pip uninstall -y {' '.join(installed)}', then " if installed else ""
    return f"{here}; {provider!r} is in {wheel}{where}: {remove}'pip install {wheel}'"


def _and(installed: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in installed.items())
