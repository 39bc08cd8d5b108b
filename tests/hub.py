"""A stand-in for the hub, in this process: as much of it as downloads need."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


def use_hub(monkeypatch: pytest.MonkeyPatch, port: int, home: Path, offline: bool = False) -> None:
    """From now on what listens at the port is the hub, and `home` is where downloads are kept.

    The libraries read the environment when they are imported, so their constants are set instead.
    """
    endpoint = f"http://127.0.0.1:{port}"
    for name, value in {
        "huggingface_hub.constants.ENDPOINT": endpoint,
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "huggingface_hub.constants.HF_HUB_CACHE": str(home / "hub"),
        "huggingface_hub.constants.HF_HUB_OFFLINE": offline,
        "datasets.config.HF_ENDPOINT": endpoint,
        "datasets.config.HF_DATASETS_CACHE": home / "datasets",
        "datasets.config.HF_HUB_OFFLINE": offline,
    }.items():
        monkeypatch.setattr(name, value)


class StandInHub(ThreadingHTTPServer):
    """Models and datasets: `folders` maps owner/name to the folder of its files, `sent` logs downloads."""

    def __init__(self, folders: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folders, self.sent = folders, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        names = path.removeprefix("/api").removeprefix("/models").removeprefix("/datasets").strip("/").split("/")
        folder, file = self.server.folders.get("/".join(names[:2])), "/".join(names[4:])
        if folder and path.startswith("/api/"):
            sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
            listing = [{"type": "file", "path": name, "size": size, "oid": "b" * 40} for name, size in sizes.items()]
            siblings = [{"rfilename": name} for name in sizes]
            info = {"id": "/".join(names[:2]), "sha": "a" * 40, "siblings": siblings, "tags": []}
            self.answer(json.dumps(listing if "/tree/" in path else info).encode(), "application/json")
        elif folder and (folder / file).is_file():
            if self.command == "GET":
                self.server.sent.append("/".join([names[1], file]))
            content = (folder / file).read_bytes()
            self.answer(content, "application/octet-stream", ETag=f'"{hash(content)}"')
        else:
            missing = "EntryNotFound" if folder else "RepoNotFound"
            self.answer(b"", "text/plain", status=404, **{"X-Error-Code": missing})

    do_HEAD = do_GET

    def answer(self, body, kind, status=200, **headers):
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": len(body), "X-Repo-Commit": "a" * 40} | headers
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass
