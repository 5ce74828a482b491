"""Packs each function as a zip for Lambda: `bootstrap` and the lakehouse file.

    zips.py --profile release   builds for Amazon Linux 2023 (cargo-lambda and zig) and checks what Lambda asks for
    zips.py --profile dev       packs the debug programs of this machine, for the emulator

The zips go to out/zips/<profile>/<arch>/.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lakehouse import FUNCTIONS, Lakehouse, Mistake, add_lakehouse, entry, with_lakehouse

ROOT = Path(__file__).resolve().parents[2]
TRIPLES = {"arm64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}
# Amazon Linux 2023 has this one.
GLIBC = (2, 34)
UNZIPPED_LIMIT = 250 << 20


def built(arch: str, target: Path) -> dict[str, Path]:
    """Builds all six for Lambda and gives the programs."""
    folder = target / "lambda" / arch
    command = ["cargo", "lambda", "build", "--release", "--locked", "--workspace", "--lambda-dir", str(folder)]
    command += ["--target", f"{TRIPLES[arch]}.{GLIBC[0]}.{GLIBC[1]}"]
    for name in FUNCTIONS:
        command += ["--bin", name]
    # cargo finds `cargo-lambda`, and that one zig, beside this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(["rustup", "target", "add", TRIPLES[arch]], check=True, cwd=ROOT)
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PATH": path, "CARGO_TARGET_DIR": str(target)})
    return {name: folder / name / "bootstrap" for name in FUNCTIONS}


def debug(target: Path) -> dict[str, Path]:
    programs = {name: target / "debug" / name for name in FUNCTIONS}
    for program in programs.values():
        if not program.is_file():
            raise Mistake(f"expected `{program}` (`cargo build --workspace --bins`), found none")
    return programs


def glibc_needed(program: Path) -> tuple[int, int]:
    """The newest glibc whose symbols the program asks for."""
    output = subprocess.run(["readelf", "--version-info", "--wide", str(program)], check=True, capture_output=True, text=True).stdout
    return max(((int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", output)), default=(0, 0))


def check(name: str, needed: tuple[int, int], size: int) -> None:
    """Refuses what Lambda would refuse."""
    if needed > GLIBC:
        raise Mistake(f"{name}: expected a program for glibc {GLIBC[0]}.{GLIBC[1]} or older, found one that needs {needed[0]}.{needed[1]}")
    if size > UNZIPPED_LIMIT:
        raise Mistake(f"{name}: expected at most {UNZIPPED_LIMIT} bytes unpacked, found {size}")


def pack(program: Path, path: Path, lakehouse: Lakehouse, release: bool) -> None:
    """Makes the zip; of one that is newer than the program, only the lakehouse file is put in anew."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        if path.is_file() and path.stat().st_mtime > program.stat().st_mtime:
            with_lakehouse(path, made, lakehouse)
        else:
            # Most of a debug program is debug information and symbols; with them it is past what Lambda takes.
            stripped = program if release else Path(folder) / "bootstrap"
            if not release:
                subprocess.run(["strip", "--strip-all", "-o", str(stripped), str(program)], check=True)
            with zipfile.ZipFile(made, "w", compresslevel=9 if release else 1) as zipped:
                with stripped.open("rb") as source, zipped.open(entry("bootstrap", 0o755, zipfile.ZIP_DEFLATED), "w") as packed:
                    shutil.copyfileobj(source, packed, 1 << 20)
                add_lakehouse(zipped, lakehouse)
        made.replace(path)


def bytes_unpacked(path: Path) -> int:
    with zipfile.ZipFile(path) as zipped:
        return sum(info.file_size for info in zipped.infolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    host = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
    parser.add_argument("--profile", choices=["release", "dev"], default="release")
    parser.add_argument("--arch", choices=sorted(TRIPLES), help="default: arm64, in the profile dev this machine's")
    parser.add_argument("--lakehouse", type=Path, default=ROOT / "localstack/demo/lakehouse.yaml")
    parser.add_argument("--target", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")), help="cargo's folder")
    options = parser.parse_args()
    try:
        release = options.profile == "release"
        arch = options.arch or ("arm64" if release else host)
        if not release and arch != host:
            raise Mistake(f"expected --arch {host} with the profile dev, whose programs run here, found `{arch}`")
        lakehouse = Lakehouse.load(options.lakehouse)
        out = ROOT / "out" / "zips" / options.profile / arch
        out.mkdir(parents=True, exist_ok=True)
        for name, program in (built(arch, options.target) if release else debug(options.target)).items():
            path = out / f"{name}.zip"
            pack(program, path, lakehouse, release)
            needed, size = glibc_needed(program), bytes_unpacked(path)
            print(f"{name:10} {size / 1e6:7.1f} MB, zipped {path.stat().st_size / 1e6:6.1f} MB, needs glibc {needed[0]}.{needed[1]}")
            if release:
                check(name, needed, size)
        print(out)
    except Mistake as mistake:
        sys.exit(f"error: {mistake}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: `{' '.join(map(str, error.cmd))}` failed")


if __name__ == "__main__":
    main()
