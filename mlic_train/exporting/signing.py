"""Signatures of whole model packages, by the OpenSSF's model-signing and a key of one's own: no network, no Sigstore.

The sha256 in manifest.json finds damage; who may write the package may write them too. A signature says who made it.
It is a Sigstore bundle (https://sigstore.github.io/model-transparency) and lies beside the package, never in it, for a
package holds exactly the files that its manifest lists. The official `model_signing` reads it and writes the same.
"""

import base64
import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISREG

from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.errors import IntegrityError, OutputError, PackageError
from mlic_runtime.package.manifest import MANIFEST_NAME
from mlic_runtime.package.model_package import ModelPackage, find_package, load_package
from mlic_train.base.files import atomic_path
from mlic_train.errors import SignatureError

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from model_signing import hashing, manifest, signing, verifying
except ImportError as error:
    raise SignatureError(f"signatures need model-signing ({error}): pip install 'mlic-train[sign]'") from error

SIGNATURE_SUFFIX = ".sig"

_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # what model-signing takes
_ITSELF = "."  # the name that the library gives to a package that is one file
_MAX_KEY_BYTES = 64 * 1024
_MAX_SIGNATURE_BYTES = 1024 * 1024  # 2 KB for five files
_HOW_TO_MAKE_A_KEY = "make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY"


def sign_package(
    path_or_name: str | Path, key: Path, output: Path | None = None, *, password: bytes | None = None
) -> Path:
    """Sign every file of a model package, once all of them are verified.

    Args:
        path_or_name: the model package, see `find_package`.
        key: the private key, an elliptic curve's, as PEM.
        output: where to write the signature, replaced only when it is complete; None for beside the package, under its
            name with SIGNATURE_SUFFIX added.
        password: of an encrypted key.

    Returns:
        The signature's path.

    Raises:
        PackageError: there is no such package, it is damaged, or holds more than its manifest lists.
        SignatureError: the key cannot be used, or the signature not be written.
    """
    package = load_package(path_or_name)
    output = output or default_signature(package.path)
    if output.resolve().is_relative_to(package.path.resolve()):
        raise SignatureError(f"{output} lies in the package, which holds no signature: write it beside the package")
    signer = _signer(key, password)
    if output.exists() and output.samefile(key):
        raise SignatureError(f"{output} is the key: write the signature to another file")
    names = _names(package.path)
    package.verify()
    if package.path.is_dir():  # verify() lets the __init__.py of an installed package pass; it is not to be signed
        _refuse_others(package.path, names, {MANIFEST_NAME, *package.manifest.files}, f"{MANIFEST_NAME} does not list")
    signer.set_hashing_config(_Hashing())
    try:
        with atomic_path(output) as temporary:
            signer.sign(package.path, temporary)
    except OutputError as error:
        raise SignatureError(str(error)) from error
    return output


def verify_package(path_or_name: str | Path, key: Path, signature: Path | None = None) -> ModelPackage:
    """Check that a model package is, file for file, what the owner of a key signed, and undamaged.

    Nothing of the package is parsed before its signature holds.

    Args:
        path_or_name: the model package, see `find_package`.
        key: the public key as PEM.
        signature: None for the one beside the package, see `default_signature`.

    Returns:
        The package.

    Raises:
        SignatureError: the key or the signature cannot be used, or do not belong together.
        IntegrityError: a file is missing, additional, a symbolic link, or differs from what was signed; the first one.
        PackageError: there is no such package, or it was damaged already when it was signed.
    """
    path = find_package(path_or_name)
    signature = signature or default_signature(path)
    names = _names(path)
    verifier = _verifier(key)
    signed = _signed(signature)
    hashed = _Hashing()
    verifier.set_hashing_config(hashed)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where the library prints what it thinks of an old signature
            verifier.verify(path, signature)
    except OSError as error:
        raise SignatureError(f"cannot read {error.filename}: {os_error_reason(error)}") from error
    except Exception as error:
        # A signature that is not as it should be makes the library raise whatever comes up: InvalidSignature,
        # ValueError, KeyError, IndexError, AttributeError, ... It hashes the package once the signature holds.
        if hashed.found is None:
            raise SignatureError(
                f"{signature} was not made with the private key of {key}, or was changed since{_detail(error)}: "
                "use the public key of who signed, or get the signature anew"
            ) from error
        raise IntegrityError(
            f"{_difference(path, signed, hashed.found)}: get the package anew, or its own signature"
        ) from error
    # Nor is a file covered that the signer chose to ignore, as the official command does with those of git.
    _refuse_others(path, names, hashed.found or (), f"{signature} does not cover")
    package = load_package(path)
    package.verify()
    return package


def default_signature(path: Path) -> Path:
    """Where the signature of the model package at `path` lies unless told otherwise: beside it."""
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(f"{path.name}{SIGNATURE_SUFFIX}")


def is_encrypted(key: Path) -> bool:
    """Whether a private key needs a password.

    Raises:
        SignatureError: it cannot be read.
    """
    return _says_encrypted(_read(key, "key", _MAX_KEY_BYTES))


class _Hashing(hashing.Config):
    """Hashes every file, where the library would leave out those of git, and keeps what it found.

    Attributes:
        found: {file: algorithm:digest}, None before it was asked to hash.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # not typed there
        self.set_ignored_paths(paths=(), ignore_git_paths=False)
        self.found: dict[str, str] | None = None

    def hash(
        self, model_path: hashing.PathLike, *, files_to_hash: Iterable[hashing.PathLike] | None = None
    ) -> manifest.Manifest:
        """As the library's."""
        result = super().hash(model_path, files_to_hash=files_to_hash)
        self.found = {
            item.identifier: f"{item.digest.algorithm}:{item.digest.digest_hex}"
            for item in result.resource_descriptors()
        }
        return result


