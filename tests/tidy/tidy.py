#!/usr/bin/env python3
"""Checks what the compiler does not: sizes, layers, and that docs/lifecycle.md names real things.

Usage: tests/tidy/tidy.py [ROOT]. Prints one line a finding; exits 1 if there is any.
"""

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

CODE = {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".proto", ".rs", ".cmake"}
CPP = {".h", ".cc", ".cu", ".cuh"}
MAX_COLUMNS = 100
MAX_LINES = 400
MAX_KERNEL_LINES = 800
MAX_FUNCTION_LINES = 70
MAX_MESSAGES_LINES = 150
MAX_TRACKED_BYTES = 45 << 20

# A folder may include its own headers and those of the folders named here.
ALLOWED = {
    "base": set(),
    "config": {"base"},
    "proto": set(),
    "rpc": {"base"},
    "kernels": {"base"},
    "model": {"base", "kernels"},
    "sharding": {"base", "kernels", "model"},
    "cache_client": {"base", "rpc"},
    "cache_service": {"base", "config", "rpc", "cache_client"},
    "worker": {"base", "config", "rpc", "kernels", "model", "sharding", "cache_client"},
    "coordinator": {"base", "config", "rpc", "model", "sharding", "cache_client"},
    "cli": {"base", "config", "rpc", "kernels", "model", "sharding", "cache_client",
            "cache_service", "worker", "coordinator"},
    "bench": None,  # benches and tests may look anywhere
    "tests": None,
}
NO_PROTO = {"base", "config", "kernels"}

# Vendor headers and the only files that may include them.
EDGES = [
    (r"<grpcpp/|<grpc/|\.grpc\.pb\.h",
     r"(^rpc/|(_service|_client|_server|server|main)(_test)?\.(h|cc)$)"),
    (r"<rocksdb/", r"rocksdb_store(_test)?\.cc$"),
    (r"<yaml-cpp/", r"^config/"),
    (r"<re2/", r"^model/quantization\.cc$"),
    (r"<CLI/", r"^(config|cli)/"),
    (r"<nccl", r"nccl_(communicator\.cc|family\.(h|cc))$"),
    (r"<gloo/", r"gloo_communicator\.cc$"),
    (r"<cuda|<cublas", r"(^kernels/.*\.cu|^worker/cuda_.*\.cc|\.cuh)$"),
    (r"<immintrin\.h>|<x86intrin\.h>", r"^kernels/(simd|cpu_isa|thread_pool)"),
]


def tracked_files(root: pathlib.Path) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    out = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [f for f in out.stdout.splitlines() if (root / f).is_file()]


def blank_literals(text: str) -> str:
    """Replaces comments, strings and characters by spaces, keeping line breaks."""
    pattern = re.compile(
        r'R"(\w*)\((?:.|\n)*?\)\1"|//[^\n]*|/\*(?:.|\n)*?\*/|"(?:\\.|[^"\\\n])*"'
        r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'"
    )
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def functions(text: str) -> Iterator[tuple[int, int]]:
    """(first line, number of lines) of each function body's definition."""
    scopes: list[tuple[str, int]] = []
    head_start = 0
    for match in re.finditer(r"[{};]", text):
        at, char = match.start(), match.group()
        if char == "{":
            head = text[head_start:at].strip()
            inside = any(kind == "function" for kind, _ in scopes)
            if not inside and re.search(
                r"\b(namespace|extern)\b|^(template\s*<.*>\s*)?"
                r"(typedef\s+)?(class|struct|union|enum)\b",
                head,
                re.S,
            ):
                kind = "scope"
            elif not inside and ")" in head and not head.endswith("="):
                kind = "function"
            else:
                kind = "other"
            first = head_start + len(text[head_start:at]) - len(text[head_start:at].lstrip())
            scopes.append((kind, text.count("\n", 0, first) + 1))
        elif char == "}" and scopes:
            kind, line = scopes.pop()
            if kind == "function":
                yield line, text.count("\n", 0, at) + 2 - line
        head_start = at + 1


def check_sizes(name: str, text: str) -> Iterator[str]:
    lines = text.splitlines()
    limit = MAX_KERNEL_LINES if name.startswith("kernels/") else MAX_LINES
    if name.endswith("/messages.h"):
        limit = MAX_MESSAGES_LINES
    if len(lines) > limit:
        yield f"{name}: {len(lines)} lines, at most {limit}"
    for i, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS and "http" not in line:
            yield f"{name}:{i}: {len(line)} columns, at most {MAX_COLUMNS}"
    if pathlib.Path(name).suffix in CPP:
        for line, count in functions(blank_literals(text)):
            if count > MAX_FUNCTION_LINES:
                yield f"{name}:{line}: function of {count} lines, at most {MAX_FUNCTION_LINES}"


def check_includes(name: str, text: str) -> Iterator[str]:
    folder = name.split("/")[0]
    if folder not in ALLOWED:
        return
    for i, line in enumerate(text.splitlines(), 1):
        found = re.match(r'\s*#include\s+([<"][^>"]+[>"])', line)
        if not found:
            continue
        included = found.group(1)
        for vendor, place in EDGES:
            if re.search(vendor, included) and not re.search(place, name):
                if not (ALLOWED[folder] is None and "grpc" in vendor):
                    yield f"{name}:{i}: {included} is allowed only in files matching {place}"
        other = included.strip('<>"').split("/")[0]
        if other == "troupe" and folder in NO_PROTO:
            yield f"{name}:{i}: {folder}/ must not know proto ({included})"
        allowed = ALLOWED[folder]
        if included[0] == '"' and allowed is not None and other in ALLOWED:
            if other not in allowed | {folder}:
                yield f"{name}:{i}: {folder}/ must not include {other}/ ({included})"


def check_lifecycle(root: pathlib.Path, sources: dict[str, str]) -> Iterator[str]:
    """Every `Name`, `Name::Member` and `path/file` in docs/lifecycle.md must exist."""
    page = root / "docs/lifecycle.md"
    if not page.exists():
        yield "docs/lifecycle.md: missing"
        return
    everything = "\n".join(
        text for name, text in sources.items() if pathlib.Path(name).suffix in CPP | {".proto"}
    )
    words = set(re.findall(r"\w+", everything))
    for i, line in enumerate(page.read_text().splitlines(), 1):
        for name in re.findall(r"`([^`]+)`", line):
            if "/" in name:
                if not (root / name).exists():
                    yield f"docs/lifecycle.md:{i}: no file {name}"
            elif re.fullmatch(r"[A-Za-z_]\w*((::|\.)\w+)*(\(\))?", name):
                for part in re.findall(r"\w+", name):
                    if part not in words:
                        yield f"docs/lifecycle.md:{i}: {name}: no {part} in the sources"


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    names = tracked_files(root)
    sources = {
        n: (root / n).read_text(errors="replace") for n in names if pathlib.Path(n).suffix in CODE
    }
    findings = []
    for name, text in sources.items():
        findings += check_sizes(name, text)
        if pathlib.Path(name).suffix in CPP:
            findings += check_includes(name, text)
    findings += check_lifecycle(root, sources)
    total = sum((root / n).stat().st_size for n in names)
    if total > MAX_TRACKED_BYTES:
        findings.append(f"tracked files: {total} bytes, at most {MAX_TRACKED_BYTES}")
    print("\n".join(findings) or f"tidy: {len(sources)} files, nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
