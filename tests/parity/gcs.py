"""A stand-in for Google Cloud Storage on this machine: gcp-storage-emulator, and what it leaves out: versions and conditional writes."""

import contextlib
import functools
import http.server
import threading
import urllib.parse

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = "bucket"


class Handler(RequestHandler):
    """Tells the version of what is read, and refuses what `ifGenerationMatch` refuses: to replace or delete another version than named."""

    def end_headers(self):
        if self.command == "GET" and "alt=media" in self.path:
            self.send_header("x-goog-generation", self._version(urllib.parse.urlparse(self.path).path))
        super().end_headers()

    def do_POST(self):
        if self._allowed():
            super().do_POST()

    def do_DELETE(self):
        if self._allowed():
            super().do_DELETE()

    def _allowed(self) -> bool:
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        wanted = query["ifGenerationMatch"] if "ifGenerationMatch" in query else None
        if wanted is None or wanted == self._version(f"/o/{urllib.parse.quote(query['name'])}" if "name" in query else url.path):
            return True
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_error(412)
        return False

    def _version(self, path: str) -> str:
        """Of an object by its URL; 0 where there is none."""
        try:
            return self.storage.get_file_obj(BUCKET, urllib.parse.unquote(path.rpartition("/o/")[2]))["generation"]
        except NotFound:
            return "0"


class Server(http.server.HTTPServer):
    def handle_error(self, request, client_address):
        """Clients close a connection when they have seen enough."""


@contextlib.contextmanager
def serving():
    """Serves an empty bucket; gives the variables with which processes find it."""
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(BUCKET, storage)
    server = Server(("127.0.0.1", 0), functools.partial(Handler, storage))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield {
            "STORAGE_EMULATOR_HOST": address,  # gcsfs and google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": address,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # TensorStore would look for an account
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks Google what kind of bucket it is
            "EPATH_USE_TF": "false",
        }
    finally:
        server.shutdown()
        server.server_close()
