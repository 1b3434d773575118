"""The servers beside a sled against their OpenAPI documents: schemathesis asks, with a fixed seed.

It looks for answers that no document knows, for 5xx, and for hangs. What is not looked at: whether everything that a
document allows is taken; ids that are no UUIDs are not (SR 5.1), and the documents do not say so.
"""

import asyncio
import json
import sys
import uuid
from pathlib import Path

import pytest
from support.profile import by_profile
from support.wire.documents import load

from sim_sled.companions.servers import Ports
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

EXAMPLES = by_profile("20", nightly="100")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("document", "where", "but"),
    [
        ("crucible-agent-1.0.0", lambda beside: next(iter(beside.crucible.values())), ()),
        # a volume that is attached already with another request: 500 is what the original says (SR 5.2)
        ("crucible-pantry-2.0.0", lambda beside: beside.pantry, ("--exclude-operation-id", "attach")),
        ("dns-server-2.0.0", lambda beside: beside.dns_http, ()),
        ("repo-depot-1.0.0", lambda beside: beside.repo_depot, ()),
    ],
)
async def test_every_answer_is_one_of_the_document(document, where, but, tmp_path):
    path = tmp_path / "document.json"
    path.write_text(
        json.dumps({"openapi": "3.0.3", "info": {"title": document, "version": "1"}} | load(f"other/{document}"))
    )
    config = SledConfig(uuid.uuid4(), "[::1]:0", hardware=Hardware(zpools=1))
    options = Options(nexus="[::1]:1", companions=Ports(), register=False, shutdown_wait_s=0.1)
    daemon = Daemon([config], options)
    await daemon.start()
    try:
        (beside,) = daemon.listening.companion_addresses().values()
        version = document.rpartition("-")[2]
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")), "run", str(path),
            "--url", f"http://{where(beside)}", "-H", f"api-version: {version}", "--seed", "7", "--no-color",
            "--max-examples", EXAMPLES, "--checks", CHECKS, "--request-timeout", "10",
            "--suppress-health-check", "all", "--phases", "coverage,fuzzing", *but,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 100)
    finally:
        await daemon.stop()
    assert process.returncode == 0, out.decode()[-6000:]
    assert "generated" in out.decode()
