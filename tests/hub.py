"""A stand-in for the hub: as much of it as downloads need."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def stand_in_hub(files: dict[str, Path], home: Path) -> tuple[ThreadingHTTPServer, dict[str, str]]:
    """A server of models and datasets, `files` maps owner/name to a folder, whose `sent` logs downloads; and the
    environment of a process that takes it for the hub and has its cache in `home`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.sent = files, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        parts = path.removeprefix("/api").removeprefix("/models").removeprefix("/datasets").strip("/").split("/")
        folder, file = self.server.files.get("/".join(parts[:2])), "/".join(parts[4:])
        if folder and path.startswith("/api/"):
            sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
            listing = [{"type": "file", "path": name, "size": size, "oid": "b" * 40} for name, size in sizes.items()]
            siblings = [{"rfilename": name} for name in sizes]
            info = {"id": "/".join(parts[:2]), "sha": "a" * 40, "siblings": siblings, "tags": []}
            self.answer(json.dumps(listing if "/tree/" in path else info).encode(), "application/json")
        elif folder and (folder / file).is_file():
            if self.command == "GET":
                self.server.sent.append("/".join([parts[1], file]))
            content = (folder / file).read_bytes()
            self.answer(content, "application/octet-stream", ETag=f'"{hash(content)}"')
        else:
            missing = "EntryNotFound" if folder else "RepoNotFound"
            self.answer(b"", "text/plain", status=404, **{"X-Error-Code": missing})

    do_HEAD = do_GET

    def answer(self, body, kind, status=200, **headers):
        self.send_response(status)
        for key, value in (
            {"Content-Type": kind, "Content-Length": len(body), "X-Repo-Commit": "a" * 40} | headers
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass
