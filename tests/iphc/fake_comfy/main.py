"""A process that speaks ComfyUI's HTTP and websocket like the real one, makes images in milliseconds, and fails on demand.

Words in a prompt's text order a failure: `[die]` ends the process, `[hang]` never answers, `[refuse]` answers 400, `[part]`
takes the prompt without its output, `[raise]` lets a node fail, `[full]` fails as on a full disk, `[gate]` waits until there is
a file `FAKE_COMFY/open`, `[forget]` loses the prompt as if ComfyUI had started anew. `[orphan]` kills the process
that started this one. With `once` in the brackets these happen a single time in the folder FAKE_COMFY, where `log.txt` gets a
line for each start, upload and image, and for most failures. `FAKE_COMFY/no-start` keeps it from starting.
"""

import argparse
import asyncio
import hashlib
import io
import json
import os
import signal
import sys
import uuid
from pathlib import Path

from aiohttp import WSMsgType, web
from PIL import Image

parser = argparse.ArgumentParser()
for name in ("--listen", "--base-directory", "--port"):
    parser.add_argument(name)
options, _ = parser.parse_known_args()
FOLDER, OUTPUT = Path(os.environ["FAKE_COMFY"]), Path(options.base_directory) / "output"
sockets, pending, done = {}, set(), {}


def log(text):
    with (FOLDER / "log.txt").open("a") as file:
        file.write(f"{text}\n")


def once(word):
    """Whether this happens for the first time."""
    try:
        (FOLDER / word.strip("[]").replace(" ", "-")).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def asked(text, word):
    """Whether a prompt orders this failure now."""
    return f"[{word}]" in text or (f"[{word} once]" in text and once(f"[{word} once]"))


def find(prompt, *classes):
    return next(node for node in prompt.values() if node["class_type"] in classes)


async def stats(request):
    device = {"name": os.environ.get("FAKE_DEVICE", "fake")}
    return web.json_response({"system": {"comfyui_version": "0", "pytorch_version": "0"}, "devices": [device]})


async def connect(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    sockets[request.query["clientId"]] = socket
    async for message in socket:
        if message.type == WSMsgType.ERROR:
            break
    return socket


async def waiting(request):
    return web.json_response({"queue_running": [[0, number, {}] for number in pending], "queue_pending": []})


async def history(request):
    number = request.match_info["number"]
    return web.json_response({number: done[number]} if number in done else {})


async def view(request):
    return web.Response(body=(OUTPUT / request.query["filename"]).read_bytes(), content_type="image/png")


async def upload(request):
    form = await request.post()
    (Path(options.base_directory) / "input" / form["image"].filename).write_bytes(form["image"].file.read())
    log(f"upload {form['image'].filename}")
    return web.json_response({"name": form["image"].filename})


async def queue(request):
    body = await request.json()
    text = find(body["prompt"], "CLIPTextEncode")["inputs"]["text"]
    if "[refuse]" in text:
        return web.json_response({"error": {"message": "refused on demand"}, "node_errors": {}}, status=400)
    number = uuid.uuid4().hex
    if "[part]" in text:
        errors = [{"message": "invalid on demand", "details": "yaw"}]
        return web.json_response({"prompt_id": number, "node_errors": {"3": {"class_type": "EditHead", "errors": errors}}})
    if asked(text, "forget"):
        log("forget")
        return web.json_response({"prompt_id": number})
    pending.add(number)
    asyncio.get_running_loop().create_task(work(body["prompt"], text, number, sockets.get(body.get("client_id"))))
    return web.json_response({"prompt_id": number})


async def work(prompt, text, number, socket):
    messages, outputs = [], {}

    async def tell(kind, **data):
        messages.append([kind, {"prompt_id": number, **data}])
        if kind == "executed":
            outputs[data["node"]] = data["output"]
        if kind in ("execution_success", "execution_error"):
            pending.discard(number)
            done[number] = {"status": {"messages": messages}, "outputs": outputs}
        if socket is not None:
            await socket.send_str(json.dumps({"type": kind, "data": {"prompt_id": number, **data}}))

    if asked(text, "die"):
        log("die")
        os._exit(9)
    if asked(text, "orphan"):
        log(f"orphan {os.getppid()}")
        os.kill(os.getppid(), signal.SIGKILL)
        return
    if asked(text, "hang"):
        log("hang")
        return
    if "[gate]" in text and not (FOLDER / "open").exists():
        log("gate")
        while not (FOLDER / "open").exists():
            await asyncio.sleep(0.02)
    await tell("execution_cached", nodes=[])
    for key in prompt:
        await tell("executing", node=key)
    if "[raise]" in text or "[full]" in text:
        message = "raised on demand" if "[raise]" in text else "[Errno 28] No space left on device"
        await tell("execution_error", node_type="KSampler", exception_message=message)
        return
    seed = find(prompt, "KSampler")["inputs"]["seed"]
    key = next(key for key, node in prompt.items() if node["class_type"] == "SaveImage")
    deciding = {name: node for name, node in prompt.items() if name != key}
    content = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).digest() * 6
    file = io.BytesIO()
    Image.frombytes("RGB", (8, 8), content).save(file, "PNG")
    (OUTPUT / f"{number}.png").write_bytes(file.getvalue())
    log(f"image {seed} {text}")
    await tell("executed", node=key, output={"images": [{"filename": f"{number}.png", "subfolder": "", "type": "output"}]})
    await tell("execution_success")


if (FOLDER / "no-start").exists():
    sys.exit("no start on demand")
log(f"start {os.getpid()}")
app = web.Application(client_max_size=2**26)
app.add_routes(
    [
        web.get("/system_stats", stats),
        web.get("/ws", connect),
        web.post("/prompt", queue),
        web.post("/upload/image", upload),
        web.get("/queue", waiting),
        web.get("/history/{number}", history),
        web.get("/view", view),
    ]
)
web.run_app(app, host=options.listen, port=int(options.port), print=None)
