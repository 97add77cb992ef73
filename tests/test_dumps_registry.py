"""Writer schemas by schema id: folder, HTTP registry, the survey's package, ours."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.avro import writer_schema
from pipeline.dumps import SchemaResolver, registry
from pipeline.dumps.registry import id_of_version, version_of_id
from pipeline.errors import InputError, SourceError
from pipeline.surveys.superset import known_schemas

NEW = {"type": "record", "name": "lsst.v99_1.alert", "fields": [{"name": "diaSourceId", "type": "long"}]}


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(registry, "_from_package", lambda schema_id: None)


@pytest.fixture
def server():
    """A schema registry on loopback: id 9901 is known, 500 breaks, 9902 and 9903 give nonsense."""
    asked = []
    answers = {
        9901: (200, json.dumps({"schema": json.dumps(NEW)})),
        9902: (200, "<html>"),
        9903: (200, json.dumps({"schema": "[[["})),
        9904: (200, json.dumps({"schema": '"string"'})),
        500: (500, "oops"),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, text = answers.get(int(self.path.rsplit("/", 1)[1]), (404, '{"error_code":40403}'))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            """Keep quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", asked
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.mark.parametrize(("version", "schema_id"), [("7.1", 701), ("7.4", 704), ("9.0", 900), ("11.1", 1101)])
def test_ids_follow_rubins_rule(version, schema_id):
    assert id_of_version(version) == schema_id and version_of_id(schema_id) == version


def test_shipped_schemas(no_package):
    resolver = SchemaResolver("lsst")
    for version, schema in known_schemas("lsst").items():
        assert resolver(id_of_version(version)).id == writer_schema(schema).id
    assert resolver(704) is resolver(704)


def test_the_surveys_package_agrees_with_ours():
    pytest.importorskip("lsst.alert.packet")
    found = 0
    for version, schema in known_schemas("lsst").items():
        theirs = registry._from_package(id_of_version(version))
        if theirs is not None:
            found += 1
            assert writer_schema(theirs).id == writer_schema(schema).id
    assert found > 5
    assert registry._from_package(123456) is None


def test_unknown_id_is_one_line(no_package):
    with pytest.raises(SourceError) as error:
        SchemaResolver("lsst")(705)
    assert "705" in str(error.value) and "7.5" in str(error.value) and "registry" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["9901.avsc", "99.1.avsc", "deep/er/lsst.v99_1.alert.avsc"])
def test_folder(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(NEW))
    resolver = SchemaResolver("lsst", folder=str(tmp_path))
    assert resolver(9901).version == "99.1"
    assert resolver(704).version == "7.4"


def test_folder_of_schemas_in_parts(tmp_path):
    inner = {"type": "record", "name": "lsst.v99_2.diaSource", "fields": [{"name": "ra", "type": "double"}]}
    alert = {"type": "record", "name": "lsst.v99_2.alert", "fields": [{"name": "s", "type": "lsst.v99_2.diaSource"}]}
    (tmp_path / "lsst.v99_2.diaSource.avsc").write_text(json.dumps(inner))
    (tmp_path / "lsst.v99_2.alert.avsc").write_text(json.dumps(alert))
    schema = SchemaResolver("lsst", folder=str(tmp_path))(9902)
    assert [(f.name, str(f.type)) for f in schema.arrow] == [("s", "struct<ra: double>")]


def test_folder_that_is_missing_or_broken(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        SchemaResolver("lsst", folder=str(tmp_path / "none"))
    (tmp_path / "9901.avsc").write_text("{")
    with pytest.raises(SourceError, match=r"9901\.avsc cannot be used"):
        SchemaResolver("lsst", folder=str(tmp_path))(9901)


def test_registry_is_asked_once_and_remembered_on_disk(server, tmp_path, no_package):
    url, asked = server
    resolver = SchemaResolver("lsst", url=url + "/", cache=str(tmp_path / "cache"))
    assert resolver(9901).version == "99.1" and resolver(9901).arrow.names == ["diaSourceId"]
    assert SchemaResolver("lsst", url=url, cache=str(tmp_path / "cache"))(9901).version == "99.1"
    assert asked == ["/schemas/ids/9901"]
    assert [file.suffix for file in (tmp_path / "cache").rglob("*") if file.is_file()] == [".avsc"]
    assert SchemaResolver("lsst", url=url)(9901).version == "99.1"
    assert len(asked) == 2


def test_what_the_registry_does_not_know_may_be_known_here(server, no_package):
    url, asked = server
    assert SchemaResolver("lsst", url=url)(704).version == "7.4"
    assert asked == ["/schemas/ids/704"]


@pytest.mark.parametrize(
    ("schema_id", "expected"),
    [(500, "cannot be asked"), (9902, "no schema"), (9903, "no schema"), (9904, "cannot be used")],
)
def test_a_registry_that_fails_is_a_source_error(server, no_package, schema_id, expected):
    with pytest.raises(SourceError, match=expected):
        SchemaResolver("lsst", url=server[0])(schema_id)


def test_a_registry_that_is_not_there_is_a_source_error(server, no_package):
    with pytest.raises(SourceError, match="cannot be asked") as error:
        SchemaResolver("lsst", url="http://127.0.0.1:9")(9901)
    assert "mend" not in str(error.value) and "\n" not in str(error.value)