def _signer(key: Path, password: bytes | None) -> signing.Config:
    pem = _read(key, "key", _MAX_KEY_BYTES)
    if b"PUBLIC KEY-----" in pem:
        raise SignatureError(f"{key} is a public key: sign with the private one that it was made from")
    try:
        loaded = serialization.load_pem_private_key(pem, password)
    except TypeError as error:  # there is a password too many or too few
        if _says_encrypted(pem):
            raise SignatureError(f"{key} is encrypted: give its password with --password-env") from error
        raise SignatureError(f"{key} is not encrypted: leave the password out") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if password and _says_encrypted(pem):
            raise SignatureError(f"{key} cannot be decrypted: the password is wrong, or the file damaged") from error
        raise SignatureError(f"{key} is not a private key as PEM; {_HOW_TO_MAKE_A_KEY}") from error
    _require_curve(key, loaded)
    # model-signing 1.1 says that the password is a text, and hands it to a function that takes only bytes.
    return signing.Config().use_elliptic_key_signer(private_key=key, password=password)  # type: ignore[arg-type]


def _verifier(key: Path) -> verifying.Config:
    pem = _read(key, "key", _MAX_KEY_BYTES)
    if b"PRIVATE KEY-----" in pem:
        raise SignatureError(f"{key} is a private key: verify with its public one; openssl ec -in {key} -pubout has it")
    try:
        loaded = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{key} is not a public key as PEM: ask for that of who signed") from error
    _require_curve(key, loaded)
    return verifying.Config().use_elliptic_key_verifier(public_key=key)


def _require_curve(key: Path, loaded: object) -> None:
    """Refuse what the library would fail on in its own way, RSA keys with an AttributeError."""
    if isinstance(loaded, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        if loaded.curve.name in _CURVES:
            return
        found = f"of the curve {loaded.curve.name}"
    else:
        found = f"of the type {type(loaded).__name__}"
    raise SignatureError(f"{key} is {found}, expected a key of {', '.join(_CURVES)}; {_HOW_TO_MAKE_A_KEY}")


def _says_encrypted(pem: bytes) -> bool:
    return b"ENCRYPTED" in pem  # in the first line of PKCS#8, in a header of OpenSSL's older format


def _names(path: Path) -> set[str]:
    """The files of a model package, as the library names them.

    Raises:
        IntegrityError: one is a symbolic link, or no regular file in another way.
        PackageError: the folder cannot be listed.
    """
    if path.is_symlink():
        raise IntegrityError(f"{path} is a symbolic link, which may lead elsewhere tomorrow: give {path.resolve()}")
    if not path.is_dir():
        return {_ITSELF}
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise PackageError(f"cannot list {path}: {os_error_reason(error)}") from error
    for entry in entries:
        if not S_ISREG(entry.lstat().st_mode):
            raise IntegrityError(f"{entry} is not a regular file, and a model package holds no other: remove it")
    return {entry.name for entry in entries}


def _refuse_others(path: Path, names: set[str], known: Iterable[str], which: str) -> None:
    others = sorted(names.difference(known))
    if others:
        raise IntegrityError(f"{path} holds {others[0]!r}, which {which}: remove it, or use the package as exported")


def _signed(signature: Path) -> dict[str, str]:
    """What a signature claims to cover, {file: algorithm:digest}; for messages, as nothing here proves it.

    Raises:
        SignatureError: the file cannot be read, or is not a signature.
    """
    content = _read(signature, "signature", _MAX_SIGNATURE_BYTES)
    try:
        statement = json.loads(base64.b64decode(json.loads(content)["dsseEnvelope"]["payload"]))
        resources = statement["predicate"]["resources"]
        return {item["name"]: f"{item['algorithm']}:{item['digest']}" for item in resources}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SignatureError(
            f"{signature} is not a signature by model-signing{_detail(error)}: it is damaged or another file; "
            "get it anew from who signed"
        ) from error


def _difference(path: Path, signed: dict[str, str], found: dict[str, str]) -> str:
    """The first difference between what was signed and what is there."""
    if (_ITSELF in signed) != (_ITSELF in found):
        one, other = ("one file", "a folder") if _ITSELF in signed else ("a folder", "one file")
        return f"the signature is of a package that is {one}, and {path} is {other}"
    for name in sorted({*signed, *found}):
        if name not in signed:
            return f"{path} holds {name!r}, which was not signed"
        if name not in found:
            return f"{path} lacks {name!r}, which was signed"
        if signed[name] != found[name]:
            return f"{path / name} is {found[name]}, and {signed[name]} was signed"
    return f"{path} is not what was signed"


def _read(path: Path, what: str, limit: int) -> bytes:
    try:
        with open_regular(path) as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise SignatureError(f"cannot read {path}: {os_error_reason(error)}; give the {what} with --{what}") from error
    if len(content) > limit:
        raise SignatureError(f"{path} is larger than {limit} bytes, which no {what} is; give the {what} with --{what}")
    return content


def _detail(error: Exception) -> str:
    """The first line of what the library says, if it says anything."""
    text = str(error).partition("\n")[0].strip().rstrip(".:")
    return f" ({text})" if text else ""
