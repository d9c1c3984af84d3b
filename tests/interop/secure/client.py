"""Python's `websockets`: echoes and a topic, plain and sealed, compressed and not."""

import asyncio
import json
import ssl
import sys

import websockets

LONG = json.dumps({"text": "the same again and again, " * 400})


async def echo(url, context, compression):
    """Messages come back as they went, of any size, whatever was agreed on."""
    async with websockets.connect(url, ssl=context, compression=compression) as socket:
        agreed = bool(socket.protocol.extensions)
        assert agreed == (compression == "deflate"), socket.protocol.extensions
        for message in ("", "x", LONG, LONG * 4, b"", b"\0" * 50_000, LONG.encode()):
            await socket.send(message)
            assert await asyncio.wait_for(socket.recv(), 10) == message
        for number in range(200):
            await socket.send(f"{number} {LONG}")
        for number in range(200):
            assert await asyncio.wait_for(socket.recv(), 10) == f"{number} {LONG}"


async def topic(plain_url, url, context, bearer):
    """A push reaches those who agreed on compression and those who did not alike."""
    headers = {"authorization": f"Bearer {bearer}"}
    subscribe = json.dumps({"type": "subscribe", "topic": "news"})
    sockets = []
    for compression in ("deflate", None, "deflate"):
        for where, how in ((plain_url, None), (url, context)):
            socket = await websockets.connect(
                where, ssl=how, compression=compression, additional_headers=headers)
            await socket.send(subscribe)
            assert json.loads(await asyncio.wait_for(socket.recv(), 10))["type"] == "subscribed"
            sockets.append(socket)
    message = {"type": "message", "topic": "news", "event": "said", "payload": LONG}
    await sockets[0].send(json.dumps(message))
    for socket in sockets:
        heard = json.loads(await asyncio.wait_for(socket.recv(), 10))
        assert heard["payload"] == LONG, heard
    for socket in sockets:
        await socket.close()
        assert socket.close_code == 1000, socket.close_code


async def main():
    plain, sealed, chain, ada, _ = sys.argv[1:]
    context = ssl.create_default_context(cafile=chain)
    for url, how in ((f"ws://{plain}/echo", None), (f"wss://{sealed}/echo", context)):
        for compression in (None, "deflate"):
            await echo(url, how, compression)
    await topic(f"ws://{plain}/ws", f"wss://{sealed}/ws", context, ada)
    print("ok  websockets: echo and a topic, sealed and not, compressed and not")


asyncio.run(main())
