"""An object store on the loopback address, moto's server for S3, that can vanish and come back."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

BUCKET = "pictures"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


class ObjectStore:
    """A bucket that has the files of a folder, for whoever has the right key; runs until `vanish`.

    Attributes:
        environment: what a program needs to find it and to be let in.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment: dict[str, str] = {}
        self._server: subprocess.Popen | None = None
        self.appear()

    def appear(self) -> None:
        """Serve the folder's files; moto keeps them in memory, so that they are put there again."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while True:
            try:
                self._post("reset", b"")
                break
            except OSError:
                assert time.monotonic() < deadline and self._server.poll() is None, "moto does not start"
                time.sleep(0.1)
        self._fill()

    def vanish(self) -> None:
        self._server.kill()
        self._server.wait()

    def _fill(self) -> None:
        self._client("s3").create_bucket(Bucket=BUCKET)
        for file in sorted(self.folder.rglob("*")):
            if file.is_file():
                key = f"{self.folder.name}/{file.relative_to(self.folder)}"
                self._client("s3").put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
        users = self._client("iam")
        users.create_user(UserName="reader")
        users.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(POLICY))
        key = users.create_access_key(UserName="reader")["AccessKey"]
        self.environment |= {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        self._post("reset-auth", b"0")  # from here on keys are checked

    def _post(self, path: str, data: bytes) -> None:
        request = urllib.request.Request(
            f"{self.address}/moto-api/{path}", data, {"Content-Type": "text/plain"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(request, timeout=30).close()

    def _client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.address,
            region_name="us-east-1",
            aws_access_key_id="anybody",
            aws_secret_access_key="anything",
        )
