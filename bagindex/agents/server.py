"""The server: what agents are told, their tools and resources, over stdio or, on this machine only, HTTP."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.server.mcpserver.resources import FunctionResource
from mcp.types import CallToolResult, InputRequiredResult, Tool, ToolAnnotations
from pydantic import AnyUrl, ValidationError

from bagindex import __version__, output
from bagindex.agents.asking import Asking
from bagindex.agents.tools import Tools
from bagindex.service.pictures import encode
from bagindex.text import some

INSTRUCTIONS = """\
An index holds what a BagNet makes of a folder of pictures. A BagNet's logit for a class is the mean of the logits of
small patches of the image; such a patch's logit is its evidence, and all of it is stored. So what the tools answer is
exact. Images are of the right class of a question where their label is the class asked about, of the wrong class where
it is another. Begin with `info`, `classes` or `top_patches`; `tables` says what `sql` can ask. Look at the pictures:
numbers do not say what a patch shows.
"""
_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


class Server(MCPServer[Any]):
    """A server whose errors are one line each."""

    async def list_tools(self) -> list[Tool]:
        """See `MCPServer.list_tools`; the schemas say that there are no other arguments."""
        tools = await super().list_tools()
        return [
            tool.model_copy(update={"input_schema": {**tool.input_schema, "additionalProperties": False}})
            for tool in tools
        ]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """See `MCPServer.call_tool`; what is wrong with arguments is on one line, too, and none is passed over."""
        for tool in await self.list_tools():
            takes = tool.input_schema["properties"]
            if tool.name == name and (unknown := [each for each in arguments if each not in takes]):
                raise ToolError(f"{name} has no argument {some(unknown)}: it takes {', '.join(takes)}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            raise ToolError(f"Error executing tool {name}: {_wrong(error.__cause__)}") from None

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """See `MCPServer.read_resource`; what is wrong with an address is on one line, and no crash."""
        try:
            return await super().read_resource(uri, context)
        except ResourceError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            raise ResourceError(f"Error reading resource {uri}: {_wrong(error.__cause__)}") from None


def _wrong(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def make_server(asking: Asking) -> Server:
    """The server of some indexes; it runs nothing yet."""
    names = ", ".join(asking.pools)
    server = Server(
        "bagindex",
        title="bagindex",
        version=__version__,
        instructions=f"{INSTRUCTIONS}Indexes here: {names}.\n",
        log_level="WARNING",
    )
    for tool in Tools(asking).all():
        about = inspect.getdoc(tool)
        server.add_tool(tool, description=about, annotations=_READS, structured_output=False)
    _add_resources(server, asking)
    _add_prompts(server)
    return server


def run(indexes: Sequence[str | Path], remark: Callable[[str], None], *, http: tuple[str, int] | None = None) -> None:
    """Serve until the other side hangs up, or Ctrl-C.

    Args:
        indexes: as for `Asking`.
        remark: hears what a person should know.
        http: an address of this machine and a port, instead of stdin and stdout.
    """
    asking = Asking(indexes)
    try:
        for text in asking.remarks:
            remark(text)
        server = make_server(asking)
        if http is None:
            server.run("stdio")
        else:
            import uvicorn

            from bagindex.service.server import address_of, bind

            with bind(*http, "--http") as bound:
                remark(f"agents find {', '.join(asking.pools)} at {address_of(bound, http[0])}mcp")
                # On an address of this machine the library takes requests by that machine's names only.
                app = server.streamable_http_app(host=http[0], stateless_http=True, json_response=True)
                uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[bound])
    finally:
        asking.close()


def _add_resources(server: Server, asking: Asking) -> None:
    for name in asking.pools:
        place = f"bagindex://{quote(name)}"

        def info(name: str = name) -> str:
            return output.to_json_value(asking.ask(name, lambda opened: opened.info().to_dict()))

        def tables(name: str = name) -> str:
            return output.to_json_value(asking.ask(name, lambda opened: opened.tables()))

        for what, read, about in (
            ("info", info, "What the index holds."),
            ("tables", tables, "What can be asked of it in SQL, and examples."),
        ):
            server.add_resource(
                FunctionResource(
                    uri=f"{place}/{what}",
                    name=f"{name}: {what}",
                    description=about,
                    mime_type="application/json",
                    fn=partial(read),
                )
            )

    @server.resource(
        "bagindex://{index}/images/{image_id}.png",
        name="image",
        description="An image, as the models see it.",
        mime_type="image/png",
    )
    def image(index: str, image_id: int) -> bytes:
        return asking.ask(unquote(index), lambda opened: encode(opened.pixels(image_id)))

    @server.resource(
        "bagindex://{index}/{model}/patches/{patch_id}.png",
        name="patch",
        description="What a patch of a model sees.",
        mime_type="image/png",
    )
    def patch(index: str, model: str, patch_id: int) -> bytes:
        return asking.ask(unquote(index), lambda opened: encode(opened.patch_pixels(patch_id, model=model)))


def _add_prompts(server: Server) -> None:
    @server.prompt(name="look-into-a-class", description="What the model knows a class by, and what misleads it.")
    def look_into(class_name: str) -> str:
        return (
            f"Look into the class {class_name!r} with bagindex's tools. What does the model know it by (`top_patches`, "
            "with pictures)? What in images of other classes does it take for it (`images: wrong_class`)? With what is "
            "it confused (`confusions`), and which visual words may be shortcuts (`shortcuts`)? Explain two wrong "
            "images (`sql` finds them in `predictions`; `explain`, `flip`). Say what is an exact number of the index "
            "and what is your reading of the pictures."
        )
