"""Makes a wheel of a library that is built already, the same bytes of the same files.

usage: pack.py LIBRARY FOLDER [--platform TAG] [--add FILE]...

With --platform, such as manylinux_2_35_x86_64, it is one to be handed out: said to be for that platform, and compressed.
--add puts a licence beside those of the package.

`pip install ./python` and `maturin build` compile every crate anew, since they ask cargo for this one alone,
whose dependencies then have other features than in the whole workspace. What is in the wheel's description
comes from maturin all the same.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent


def described(folder: Path) -> Path:
    """The folder that describes the wheel, made by maturin."""
    command = [sys.executable, "-m", "maturin", "pep517", "write-dist-info"]
    command += ["--metadata-directory", str(folder), "--interpreter", sys.executable]
    made = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if made.returncode != 0:
        sys.exit(f"maturin describes no wheel:\n{made.stdout}{made.stderr}")
    (found,) = folder.glob("*.dist-info")
    return found


def contents(library: Path, about: Path) -> dict[str, bytes]:
    """The wheel's files, by their names in it."""
    package = HERE / "walsh"
    files = {
        f"walsh/{path.name}": path.read_bytes()
        for path in sorted(package.iterdir())
        if path.suffix in (".py", ".pyi") or path.name == "py.typed"
    }
    files["walsh/_walsh.abi3.so"] = library.read_bytes()
    for path in sorted(about.rglob("*")):
        if path.is_file():
            files[str(path.relative_to(about.parent))] = path.read_bytes()
    return files


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def main(library: Path, folder: Path, platform: str | None, add: list[Path]) -> Path:
    with tempfile.TemporaryDirectory() as temporary:
        about = described(Path(temporary))
        files = contents(library, about)
    for path in add:
        files[f"{about.name}/licenses/{path.name}"] = path.read_bytes()
    lines = files[f"{about.name}/WHEEL"].decode().splitlines()
    tag = next(line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: "))
    if platform is not None:
        own = f"{tag.rsplit('-', 1)[0]}-{platform}"
        lines[lines.index(f"Tag: {tag}")] = f"Tag: {own}"
        files[f"{about.name}/WHEEL"] = "\n".join([*lines, ""]).encode()
        tag = own
    record = [f"{name},sha256={digest(data)},{len(data)}" for name, data in files.items()]
    record.append(f"{about.name}/RECORD,,")
    files[f"{about.name}/RECORD"] = "\n".join([*record, ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{about.name.removesuffix('.dist-info')}-{tag}.whl"
    # For tests it is unpacked at once: packing would take longer than all the rest.
    how = zipfile.ZIP_STORED if platform is None else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)  # Of 1980: no clock is looked at.
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, how)
    return wheel


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--platform")
    parser.add_argument("--add", type=Path, action="append", default=[])
    given = parser.parse_args()
    print(main(given.library, given.folder, given.platform, given.add))
