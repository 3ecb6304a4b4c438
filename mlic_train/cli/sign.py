"""`mlic-sign`. stdout is data; model-signing is imported when work begins."""

import os
import sys
from pathlib import Path

import click

from mlic_runtime.cli.command import MlicCommand, MlicGroup, write
from mlic_runtime.cli.fields import FILE, NEW_FILE


@click.group(cls=MlicGroup)
@click.version_option(package_name="mlic-train")
def main() -> None:
    """Sign model packages with a key of your own, and verify them.

    PACKAGE is a folder, a .mlic file, or the name of a model. Its signature is PACKAGE.sig, a file beside it in the
    format of the OpenSSF's model-signing, whose own command reads and writes it too. A pair of keys:

    \b
    openssl ecparam -name prime256v1 -genkey -noout -out key.pem
    openssl ec -in key.pem -pubout -out public.pem
    """  # noqa: D301 # click needs the backspace itself


@main.command(cls=MlicCommand, short_help="Sign all files of a package.")
@click.argument("package")
@click.option("--key", type=FILE, required=True, help="The private key, PEM, of an elliptic curve.")
@click.option(
    "--password-env",
    metavar="NAME",
    help="The environment variable that holds the key's password.  [default: ask on the terminal, if it has one]",
)
@click.option("--output", type=NEW_FILE, help="The signature to write.  [default: PACKAGE.sig]")
def sign(package: str, key: Path, password_env: str | None, output: Path | None) -> None:
    """Verify PACKAGE, sign all of its files, and print the path of the signature.

    \b
    mlic-sign sign runs/hybrid/package --key key.pem
    """  # noqa: D301 # click needs the backspace itself
    from mlic_train.exporting.signing import is_encrypted, sign_package

    if password_env is not None:
        if password_env not in os.environ:
            raise click.BadParameter(f"there is no environment variable {password_env!r}", param_hint="--password-env")
        password = os.fsencode(os.environ[password_env])
    elif is_encrypted(key) and sys.stdin is not None and sys.stdin.isatty():  # in a pipe nobody could answer
        password = click.prompt(f"Password of {key}", hide_input=True, err=True).encode()
    else:
        password = None
    signature = sign_package(package, key, output, password=password)
    write(f"{signature}\n", kept=f"the signature is in {signature}")


@main.command(cls=MlicCommand, short_help="Check a package against its signature.")
@click.argument("package")
@click.option("--key", type=FILE, required=True, help="The signer's public key, PEM.")
@click.option("--signature", type=FILE, help="The signature.  [default: PACKAGE.sig]")
def verify(package: str, key: Path, signature: Path | None) -> None:
    """Check that PACKAGE is, file for file, what the owner of the key signed.

    What pip installs from a wheel has an __init__.py that nobody signed: verify the package that was signed instead.

    \b
    mlic-sign verify runs/hybrid/package --key public.pem
    """  # noqa: D301 # click needs the backspace itself
    from mlic_train.exporting.signing import verify_package

    manifest = verify_package(package, key, signature).manifest
    write(f"ok {manifest.name}@{manifest.version}\n")
