"""Stores in object storage: against a real S3 server on loopback, and against folders where S3 is not the point."""

import multiprocessing
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from earmark.cli.build import open_store, store_path
from earmark.cli.config import ConfigError, checked, compose
from earmark.cli.config_schema import PretrainConfig
from earmark.clips.remote import RemoteFolder, default_cache_dir, is_url
from earmark.clips.store import PreparedStore
from earmark.media import PacketIndex
from earmark.preparation.catalog import StoreError
from earmark.preparation.record import digest_of_file
from tests.helpers.made_store import add_video, finish_store, number_of


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    root = tmp_path / "prepared"
    rows = [add_video(root, "P01/P01_01", num_frames=32), add_video(root, "P02", num_frames=32)]
    finish_store(root, rows, {"P01/P01_01": [1.0], "P02": [1.0]})
    return root


@pytest.fixture
def as_url(prepared: Path) -> str:
    return f"file://{prepared}"


class S3Server:
    """Moto's server behind a count of what was asked for."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.gets: Counter[str] = Counter()
        application = DomainDispatcherApplication(create_backend_app)

        def counted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            if environ["REQUEST_METHOD"] == "GET":
                self.gets[environ["PATH_INFO"]] += 1
            return application(environ, start_response)

        self._server = make_server("127.0.0.1", 0, counted, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    pytest.importorskip("moto.server", reason="needs moto[server] (pip install 'earmark[test-s3]')")
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    pytest.importorskip("s3fs", reason="needs s3fs (pip install 'earmark[s3]')")
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return s3_server


def _upload(folder: Path, url: str) -> None:
    import fsspec

    filesystem, path = fsspec.url_to_fs(url)
    filesystem.mkdirs(path.split("/")[0], exist_ok=True)
    for file in folder.rglob("*"):
        if file.is_file():
            filesystem.put_file(str(file), f"{path}/{file.relative_to(folder).as_posix()}")


def _numbers(store: PreparedStore, video_id: str) -> list[int]:
    return [number_of(frame) for frame in store.frames(video_id, [0.5, 1.5])]


def test_a_store_in_s3_reads_as_the_one_on_disk(s3: S3Server, prepared: Path, tmp_path: Path) -> None:
    _upload(prepared, "s3://bucket/reads")
    store = PreparedStore("s3://bucket/reads", cache_dir=tmp_path / "cache")
    assert store.fingerprint == PreparedStore(prepared).fingerprint
    assert not list(tmp_path.glob("cache/**/*.mov"))  # fetched at first use
    assert _numbers(store, "P01/P01_01") == _numbers(PreparedStore(prepared), "P01/P01_01") == [8, 24]
    assert [path.name for path in tmp_path.glob("cache/**/*.mov")] == ["P01_01.mov"]


def test_a_second_use_fetches_no_video_again(s3: S3Server, prepared: Path, tmp_path: Path) -> None:
    _upload(prepared, "s3://bucket/twice")
    for _ in range(2):
        assert _numbers(PreparedStore("s3://bucket/twice", cache_dir=tmp_path / "cache"), "P02") == [8, 24]
    assert s3.gets["/bucket/twice/videos/P02.mov"] == 1
    assert s3.gets["/bucket/twice/videos/P02.index.npz"] == 1
    assert s3.gets["/bucket/twice/videos.parquet"] == 1


def _read_in_process(url: str, cache_dir: Path, start: Any, results: Any) -> None:
    start.wait()
    results.put(_numbers(PreparedStore(url, cache_dir=cache_dir), "P01/P01_01"))


@pytest.mark.slow
def test_many_processes_download_a_video_once(s3: S3Server, prepared: Path, tmp_path: Path) -> None:
    _upload(prepared, "s3://bucket/once")
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    arguments = ("s3://bucket/once", tmp_path / "cache", start, results)
    processes = [context.Process(target=_read_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=600) for _ in processes] == [[8, 24]] * 3
    for process in processes:
        process.join()
    for name in ("videos/P01/P01_01.mov", "videos/P01/P01_01.index.npz", "videos.parquet", "store.json"):
        assert s3.gets[f"/bucket/once/{name}"] == 1, name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_fetches_with_a_client_of_its_own(s3: S3Server, prepared: Path, tmp_path: Path) -> None:
    _upload(prepared, "s3://bucket/forked")
    store = PreparedStore("s3://bucket/forked", cache_dir=tmp_path / "cache")
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=lambda: results.put(_numbers(store, "P02")))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert results.get() == [8, 24]


def test_what_is_missing_in_s3_is_named_by_its_url(s3: S3Server, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"s3://bucket/nothing/store\.json: cannot be fetched"):
        PreparedStore("s3://bucket/nothing", cache_dir=tmp_path / "cache")
    (prepared / "videos" / "P02.mov").unlink()
    _upload(prepared, "s3://bucket/missing")
    store = PreparedStore("s3://bucket/missing", cache_dir=tmp_path / "cache")
    with pytest.raises(StoreError, match=r"s3://bucket/missing/videos/P02\.mov: .* \(asked for P02 from 0\.500 s\)"):
        _numbers(store, "P02")


def test_changed_tables_are_fetched_anew_and_kept_videos_are_not(prepared: Path, as_url: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert _numbers(PreparedStore(as_url, cache_dir=cache), "P02") == [8, 24]
    rows = [*PreparedStore(prepared).catalog, add_video(prepared, "new", num_frames=16)]
    finish_store(prepared, rows, {"new": [0.5]})
    (prepared / "videos" / "P02.mov").unlink()
    store = PreparedStore(as_url, cache_dir=cache)
    assert set(store.videos) == {"P01/P01_01", "P02", "new"}
    assert _numbers(store, "P02") == [8, 24]


def test_a_video_prepared_anew_replaces_the_one_that_is_kept(prepared: Path, as_url: str, tmp_path: Path) -> None:
    assert _numbers(PreparedStore(as_url, cache_dir=tmp_path / "cache"), "P02") == [8, 24]
    longer = add_video(prepared, "P02", num_frames=48)
    finish_store(prepared, [longer], {"P02": [1.0]})
    store = PreparedStore(as_url, cache_dir=tmp_path / "cache")
    assert number_of(store.frames("P02", [2.5])[0]) == 40
    index = PacketIndex.load(store.root / "videos" / "P02.index.npz")
    assert len(index.frame_offsets) == 48


def test_half_a_download_never_counts_and_is_cleared_away(prepared: Path, as_url: str, tmp_path: Path) -> None:
    folder = RemoteFolder(as_url, tmp_path / "cache")
    videos = folder.folder / "videos"
    videos.mkdir(parents=True)
    (videos / "P02.mov").write_bytes(b"half")  # as of a store whose video was replaced
    left = videos / ".P02.123-0123abcd.tmp.mov"  # as a killed process leaves it
    of_another = videos / ".P02.5.123-0123abcd.tmp.mov"  # P02.5.mov, which someone may be fetching now
    left.write_bytes(b"half")
    of_another.write_bytes(b"half")
    assert _numbers(PreparedStore(as_url, cache_dir=tmp_path / "cache"), "P02") == [8, 24]
    assert not left.exists()
    assert of_another.exists()


def test_a_file_that_arrives_short_is_refused_and_not_kept(prepared: Path, as_url: str, tmp_path: Path) -> None:
    movie = prepared / "videos" / "P02.mov"
    movie.write_bytes(movie.read_bytes()[:-10])
    store = PreparedStore(as_url, cache_dir=tmp_path / "cache")
    with pytest.raises(StoreError, match=r"P02\.mov: cannot be fetched .* bytes, the catalog says \d+"):
        _numbers(store, "P02")
    assert not [path for path in store.root.rglob("*P02*") if path.suffix == ".mov"]


def test_a_missing_index_is_made_from_the_movie(prepared: Path, as_url: str, tmp_path: Path) -> None:
    (prepared / "videos" / "P02.index.npz").unlink()
    store = PreparedStore(as_url, cache_dir=tmp_path / "cache")
    assert _numbers(store, "P02") == [8, 24]
    assert (store.root / "videos" / "P02.index.npz").exists()


def _flip_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_an_index_is_not_rebuilt_from_a_kept_video_that_was_damaged(
    prepared: Path, as_url: str, tmp_path: Path
) -> None:
    """The kept files are fetched again; where those of the store are damaged, too, it is an error."""
    kept = PreparedStore(as_url, cache_dir=tmp_path / "cache")
    assert _numbers(kept, "P02") == [8, 24]
    movie, index = kept.root / "videos" / "P02.mov", kept.root / "videos" / "P02.index.npz"
    whole, at = movie.read_bytes(), int(PacketIndex.load(index).frame_offsets[8]) + 300
    _flip_byte(movie, at)
    index.unlink()
    (prepared / "videos" / "P02.index.npz").unlink()
    assert _numbers(PreparedStore(as_url, cache_dir=tmp_path / "cache"), "P02") == [8, 24]
    assert movie.read_bytes() == whole
    for copy in (movie, prepared / "videos" / "P02.mov"):
        _flip_byte(copy, at)
    index.unlink()
    with pytest.raises(StoreError, match=r"P02\.mov: has changed since it was written, and its index cannot be made"):
        _numbers(PreparedStore(as_url, cache_dir=tmp_path / "cache"), "P02")
    assert not index.exists()


def test_kept_files_of_a_video_that_was_prepared_anew_in_the_same_size_are_fetched_again(
    prepared: Path, as_url: str, tmp_path: Path
) -> None:
    kept = PreparedStore(as_url, cache_dir=tmp_path / "cache")
    assert _numbers(kept, "P02") == [8, 24]
    movie = prepared / "videos" / "P02.mov"
    content, index = movie.read_bytes(), PacketIndex.of_file(movie)
    first, second = (
        slice(int(index.frame_offsets[number]), int(index.frame_offsets[number] + index.frame_sizes[number]))
        for number in (8, 9)
    )
    assert second.stop - second.start == first.stop - first.start  # so that the two pictures can change places
    swapped = bytearray(content)
    swapped[first], swapped[second] = content[second], content[first]
    movie.write_bytes(swapped)
    index = PacketIndex.of_file(movie)
    index.save(movie.with_suffix(".index.npz"))
    digests = {"index_digest": index.digest, "file_digest": digest_of_file(movie)}
    rows = [replace(row, **digests) if row.video_id == "P02" else row for row in PreparedStore(prepared).catalog]
    finish_store(prepared, rows, {"P01/P01_01": [1.0], "P02": [1.0]})
    assert _numbers(PreparedStore(as_url, cache_dir=tmp_path / "cache"), "P02") == [9, 24]


def test_a_kept_table_or_record_that_was_changed_is_not_gone_by(prepared: Path, as_url: str, tmp_path: Path) -> None:
    kept = PreparedStore(as_url, cache_dir=tmp_path / "cache")
    assert _numbers(kept, "P02") == [8, 24]
    record = kept.root / "videos" / "P02.json"
    whole = record.read_text()
    record.write_text(whole.replace('"num_frames": 32', '"num_frames": 33'))
    assert _numbers(PreparedStore(as_url, cache_dir=tmp_path / "cache"), "P02") == [8, 24]
    assert record.read_text() == whole
    description = kept.root / "store.json"
    wrong = description.read_text().replace('"fps": 16', '"fps": 8')
    description.write_text(wrong)
    assert _numbers(PreparedStore(as_url, cache_dir=tmp_path / "cache"), "P02") == [8, 24]
    assert description.read_text() != wrong
    (prepared / "store.json").write_text(wrong)
    with pytest.raises(StoreError, match=r"store\.json: fps=8, but the catalog was written with fps=16"):
        PreparedStore(as_url, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a\\b"])
def test_names_that_would_leave_the_folder_are_refused(name: str, as_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a file below the store"):
        RemoteFolder(as_url, tmp_path / "cache").fetch(name)


def test_an_unknown_protocol_is_an_error_that_names_the_url(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nonsense://bucket/x/store\.json: cannot be fetched"):
        PreparedStore("nonsense://bucket/x", cache_dir=tmp_path)


def test_urls_and_paths_are_told_apart() -> None:
    assert is_url("s3://bucket/x")
    assert not any(map(is_url, ("data/x", "/data/x", "C:\\data", Path("s3:/bucket"))))


def test_stores_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {RemoteFolder(f"s3://{bucket}/prepared/", tmp_path).folder for bucket in "ab"}
    assert len(folders) == 2
    assert RemoteFolder("s3://a/prepared", tmp_path).folder in folders


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "earmark"
    monkeypatch.setenv("EARMARK_CACHE", "/scratch")
    assert default_cache_dir() == Path("/scratch")


def test_the_commands_read_a_store_by_its_url_and_do_not_write_there(
    as_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARMARK_CACHE", str(tmp_path / "cache"))

    def configured(*overrides: str) -> PretrainConfig:
        return checked(
            PretrainConfig,
            compose("default_ssrl", ("data=folder", f"data.store='{as_url}'", *overrides)),
        )

    config = configured()
    assert set(open_store(config.data, config.environment, config.prepare).videos) == {"P01/P01_01", "P02"}
    other = configured("prepare.fps=32")
    with pytest.raises(
        ConfigError, match=r"was prepared with prepare\.fps=16, not with prepare\.fps=32; give what it was"
    ):
        open_store(other.data, other.environment, other.prepare)
    with pytest.raises(ConfigError, match="can be read, not written"):
        store_path(config.data, config.environment, config.prepare)


@pytest.mark.parametrize(
    ("scheme", "library", "package"),
    [
        ("s3", "s3fs", "earmark[s3]"),
        ("gs", "gcsfs", "gcsfs"),
        ("gcs", "gcsfs", "gcsfs"),
        ("az", "adlfs", "adlfs"),
        ("abfs", "adlfs", "adlfs"),
        ("http", "aiohttp", "aiohttp"),
        ("https", "aiohttp", "aiohttp"),
        ("sftp", "paramiko", "paramiko"),
        ("oci", "ocifs", "ocifs"),
    ],
)
def test_a_scheme_without_its_library_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, library: str, package: str
) -> None:
    known = import_module("fsspec.registry")._registry  # those whose library was imported before
    for name in list(known):
        if name.startswith(scheme.rstrip("s")):
            monkeypatch.delitem(known, name)
    for name in list(sys.modules):
        if name == library or name.startswith((f"{library}.", f"fsspec.implementations.{scheme.rstrip('s')}")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # as where it is not installed
    with pytest.raises(StoreError) as caught:
        PreparedStore(f"{scheme}://bucket/kitchen", cache_dir=tmp_path)
    assert str(caught.value).startswith(f"{scheme}://bucket/kitchen/")
    assert package in str(caught.value)
    if package != "earmark[s3]":
        assert "s3" not in str(caught.value)


def test_an_unknown_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Protocol not known: nowhere"):
        PreparedStore("nowhere://bucket/kitchen", cache_dir=tmp_path)
