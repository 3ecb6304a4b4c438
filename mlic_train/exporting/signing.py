"""Signatures of whole model packages, by the OpenSSF's model-signing and the user's own key, without any network.

The sha256 in manifest.json detects damage, but anyone who changes the package can change it too. A signature proves who
made the package. It is a Sigstore bundle (https://sigstore.github.io/model-transparency) beside the package, because a
package has exactly the files that its manifest lists. The official `model_signing` reads it and writes the same.
"""

import base64
import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISREG

from mlic_runtime.base.files import open_regular, os_error_reason
from mlic_runtime.base.output_files import atomic_path
from mlic_runtime.base.override import override
from mlic_runtime.errors import IntegrityError, OutputError, PackageError
from mlic_runtime.package.manifest import MANIFEST_NAME
from mlic_runtime.package.model_package import ModelPackage, find_package, load_package
from mlic_train.errors import SignatureError

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from model_signing import hashing, manifest, signing, verifying
except ImportError as error:
    raise SignatureError(f"signatures need model-signing ({error}): pip install 'mlic-train[sign]'") from error

SIGNATURE_SUFFIX = ".sig"

_CURVES = ("secp256r1", "secp384r1", "secp521r1")  # those of model-signing
_ITSELF = "."  # the library's name of a package that is one file
_MAX_KEY_BYTES = 64 * 1024
_MAX_SIGNATURE_BYTES = 1024 * 1024  # 2 KB for five files
_HOW_TO_MAKE_A_KEY = "make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY"


def sign_package(
    path_or_name: str | Path, key: Path, output: Path | None = None, *, password: bytes | None = None
) -> Path:
    """Sign every file of a model package after verifying all of them.

    Args:
        path_or_name: the model package, see `find_package`.
        key: the private key of an elliptic curve, as PEM.
        output: the signature's file; an older one is replaced only when the new one is complete. None: see
            `default_signature`.
        password: of an encrypted key.

    Returns:
        The signature's path.

    Raises:
        PackageError: there is no such package, it is damaged, or has files that its manifest does not list.
        SignatureError: the key cannot be used, or the signature cannot be written.
    """
    package = load_package(path_or_name)
    output = output or default_signature(package.path)
    if output.resolve().is_relative_to(package.path.resolve()):
        raise SignatureError(f"{output} is inside the package, which must not contain it: write it beside the package")
    signer = _signer(key, password)
    if output.exists() and output.samefile(key):
        raise SignatureError(f"{output} is the key: write the signature to another file")
    names = _file_names(package.path)
    package.verify()
    if package.path.is_dir():  # verify() accepts the __init__.py of an installed package, which must not be signed
        _refuse_others(package.path, names, {MANIFEST_NAME, *package.manifest.files}, f"{MANIFEST_NAME} does not list")
    signer.set_hashing_config(_Hashing())
    try:
        with atomic_path(output) as temporary:
            signer.sign(package.path, temporary)
    except OutputError as error:
        raise SignatureError(str(error)) from error
    return output


def verify_package(path_or_name: str | Path, key: Path, signature: Path | None = None) -> ModelPackage:
    """Check that every file of a model package is as the owner of a key signed it, and undamaged.

    Nothing of the package is parsed before its signature is verified.

    Args:
        path_or_name: the model package, see `find_package`.
        key: the public key as PEM.
        signature: the signature's file; None: see `default_signature`.

    Returns:
        The package.

    Raises:
        SignatureError: the key or the signature cannot be used, or do not belong together.
        IntegrityError: a file is missing, additional, a symbolic link, or differs from the signed one; the message
            names the first.
        PackageError: there is no such package, or it was damaged before it was signed.
    """
    path = find_package(path_or_name)
    signature = signature or default_signature(path)
    names = _file_names(path)
    verifier = _verifier(key)
    signed = _signed_digests(signature)
    hashed = _Hashing()
    verifier.set_hashing_config(hashed)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the library prints warnings about old signatures
            verifier.verify(path, signature)
    except OSError as error:
        raise SignatureError(f"cannot read {error.filename}: {os_error_reason(error)}") from error
    except Exception as error:
        # For a malformed signature the library raises many types: InvalidSignature, ValueError, KeyError, IndexError,
        # AttributeError, ... It hashes the package only after the signature is verified.
        if hashed.digests is None:
            raise SignatureError(
                f"{signature} was not made with the private key of {key}, or was changed since{_detail(error)}: "
                "use the signer's public key, or get the signature again"
            ) from error
        raise IntegrityError(
            f"{_difference(path, signed, hashed.digests)}: get the package again, or its own signature"
        ) from error
    # The signer may have ignored files, as the official command does with those of git; they are not covered.
    _refuse_others(path, names, hashed.digests or (), f"{signature} does not cover")
    package = load_package(path)
    package.verify()
    return package


