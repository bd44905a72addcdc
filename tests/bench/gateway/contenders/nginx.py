"""nginx `proxy_pass` with a key check: the floor, doing nothing else that a gateway does."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.bench.gateway import install, upstream
from tests.bench.gateway.contenders.base import CLIENT_KEY, Contender, Door, Launch, Place, bearer, free_port

_CONFIG = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_body_buffer_size 64k;
  keepalive_requests 1000000000;
  map_hash_bucket_size 256;
  map $http_authorization $allowed {{ default 0; "Bearer {client_key}" 1; }}
  upstream model {{ server 127.0.0.1:{upstream_port}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      if ($allowed = 0) {{ return 401; }}
      proxy_pass http://model;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {upstream_key}";
    }}
  }}
}}
"""


def _install(cache: Path) -> str:
    command = install.debian("nginx", ["nginx", "nginx-common"], cache)
    told = subprocess.run([*command, "-v"], capture_output=True, text=True, timeout=30, check=False).stderr
    return told.strip().rpartition("/")[2]


def _launch(place: Place) -> Launch:
    port = free_port()
    config = place.folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            folder=place.folder, port=port, upstream_port=place.upstream_port,
            client_key=CLIENT_KEY, upstream_key=upstream.KEY,
        )
    )  # fmt: skip
    command = install.debian("nginx", ["nginx", "nginx-common"], place.cache)
    arguments = ["-p", str(place.folder), "-e", str(place.folder / "error.log"), "-c", str(config)]
    return Launch([*command, *arguments], Door(port, upstream.MODEL, bearer(CLIENT_KEY)))


NGINX = Contender("nginx", _install, _launch, "key check by `map`, key swap; one worker, no log, unbuffered")
