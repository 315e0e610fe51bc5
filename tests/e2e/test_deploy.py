"""A real Prometheus over a real service: every query of ``deploy/`` finds data, every probe's path answers.

And a real OTLP collector, of a few lines, that gets the spans of a request.
"""

import json
import math
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from PIL import Image

from clip_retrieval.client import Client
from scripts.common.paths import ROOT
from scripts.common.server import bentoml_serve, reserve_port
from tests.deploy.test_deploy import ALERTS, COMPOSE, CONTAINER, expressions
from tests.e2e.conftest import Launch, Server, Store, start

pytestmark = pytest.mark.e2e

DATA_S = 60
"""How long traffic lasts before the last query must have found data."""


@pytest.fixture(scope="session")
def prometheus_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with ``prometheus`` and ``promtool``: what is installed, or Debian's package without installing it."""
    if (installed := shutil.which("promtool")) and shutil.which("prometheus"):
        return Path(installed).parent
    script = [str(ROOT / "deploy/install-prometheus"), str(tmp_path_factory.mktemp("prometheus"))]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"Prometheus cannot be had here: {done.stderr[-500:]}")
    return Path(done.stdout.splitlines()[-1])


class Prometheus:
    """A running Prometheus that scrapes one service each second."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expr: str) -> list[float]:
        """The values of an instant query, with the dashboard's variables filled in; without those that are NaN."""
        expr = expr.replace("$__rate_interval", "20s").replace("$job", "bento-clip")
        answer = httpx.get(f"{self._url}/api/v1/query", params={"query": expr}, timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text
        values = [float(sample["value"][1]) for sample in answer.json()["data"]["result"]]
        return [value for value in values if not math.isnan(value)]


@pytest.fixture
def prometheus(prometheus_bin: Path, service: Server, tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus with the configuration of ``deploy/``, but for its pace and where the service is."""
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ROOT / "deploy/prometheus" / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{service.port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = reserve_port()
    command = [
        str(prometheus_bin / "prometheus"),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    server = start(command, port, tmp_path / "log", {})
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"{server.url}/-/ready", timeout=2, trust_env=False).is_success:
                    break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, server.text()
                assert server.process.poll() is None, server.text()
            time.sleep(0.1)
        yield Prometheus(server.url)
    finally:
        server.kill()


def measured(expr: str) -> str:
    """The measurement in an alert's expression, without its bound, which holds on a good day."""
    measurement, bound, _ = re.split(r"\s+([<>])\s+[\d.]+\s*$", expr)
    assert bound
    return measurement


def test_every_query_of_the_dashboard_and_of_the_alerts_finds_data(service: Server, prometheus: Prometheus) -> None:
    alerts = {rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]}
    missing = {measured(expr) if expr in alerts else expr for expr in expressions()}
    assert len(missing) > 15
    deadline = time.monotonic() + DATA_S
    with Client(service.url) as client:
        for number in count():
            client.search_images(f"traffic {number}")
            client.search_images("the same again")
            client.search_captions(Image.new("RGB", (8, 8), (number % 256, number // 256, 77)))
            assert httpx.post(f"{service.url}/search/images", json={"text": ""}).status_code == 422
            if number % 20 == 19:
                missing = {expr for expr in missing if not prometheus.query(expr)}
                if not missing:
                    break
            assert time.monotonic() < deadline, f"no data for: {missing}"
            time.sleep(0.02)
    [up] = prometheus.query('up{job="bento-clip"}')
    assert up == 1
    assert prometheus.query("ALERTS") == [], "nothing is wrong with this service"


def test_values_are_those_of_the_service(service: Server, prometheus: Prometheus) -> None:
    def is_seen(expr: str, expected: float) -> bool:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if prometheus.query(expr) == [expected]:
                return True
            time.sleep(0.2)
        return False

    with Client(service.url) as client:
        client.clear_cache()
        client.search_images("in the cache")
        client.search_images("in the cache")
        stats = client.stats()
        body = b"x" * 2**17
        refused = httpx.post(f"{service.url}/search/images", content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code == 413
    assert is_seen('bento_clip_cache_requests_total{result="hit"}', stats.cache_hits)
    assert is_seen('bento_clip_cache_requests_total{result="miss"}', stats.cache_misses)
    assert is_seen("bento_clip_cache_size", 1)
    assert is_seen("bento_clip_requests_pending", 0)
    assert is_seen('bento_clip_index_rows{modality="images"}', 24)
    assert is_seen('bento_clip_turned_away_total{reason="too_large"} > bool 0', 1)
    resident = f'bento_clip_memory_bytes{{process="supervisor"}} / {_resident(service.process.pid)} > bool 0.8'
    assert is_seen(resident, 1)


def _resident(pid: int) -> int:
    import psutil

    size: int = psutil.Process(pid).memory_info().rss
    return size


@pytest.mark.parametrize(("what", "file"), [("config", "prometheus.yml"), ("rules", "alerts.yml")])
def test_promtool_finds_nothing_to_mend(prometheus_bin: Path, what: str, file: str) -> None:
    command = [str(prometheus_bin / "promtool"), "check", what, str(ROOT / "deploy/prometheus" / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_the_path_of_every_probe_answers(service: Server, probe: str) -> None:
    assert httpx.get(service.url + CONTAINER[probe]["httpGet"]["path"], timeout=10).status_code == 200


def test_the_health_check_of_compose_tells_a_service_from_none(service: Server) -> None:
    _, *command = COMPOSE["services"]["bento-clip"]["healthcheck"]["test"]
    assert command[0] == "python"

    def check(port: int) -> int:
        script = [part.replace("3000", str(port)) for part in command[1:]]
        return subprocess.run([sys.executable, *script], capture_output=True, check=False, timeout=30).returncode

    assert check(service.port) == 0
    assert check(reserve_port()) != 0


class Collector(ThreadingHTTPServer):
    """An OTLP collector over HTTP that keeps the spans that it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.spans: list[Span] = []

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


def tracing(collector: Collector, sample_rate: float) -> dict[str, str]:
    """The environment that turns traces on, as in docs/deploy.md."""
    options = {
        "services.tracing.exporter_type": "otlp",
        "services.tracing.sample_rate": sample_rate,
        "services.tracing.otlp.protocol": "http",
        "services.tracing.otlp.endpoint": f"http://127.0.0.1:{collector.server_port}/v1/traces",
        "services.tracing.excluded_urls": "metrics,livez,readyz",
    }
    joined = " ".join(f"{name}={json.dumps(value)}" for name, value in options.items())
    return {"BENTO_CLIP_TRACES": "true", "BENTOML_CONFIG_OPTIONS": joined, "OTEL_BSP_SCHEDULE_DELAY": "100"}


def test_a_request_s_stages_are_spans_inside_bentoml_s(launch: Launch, store: Store, collector: Collector) -> None:
    port = reserve_port()
    environment = {"BENTO_CLIP_ARTIFACT": store.tag, **tracing(collector, 1.0)}
    server = launch(bentoml_serve(port), port, **environment).wait_until_ready()
    with Client(server.url) as client:
        client.search_captions(Image.new("RGB", (8, 8), "red"))
        client.search_images("red")
    deadline = time.monotonic() + 20
    while len(collector.named("search")) < 2:
        assert time.monotonic() < deadline, f"{[span.name for span in collector.spans]}\n{server.text()}"
        time.sleep(0.1)
    spans = {span.span_id: span for span in collector.spans}
    assert collector.named("GET /readyz") == [], "it was asked many times, and probes are left out"
    stages = {"POST /search/text": ["decode", "encode", "search"], "POST /search/images": ["encode", "search"]}
    for request_name, names in stages.items():
        [request] = collector.named(request_name)
        inside = [span for span in spans.values() if span.parent_span_id == request.span_id]
        found = sorted((s for s in inside if s.name in names), key=lambda span: span.start_time_unix_nano)
        assert [span.name for span in found] == names
        assert {span.trace_id for span in found} == {request.trace_id}
        clocks_apart = 1_000_000
        for span in found:
            assert request.start_time_unix_nano <= span.start_time_unix_nano + clocks_apart
            assert span.end_time_unix_nano <= request.end_time_unix_nano + clocks_apart


def test_without_a_sample_rate_nothing_is_sent(launch: Launch, store: Store, collector: Collector) -> None:
    port = reserve_port()
    environment = {"BENTO_CLIP_ARTIFACT": store.tag, **tracing(collector, 0.0)}
    server = launch(bentoml_serve(port), port, **environment).wait_until_ready()
    with Client(server.url) as client:
        client.search_images("red")
    server.terminate()
    assert server.wait() == 0, server.text()
    assert collector.spans == []
