"""Makes a wheel of a library that is built already: `python pack.py LIBRARY FOLDER`.

`pip install ./python` and `maturin build` compile every crate anew, since they ask cargo for this one alone,
whose dependencies then have other features than in the whole workspace. What is in the wheel's description
comes from maturin all the same.
"""

from __future__ import annotations

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


def main(library: Path, folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as temporary:
        about = described(Path(temporary))
        files = contents(library, about)
    lines = files[f"{about.name}/WHEEL"].decode().splitlines()
    tag = next(line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: "))
    record = [f"{name},sha256={digest(data)},{len(data)}" for name, data in files.items()]
    record.append(f"{about.name}/RECORD,,")
    files[f"{about.name}/RECORD"] = "\n".join([*record, ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{about.name.removesuffix('.dist-info')}-{tag}.whl"
    # It is unpacked at once: packing would take longer than all the rest.
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return wheel


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python pack.py LIBRARY FOLDER")
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
