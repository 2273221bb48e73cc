"""Agents ask an index by the Model Context Protocol: with the official client, over stdio, HTTP and in this process."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.types import CallToolResult
from PIL import Image

from bagindex import Index
from bagindex.agents.asking import Asking
from bagindex.agents.server import make_server
from fakes import LinearCompute, MemorySource

COMMAND = [sys.executable, "-m", "bagindex_cli", "mcp"]


def over_stdio(index: Index, use: Callable[[Client], Awaitable[None]]) -> None:
    parameters = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], "-i", str(index.path)], env=os.environ)

    async def talk() -> None:
        async with Client(stdio_client(parameters)) as client:
            await use(client)

    anyio.run(talk)


@contextmanager
def in_process(*indexes: Index):  # type: ignore[no-untyped-def]
    """Something that calls a tool of a server in this process."""
    asking = Asking([index.path for index in indexes])
    server = make_server(asking)

    def call(tool: str, **arguments: Any) -> CallToolResult:
        async def talk() -> CallToolResult:
            async with Client(server) as client:
                return await client.call_tool(tool, arguments)

        return anyio.run(talk)

    yield call
    asking.close()


def text(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if part.type == "text")


def rows(result: CallToolResult) -> Any:
    said = text(result)
    return json.loads(said[said.index("[{") : said.rindex("}]") + 2])


def pictures(result: CallToolResult) -> list[np.ndarray]:
    found = [part for part in result.content if part.type == "image"]
    assert {part.mime_type for part in found} <= {"image/png"}
    return [np.array(Image.open(io.BytesIO(base64.b64decode(part.data))).convert("RGB")) for part in found]


def test_an_agent_asks_over_stdio(planted_words: Index) -> None:
    direct = planted_words.top_patches("fish", wrong_class=True, k=3)

    async def use(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"info", "classes", "tables", "sql", "top_patches", "similar", "explain"} <= tools.keys()
        for tool in tools.values():
            assert tool.description
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint
            assert tool.input_schema["additionalProperties"] is False
        found = await client.call_tool("top_patches", {"class_name": "fish", "images": "wrong_class", "k": 3})
        assert not found.is_error
        assert [each["patch_id"] for each in rows(found)] == [patch.patch_id for patch in direct]
        # The picture is the one that is saved, and shows the patches' own pixels.
        (picture,) = pictures(found)
        assert np.array_equal(picture, np.array(direct.picture().convert("RGB")))
        assert (await client.call_tool("info", {})).is_error is False
        resource = await client.read_resource(f"bagindex://{planted_words.name}/images/3.png")
        seen = np.array(Image.open(io.BytesIO(base64.b64decode(resource.contents[0].blob))))  # type: ignore[union-attr]
        assert np.array_equal(seen, planted_words.pixels(3))
        patch = direct[0].patch_id
        resource = await client.read_resource(f"bagindex://{planted_words.name}/bagnet33/patches/{patch}.png")
        seen = np.array(Image.open(io.BytesIO(base64.b64decode(resource.contents[0].blob))))  # type: ignore[union-attr]
        assert np.array_equal(seen, direct.crops()[0])
        with pytest.raises(MCPError, match="there is no image 9999 in this index"):
            await client.read_resource(f"bagindex://{planted_words.name}/images/9999.png")
        listed = [str(each.uri) for each in (await client.list_resources()).resources]
        assert listed == [f"bagindex://{planted_words.name}/{what}" for what in ("info", "tables")]
        assert json.loads((await client.read_resource(listed[0])).contents[0].text)["images"] == 48  # type: ignore[union-attr]
        prompt = await client.get_prompt("look-into-a-class", {"class_name": "fish"})
        assert "'fish'" in prompt.messages[0].content.text  # type: ignore[union-attr]

    over_stdio(planted_words, use)


def test_every_tool_answers_as_index_does(planted_words: Index) -> None:
    index = planted_words
    with in_process(index) as call:
        similar = index.similar(300, k=4, other_images=True)
        assert [row["patch_id"] for row in rows(call("similar", patch_id=300, k=4, other_images=True))] == [
            patch.patch_id for patch in similar
        ]
        explained = call("explain", image_id=17, versus="fish,tree")
        assert index.explain(17, vs="fish,tree").words in text(explained)
        assert pictures(explained)[0].std() > 10
        for tool, arguments, found in (
            ("why", {"image_id": 17}, index.why(17)),
            ("flip", {"image_id": 17}, index.flip(17)),
            ("shortcuts", {"class_name": "fish", "k": 2}, index.shortcuts("fish", k=2)),
            ("confusions", {"k": 2}, index.confusions(k=2)),
        ):
            answer = call(tool, **arguments)
            assert text(answer).startswith(found.title), tool
            assert found.words in text(answer)
            assert len(pictures(answer)) == (found._repr_png_() is not None)
            assert not pictures(call(tool, **arguments, pictures=False))
        assert len(pictures(call("heatmap", image_id=3, classes=["fish"]))) == 1
        assert [row["word"] for row in rows(call("words", class_name="fish", k=3))[:3]] == [
            word.word for word in index.words("fish", k=3).words
        ]
        assert json.loads(text(call("patch", patch_id=300)))["image_id"] == index.patch(300)["image_id"]
        assert {row["name"] for row in rows(call("classes"))} == {each.name for each in index.classes}
        assert {each["name"] for each in json.loads(text(call("tables")))["tables"]} >= {"evidence", "predictions"}
        assert json.loads(text(call("info")))[0]["images"] == 48


def test_sql_is_a_strangers(planted_words: Index, tmp_path: Path) -> None:
    with in_process(planted_words) as call:
        assert rows(call("sql", query="SELECT count(*) AS n FROM images")) == [{"n": 48}]
        some = call("sql", query="SELECT image_id FROM images ORDER BY 1", rows=2)
        assert rows(some) == [{"image_id": 0}, {"image_id": 1}]
        assert "the first 2 rows" in text(some)
        for query in (f"COPY images TO '{tmp_path}/x.csv'", "FROM read_text('/etc/passwd')", "ATTACH 'x.db'"):
            refused = call("sql", query=query)
            assert refused.is_error
            assert "allowed" in text(refused) or "there is no table" in text(refused)
        assert not list(tmp_path.iterdir())


def test_an_error_is_one_line_that_says_what_to_do(planted_words: Index) -> None:
    with in_process(planted_words) as call:
        for tool, arguments, said in (
            ("top_patches", {"class_name": "fisch"}, "no class is called 'fisch': did you mean 'fish'?"),
            ("top_patches", {"k": 500}, "class_name: Field required; k: Input should be less than or equal to 100"),
            ("explain", {"image_id": 9999}, "there is no image 9999 in this index"),
            ("words", {"class": "fish"}, "words has no argument 'class': it takes class_name, wrong_class, k, "),
            ("why", {"image_id": 7, "vs": "fish,tree"}, "why has no argument 'vs': it takes image_id, class_name, "),
            ("similar", {"patch_id": 10**9}, "no patch"),
            ("sql", {"query": "SELEC 1"}, "syntax error"),
            ("info", {"index": "other"}, "there is no index 'other' here: one of "),
            ("heatmap", {"image_id": 3, "model": "x"}, "this index has no model 'x'"),
        ):
            answer = call(tool, **arguments)
            assert answer.is_error
            assert said in text(answer)
            assert len(text(answer).splitlines()) == 1
            assert str(planted_words.path) not in text(answer)


def test_an_address_that_is_filled_in_wrongly_is_one_line(
    planted_words: Index, capfd: pytest.CaptureFixture[str]
) -> None:
    async def use(client: Client) -> None:
        for address in ("{index}/images/{image_id}.png", "{index}/{model}/patches/{patch_id}.png"):
            with pytest.raises(MCPError, match=r"_id: Input should be a valid integer.*\Z") as caught:
                await client.read_resource(f"bagindex://{address}")
            assert len(str(caught.value).splitlines()) == 1

    over_stdio(planted_words, use)
    assert capfd.readouterr().err == ""


def test_no_other_file_of_the_machine_is_read(planted_words: Index, planted_folder: Path) -> None:
    picture = next((planted_folder / "pictures").rglob("*.jpg"))
    with in_process(planted_words) as call:
        for tool in ("explain", "heatmap", "why", "flip"):
            assert "image_id: Input should be a valid integer" in text(call(tool, image_id=str(picture)))


def test_several_indexes_are_told_apart(planted_words: Index, tmp_path: Path) -> None:
    from bagindex.build import BuildSettings, build
    from bagindex.store import IndexDirectory

    settings = BuildSettings(shard_size=2, workers=1, pixels=False)
    build(IndexDirectory(tmp_path / "plain"), MemorySource(["a", "b"]), {"a": 0, "b": 1}, LinearCompute("ab"), settings)
    with in_process(planted_words, Index.open(tmp_path / "plain")) as call:
        assert f"say which index: one of {planted_words.name}, plain" in text(call("top_patches", class_name="a"))
        found = call("top_patches", class_name="a", index="plain")
        assert rows(found)[0]["label_name"] == "a"
        assert not pictures(found)  # it keeps no pixels
        assert len(json.loads(text(call("info")))) == 2


def test_many_questions_at_a_time(planted_words: Index) -> None:
    asking = Asking([planted_words.path])
    server = make_server(asking)
    answers: list[str] = []

    async def talk() -> None:
        async with Client(server) as client, anyio.create_task_group() as group:

            async def ask() -> None:
                answers.append(text(await client.call_tool("classes", {})))

            for _ in range(12):
                group.start_soon(ask)

    anyio.run(talk)
    assert asking.pools[planted_words.name].free <= 4
    asking.close()
    assert len(answers) == 12
    assert len(set(answers)) == 1


def test_ctrl_c_ends_it_though_it_waits_for_a_line(planted_words: Index) -> None:
    pipe = subprocess.PIPE
    command = [*COMMAND, "-i", str(planted_words.path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        running.stdin.write(line + "\n")
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["result"]["serverInfo"]["name"] == "bagindex"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert (running.returncode, out, err) == (130, "", "bagindex: stopped\n")


def test_over_http_on_this_machine_only(planted_words: Index, run) -> None:  # type: ignore[no-untyped-def]
    for place in ("0.0.0.0:8401", "192.0.2.1:80", "example.org:80", "127.0.0.1", "127.0.0.1:x"):
        assert run("mcp", "-i", planted_words.path, "--http", place).status == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*COMMAND, "-i", str(planted_words.path), "--http", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            assert f"http://127.0.0.1:{port}/mcp" in running.stderr.readline()
            anyio.run(_over_http, port)
        finally:
            running.send_signal(signal.SIGINT)
            assert running.wait(20) == 130


async def _over_http(port: int) -> None:
    import httpx

    for last in (False,) * 100 + (True,):
        try:
            async with Client(f"http://127.0.0.1:{port}/mcp") as client:
                assert "48" in text(await client.call_tool("sql", {"query": "SELECT count(*) FROM images"}))
            break
        except BaseException:  # it is not there yet; what the client raises then is a group
            if last:
                raise
            time.sleep(0.1)
    # A page of elsewhere whose name was made to lead here is not answered.
    async with httpx.AsyncClient() as web:
        headers = {"Host": "evil.example", "Accept": "application/json, text/event-stream"}
        answer = await web.post(f"http://127.0.0.1:{port}/mcp", headers=headers, json={})
    assert answer.status_code == 421


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, run) -> None:  # type: ignore[no-untyped-def]
    for name in [each for each in sys.modules if each.split(".")[0] == "mcp" or each.startswith("bagindex.agents")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    result = run("mcp")
    assert (result.status, result.out) == (1, "")
    assert result.err == "bagindex: bagindex mcp needs the protocol's library: pip install 'bagindex[mcp]'\n"
