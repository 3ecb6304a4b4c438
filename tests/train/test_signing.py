import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import model_signing
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat

from mlic_runtime.errors import IntegrityError, MlicError
from mlic_runtime.package.model_package import load_package
from mlic_train.cli.sign import main
from mlic_train.errors import SignatureError
from mlic_train.exporting.archive import write_archive
from mlic_train.exporting.signing import default_signature, sign_package, verify_package

ROOT = Path(__file__).parents[2]
FILES = ("README.md", "manifest.json", "model.fp16.onnx", "model.fp32.onnx", "tokenizer.json")
PASSWORD = "a pass phräse"


@dataclass(frozen=True)
class Keys:
    private: Path
    public: Path
    other: Path  # the public key of somebody else
    encrypted: Path  # the private key again, with PASSWORD


def private_pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: str | None = None) -> bytes:
    encryption = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password.encode())
    )
    pem: bytes = key.private_bytes(Encoding.PEM, form, encryption)
    return pem


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def keys(key: ec.EllipticCurvePrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    made = Keys(*(folder / f"{name}.pem" for name in ("private", "public", "other", "encrypted")))
    made.private.write_bytes(private_pem(key))
    made.public.write_bytes(public_pem(key))
    made.other.write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    made.encrypted.write_bytes(private_pem(key, password=PASSWORD))
    return made


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The tiny package (see tests/tiny_package.py), in a folder of its own."""
    return Path(shutil.copytree(ROOT / "tests" / "data" / "tiny", tmp_path / "tiny"))


@pytest.fixture
def signed(package: Path, keys: Keys) -> Path:
    """The tiny package with its signature beside it."""
    sign_package(package, keys.private)
    return package


@pytest.fixture
def signed_file(package: Path, keys: Keys, tmp_path: Path) -> Path:
    """The tiny package as one file, with its signature beside it."""
    file = tmp_path / "tiny.mlic"
    write_archive(package, file)
    sign_package(file, keys.private)
    return file


def run(*arguments: str | Path, **options: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


def fails(*arguments: str | Path, **options: Any) -> str:
    """The one line that the command fails with."""
    result = run(*arguments, **options)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "\\n" not in result.stderr, "of what the library says only the first line"
    return result.stderr


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


# --- what holds


def test_a_package_is_signed_beside_itself_and_verified(package: Path, keys: Keys) -> None:
    before = {path.name: path.read_bytes() for path in package.iterdir()}
    result = run("sign", package, "--key", keys.private)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{package}.sig\n", "")
    assert sorted(path.name for path in package.parent.iterdir()) == ["tiny", "tiny.sig"]
    assert {path.name: path.read_bytes() for path in package.iterdir()} == before
    assert Path(f"{package}.sig").stat().st_mode & 0o777 == 0o644
    result = run("verify", package, "--key", keys.public)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "ok tiny@1.0.0\n", "")


def test_a_package_that_is_one_file_is_signed_and_verified(signed_file: Path, keys: Keys) -> None:
    assert Path(f"{signed_file}.sig").is_file()
    assert run("verify", signed_file, "--key", keys.public).stdout == "ok tiny@1.0.0\n"


def test_a_package_is_found_by_its_name(keys: Keys, tmp_path: Path) -> None:
    signature = tmp_path / "signatures" / "hybrid.sig"
    assert run("sign", "hybrid", "--key", keys.private, "--output", signature).stdout == f"{signature}\n"
    result = run("verify", "hybrid", "--key", keys.public, "--signature", signature)
    assert result.stdout == f"ok hybrid@{load_package('hybrid').manifest.version}\n"


def test_a_signature_holds_wherever_the_package_lies(signed: Path, keys: Keys, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(signed, tmp_path / "elsewhere" / "renamed"))
    assert verify_package(moved, keys.public, Path(f"{signed}.sig")).path == moved


@pytest.mark.parametrize("inside", [".", "../tiny/.", "../other/.."])
def test_the_signature_lies_beside_the_folder_however_it_is_named(
    package: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    folder = package.parent / "tiny"
    (package.parent / "other").mkdir()
    monkeypatch.chdir(folder)
    expected = folder.parent if inside == "../other/.." else folder
    assert default_signature(Path(inside)).resolve() == expected.with_name(f"{expected.name}.sig")


def test_signing_again_replaces_the_signature(signed: Path, keys: Keys) -> None:
    Path(f"{signed}.sig").write_text("an old one")
    sign_package(signed, keys.private)
    verify_package(signed, keys.public)


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_other_curves_of_the_library_are_taken(package: Path, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    made = ec.generate_private_key(curve)
    (tmp_path / "private.pem").write_bytes(private_pem(made))
    (tmp_path / "public.pem").write_bytes(public_pem(made))
    sign_package(package, tmp_path / "private.pem")
    verify_package(package, tmp_path / "public.pem")


# --- the official library and its command


def official_command(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "model_signing", *map(str, arguments)], check=True, capture_output=True)


@pytest.mark.parametrize("what", ["signed", "signed_file"])
def test_the_official_library_accepts_our_signature(what: str, keys: Keys, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(what)
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys.public)
    verifier.verify(path, f"{path}.sig")
    flip(path / "model.fp32.onnx" if path.is_dir() else path, 100)
    with pytest.raises(ValueError, match="Hash mismatch"):
        verifier.verify(path, f"{path}.sig")


@pytest.mark.parametrize("what", ["signed", "signed_file"])
def test_the_official_library_signs_for_us(what: str, keys: Keys, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(what)
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys.private)
    signer.sign(path, f"{path}.official")
    assert verify_package(path, keys.public, Path(f"{path}.official")).path == path


def test_the_official_command_and_ours_accept_each_other(signed: Path, keys: Keys, tmp_path: Path) -> None:
    official = tmp_path / "official.sig"
    official_command("verify", "key", signed, "--signature", f"{signed}.sig", "--public_key", keys.public)
    official_command("sign", "key", signed, "--signature", official, "--private_key", keys.private)
    assert run("verify", signed, "--key", keys.public, "--signature", official).stdout == "ok tiny@1.0.0\n"


def test_what_the_library_prints_about_an_old_signature_is_no_data(signed: Path, keys: Keys) -> None:
    signature = Path(f"{signed}.sig")
    bundle = json.loads(signature.read_text())
    bundle["verificationMaterial"]["publicKey"] = {}  # before 1.1 the key was not hinted at
    signature.write_text(json.dumps(bundle))
    result = run("verify", signed, "--key", keys.public)
    assert (result.exit_code, result.stdout) == (0, "ok tiny@1.0.0\n")
    assert "older verification material format" in result.stderr


# --- a package that is not what was signed


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(signed: Path, keys: Keys, name: str) -> None:
    flip(signed / name, (signed / name).stat().st_size // 2)
    message = fails("verify", signed, "--key", keys.public)
    assert f"{signed / name} is sha256:" in message
    assert message.endswith("was signed: get the package again, or its own signature\n")


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_a_flipped_bit_in_a_package_of_one_file_is_found(signed_file: Path, keys: Keys, position: int) -> None:
    flip(signed_file, position)
    assert f"{signed_file} is sha256:" in fails("verify", signed_file, "--key", keys.public)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(signed: Path, keys: Keys, name: str) -> None:
    (signed / name).unlink()
    assert f"{signed} lacks '{name}', which was signed" in fails("verify", signed, "--key", keys.public)


def official_signature(package: Path, keys: Keys, *ignored: str) -> Path:
    signature = package.with_name("official.sig")
    config = model_signing.hashing.Config().set_ignored_paths(paths=[*ignored, "model.sig"])
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys.private)
    signer.set_hashing_config(config).sign(package, signature)
    return signature


ADDITIONAL = (".gitattributes", ".gitignore", ".DS_Store", "__init__.py", "evil.py", "model.int8.onnx", "model.sig")


@pytest.mark.parametrize("name", ADDITIONAL)
def test_an_additional_file_is_named(signed: Path, keys: Keys, name: str) -> None:
    (signed / name).write_text("x")
    assert f"{signed} holds '{name}', which was not signed" in fails("verify", signed, "--key", keys.public)


@pytest.mark.parametrize("name", ADDITIONAL)
def test_an_additional_file_is_named_also_where_the_signature_ignores_it(package: Path, keys: Keys, name: str) -> None:
    signature = official_signature(package, keys, *ADDITIONAL)
    verify_package(package, keys.public, signature)
    (package / name).write_text("x")
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys.public)
    verifier.verify(package, signature)
    message = fails("verify", package, "--key", keys.public, "--signature", signature)
    assert f"{package} holds '{name}', which {signature} does not cover" in message


@pytest.mark.parametrize("name", [".git", ".github", "__pycache__", "empty"])
def test_an_additional_folder_is_named(signed: Path, keys: Keys, name: str) -> None:
    (signed / name).mkdir()
    assert f"{signed / name} is not a regular file" in fails("verify", signed, "--key", keys.public)


@pytest.mark.parametrize("name", ["manifest.json", "model.fp32.onnx"])
def test_a_signature_that_leaves_out_a_file_is_refused(package: Path, keys: Keys, name: str) -> None:
    signature = official_signature(package, keys, name)
    message = fails("verify", package, "--key", keys.public, "--signature", signature)
    assert f"{package} holds '{name}', which {signature} does not cover" in message


def test_a_signature_that_covers_nothing_is_refused(signed_file: Path, keys: Keys) -> None:
    signature = official_signature(signed_file, keys, ".")
    with pytest.raises(IntegrityError, match="does not cover"):
        verify_package(signed_file, keys.public, signature)


def test_a_package_that_was_damaged_when_it_was_signed_is_refused(package: Path, keys: Keys) -> None:
    (package / "tokenizer.json").write_text("{}")
    signature = official_signature(package, keys)
    message = fails("verify", package, "--key", keys.public, "--signature", signature)
    assert "tokenizer.json has 2 bytes, expected 394" in message


@pytest.mark.parametrize("action", ["sign", "verify"])
def test_a_symbolic_link_is_refused(signed: Path, keys: Keys, tmp_path: Path, action: str) -> None:
    outside = tmp_path / "outside.md"
    (signed / "README.md").rename(outside)
    (signed / "README.md").symlink_to(outside)
    key = keys.private if action == "sign" else keys.public
    assert f"{signed / 'README.md'} is not a regular file" in fails(action, signed, "--key", key)


@pytest.mark.parametrize("action", ["sign", "verify"])
def test_a_symbolic_link_to_the_package_is_refused(signed: Path, keys: Keys, tmp_path: Path, action: str) -> None:
    link = tmp_path / "latest"
    link.symlink_to(signed)
    shutil.copyfile(f"{signed}.sig", f"{link}.sig")
    key = keys.private if action == "sign" else keys.public
    message = fails(action, link, "--key", key)
    assert f"{link} is a symbolic link" in message
    assert message.endswith(f"give {signed.resolve()}\n")


# --- a signature that does not hold


def test_the_key_of_somebody_else_is_refused(signed: Path, keys: Keys) -> None:
    message = fails("verify", signed, "--key", keys.other)
    assert f"{signed}.sig was not made with the private key of {keys.other}" in message
    assert "use the signer's public key" in message


def test_somebody_else_who_claims_our_key_is_refused(package: Path, keys: Keys, tmp_path: Path) -> None:
    """The hint at the key is not signed; whoever forges a signature can write there what they like."""
    forged = tmp_path / "forger.pem"
    forged.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    signature = sign_package(package, keys.private)
    hint = json.loads(signature.read_text())["verificationMaterial"]
    sign_package(package, forged)
    signature.write_text(json.dumps({**json.loads(signature.read_text()), "verificationMaterial": hint}))
    assert "was not made with the private key of" in fails("verify", package, "--key", keys.public)


def test_the_signature_of_another_package_is_refused(signed: Path, keys: Keys, tmp_path: Path) -> None:
    other = Path(shutil.copytree(ROOT / "tests" / "data" / "tiny_picture", tmp_path / "other"))
    signature = sign_package(other, keys.private)
    message = fails("verify", signed, "--key", keys.public, "--signature", signature)
    assert f"{signed / 'README.md'} is sha256:" in message
    assert "or its own signature" in message


def test_the_signature_of_the_folder_is_not_that_of_the_file(signed: Path, signed_file: Path, keys: Keys) -> None:
    message = fails("verify", signed_file, "--key", keys.public, "--signature", f"{signed}.sig")
    assert f"the signature is of a package that is a folder, and {signed_file} is one file" in message
    message = fails("verify", signed, "--key", keys.public, "--signature", f"{signed_file}.sig")
    assert f"the signature is of a package that is one file, and {signed} is a folder" in message


def test_a_signature_that_is_cut_off_is_refused(signed: Path, keys: Keys) -> None:
    signature = Path(f"{signed}.sig")
    whole = signature.read_bytes()
    for length in range(0, len(whole), 101):
        signature.write_bytes(whole[:length])
        with pytest.raises(SignatureError, match=r"tiny\.sig is not a signature .*: it is damaged or another file"):
            verify_package(signed, keys.public)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"no JSON", b"[]", b"{}", b'"text"', b"null", b"[" * 100_000, b'{"dsseEnvelope": 1}']
)
def test_a_file_that_is_no_signature_is_refused(signed: Path, keys: Keys, content: bytes) -> None:
    Path(f"{signed}.sig").write_bytes(content)
    assert f"{signed}.sig is not a signature by model-signing" in fails("verify", signed, "--key", keys.public)


BROKEN = [
    ("mediaType",),
    ("verificationMaterial",),
    ("verificationMaterial", "publicKey"),
    ("dsseEnvelope",),
    ("dsseEnvelope", "payload"),
    ("dsseEnvelope", "payloadType"),
    ("dsseEnvelope", "signatures"),
    ("dsseEnvelope", "signatures", 0),
    ("dsseEnvelope", "signatures", 0, "sig"),
]


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: ".".join(map(str, path)))
def test_a_broken_part_of_a_signature_is_refused_in_one_line(
    signed: Path, keys: Keys, path: tuple[str | int, ...]
) -> None:
    signature = Path(f"{signed}.sig")
    whole = signature.read_text()
    values: list[Any] = [None, [], "", "x", 0, {"x": {}}]
    for value in values:
        bundle = parent = json.loads(whole)
        for step in path[:-1]:
            parent = parent[step]
        parent[path[-1]] = value
        signature.write_text(json.dumps(bundle))
        message = fails("verify", signed, "--key", keys.public)
        assert message.startswith(f"Error: {signature} ")
        assert message.endswith("from the signer\n") or message.endswith("get the signature again\n")


def test_a_missing_signature_is_named_with_the_option(package: Path, keys: Keys) -> None:
    message = fails("verify", package, "--key", keys.public)
    assert f"cannot read {package}.sig: there is no such file or folder; give the signature with --signature" in message


def test_a_signature_without_end_is_not_read(signed: Path, keys: Keys) -> None:
    with Path(f"{signed}.sig").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(SignatureError, match="is larger than 1048576 bytes, which no signature is"):
        verify_package(signed, keys.public)


def test_a_signature_that_is_a_pipe_is_not_waited_for(package: Path, keys: Keys) -> None:
    os.mkfifo(f"{package}.sig")
    with pytest.raises(SignatureError, match="it is not a regular file"):
        verify_package(package, keys.public)


# --- what is not signed


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
def test_a_damaged_package_is_not_signed(package: Path, keys: Keys, name: str) -> None:
    flip(package / name, 5)
    assert f"{package / name} has sha256" in fails("sign", package, "--key", keys.private)
    assert not Path(f"{package}.sig").exists()


@pytest.mark.parametrize("name", ["evil.py", ".gitattributes", "__init__.py"])
def test_a_package_with_an_additional_file_is_not_signed(package: Path, keys: Keys, name: str) -> None:
    (package / name).write_text("x")
    message = fails("sign", package, "--key", keys.private)
    assert f"{package} holds '{name}', which manifest.json does not list" in message
    assert not Path(f"{package}.sig").exists()


@pytest.mark.parametrize("where", ["tiny.sig", "deep/tiny.sig"])
def test_no_signature_is_written_into_the_package(package: Path, keys: Keys, where: str) -> None:
    message = fails("sign", package, "--key", keys.private, "--output", package / where)
    assert "is inside the package, which must not contain it: write it beside the package" in message
    load_package(package).verify()


def test_neither_the_package_nor_the_key_is_overwritten(signed_file: Path, keys: Keys, tmp_path: Path) -> None:
    key = Path(shutil.copyfile(keys.private, tmp_path / "key.pem"))
    before = signed_file.read_bytes(), key.read_bytes()
    assert "is inside the package" in fails("sign", signed_file, "--key", key, "--output", signed_file)
    assert f"{key} is the key" in fails("sign", signed_file, "--key", key, "--output", key)
    assert (signed_file.read_bytes(), key.read_bytes()) == before


def test_a_signature_that_cannot_be_written_leaves_the_old_one(
    signed: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, __: Path, signature: Path) -> None:
        signature.write_text("half")
        raise OSError(28, "No space left on device")

    before = Path(f"{signed}.sig").read_bytes()
    monkeypatch.setattr(model_signing.signing.Config, "sign", full)
    assert f"cannot write {signed}.sig: No space left on device" in fails("sign", signed, "--key", keys.private)
    assert Path(f"{signed}.sig").read_bytes() == before
    assert sorted(path.name for path in signed.parent.iterdir()) == ["tiny", "tiny.sig"]


def test_a_folder_in_the_place_of_the_signature_is_an_error(package: Path, keys: Keys) -> None:
    Path(f"{package}.sig").mkdir()
    assert f"cannot write {package}.sig: Is a directory" in fails("sign", package, "--key", keys.private)


# --- keys


def test_a_missing_key_is_an_error(package: Path, tmp_path: Path) -> None:
    for action in ("sign", "verify"):
        result = run(action, package, "--key", tmp_path / "none.pem")
        assert result.exit_code == 2
        assert "none.pem' does not exist" in result.stderr
    with pytest.raises(SignatureError, match=r"none\.pem: there is no such file or folder; give the key with --key"):
        sign_package(package, tmp_path / "none.pem")


@pytest.mark.parametrize(
    ("pem", "found"),
    [
        (b"", "not a private key as PEM"),
        (b"no key", "not a private key as PEM"),
        (b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "not a private key as PEM"),
        (public_pem(ec.generate_private_key(ec.SECP256R1())), "a public key: sign with the private one"),
        (private_pem(rsa.generate_private_key(65537, 2048)), "of the type RSAPrivateKey, expected a key of secp256r1,"),
        (private_pem(ed25519.Ed25519PrivateKey.generate()), "of the type Ed25519PrivateKey, expected a key of"),
        (private_pem(ec.generate_private_key(ec.SECP256K1())), "of the curve secp256k1, expected a key of secp256r1,"),
        (b"x" * 65537, "larger than 65536 bytes"),
    ],
    ids=["empty", "text", "garbage", "public", "rsa", "ed25519", "secp256k1", "large"],
)
def test_a_key_that_cannot_sign_is_refused(package: Path, tmp_path: Path, pem: bytes, found: str) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(pem)
    assert f"{key} is {found}" in fails("sign", package, "--key", key)
    assert not Path(f"{package}.sig").exists()


@pytest.mark.parametrize(
    ("pem", "found"),
    [
        (b"", "not a public key as PEM"),
        (b"no key", "not a public key as PEM"),
        (private_pem(ec.generate_private_key(ec.SECP256R1())), "a private key: verify with its public key"),
        (public_pem(rsa.generate_private_key(65537, 2048)), "of the type RSAPublicKey, expected a key of secp256r1,"),
        (public_pem(ec.generate_private_key(ec.SECP256K1())), "of the curve secp256k1, expected a key of secp256r1,"),
    ],
    ids=["empty", "text", "private", "rsa", "secp256k1"],
)
def test_a_key_that_cannot_verify_is_refused(signed: Path, tmp_path: Path, pem: bytes, found: str) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(pem)
    assert f"{key} is {found}" in fails("verify", signed, "--key", key)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_takes_its_password_from_the_environment(
    package: Path, key: ec.EllipticCurvePrivateKey, keys: Keys, tmp_path: Path, form: PrivateFormat
) -> None:
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(private_pem(key, form, PASSWORD))
    arguments = ("sign", package, "--key", encrypted, "--password-env", "SECRET")
    message = fails(*arguments, env={"SECRET": "wrong"})
    assert f"{encrypted} cannot be decrypted: the password is wrong, or the file damaged" in message
    assert f"{encrypted} is encrypted: give its password" in fails(*arguments, env={"SECRET": ""})
    assert not Path(f"{package}.sig").exists()
    assert run(*arguments, env={"SECRET": PASSWORD}).stdout == f"{package}.sig\n"
    verify_package(package, keys.public)


def test_without_standard_input_nobody_is_asked_for_the_password(
    package: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(click.ClickException, match="is encrypted: give its password with --password-env"):
        main(["sign", str(package), "--key", str(keys.encrypted)], standalone_mode=False)


def test_a_variable_that_is_not_there_is_a_usage_error(package: Path, keys: Keys) -> None:
    result = run("sign", package, "--key", keys.encrypted, "--password-env", "SECRET", env={"SECRET": None})
    assert result.exit_code == 2
    assert "there is no environment variable 'SECRET'" in result.stderr


def test_a_password_for_a_key_that_has_none_is_an_error(package: Path, keys: Keys) -> None:
    message = fails("sign", package, "--key", keys.private, "--password-env", "SECRET", env={"SECRET": PASSWORD})
    assert f"{keys.private} is not encrypted: leave the password out" in message


def test_without_a_terminal_nobody_is_asked_for_the_password(package: Path, keys: Keys) -> None:
    message = fails("sign", package, "--key", keys.encrypted, input=f"{PASSWORD}\n")
    assert f"{keys.encrypted} is encrypted: give its password with --password-env" in message


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: (ours, the command's)."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_on_a_terminal_the_password_is_asked_for_and_not_shown(
    package: Path, keys: Keys, terminal: tuple[int, int]
) -> None:
    ours, theirs = terminal
    code = "from mlic_train.cli.sign import main; main()"
    command = [sys.executable, "-c", code, "sign", str(package), "--key", str(keys.encrypted)]
    # In a session of its own there is no /dev/tty, and the password is read from standard input.
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True, cwd=ROOT
    ) as process:
        shown = b""
        while b": " not in shown and select.select([ours], [], [], 60)[0]:
            shown += os.read(ours, 1024)
        os.write(ours, f"{PASSWORD}\n".encode())
        stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert shown.decode() == f"Password of {keys.encrypted}: "
    assert stdout.decode() == f"{package}.sig\n"
    os.write(theirs, b"end")
    assert PASSWORD.encode() not in os.read(ours, 1024)
    verify_package(package, keys.public)


# --- the extra


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mlic_train.exporting.signing")
    monkeypatch.setitem(sys.modules, "model_signing", None)


@pytest.mark.usefixtures("without_the_extra")
@pytest.mark.parametrize("action", ["sign", "verify"])
def test_without_the_extra_the_error_names_it(package: Path, keys: Keys, action: str) -> None:
    message = fails(action, package, "--key", keys.private)
    assert message.endswith("pip install 'mlic-train[sign]'\n")
    with pytest.raises(MlicError, match="signatures need model-signing"):
        import mlic_train.exporting.signing  # noqa: F401


@pytest.mark.usefixtures("without_the_extra")
@pytest.mark.parametrize("arguments", [["--help"], ["sign", "--help"], ["verify", "--help"]])
def test_help_needs_no_extra(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 0
