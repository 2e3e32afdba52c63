"""A server on localhost with the part of the Hugging Face Hub's HTTP interface that weights need.

Repositories are in memory. As on the Hub, large files (*.safetensors) are uploaded by Git LFS and downloaded
through a redirect; other files are in the commit. `mode` makes the server fail as networks do.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote, urlsplit

TOKENS = {"hf_owner": "owner", "hf_other": "other"}
NAME = r"(?P<name>[\w.-]+/[\w.-]+)"


class Server(http.server.ThreadingHTTPServer):
    """Attributes:
    repositories: {name: {"private", "commits": {sha: {path: content}}, "refs": {branch or tag: sha}}}.
    mode: "": the server works; "busy": every request gets 500; "damaged": downloads are damaged; "cut once":
      the first download is cut in the middle; "cut": all are cut, and cannot be continued.
    asked: (method, path, range) of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.objects, self.mode, self.asked = {}, {}, "", []

    def add(self, name, sha, files):
        """Adds a commit as the newest of a repository, which is created if it does not exist."""
        one = self.repositories.setdefault(name, {"private": False, "commits": {}, "refs": {}})
        one["commits"][sha], one["refs"]["main"] = files, sha
        self.objects |= {hashlib.sha256(content).hexdigest(): content for content in files.values()}

    @property
    def address(self):
        return f"http://localhost:{self.server_port}"

    @property
    def storage(self):
        """The address of another host: clients follow a redirect to it only to download, without a token."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.mode == "busy":
            return self._fail(500, "", "Internal Server Error")
        for pattern, answer in ROUTES:
            if (self.command in answer.methods) and (found := re.fullmatch(pattern, path)):
                return answer(self, **found.groupdict())
        self._fail(404, "EntryNotFound", "There is no such page")

    do_HEAD = do_POST = do_PUT = do_GET

    @property
    def user(self):
        """The user of a request; None without a token, "" with an unknown token."""
        token = self.headers.get("Authorization")
        return TOKENS.get(token.removeprefix("Bearer "), "") if token else None

    def _send(self, status, content=b"", **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": len(content)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _fail(self, status, code, message):
        self._send(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def _found(self, name):
        """The repository, if the user may see it; otherwise the answer is that there is none."""
        one = self.server.repositories.get(name)
        if one is None or (one["private"] and self.user != name.partition("/")[0]):
            self._fail(401 if self.user is None else 404, "RepoNotFound", "Repository not found")
            return None
        return one

    def _sha(self, one, revision):
        sha = one["refs"].get(revision, revision)
        if sha not in one["commits"]:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return sha

    def _may_write(self, owner):
        if not self.user:
            self._fail(401, "", "Invalid credentials in Authorization header")
        elif self.user != owner:
            self._fail(403, "", f"You don't have the rights to write under the namespace {owner}")
        return self.user == owner

    def create(self):
        asked = json.loads(self.body)
        owner = asked["organization"] or self.user
        if not self._may_write(owner):
            return
        name = f"{owner}/{asked['name']}"
        status = 409 if name in self.server.repositories else 200
        private = asked.get("visibility") == "private" or asked.get("private", False)
        sha = hashlib.sha1(name.encode()).hexdigest()
        new = {"private": private, "commits": {sha: {}}, "refs": {"main": sha}}
        self.server.repositories.setdefault(name, new)
        self._send(status, {"url": f"{self.server.address}/{name}", "name": name, "id": name})

    def validate(self):
        assert json.loads(self.body)["content"].startswith("---\n")
        self._send(200, {"errors": [], "warnings": []})

    def describe(self, name, revision=None):
        if (one := self._found(name)) and (sha := self._sha(one, revision or "main")):
            files = [{"rfilename": path} for path in sorted(one["commits"][sha])]
            about = {"id": name, "modelId": name, "sha": sha, "private": one["private"], "siblings": files}
            self._send(200, about | {"tags": [], "downloads": 0, "likes": 0})

    def preupload(self, name, revision):
        if not self._may_write(name.partition("/")[0]):
            return
        files = json.loads(self.body)["files"]
        modes = {f["path"]: "lfs" if f["path"].endswith(".safetensors") else "regular" for f in files}
        modes = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self._send(200, {"files": modes})

    def batch(self, name):
        objects = []
        for one in json.loads(self.body)["objects"]:
            where = {"upload": {"href": f"{self.server.storage}/lfs/{one['oid']}"}}
            known = one["oid"] in self.server.objects
            objects.append(one if known else one | {"actions": where})
        self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid and self.user is None
        self.server.objects[oid] = self.body
        self._send(200)

    def commit(self, name, revision):
        if not self._may_write(name.partition("/")[0]):
            return
        one = self.server.repositories[name]
        content = dict(one["commits"][one["refs"][revision]])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                content[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content[value["path"]] = self.server.objects[value["oid"]]
                assert len(content[value["path"]]) == value["size"]
            else:
                assert line["key"] == "header" and value["summary"]
        sha = hashlib.sha1(self.body).hexdigest()
        one["commits"][sha], one["refs"][revision] = content, sha
        address = f"{self.server.address}/{name}/commit/{sha}"
        self._send(200, {"success": True, "commitOid": sha, "commitUrl": address})

    def resolve(self, name, revision, path):
        if not (one := self._found(name)) or not (sha := self._sha(one, revision)):
            return
        if (content := one["commits"][sha].get(path)) is None:
            return self._fail(404, "EntryNotFound", "Entry not found")
        if path.endswith(".safetensors"):
            oid = hashlib.sha256(content).hexdigest()
            linked = {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": len(content)}
            return self._send(302, X_Repo_Commit=sha, Location=f"{self.server.storage}/cdn/{oid}", **linked)
        etag = hashlib.sha1(content).hexdigest()
        self._send(200, content, X_Repo_Commit=sha, ETag=f'"{etag}"')

    def download(self, oid):
        assert self.user is None
        content = self.server.objects[oid]
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        part, mode = content[begin:], self.server.mode
        if mode == "damaged":
            part = part[:-1] + bytes([part[-1] ^ 1])
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(part)))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if mode in ("cut", "cut once"):
            self.server.mode = "" if mode == "cut once" else mode
            part, self.close_connection = (b"" if begin else part[: len(part) // 2]), True
        self.wfile.write(part)

    create.methods = validate.methods = preupload.methods = batch.methods = commit.methods = ("POST",)
    upload.methods, resolve.methods = ("PUT",), ("GET", "HEAD")
    describe.methods = download.methods = ("GET",)


ROUTES = (
    ("/api/repos/create", Handler.create),
    ("/api/validate-yaml", Handler.validate),
    (f"/api/models/{NAME}", Handler.describe),
    (f"/api/models/{NAME}/revision/(?P<revision>.+)", Handler.describe),
    (f"/api/models/{NAME}/preupload/(?P<revision>.+)", Handler.preupload),
    (f"/api/models/{NAME}/commit/(?P<revision>.+)", Handler.commit),
    (rf"/{NAME}\.git/info/lfs/objects/batch", Handler.batch),
    ("/lfs/(?P<oid>[0-9a-f]{64})", Handler.upload),
    ("/cdn/(?P<oid>[0-9a-f]{64})", Handler.download),
    (f"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
)


@contextlib.contextmanager
def serving():
    """A running server."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
