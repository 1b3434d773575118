"""The public faces of the three packages: what they list is there, lazily, and docs/embedding.md runs."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "embedding.md"
FACES = {
    "propolis_stub": """
        AlreadyInitialized Baggage ConsoleMoved Crash Crashed Dial Disposed Disposition Effect EnsureFinished
        EnsureSpec EnsureTarget Event FromPeer Guest GuestEvent GuestNotRunning Hazard Hold Host
        IllegalTransition Input InstanceState Level LevelChanged MILESTONES MigrateOut MigrationPhase
        MigrationStatus NoInstance Pace Pacer Payload PeerClosed PeerLink PeerLost Point Preparation
        PropolisError PropolisServer Publication Published QueueFull Reason Reconfigure ReconfigureDone
        ReconfigureResult Release RepairingRejected Request RequestDenied RequestKind STANDALONE SettablePacer
        Settle Spec SpecRefused Step TRANSITIONS Tick ToPeer Vm make_handler make_server
    """,
    "nexus_client": """
        Asked Baseboard Decommissioned Delivered Forget Hurry InfoChanged InstanceMigrationTargetParams
        MigrationRuntimeState MigrationState Nexus NexusClient NexusServer Outbox Permanent Registered
        Registration RegistrationRefused Send Settled SledAgentInfo SledCpuFamily SledRole SledVmmState
        Transient UpdatedRuntime VmmRuntimeState VmmState VmmStateRequested
    """,
    "sim_sled": """
        Daemon Hardware Options PresetPacer PropolisMode Rack SimMode Sled SledConfig SledError Vmm
    """,
}
"""A name that goes, or comes, is a decision: write it here, and into the changelog."""
PACKAGES = list(FACES)
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_the_face_is_there_and_has_one_home(package: str) -> None:
    module = importlib.import_module(package)
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == module._HOMES, "what a type checker sees is what runs"
    assert sorted(typed) == sorted(module.__all__)
    for name, home in typed.items():
        assert getattr(module, name) is getattr(importlib.import_module(str(home)), name)
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("package", PACKAGES)
def test_the_faces_are_these(package: str) -> None:
    assert sorted(importlib.import_module(package).__all__) == sorted(FACES[package].split())


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_imports_nothing_of_it(package: str) -> None:
    script = (
        f"import sys; before = set(sys.modules); import {package}; "
        f"print(sorted(name for name in set(sys.modules) - before if name.split('.')[0] in {PACKAGES!r}), "
        "'aiohttp' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == f"{[package]} False"


def test_a_vm_needs_no_server() -> None:
    script = (
        "import sys; from propolis_stub import Vm; print([m for m in ('aiohttp', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("code", "says"), EXAMPLES, ids=["a life", "a report", "a rack"])
def test_the_examples_of_the_page_say_what_stands_below_them(code: str, says: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    assert out.getvalue() == says


def test_a_whole_life_is_ten_lines() -> None:
    code, _ = EXAMPLES[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
