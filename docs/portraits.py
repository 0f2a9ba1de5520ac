"""Make a portrait of every photo in a folder, on a running ComfyUI. Run it again to resume (docs/api.md)."""

import argparse
import json
import sys
import time
import uuid
from pathlib import Path
from urllib import parse, request
from urllib.error import HTTPError

WORKFLOW = Path(__file__).resolve().parent.parent / "workflows" / "api" / "portrait.json"
PHOTO, SAVE = "1", "16"
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photos", type=Path)
parser.add_argument("portraits", type=Path, help="folder for portraits and for notes on failures; created if missing")
parser.add_argument("--server", default="http://127.0.0.1:8188")
parser.add_argument("--set", action="append", default=[], metavar="ID.INPUT=VALUE", help="change an input of the workflow")
parser.add_argument("--retry", action="store_true", help="retry photos that failed before")
options = parser.parse_args()


def call(path, body=None, kind="application/json"):
    try:
        with request.urlopen(request.Request(options.server + path, body, {"Content-Type": kind})) as answer:
            return json.load(answer) if "json" in answer.headers["Content-Type"] else answer.read()
    except HTTPError as error:
        sys.exit(f"ComfyUI refused {path} ({error.code}): {error.read().decode()}")


def portrait(photo):
    edge, name = uuid.uuid4().hex, photo.name.replace('"', "_")
    form = f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="capface-{name}"\r\n\r\n'.encode()
    form += photo.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    workflow[PHOTO]["inputs"]["image"] = call("/upload/image", form, f"multipart/form-data; boundary={edge}")["name"]
    queued = call("/prompt", json.dumps({"prompt": workflow}).encode())
    if queued["node_errors"]:  # ComfyUI runs the other parts nevertheless
        sys.exit(f"ComfyUI refused a part of the workflow: {json.dumps(queued['node_errors'])}")
    while not (record := call(f"/history/{queued['prompt_id']}").get(queued["prompt_id"])):
        time.sleep(0.5)
    messages = dict(record["status"]["messages"])
    if "execution_success" in messages:
        return call(f"/view?{parse.urlencode(record['outputs'][SAVE]['images'][0])}"), None
    return None, messages.get("execution_error", {"exception_message": "interrupted"})["exception_message"]


workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
for (node, _, name), value in ((key.partition("."), value) for key, _, value in (s.partition("=") for s in options.set)):
    workflow[node]["inputs"][name] = value if isinstance(workflow[node]["inputs"][name], str) else json.loads(value)
options.portraits.mkdir(parents=True, exist_ok=True)
for photo in sorted(p for p in options.photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")):
    done, failed = (options.portraits / (photo.name + ending) for ending in (".png", ".failed.txt"))
    if not done.exists() and (options.retry or not failed.exists()):
        picture, error = portrait(photo)
        failed.write_text(error, encoding="utf-8") if error else failed.unlink(missing_ok=True)
        if picture:
            (part := options.portraits / f"{uuid.uuid4().hex}.part").write_bytes(picture)
            part.replace(done)
    print(f"{photo.name}: {'failed: ' + failed.read_text(encoding='utf-8').strip() if failed.exists() else done}")