def default_signature(path: Path) -> Path:
    """Return the default path of a package's signature: beside it, under its name with SIGNATURE_SUFFIX."""
    path = path if path.name not in ("", "..") else path.resolve()
    return path.with_name(f"{path.name}{SIGNATURE_SUFFIX}")


def is_encrypted(key: Path) -> bool:
    """Return whether a private key needs a password.

    Raises:
        SignatureError: it cannot be read.
    """
    return _is_encrypted_pem(_read(key, "key", _MAX_KEY_BYTES))


class _Hashing(hashing.Config):
    """A configuration that hashes every file, also those of git, which the library leaves out, and keeps the result.

    Attributes:
        digests: {file: algorithm:digest}; None before hashing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the library does not annotate it
        self.set_ignored_paths(paths=(), ignore_git_paths=False)
        self.digests: dict[str, str] | None = None

    @override
    def hash(
        self, model_path: hashing.PathLike, *, files_to_hash: Iterable[hashing.PathLike] | None = None
    ) -> manifest.Manifest:
        result = super().hash(model_path, files_to_hash=files_to_hash)
        self.digests = {
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
    except TypeError as error:  # an unexpected or a missing password
        if _is_encrypted_pem(pem):
            raise SignatureError(f"{key} is encrypted: give its password with --password-env") from error
        raise SignatureError(f"{key} is not encrypted: leave the password out") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if password and _is_encrypted_pem(pem):
            raise SignatureError(f"{key} cannot be decrypted: the password is wrong, or the file damaged") from error
        raise SignatureError(f"{key} is not a private key as PEM; {_HOW_TO_MAKE_A_KEY}") from error
    _require_curve(key, loaded)
    # model-signing 1.1 annotates the password as str but passes it to a function that takes only bytes.
    return signing.Config().use_elliptic_key_signer(private_key=key, password=password)  # type: ignore[arg-type]


def _verifier(key: Path) -> verifying.Config:
    pem = _read(key, "key", _MAX_KEY_BYTES)
    if b"PRIVATE KEY-----" in pem:
        raise SignatureError(f"{key} is a private key: verify with its public key, from openssl ec -in {key} -pubout")
    try:
        loaded = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{key} is not a public key as PEM: ask the signer for it") from error
    _require_curve(key, loaded)
    return verifying.Config().use_elliptic_key_verifier(public_key=key)


def _require_curve(key: Path, loaded: object) -> None:
    """Refuse keys on which the library fails, such as RSA keys with an AttributeError."""
    if isinstance(loaded, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        if loaded.curve.name in _CURVES:
            return
        kind = f"of the curve {loaded.curve.name}"
    else:
        kind = f"of the type {type(loaded).__name__}"
    raise SignatureError(f"{key} is {kind}, expected a key of {', '.join(_CURVES)}; {_HOW_TO_MAKE_A_KEY}")


def _is_encrypted_pem(pem: bytes) -> bool:
    return b"ENCRYPTED" in pem  # in the first line of PKCS#8, in a header of OpenSSL's older format


def _file_names(path: Path) -> set[str]:
    """List the files of a model package, under the library's names.

    Raises:
        IntegrityError: one is a symbolic link, or otherwise not a regular file.
        PackageError: the folder cannot be listed.
    """
    if path.is_symlink():
        raise IntegrityError(f"{path} is a symbolic link, which could later lead elsewhere: give {path.resolve()}")
    if not path.is_dir():
        return {_ITSELF}
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise PackageError(f"cannot list {path}: {os_error_reason(error)}") from error
    for entry in entries:
        if not S_ISREG(entry.lstat().st_mode):
            raise IntegrityError(f"{entry} is not a regular file, and a model package has no others: remove it")
    return {entry.name for entry in entries}


def _refuse_others(path: Path, names: set[str], known: Iterable[str], which: str) -> None:
    others = sorted(names.difference(known))
    if others:
        raise IntegrityError(f"{path} holds {others[0]!r}, which {which}: remove it, or use the package as exported")


def _signed_digests(signature: Path) -> dict[str, str]:
    """Read what a signature claims to cover, {file: algorithm:digest}; this is not verified and only for messages.

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
            "get it again from the signer"
        ) from error


def _difference(path: Path, signed: dict[str, str], actual: dict[str, str]) -> str:
    """Describe the first difference between the signed files and those of the package."""
    if (_ITSELF in signed) != (_ITSELF in actual):
        one, other = ("one file", "a folder") if _ITSELF in signed else ("a folder", "one file")
        return f"the signature is of a package that is {one}, and {path} is {other}"
    for name in sorted({*signed, *actual}):
        if name not in signed:
            return f"{path} holds {name!r}, which was not signed"
        if name not in actual:
            return f"{path} lacks {name!r}, which was signed"
        if signed[name] != actual[name]:
            return f"{path / name} is {actual[name]}, and {signed[name]} was signed"
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
    """Return the first line of the library's message, if there is one."""
    text = str(error).partition("\n")[0].strip().rstrip(".:")
    return f" ({text})" if text else ""
