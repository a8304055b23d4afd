"""Every download goes to a server on 127.0.0.1 that misbehaves as it is told to."""

import errno
import hashlib
import io
import json
import socket
import struct
import threading
import zipfile
from collections import deque
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from governance.records.errors import DataError, ResourceError, SettingsError
from medisynth.data.adapters import african_planes, hc18
from pipelines.fetch import download
from pipelines.fetch.data_sets import NOTE_FILE, SOURCES, FetchedFile, Source, fetch_data_set
from pipelines.fetch.download import MAX_ATTEMPTS, Downloader, RemoteFile, Transfer, check_address
from tests.places import KIT

BLOCK = 65_536  # the piece that a broken connection loses is smaller
CSV = b"filename,pixel size(mm),head circumference (mm)\r\n001_HC.png,0.1,50.5\r\n"


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


# Not one block of it repeats, so that a piece in the wrong place is seen.
PICTURE = b"".join(hashlib.sha256(struct.pack("<I", k)).digest() for k in range(40_000))
ARCHIVE = zipped({"training_set/": b"", "training_set/001_HC.png": PICTURE})


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`; the next entries of `faults` say how each answer goes wrong."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = {"/training_set.zip": ARCHIVE, f"/{hc18.PUBLISHED_FILE}": CSV}
        self.faults = deque()
        self.etag = '"one"'
        self.asked = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, dict(self.headers)))
        is_archive = self.path.endswith(".zip")
        fault = server.faults.popleft() if server.faults and is_archive else ""
        if fault.startswith("status "):
            return self.answer(int(fault.split()[1]), b"", {"Retry-After": "0"})
        if fault.startswith("to "):
            return self.answer(302, b"", {"Location": fault.split()[1]})
        data = server.content.get(self.path)
        if data is None:
            return self.answer(404, b"", {})
        if fault == "other bytes":
            data = bytes(len(data))
        start, headers = 0, {"ETag": server.etag}
        asked_range = self.headers.get("Range")
        tag = self.headers.get("If-Range", server.etag)
        if asked_range and tag == server.etag and fault != "no range":
            start = int(asked_range.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                return self.answer(416, b"", {})
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if fault == "other range":
                headers["Content-Range"] = f"bytes 0-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if fault == "no length":  # the end of the connection is the end of the file
            return self.answer(200, body + b"!" * 9, headers, length=None)
        if fault == "other length":
            return self.answer(200, body[:-1], headers)
        cut = fault.startswith("cut ")
        sent = body[: int(fault.split()[1])] if cut else body
        return self.answer(206 if start else 200, sent, headers, length=len(body))

    def answer(self, status, body, headers, length=-1):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch, socket_enabled):
    monkeypatch.setenv("NO_PROXY", "*")
    served = Server()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def sources(server):
    def remote(name, data):
        return RemoteFile(name, f"{server.address}/{name}", len(data), md5(data))

    files = (remote("training_set.zip", ARCHIVE), remote(hc18.PUBLISHED_FILE, CSV))
    return {"hc18": Source(info=hc18.INFO, record=f"{server.address}/record", files=files)}


class Listener:
    def __init__(self):
        self.said, self.reports = [], []

    @property
    def text(self):
        return "\n".join(self.said)


@pytest.fixture
def fetch(sources, tmp_path):
    listener = Listener()

    def call(name="hc18", folder=None, **options):
        settings = {
            "say": listener.said.append,
            "progress": listener.reports.append,
            "sources": sources,
            "back_off_s": 0.001,
        }
        return fetch_data_set(name, folder or tmp_path / "hc18", **(settings | options))

    call.listener = listener
    return call


def ranges(server):
    return [headers.get("Range") for path, headers in server.asked if path == "/training_set.zip"]


def is_whole(folder):
    return (folder / "training_set" / "001_HC.png").read_bytes() == PICTURE and (
        folder / hc18.PUBLISHED_FILE
    ).read_bytes() == CSV


def test_a_data_set_is_fetched_compared_unpacked_and_recognised(fetch, tmp_path):
    data = fetch()

    assert is_whole(tmp_path / "hc18")
    assert (data.name, data.folder, data.was_there) == ("hc18", tmp_path / "hc18", False)
    assert data.is_readable
    assert data.hint == f"check it with `medisynth-gov data check {tmp_path / 'hc18'}`"
    assert data.files[0].md5 == md5(ARCHIVE)
    assert data.files[0].sha256 == hashlib.sha256(ARCHIVE).hexdigest()
    assert data.files[0].is_pinned
    assert [path.name for path in tmp_path.iterdir()] == ["hc18"]


def test_licence_and_citation_are_shown_before_a_byte_is_asked_for(fetch, server):
    asked = []

    fetch(say=lambda text: asked.append((len(server.asked), text)))

    before = [text for n_asked, text in asked if n_asked == 0]
    assert before[1] == f"licence: {hc18.INFO.licence}"
    assert before[2] == f"cite: {hc18.INFO.citation}"


def test_where_each_file_came_from_stands_in_the_folder(fetch, sources, tmp_path):
    data = fetch()

    note = json.loads((tmp_path / "hc18" / NOTE_FILE).read_text())
    assert note["licence"] == hc18.INFO.licence
    assert [FetchedFile(**file) for file in note["files"]] == list(data.files)


def test_a_complete_folder_is_already_here_and_nothing_is_asked_for(fetch, server):
    first = fetch()
    server.asked.clear()

    second = fetch()

    assert second == replace(first, was_there=True)
    assert fetch.listener.said[-1].startswith("already here: ")
    assert server.asked == []


def test_a_folder_that_was_filled_by_hand_is_already_here(fetch, server, tmp_path):
    (tmp_path / "hc18" / "training_set").mkdir(parents=True)
    (tmp_path / "hc18" / "training_set" / "001_HC.png").write_bytes(PICTURE)
    (tmp_path / "hc18" / hc18.PUBLISHED_FILE).write_bytes(CSV)

    data = fetch()

    assert data.was_there
    assert data.files == ()
    assert server.asked == []


def test_a_folder_that_lacks_an_image_is_neither_taken_nor_overwritten(fetch, server, tmp_path):
    fetch()
    (tmp_path / "hc18" / "training_set" / "001_HC.png").unlink()
    server.asked.clear()

    with pytest.raises(DataError, match=r"lacks 1 images, e\.g\. training_set/001_HC\.png"):
        fetch()

    assert server.asked == []


@pytest.mark.parametrize("kind", ["other files", "file"])
def test_a_folder_with_other_files_is_left_alone(kind, fetch, server, tmp_path):
    if kind == "file":
        (tmp_path / "hc18").write_text("mine")
    else:
        (tmp_path / "hc18").mkdir()
        (tmp_path / "hc18" / "mine.txt").write_text("mine")

    with pytest.raises(DataError) as caught:
        fetch()

    assert caught.value.code == "D099"
    assert server.asked == []


def test_an_empty_folder_is_filled(fetch, tmp_path):
    (tmp_path / "hc18").mkdir()

    fetch()

    assert is_whole(tmp_path / "hc18")


def test_a_broken_connection_goes_on_where_it_broke(fetch, server, tmp_path):
    server.faults.extend(["cut 300000", "cut 400000"])

    fetch()

    assert ranges(server) == [None, f"bytes={4 * BLOCK}-", f"bytes={10 * BLOCK}-"]
    assert is_whole(tmp_path / "hc18")
    conditions = [h.get("If-Range") for p, h in server.asked if p == "/training_set.zip"]
    assert conditions == [None, '"one"', '"one"']


def test_a_server_that_ignores_ranges_is_asked_for_the_whole(fetch, server, tmp_path):
    server.faults.extend(["cut 300000", "no range"])

    fetch()

    assert "gives the whole file only, starting again" in fetch.listener.text
    assert is_whole(tmp_path / "hc18")


def test_a_file_that_was_replaced_at_the_server_is_fetched_anew(fetch, server, tmp_path):
    server.faults.append("cut 300000")
    stage = tmp_path / ".hc18.fetch"

    def replaced(transfer):
        server.etag = '"two"'

    fetch(progress=replaced)

    assert ranges(server) == [None, f"bytes={4 * BLOCK}-"]
    assert is_whole(tmp_path / "hc18")
    assert not stage.exists()


def test_pieces_that_do_not_fit_together_are_fetched_once_more_as_a_whole(fetch, server, tmp_path):
    stage = tmp_path / ".hc18.fetch"
    stage.mkdir()
    (stage / "training_set.zip.part").write_bytes(b"\0" * 500_000)

    fetch()

    assert ranges(server) == ["bytes=500000-", None]
    assert is_whole(tmp_path / "hc18")


def test_a_beginning_that_is_longer_than_the_file_is_dropped(fetch, server, tmp_path):
    stage = tmp_path / ".hc18.fetch"
    stage.mkdir()
    (stage / "training_set.zip.part").write_bytes(ARCHIVE + b"more")

    fetch()

    assert ranges(server) == [None]
    assert is_whole(tmp_path / "hc18")


def test_stopping_keeps_what_came_and_the_next_call_goes_on(fetch, server, tmp_path):
    def stop(transfer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=stop)

    part = tmp_path / ".hc18.fetch" / "training_set.zip.part"
    n_bytes = part.stat().st_size
    assert 0 < n_bytes < len(ARCHIVE)
    assert part.read_bytes() == ARCHIVE[:n_bytes]
    fetch()
    assert ranges(server) == [None, f"bytes={n_bytes}-"]
    assert is_whole(tmp_path / "hc18")
    assert not part.parent.exists()


def test_a_stop_request_is_obeyed_while_waiting_for_a_busy_server(fetch, server):
    class StoppedError(Exception):
        pass

    def check_stop():
        if server.asked:
            raise StoppedError

    server.faults.append("status 503")

    with pytest.raises(StoppedError):
        fetch(check_stop=check_stop, back_off_s=600.0)


def test_archives_that_came_before_a_stop_are_not_fetched_again(fetch, server, tmp_path):
    def stop_at_the_table(transfer):
        if transfer.file == hc18.PUBLISHED_FILE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=stop_at_the_table)
    server.asked.clear()

    fetch()

    assert ranges(server) == []
    assert is_whole(tmp_path / "hc18")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status, fetch, server, tmp_path):
    server.faults.extend([f"status {status}"] * 2)

    fetch()

    assert fetch.listener.text.count(f"server answers {status}") == 2
    assert is_whole(tmp_path / "hc18")


def test_waits_double_until_the_server_is_given_up(server, tmp_path):
    server.faults.extend(["status 503"] * MAX_ATTEMPTS)
    waits, said = [], []
    loader = Downloader(said.append, lambda _: None, lambda: None, back_off_s=1.0)
    loader._wait = waits.append
    file = RemoteFile("training_set.zip", f"{server.address}/training_set.zip", 9, "0" * 32)

    with pytest.raises(ResourceError, match=f"503 Service Unavailable, {MAX_ATTEMPTS} times"):
        loader.fetch(file, tmp_path / "part")

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert len(server.asked) == MAX_ATTEMPTS


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_missing_file_is_an_error_at_once(status, fetch, server, tmp_path):
    server.faults.append(f"status {status}")

    with pytest.raises(ResourceError, match=f"server answers {status}") as caught:
        fetch()

    assert caught.value.exit_code == 7
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_an_error_with_the_reason(sources, fetch, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/training_set.zip"
    file = replace(sources["hc18"].files[0], address=address)

    with pytest.raises(ResourceError, match=r"cannot be reached .*Connection refused") as caught:
        fetch(sources={"hc18": replace(sources["hc18"], files=(file,))})

    assert "\n" not in str(caught.value)


def test_a_name_that_no_server_has_is_told_in_the_systems_words():
    error = ConnectionError("wrapped")
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert download.innermost_reason(error) == "Name or service not known"


def test_other_bytes_of_the_same_length_are_not_kept(fetch, server, tmp_path):
    server.faults.append("other bytes")

    with pytest.raises(DataError, match=f"expected md5:{md5(ARCHIVE)}") as caught:
        fetch()

    assert caught.value.code == "D096"
    assert list((tmp_path / ".hc18.fetch").glob("training_set.zip*")) == [
        tmp_path / ".hc18.fetch" / "training_set.zip.part.etag"
    ]
    assert not (tmp_path / "hc18").exists()
    fetch()
    assert is_whole(tmp_path / "hc18")


@pytest.mark.parametrize("fault", ["other length", "no length"])
def test_another_length_than_published_is_refused(fault, fetch, server, tmp_path):
    server.faults.append(fault)

    with pytest.raises(DataError, match=r"not the\s+published file|published .* bytes") as caught:
        fetch()

    assert caught.value.code == "D096"
    assert not (tmp_path / "hc18").exists()


def test_another_range_than_asked_for_is_refused(fetch, server):
    server.faults.extend(["cut 300000", "other range"])

    with pytest.raises(DataError, match="server offers the part 'bytes 0-"):
        fetch()


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("http://elsewhere.example/f.zip", "sends on to another host, elsewhere.example"),
        ("https://elsewhere.example/f.zip", "sends on to another host, elsewhere.example"),
        ("ftp://127.0.0.1/f.zip", "not over TLS"),
        ("file:///etc/passwd", "sends on to another host"),
        ("/training_set.zip", "more than 5 redirects"),
    ],
)
def test_redirects_to_elsewhere_are_refused(target, match, fetch, server):
    server.faults.extend([f"to {target}"] * 9)

    with pytest.raises(ResourceError, match=match):
        fetch()


def test_a_redirect_on_the_same_host_is_followed(fetch, server, tmp_path):
    server.content["/moved.zip"] = ARCHIVE
    server.faults.append("to /moved.zip")

    fetch()

    assert is_whole(tmp_path / "hc18")


@pytest.mark.parametrize(
    "address",
    ["http://zenodo.org/f", "http://127.0.0.1.example/f", "ftp://zenodo.org/f", "https:///f", "f"],
)
def test_only_tls_is_accepted(address):
    with pytest.raises(ResourceError, match="not over TLS"):
        check_address(address)


@pytest.mark.parametrize(
    "address",
    ["https://zenodo.org/f", "http://127.0.0.1:80/f", "http://[::1]/", "http://localhost"],
)
def test_tls_and_this_machine_are_accepted(address):
    check_address(address)


def test_progress_has_rate_and_time_left_and_ends_at_the_whole(fetch, server):
    server.faults.append("cut 300000")

    fetch()

    last = [t for t in fetch.listener.reports if t.file == "training_set.zip"][-1]
    assert last.done_bytes == last.total_bytes == len(ARCHIVE)
    assert last.bytes_per_s > 0
    assert last.seconds_left == 0


def test_progress_reads_as_one_line():
    shown = str(Transfer("a.zip", 812_000_000, 2_088_522_169, 23_100_000.0, 75.4))

    assert shown == "a.zip: 812.0 of 2,088.5 MB, 23.1 MB/s, 1 min 15 s left"


def test_too_little_room_is_told_before_anything_is_asked_for(fetch, server, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 10**6))

    with pytest.raises(ResourceError, match="1 MB free, 3 MB needed"):
        fetch()

    assert server.asked == []


def test_a_disk_that_fills_up_keeps_what_came(fetch, server, tmp_path, monkeypatch):
    write_all, written = download._write_all, []

    def filling(out, block):
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(len(block))
        write_all(out, block)

    monkeypatch.setattr(download, "_write_all", filling)
    with pytest.raises(ResourceError, match="No space left on device; what came is kept"):
        fetch()
    part = tmp_path / ".hc18.fetch" / "training_set.zip.part"
    assert part.stat().st_size == written[0]
    monkeypatch.setattr(download, "_write_all", write_all)

    fetch()

    assert is_whole(tmp_path / "hc18")


def test_a_folder_that_cannot_be_made_is_an_error_in_words(fetch, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(ResourceError, match="cannot be made"):
        fetch(folder=tmp_path / "file" / "hc18")


def test_two_fetches_into_one_folder_do_not_meet(fetch, tmp_path):
    met = []

    def again(transfer):
        if not met:
            with pytest.raises(ResourceError, match="another fetch into this folder") as caught:
                fetch(progress=lambda _: None)
            met.append(str(caught.value))

    fetch(progress=again)

    assert met
    assert is_whole(tmp_path / "hc18")


def test_another_layout_than_the_adapters_is_not_put_in_place(fetch, sources, tmp_path):
    only_images = replace(sources["hc18"], files=sources["hc18"].files[:1])

    with pytest.raises(DataError, match="not the layout that hc18 expects") as caught:
        fetch(sources={"hc18": only_images})

    assert caught.value.code == "D097"
    assert not (tmp_path / "hc18").exists()


def test_an_archive_with_a_path_out_of_the_folder_is_not_unpacked(fetch, server, sources, tmp_path):
    evil = zipped({"../evil.txt": b"evil"})
    server.content["/training_set.zip"] = evil
    file = replace(sources["hc18"].files[0], n_bytes=len(evil), md5=md5(evil))

    with pytest.raises(DataError) as caught:
        fetch(sources={"hc18": replace(sources["hc18"], files=(file,))})

    assert caught.value.code == "D091"
    assert not list(tmp_path.rglob("evil.txt"))


def test_the_test_set_is_fetched_on_request_only(fetch, server, sources, tmp_path):
    extra = zipped({"test_set/002_HC.png": b"2"})
    server.content["/test_set.zip"] = extra
    file = RemoteFile("test_set.zip", f"{server.address}/test_set.zip", len(extra), md5(extra))
    with_test = {"hc18": replace(sources["hc18"], test_files=(file,))}

    fetch(sources=with_test)
    assert not (tmp_path / "hc18" / "test_set").exists()

    fetch(folder=tmp_path / "both", sources=with_test, with_test_set=True)
    assert (tmp_path / "both" / "test_set" / "002_HC.png").read_bytes() == b"2"
    assert is_whole(tmp_path / "both")


@pytest.fixture
def unpinned(server):
    """A record whose archive is no ZIP and whose checksum only the publisher knows."""
    data = b"not unpacked here" * 1000
    name = "Zenodo_dataset.tar.xz"
    server.content[f"/{name}"] = data
    entry = {"key": name, "size": len(data), "checksum": f"md5:{md5(data)}"}
    server.content["/record"] = json.dumps({"files": [{"key": "other"}, entry]}).encode()
    source = replace(
        SOURCES["african-planes"],
        record=f"{server.address}/record",
        files=(RemoteFile(name, f"{server.address}/{name}"),),
    )
    return {"african-planes": source}


def test_a_checksum_from_the_record_is_used_and_said_to_be_the_publishers_own(
    fetch, unpinned, server, tmp_path
):
    data = fetch("african-planes", folder=tmp_path / "african", sources=unpinned)

    assert "is the publisher's own" in fetch.listener.text
    assert "not pinned in this program" in fetch.listener.text
    assert not data.files[0].is_pinned
    assert not data.is_readable
    assert "unpack it by hand" in data.hint
    kept = tmp_path / "african" / "Zenodo_dataset.tar.xz"
    assert kept.read_bytes() == server.content["/Zenodo_dataset.tar.xz"]


def test_an_archive_that_stays_packed_is_already_here_until_it_changes(
    fetch, unpinned, server, tmp_path
):
    folder = tmp_path / "african"
    fetch("african-planes", folder=folder, sources=unpinned)

    assert fetch("african-planes", folder=folder, sources=unpinned).was_there
    (folder / "Zenodo_dataset.tar.xz").write_bytes(b"other")
    with pytest.raises(DataError, match="something other than african-planes"):
        fetch("african-planes", folder=folder, sources=unpinned)


@pytest.mark.parametrize(
    "record",
    [
        b"[]",
        b'{"files": []}',
        b'{"files": [{"key": "Zenodo_dataset.tar.xz", "size": 9, "checksum": "sha1:00"}]}',
        b'{"files": [{"key": "Zenodo_dataset.tar.xz", "size": "9"}]}',
        b"<html>busy</html>",
    ],
)
def test_a_record_without_a_checksum_gives_no_file(record, fetch, unpinned, server, tmp_path):
    server.content["/record"] = record

    with pytest.raises(ResourceError, match=r"no size and MD5|is no JSON"):
        fetch("african-planes", folder=tmp_path / "african", sources=unpinned)

    assert [path for path, _ in server.asked] == ["/record"]


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(SettingsError, match="known are african-planes, fetal-planes-db, hc18"):
        fetch_data_set("hc19", tmp_path / "x", say=print, progress=print)


def test_every_published_address_is_over_tls_and_pinned_or_left_to_the_record():
    for source in SOURCES.values():
        for file in source.files + source.test_files:
            assert file.address.startswith("https://zenodo.org/api/records/")
            assert (file.md5 is None) == (file.n_bytes is None)
            assert file.md5 is None or len(bytes.fromhex(file.md5)) == 16
    unpinned = [n for n, s in SOURCES.items() if any(f.md5 is None for f in s.files)]
    assert unpinned == ["african-planes"]
    assert SOURCES["african-planes"].info is african_planes.INFO


def test_the_pinned_table_of_hc18_is_the_real_one():
    """The real table on this machine has other line ends than the published one."""

    shared = KIT
    table = shared / "hc18" / hc18.PUBLISHED_FILE
    if not table.is_file():
        pytest.skip("the real HC18 table is not on this machine")
    published = table.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    pinned = SOURCES["hc18"].files[1]

    assert (len(published), md5(published)) == (pinned.n_bytes, pinned.md5)
